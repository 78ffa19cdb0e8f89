"""Shadows: the share of each lamp that points see."""

import torch
from torch import Tensor

from igm_cli.plugins.clevr.context import Context
from igm_cli.plugins.clevr.lamps import LAMP_SAMPLES, PlacedLamp, lamp_samples
from igm_cli.plugins.clevr.shapes import FAR
from igm_cli.plugins.clevr.surfaces import Surface
from igm_cli.plugins.clevr.vectors import Vector, dot, minus, pick

_PENUMBRA = 1.3  # how far half shadows reach, in radii of the bounding sphere


def ground_shade(context: Context, point: Vector) -> list[Tensor]:
    """Share of each lamp that ground points see.

    Args:
        context: The batch of B scenes.
        point: [B,P] on the ground.

    Returns:
        For each lamp [B·P].
    """
    offset = context.objects.offsets(point)
    bound = context.objects.bound.view(len(point[0]), -1, 1) * _PENUMBRA
    reach = dot(offset, offset) - bound.square()
    return [_lamp_shade(context, lamp, point, offset, reach) for lamp in context.lamps]


def _lamp_shade(context: Context, lamp: PlacedLamp, point: Vector, offset: Vector, reach: Tensor) -> Tensor:
    """Share of one lamp that ground points see.

    Args:
        context: The batch of B scenes of K objects.
        lamp: The lamp.
        point: [B,P] on the ground.
        offset: [B,K,P] from the points to the objects.
        reach: [B,K,P] squared length of the tangents from the points to the bounding spheres.

    Returns:
        [B·P].
    """
    scenes, pixels = point[0].shape
    scene, item, pixel = _touched(context, lamp, point, offset, reach)
    which, subs = scene * context.objects.count + item, len(LAMP_SAMPLES)
    start = (point[0][scene, pixel], point[1][scene, pixel], point[2][scene, pixel])
    dark = torch.zeros(subs, scenes * pixels, device=which.device)
    for number, (a, b) in enumerate(LAMP_SAMPLES):
        hit = context.objects.intersect(which, start, minus(lamp.sample(scene, a, b), start)) < FAR
        dark[number, (scene * pixels + pixel)[hit]] = 1.0
    return 1 - (dark[0] + dark[1] + dark[2] + dark[3]) / subs


def _touched(
    context: Context, lamp: PlacedLamp, point: Vector, offset: Vector, reach: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers [M] of scene, object and point where a bounding sphere may stand between lamp and point."""
    x, y, z = (place[:, None] - p for place, p in zip(lamp.place, point, strict=True))
    ahead = dot(offset, (x[:, None], y[:, None], z[:, None]))
    touched = (reach * dot((x, y, z), (x, y, z))[:, None] < ahead * ahead) & (ahead > 0)
    touched &= context.objects.bound.view(len(x), -1, 1) > 0
    scene, item, pixel = touched.nonzero(as_tuple=True)
    return scene, item, pixel


def object_shade(context: Context, surface: Surface, lamp: PlacedLamp, sub: Tensor) -> Tensor:
    """Whether points on objects see a lamp.

    Args:
        context: The batch.
        surface: N points.
        lamp: The lamp.
        sub: [N] number of the sub-pixel; each aims at its own place on the lamp.

    Returns:
        [N], 1 where the lamp is seen, 0 where another object hides it.
    """
    line = minus(lamp.sample(surface.scene, *lamp_samples(sub)), surface.point)
    ray, which = context.objects.others(surface.which, surface.point, line)
    hit = context.objects.intersect(which, pick(surface.point, ray), pick(line, ray)) < FAR
    seen = torch.ones_like(line[0])
    seen[ray[hit]] = 0.0
    return seen
