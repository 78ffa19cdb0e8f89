"""Any number of many candidates: greedy search with exchanges, for a batch of images, on statistics alone.

Used for concepts of a continuous space, of which the candidates are proposals, many of them for the same concept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from igm_cli.core.concepts import ConceptSpace, Continuous, Product
from igm_cli.core.device import has_triton
from igm_cli.core.inference.constraints import Alternatives, Answer, Constraint, Solution
from igm_cli.core.inference.counting import choose_size
from igm_cli.core.inference.statistics import GramStatistics, PairedDifference, QuadraticForm, gathered
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError

MOST_CONCEPTS = 1000
MOST_POINTS = 2**20
PAIRS_AT_ONCE = 2**21
"""Exchanges of two that are tried in one step, which bounds the memory."""

PAIRS_IN_ALL = 2**22
"""Exchanges of two up to which all are tried; beyond, those of neighbours whose surroundings changed."""

NEIGHBOURS = 48
"""Candidates that are tried for each of two neighbours."""

BEYOND = 4
"""How many concepts more than asked for the way down begins with."""

IN_THE_WAY = 3
"""Members that may give way to a candidate that images are to have in common."""

SEARCHED_ANEW = 4
"""Candidates that images are most likely to have in common, for which the rest of every image is searched anew."""

PATIENCE = 24
"""Sizes by which sets grow beyond the best one, at their cost, before larger ones are given up."""

SWAPS, EXCHANGES = 50, 20
"""Rounds at most."""


class SparseSubset(Constraint):
    """Any number of candidates up to ``k_max``, each at a cost, or exactly K."""

    name = "sparse-subset"

    def __init__(self, space: ConceptSpace, settings: InversionSettings, k: int | None, images: int) -> None:
        super().__init__(space, settings, k, images)
        if k is not None and not 0 <= k <= MOST_CONCEPTS:
            raise UsageError(f"k must lie between 0 and {MOST_CONCEPTS}, not {k}")
        grid, needed = settings.grid, space.point.dim  # type: ignore[attr-defined]
        if grid and len(grid) != needed:
            raise UsageError(
                f"the inversion setting 'grid' must be {needed} numbers, one per coordinate, not {list(grid)}"
            )
        if math.prod(grid) > MOST_POINTS:
            raise UsageError(
                f"a grid of {math.prod(grid)} points is too large; at most {MOST_POINTS} are searched"
            )
        # Sets of another size than the one asked for lead to candidates that it needs, too.
        self.k_max = max(settings.k_max, k or 0)
        self.least = settings.k_min if k is None else self.k_max  # up to which sets of all sizes are searched
        self.area = 1.0  # of the images over that of those trained on

    def fit_to(self, area: float) -> None:
        """Adapts to images of so many times the area of those trained on: errors are means over their pixels."""
        self.area = area
        self.cost /= area

    def solve(self, form: QuadraticForm) -> Solution:
        """Returns the best set found of every size 0..k_max."""
        return self.chosen(pursuit(form, self.k_max, cost=self.cost, least=self.least))

    def chosen(self, path: Solution) -> Solution:
        """Chooses the K asked for, or the one that the errors speak for, each concept at its cost."""
        sizes = torch.arange(path.errors.shape[1], device=path.errors.device)
        most = (path.errors.isfinite() * sizes).amax(1)  # [B]
        if self.k is not None:
            return Solution(path.sets, path.errors, most.clamp(max=self.k))
        enough = sizes >= most.min().clamp(max=self.settings.k_min)
        errors = path.errors.masked_fill(~enough, torch.inf)
        return Solution(path.sets, path.errors, choose_size(errors, sizes, self.cost))

    def alternatives(
        self, statistics: GramStatistics, form: QuadraticForm, solution: Solution, rows: Tensor
    ) -> Alternatives:
        """Compares the chosen K with every other that may be chosen; there is none if K is given."""
        sizes = torch.arange(solution.sets.shape[1], device=solution.sets.device)
        errors = statistics.errors(solution.sets) + self.cost * sizes[:, None]
        chosen = errors.gather(1, solution.chosen[:, None, None].expand(-1, 1, errors.shape[2]))
        exists = solution.errors.isfinite() & (sizes >= self.settings.k_min)
        exists &= (sizes != solution.chosen[:, None]) & (self.k is None)
        return Alternatives(PairedDifference.of(errors, chosen, statistics.importance), exists)

    @property
    def largest(self) -> int:
        """Most concepts that an image may hold."""
        return MOST_CONCEPTS

    def containing(self, form: QuadraticForm, held: Sequence[int]) -> Solution:
        """Returns the best set found of every size that holds some candidates."""
        if not held:
            return self.solve(form)
        h, rest = len(held), max(0, self.k_max - len(held))
        if form.composition == "sum":
            path = pursuit(form.given(held, h), rest)
        else:  # the weight of a contribution depends on how many there are
            every = [pursuit(form.given(held, h + size), size) for size in range(rest + 1)]
            sets = torch.full((len(form.linear), rest + 1, rest), -1)
            for size, found in enumerate(every):
                sets[:, size, :size] = found.sets[:, size]
            errors = torch.stack([found.errors[:, size] for size, found in enumerate(every)], dim=1)
            path = Solution(sets, errors, torch.zeros(len(sets), dtype=torch.long))
        fixed = torch.tensor(list(held)).expand(*path.sets.shape[:2], -1)
        sizes = h + torch.arange(rest + 1)
        return Solution(
            torch.cat([fixed, path.sets], dim=2), path.errors, choose_size(path.errors, sizes, self.cost)
        )

    def least_with(self, form: QuadraticForm, held: Sequence[int]) -> Tensor:
        """Returns the error of a good set that holds some candidates and one more ``[B,M]``, at its cost.

        One more is taken into the best set with ``held``, in exchange for none, one or more of the :data:`IN_THE_WAY`
        members that have most in common with it.  For the few candidates that are best for all images together, sets
        are searched anew.
        """
        base = self.containing(form, held).best  # [B,T]
        (b, m), t = form.linear.shape, base.shape[1]
        member = torch.zeros(b, m + 1, dtype=torch.bool).scatter_(1, base + 1, True)[:, 1:]
        fixed = torch.isin(base, torch.tensor(list(held), dtype=torch.long)) | (base < 0)
        image = torch.arange(b)[:, None]
        shared = form.gram[image, :, base.clamp(min=0)].abs().mT.masked_fill(fixed[:, None], -1.0)  # [B,M,T]
        few = min(IN_THE_WAY, t)
        near = shared.topk(few, dim=2).indices  # [B,M,few]
        masks = torch.cartesian_prod(*[torch.tensor([False, True])] * few).reshape(-1, few)  # [P,few]
        out = torch.zeros(b, m, len(masks), t, dtype=torch.bool)
        out.scatter_(3, near[:, :, None].expand(-1, -1, len(masks), -1), masks.expand(b, m, -1, -1))
        out &= ~fixed[:, None, None]
        sets = torch.where(out, -1, base[:, None, None])  # [B,M,P,T]
        more = torch.arange(m)[None, :, None, None].expand(b, -1, len(masks), 1)
        more = torch.where(member[:, :, None, None], -1, more)
        sets = torch.cat([sets, more], dim=3)
        # A member of the best set stays in it.
        kept = (sets == torch.arange(m)[:, None, None]).any(3)
        total = form.error(sets.flatten(1, 2)).unflatten(1, (m, -1)) + self.cost * (sets >= 0).sum(3)
        least: Tensor = total.masked_fill(~kept, torch.inf).amin(2).masked_fill(~form.usable, torch.inf)
        least = least.index_fill(1, torch.tensor(list(held), dtype=torch.long), torch.inf)
        together = least.sum(0)
        for index in together.topk(min(SEARCHED_ANEW, m), largest=False).indices.tolist():
            if bool(together[index].isfinite()):
                found = self.containing(form, [*held, index])
                errors = found.errors.gather(1, found.chosen[:, None])[:, 0]
                total = errors + self.cost * (found.best >= 0).sum(1)
                least[:, index] = torch.minimum(least[:, index], total)
        return least

    def more_draws(self, seen: int) -> int:
        """Returns how many noise samples to take next: always as many, for every one of them tells much of an image."""
        return self.settings.draws

    def answers(
        self,
        statistics: GramStatistics,
        solution: Solution,
        alternatives: Alternatives,
        candidates: Tensor,
        images: Sequence[int],
        rows: Tensor,
    ) -> list[Answer]:
        """Compares each member with leaving it out, at the cost of a concept, and its values with the others of a factor.

        The members were chosen under the same noise, so that the differences are rather too large than too small.
        """
        best = solution.best[:, : max(1, int((solution.best >= 0).sum(1).max()))]  # members come first
        alone = torch.eye(best.shape[1], dtype=torch.bool, device=best.device)
        without = torch.where(alone, -1, best[:, None, :])  # [B,K,K]
        errors, whole = statistics.errors(without) - self.cost, statistics.errors(best[:, None])
        difference = PairedDifference.of(errors, whole, statistics.importance).to(torch.device("cpu"))
        chosen = best.cpu()
        concepts = gathered(candidates, best.clamp(min=0)).float().cpu()
        groups = cast(Continuous | Product, self.space).variant_groups()
        found = []
        for image in images:
            k = int((chosen[image] >= 0).sum())
            values = None
            if groups:
                one = statistics.images(torch.tensor([image])).to(torch.device("cpu"))
                known, members = candidates[image].cpu(), chosen[image, :k].tolist()
                values = [[self._others(one, known, members, i, group) for group in groups] for i in range(k)]
            rivals = [difference.among(image, [place]) for place in range(k)]
            answer = Answer(concepts[image, :k], rivals, torch.zeros(k), value_rivals=values)
            found.append(answer.scaled(self.area))
        return found

    def _others(
        self, one: GramStatistics, concepts: Tensor, members: list[int], place: int, group: list[int]
    ) -> PairedDifference:
        """Returns by how much the other values of a factor of a member are worse ``[R]``, all else held.

        Values that were no candidates count as no worse.
        """
        member = concepts[members[place]]
        others = cast(Continuous | Product, self.space).variants(member)[group]
        others = others[(others != member).any(1)]
        found = (others[:, None] == concepts).all(2) & one.usable  # [V-1,M]
        rivals = [
            [*members[:place], index, *members[place + 1 :]]
            for index in found[found.any(1)].long().argmax(1).tolist()
        ]
        if not rivals:
            even = torch.zeros(len(group) - 1, dtype=torch.float64)
            return PairedDifference(even, torch.full_like(even, torch.inf), one.draws)
        errors, whole = one.errors(torch.tensor([rivals])), one.errors(torch.tensor([[members]]))
        return PairedDifference.of(errors, whole, one.importance).among(0, range(len(rivals)))


def pursuit(
    form: QuadraticForm, k_max: int, beyond: int = BEYOND, *, cost: float = 0.0, least: int | None = None
) -> Solution:
    """Finds a good set of every size 0..k_max.

    Upwards, the candidate that lowers the error most is added; downwards from a few concepts more, the one that is
    missed least is left out.  After each step one and two members are exchanged for other candidates as long as that
    helps: two objects close together are easily mistaken for one between them, and only a change of both mends it.

    Args:
        form: Expected errors of B images.
        k_max: Largest set asked for.
        beyond: How many concepts more the way down begins with.
        cost: Cost of a concept, by which sets that are too large to be chosen are given up.
        least: Size up to which none is given up; None gives up none at all.

    Returns:
        Sets of which none is chosen yet; larger ones than there are candidates, or given up, have an infinite error.
    """
    if has_triton(form.gram.device):
        from igm_cli.core.inference import pursuit_triton as kernel

        if kernel.fits(form, k_max + beyond):
            sets, found = kernel.search(form, k_max, beyond, swaps=SWAPS, exchanges=EXCHANGES)
            errors = form.error(sets).masked_fill(~found, torch.inf)
            return Solution(sets, errors, torch.zeros_like(sets[:, 0, 0]))
    if form.gram.device.type != "cpu":
        return pursuit(form.to(torch.device("cpu")), k_max, beyond).to(form.gram.device)
    images, candidates = form.linear.shape
    fewest = form.usable.sum(1)
    top = (k_max + beyond) if candidates == 0 else min(k_max + beyond, int(fewest.max()))
    sets = torch.full((images, k_max + 1, k_max), -1)
    errors = torch.full((images, k_max + 1), torch.inf, dtype=torch.float64)
    errors[:, 0] = form.constant
    search = _Search.of(form, min(top, candidates))

    def keep(size: int, active: Tensor) -> None:
        if size <= k_max:
            found = form.error(search.members[:, :size])
            better = active & (found < errors[:, size])
            errors[better, size] = found[better]
            sets[better, size, :size] = search.members[better, :size]

    for size in range(1, min(top, candidates) + 1):
        active = size <= fewest
        search.add(size, active)
        search.exchange(size, active, pairs=size <= k_max)
        keep(size, active)
        if least is not None and PATIENCE + least < size <= k_max:
            total = errors[:, : size + 1] + cost * torch.arange(size + 1)
            if bool((total.argmin(1) + PATIENCE < size).all()):
                top = size
                break
    for size in range(min(top, candidates) - 1, 0, -1):
        active = size < fewest
        search.drop(size + 1, active)
        if size <= k_max:  # what is already known on the way up needs no exchange again
            known = search.members[:, :size].sort(1).values == sets[:, size, :size].sort(1).values
            active = active & ~known.all(1)
        if bool(active.any()):
            search.exchange(size, active, pairs=size <= k_max)
            keep(size, active)
    return Solution(sets, errors, torch.zeros(images, dtype=torch.long))


@dataclass
class _Search:
    """Sets of B images that are changed step by step, always by the step that lowers the error most.

    Attributes:
        form: Expected errors.
        members: The sets ``[B,T]``; those beyond the current size are not meant.
        pull: sum_S A_js of every candidate j ``[B,M]``.
        blocked: Candidates that are members already, or not usable ``[B,M]``.
        tolerance: What rounding can make of no change at all ``[B]``.
        changed: Candidates taken in or left out since pairs were last exchanged ``[B,M]``.
    """

    form: QuadraticForm
    members: Tensor
    pull: Tensor
    blocked: Tensor
    tolerance: Tensor
    changed: Tensor

    @classmethod
    def of(cls, form: QuadraticForm, top: int) -> _Search:
        members = torch.full((len(form.linear), top), -1)
        return cls(
            form, members, torch.zeros_like(form.linear), ~form.usable, 1e-7 * form.constant, ~form.usable
        )

    def add(self, size: int, active: Tensor) -> None:
        """Takes in the best further candidate, which makes sets of a size."""
        change = self._into(self.form.w(size)).masked_fill(self.blocked, torch.inf)
        self._replace(active, torch.full((len(change),), size - 1), change.argmin(1))

    def drop(self, size: int, active: Tensor) -> None:
        """Leaves out the member of sets of a size that is missed least."""
        out = self._out(self.form.w(size - 1))
        least = out.gather(1, self.members[:, :size].clamp(min=0)).argmin(1)
        rows = active.nonzero()[:, 0]
        left = self.members[rows, least[rows]]
        self.pull[rows] -= self.form.gram[rows, left]
        self.blocked[rows, left] = False
        self.changed[rows, left] = True
        # Those after it move up.
        places = torch.arange(size - 1).expand(len(rows), -1)
        moved = places + (places >= least[rows, None])
        self.members[rows, : size - 1] = self.members[rows].gather(1, moved)

    def exchange(self, size: int, active: Tensor, pairs: bool) -> None:
        """Exchanges single members, then pairs, until neither lowers the error."""
        for _ in range(EXCHANGES):
            self._swap(size, active)
            if not pairs or size < 2:
                return
            active = self._swap_pair(size, active)
            if not bool(active.any()):
                return

    def _swap(self, size: int, active: Tensor) -> None:
        """Replaces one member by another candidate as long as the error falls."""
        w, gram, image = self.form.w(size), self.form.gram, torch.arange(len(self.members))
        for _ in range(SWAPS):
            members = self.members[:, :size].clamp(min=0)
            out, into = self._out(w).gather(1, members), self._into(w)
            change = out[:, :, None] + into[:, None, :] - 2 * w * w * gram[image[:, None], members]  # [B,K,M]
            change.masked_fill_(self.blocked[:, None], torch.inf)
            fall, best = change.flatten(1).min(1)
            active = active & (fall < -self.tolerance)
            if not bool(active.any()):
                return
            self._replace(active, best // change.shape[2], best % change.shape[2])

    def _swap_pair(self, size: int, active: Tensor) -> Tensor:
        """Makes the best exchange of two members for two other candidates; returns for which images one helped."""
        m = self.form.gram.shape[1]
        every = size * (size - 1) // 2 * m * m <= PAIRS_IN_ALL
        exchanges = [(row, self._best_pair(size, row, every)) for row in active.nonzero()[:, 0].tolist()]
        self.changed[active] = False
        improved, found = torch.zeros_like(active), torch.zeros(len(active), 4, dtype=torch.long)
        for row, exchange in exchanges:
            if exchange is not None:
                improved[row], found[row] = True, torch.tensor(exchange)
        # Those taken in stand behind those that stay.
        self._to_the_end(size, improved, found[:, :2])
        self._replace(improved, torch.full((len(active),), size - 2), found[:, 2])
        self._replace(improved, torch.full((len(active),), size - 1), found[:, 3])
        return improved

    def _best_pair(self, size: int, row: int, every: bool) -> list[int] | None:
        """Returns the best exchange in an image: two places and two candidates; None if none lowers the error.

        Args:
            size: Number of members.
            row: Which of the images.
            every: Whether to try all pairs with all candidates; else only members that have an inner product, where
                something near them changed, with candidates that have one with either.
        """
        w, gram, members = self.form.w(size), self.form.gram[row], self.members[row, :size]
        out, into = self._out(w)[row], self._into(w)[row].masked_fill(self.blocked[row], torch.inf)
        places = torch.combinations(torch.arange(size))
        if not every:
            stirred = (gram[members][:, self.changed[row]] != 0).any(1)
            near = gram[members[places[:, 0]], members[places[:, 1]]] != 0
            places = places[near & stirred[places].any(1)]
        count = gram.shape[0] if every else min(NEIGHBOURS, gram.shape[0])
        least, best = -float(self.tolerance[row]), None
        for some in places.split(max(1, PAIRS_AT_ONCE // (count * count))) if len(places) else ():
            left, right = members[some[:, 0]], members[some[:, 1]]  # [p]
            leave = out[left] + out[right] + 2 * w * w * gram[left, right]
            enter = into - 2 * w * w * (gram[left] + gram[right])  # [p,M]
            if every:
                change = 2 * w * w * gram[None] + enter[:, :, None]
            else:
                enter = enter.masked_fill((gram[left] == 0) & (gram[right] == 0), torch.inf)
                enter, index = enter.topk(count, largest=False)  # [p,count]
                change = 2 * w * w * gram[index[:, :, None], index[:, None, :]] + enter[:, :, None]
            change += (enter + leave[:, None])[:, None, :]
            change.diagonal(dim1=1, dim2=2).fill_(torch.inf)
            lowest = int(change.argmin())
            pair, one, other = lowest // count**2, lowest // count % count, lowest % count
            if float(change[pair, one, other]) < least:
                least = float(change[pair, one, other])
                taken = [one, other] if every else [int(index[pair, one]), int(index[pair, other])]
                best = [*some[pair].tolist(), *taken]
        return best

    def _to_the_end(self, size: int, active: Tensor, places: Tensor) -> None:
        """Moves the members at two places ``[B,2]`` of sets of a size behind the others."""
        leaving = torch.zeros(len(active), size, dtype=torch.bool).scatter_(1, places, True)
        order = leaving.long().argsort(dim=1, stable=True)
        moved = self.members[:, :size].gather(1, order)
        self.members[:, :size] = torch.where(active[:, None], moved, self.members[:, :size])

    def _replace(self, active: Tensor, place: Tensor, candidate: Tensor) -> None:
        """Puts a candidate ``[B]`` at a place ``[B]`` of the sets of active images, for what stood there."""
        rows = active.nonzero()[:, 0]
        place, candidate = place[rows], candidate[rows]
        old = self.members[rows, place]
        gone = old >= 0
        self.pull[rows[gone]] -= self.form.gram[rows[gone], old[gone]]
        self.blocked[rows[gone], old[gone]] = False
        self.changed[rows[gone], old[gone]] = True
        self.changed[rows, candidate] = True
        self.pull[rows] += self.form.gram[rows, candidate]
        self.blocked[rows, candidate] = True
        self.members[rows, place] = candidate

    def _into(self, w: float) -> Tensor:
        """By how much the error rises if a candidate is taken in ``[B,M]``."""
        return -2 * w * self.form.linear + w * w * (self.form.diagonal + 2 * self.pull)

    def _out(self, w: float) -> Tensor:
        """By how much the error rises if a candidate, being a member, is left out ``[B,M]``."""
        return 2 * w * self.form.linear + w * w * (self.form.diagonal - 2 * self.pull)
