"""Gradient refinement of continuous concepts, from evidence of contributions and their derivatives.

The composed error is a sum of squares, e(c) = ‖r - w sum_k Delta_k(c_k)‖², so the Gauss-Newton step
with Levenberg-Marquardt damping (Marquardt 1963) reaches the minimum in a handful of evaluations
where plain gradient descent takes hundreds.  Derivatives are central differences: they ask nothing
of a denoiser but its contributions, in whatever precision it computes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.concepts import Continuous
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.evidence import Look, contributions

STEP = 0.005
"""Of the differences, as a share of a coordinate's range: smaller drowns in bf16, larger blurs."""


@dataclass(frozen=True)
class Refined:
    """Hypotheses ``[B,K,D]``, their expected errors ``[B]``, and the contributions evaluated for them."""

    concepts: Tensor
    errors: Tensor
    calls: int


def refine(
    denoiser: Denoiser,
    seen: Look,
    concepts: Tensor,
    w: float,
    *,
    steps: int = 6,
    reach: float = 0.03,
) -> Refined:
    """Moves hypotheses of K concepts each to the nearest minima of their composed errors.

    Args:
        denoiser: Over a :class:`Continuous` space.
        seen: The image under its draws.
        concepts: Where to start: B hypotheses, ``[B,K,D]``.
        w: Weight of every contribution.
        steps: Gauss-Newton steps at most.
        reach: Longest move of a coordinate in one step, as a share of its range.

    Returns:
        Hypotheses of which none has a higher error than where it started.
    """
    space = denoiser.space
    if not isinstance(space, Continuous):
        raise TypeError("only continuous concepts can be refined")
    count, k, dim = concepts.shape
    residual = seen.residual.flatten(1)[:, None]  # [N,1,P]
    if k == 0:
        return Refined(concepts, _expected(seen, residual).expand(count), 0)
    extent = torch.tensor(space.high).double() - torch.tensor(space.low).double()  # [D]
    extent = extent.to(concepts.device)

    def left_over(c: Tensor) -> Tensor:
        """What hypotheses ``[B,K,D]`` do not explain, ``[N,B,P]``."""
        delta = contributions(denoiser, seen, c.flatten(0, 1))
        left: Tensor = residual - w * delta.unflatten(1, (count, k)).sum(2)
        return left

    left = left_over(concepts)
    errors, calls = _expected(seen, left), count * k
    damping = torch.full_like(errors, 1e-3)
    for _ in range(steps):
        down, curvature = _slope(seen, left, w * _jacobian(denoiser, seen, concepts, STEP * extent))
        diagonal = curvature.diagonal(dim1=1, dim2=2)
        damped = curvature + torch.diag_embed(damping[:, None] * (diagonal + 1e-12))
        move = torch.linalg.solve(damped, down).view(count, k, dim)
        move = torch.minimum(torch.maximum(move, -reach * extent), reach * extent)
        trial = space.clamp(concepts + move.to(concepts))
        trial_left = left_over(trial)
        trial_errors = _expected(seen, trial_left)
        calls += (1 + 2 * dim) * count * k
        better = trial_errors < errors
        gain = torch.where(better, errors - trial_errors, 0)
        concepts = torch.where(better[:, None, None], trial, concepts)
        left = torch.where(better[:, None], trial_left, left)
        damping = torch.where(better, damping / 4, damping * 8)
        settled = better & ((gain < 1e-4 * errors) | ((move / extent).abs().amax((1, 2)) < 1e-4))
        errors = torch.where(better, trial_errors, errors)
        if bool(settled.all()):
            break
    return Refined(concepts, errors, calls)


def _jacobian(denoiser: Denoiser, seen: Look, concepts: Tensor, step: Tensor) -> Tensor:
    """Derivatives of every contribution in its own coordinates, ``[N,B,K*D,P]``.

    Args:
        denoiser: The model.
        seen: The image under its draws.
        concepts: ``[B,K,D]``.
        step: Half the width of the differences in each coordinate ``[D]``.
    """
    shift = torch.diag(step).to(concepts)  # [D,D]
    moved = torch.stack([concepts[:, :, None] + shift, concepts[:, :, None] - shift])  # [2,B,K,D,D]
    delta = contributions(denoiser, seen, moved.flatten(0, 3))
    there, back = delta.unflatten(1, moved.shape[:4]).unbind(1)  # [N,B,K,D,P]
    slopes: Tensor = (there - back) / (2 * step.to(concepts)[:, None])
    return slopes.flatten(2, 3)


def _slope(seen: Look, left: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """The way down ``[B,K*D]`` (half the negative gradient) and curvature ``[B,K*D,K*D]``.

    Both float64: LAPACK rounds by where its arrays lie in memory, in double precision that is lost
    when a step becomes float32 again, and two processes take the same steps.
    """
    p = seen.importance / seen.importance.sum() / left.shape[-1]
    down = torch.einsum("n,nbjp,nbp->bj", p, jacobian, left)
    curvature = torch.einsum("n,nbij->bij", p, jacobian @ jacobian.mT)
    return down.double(), curvature.double()


def _expected(seen: Look, left: Tensor) -> Tensor:
    """Mean squares ``[B]`` of what is left over ``[N,B,P]``, over pixels and draws."""
    p = seen.importance / seen.importance.sum()
    return (p[:, None] * left.square().mean(2)).sum(0)
