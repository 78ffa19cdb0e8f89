"""What the records of the suite ``cost`` amount to: tables, plots and ratios."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from igm_cli.benchmarks.frame import DeclaredSuite, declared
from igm_cli.benchmarks.report import capitalised
from igm_cli.benchmarks.suite import Curve, Plot, Record, Report, Row, Table
from igm_cli.benchmarks.timing import machine_note

GIVEN, ESTIMATED = "igm, K given", "igm, K estimated"
BATCHED = "igm-sgd, restarts in one batch"
IN_TURN = "igm-sgd, restarts one after another"

_WORDS = declared("cost")
X_LABELS: Mapping[str, str] = _WORDS["x_labels"]
QUANTITIES: Mapping[str, str] = _WORDS["quantities"]
_ALL = {**QUANTITIES, "seconds_per_object": "seconds per object", "memory_mb": "MB above the loaded model"}
HEADLINE_K = (5, 8)
FEW, MANY = 2, 12
SIZED = (5, 200)  # objects of the smallest and the largest image


def build(
    records: Sequence[Record], numbers: Mapping[str, int], machine: dict[str, Any], suite: DeclaredSuite
) -> Report:
    """Returns what all records amount to; ``numbers`` are the options of the suite, its splits the axes."""
    axes = {
        axis: [row for record in records if record["split"] == axis for row in record["rows"]]
        for axis in suite.splits
    }
    axes = {axis: rows for axis, rows in axes.items() if rows}
    ratios, growth = _ratios(axes.get("k", [])), _growth(axes.get("k", []), FEW, MANY)
    ends = {"half": numbers["sgd_steps"] // 2, "twice": 2 * numbers["sgd_steps"]}
    scaled = suite.table_notes["headline"].format(**ends, **numbers)
    tables = [_headline(ratios, growth, numbers, scaled)] if ratios or growth else []
    tables += [_table(axis, suite.splits[axis], rows) for axis, rows in axes.items()]
    summary: dict[str, Any] = {"machine": machine, "ratios": ratios, "growth": growth, "axes": axes}
    if scaling := _growth(axes.get("size", []), *SIZED):
        summary["scaling"] = scaling
    notes = [machine_note(machine), *(note.format(**numbers, scaled=scaled) for note in suite.notes)]
    off = [row["nonlinearity"] for rows in axes.values() for row in rows if row.get("nonlinearity") is not None]
    notes += [f"Farthest from the line of seconds over steps: {max(off):.1%}."] if off else []
    return Report(tables, figures=_plots(axes), summary=summary, notes=notes)


def _find(rows: Sequence[Row], label: str, x: float) -> Row | None:
    return next((row for row in rows if row["label"] == label and row["x"] == x), None)


def _ratios(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns igm-sgd over igm: ``[K][way][quantity]``."""
    ratios: dict[str, dict[str, dict[str, float]]] = {}
    for k, label in itertools.product(HEADLINE_K, (BATCHED, IN_TURN)):
        ours, theirs = _find(rows, GIVEN, k), _find(rows, label, k)
        if ours and theirs:
            ratios.setdefault(str(k), {})[label] = _over(theirs, ours)
    return ratios


def _growth(rows: Sequence[Row], few_objects: int, many_objects: int) -> dict[str, float]:
    """Returns what many objects cost igm over few."""
    few, many = _find(rows, GIVEN, few_objects), _find(rows, GIVEN, many_objects)
    return _over(many, few) if few and many else {}


def _over(above: Row, below: Row) -> dict[str, float]:
    return {q: above[q] / below[q] for q in _ALL if above.get(q) and below.get(q)}


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
    rows = [[name, *(_times(ratio.get(q)) for ratio in columns.values())] for q, name in QUANTITIES.items()]
    sgd = f"igm-sgd (R={numbers['restarts']}, {numbers['steps']} steps)"
    title = f"{sgd} over igm (K given), and igm at {MANY} objects over {FEW}"
    return Table("headline", title, ["cost", *columns], rows, note)


def _table(axis: str, about: str, rows: Sequence[Row]) -> Table:
    """Returns all rows of an axis; only columns that any of them fills."""
    columns: Mapping[str, tuple[str, str]] = _WORDS["columns"]
    filled = [name for name in columns if any(row.get(name) is not None for row in rows)]
    heads = [columns[name][0] or X_LABELS[axis] for name in filled]
    forms = {name: columns[name][1] for name in filled}
    cells = [
        ["" if row.get(name) is None else form.format(row[name]) for name, form in forms.items()]
        for row in rows
    ]
    title = capitalised(about) if axis in ("batch", "memory", "size") else f"Cost over {about}"
    notes = {"batch": _fastest, "size": _per_object}
    return Table(f"cost-{axis}", title, heads, cells, notes[axis](rows) if axis in notes else "")


def _fastest(rows: Sequence[Row]) -> str:
    best = max(rows, key=lambda row: float(row["images_per_second"]))
    return f"Fastest: {best['label']}, {best['images_per_second']:.3f} images a second."


def _per_object(rows: Sequence[Row]) -> str:
    few, many = (_find(rows, GIVEN, k) for k in SIZED)
    if not few or not many:
        return ""
    times = many["seconds_per_object"] / few["seconds_per_object"]
    ends = [f"K = {row['x']} on {row['size']}" for row in (many, few)]
    return f"Seconds per object at {ends[0]} over those at {ends[1]}: {times:.2f}."


def _plots(axes: Mapping[str, Sequence[Row]]) -> list[Plot]:
    """Returns seconds and passes over every axis that is a number; memory by itself."""
    plots = []
    own = {"memory": ("memory_mb",), "batch": (), "size": ("seconds_per_object", "network_calls", "memory_mb")}
    for axis, rows in axes.items():
        wanted = own.get(axis, ("seconds", "passes", "network_calls"))
        plots += [_plot(axis, quantity, rows) for quantity in wanted]
    return plots


def _plot(axis: str, quantity: str, rows: Sequence[Row]) -> Plot:
    curves = []
    for label in dict.fromkeys(row["label"] for row in rows):
        mine = sorted((row for row in rows if row["label"] == label), key=lambda row: float(row["x"]))
        y = [float(row[quantity]) for row in mine]
        spread = [float(row.get("seconds_std", 0.0)) for row in mine] if quantity == "seconds" else []
        ends = [(max(v - s, v / 10), v + s) for v, s in zip(y, spread, strict=False)] if any(spread) else []
        low, high = ([end[side] for end in ends] for side in (0, 1))
        curves.append(Curve(label, [float(row["x"]) for row in mine], y, low, high))
    name = _ALL[quantity]
    wide = len(curves) > 1 and quantity != "memory_mb"
    title = f"{capitalised(name)} over {X_LABELS[axis]}"
    return Plot(f"cost-{axis}-{quantity}", title, X_LABELS[axis], name, curves, log_y=wide)


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}×" if value < 100 else f"{value:.0f}×"
