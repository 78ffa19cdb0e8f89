"""Colours of the objects that the camera sees: light of lamps and world, gloss, shadows, and reflections in metal.

The numbers are fitted by coordinate descent to Cycles renders of CLEVR's scene.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from igm_clevr_render.camera import Hits, View
from igm_clevr_render.geometry import FAR, constant, dot, nearest, normals, unit
from igm_clevr_render.ground import floor_point, ground_light
from igm_clevr_render.lamps import PlacedLamp, lamp_samples
from igm_clevr_render.materials import ggx, pattern
from igm_clevr_render.scenes import SceneBatch

_OBJECT_GAIN = 1.327  # takes the ground's albedo out of the lamps' powers
_GROUND_BOUNCE = 0.9  # light from below, relative to the world's
_GROUND_SHADOW = 0.35  # share of it that an object blocks close to the ground
_RUBBER = (1.0, (0.04, 0.5))  # roughness; reflectance seen head-on and, added, at grazing angles
_METAL = (0.068, (1.06, 0.0))
_METAL_DIFFUSE = 0.157
_METAL_MIRROR = 0.797  # reflectance for objects and ground; the lamps' is _METAL's
_MIRROR_BLUR = 0.038  # how far sub-pixels' mirror rays spread
_WORLD_SEEN = 0.406  # the world's light in a mirror, relative to the light it casts on the ground


class Surface(NamedTuple):
    """Points on objects."""

    which: Tensor  # the object [N]
    scene: Tensor  # its scene [N]
    point: Tensor  # the points in scene units [3,N]
    normal: Tensor  # outward unit vectors [3,N]
    rgb: Tensor  # linear colours [3,N]
    metal: Tensor  # whether the object is of metal, bool [N]

    @classmethod
    def of(cls, batch: SceneBatch, which: Tensor, point: Tensor) -> Surface:
        """Returns the surface of objects [N] at points [3,N] on them."""
        local = batch.to_local(which, point - batch.center[:, which])
        normal = batch.to_world(which, normals(batch.shape[which], local))
        scene, rgb = batch.scene(which), batch.rgb[:, which]
        if batch.textures:
            number, seed = which.remainder(batch.count), batch.seed[scene]
            choice = (seed * (97 + 61 * number)).frac()  # a different one for each object
            worn = pattern(batch.textures, local, (seed + number * 0.137).frac(), 3.0, choice)
            rgb = rgb * (0.35 + 0.85 * worn)
        return cls(which, scene, point, normal, rgb, batch.metal[which])


def shade_hits(batch: SceneBatch, view: View, hits: Hits) -> Tensor:
    """Returns linear colours [3,N] of the hits of the camera's rays."""
    scene = batch.scene(hits.which)
    surface = Surface.of(batch, hits.which, view.origin[:, scene] + hits.distance * hits.direction)
    eye = -unit(hits.direction)
    sub = hits.slot.remainder(len(view.places))
    shade = [_shade(batch, surface, lamp, sub) for lamp in batch.lamps]
    gloss, body = _gloss(batch, surface, eye, shade), _diffuse(batch, surface, shade)
    color = torch.where(surface.metal, body * _METAL_DIFFUSE + gloss * surface.rgb, body + gloss)

    shiny = surface.metal.nonzero().squeeze(1)
    mirror = Surface(*(value[..., shiny] for value in surface))
    color[:, shiny] += _mirrored(batch, mirror, eye[:, shiny], sub[shiny]) * mirror.rgb * _METAL_MIRROR
    return color


def _shade(batch: SceneBatch, surface: Surface, lamp: PlacedLamp, sub: Tensor) -> Tensor:
    """Returns 1 if a point sees a lamp, 0 if another object hides it; each sub-pixel aims at its own place."""
    line = lamp.sample(surface.scene, *lamp_samples(sub)) - surface.point
    ray, which = batch.others(surface.which, surface.point, line)
    hit = batch.intersect(which, surface.point[:, ray], line[:, ray]) < FAR
    seen = torch.ones_like(line[0])
    seen[ray[hit]] = 0.0
    return seen


def _diffuse(batch: SceneBatch, surface: Surface, shade: list[Tensor] | None) -> Tensor:
    """Returns the Lambertian reflection of surfaces [3,N], for the share of each lamp that they see."""
    below = (1 - surface.normal[2]) / 2
    # Close to the ground, an object darkens the ground that it sees
    near = 1 - below * (1 - surface.point[2]).clamp(0, 1) * _GROUND_SHADOW
    total = batch.sky((1 - below + below * _GROUND_BOUNCE) * near)
    for number, lamp in enumerate(batch.lamps):
        strength, _ = lamp.irradiance(surface.scene, surface.point, surface.normal)
        if shade is not None:
            strength = strength * shade[number]
        total = total + strength * lamp.power
    return total * surface.rgb * _OBJECT_GAIN


def _gloss(batch: SceneBatch, surface: Surface, eye: Tensor, shade: list[Tensor]) -> Tensor:
    """Returns the highlights of the lamps [3,N] without the colour of the surface, for unit directions to the eye."""
    total = torch.zeros_like(eye)
    for number, lamp in enumerate(batch.lamps):
        strength, to = lamp.irradiance(surface.scene, surface.point, surface.normal)
        rubber = ggx(surface.normal, to, eye, *_RUBBER)
        metal = ggx(surface.normal, to, eye, *_METAL)
        strength = strength * shade[number] * torch.where(surface.metal, metal, rubber) * _OBJECT_GAIN
        total = total + strength * lamp.power
    return total


def _mirrored(batch: SceneBatch, surface: Surface, eye: Tensor, sub: Tensor) -> Tensor:
    """Returns the reflections in surfaces [3,N]: other objects, the ground, the world.

    Each sub-pixel looks in its own direction, since metal is slightly rough.
    """
    a, b = lamp_samples(sub)
    rough = torch.stack([a, -a, b]) * (2 * _MIRROR_BLUR)
    direction = unit(surface.normal * (2 * dot(surface.normal, eye)) - eye + rough)

    floor, distance = floor_point(surface.point, direction)
    sky = 1 - 0.6 * torch.exp(-distance * 1.5)
    ground = ground_light(batch, surface.scene, floor, -direction, sky, None)
    world = constant([light * _WORLD_SEEN for light in batch.ambient], ground)
    color = torch.where(direction[2] > -1e-3, world, ground)

    ray, which = batch.others(surface.which, surface.point, direction)
    distance = batch.intersect(which, surface.point[:, ray], direction[:, ray])
    first = nearest(ray, distance, len(sub))
    ray, which = ray[first], which[first]
    point = surface.point[:, ray] + distance[first] * direction[:, ray]
    color[:, ray] = _diffuse(batch, Surface.of(batch, which, point), None)
    return color
