"""Evidence of labels: one network call a label and draw, none for the prediction that labels share.

Under the mean composition the prediction under no label cancels,

    eps_u + 1/K sum_S (eps_j - eps_u) = 1/K sum_S eps_j,

so anything may stand in its place; the mean over the labels asked for keeps the inner products small, and
with them the rounding.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.evidence import Evidence
from igm_cli.core.inference.look import importance_of
from igm_cli.core.noise_schedule import Draws

FLOATS_AT_ONCE = 2**26
"""Of predictions: bounds the memory."""


@runtime_checkable
class Whole(Protocol):
    """A denoiser that has whole predictions under single concepts, at one network call each."""

    def predictions(self, features: Any, concepts: Tensor) -> Tensor:
        """eps_theta(x_t, t | c_j), ``[N,M,C,H,W]`` float32, of concepts ``[1,M,D]``."""
        ...


def predictions(denoiser: Denoiser, features: Any, concepts: Tensor) -> Tensor:
    """eps_theta(x_t, t | c_j) ``[N,M,C,H,W]`` of any denoiser, for concepts ``[M,D]``."""
    if isinstance(denoiser, Whole):
        return denoiser.predictions(features, concepts[None])
    return denoiser.base(features)[:, None] + denoiser.contributions(features, concepts[None])


def label_evidence(
    denoiser: Denoiser, image: Tensor, draws: Draws, candidates: Tensor, composition: Composition, power: float
) -> Evidence:
    """The evidence of candidates ``[M,D]`` under N draws, on the CPU, where it is searched.

    Args:
        denoiser: The model.
        image: What it denoises ``[C,H,W]``, or what it does under every draw ``[N,C,H,W]``.
        draws: N of them.
        candidates: ``[M,D]``.
        composition: ``mean``, or ``sum``, which needs a call for eps_u under every draw, too.
        power: Weight (sigma/alpha)^power of a draw.
    """
    at_once = max(1, FLOATS_AT_ONCE // (len(candidates) * draws.noise[0].numel()))
    images = image.expand_as(draws.noise).split(at_once)
    parts = [
        _part(denoiser, seen, Draws(t, noise).to(image.device), candidates, composition, power)
        for seen, t, noise in zip(images, draws.t.split(at_once), draws.noise.split(at_once), strict=True)
    ]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.join(part)
    return joined


def _part(
    denoiser: Denoiser, images: Tensor, draws: Draws, candidates: Tensor, composition: Composition, power: float
) -> Evidence:
    features = denoiser.features(denoiser.schedule.add_noise(images, draws.noise, draws.t), draws.t)
    predicted = predictions(denoiser, features, candidates).flatten(2)  # [N,M,P]
    base = predicted.mean(1) if composition == "mean" else denoiser.base(features).flatten(1)
    residual, delta = draws.noise.flatten(1) - base, predicted - base[:, None]
    pixels = residual.shape[1]
    return Evidence(
        residual.square().mean(1).cpu(),
        (torch.einsum("nmp,np->nm", delta, residual) / pixels).cpu(),
        (torch.bmm(delta, delta.mT) / pixels).cpu(),
        composition,
        importance_of(denoiser, draws.t, power).cpu(),
    )
