"""Surfaces of objects: their colours, and the lamps' and the world's light that they send back.

The numbers are fitted by coordinate descent to Cycles renders of CLEVR's scene.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from igm_cli.plugins.clevr.context import Context
from igm_cli.plugins.clevr.reflectance import ggx
from igm_cli.plugins.clevr.shapes import normals
from igm_cli.plugins.clevr.textures import pattern
from igm_cli.plugins.clevr.vectors import Vector, along, colored, minus, pick, scaled, times

_OBJECT_GAIN = 1.327  # takes the ground's albedo out of the lamps' powers
_GROUND_BOUNCE = 0.9  # light from below, relative to the world's
_GROUND_SHADOW = 0.35  # share of it that an object takes away close to the ground
_RUBBER_ROUGHNESS = 1.0
_RUBBER_FRESNEL = (0.04, 0.5)
_METAL_ROUGHNESS = 0.068
_METAL_FRESNEL = (1.06, 0.0)


class Surface(NamedTuple):
    """Points on objects.

    Attributes:
        which: [N] object.
        scene: [N] scene.
        point: [N] world.
        normal: [N] world, unit.
        rgb: [N] linear colour.
        metal: [N] bool.
    """

    which: Tensor
    scene: Tensor
    point: Vector
    normal: Vector
    rgb: Vector
    metal: Tensor

    @classmethod
    def of(cls, context: Context, which: Tensor, point: Vector) -> Surface:
        """Looks up what objects are like at points [N] on them."""
        objects = context.objects
        local = objects.to_local(which, minus(point, pick(objects.center, which)))
        normal = objects.to_world(which, normals(objects.shape[which], local))
        rgb = _albedo(context, which, local)
        return cls(which, objects.scene(which), point, normal, rgb, objects.metal[which])

    def part(self, index: Tensor) -> Surface:
        """The points with the given numbers."""
        point, normal, rgb = pick(self.point, index), pick(self.normal, index), pick(self.rgb, index)
        return Surface(self.which[index], self.scene[index], point, normal, rgb, self.metal[index])


def _albedo(context: Context, which: Tensor, local: Vector) -> Vector:
    rgb = pick(context.objects.rgb, which)
    if not context.textures:
        return rgb
    number = which.remainder(context.objects.count)
    seed = (context.objects.seed[which] + number * 0.137).frac()
    choice = (context.objects.seed[which] * (97 + 61 * number)).frac()  # another one for each object
    return scaled(rgb, 0.35 + 0.85 * pattern(context.textures, local, seed, 3.0, choice))


def diffuse(context: Context, surface: Surface, shade: list[Tensor] | None) -> Vector:
    """Lambert's share of the light that surfaces send back.

    Args:
        context: The batch.
        surface: N points.
        shade: For each lamp the share [N] of it that is seen; None where nothing is in the way.

    Returns:
        [N] linear colours.
    """
    below = (1 - surface.normal[2]) / 2
    # Close to the ground the object darkens what it sees of it
    near = 1 - below * (1 - surface.point[2]).clamp(0, 1) * _GROUND_SHADOW
    total = colored((1 - below + below * _GROUND_BOUNCE) * near, context.ambient)
    for number, lamp in enumerate(context.lamps):
        strength, _ = lamp.irradiance(surface.scene, surface.point, surface.normal)
        if shade is not None:
            strength = strength * shade[number]
        total = along(total, lamp.power, strength)
    return scaled(times(total, surface.rgb), _OBJECT_GAIN)


def highlights(context: Context, surface: Surface, eye: Vector, shade: list[Tensor]) -> Vector:
    """Gloss of the lamps on surfaces.

    Args:
        context: The batch.
        surface: N points.
        eye: [N] unit direction to the eye.
        shade: For each lamp the share [N] of it that is seen.

    Returns:
        [N] linear colours, without the colour of the surface.
    """
    normal = surface.normal
    dark = torch.zeros_like(eye[0])
    total = (dark, dark, dark)
    for number, lamp in enumerate(context.lamps):
        strength, to = lamp.irradiance(surface.scene, surface.point, normal)
        rubber = ggx(normal, to, eye, _RUBBER_ROUGHNESS, _RUBBER_FRESNEL)
        metal = ggx(normal, to, eye, _METAL_ROUGHNESS, _METAL_FRESNEL)
        strength = strength * shade[number] * torch.where(surface.metal, metal, rubber) * _OBJECT_GAIN
        total = along(total, lamp.power, strength)
    return total
