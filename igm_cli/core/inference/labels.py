"""Inversion over labels: which set of them explains an image best.

    S* = argmin_S  E_{t,eps} ‖eps - compose_{k in S} eps_theta(x_t, t | label_k)‖²   (IGM, Wang et al. 2025, section 4.3)

M network calls a draw give the errors of all sets, where the paper asks for the K labels of each of C(M,K) sets
anew.  Labels that no set in the running holds are given up early, by paired tests under shared draws (after
Diffusion Classifier's stages, Li et al. 2023, and Clark & Jaini 2023), and see no further draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Text
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.confidence import softmax
from igm_cli.core.inference.evidence import Evidence, Gap, Quadratic, paired
from igm_cli.core.inference.inversion import Inversion, InversionSettings, KPoint
from igm_cli.core.inference.label_evidence import label_evidence
from igm_cli.core.inference.search import Found
from igm_cli.core.inference.subsets import Minima, best_without, check_number, minima
from igm_cli.core.inference.views import shown
from igm_cli.core.noise_schedule import draw
from igm_cli.errors import UsageError

GIVEN_UP = 4.0
"""Standard errors by which the best set with a label must be worse than the best of all."""

FEWEST = 4
"""Draws before a label is given up."""

Progress = Callable[[int, int], None]
"""Called with network calls made and to be made at most."""


def invert_labels(
    denoiser: Denoiser,
    image: Tensor,
    settings: InversionSettings,
    k: int | None,
    composition: Composition,
    *,
    eliminate: bool = True,
    progress: Progress | None = None,
) -> Inversion:
    """The set of labels under which an image is denoised best.

    Args:
        denoiser: Over a :class:`Text` space.
        image: What it denoises ``[C,H,W]``, a latent for latent models, or views of it ``[V,C,H,W]``.
        settings: ``draws``, ``max_draws``, ``settled``, ``k_min``, ``k_max``, ``penalty``, ``low``, ``high``,
            ``power``, ``temperature`` and ``seed`` are used.
        k: Number of labels; None estimates it.
        composition: How predictions compose.
        eliminate: Whether labels are given up early; else all see all draws.
        progress: Told of network calls.

    Raises:
        UsageError: If ``k`` is out of range, or there are too many sets to try.
    """
    return _Search(denoiser, image, settings, k, composition, eliminate, progress).run()


def sizes_of(labels: int, k: int | None, settings: InversionSettings) -> list[int]:
    """Numbers of labels that are considered.

    Raises:
        UsageError: If there are none, or too many sets of them.
    """
    if k is not None and not 1 <= k <= labels:
        raise UsageError(f"{k} of {labels} labels cannot be chosen; give more labels or a smaller --k")
    least, most = (k, k) if k is not None else (max(1, settings.k_min), min(settings.k_max, labels))
    sizes = list(range(least, most + 1))
    if not sizes:
        raise UsageError(f"{least} or more of {labels} labels cannot be chosen; give more labels")
    check_number(labels, sizes)
    return sizes


@dataclass(frozen=True)
class Standing:
    """Where the search stands under the draws so far.

    Attributes:
        best: The best set of every size, by place among the labels in the running.
        chosen: Place of the chosen size among the sizes.
        gaps: By how much the best set on the other side of every label's fence (with it, for labels not
            chosen; without it, for those chosen) is worse than the chosen set.
    """

    best: list[Found]
    chosen: int
    gaps: list[Gap | None]

    @property
    def subset(self) -> tuple[int, ...]:
        """The chosen set."""
        return self.best[self.chosen].subset

    def settled(self, standard_errors: float) -> bool:
        """Whether every gap is that many standard errors wide."""
        return all(gap is None or gap.mean >= standard_errors * gap.stderr for gap in self.gaps)


def calls_a_draw(space: Text, composition: Composition, labels: int | None = None) -> int:
    """Network calls: one a label and template, and under the sum one for eps_u.

    Args:
        space: Labels and templates.
        composition: How predictions compose.
        labels: How many are asked for; None for all.
    """
    return (space.dim if labels is None else labels) * len(space.templates) + (composition == "sum")


class _Search:
    """One image's search."""

    def __init__(
        self,
        denoiser: Denoiser,
        image: Tensor,
        settings: InversionSettings,
        k: int | None,
        composition: Composition,
        eliminate: bool,
        progress: Progress | None,
    ) -> None:
        self.denoiser, self.image, self.s, self.composition = denoiser, image, settings, composition
        self.space = cast(Text, denoiser.space)
        self.labels = self.space.dim
        self.given, self.sizes = k is not None, sizes_of(self.labels, k, settings)
        self.eliminate, self.progress = eliminate, progress
        self.alive = torch.arange(self.labels)
        self.evidence: Evidence | None = None
        self.probability = torch.zeros(self.labels)
        self.calls = 0

    def run(self) -> Inversion:
        """Draws until the choice is settled."""
        while True:
            evidence = self._draw()
            standing = self._stand(evidence)
            self._rate(standing)
            if len(evidence) >= self.s.max_draws or standing.settled(self.s.settled):
                return self._answer(evidence, standing)
            if self.eliminate:
                self._give_up(evidence, standing)

    def _draw(self) -> Evidence:
        """As many draws again as there are, for the labels in the running."""
        s, seen = self.s, 0 if self.evidence is None else len(self.evidence)
        more = min(s.draws if seen == 0 else seen, s.max_draws - seen)
        rows = torch.eye(self.labels, device=self.image.device)[self.alive]
        step = max(1, min(more, 64 // len(rows)))  # progress after every few calls
        for first in range(seen, seen + more, step):
            count = min(step, seen + more - first)
            shape = tuple(self.image.shape[-3:])
            taken = draw(self.denoiser.schedule, shape, count, low=s.low, high=s.high, seed=s.seed, start=first)
            images = shown(self.image, first, count)
            part = label_evidence(self.denoiser, images, taken, rows, self.composition, s.power)
            self.evidence = part if self.evidence is None else self.evidence.join(part)
            each = calls_a_draw(self.space, self.composition, len(rows))
            self.calls += count * each
            if self.progress:
                left = (s.max_draws - first - count) * each
                self.progress(self.calls, self.calls + left)
        assert self.evidence is not None  # at least one draw was taken
        return self.evidence

    def _stand(self, evidence: Evidence) -> Standing:
        form, cost = evidence.expected(), self.s.cost
        each = [minima(form, size) for size in self.sizes]  # never more than are alive
        best = [found.best for found in each]
        chosen = min(range(len(best)), key=lambda i: best[i].error + cost * self.sizes[i])
        subset = best[chosen].subset
        errors = evidence.errors(subset) + cost * len(subset)
        gaps: list[Gap | None] = []
        for label in range(len(self.alive)):
            rival = self._without(form, label) if label in subset else self._with(each, label)
            if rival is None:
                gaps.append(None)
                continue
            other = evidence.errors(rival.subset) + cost * len(rival.subset)
            gaps.append(paired(other, errors, evidence.importance))
        return Standing(best, chosen, gaps)

    def _with(self, each: Sequence[Minima], label: int) -> Found:
        """The best set with a label, of any size."""
        found = [Found(tuple(m.subsets[label].tolist()), float(m.errors[label])) for m in each]
        return min(found, key=lambda f: f.error + self.s.cost * len(f.subset))

    def _without(self, form: Quadratic, label: int) -> Found | None:
        """The best set without a label; None if every set holds it."""
        found = [best_without(form, size, label) for size in self.sizes]
        there = [f for f in found if f is not None]
        return min(there, key=lambda f: f.error + self.s.cost * len(f.subset), default=None)

    def _rate(self, standing: Standing) -> None:
        """The probability of every label in the running."""
        for place, (label, gap) in enumerate(zip(self.alive.tolist(), standing.gaps, strict=True)):
            sure = 1.0 if gap is None else probability(gap, self.s.temperature)
            self.probability[label] = sure if place in standing.subset else 1 - sure

    def _give_up(self, evidence: Evidence, standing: Standing) -> None:
        """Leaves labels out that are in no set that could still win; as many as a set needs stay."""
        if len(evidence) < FEWEST:
            return
        keep = [
            place
            for place, gap in enumerate(standing.gaps)
            if place in standing.subset or gap is None or gap.mean < GIVEN_UP * gap.stderr
        ]
        fewest = max(self.sizes)
        if len(keep) < min(fewest + 1, len(self.alive)):
            ranked = sorted(range(len(self.alive)), key=lambda p: self._worse(standing, p))
            keep = sorted(set(keep) | set(ranked[: fewest + 1]))
        index = torch.tensor(keep)
        self.alive, self.evidence = self.alive[index], evidence.select(index)

    def _worse(self, standing: Standing, place: int) -> float:
        gap = standing.gaps[place]
        return -math.inf if place in standing.subset or gap is None else gap.mean

    def _answer(self, evidence: Evidence, standing: Standing) -> Inversion:
        chosen = standing.best[standing.chosen]
        errors = evidence.errors(chosen.subset)
        curve = []
        for found in standing.best:
            gap = paired(evidence.errors(found.subset), errors, evidence.importance)
            curve.append(KPoint(len(found.subset), found.error, 0.0 if found is chosen else gap.stderr))
        members = self.alive[list(chosen.subset)]
        order = self.probability[members].argsort(descending=True, stable=True)
        members = members[order]
        return Inversion(
            concepts=torch.eye(self.labels)[members],
            confidence=self.probability[members],
            k=len(members),
            k_source="given" if self.given else "estimated",
            denoising_error=chosen.error,
            k_curve=tuple(curve),
            network_calls=self.calls,
            seconds=0.0,
            draws=len(evidence),
            marginals=self.probability,
        )


def probability(gap: Gap, temperature: float) -> float:
    """That a set is right and its rival is not.

    With temperature tau the logistic of gap/tau, its argument shrunk by what the finite number of draws leaves open
    (MacKay 1992); with 0, where nothing is calibrated, the probability that more draws would not change the order.
    """
    return softmax([gap], temperature) if temperature else gap.probability()
