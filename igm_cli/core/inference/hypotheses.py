"""Errors of whole hypotheses by network calls: the objective as it is written, without the evidence.

    error(c_1..c_K) = E_{t,eps} ‖eps - compose_k eps_theta(x_t, t | c_k)‖²     (IGM, Wang et al. 2025, eq. 6)

The paper's own algorithms are built on it, and tests hold the evidence against it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from igm_cli.core.composition import Composition, compose
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.device import inference_precision
from igm_cli.core.noise_schedule import Draws


def hypothesis_errors(
    denoiser: Denoiser, image: Tensor, draws: Draws, hypotheses: Tensor, composition: Composition
) -> Tensor:
    """Errors of R hypotheses under N draws ``[R,N]``, K network calls each (what they share is computed once).

    Args:
        denoiser: The model.
        image: ``[C,H,W]``.
        draws: N of them, on the image's device.
        hypotheses: ``[R,K,D]``.
        composition: How contributions add up.
    """
    x_t = denoiser.schedule.add_noise(image[None], draws.noise, draws.t)
    with inference_precision(image.device):
        features = denoiser.features(x_t, draws.t)
    prediction = composed_predictions(denoiser, features, hypotheses, composition)
    errors: Tensor = (draws.noise[:, None] - prediction).square().mean((2, 3, 4))
    return errors.T


def composed_predictions(
    denoiser: Denoiser, features: Any, hypotheses: Tensor, composition: Composition
) -> Tensor:
    """What the model predicts under each of R hypotheses ``[N,R,C,H,W]``.

    Args:
        denoiser: The model.
        features: Of N noised images.
        hypotheses: ``[R,K,D]``.
        composition: How contributions add up.
    """
    r, k, dim = hypotheses.shape
    with inference_precision(hypotheses.device):
        base = denoiser.base(features)
        delta = denoiser.contributions(features, hypotheses.reshape(1, r * k, dim)).unflatten(1, (r, k))
    present = torch.ones(len(base) * r, k, dtype=torch.bool, device=base.device)
    shared = base[:, None].expand(len(base), r, *base.shape[1:]).flatten(0, 1)
    composed: Tensor = compose(shared, delta.flatten(0, 1), composition, present)
    return composed.reshape(len(base), r, *base.shape[1:])
