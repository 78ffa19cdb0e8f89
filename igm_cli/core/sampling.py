"""Images from concepts: deterministic sampling of the composed model (DDIM, Song et al. 2021)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from igm_cli.core.composition import Composition, compose
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.device import inference_precision


def sample(
    denoiser: Denoiser,
    concepts: Tensor,
    shape: tuple[int, int, int],
    composition: Composition = "sum",
    *,
    present: Tensor | None = None,
    steps: int = 30,
    seed: int = 0,
) -> Tensor:
    """One image for every set of concepts.

    Args:
        denoiser: The model.
        concepts: ``[B,K,D]`` on its device.
        shape: (C, H, W) of an image.
        composition: How the model composes.
        present: ``[B,K]`` booleans, False for padding.
        steps: Denoising steps.
        seed: Of the noise everything starts from.

    Returns:
        ``[B,C,H,W]``, nominally in -1..1.
    """
    schedule = denoiser.schedule
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(concepts), *shape, generator=generator).to(concepts.device)
    times = torch.linspace(schedule.steps - 1, 0, steps + 1).round().long().tolist()
    with torch.no_grad():
        for now, after in itertools.pairwise(times):
            t = torch.full((len(x),), now, device=x.device)
            with inference_precision(x.device):
                features = denoiser.features(x, t)
                base, delta = denoiser.base(features), denoiser.contributions(features, concepts)
            epsilon = compose(base.float(), delta.float(), composition, present)
            x0 = schedule.predict_x0(epsilon, x, t).clamp(-1, 1)
            # eps is taken from the clamped x0, so that both describe the same x.
            sigma = schedule.sigma(t)[:, None, None, None]
            epsilon = (x - schedule.alpha(t)[:, None, None, None] * x0) / sigma
            x = schedule.add_noise(x0, epsilon, torch.full_like(t, after))
    return x0
