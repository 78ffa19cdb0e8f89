"""Table and plots of the cost over the number of factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from igm_cli.benchmarks.suite import Curve, Plot, Record, Table
from igm_cli.benchmarks.suites.attributes.cost import FEW_DRAWS, LARGEST
from igm_cli.benchmarks.suites.attributes.inversions import ENUMERATE
from igm_cli.benchmarks.suites.attributes.splits import FACTORS

FEW, MANY = 3, 12
"""Factors between which the growth is told."""

NOTE = (
    "Binary factors, on networks of the checkpoint's shape with fresh weights (time does not depend on them), one "
    "image, median of some runs after a warm-up, both with the most draws that the checkpoint's settings allow: igm "
    "often stops earlier on a trained model. Calls a draw: besides the unconditional one. "
    f"Enumeration: measured with {FEW_DRAWS} draws and scaled to all in proportion; above {LARGEST} factors scaled from "
    f"{LARGEST} in proportion to its network calls."
)

Points = Mapping[int, Mapping[str, Mapping[str, Any]]]
"""Number of factors to label to row."""


def factor_rows(records: Sequence[Record]) -> dict[int, dict[str, Mapping[str, Any]]]:
    """Rows of the axis of factors, in their order."""
    found: dict[int, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        if record["split"] == FACTORS:
            for row in record["rows"]:
                found.setdefault(row["factors"], {})[row["label"]] = row
    return dict(sorted(found.items()))


def factor_table(points: Points) -> Table:
    """One line a number of factors."""
    columns = (
        "factors",
        "configurations",
        "calls a draw: igm",
        "calls a draw: enumerate",
        "seconds: igm",
        "seconds: enumerate",
        "enumerate over igm",
        "draws",
    )
    growth = _growth(points)
    grown = f" {MANY} factors take igm {growth:.2f} times the seconds of {FEW}." if growth else ""
    rows = [_line(count, points[count]) for count in points]
    return Table("factors", "Cost over the number of factors", columns, rows, NOTE + grown)


def factor_summary(points: Points) -> dict[str, Any]:
    """All rows as JSON, and what many factors cost igm over few."""
    summary: dict[str, Any] = {str(count): dict(rows) for count, rows in points.items()}
    growth = _growth(points)
    return summary if growth is None else {**summary, "growth": {"from": FEW, "to": MANY, "seconds": growth}}


def _growth(points: Points) -> float | None:
    """Seconds of igm over many factors in those over few, where both are known."""
    few, many = (points.get(count, {}).get("igm") for count in (FEW, MANY))
    return many["seconds"] / few["seconds"] if few and many else None


def factor_plots(points: Points) -> list[Plot]:
    """Seconds and calls, both on a logarithmic axis."""
    axes = {"seconds": "seconds an image", "calls_a_draw": "network calls a draw"}
    return [
        Plot(
            f"factors-{name.partition('_')[0]}",
            f"{axis[0].upper()}{axis[1:]} over the number of binary factors",
            "factors",
            axis,
            _curves(points, name),
            log_y=True,
        )
        for name, axis in axes.items()
    ]


def _line(count: int, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    ours, theirs = rows.get("igm"), rows.get(ENUMERATE)
    times = theirs["seconds"] / ours["seconds"] if ours and theirs else None
    seconds = f"{theirs['seconds']:.3g}{' (scaled)' if theirs['scaled'] else ''}" if theirs else ""
    return [
        str(count),
        str(2**count),
        str(ours["calls_a_draw"]) if ours else "",
        str(theirs["calls_a_draw"]) if theirs else "",
        f"{ours['seconds']:.3g}" if ours else "",
        seconds,
        "" if times is None else f"{times:.{1 if times < 10 else 0}f}",
        str((ours or theirs or {})["draws"]),
    ]


def _curves(points: Points, quantity: str) -> list[Curve]:
    """igm, enumeration, and for seconds its scaled part apart, from the last point measured on."""
    curves = [_curve("igm", points, "igm", quantity)]
    if quantity != "seconds":
        curves.append(_curve(ENUMERATE, points, ENUMERATE, quantity))
    else:
        theirs = {n: rows for n, rows in points.items() if ENUMERATE in rows}
        measured = {n: rows for n, rows in theirs.items() if not rows[ENUMERATE]["scaled"]}
        last = max(measured, default=0)
        curves.append(_curve(ENUMERATE, measured, ENUMERATE, quantity))
        scaled = {n: rows for n, rows in theirs.items() if n >= last}
        curves.append(_curve(f"{ENUMERATE} (scaled)", scaled if len(scaled) > 1 else {}, ENUMERATE, quantity))
    return [curve for curve in curves if curve.x]


def _curve(label: str, points: Points, name: str, quantity: str) -> Curve:
    rows = [(float(count), rows[name]) for count, rows in points.items() if name in rows]
    return Curve(label, [x for x, _ in rows], [float(row[quantity]) for _, row in rows])
