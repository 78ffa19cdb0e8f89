"""Inversion of a model of whole sets: argmin_C E_{t,eps} ‖eps - eps_theta(x_t, t | C)‖².

IGM (Wang et al. 2025, Algorithm 3) for its baseline GC: R starts, descent, the end of least error;
an unknown K is the one whose best set has the least error.  Better starts, exchanges and a
Gauss-Newton polish are ours, so that the figures show the model and not a short search.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.benchmarks.baselines.set_search import Proposals, Scan, descend, exchange, scan, starting_sets
from igm_cli.benchmarks.baselines.set_view import SetModel, SetView
from igm_cli.errors import UsageError


@dataclass(frozen=True)
class SetSettings:
    """How to invert.

    Attributes:
        low: Least timestep as a fraction of T.
        high: Greatest timestep.
        draws: N, noise draws that every hypothesis shares.
        scan_sets: Random sets that places are proposed from.
        scan_draws: Draws under which they, and exchanges, are looked at.
        proposals: Places at most.
        restarts: R.
        steps: Of descent from each start.
        batch: Draws of a step.
        learning_rate: Of descent, in shares of the image.
        exchanges: Rounds of moving one position elsewhere, at most.
        exchange_places: Places that positions are moved to in a round.
        polish: Gauss-Newton steps.
        polish_draws: Draws they see.
        seed: Of everything random.
    """

    low: float = 0.02
    high: float = 0.35
    draws: int = 16
    scan_sets: int = 64
    scan_draws: int = 2
    proposals: int = 16
    restarts: int = 8
    steps: int = 24
    batch: int = 1
    learning_rate: float = 0.03
    exchanges: int = 4
    exchange_places: int = 10
    polish: int = 2
    polish_draws: int = 4
    seed: int = 0


@dataclass(frozen=True)
class SetInversion:
    """What was found in one image.

    Attributes:
        concepts: ``[K,2]`` on the CPU.
        error: Mean squared error of eps under them.
        seconds: Wall-clock time.
        passes: Evaluations of the trunk and of the set head.
    """

    concepts: Tensor
    error: float
    seconds: float
    passes: int


def invert_set(model: SetModel, image: Tensor, k: int, settings: SetSettings | None = None) -> SetInversion:
    """Finds K positions in one image.

    Args:
        model: In evaluation mode, its parameters frozen if time matters.
        image: ``[C,H,W]`` in -1..1, on the model's device.
        k: How many.
        settings: How.
    """
    return count_set(model, image, k_min=k, k_max=k, settings=settings)


def count_set(
    model: SetModel, image: Tensor, *, k_min: int = 1, k_max: int = 10, settings: SetSettings | None = None
) -> SetInversion:
    """Finds the set of ``k_min`` to ``k_max`` positions of least error.

    Every K is searched as if it were given, under the same draws.

    Raises:
        UsageError: If the range holds no K.
    """
    if not 0 <= k_min <= k_max:
        raise UsageError(f"k-min {k_min} must lie between 0 and k-max {k_max}")
    settings, began = settings or SetSettings(), time.monotonic()
    view = SetView(model, image, count=settings.draws, low=settings.low, high=settings.high, seed=settings.seed)
    found = [_Search(view, k, settings).run() for k in range(k_min, k_max + 1)]
    concepts, error = min(found, key=lambda end: end[1])
    return SetInversion(concepts.float().cpu(), error, time.monotonic() - began, view.passes)


class _Search:
    """The search for K positions under one view."""

    def __init__(self, view: SetView, k: int, settings: SetSettings) -> None:
        self.view, self.k, self.settings = view, k, settings
        self.generator = torch.Generator().manual_seed(settings.seed)

    def run(self) -> tuple[Tensor, float]:
        """The best set ``[K,2]`` and its error."""
        s, view = self.settings, self.view
        if self.k == 0:
            return self._best(view.image.new_zeros(1, 0, 2))
        scanned = scan(view, self.k, self.generator, sets=s.scan_sets, draws=s.scan_draws)
        proposals = scanned.against(scanned.maps.median(dim=0).values, view.image, s.proposals)
        starts = starting_sets(proposals, view.image, self.k, s.restarts, self.generator)
        ends = descend(view, starts, self.generator, steps=s.steps, batch=s.batch, rate=s.learning_rate)
        best, error = self._best(torch.cat([ends, starts[:1]]))
        best, error = self._exchange(best, error, scanned, proposals)
        return self._keep(best, error, polish(view, best, steps=s.polish, draws=s.polish_draws)[None])

    def _exchange(
        self, best: Tensor, error: float, scanned: Scan, proposals: Proposals
    ) -> tuple[Tensor, float]:
        """Moves positions elsewhere as long as that lowers the error."""
        s = self.settings
        for _ in range(s.exchanges):
            moved = exchange(self.view, best, scanned, proposals, draws=s.scan_draws, keep=s.exchange_places)
            # A moved position only pays once it and its neighbours have settled.
            moved = descend(
                self.view, moved, self.generator, steps=s.steps // 2, batch=1, rate=s.learning_rate / 2
            )
            before = error
            best, error = self._keep(best, error, moved)
            if error == before:
                break
        return best, error

    def _keep(self, best: Tensor, error: float, others: Tensor) -> tuple[Tensor, float]:
        """``best [K,2]`` or one of ``others [P,K,2]``."""
        if len(others) == 0:
            return best, error
        other, other_error = self._best(others)
        return (other, other_error) if other_error < error else (best, error)

    def _best(self, sets: Tensor) -> tuple[Tensor, float]:
        """The set of least error under all draws."""
        with torch.no_grad():
            errors = self.view.errors(sets, self.view.all_draws()).mean(1)
        least = int(errors.argmin())
        return sets[least], float(errors[least])


STEP, REACH = 0.005, 0.03
"""Half the width of differences, and the longest move of a coordinate, in shares of the image."""


@torch.no_grad()
def polish(view: SetView, concepts: Tensor, *, steps: int, draws: int) -> Tensor:
    """Gauss-Newton with Levenberg-Marquardt damping (Marquardt 1963) on one set ``[K,2]``.

    The error is a sum of squares; derivatives are central differences, as in :mod:`igm_cli.core.inference.refine`.
    """
    seen, damping = view.all_draws(draws), 1e-2
    left = view.residuals(concepts[None], seen)[0].flatten().double()  # [P]
    shift = STEP * torch.eye(concepts.numel(), device=concepts.device).view(-1, *concepts.shape)
    for _ in range(steps):
        there, back = (view.residuals(concepts + way * shift, seen).flatten(1).double() for way in (1, -1))
        slopes = (there - back) / (2 * STEP)  # [2K,P]
        curvature = slopes @ slopes.T
        damped = curvature + damping * torch.diag(curvature.diagonal() + 1e-9)
        move = -torch.linalg.solve(damped, slopes @ left).view_as(concepts).clamp(-REACH, REACH)
        trial = (concepts + move.to(concepts)).clamp(0.0, 1.0)
        trial_left = view.residuals(trial[None], seen)[0].flatten().double()
        if float(trial_left.square().sum()) < float(left.square().sum()):
            concepts, left, damping = trial, trial_left, damping / 4
        else:
            damping *= 16
    return concepts
