"""What metal mirrors: other objects, the ground, the world."""

import torch
from torch import Tensor

from igm_cli.plugins.clevr.context import Context
from igm_cli.plugins.clevr.ground import floor_point, ground_light
from igm_cli.plugins.clevr.lamps import lamp_samples
from igm_cli.plugins.clevr.shapes import FAR
from igm_cli.plugins.clevr.surfaces import Surface, diffuse
from igm_cli.plugins.clevr.vectors import Vector, along, choose, dot, minus, negative, pick, scaled, unit

_BLUR = 0.038  # how far sub-pixels' mirror rays spread
_WORLD_SEEN = 0.406  # what a mirror sees of the world, relative to the light the world casts on the ground


def mirrored(context: Context, surface: Surface, eye: Vector, sub: Tensor) -> Vector:
    """What is seen in surfaces.

    Args:
        context: The batch.
        surface: N points.
        eye: [N] unit direction to the eye.
        sub: [N] number of the sub-pixel.

    Returns:
        [N] linear colours.
    """
    direction = _bounced(surface.normal, eye, sub)
    color = _background(context, surface, direction)
    ray, which, distance = _nearest(context, surface, direction)
    hit = along(pick(surface.point, ray), pick(direction, ray), distance)
    seen = diffuse(context, Surface.of(context, which, hit), None)
    for channel, value in zip(color, seen, strict=True):
        channel[ray] = value
    return color


def _bounced(normal: Vector, eye: Vector, sub: Tensor) -> Vector:
    """Unit directions [N] off a mirror that is a little rough: one direction a sub-pixel."""
    x, y, z = minus(scaled(normal, 2 * dot(normal, eye)), eye)
    a, b = lamp_samples(sub)
    return unit((x + a * (2 * _BLUR), y - a * (2 * _BLUR), z + b * (2 * _BLUR)))


def _background(context: Context, surface: Surface, direction: Vector) -> Vector:
    """What is seen along directions [N] where no object is: the ground below, the world above."""
    floor, distance = floor_point(surface.point, direction)
    sky = 1 - 0.6 * torch.exp(-distance * 1.5)
    ground = ground_light(context, surface.scene, floor, negative(direction), sky, None)
    red, green, blue = (light * _WORLD_SEEN for light in context.ambient)
    return choose(direction[2] > -1e-3, (red, green, blue), ground)


def _nearest(context: Context, surface: Surface, direction: Vector) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest other objects along directions [N]: ray number, object and distance, each [M]."""
    ray, which = context.objects.others(surface.which, surface.point, direction)
    distance = context.objects.intersect(which, pick(surface.point, ray), pick(direction, ray))
    nearest = torch.full_like(direction[0], FAR).scatter_reduce_(0, ray, distance, "amin")
    keep = ((distance < FAR) & (distance == nearest[ray])).nonzero().squeeze(1)
    return ray[keep], which[keep], distance[keep]
