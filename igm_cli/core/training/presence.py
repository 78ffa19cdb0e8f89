"""The composed objective with a contrast between sets of points that differ in one of them (ours).

Training lowers the composed error under the true concepts only.  It does not constrain the prediction of a point where there
is nothing, on which counting rests; the contrast does.  With r the residual under the true points, the likelihood of the
noise is exp(-‖r‖²/2).  It should fall when the residual becomes

    r + Delta_k   if point k is left out,        r - Delta_j   if a point j is added where there is none,

so the log-likelihood ratios, 1/2 (‖r + Delta_k‖² - ‖r‖²) and 1/2 (‖r - Delta_j‖² - ‖r‖²), should be positive: their
logistic loss is added.  Inversion makes this decision for every point.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igm_cli.core.composition import compose
from igm_cli.core.concepts import Continuous
from igm_cli.core.device import to_device
from igm_cli.core.objective import Noised

ELSEWHERE = 4
"""Points per image where there is nothing."""


def presence_loss(
    model: nn.Module,
    seen: Noised,
    space: Continuous,
    concepts: Tensor,
    present: Tensor,
    contrast: float,
    generator: torch.Generator,
) -> Tensor:
    """Returns the composed error under the true points plus ``contrast`` times the logistic loss of one less and one more.

    Args:
        model: Called with (x_t, t, concepts) for (eps_u, Delta), whose contributions are summed.
        seen: B images under noise.
        space: The space of the points.
        concepts: ``[B,K,D]``.
        present: ``[B,K]``.
        contrast: Weight of the logistic loss.
        generator: Draws the points where there is nothing, on the CPU.
    """
    k = concepts.shape[1]
    low, extent = torch.tensor(space.low), space.extent.float()
    elsewhere = low + torch.rand(len(concepts), ELSEWHERE, space.dim, generator=generator) * extent
    base, delta = model(seen.x_t, seen.t, torch.cat([concepts, to_device(elsewhere, concepts.device)], dim=1))
    delta = delta.float()
    residual = seen.noise - compose(base.float(), delta[:, :k], "sum", present)
    error = residual.square().mean(dim=(1, 2, 3))
    return (seen.weight * error).mean() + contrast * presence(residual, delta, present)


def presence(residual: Tensor, delta: Tensor, present: Tensor) -> Tensor:
    """Returns the logistic loss of deciding for every true point and against every false one, a scalar.

    Args:
        residual: Residual under the true points ``[B,C,H,W]``.
        delta: Contributions of K points, some of them true, and of M false points ``[B,K+M,C,H,W]``.
        present: Which of the K are true ``[B,K]``.
    """
    k = present.shape[1]
    pull = torch.einsum("bchw,bmchw->bm", residual, delta)
    square = delta.square().sum((2, 3, 4))
    sign = torch.ones_like(pull)
    sign[:, k:] = -1
    loss = F.softplus(-(sign * pull + square / 2))  # of log-likelihood ratios
    missed = (loss[:, :k] * present).sum() / present.sum().clamp(min=1)
    return missed + loss[:, k:].mean()
