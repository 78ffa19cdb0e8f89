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
from igm_cli.core.inference.look import Look, contributions

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
    problem = _Problem(denoiser, seen, w, space, _extent(space).to(concepts.device))
    state = _start(problem, concepts)
    calls = count * k
    for _ in range(steps if k else 0):
        state = _step(problem, state, reach)
        calls += (1 + 2 * dim) * count * k
        if bool(state.settled.all()):
            break
    return Refined(state.concepts, state.errors, calls)


def _extent(space: Continuous) -> Tensor:
    """Range of every coordinate ``[D]``, float64; of bounds in float32, in which concepts are."""
    low, high = torch.tensor([space.low, space.high]).double()
    extent: Tensor = high - low
    return extent


@dataclass(frozen=True)
class _Problem:
    """The composed errors of hypotheses, and how they change with the concepts.

    Attributes:
        denoiser: The model.
        seen: The image under its draws.
        w: Weight of every contribution.
        space: Of the concepts.
        extent: Range of every coordinate ``[D]``.
    """

    denoiser: Denoiser
    seen: Look
    w: float
    space: Continuous
    extent: Tensor

    def left_over(self, concepts: Tensor) -> Tensor:
        """What hypotheses ``[B,K,D]`` do not explain, ``[N,B,P]``."""
        delta = contributions(self.denoiser, self.seen, concepts.flatten(0, 1))
        composed = delta.unflatten(1, concepts.shape[:2]).sum(2)
        left: Tensor = self.seen.residual[:, None] - self.w * composed
        return left

    def errors(self, left: Tensor) -> Tensor:
        """Mean squares ``[B]`` of what is left over, over pixels and draws."""
        p = self.seen.importance / self.seen.importance.sum()
        return (p[:, None] * left.square().mean(2)).sum(0)

    def jacobian(self, concepts: Tensor) -> Tensor:
        """Derivatives of the contributions of ``[B,K,D]`` in their own coordinates, ``[N,B,K*D,P]``."""
        step = (STEP * self.extent).to(concepts)  # [D], half the width of the differences
        shift = torch.diag(step)  # [D,D]
        moved = torch.stack([concepts[:, :, None] + shift, concepts[:, :, None] - shift])  # [2,B,K,D,D]
        delta = contributions(self.denoiser, self.seen, moved.flatten(0, 3))
        there, back = delta.unflatten(1, moved.shape[:4]).unbind(1)  # [N,B,K,D,P]
        slopes: Tensor = (there - back).mul_(self.w / (2 * step[:, None]))
        return slopes.flatten(2, 3)

    def slope(self, concepts: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """The way down ``[B,K*D]`` (half the negative gradient) and curvature ``[B,K*D,K*D]``.

        Both float64: LAPACK rounds by where its arrays lie in memory, in double precision that is lost
        when a step becomes float32 again, and two processes take the same steps.
        """
        jacobian = self.jacobian(concepts)
        p = self.seen.importance.double() / self.seen.importance.double().sum() / left.shape[-1]
        down = torch.einsum("n,nbj->bj", p, (jacobian @ left[..., None])[..., 0].double())
        curvature = torch.einsum("n,nbij->bij", p, (jacobian @ jacobian.mT).double())
        return down, curvature


@dataclass(frozen=True)
class _State:
    """Where B hypotheses are.

    Attributes:
        concepts: ``[B,K,D]``.
        left: What they leave over ``[N,B,P]``.
        errors: ``[B]``.
        damping: Of the next step ``[B]``.
        settled: Whether the last step helped, but hardly: another would not be worth it ``[B]``.
    """

    concepts: Tensor
    left: Tensor
    errors: Tensor
    damping: Tensor
    settled: Tensor


def _start(problem: _Problem, concepts: Tensor) -> _State:
    """Before the first step."""
    left = problem.left_over(concepts)
    errors = problem.errors(left)
    settled = torch.zeros_like(errors, dtype=torch.bool)
    return _State(concepts, left, errors, torch.full_like(errors, 1e-3), settled)


def _step(problem: _Problem, at: _State, reach: float) -> _State:
    """One damped Gauss-Newton step of every hypothesis; those whose error would not fall stay."""
    move = _move(problem, at, reach)
    concepts = problem.space.clamp(at.concepts + move.to(at.concepts))
    left = problem.left_over(concepts)
    errors = problem.errors(left)
    better = errors < at.errors
    little = at.errors - errors < 1e-4 * at.errors
    short = (move / problem.extent).abs().amax((1, 2)) < 1e-4
    return _State(
        torch.where(better[:, None, None], concepts, at.concepts),
        torch.where(better[:, None], left, at.left),
        torch.where(better, errors, at.errors),
        torch.where(better, at.damping / 4, at.damping * 8),
        better & (little | short),
    )


def _move(problem: _Problem, at: _State, reach: float) -> Tensor:
    """The moves ``[B,K,D]`` of a step, none longer than the reach."""
    down, curvature = problem.slope(at.concepts, at.left)
    diagonal = curvature.diagonal(dim1=1, dim2=2)
    damped = curvature + torch.diag_embed(at.damping[:, None] * (diagonal + 1e-12))
    move = torch.linalg.solve(damped, down).view(at.concepts.shape)
    longest = reach * problem.extent
    return torch.minimum(torch.maximum(move, -longest), longest)
