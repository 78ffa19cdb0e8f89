"""The ground: the light it reflects to the eye, under shadows and a partly hidden sky."""

import torch
from torch import Tensor

from igm_clevr_render.camera import View
from igm_clevr_render.geometry import FAR, constant, dot, unit
from igm_clevr_render.lamps import LAMP_SAMPLES, PlacedLamp
from igm_clevr_render.materials import TURN, ggx, pattern
from igm_clevr_render.scenes import SceneBatch

_FLOOR = (0.78, (0.0219, 0.1145))  # roughness; reflectance seen head-on and, added, at grazing angles
_SKY_HIDDEN = 0.6  # share of the sky's light lost where ground and object touch
_PENUMBRA = 1.3  # how far half shadows reach, in radii of the bounding sphere


def ground_image(batch: SceneBatch, view: View) -> Tensor:
    """Returns linear colours [3,B·P] of the ground at the pixels' centres, shadows included."""
    scenes, pixels = len(batch), len(view.u)
    scene = torch.arange(scenes, device=view.u.device).repeat_interleave(pixels)
    direction = view.directions(scene, view.u.repeat(scenes), view.v.repeat(scenes))
    point, _ = floor_point(view.origin[:, scene], direction)
    grid = point.view(3, scenes, pixels)
    offset = batch.offsets(grid)
    sky, shade = _open_sky(batch, offset).reshape(-1), _shade(batch, grid, offset)
    return ground_light(batch, scene, point, -unit(direction), sky, shade)


def floor_point(start: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Returns where downward rays hit the ground: points [3,N], and distances [N] in lengths of the direction."""
    distance = -start[2] / direction[2].clamp_max(-1e-3)
    point = start + distance * direction
    point[2] = 0.0
    return point, distance


def ground_light(
    batch: SceneBatch, scene: Tensor, point: Tensor, eye: Tensor, sky: Tensor, shade: list[Tensor] | None
) -> Tensor:
    """Returns the linear colours [3,N] that the ground reflects to the eye.

    Args:
        batch: The scenes.
        scene: Scene of each point [N].
        point: Points on the ground [3,N].
        eye: Unit directions to the eye [3,N].
        sky: Visible share of the sky [N].
        shade: Visible share of each lamp [N]; None if nothing is in the way.
    """
    up = constant((0.0, 0.0, 1.0), point).expand_as(point)
    total = batch.sky(sky)
    for number, lamp in enumerate(batch.lamps):
        strength, to = lamp.irradiance(scene, point, up)
        if not lamp.sun:
            strength = strength * (1 + ggx(up, to, eye, *_FLOOR))
        if shade is not None:
            strength = strength * shade[number]
        total = total + strength * lamp.power
    if not batch.textures:
        return total
    # A pattern and a tint that depend on the seed of the scene
    seed = batch.seed[scene]
    bright = 0.75 + 0.5 * pattern(batch.textures, point, seed, 1.5, (31 * seed).frac())
    return total * bright * (1 + 0.2 * (TURN * (seed + constant((0, 1 / 3, 2 / 3), seed))).cos())


def _open_sky(batch: SceneBatch, offset: Tensor) -> Tensor:
    """Returns the share of the sky visible from ground points [B,P].

    The second power of `nearness` would be exact for a ball; the renders darken less far away, where the objects' own
    light compensates. `offset` leads from the points to the objects [3,B,K,P].
    """
    size = (batch.radius * (batch.bound > 0)).clamp_min(1e-3).view(len(batch), -1, 1)
    nearness = size.square() / dot(offset, offset).clamp_min(1e-2)
    hidden = _SKY_HIDDEN * (offset[2] / size * nearness * nearness * nearness).clamp(0, 1)
    share = torch.ones_like(offset[0, :, 0])
    for number in range(batch.count):
        share = share * (1 - hidden[:, number])
    return share


def _shade(batch: SceneBatch, point: Tensor, offset: Tensor) -> list[Tensor]:
    """Returns the share of each lamp [B·P] that ground points [3,B,P] see; `offset` as in `_open_sky`."""
    bound = batch.bound.view(len(batch), -1, 1) * _PENUMBRA
    tangent = dot(offset, offset) - bound.square()  # squared lengths of tangents to bounding spheres, [B,K,P]
    return [_lamp_shade(batch, lamp, point, offset, tangent) for lamp in batch.lamps]


def _lamp_shade(batch: SceneBatch, lamp: PlacedLamp, point: Tensor, offset: Tensor, tangent: Tensor) -> Tensor:
    _, scenes, pixels = point.shape
    line = lamp.place[:, :, None] - point
    ahead = dot(offset, line[:, :, None])
    # Where a bounding sphere may be between lamp and point
    touched = (tangent * dot(line, line)[:, None] < ahead * ahead) & (ahead > 0)
    touched &= batch.bound.view(scenes, -1, 1) > 0
    scene, item, pixel = touched.nonzero(as_tuple=True)
    which, slot = scene * batch.count + item, scene * pixels + pixel
    start = point.reshape(3, -1)[:, slot]
    dark = torch.zeros(len(LAMP_SAMPLES), scenes * pixels, device=which.device)
    for number, (a, b) in enumerate(LAMP_SAMPLES):
        hit = batch.intersect(which, start, lamp.sample(scene, a, b) - start) < FAR
        dark[number, slot[hit]] = 1.0
    return 1 - (dark[0] + dark[1] + dark[2] + dark[3]) / len(LAMP_SAMPLES)
