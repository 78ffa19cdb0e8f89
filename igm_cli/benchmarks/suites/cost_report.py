"""The report of the suite ``cost``: tables, plots and ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from igm_cli.benchmarks.frame import DeclaredSuite, declared
from igm_cli.benchmarks.report import capitalised
from igm_cli.benchmarks.scores import grouped, rows_by_split
from igm_cli.benchmarks.suite import Curve, Plot, Record, Report, Row, Table
from igm_cli.benchmarks.timing import machine_note
from igm_cli.errors import percentage

GIVEN, ESTIMATED = "igm, K given", "igm, K estimated"
BATCHED = "igm-sgd, restarts in one batch"
IN_TURN = "igm-sgd, restarts one after another"

_WORDS = declared("cost")
X_LABELS: Mapping[str, str] = _WORDS["x_labels"]
QUANTITIES: Mapping[str, str] = _WORDS["quantities"]
_ALL = {**QUANTITIES, "seconds_per_object": "seconds per object", "memory_mb": "MB above the loaded model"}
HEADLINE_K = (5, 8)
FEW, MANY = 2, 12
SIZED = (5, 200)  # objects in the smallest and the largest image


def build(
    records: Sequence[Record], numbers: Mapping[str, int], machine: dict[str, Any], suite: DeclaredSuite
) -> Report:
    """Returns the report of all records; ``numbers`` are the options of the suite, whose splits are the axes."""
    axes = rows_by_split(records, suite.splits)
    rows = axes.get("k", [])
    ways = {k: {way: _over(rows, (way, k), (GIVEN, k)) for way in (BATCHED, IN_TURN)} for k in HEADLINE_K}
    found = {str(k): {way: ratio for way, ratio in each.items() if ratio} for k, each in ways.items()}
    ratios = {k: each for k, each in found.items() if each}  # of igm-sgd over igm: [K][way][quantity]
    growth = _over(rows, (GIVEN, MANY), (GIVEN, FEW))
    ends = {"half": numbers["sgd_steps"] // 2, "twice": 2 * numbers["sgd_steps"]}
    scaled = suite.words["table_notes"]["headline"].format(**ends, **numbers)
    tables = [_headline(ratios, growth, numbers, scaled)] if ratios or growth else []
    tables += [_table(axis, suite.splits[axis], rows) for axis, rows in axes.items()]
    summary: dict[str, Any] = {"machine": machine, "ratios": ratios, "growth": growth, "axes": axes}
    if scaling := _over(axes.get("size", []), (GIVEN, SIZED[1]), (GIVEN, SIZED[0])):
        summary["scaling"] = scaling
    notes = [machine_note(machine), *(note.format(**numbers, scaled=scaled) for note in suite.notes)]
    off = [row["nonlinearity"] for rows in axes.values() for row in rows if row.get("nonlinearity") is not None]
    notes += [f"Farthest from the line of seconds over steps: {percentage(max(off))}."] if off else []
    return Report(tables, figures=_plots(axes), summary=summary, notes=notes)


def _over(rows: Sequence[Row], above: tuple[str, int], below: tuple[str, int]) -> dict[str, float]:
    """Returns the cost ratios of one point (label and x) to another, by quantity; empty if one is missing."""
    points = {(row["label"], row["x"]): row for row in reversed(rows)}
    many, few = points.get(above, {}), points.get(below, {})
    return {q: many[q] / few[q] for q in _ALL if many.get(q) and few.get(q)}


def _headline(
    ratios: Mapping[str, Mapping[str, Mapping[str, float]]],
    growth: Mapping[str, float],
    numbers: Mapping[str, int],
    note: str,
) -> Table:
    columns = {
        f"K={k}, {label.removeprefix('igm-sgd, ')}": r
        for k, ways in ratios.items()
        for label, r in ways.items()
    }
    columns[f"igm, K={MANY} over K={FEW}"] = growth

    def times(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}×" if value < 100 else f"{value:.0f}×"

    rows = [[name, *(times(ratio.get(q)) for ratio in columns.values())] for q, name in QUANTITIES.items()]
    sgd = f"igm-sgd (R={numbers['restarts']}, {numbers['steps']} steps)"
    title = f"{sgd} over igm (K given), and igm at {MANY} objects over {FEW}"
    return Table("headline", title, ["cost", *columns], rows, note)


def _table(axis: str, about: str, rows: Sequence[Row]) -> Table:
    """Returns a table of all rows of an axis, without empty columns."""
    filled = {n: c for n, c in _WORDS["columns"].items() if any(row.get(n) is not None for row in rows)}
    heads = [head or X_LABELS[axis] for head, _ in filled.values()]
    cells = [
        ["" if row.get(name) is None else form.format(row[name]) for name, (_, form) in filled.items()]
        for row in rows
    ]
    title = capitalised(about) if axis in ("batch", "memory", "size") else f"Cost over {about}"
    notes = {"batch": _fastest, "size": _per_object}
    return Table(f"cost-{axis}", title, heads, cells, notes[axis](rows) if axis in notes else "")


def _fastest(rows: Sequence[Row]) -> str:
    best = max(rows, key=lambda row: float(row["images_per_second"]))
    return f"Fastest: {best['label']}, {best['images_per_second']:.3f} images per second."


def _per_object(rows: Sequence[Row]) -> str:
    points = {row["x"]: row for row in rows}
    if not points.keys() >= set(SIZED):
        return ""
    few, many = (points[k] for k in SIZED)
    times = many["seconds_per_object"] / few["seconds_per_object"]
    ends = [f"K = {row['x']} on {row['size']}" for row in (many, few)]
    return f"Seconds per object at {ends[0]} over those at {ends[1]}: {times:.2f}."


def _plots(axes: Mapping[str, Sequence[Row]]) -> list[Plot]:
    """Returns plots of seconds and passes over every numeric axis, and a separate one of memory."""
    own = {"memory": ("memory_mb",), "batch": (), "size": ("seconds_per_object", "network_calls", "memory_mb")}
    shown = {axis: own.get(axis, ("seconds", "passes", "network_calls")) for axis in axes}
    return [_plot(axis, quantity, axes[axis]) for axis, wanted in shown.items() for quantity in wanted]


def _plot(axis: str, quantity: str, rows: Sequence[Row]) -> Plot:
    curves = []
    for label, part in grouped(rows, itemgetter("label")).items():
        mine = sorted(part, key=itemgetter("x"))
        y = [float(row[quantity]) for row in mine]
        spread = [float(row.get("seconds_std", 0.0)) for row in mine] if quantity == "seconds" else []
        ends = [(max(v - s, v / 10), v + s) for v, s in zip(y, spread, strict=False)] if any(spread) else []
        low, high = ([end[side] for end in ends] for side in (0, 1))
        curves.append(Curve(label, [float(row["x"]) for row in mine], y, low, high))
    name = _ALL[quantity]
    wide = len(curves) > 1 and quantity != "memory_mb"
    title = f"{capitalised(name)} over {X_LABELS[axis]}"
    return Plot(f"cost-{axis}-{quantity}", title, X_LABELS[axis], name, curves, log_y=wide)
