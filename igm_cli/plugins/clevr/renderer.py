"""A batched ray caster for CLEVR scenes in plain torch.

It imitates Blender's picture of CLEVR's scene: lamps, materials and tone were fitted to Cycles renders
(`data/clevr_blender`). It is fast because little is traced: bounding spheres, tested for all pixels at once,
leave short flat lists of (ray, object) candidates, and only these are intersected.

Scene units throughout; z points up, the ground is z = 0; colours are linear until the last step.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from igm_cli.plugins.clevr.camera import View
from igm_cli.plugins.clevr.context import Context
from igm_cli.plugins.clevr.ground import ground_picture
from igm_cli.plugins.clevr.layout import Scenes
from igm_cli.plugins.clevr.shading import shade_hits
from igm_cli.plugins.clevr.visibility import first_hits

_SOFTEN = 0.025  # share of a pixel's light that each neighbour gets


@torch.inference_mode()
def render(
    scenes: Scenes,
    image_size: tuple[int, int] | None = None,
    device: str | torch.device = "cpu",
    samples: int = 2,
    chunk: int = 16,
) -> Tensor:
    """Renders a batch of scenes.

    Args:
        scenes: B scenes.
        image_size: (width, height) in pixels; the scenes' own by default.
        device: Where to cast the rays.
        samples: Rays along each side of a pixel where objects are.
        chunk: Scenes at a time, for memory; does not change the result.

    Returns:
        uint8 [B,3,H,W] on `device`.
    """
    size = image_size or scenes.options.image_size
    parts = (_part(scenes, first, first + chunk, device) for first in range(0, len(scenes), chunk))
    return torch.cat([_render(part, size, samples) for part in parts])


def _part(scenes: Scenes, first: int, last: int, device: str | torch.device) -> Scenes:
    """Scenes first .. last - 1, on the device."""
    tensors = {name: value for name, value in vars(scenes).items() if isinstance(value, Tensor)}
    moved: dict[str, Any] = {name: value[first:last].to(device) for name, value in tensors.items()}
    return replace(scenes, **moved, layouts=scenes.layouts[first:last])


def _render(scenes: Scenes, image_size: tuple[int, int], samples: int) -> Tensor:
    width, height = image_size
    camera = View.of(scenes.camera, image_size, samples)
    context = Context.of(scenes)
    subs = len(camera.offsets)
    picture = ground_picture(context, camera)[:, None].expand(-1, subs, -1).reshape(-1, 3)
    hits = first_hits(context.objects, camera)
    picture[hits.slot] = shade_hits(context, camera, hits)
    picture = _mean(picture.clamp_(0, 1).view(-1, subs, 3))
    return _to_bytes(_soften(picture.view(-1, height, width, 3))).permute(0, 3, 1, 2).contiguous()


def _mean(picture: Tensor) -> Tensor:
    """Means [N,3] of sub-pixels [N,S,3], by a plain sum whose order no batch changes."""
    total = picture[:, 0]
    for sub in range(1, picture.shape[1]):
        total = total + picture[:, sub]
    return total / picture.shape[1]


def _soften(picture: Tensor) -> Tensor:
    """Spreads a little light to the neighbours of [B,H,W,3], as Blender's pixel filter and denoiser do."""
    for axis in (1, 2):
        size = picture.shape[axis]
        ends = picture.narrow(axis, 0, 1), picture.narrow(axis, size - 1, 1)
        before = torch.cat([ends[0], picture.narrow(axis, 0, size - 1)], dim=axis)
        after = torch.cat([picture.narrow(axis, 1, size - 1), ends[1]], dim=axis)
        picture = picture * (1 - 2 * _SOFTEN) + (before + after) * _SOFTEN
    return picture


def _to_bytes(linear: Tensor) -> Tensor:
    """Linear light to sRGB bytes (IEC 61966-2-1)."""
    x = linear.clamp(0, 1)
    curve = torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp_min(1e-4).pow(1 / 2.4) - 0.055)
    return (curve * 255 + 0.5).to(torch.uint8)
