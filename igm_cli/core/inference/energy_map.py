"""The energy map: how much of an image every concept explains alone.

    gain(c) = E_{t,eps} ‖r‖² - ‖r - Delta_c‖² = E_{t,eps} 2 <r,Delta_c> - ‖Delta_c‖²,     r = eps - eps_u

is the energy of no concept less that of c (Du, Li & Mordatch 2020, Figure 12): it is high where there is something.
At high noise levels nearby objects merge; the map is computed at the levels of the settings.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from igm_cli.core.device import divided_work, side_by_side
from igm_cli.core.inference.candidates import DRAWS_AT_ONCE
from igm_cli.core.inference.noised_batch import noised
from igm_cli.core.noise_schedule import drawn, views_of_draws
from igm_cli.core.types import InversionSettings

if TYPE_CHECKING:
    from igm_cli.core.denoiser import Denoiser


def energy_map(denoiser: Denoiser, image: Tensor, settings: InversionSettings, candidates: Tensor) -> Tensor:
    """Returns how much each of M concepts alone lowers the denoising error ``[M]``, float64 on the CPU.

    Args:
        denoiser: The model.
        image: An image ``[C,H,W]`` in -1..1 on the denoiser's device, or V views of it ``[V,C,H,W]``.
        settings: ``draws``, ``low``, ``high``, ``power`` and ``seed`` are used.
        candidates: Concepts ``[M,D]``.
    """
    s, shape = settings, tuple(image.shape[-3:])

    def gains(start: int) -> tuple[Tensor, Tensor]:
        count = min(DRAWS_AT_ONCE, s.draws - start)
        draws = drawn(denoiser.schedule, shape, count, s.low, s.high, s.seed, start, image.device)
        seen = noised(denoiser, views_of_draws(image, start, count)[:, None], draws, s.power)
        pull, square = (each[0].cpu().double() for each in seen.explained(candidates.to(image.device)))
        return 2 * pull - square, seen.importance.cpu().double().sum()

    with torch.no_grad(), divided_work(image.device):
        every = side_by_side(gains, range(0, s.draws, DRAWS_AT_ONCE))
    total = torch.stack([weight for _, weight in every]).sum() * math.prod(shape)
    gain: Tensor = torch.stack([gain for gain, _ in every]).sum(0) / total
    return gain
