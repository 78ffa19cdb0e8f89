"""Exact search over all sets of candidates of a given size, or of one of several sizes.

    S* = argmin_S  E_{t,eps} ‖eps - compose_{k in S} eps_theta(x_t, t | label_k)‖²   (IGM, Wang et al. 2025, section 4.3)

M network calls per noise sample give the errors of all sets; the paper evaluates the K labels of each of C(M,K) sets
anew.  A label that stands for none of the others is part of no set, but the answer is compared with it.  Labels in no
set that could still win are given up early, by paired tests under shared noise (after Diffusion Classifier's stages,
Li et al. 2023, and Clark & Jaini 2023), and see no further noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.concepts import ConceptSpace
from igm_cli.core.inference.constraints import Alternatives, Answer, Constraint, Solution, occurring
from igm_cli.core.inference.posterior import posterior
from igm_cli.core.inference.statistics import GramStatistics, PairedDifference, QuadraticForm
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError, counted

GIVEN_UP = 4.0
"""A label is given up if the best set with it is worse than the best of all by this many standard errors."""

FEWEST = 4
"""Noise samples to see before a label is given up."""

KEPT = 4
"""Labels kept after a coarse start, per label of the largest set."""

MOST_SETS = 30_000_000

ENTRIES = 1_000_000
"""Entries of the table of pairs searched at a time, few enough to stay in the cache."""


class AnySet(Constraint):
    """Any set of candidates of the sizes considered."""

    name = "any-set"

    def __init__(self, space: ConceptSpace, settings: InversionSettings, k: int | None) -> None:
        super().__init__(space, settings, k)
        self.nothing = space.nothing_place
        self.labels = space.dim - (self.nothing is not None)
        self.sizes = sizes_of(self.labels, k, settings)
        self.marginals: dict[int, Tensor] = {}  # of all labels, by image
        self.rivals: dict[tuple[int, int], _Rival] = {}  # by image and chosen label

    def solve(self, form: QuadraticForm) -> Solution:
        """Returns the best set of every size."""
        form = self._without_nothing(form)
        self.minima = [minima(form, size) for size in self.sizes]
        best = [found.best for found in self.minima]
        errors = torch.stack([error for _, error in best], dim=1)
        sets = torch.full((len(errors), len(best), max(self.sizes)), -1)
        for place, (members, _) in enumerate(best):
            sets[:, place, : self.sizes[place]] = members
        return Solution(sets, errors, self.cheapest(errors, torch.tensor(self.sizes)))

    def alternatives(self, statistics: GramStatistics, solution: Solution, rows: Tensor) -> Alternatives:
        """Compares the chosen set with the alternative for every label.

        This is the best set, of any size, with the label if it was not chosen, and without it if it was.
        """
        images, m = statistics.usable.shape
        chosen, form = solution.best, self._without_nothing(statistics.expected)
        others = torch.full((images, m, max(self.sizes)), -1)
        least = torch.full((images, m), torch.inf, dtype=torch.float64)
        for size, found in zip(self.sizes, self.minima, strict=True):
            _lower(others, least, size, found.sets, found.errors + self.cost * size)
        for place in range(chosen.shape[1]):
            label = chosen[:, place]
            there = (label >= 0).nonzero()[:, 0]
            rest, index = form.without(label), (there, label[there])
            best, low = torch.full((len(there), max(self.sizes)), -1), least.new_full((len(there),), torch.inf)
            for size in self.sizes:
                members, errors = minima(rest, size).best
                total = errors + self.cost * size
                _lower(best, low, size, members[there], total[there])
            others[index], least[index] = best, low
        errors, whole = self._totals(statistics, others), self._totals(statistics, chosen[:, None])
        difference = PairedDifference.of(errors, whole, statistics.importance)
        exists = least.isfinite() & statistics.usable
        result = Alternatives(statistics, solution, rows, difference, exists)
        self._rate(result, others)
        return result

    @property
    def largest(self) -> int:
        """Most labels that an image may hold."""
        return max(self.sizes)

    def containing(self, form: QuadraticForm, held: Sequence[int]) -> Solution:
        """Returns, for every size, the best set that holds the given labels."""
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
        return Solution(sets, errors, self.cheapest(errors, torch.tensor(sizes)))

    def least_with(self, form: QuadraticForm, held: Sequence[int]) -> Tensor:
        """Returns the least error plus cost of a set that holds the given labels and one more ``[B,M]``."""
        h, form = len(held), self._without_nothing(form)
        every = [
            minima(form.given(held, size), size - h).errors + self.cost * size
            for size in self.sizes
            if size > h
        ]
        return torch.stack(every).amin(0)

    def answers(self, found: Alternatives, candidates: Tensor, images: Sequence[int]) -> list[Answer]:
        """Returns the chosen labels, the most probable first, and the probability of all, given-up ones included."""
        answers, concepts, nothing = [], candidates.float().cpu(), self._nothing(found)
        for image in images:
            row, members = int(found.rows[image]), torch.tensor(found.solution.members(image))
            marginals, there = self.marginals[row], found.exists[image]
            members = members[marginals[members].argsort(descending=True, stable=True)]
            rivals = [
                self.rivals[row, n].difference if there[n] else found.difference.among(image, [])
                for n in members.tolist()
            ]
            chance = torch.full((len(members),), len(members) / self.labels)
            against = nothing.among(image, [0]) if nothing else None
            answers.append(Answer(concepts[image, members], rivals, chance, marginals, nothing=against))
        return answers

    @property
    def first_draws(self) -> int:
        """Noise samples of a coarse start, or the fewest by which labels are given up; all if no label is to spare."""
        s = self.settings
        if not s.give_up or self.labels <= self.largest + 1:
            return s.draws
        return min(s.draws, s.coarse or FEWEST)

    @property
    def least_calls(self) -> int:
        """Predictions per image under labels, if all spare labels are given up at once and ``draws`` samples decide."""
        stay = min(self.space.dim, self.largest + 1 + (self.nothing is not None))
        first, draws = self.first_draws, self.settings.draws
        return (first * self.space.dim + (draws - first) * stay) * self.space.calls_per_concept

    def still_possible(self, found: Alternatives) -> Tensor:
        """Gives up labels that are in no set that could still win, but keeps as many as a set needs.

        After a coarse start only the best few stay, whether that is certain or not.
        """
        statistics, usable, s = found.statistics, found.statistics.usable, self.settings
        coarse = bool(s.coarse) and statistics.draws == self.first_draws
        if not s.give_up or not (coarse or statistics.draws >= FEWEST):
            return usable
        difference, exists = found.difference, found.exists
        member = occurring(found.solution.best, usable.shape[1])
        close = ~difference.at_least(GIVEN_UP) | ~exists
        keep = usable & (member | close)
        labels = usable.clone()
        if self.nothing is not None:  # never given up, and part of no set
            labels[:, self.nothing] = False
        # At least one label more than the largest set needs stays: members first, then those that are least worse.
        stay = KEPT * self.largest if coarse else self.largest + 1
        worse = difference.mean.masked_fill(member | ~exists, -torch.inf).masked_fill(~labels, torch.inf)
        nearest = torch.zeros_like(usable).scatter_(1, worse.argsort(dim=1, stable=True)[:, :stay], True)
        if coarse:
            return (nearest | ~labels) & usable
        few = (keep & labels).sum(1) < labels.sum(1).clamp(max=stay)
        return torch.where(few[:, None], (keep | nearest) & usable, keep)

    def _without_nothing(self, form: QuadraticForm) -> QuadraticForm:
        """Returns the form without the label that stands for none of the others."""
        return form if self.nothing is None else form.without(torch.full((len(form.linear),), self.nothing))

    def _totals(self, statistics: GramStatistics, sets: Tensor) -> Tensor:
        """Returns the errors plus costs of sets ``[B,S,K]`` under every noise sample ``[B,S,N]``."""
        return statistics.errors(sets) + self.cost * (sets >= 0).sum(-1)[..., None]

    def _nothing(self, found: Alternatives) -> PairedDifference | None:
        """Returns how much worse the label for none of the others is than the chosen sets ``[B,1]``."""
        if self.nothing is None:
            return None
        statistics, chosen = found.statistics, found.solution.best[:, None]
        without = statistics.errors(torch.full((len(chosen), 1, 1), self.nothing))
        return PairedDifference.of(without, self._totals(statistics, chosen), statistics.importance)

    def _rate(self, found: Alternatives, others: Tensor) -> None:
        """Stores the probability of every label in the running, and the rivals of the chosen ones."""
        chosen, usable = found.solution.best, found.statistics.usable
        for image, row in enumerate(found.rows.tolist()):
            marginals = self.marginals.setdefault(row, torch.zeros(self.space.dim))
            members, running = frozenset(chosen[image].tolist()), usable[image].nonzero()[:, 0].tolist()
            for label in running:
                sure = 1.0
                if bool(found.exists[image, label]):
                    rival = _Rival(
                        members,
                        frozenset(others[image, label].tolist()),
                        found.difference.among(image, [label]),
                    )
                    if label in members:
                        known = self.rivals.get((row, label))
                        if known and known.outlives(rival, running):
                            rival = known
                        self.rivals[row, label] = rival
                    sure = posterior(rival.difference, self.settings.temperature)
                marginals[label] = sure if label in members else 1 - sure


@dataclass(frozen=True)
class _Rival:
    """A label's alternative, and how much worse than the chosen set it is."""

    chosen: frozenset[int]
    other: frozenset[int]
    difference: PairedDifference

    def outlives(self, newer: _Rival, running: Sequence[int]) -> bool:
        """Returns whether it is closer than a newer rival because it holds labels that were given up since.

        It is certain to be worse, but a difference that is certain and small counts in the posterior.
        """
        gone = self.other - {-1, *running}
        return bool(gone and self.chosen == newer.chosen and self.difference.mean < newer.difference.mean)


def sizes_of(labels: int, k: int | None, settings: InversionSettings) -> list[int]:
    """Returns the set sizes to consider.

    Raises:
        UsageError: If there are no such sizes, or too many sets of them.
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
    """Raises a :class:`UsageError` if there are too many sets of these sizes in all to try."""
    number = sum(math.comb(candidates, size) for size in sizes)
    if number > MOST_SETS:
        raise UsageError(
            f"{number} sets of up to {max(sizes)} of {candidates} labels are too many to try; "
            "give fewer labels or a smaller --k or --k-max"
        )


@dataclass(frozen=True)
class Minima:
    """For every candidate, the best set of K that holds it.

    Attributes:
        errors: ``[B,M]``; infinite where there is no such set.
        sets: ``[B,M,K]`` candidates, in ascending order.
    """

    errors: Tensor
    sets: Tensor

    @property
    def best(self) -> tuple[Tensor, Tensor]:
        """The best of all sets of K: its candidates ``[B,K]`` and its error ``[B]``."""
        errors, index = self.errors.min(1)
        return self.sets[torch.arange(len(index)), index], errors


def minima(form: QuadraticForm, k: int) -> Minima:
    """Scores every set of K candidates: a head of K - 2 and the pairs that complete it, all at once.

    A set's error is the head's own, the pair's own, and what each candidate of the pair shares with the head.

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
        # The best partner of every first [B,H,M].
        rest, partners = (pairs[:, None] + shared[:, :, None, :]).min(3)
        _enter(table, heads, own[..., None] + shared + rest, partners)
    return table


def _heads(candidates: int, size: int, images: int) -> Iterator[Tensor]:
    """Yields all heads of a size, few enough at a time for tables of pairs ``[H,size]``."""
    sets = itertools.combinations(range(candidates - 2), size)
    few = max(1, ENTRIES // (images * candidates**2))
    while chunk := list(itertools.islice(sets, few)):
        yield torch.tensor(chunk, dtype=torch.long).reshape(len(chunk), size)


def _enter(table: Minima, heads: Tensor, errors: Tensor, partners: Tensor) -> None:
    """Updates the minima, in place, with the sets of some heads ``[H,K-2]``, for the heads' members too.

    ``errors`` are those of a head, one more candidate and the best partner of both ``[B,H,M]``.
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
    """Takes over, in place, sets ``[...,size]`` whose errors ``[...]`` are lower than the least so far."""
    better = errors < least
    least[better] = errors[better]
    sets[better] = -1
    sets[..., :size][better] = others[better]
