"""From records to figures: what a method gets right at a point and what it costs, and two methods beside each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from igm_cli.benchmarks.frame.tables import values
from igm_cli.benchmarks.suite import Record, Row
from igm_cli.benchmarks.suites.decomposition.points import DEMANDED
from igm_cli.benchmarks.suites.decomposition.settings import AUTO
from igm_cli.core.metrics import Estimate, mcnemar, rate, ratio, share

SLOWER = 1.1
"""How many times as long counts as slower: repeated calls of the same method differ by as much."""


@dataclass(frozen=True)
class Score:
    """One method at one point.

    Attributes:
        row: As it was recorded.
        exact: Share of problems of which all factors are right; None if it was not measured, as are the next two.
        right: Share of right factors.
        astray: Share of problems whose answer was given as sure, and wrong.
        iterations: A problem.
        operations: A problem.
    """

    row: Row
    exact: Estimate | None
    right: Estimate | None
    astray: Estimate | None
    iterations: Estimate
    operations: Estimate

    @property
    def label(self) -> str:
        """The method, with its scheme if there are several."""
        return str(self.row["label"])

    @property
    def point(self) -> str:
        """Its name."""
        return str(self.row["point"])

    @property
    def seconds(self) -> float:
        """A problem."""
        return float(self.row["seconds"])

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        row = self.row
        estimates = {name: part.to_list() for name, part in vars(self).items() if isinstance(part, Estimate)}
        costs = {name: row[name] for name in ("seconds", "cpu_seconds", "limit", "share")}
        return {"problems": row["problems"], **estimates, **costs}


@dataclass(frozen=True)
class Race:
    """``auto`` beside the fastest of the other methods that are as accurate at a point.

    Attributes:
        point: Its name.
        ours: ``auto``.
        best: The fastest other method that is as accurate; None if there is none.
        arithmetic: Of auto over that of exhaustive search.
        demanded: Least exact accuracy, and most arithmetic; None where nothing is.
    """

    point: str
    ours: Score
    best: Score | None
    arithmetic: float
    demanded: tuple[float, float] | None

    @property
    def accuracy(self) -> Estimate:
        """Of auto."""
        return self.ours.exact or Estimate(math.nan, math.nan, math.nan)

    @property
    def met(self) -> bool:
        """Whether auto is as accurate and cheap as demanded, and no slower than the best."""
        accuracy, most = self.demanded or (0.0, math.inf)
        slower = self.best is not None and self.ours.seconds > SLOWER * self.best.seconds
        return self.accuracy.value >= accuracy and self.arithmetic <= most and not slower

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "exact": self.accuracy.value,
            "seconds": self.ours.seconds,
            "fastest_as_accurate": self.best and self.best.label,
            "its_seconds": self.best and self.best.seconds,
            "arithmetic": self.arithmetic,
            "demanded": self.demanded,
            "met": self.met,
        }


def score(row: Row) -> Score:
    """The figures of a row."""
    one = torch.ones(row["problems"])
    exact = right = astray = None
    if row["right"] is not None:
        hits, sure = values(_hits(row)), values(row["sure"])
        exact, astray = share(hits), share(sure * (1 - hits))
        right = rate(values(row["right"]), row["factors"] * one)
    iterations, operations = (ratio(values(row[name]), one) for name in ("iterations", "operations"))
    return Score(row, exact, right, astray, iterations, operations)


def scores(records: Iterable[Record], split: str) -> list[Score]:
    """Of all methods at all points of a split."""
    return [score(row) for record in records if record["split"] == split for row in record["rows"]]


def races(scored: Sequence[Score]) -> list[Race]:
    """Auto against all others, at every point of a split where it was run."""
    found = []
    for ours in scored:
        if ours.label != AUTO:
            continue
        others = [each for each in scored if each.point == ours.point and each.label != AUTO]
        fit = [each for each in others if _as_accurate(each, ours)]
        best = min(fit, key=lambda each: each.seconds) if fit else None
        found.append(
            Race(
                ours.point, ours, best, ours.operations.value / ours.row["exhaustive"], DEMANDED.get(ours.point)
            )
        )
    return found


@dataclass(frozen=True)
class Paired:
    """Two methods on the same problems of a point: how many each alone has all right."""

    point: str
    problems: int
    both: int
    first: int
    second: int

    @property
    def p(self) -> float:
        """Exact two-sided p of McNemar's test."""
        return mcnemar(self.first, self.second)


def paired(scored: Sequence[Score], first: str, second: str) -> list[Paired]:
    """Two methods at every point of a split where both were run."""
    rows = {(each.point, each.label): each.row for each in scored}
    found = []
    for point in dict.fromkeys(each.point for each in scored):
        if (point, first) in rows and (point, second) in rows:
            pairs = list(zip(_hits(rows[point, first]), _hits(rows[point, second]), strict=False))
            counts = [pairs.count(each) for each in ((True, True), (True, False), (False, True))]
            found.append(Paired(point, len(pairs), *counts))
    return found


def _as_accurate(other: Score, ours: Score) -> bool:
    """Whether another method has as many problems right; exhaustive search is taken to where it was not run in full."""
    return other.exact is None or (ours.exact is not None and other.exact.value >= ours.exact.value)


def _hits(row: Row) -> list[bool]:
    return [right == row["factors"] for right in row["right"]]
