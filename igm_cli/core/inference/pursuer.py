"""Inversion by evidence: rank a grid, search subsets of the promising, refine, draw until settled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Continuous
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.counting import concept_confidence, decide
from igm_cli.core.inference.evidence import Evidence, Quadratic, paired
from igm_cli.core.inference.inversion import Inversion, InversionSettings, KPoint
from igm_cli.core.inference.look import Look, contributions, look, single_products
from igm_cli.core.inference.pool import Pool
from igm_cli.core.inference.refine import refine
from igm_cli.core.inference.search import Found, pursuit
from igm_cli.core.noise_schedule import draw
from igm_cli.errors import UsageError

GRID_SIZE = 384
BEYOND = 3
RESCANNED = 16


@dataclass(frozen=True)
class Scan:
    """What the grid shows under few draws.

    Attributes:
        seen: The image under these draws.
        shortlist: Candidates of the grid that a first search finds use for.
        between: Halfway between the points of the grid, as many ``[G,D]``.
    """

    seen: Look
    shortlist: Pool
    between: Tensor


class Pursuer:
    """Evidence inversion of one image over a continuous space.

    Args:
        denoiser: The model.
        image: ``[C,H,W]``.
        settings: How.
        composition: How contributions add up.
    """

    def __init__(
        self, denoiser: Denoiser, image: Tensor, settings: InversionSettings, composition: Composition
    ) -> None:
        if not isinstance(denoiser.space, Continuous):
            raise TypeError("pursuit needs a continuous space")
        self.denoiser, self.image, self.settings, self.composition = denoiser, image, settings, composition
        self.space = denoiser.space
        self.calls = 0
        self.drawn = 0

    def invert(self, k: int | None) -> Inversion:
        """Finds K concepts, or as many as explain the image."""
        # Sets of another size than the one asked for lead to candidates that it needs, too.
        k_max = max(self.settings.k_max, k or 0)
        scan = self.scan(k_max)
        pool = scan.shortlist
        self.see(pool, self.settings.draws)
        # Sharper concepts can change the count, and the count the concepts: both are looked for twice.
        # One more than chosen is sharpened: what it holds besides may be right, once all are in place.
        form, path = search(pool, k_max)
        chosen = self.choose(pool.evidence(), path, k)
        self.sharpen(pool, scan, one_more(path, chosen), form)
        form, path = search(pool, k_max)
        self.rescan(pool, scan, path[chosen], form)
        # The second time from better candidates, and those chosen are sharpened by themselves, too.
        form, path = search(pool, k_max)
        chosen = self.choose(pool.evidence(), path, k)
        self.sharpen(pool, scan, one_more(path, chosen), form)
        self.sharpen(pool, scan, path[chosen], form)
        _, path = search(pool, k_max)
        pool = useful(pool, path)
        if k is None:
            self.settle(pool)
        evidence = pool.evidence()
        path = pursuit(evidence.expected(), k_max)
        return self.report(pool, evidence, path, self.choose(evidence, path, k), k)

    def choose(self, evidence: Evidence, path: list[Found], k: int | None) -> int:
        """The K asked for, or the one that the errors speak for."""
        return min(k, len(path) - 1) if k is not None else decide(evidence, path, self.settings).k

    def look(self, draws: int) -> Look:
        """The image under the next draws."""
        s = self.settings
        shape = tuple(self.image.shape)
        taken = draw(
            self.denoiser.schedule, shape, draws, low=s.low, high=s.high, seed=s.seed, start=self.drawn
        )
        self.drawn += draws
        self.calls += draws
        return look(self.denoiser, self.image, taken, s.power)

    def see(self, pool: Pool, draws: int) -> None:
        """Shows a pool as many further draws as it has not seen, up to a number, counted."""
        if draws > len(pool):
            more = self.look(draws - len(pool))
            self.calls += len(more) * len(pool.candidates)
            pool.see(more)

    def add(self, pool: Pool, candidates: Tensor) -> None:
        """Takes candidates into a pool, counted."""
        self.calls += len(pool) * len(candidates)
        pool.add(candidates)

    def scan(self, k_max: int) -> Scan:
        """Ranks the grid under few draws, and searches the best of it.

        A candidate of free amplitude explains <r,Delta>²/<Delta,Delta> on its own; those pointing the
        wrong way explain nothing.  The best of these are searched, and the members of every subset
        on the way go on.
        """
        settings = self.settings
        counts = settings.grid or (round(GRID_SIZE ** (1 / self.space.dim)),) * self.space.dim
        grid = self.space.grid(counts).to(self.image.device)
        if k_max > len(grid):
            raise UsageError(f"{k_max} concepts cannot be told apart on a grid of {len(grid)}; use fewer")
        seen = self.look(min(settings.scan_draws, settings.draws))
        explained = self.explained(seen, grid)
        keep = min(len(grid), max(settings.keep, 2 * k_max))
        pool = Pool(self.denoiser, seen, self.composition)
        self.add(pool, grid[explained.topk(keep).indices.sort().values])
        _, path = search(pool, k_max + BEYOND)
        gaps = torch.tensor([max(1, n - 1) for n in counts], device=grid.device)
        between = self.space.clamp(grid + (grid[-1] - grid[0]) / gaps / 2)
        return Scan(seen, useful(pool, path), between)

    def explained(self, seen: Look, candidates: Tensor) -> Tensor:
        """What each candidate of free amplitude explains of a residual on its own ``[M]``."""
        self.calls += len(seen) * len(candidates)
        linear, square = single_products(self.denoiser, seen, candidates)
        return linear.clamp(min=0).square() / square.clamp(min=1e-12)

    def rescan(self, pool: Pool, scan: Scan, found: Found, form: Quadratic) -> None:
        """Adds candidates that explain what a subset leaves over, between the points of the grid.

        What is hidden by something larger shows only once the larger is explained.
        """
        seen, concepts = scan.seen, members(pool, found)
        delta = contributions(self.denoiser, seen, concepts).sum(1)
        self.calls += len(seen) * len(concepts)
        left = Look(seen.features, seen.residual - form.w(len(concepts)) * delta, seen.importance)
        best = self.explained(left, scan.between).topk(min(RESCANNED, len(scan.between))).indices
        self.add(pool, self.refined(left, scan.between[best][:, None], form.w(len(concepts) + 1)))

    def sharpen(self, pool: Pool, scan: Scan, found: Found, form: Quadratic) -> None:
        """Adds the refined members of a subset to the pool."""
        if found.subset and self.settings.refine_steps:
            w = form.w(len(found.subset))
            self.add(pool, self.refined(scan.seen, members(pool, found)[None], w))

    def refined(self, seen: Look, hypotheses: Tensor, w: float) -> Tensor:
        """All concepts of hypotheses ``[B,K,D]``, moved to where they explain best ``[B*K,D]``."""
        if self.settings.refine_steps:
            result = refine(self.denoiser, seen, hypotheses, w, steps=self.settings.refine_steps)
            self.calls += len(seen) * result.calls
            hypotheses = result.concepts
        return hypotheses.flatten(0, 1)

    def settle(self, pool: Pool) -> None:
        """Draws more noise until K is decided, or the draws are spent."""
        s = self.settings
        while self.drawn < s.max_draws:
            evidence = pool.evidence()
            path = pursuit(evidence.expected(), s.k_max)
            if decide(evidence, path, s).settled(s.settled):
                break
            self.see(pool, min(self.drawn + s.draws, s.max_draws))

    def report(
        self, pool: Pool, evidence: Evidence, path: list[Found], chosen: int, k: int | None
    ) -> Inversion:
        """What was found, with the confidence of every part of it."""
        subset = list(path[chosen].subset)
        errors = evidence.errors(subset)
        curve = [
            KPoint(j, found.error, paired(evidence.errors(found.subset), errors, evidence.importance).stderr)
            for j, found in enumerate(path)
        ]
        return Inversion(
            concepts=members(pool, path[chosen]).float().cpu(),
            confidence=concept_confidence(evidence, subset, self.settings.cost),
            k=chosen,
            k_source="estimated" if k is None else "given",
            denoising_error=path[chosen].error,
            k_curve=tuple(curve),
            network_calls=self.calls,
            seconds=0.0,
            draws=self.drawn,
        )


def search(pool: Pool, k_max: int) -> tuple[Quadratic, list[Found]]:
    """The expected errors of a pool, and its best subset of every size."""
    form = pool.evidence().expected()
    return form, pursuit(form, k_max)


def one_more(path: list[Found], chosen: int) -> Found:
    """The subset after the chosen one, if there is one."""
    return path[min(chosen + 1, len(path) - 1)]


def members(pool: Pool, found: Found) -> Tensor:
    """The candidates of a subset ``[K,D]``."""
    return pool.candidates[list(found.subset)]


def useful(pool: Pool, path: list[Found]) -> Pool:
    """The candidates that occur in any subset of a path."""
    return pool.select(torch.tensor(sorted({i for found in path for i in found.subset}), dtype=torch.long))
