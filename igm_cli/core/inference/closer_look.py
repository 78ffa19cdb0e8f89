"""A closer look: where in an image the error stands, at noise levels of the whole range.

The errors that inversion sees are means over the image, at the noise levels that tell concepts apart.  A model that was
trained on scenes of one layout can denoise another picture as well as these on average, but not in the same places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from igm_cli.core.composition import Composition, compose
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.noised_batch import precision_of
from igm_cli.core.noise_schedule import drawn

DRAWS = 4
"""Noise samples at each level."""


class Look(NamedTuple):
    """A closer look at an image.

    Attributes:
        errors: Mean error in each region, level by level ``[L*regions^2]``.
        calls: Network calls that it took.
    """

    errors: Tensor
    calls: int


def closer_look(
    denoiser: Denoiser,
    images: Tensor,
    concepts: Sequence[Tensor],
    composition: Composition,
    levels: Sequence[float],
    regions: int,
    seed: int,
) -> list[Look]:
    """Returns a closer look at each of b images: the mean error of the composed prediction in each region.

    Args:
        denoiser: The model.
        images: ``[b,C,H,W]``, or V views of each ``[b,V,C,H,W]``, of which the first is looked at.
        concepts: The answer for each image ``[K,D]``.
        composition: How contributions add up.
        levels: L noise levels, as fractions of T.
        regions: Parts along each side of an image.
        seed: Seed of the noise, which all images and levels share.
    """
    images = images if images.dim() == 4 else images[:, 0]
    b, device = len(images), images.device
    most = max(map(len, concepts))
    padded = torch.zeros(b, most, denoiser.space.dim, device=device)
    present = torch.zeros(b, most, dtype=torch.bool, device=device)
    for row, each in enumerate(concepts):
        padded[row, : len(each)], present[row, : len(each)] = each.to(padded), True
    noise = drawn(denoiser.schedule, tuple(images.shape[1:]), DRAWS, 0.0, 1.0, seed, 0, device).noise
    rows = noise.repeat(b, 1, 1, 1)  # [b*DRAWS,C,H,W]
    clean, padded, present = (each.repeat_interleave(DRAWS, dim=0) for each in (images, padded, present))
    seen = []
    for level in levels:
        t = torch.full((len(rows),), round(level * (denoiser.schedule.steps - 1)), device=device)
        with precision_of(denoiser, device):
            features = denoiser.features(denoiser.schedule.add_noise(clean, rows, t), t)
            prediction = denoiser.base(features).float()
            if most:
                prediction = compose(
                    prediction, denoiser.contributions(features, padded).float(), composition, present
                )
        seen.append((rows - prediction).square().mean(1).unflatten(0, (b, DRAWS)).mean(1))
    every = torch.stack(seen, dim=1).cpu()  # [b,L,H,W]; MPS cannot divide sides into regions of unequal size
    errors = adaptive_avg_pool2d(every, regions).flatten(1)
    calls = [DRAWS * len(levels) * (1 + len(each) * denoiser.space.calls_per_concept) for each in concepts]
    return list(map(Look, errors, calls))
