"""Suite ``decomposition``: factorises bound vectors (Yeung et al. 2026), compared with resonator networks and our own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from igm_cli.benchmarks.frame import DeclaredSuite, MachineBench
from igm_cli.benchmarks.suite import Infos, Method, Record, Report, Request, Row
from igm_cli.benchmarks.suites.decomposition_points import COUPLED, EXHAUSTIVE, OWN, POINTS, RESONATOR, Point
from igm_cli.benchmarks.suites.decomposition_report import build
from igm_cli.benchmarks.timing import Clock, machine_note, timed
from igm_cli.core.decomposition.auto import FEW_PRODUCTS
from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.coupled import CoupledDiffusion
from igm_cli.core.decomposition.decompose import decompose
from igm_cli.core.decomposition.exhaustive import exhaustive_operations
from igm_cli.core.decomposition.problems import Problems, random_problems
from igm_cli.core.decomposition.resonator import AttentionResonator, Dynamics, Factorizer, Resonator
from igm_cli.core.decomposition.result import Decomposition
from igm_cli.errors import UsageError

PRECISIONS = ("float32", "bfloat16")

IN_CODEBOOKS = CoupledDiffusion(
    space="codebook", steps=4, ratio=0.35, guidance=0.123, signal=(0.061, 0.817), stochasticity=1.0, prior=0.0
)
"""Noise on one-hot vectors has another scale than on codewords, and so have levels and guidance."""

DYNAMICS: Mapping[str, Dynamics] = {
    COUPLED: CoupledDiffusion(),
    "coupled-gauss-latent": CoupledDiffusion(),
    "coupled-similarity-latent": CoupledDiffusion(energy="similarity"),
    "coupled-gauss-codebook": IN_CODEBOOKS,
    "coupled-similarity-codebook": replace(IN_CODEBOOKS, energy="similarity"),
    "attention": AttentionResonator(),
    RESONATOR: Resonator(),
    "resonator-outer": Resonator(weights="outer"),
    "factorizer": Factorizer(),
}
"""The iterative methods.  ``coupled``, ``attention``, ``resonator`` and ``factorizer`` are what users get by these names."""

LONG_ENOUGH = 0.5  # seconds; shorter runs are timed again, and the fastest counts
MOST_RUNS = 5
SURE = 0.99  # confidence in every factor that makes an answer sure


class DecompositionBench(MachineBench):
    """The suite opened for one request."""

    makes = "makes its own random problems"

    def __init__(self, suite: DeclaredSuite, request: Request) -> None:
        super().__init__(suite, request)
        self.precision = self.options.get("precision", PRECISIONS[0])
        if self.precision not in PRECISIONS:
            raise UsageError(f"--set precision takes {' or '.join(PRECISIONS)}, not {self.precision!r}")
        own = [Point.parse(name) for name in str(self.options.get(OWN, "")).split(",") if name.strip()]
        if (OWN in request.splits) != bool(own):
            raise UsageError(
                "the split points and --set points=K3-n50-D1000,... go together; give both or neither"
            )
        splits = {split: own if split == OWN else POINTS[split] for split in request.splits}
        self.points = {split: {point.name: point for point in points} for split, points in splits.items()}

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The identity; methods, splits, points and limit are free between two calls."""
        settings = {name: described(name) for name in self.suite.methods}
        run = {"seed": self.request.seed, **self.numbers, "precision": self.precision}
        return {**run, "settings": settings, **self.machine}

    def items(self, split: str) -> Sequence[str]:
        """Returns the names of a split's points."""
        return list(self.points[split])[: self.request.limit]

    def method(self, name: str) -> Method:
        """Returns a method, without training: a row per setting, none if the point is about another method."""

        def rows(split: str, item: str) -> list[Row]:
            point = self.points[split][item]
            about = {**vars(point), "point": point.name, "search_space": point.search_space}
            return [
                {"label": label, **about, "limit": iterations, **self._measure(name, method, iterations, point)}
                for label, method, iterations in schemes(name, point, self.numbers["iterations"])
            ]

        return Method(rows, {"how": self.suite.methods[name], **described(name)})

    def _measure(self, name: str, method: str | Dynamics, iterations: int, point: Point) -> Row:
        """Returns a row: how many factors are right, and the costs, with the seconds per problem over the whole batch."""
        seed = self.request.seed
        plain = problems_of(point.problem, self.numbers["problems"], seed)
        # Each method has its own codebooks, so that what it caches with them counts as its cost.
        codebooks, vectors = self._on_device(plain)
        whole, kept = exhaustive_operations(codebooks), point.codewords
        if name == EXHAUSTIVE:  # searches only some codewords of the first factor
            most = self.numbers["exhaustive_gflop"] * 1e9
            kept = min(kept, max(2, int(kept * most / (whole * len(vectors)))))
        searched, binding = codebooks, codebooks.binding
        if kept < point.codewords:
            books = [binding.vector(spectrum, codebooks.dim) for spectrum in codebooks.spectra]
            searched = Codebooks([books[0][:kept], *books[1:]], binding.name, codebooks.precision)
        self._warm_up(method, point)
        runs: list[tuple[Decomposition, Clock]] = []

        def run() -> Decomposition:
            # Not the seed itself, from which the problems were drawn: the method would draw the same numbers.
            return decompose(vectors, searched, method, iterations=iterations, seed=seed + 1)

        while not runs or (sum(clock.seconds for _, clock in runs) < LONG_ENOUGH and len(runs) < MOST_RUNS):
            runs.append(timed(run, self.device))
        answer, fastest, share = runs[0][0], min(clock for _, clock in runs), kept / point.codewords
        right = (answer.indices.cpu() == plain.truth).sum(1).tolist()
        sure = (answer.confidence.cpu() >= SURE).all(1).int().tolist()
        each = 1 / (len(vectors) * share)
        return {
            "problems": len(vectors),
            "share": share,
            "right": right if share == 1 else None,
            "sure": sure if share == 1 else None,
            "iterations": answer.iterations.tolist(),
            "operations": (answer.operations / share).tolist(),
            "seconds": fastest.seconds * each,
            "cpu_seconds": fastest.cpu_seconds * each,
            "runs": len(runs),
            "exhaustive": whole,
        }

    def _on_device(self, problems: Problems) -> tuple[Codebooks, Tensor]:
        precision = getattr(torch, self.precision)
        return problems.codebooks.to(self.device, precision), problems.vectors.to(self.device)

    def _warm_up(self, method: str | Dynamics, point: Point) -> None:
        """Takes a few steps on other small problems of the same kind, so that one-time set-up does not count as cost.

        They have more products than auto would search exhaustively.
        """
        few = min(point.codewords, math.ceil((FEW_PRODUCTS + 1) ** (1 / point.factors)))
        small = replace(point.problem, codewords=few)
        codebooks, vectors = self._on_device(problems_of(small, 2, self.request.seed))
        decompose(vectors, codebooks, method, iterations=2)

    def report(self, records: Sequence[Record], infos: Infos) -> Report:
        """Returns tables and plots."""
        report = build(records, infos, self.suite.splits)
        notes = [machine_note(self.machine), *(note.format(**self.numbers) for note in self.suite.notes)]
        return replace(report, summary={"machine": self.machine, **report.summary}, notes=notes)


@lru_cache(maxsize=4)
def problems_of(point: Point, count: int, seed: int) -> Problems:
    """Returns the problems that all methods see, on the CPU."""
    return random_problems(
        point.codewords, point.factors, point.dim, count, binding=point.binding, noise=point.noise, seed=seed
    )


def schemes(name: str, point: Point, iterations: int) -> list[tuple[str, str | Dynamics, int]]:
    """Returns labels, methods and iterations of the rows of a point."""
    method = DYNAMICS.get(name, name)
    if not point.coupled_only:
        return [(name, method, iterations)]
    variants = [each for other, each in DYNAMICS.items() if other != COUPLED]
    if not isinstance(method, CoupledDiffusion) or (name == COUPLED and method in variants):
        return []  # if ``coupled`` is a variant, the figure shows it already
    if point.steps is not None:
        method = replace(method, steps=point.steps)
    if point.ratio is not None and point.restarts is not None:
        method = replace(method, ratio=point.ratio)
        return [(name, method, method.steps + point.restarts * max(1, round(point.ratio * method.steps)))]
    return [
        (f"{name}, one pass", method, method.steps),
        (f"{name}, restarts", method, max(iterations, method.steps)),
    ]


def described(name: str) -> dict[str, Any]:
    """Returns the settings of a method as JSON; empty if it has none."""
    dynamics = DYNAMICS.get(name)
    settings = asdict(dynamics) if dynamics else {}  # type: ignore[call-overload]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


SUITE = DeclaredSuite("decomposition", DecompositionBench)
