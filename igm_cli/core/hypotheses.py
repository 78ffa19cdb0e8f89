"""Errors of whole hypotheses by network calls: the objective as it is written, without the evidence.

    error(c_1..c_K) = E_{t,eps} ‖eps - compose_k eps_theta(x_t, t | c_k)‖²     (IGM, Wang et al. 2025, eq. 6)

The paper's own algorithms are built on it, and tests hold the evidence against it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from igm_cli.core.composition import Composition, compose
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.device import inference_precision
from igm_cli.core.schedule import Draws


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
    n, (r, k, dim) = len(draws), hypotheses.shape
    x_t = denoiser.schedule.add_noise(image[None], draws.noise, draws.t)
    with inference_precision(image.device):
        features = denoiser.features(x_t, draws.t)
        base = denoiser.base(features)
        flat = hypotheses.reshape(1, r * k, dim)
        delta = denoiser.contributions(features, flat).unflatten(1, (r, k))  # [N,R,K,C,H,W]
    present = torch.ones(n * r, k, dtype=torch.bool, device=image.device)
    shared = base[:, None].expand(n, r, *base.shape[1:]).flatten(0, 1)
    prediction = compose(shared, delta.flatten(0, 1), composition, present).unflatten(0, (n, r))
    errors: Tensor = (draws.noise[:, None] - prediction).square().mean((2, 3, 4))
    return errors.T
