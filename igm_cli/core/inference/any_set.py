"""Any set of a given number of candidates, or of one of several numbers: exact search over all sets.

    S* = argmin_S  E_{t,eps} ‖eps - compose_{k in S} eps_theta(x_t, t | label_k)‖²   (IGM, Wang et al. 2025, section 4.3)

M network calls per noise sample give the errors of all sets, where the paper asks for the K labels of each of C(M,K)
sets anew.  A label that stands for none of the others is in no set; the answer is compared with it.  Labels that no set in the running holds are given up early, by paired tests under shared noise (after
Diffusion Classifier's stages, Li et al. 2023, and Clark & Jaini 2023), and see no further noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.concepts import ConceptSpace
from igm_cli.core.inference.constraints import Alternatives, Answer, Constraint, Solution
from igm_cli.core.inference.counting import choose_size
from igm_cli.core.inference.posterior import posterior
from igm_cli.core.inference.statistics import GramStatistics, PairedDifference, QuadraticForm
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError, counted

GIVEN_UP = 4.0
"""Standard errors by which the best set with a label must be worse than the best of all."""

FEWEST = 4
"""Noise samples before a label is given up."""

KEPT = 4
"""Labels that go on after a coarse start, for each that the largest set holds."""

MOST_SETS = 30_000_000

ENTRIES = 1_000_000
"""Entries of the table of pairs that are searched at a time: it stays in the cache."""


class AnySet(Constraint):
    """Any set of candidates of the sizes considered."""

    name = "any-set"

    def __init__(self, space: ConceptSpace, settings: InversionSettings, k: int | None, images: int) -> None:
        super().__init__(space, settings, k, images)
        self.nothing: int | None = getattr(space, "nothing_place", None)
        self.sizes = sizes_of(space.dim - (self.nothing is not None), k, settings)
        self.marginals = torch.zeros(images, space.dim)
        self.rivals: dict[tuple[int, int], _Rival] = {}  # of every image and label chosen

    def solve(self, form: QuadraticForm) -> Solution:
        """Returns the best set of every size."""
        form = self._without_nothing(form)
        self.minima = [minima(form, size) for size in self.sizes]
        best = [found.best for found in self.minima]
        errors = torch.stack([error for _, error in best], dim=1)
        sets = torch.full((len(errors), len(best), max(self.sizes)), -1)
        for place, (members, _) in enumerate(best):
            sets[:, place, : self.sizes[place]] = members
        return Solution(sets, errors, self._cheapest(errors))

    def alternatives(
        self, statistics: GramStatistics, form: QuadraticForm, solution: Solution, rows: Tensor
    ) -> Alternatives:
        """Compares the chosen set with the best one on the other side of every label's fence.

        That is, for labels not chosen, the best set with them, and for those chosen the best without, of any size.
        """
        images, m = statistics.usable.shape
        chosen, form = solution.best, self._without_nothing(form)
        others = torch.full((images, m, max(self.sizes)), -1)
        least = torch.full((images, m), torch.inf, dtype=torch.float64)
        for size, found in zip(self.sizes, self.minima, strict=True):
            _lower(others, least, size, found.sets, found.errors + self.cost * size)
        for place in range(chosen.shape[1]):
            label = chosen[:, place]
            there = (label >= 0).nonzero()[:, 0]
            rest, index = form.without(label), (there, label[there])
            others[index], least[index] = -1, torch.inf
            for size in self.sizes:
                members, errors = minima(rest, size).best
                total = errors + self.cost * size
                better = total[there] < least[index]
                at = (there[better], label[there][better])
                least[at] = total[there][better]
                others[at] = -1
                others[at[0], at[1], :size] = members[there][better]
        cost = self.cost
        errors = statistics.errors(others) + cost * (others >= 0).sum(-1)[..., None]
        whole = statistics.errors(chosen[:, None]) + cost * (chosen >= 0).sum(-1)[:, None, None]
        result = Alternatives(
            PairedDifference.of(errors, whole, statistics.importance), least.isfinite() & statistics.usable
        )
        self._rate(result, others, chosen, statistics.usable, rows)
        return result

    @property
    def largest(self) -> int:
        """Most labels that an image may hold."""
        return max(self.sizes)

    def containing(self, form: QuadraticForm, held: Sequence[int]) -> Solution:
        """Returns the best set of every size that holds some labels."""
        if not held:
            return self.solve(form)
        form = self._without_nothing(form)
        images, h = len(form.linear), len(held)
        sizes = [size for size in self.sizes if size >= h]
        sets = torch.full((images, len(sizes), max(sizes)), -1)
        sets[:, :, :h] = torch.tensor(list(held))
        for place, size in enumerate(sizes):
            if size > h:
                sets[:, place, h:size] = minima(form.given(held, size), size - h).best[0]
        errors = form.error(sets)
        return Solution(sets, errors, choose_size(errors, torch.tensor(sizes), self.cost))

    def least_with(self, form: QuadraticForm, held: Sequence[int]) -> Tensor:
        """Returns the error of the best set, of any size, that holds some labels and one more ``[B,M]``."""
        h, form = len(held), self._without_nothing(form)
        every = [
            minima(form.given(held, size), size - h).errors + self.cost * size
            for size in self.sizes
            if size > h
        ]
        return torch.stack(every).amin(0)

    def answers(
        self,
        statistics: GramStatistics,
        solution: Solution,
        alternatives: Alternatives,
        candidates: Tensor,
        images: Sequence[int],
        rows: Tensor,
    ) -> list[Answer]:
        """Says how probable every label is, those that were given up included; the most probable comes first."""
        found, concepts = [], candidates.float().cpu()
        m, nothing = concepts.shape[1] - (self.nothing is not None), self._nothing(statistics, solution)
        for image in images:
            marginals, members = self.marginals[int(rows[image])], torch.tensor(solution.members(image))
            members = members[marginals[members].argsort(descending=True, stable=True)]
            there = alternatives.exists[image]
            row = int(rows[image])
            rivals = [
                self.rivals[row, n].difference if there[n] else alternatives.difference.among(image, [])
                for n in members.tolist()
            ]
            chance = torch.full((len(members),), len(members) / m)
            against = nothing.among(image, [0]) if nothing else None
            found.append(Answer(concepts[image, members], rivals, chance, marginals, nothing=against))
        return found

    @property
    def first_draws(self) -> int:
        """The least by which labels are given up, or those of a coarse start, where there are labels to spare."""
        s = self.settings
        if not s.give_up or self.space.dim - (self.nothing is not None) <= self.largest + 1:
            return s.draws
        return min(s.draws, s.coarse or FEWEST)

    @property
    def least_calls(self) -> int:
        """Predictions under a label for an image that needs the first decision's noise alone, all labels given up at once."""
        stay = min(self.space.dim, self.largest + 1 + (self.nothing is not None))
        first, draws = self.first_draws, self.settings.draws
        return (first * self.space.dim + (draws - first) * stay) * self.space.calls_per_concept

    def still_possible(
        self, statistics: GramStatistics, solution: Solution, alternatives: Alternatives
    ) -> Tensor:
        """Gives up labels that are in no set that could still win; as many as a set needs stay.

        After a coarse start the best few stay, however unsure that is.
        """
        usable, s = statistics.usable, self.settings
        coarse = bool(s.coarse) and statistics.draws == self.first_draws
        if not s.give_up or not (coarse or statistics.draws >= FEWEST):
            return usable
        difference, exists = alternatives.difference, alternatives.exists
        member = torch.zeros_like(usable)
        for place in range(solution.best.shape[1]):
            label = solution.best[:, place]
            there = (label >= 0).nonzero()[:, 0]
            member[there, label[there]] = True
        close = ~difference.at_least(GIVEN_UP) | ~exists
        keep = usable & (member | close)
        labels = usable.clone()
        if self.nothing is not None:  # which is never given up, and no label that a set needs
            labels[:, self.nothing] = False
        # The labels that are least worse, members first, are as many as the largest set needs, and one more.
        stay = KEPT * self.largest if coarse else self.largest + 1
        worse = difference.mean.masked_fill(member | ~exists, -torch.inf).masked_fill(~labels, torch.inf)
        nearest = torch.zeros_like(usable).scatter_(1, worse.argsort(dim=1, stable=True)[:, :stay], True)
        if coarse:
            return (nearest | ~labels) & usable
        few = (keep & labels).sum(1) < labels.sum(1).clamp(max=stay)
        return torch.where(few[:, None], (keep | nearest) & usable, keep)

    def _without_nothing(self, form: QuadraticForm) -> QuadraticForm:
        """Returns the form of the labels that sets are made of."""
        return form if self.nothing is None else form.without(torch.full((len(form.linear),), self.nothing))

    def _nothing(self, statistics: GramStatistics, solution: Solution) -> PairedDifference | None:
        """Returns by how much the prediction that stands for no label is worse than the chosen sets ``[B,1]``."""
        if self.nothing is None:
            return None
        chosen = solution.best
        without = torch.full((len(chosen), 1, 1), self.nothing)
        cost = self.cost * (chosen >= 0).sum(-1)[:, None, None]
        whole = statistics.errors(chosen[:, None]) + cost
        return PairedDifference.of(statistics.errors(without), whole, statistics.importance)

    def _cheapest(self, errors: Tensor) -> Tensor:
        return choose_size(errors, torch.tensor(self.sizes), self.cost)

    def _rate(
        self, alternatives: Alternatives, others: Tensor, chosen: Tensor, usable: Tensor, rows: Tensor
    ) -> None:
        """Keeps the probability of every label that is in the running, and what those chosen were chosen over."""
        for image, row in enumerate(rows.tolist()):
            members, running = frozenset(chosen[image].tolist()), usable[image].nonzero()[:, 0].tolist()
            for label in running:
                sure = 1.0
                if bool(alternatives.exists[image, label]):
                    rival = _Rival(
                        members,
                        frozenset(others[image, label].tolist()),
                        alternatives.difference.among(image, [label]),
                    )
                    if label in members:
                        known = self.rivals.get((row, label))
                        if known and known.outlives(rival, running):
                            rival = known
                        self.rivals[row, label] = rival
                    sure = posterior(rival.difference, self.settings.temperature)
                self.marginals[row, label] = sure if label in members else 1 - sure


@dataclass(frozen=True)
class _Rival:
    """The best set on the other side of a label's fence: by how much it is worse than the set chosen."""

    chosen: frozenset[int]
    other: frozenset[int]
    difference: PairedDifference

    def outlives(self, newer: _Rival, running: Sequence[int]) -> bool:
        """Returns whether it is closer than a newer one because it holds labels that were given up since.

        They are worse for certain, but what is certain and small counts for the posterior.
        """
        gone = self.other - {-1, *running}
        return bool(gone and self.chosen == newer.chosen and self.difference.mean < newer.difference.mean)


def sizes_of(labels: int, k: int | None, settings: InversionSettings) -> list[int]:
    """Returns the numbers of labels that are considered.

    Raises:
        UsageError: If there are none, or too many sets of them.
    """
    if k is not None and not 1 <= k <= labels:
        raise UsageError(
            f"{k} of {counted(labels, 'label')} cannot be chosen; give more labels or a smaller --k"
        )
    least, most = (k, k) if k is not None else (max(1, settings.k_min), min(settings.k_max, labels))
    sizes = list(range(least, most + 1))
    if not sizes:
        raise UsageError(f"{least} or more of {counted(labels, 'label')} cannot be chosen; give more labels")
    check_number(labels, sizes)
    return sizes


def check_number(candidates: int, sizes: Sequence[int]) -> None:
    """Refuses a search that would not end.

    Raises:
        UsageError: If there are too many sets of these sizes in all.
    """
    number = sum(math.comb(candidates, size) for size in sizes)
    if number > MOST_SETS:
        raise UsageError(
            f"{number} sets of up to {max(sizes)} of {candidates} labels are too many to try; "
            "give fewer labels or a smaller --k or --k-max"
        )


@dataclass(frozen=True)
class Minima:
    """For every candidate, the best of all sets of K that hold it.

    Attributes:
        errors: ``[B,M]``; infinite where there is no such set.
        sets: ``[B,M,K]`` candidates, the smallest first.
    """

    errors: Tensor
    sets: Tensor

    @property
    def best(self) -> tuple[Tensor, Tensor]:
        """The best of all sets of K: its candidates ``[B,K]`` and its error ``[B]``."""
        errors, index = self.errors.min(1)
        return self.sets[torch.arange(len(index)), index], errors


def minima(form: QuadraticForm, k: int) -> Minima:
    """Scores every set of K candidates: all pairs at once that complete some sets of K - 2, the heads.

    The error of a head and a pair is the head's own, the pair's own, and what each of the pair shares with the head.

    Args:
        form: Expected errors of B images.
        k: At least 1, at most the number of candidates.

    Raises:
        UsageError: If there are too many sets.
    """
    images, m = form.linear.shape
    check_number(m, [k])
    w, diagonal = form.w(k), form.diagonal
    alone = (-2 * w * form.linear + w * w * diagonal).masked_fill(~form.usable, torch.inf)  # [B,M]
    if k == 1:
        return Minima(form.constant[:, None] + alone, torch.arange(m)[:, None].repeat(images, 1, 1))
    crossed = 2 * w * w * form.gram
    pairs = alone[:, :, None] + alone[:, None, :] + crossed
    pairs.diagonal(dim1=1, dim2=2).fill_(torch.inf)  # [B,M,M]
    table = Minima(torch.full_like(alone, torch.inf), torch.zeros(images, m, k, dtype=torch.long))
    for heads in _heads(m, k - 2, images):
        shared = crossed[:, heads].sum(2)  # [B,H,M]
        within = shared.gather(2, heads.expand(images, -1, -1)).sum(2) - 2 * w * w * diagonal[:, heads].sum(2)
        own = form.constant[:, None] + alone[:, heads].sum(2) + within / 2
        # Every set once: its pair comes after its head.
        after = torch.arange(m) > (heads[:, -1:] if k > 2 else -1)
        shared = shared.masked_fill(~after, torch.inf)
        rest, partners = (pairs[:, None] + shared[:, :, None, :]).min(
            3
        )  # [B,H,M]: the best partner of every first
        _enter(table, heads, own[..., None] + shared + rest, partners)
    return table


def _heads(candidates: int, size: int, images: int) -> Iterator[Tensor]:
    """Yields all sets of a size that leave two after them, ``[H,size]``, few enough for tables of pairs."""
    sets = itertools.combinations(range(candidates - 2), size)
    few = max(1, ENTRIES // (images * candidates**2))
    while chunk := list(itertools.islice(sets, few)):
        yield torch.tensor(chunk, dtype=torch.long).reshape(len(chunk), size)


def _enter(table: Minima, heads: Tensor, errors: Tensor, partners: Tensor) -> None:
    """Enters the best of some sets, for the members of their heads too.

    Args:
        table: Minima so far, changed in place.
        heads: ``[H,K-2]``.
        errors: Errors of a head, one more candidate, and the best partner of both ``[B,H,M]``.
        partners: Which partner that is ``[B,H,M]``.
    """
    images, _, m = errors.shape
    every = heads.expand(images, -1, -1)
    least, first = errors.min(2)  # [B,H]
    errors = errors.scatter(2, every, least[..., None].expand_as(every))
    others = torch.arange(m).expand_as(errors).scatter(2, every, first[..., None].expand_as(every))
    lowest, head = errors.min(1)  # [B,M]
    image, candidate = (lowest < table.errors).nonzero().unbind(1)
    head = head[image, candidate]
    one = others[image, head, candidate]
    sets = torch.cat([heads[head], torch.stack([one, partners[image, head, one]], 1)], 1)
    table.errors[image, candidate] = lowest[image, candidate]
    table.sets[image, candidate] = sets.sort(1).values


def _lower(sets: Tensor, least: Tensor, size: int, others: Tensor, errors: Tensor) -> None:
    """Takes sets of a size ``[B,M,size]`` where their errors ``[B,M]`` are lower than the least so far, in place."""
    better = errors < least
    least[better] = errors[better]
    sets[better] = -1
    sets[..., :size][better] = others[better]
