"""The ground: the light it sends to the eye, under shadows and a partly hidden sky."""

from collections.abc import Sequence

import torch
from torch import Tensor

from igm_cli.plugins.clevr.camera import View
from igm_cli.plugins.clevr.context import Context
from igm_cli.plugins.clevr.reflectance import ggx
from igm_cli.plugins.clevr.shadows import ground_shade
from igm_cli.plugins.clevr.textures import TURN, pattern
from igm_cli.plugins.clevr.vectors import Vector, along, colored, dot, negative, pick, unit, view

_ROUGHNESS = 0.78
_FRESNEL = (0.0219, 0.1145)  # reflectance seen head-on and, added, at grazing angles
_SKY_HIDDEN = 0.6  # share of the sky's light lost where ground and object touch


def ground_picture(context: Context, camera: View) -> Tensor:
    """Linear colours [B·P,3] of the ground at the pixels' centres, shadows included."""
    pixels = len(camera.u)
    scene = torch.arange(camera.count, device=camera.u.device).repeat_interleave(pixels)
    direction = camera.directions(scene, camera.u.repeat(camera.count), camera.v.repeat(camera.count))
    point, _ = floor_point(pick(camera.origin, scene), direction)
    grid = view(point, camera.count, pixels)
    sky, shade = _open_sky(context, grid).reshape(-1), ground_shade(context, grid)
    return torch.stack(ground_light(context, scene, point, negative(unit(direction)), sky, shade), dim=-1)


def floor_point(start: Vector, direction: Vector) -> tuple[Vector, Tensor]:
    """Where rays [N] that go down meet the ground: points [N], and distances [N] in their lengths."""
    distance = -start[2] / direction[2].clamp_max(-1e-3)
    x, y, z = along(start, direction, distance)
    return (x, y, torch.zeros_like(z)), distance


def ground_light(
    context: Context, scene: Tensor, point: Vector, eye: Vector, sky: Tensor, shade: list[Tensor] | None
) -> Vector:
    """Radiance that the ground sends to the eye.

    Args:
        context: The batch.
        scene: [N] scene of each point.
        point: [N] on the ground.
        eye: [N] unit direction to the eye.
        sky: [N] share of the sky that is seen.
        shade: For each lamp the share [N] of it that is seen; None where nothing is in the way.

    Returns:
        [N] linear colours.
    """
    zero = torch.zeros_like(sky)
    up = (zero, zero, torch.ones_like(zero))
    total = colored(sky, context.ambient)
    for number, lamp in enumerate(context.lamps):
        strength, to = lamp.irradiance(scene, point, up)
        if not lamp.sun:
            strength = strength * (1 + ggx(up, to, eye, _ROUGHNESS, _FRESNEL))
        if shade is not None:
            strength = strength * shade[number]
        total = along(total, lamp.power, strength)
    return _textured(total, context.textures, point, context.seed[scene]) if context.textures else total


def _textured(color: Vector, textures: Sequence[str], point: Vector, seed: Tensor) -> Vector:
    """Gives the ground a pattern and a tint that depend on the seed [N] of its scene."""
    bright = 0.75 + 0.5 * pattern(textures, point, seed, 1.5, (31 * seed).frac())
    red, green, blue = (
        channel * bright * (1 + 0.2 * (TURN * (seed + number / 3)).cos())
        for number, channel in enumerate(color)
    )
    return red, green, blue


def _open_sky(context: Context, point: Vector) -> Tensor:
    """Share of the sky seen from ground points [B,P].

    Exact for a ball would be the second power of `nearness`; the renders show less far away, where the
    objects' own light makes up for it.
    """
    objects = context.objects
    offset = objects.offsets(point)
    size = (objects.radius * (objects.bound > 0)).clamp_min(1e-3).view(len(point[0]), -1, 1)
    nearness = size.square() / dot(offset, offset).clamp_min(1e-2)
    hidden = _SKY_HIDDEN * (offset[2] / size * nearness * nearness * nearness).clamp(0, 1)
    share = torch.ones_like(point[0])
    for number in range(objects.count):
        share = share * (1 - hidden[:, number])
    return share
