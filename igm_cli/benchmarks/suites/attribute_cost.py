"""The cost of an inversion over the number of factors, on networks of the checkpoint's shape (suite ``attributes``).

These networks need no training: only the decision when to stop drawing noise depends on the weights, and the number
of draws is fixed to the maximum that the checkpoint's settings allow.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from operator import itemgetter
from typing import Any, cast

import torch

from igm_cli.benchmarks.report import capitalised, declared_table
from igm_cli.benchmarks.scores import grouped
from igm_cli.benchmarks.suite import Curve, Plot, Record, Report, Row
from igm_cli.benchmarks.timing import timed
from igm_cli.core.checkpoint import Checkpoint
from igm_cli.core.concepts import Categorical
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.engine import invert
from igm_cli.core.types import Inversion, InversionSettings

ENUMERATE = "enumerate"
COUNTS = (2, 3, 4, 6, 8, 10, 12)  # numbers of binary factors
REPEATS = 5
FEW, MANY = 3, 12  # factors between which the growth is reported
LARGEST = 6  # enumeration is measured up to this many factors
FEW_DRAWS = 2  # draws in that measurement


class FactorCost:
    """Times the inversion of one image over binary factors, with the checkpoint's architecture and settings."""

    def __init__(self, checkpoint: Checkpoint, settings: InversionSettings, device: torch.device) -> None:
        self.checkpoint, self.device = checkpoint, device
        self.settings = replace(settings, draws=settings.max_draws)
        few = replace(self.settings, method=ENUMERATE, draws=min(FEW_DRAWS, self.settings.draws))
        self._enumerated = cache(lambda factors: self._timed(factors, few))

    def igm(self, factors: int) -> Row:
        """Returns the row of the exact search."""
        seconds, found = self._timed(factors, self.settings)
        return _row("igm", factors, seconds, found.network_calls, found.draws)

    def enumerate(self, factors: int) -> Row:
        """Returns the row of enumeration; beyond :data:`LARGEST` factors, extrapolated by network calls."""
        measured, draws = min(factors, LARGEST), self.settings.draws
        seconds, found = self._enumerated(measured)
        calls = draws * (1 + factors * 2**factors)  # the base, and every factor of every configuration
        row = _row(ENUMERATE, factors, seconds * calls / found.network_calls, calls, draws)
        about = {"factors": measured, "draws": found.draws, "seconds": seconds}
        return {**row, "scaled": factors > measured, "measured": about}

    def _timed(self, factors: int, settings: InversionSettings) -> tuple[float, Inversion]:
        """Returns the median seconds of some runs after a warm-up, and what one of them found."""
        space = Categorical({f"factor {number}": ("no", "yes") for number in range(factors)}).to_dict()
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            model = replace(self.checkpoint.spec, space=space).build()  # fresh weights
        model.eval().requires_grad_(False)
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        denoiser, (width, height) = cast(Denoiser, model), self.checkpoint.spec.image_size
        generator = torch.Generator().manual_seed(settings.seed)
        image = (torch.rand(3, height, width, generator=generator) * 2 - 1).to(self.device)

        def run() -> Inversion:
            return invert(denoiser, image, settings, composition=self.checkpoint.spec.composition)

        found = run()
        return statistics.median(timed(run, self.device)[1].seconds for _ in range(REPEATS)), found


def _row(label: str, factors: int, seconds: float, calls: int, draws: int) -> Row:
    each = calls // draws - 1  # without the unconditional one
    cost = {"seconds": seconds, "calls": calls, "draws": draws, "calls_a_draw": each}
    return {"label": label, "factors": factors, **cost, "scaled": False}


def factor_report(records: Sequence[Record]) -> Report:
    """Returns the table, plots and summary of the cost over factors; empty without records."""
    every = sorted((row for record in records for row in record["rows"]), key=itemgetter("factors"))
    by_count = grouped(every, itemgetter("factors"))
    points: dict[int, dict[str, Row]] = {n: {r["label"]: r for r in rows} for n, rows in by_count.items()}
    if not points:
        return Report([])
    summary: dict[str, Any] = {str(count): rows for count, rows in points.items()}
    grown, few, many = "", points.get(FEW, {}).get("igm"), points.get(MANY, {}).get("igm")
    if few and many:
        growth = many["seconds"] / few["seconds"]
        summary["growth"] = {"from": FEW, "to": MANY, "seconds": growth}
        grown = f" {MANY} factors take igm {growth:.2f} times the seconds of {FEW}."
    rows = [_cells(count, points[count]) for count in points]
    numbers = {"few_draws": FEW_DRAWS, "largest": LARGEST, "grown": grown}
    table = declared_table("attributes", "factors", rows, **numbers)
    return Report([table], figures=[_plot(points, "seconds"), _plot(points, "calls_a_draw")], summary=summary)


def _cells(count: int, rows: Mapping[str, Row]) -> list[str]:
    ours, theirs = rows.get("igm"), rows.get(ENUMERATE)
    times = theirs["seconds"] / ours["seconds"] if ours and theirs else None
    return [
        str(count),
        str(2**count),
        *(str(row["calls_a_draw"]) if row else "" for row in (ours, theirs)),
        *(f"{row['seconds']:.3g}{' (scaled)' * row['scaled']}" if row else "" for row in (ours, theirs)),
        "" if times is None else f"{times:.{1 if times < 10 else 0}f}",
        str((ours or theirs or {})["draws"]),
    ]


def _plot(points: Mapping[int, Mapping[str, Row]], quantity: str) -> Plot:
    """Returns the plot of igm and enumeration; in seconds, enumeration's extrapolated part is a separate curve."""
    ours, theirs = ([rows[name] for rows in points.values() if name in rows] for name in ("igm", ENUMERATE))
    lines = {"igm": ours, ENUMERATE: theirs}
    if quantity == "seconds":
        lines[ENUMERATE] = [row for row in theirs if not row["scaled"]]
        beyond = [*lines[ENUMERATE][-1:], *(row for row in theirs if row["scaled"])]
        lines[f"{ENUMERATE} (scaled)"] = beyond if len(beyond) > 1 else []
    curves = [
        Curve(label, [float(row["factors"]) for row in rows], [float(row[quantity]) for row in rows])
        for label, rows in lines.items()
        if rows
    ]
    axis = {"seconds": "seconds per image", "calls_a_draw": "network calls per draw"}[quantity]
    title = f"{capitalised(axis)} over the number of binary factors"
    return Plot(f"factors-{quantity.partition('_')[0]}", title, "factors", axis, curves, log_y=True)
