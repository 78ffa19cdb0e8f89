"""Candidates of a continuous space: ranks a grid, searches its best, refines those chosen, rescans what is left over."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from igm_cli.core.composition import weight
from igm_cli.core.concepts import Continuous, Product
from igm_cli.core.device import floats_at_once, side_by_side
from igm_cli.core.inference.candidates import CandidateSet
from igm_cli.core.inference.constraints import Solution, occurring
from igm_cli.core.inference.gauss_newton import refine
from igm_cli.core.inference.noised_batch import NoisedBatch
from igm_cli.core.inference.pursuit import pursuit
from igm_cli.core.inference.sparse_subset import SparseSubset
from igm_cli.core.inference.statistics import QuadraticForm, gathered
from igm_cli.errors import UsageError

GRID_SIZE = 384
"""Points of a grid whose size is not given."""

SHORTLISTED_BEYOND = 3
"""How many concepts beyond the largest answer the grid's shortlist is searched for."""

RESCANNED = 16
"""Candidates that a rescan of what a set of concepts leaves over adds."""

WORTHWHILE = 0.25
"""Share of a concept's cost that each further candidate of a larger image must explain."""


class ContinuousInference:
    """Finds the candidates of B images.

    Args:
        candidates: A set without candidates or noise samples.
        constraint: Which sets are answers.
    """

    def __init__(self, candidates: CandidateSet, constraint: SparseSubset) -> None:
        self.candidates, self.constraint, self.settings = candidates, constraint, candidates.settings
        self.space = cast(Continuous | Product, candidates.denoiser.space)
        self.scanned: list[NoisedBatch] = []
        """The images under the noise samples by which the grid is ranked and concepts are refined."""

    def run(self) -> None:
        """Ranks a grid, and sharpens the concepts chosen from it twice.

        Sharper concepts can change the count, and the count can change the concepts.  In the end the set holds the
        candidates that matter, evaluated under the noise samples of the first decision.

        Raises:
            UsageError: If the grid is too coarse for the number of concepts.
        """
        self.constraint.fit_to(math.prod(self.candidates.scale))
        self.scan()
        self.candidates.see(self.settings.draws - self.candidates.draws)
        # Sharpens a set of one more than chosen: the extra concept may be right once all are in place.
        form, found = self.search()
        self.sharpen(one_more(found), form)
        form, sharper = self.search()
        self.rescan(replace(sharper, chosen=found.chosen).best, form)
        # The second time starts from better candidates, and the chosen set is also sharpened alone.
        form, found = self.search()
        self.sharpen(one_more(found), form)
        self.sharpen(found.best, form)
        _, found = self.search()
        self.candidates.select(self.useful(found))
        if self.settings.refine_steps and self.space.variant_groups():
            self.move_exchanged()
        self.compare_values()

    def search(self) -> tuple[QuadraticForm, Solution]:
        """Returns the expected errors of all candidates, and the best set of every size."""
        form = self.candidates.statistics().expected
        return form, self.constraint.solve(form)

    def scan(self) -> None:
        """Ranks the grid under few noise samples, and searches the best of it.

        Keeps the members of every set on the path of the search.
        """
        s, k_max = self.settings, self.constraint.k_max
        # On an image of another size than trained on, grids and shortlists grow with its sides.
        dim = self.space.point.dim
        scale = [*self.candidates.scale, *[1.0] * dim][:dim]
        grid_of_trained = s.grid or [round(GRID_SIZE ** (1 / dim))] * dim
        counts = tuple(max(1, round(n * by)) for n, by in zip(grid_of_trained, scale, strict=True))
        area = math.prod(scale)
        self.rescanned, self.points = round(RESCANNED * max(1.0, area)), math.prod(counts)
        device = self.candidates.images.device
        grid, self.between = self.space.grid(counts).to(device), self.space.between(counts).to(device)
        if k_max > self.points:
            raise UsageError(f"{k_max} concepts cannot be told apart on a grid of {self.points}; use fewer")
        self.candidates.see(min(s.scan_draws, s.draws))
        self.scanned = [part.seen for part in self.candidates.parts]
        explained = self.candidates.explained(grid)
        keep = max(round(s.keep * max(1.0, area)), 2 * k_max)
        self.candidates.add(grid[best_of_points(explained, self.points, keep).sort().values])
        form = self.candidates.statistics().expected
        path = pursuit(form, k_max + SHORTLISTED_BEYOND, cost=self.constraint.cost, least=self.constraint.least)
        self.candidates.select(self.useful(path))
        self.settle_values(0, path.sets[:, 0])
        every = torch.arange(self.candidates.usable.shape[1], device=self.candidates.home)
        self.exchange_values(torch.where(self.candidates.usable, every, -1))

    def rescan(self, found: Tensor, form: QuadraticForm) -> None:
        """Adds candidates between the points of the grid that explain what sets ``[b,K]`` leave over.

        An object hidden by a larger one shows only once the larger one is explained.
        """
        concepts, present = self.members(found)
        scale = (weight(form.composition, present.sum(1))[:, None] * present).to(concepts)
        left = self.left_over(concepts, scale)
        self.count(present.sum(1))
        gain = self.candidates.explained(self.between, left)
        best = best_of_points(gain, self.points, self.rescanned)
        worth = torch.ones(best.shape, dtype=torch.bool, device=self.candidates.home)
        if self.rescanned > RESCANNED and self.constraint.k is None:
            further = gain.gather(1, best)[:, RESCANNED:]  # those that explain most come first
            worth[:, RESCANNED:] = (further > WORTHWHILE * self.constraint.cost).to(worth.device)
            longest = int(worth.sum(1).max())
            best, worth = best[:, :longest], worth[:, :longest]
        w = weight(form.composition, present.sum(1) + 1)
        held = self.candidates.usable.shape[1]
        self.add_refined(left, self.between[best][:, :, None], worth[..., None], w)
        self.settle_values(held, found)

    def left_over(self, concepts: Tensor, scale: Tensor) -> list[NoisedBatch]:
        """Returns what concepts ``[b,K,D]``, each times its scale ``[b,K]``, leave over of the images of the scan."""
        return side_by_side(lambda part: part.left_over(concepts, scale), self.scanned)

    def sharpen(self, found: Tensor, form: QuadraticForm) -> None:
        """Adds the refined members of sets ``[b,K]``."""
        concepts, present = self.members(found)
        if present.shape[1] and self.settings.refine_steps:
            w = weight(form.composition, present.sum(1))
            self.add_refined(self.scanned, concepts[:, None], present[:, None], w)

    def add_refined(self, parts: list[NoisedBatch], hypotheses: Tensor, present: Tensor, w: Tensor) -> None:
        """Adds the present concepts of hypotheses ``[b,H,K,D]``, moved to where they explain images or rests best.

        ``present`` is ``[b,H,K]``, or ``[b,1,K]`` for all hypotheses; w weights contributions, per image ``[b]``.
        """
        present = present.expand(hypotheses.shape[:3])
        if self.settings.refine_steps:
            size = sum(part.residual.numel() for part in parts)
            at_once = max(1, floats_at_once(hypotheses.device) // size)
            results = [
                refine(parts, self.space.point, some, there, w, steps=self.settings.refine_steps)
                for some, there in zip(hypotheses.split(at_once, 1), present.split(at_once, 1), strict=True)
            ]
            self.count(torch.stack([result.calls for result in results]).sum(0))
            hypotheses = torch.cat([result.concepts for result in results], dim=1)
        self.candidates.add(hypotheses.flatten(1, 2), present.flatten(1))

    def settle_values(self, held: int, found: Tensor) -> None:
        """Replaces mixtures by single values: of each factor, the value that explains most of what is left over.

        Candidates from ``held`` on are mixtures.  Sets ``[b,K]`` of those before are what is explained already.
        """
        image = torch.arange(len(found), device=found.device)[:, None]
        for values in self.space.variant_groups() if self.space.mixes else []:
            mixed, usable = self.candidates.candidates[:, held:], self.candidates.usable
            there = usable[:, held:]
            variants = self.space.variants(mixed)[:, :, values]  # [b,m,V,D]
            self.candidates.add(variants.flatten(1, 2), there.repeat_interleave(len(values), dim=1))
            form, m = self.candidates.statistics().expected, there.shape[1]
            w = weight(form.composition, (found >= 0).sum(1)).to(form.linear)
            shared = (form.gram[image, found.clamp(min=0)] * (found >= 0)[..., None]).sum(1)
            pull = (form.linear - w[:, None] * shared).clamp(min=0)
            explained = (pull.square() / form.diagonal.clamp(min=1e-12))[:, held + m :]
            best = explained.unflatten(1, (m, len(values))).argmax(2)  # [b,m]
            count = torch.arange(max(m, held), device=best.device)
            chosen = held + m + count[:m] * len(values) + best
            old = torch.where(usable[:, :held], count[:held], -1)
            self.candidates.select(torch.cat([old, torch.where(there, chosen, -1)], dim=1))

    def compare_values(self) -> None:
        """Adds concepts that differ in one value from members of good sets, to compare these with.

        One of them may be chosen in turn, so there is one round per factor, and one more.
        """
        factors = len(self.space.variant_groups())
        for _ in range(factors and factors + 1):
            if not self.exchange_values(self.useful(self.search()[1])):
                return

    def move_exchanged(self) -> None:
        """Adds members of the best sets with the likeliest other value of each factor, moved to where they explain best.

        A wrong value moves its concept to a place where the right value may be no better.
        """
        form, found = self.search()
        concepts, present = self.members(found.best)  # [b,K,D]
        w = weight(form.composition, present.sum(1))
        own = (self.space.variants(concepts) == concepts[:, :, None]).all(3)  # [b,K,V]
        for place in range(present.shape[1]):
            others, there = present.clone(), present[:, None, place : place + 1]  # [b,1,1]
            others[:, place] = False
            left = self.left_over(concepts, (w[:, None] * others).to(concepts))
            variants = self.space.variants(concepts[:, place])[:, :, None]  # [b,V,1,D]
            here = refine(left, self.space.point, variants, there, w, steps=0)
            self.count(present.sum(1) * there[:, 0, 0])
            self.count(here.calls)
            errors = here.errors.masked_fill(own[:, place], torch.inf)
            likeliest = [errors[:, group].argmin(1) + group[0] for group in self.space.variant_groups()]
            index = torch.stack(likeliest, dim=1)[:, :, None, None].expand(-1, -1, 1, variants.shape[3])
            self.add_refined(left, variants.gather(1, index), there, w)

    def exchange_values(self, which: Tensor) -> bool:
        """Adds the concepts that differ in one value from candidates ``[b,m]``, unless they are present already.

        Returns:
            Whether any was added.
        """
        known, home = self.candidates.candidates, self.candidates.home
        image = torch.arange(len(which), device=home)[:, None]
        variants = self.space.variants(self.candidates.of(which))  # [b,m,V,D]
        each, variants = variants.shape[2], variants.flatten(1, 2)
        m, held = variants.shape[1], known.shape[1]
        if not m:
            return False
        there = torch.cat([self.candidates.usable, (which >= 0).repeat_interleave(each, dim=1)], dim=1)
        every = torch.cat([known, variants], dim=1)
        same = (variants[:, :, None] == every[:, None]).all(3).to(home) & there[:, None]  # [b,m*V,M+m*V]
        new = there[:, held:] & (same.long().argmax(2) == held + torch.arange(m, device=home))
        order = (~new).long().argsort(dim=1, stable=True)[:, : int(new.sum(1).max())]
        if order.shape[1]:
            self.candidates.add(gathered(variants, order), new[image, order])
        return order.shape[1] > 0

    def members(self, found: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the concepts of sets ``[b,K,D]``, and which are present ``[b,K]``; K is that of the largest set."""
        there = found >= 0
        longest = int(there.sum(1).max())
        order = (~there).long().argsort(dim=1, stable=True)[:, :longest]
        index, there = found.gather(1, order).clamp(min=0), there.gather(1, order)
        return self.candidates.of(index), there

    def count(self, contributions: Tensor) -> None:
        """Counts contributions ``[b]`` that were evaluated under the noise samples of the scan."""
        samples = sum(len(part.importance) for part in self.scanned)
        self.candidates.calls += samples * contributions.to(self.candidates.home)

    def useful(self, path: Solution) -> Tensor:
        """Returns the candidates that occur in any set of a path ``[b,m]``, padded with -1."""
        seen = occurring(path.sets, self.candidates.usable.shape[1])  # [b,M]
        order = (~seen).long().argsort(dim=1, stable=True)[:, : int(seen.sum(1).max())]
        return torch.where(seen.gather(1, order), order, -1)


def best_of_points(gain: Tensor, points: int, most: int) -> Tensor:
    """Returns the candidates that explain most, at most one per point, and ``most`` in all ``[b,m]``.

    ``gain`` is what candidates explain ``[b,M]``; those of a point follow each other, the same number per point.
    """
    each = gain.shape[1] // points
    best, which = gain.unflatten(1, (points, each)).max(2)
    top = best.topk(min(most, points)).indices
    chosen: Tensor = top * each + which.gather(1, top)
    return chosen


def one_more(found: Solution) -> Tensor:
    """Returns the set after the chosen one of each image ``[b,K]``, or the chosen one if it is the last."""
    after = (found.chosen + 1).clamp(max=found.errors.shape[1] - 1)
    image = torch.arange(len(after), device=after.device)
    after = torch.where(found.errors[image, after].isfinite(), after, found.chosen)
    return found.sets[image, after]
