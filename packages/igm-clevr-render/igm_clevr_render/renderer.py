"""A batched ray caster for CLEVR scenes in plain torch.

It imitates Blender's image of CLEVR's scene: lamps, materials and tone were fitted to Cycles renders. It is fast
because it traces little: bounding spheres, tested for all pixels at once, leave short flat lists of (ray, object)
candidates, and only these are intersected.

Lengths are in scene units; z points up, the ground is z = 0; colours are linear until the last step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from igm_clevr_render.camera import View, first_hits
from igm_clevr_render.ground import ground_image
from igm_clevr_render.options import SceneOptions
from igm_clevr_render.scenes import Scene, SceneBatch
from igm_clevr_render.shading import shade_hits

_SOFTEN = 0.025  # share of a pixel's light that each neighbour gets


@torch.inference_mode()
def render(
    scenes: Sequence[Scene], options: SceneOptions, device: str | torch.device = "cpu", chunk: int = 16
) -> Tensor:
    """Returns the images of B scenes as bytes [B,3,H,W], rendered on a device `chunk` at a time, for memory.

    It uses only light, texture and image size of the options.
    """
    parts = (SceneBatch.of(scenes[i : i + chunk], options, device) for i in range(0, len(scenes), chunk))
    return torch.cat([_render(part, *options.image_size) for part in parts])


def _render(batch: SceneBatch, width: int, height: int) -> Tensor:
    view = View.of(batch.camera, (width, height))
    subs = len(view.places)
    image = ground_image(batch, view).repeat_interleave(subs, dim=1)  # [3,B·P·S]
    hits = first_hits(batch, view)
    image[:, hits.slot] = shade_hits(batch, view, hits)
    places = image.clamp_(0, 1).view(3, len(batch), height, width, subs).unbind(-1)
    mean = sum(places[1:], start=places[0]) / subs  # a plain sum, whose order no batch changes
    return _to_bytes(_soften(mean)).transpose(0, 1).contiguous()


def _soften(image: Tensor) -> Tensor:
    """Spreads a little light to the neighbours in [3,B,H,W], as Blender's pixel filter and denoiser do."""
    for axis in (2, 3):
        size = image.shape[axis]
        ends = image.narrow(axis, 0, 1), image.narrow(axis, size - 1, 1)
        before = torch.cat([ends[0], image.narrow(axis, 0, size - 1)], dim=axis)
        after = torch.cat([image.narrow(axis, 1, size - 1), ends[1]], dim=axis)
        image = image * (1 - 2 * _SOFTEN) + (before + after) * _SOFTEN
    return image


def _to_bytes(linear: Tensor) -> Tensor:
    """Returns linear light as sRGB bytes (IEC 61966-2-1)."""
    x = linear.clamp(0, 1)
    curve = torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp_min(1e-4).pow(1 / 2.4) - 0.055)
    return (curve * 255 + 0.5).to(torch.uint8)
