"""Any number of many candidates: greedy search with exchanges, for a batch of images, on statistics alone.

Used for continuous spaces, whose candidates are proposals, many of them for the same concept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from igm_cli.core.concepts import ConceptSpace
from igm_cli.core.inference.constraints import Alternatives, Answer, Constraint, Solution, occurring
from igm_cli.core.inference.pursuit import pursuit
from igm_cli.core.inference.statistics import GramStatistics, PairedDifference, QuadraticForm, gathered
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError

MOST_CONCEPTS = 1000
MOST_POINTS = 2**20
IN_THE_WAY = 3
"""Members of a set that may be dropped for a candidate to have in common."""

SEARCHED_ANEW = 4
"""Most likely common candidates, for which the rest of every image is searched anew."""


class SparseSubset(Constraint):
    """Any number of candidates up to ``k_max``, each at a cost, or exactly K."""

    name = "sparse-subset"

    def __init__(self, space: ConceptSpace, settings: InversionSettings, k: int | None) -> None:
        super().__init__(space, settings, k)
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
        self.area = 1.0  # of the images, over that of those trained on

    def fit_to(self, area: float) -> None:
        """Adapts the cost to images of ``area`` times the training size: errors are means over pixels."""
        self.area = area
        self.cost /= area

    def solve(self, form: QuadraticForm) -> Solution:
        """Returns the best set found of every size 0..k_max."""
        return self.chosen(pursuit(form, self.k_max, cost=self.cost, least=self.least))

    def chosen(self, path: Solution) -> Solution:
        """Chooses the K asked for, or the one of least error plus cost."""
        sizes = (path.sets >= 0).sum(-1)  # [B,S]
        most = (path.errors.isfinite() * sizes).amax(1)  # [B]
        if self.k is not None:
            return Solution(path.sets, path.errors, most.clamp(max=self.k))
        enough = sizes >= most.clamp(max=self.settings.k_min)[:, None]
        errors = path.errors.masked_fill(~enough, torch.inf)
        return Solution(path.sets, path.errors, self.cheapest(errors, sizes))

    def alternatives(self, statistics: GramStatistics, solution: Solution, rows: Tensor) -> Alternatives:
        """Compares the chosen K with every other that may be chosen; with none if K is given."""
        sizes = (solution.sets >= 0).sum(-1)  # [B,S]
        errors = statistics.errors(solution.sets) + self.cost * sizes[..., None]
        chosen = errors.gather(1, solution.chosen[:, None, None].expand(-1, 1, errors.shape[2]))
        exists = solution.errors.isfinite() & (sizes >= self.settings.k_min)
        exists &= (sizes != sizes.gather(1, solution.chosen[:, None])) & (self.k is None)
        difference = PairedDifference.of(errors, chosen, statistics.importance)
        return Alternatives(statistics, solution, rows, difference, exists)

    @property
    def largest(self) -> int:
        """The most concepts an image may hold."""
        return MOST_CONCEPTS

    def containing(self, form: QuadraticForm, held: Sequence[int]) -> Solution:
        """Returns, for every size, the best set found that holds the given candidates."""
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
        return self.chosen(replace(path, sets=torch.cat([fixed, path.sets], dim=2)))

    def least_with(self, form: QuadraticForm, held: Sequence[int]) -> Tensor:
        """Returns the error plus cost of a good set that holds the given candidates and one more ``[B,M]``.

        The candidate joins the best set with ``held``, in exchange for none, one or more of the :data:`IN_THE_WAY`
        members that overlap it most.  For the few candidates that are best for all images together, sets are searched
        anew.
        """
        base = self.containing(form, held).best  # [B,T]
        (b, m), t = form.linear.shape, base.shape[1]
        member = occurring(base, m)
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
                total = self.containing(form, [*held, index]).total(self.cost)
                least[:, index] = torch.minimum(least[:, index], total)
        return least

    def more_draws(self, seen: int) -> int:
        """Returns how many noise samples to take next: always the same number, as each tells much about an image."""
        return self.settings.draws

    def answers(self, found: Alternatives, candidates: Tensor, images: Sequence[int]) -> list[Answer]:
        """Compares each member with leaving it out, at the cost of a concept, and its values with the others of a factor.

        The members were chosen under the same noise, so the differences tend to be too large.  They are told as on an
        image of the training size: a local concept changes the same number of pixels on an image of any size.
        """
        statistics, best = found.statistics, found.solution.best
        best = best[:, : max(1, int((best >= 0).sum(1).max()))]  # members come first
        alone = torch.eye(best.shape[1], dtype=torch.bool, device=best.device)
        without = torch.where(alone, -1, best[:, None, :])  # [B,K,K]
        errors, whole = statistics.errors(without) - self.cost, statistics.errors(best[:, None])
        difference = PairedDifference.of(errors, whole, statistics.importance).scaled(self.area)
        difference = difference.to(torch.device("cpu"))
        chosen = best.cpu()
        concepts = gathered(candidates, best.clamp(min=0)).float().cpu()
        groups, answers = self.space.variant_groups(), []
        for image in images:
            k = int((chosen[image] >= 0).sum())
            values = None
            if groups:
                one = statistics.images(torch.tensor([image]))
                known, members = candidates[image].cpu(), chosen[image, :k].tolist()
                values = [[self._others(one, known, members, i, group) for group in groups] for i in range(k)]
            rivals = [difference.among(image, [place]) for place in range(k)]
            answers.append(Answer(concepts[image, :k], rivals, torch.zeros(k), value_rivals=values))
        return answers

    def _others(
        self, one: GramStatistics, concepts: Tensor, members: list[int], place: int, group: list[int]
    ) -> PairedDifference:
        """Returns how much worse the other values of a factor of a member are ``[R]``, all else fixed.

        If none of them was a candidate, they count as no worse.
        """
        member = concepts[members[place]]
        others = self.space.variants(member)[group]  # type: ignore[attr-defined]
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
        difference = PairedDifference.of(errors, whole, one.importance).scaled(self.area)
        return difference.among(0, range(len(rivals)))
