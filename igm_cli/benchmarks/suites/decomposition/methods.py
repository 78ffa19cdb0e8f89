"""One method on the problems of a point: what it finds, and how long it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from igm_cli.benchmarks.suite import Row
from igm_cli.benchmarks.suites.cost.measure import Clock, clocked
from igm_cli.benchmarks.suites.decomposition.points import Options, Point
from igm_cli.benchmarks.suites.decomposition.settings import DYNAMICS, EXHAUSTIVE, METHODS, copies, described
from igm_cli.core.decomposition.auto import FEW_PRODUCTS
from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.coupled import CoupledDiffusion
from igm_cli.core.decomposition.decompose import decompose
from igm_cli.core.decomposition.exhaustive import exhaustive_operations
from igm_cli.core.decomposition.problems import Problems, random_problems
from igm_cli.core.decomposition.resonator import Dynamics
from igm_cli.core.decomposition.result import Decomposition

LONG_ENOUGH = 0.5
"""Seconds; shorter runs are timed again, and the fastest counts."""

MOST_RUNS = 5

SURE = 0.99
"""Confidence in every factor from which on an answer is given as sure."""


@lru_cache(maxsize=2)
def problems_of(point: Point, count: int, seed: int) -> Problems:
    """The problems that all methods see, on the CPU."""
    return random_problems(
        point.codewords, point.factors, point.dim, count, binding=point.binding, noise=point.noise, seed=seed
    )


class Solver:
    """A method behind the protocol of a suite's.

    Args:
        name: Of the method.
        points: Of every split, by name.
        options: Of the suite.
        seed: Of problems and methods.
        device: Where to compute.
    """

    limit: int | None = None

    def __init__(
        self,
        name: str,
        points: Mapping[str, Mapping[str, Point]],
        options: Options,
        seed: int,
        device: torch.device,
    ) -> None:
        self.name, self.points, self.options, self.seed, self.device = name, points, options, seed, device
        self.info: Mapping[str, Any] = {"how": METHODS[name], **described(name)}

    def __call__(self, split: str, item: str) -> list[Row]:
        """A row a setting; none where the point is about another method."""
        point = self.points[split][item]
        plain = problems_of(point.problem, self.options.problems, self.seed)
        rows = []
        for label, method, iterations in schemes(self.name, point, self.options.iterations):
            # codebooks of its own: what a method keeps with them is its cost
            problems = replace(
                plain,
                codebooks=plain.codebooks.to(self.device, getattr(torch, self.options.precision)),
                vectors=plain.vectors.to(self.device),
            )
            about = {**vars(point), "point": point.name, "search_space": point.search_space}
            rows.append(
                {"label": label, **about, "limit": iterations, **self._row(method, iterations, point, problems)}
            )
        return rows

    def _row(self, method: str | Dynamics, iterations: int, point: Point, problems: Problems) -> dict[str, Any]:
        """What was found, right or not, and seconds a problem of the whole batch."""
        whole = exhaustive_operations(problems.codebooks)
        kept = self._kept(whole * len(problems.vectors), point)
        searched = problems.codebooks if kept == point.codewords else part_of(problems.codebooks, kept)
        self._warm_up(method, point)
        # problems are drawn from the seed itself: a method that drew from it too would see the same random numbers
        found, clocks = timed(
            lambda: decompose(problems.vectors, searched, method, iterations=iterations, seed=self.seed + 1),
            self.device,
        )
        share = kept / point.codewords
        fastest = min(clocks, key=lambda clock: clock.seconds)
        each = 1 / (len(problems.vectors) * share)
        return {
            "problems": len(problems.vectors),
            "share": share,
            **(judged(found, problems.truth) if share == 1 else {"right": None, "sure": None}),
            "iterations": found.iterations.tolist(),
            "operations": (found.operations / share).tolist(),
            "seconds": fastest.seconds * each,
            "cpu_seconds": fastest.cpu_seconds * each,
            "runs": len(clocks),
            "exhaustive": whole,
        }

    def _kept(self, operations: float, point: Point) -> int:
        """Codewords of the first factor that exhaustive search goes through, of its point's; all for other methods."""
        if self.name != EXHAUSTIVE:
            return point.codewords
        allowed = int(point.codewords * self.options.exhaustive_gflop * 1e9 / operations)
        return min(point.codewords, max(2, allowed))

    def _warm_up(self, method: str | Dynamics, point: Point) -> None:
        """A few steps on other, small problems of the same kind: what is set up once is no cost of a problem.

        They have more products than those of which auto simply compares all.
        """
        few = min(point.codewords, math.ceil((FEW_PRODUCTS + 1) ** (1 / point.factors)))
        small = random_problems(
            few, point.factors, point.dim, 2, binding=point.binding, noise=point.noise, seed=self.seed
        )
        codebooks = small.codebooks.to(self.device, getattr(torch, self.options.precision))
        decompose(small.vectors.to(self.device), codebooks, method, iterations=2)


def schemes(name: str, point: Point, iterations: int) -> list[tuple[str, str | Dynamics, int]]:
    """Labels, methods and iterations of the rows of a point."""
    method = DYNAMICS.get(name, name)
    if not point.coupled_only:
        return [(name, method, iterations)]
    if not isinstance(method, CoupledDiffusion) or copies(name):
        return []
    if point.steps is not None:
        method = replace(method, steps=point.steps)
    if point.ratio is not None and point.restarts is not None:
        method = replace(method, ratio=point.ratio)
        return [(name, method, method.steps + point.restarts * max(1, round(point.ratio * method.steps)))]
    return [
        (f"{name}, one pass", method, method.steps),
        (f"{name}, restarts", method, max(iterations, method.steps)),
    ]


def part_of(codebooks: Codebooks, kept: int) -> Codebooks:
    """The codebooks with only some codewords of the first factor."""
    binding = codebooks.binding
    books = [binding.vector(spectrum, codebooks.dim) for spectrum in codebooks.spectra]
    return Codebooks([books[0][:kept], *books[1:]], binding.name, codebooks.precision)


def judged(found: Decomposition, truth: Tensor) -> dict[str, Any]:
    """Right factors of every problem, and whether its answer was given as sure."""
    sure = (found.confidence.cpu() >= SURE).all(1)
    return {"right": (found.indices.cpu() == truth).sum(1).tolist(), "sure": sure.int().tolist()}


def timed(run: Callable[[], Decomposition], device: torch.device) -> tuple[Decomposition, list[Clock]]:
    """What a run gives, and how long it takes, several times if it is short."""
    found: list[Decomposition] = []
    clocks: list[Clock] = []
    while not clocks or (sum(clock.seconds for clock in clocks) < LONG_ENOUGH and len(clocks) < MOST_RUNS):
        clocks.append(clocked(lambda: found.append(run()), device))
    return found[0], clocks
