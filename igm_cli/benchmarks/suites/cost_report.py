"""What the records of the suite ``cost`` amount to: tables, plots and ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from igm_cli.benchmarks.report import capitalised
from igm_cli.benchmarks.suite import Curve, Plot, Record, Report, Row, Table
from igm_cli.benchmarks.timing import machine_note

GIVEN, ESTIMATED = "igm, K given", "igm, K estimated"
BATCHED = "igm-sgd, restarts in one batch"
IN_TURN = "igm-sgd, restarts one after another"

AXES: Mapping[str, str] = {
    "k": "objects in the image",
    "candidates": "candidates of the grid (igm)",
    "draws": "noise draws (igm, K given)",
    "restarts": "random starts R (igm-sgd, scaled to its full steps)",
    "steps": "steps of descent, as measured (igm-sgd)",
    "batch": "images per second, in one process and shared among workers (igm, K estimated)",
    "memory": "peak memory of one inversion",
}
X_LABELS = {
    "k": "objects K",
    "candidates": "candidates",
    "draws": "noise draws",
    "restarts": "random starts R",
    "steps": "steps of descent",
    "batch": "workers",
    "memory": "objects K",
}
QUANTITIES = {
    "seconds": "seconds",
    "cpu_seconds": "processor seconds",
    "passes": "noised images looked at (trunk passes)",
    "contributions": "contributions (heads)",
    "whole_calls": "whole-network calls, each image's base once",
    "network_calls": "whole-network calls, as the inversion charges them",
    "gflop": "GFLOP",
}
HEADLINE_K = (5, 8)
FEW, MANY = 2, 12


def build(records: Sequence[Record], numbers: Mapping[str, int], machine: dict[str, Any]) -> Report:
    """Returns what all records amount to.

    Args:
        records: Records of all methods.
        numbers: Options of the suite.
        machine: What computed.
    """
    axes = {
        axis: [row for record in records if record["split"] == axis for row in record["rows"]] for axis in AXES
    }
    axes = {axis: rows for axis, rows in axes.items() if rows}
    ratios, growth = _ratios(axes.get("k", [])), _growth(axes.get("k", []))
    scaled = _scaled(numbers)
    tables = [_headline(ratios, growth, numbers, scaled)]
    tables += [_table(axis, rows) for axis, rows in axes.items()]
    summary = {"machine": machine, "ratios": ratios, "growth": growth, "axes": axes}
    notes = [machine_note(machine), *_notes(numbers, scaled, axes)]
    return Report(tables, figures=_plots(axes), summary=summary, notes=notes)


def _scaled(numbers: Mapping[str, int]) -> str:
    n = numbers["sgd_steps"]
    return (
        "igm-sgd is scaled, not run in full: one step with the whole scoring, and the cost of a further step "
        f"from runs of {n // 2}, {n} and {2 * n} steps, times {numbers['steps']}. One after another: "
        f"{numbers['restarts']} times the cost of one restart, each with draws of its own, as in the paper."
    )


def _find(rows: Sequence[Row], label: str, x: float) -> Row | None:
    return next((row for row in rows if row["label"] == label and row["x"] == x), None)


def _ratios(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns igm-sgd over igm: ``[K][way][quantity]``."""
    ratios: dict[str, dict[str, dict[str, float]]] = {}
    for k in HEADLINE_K:
        ours = _find(rows, GIVEN, k)
        for label in (BATCHED, IN_TURN):
            theirs = _find(rows, label, k)
            if ours and theirs:
                ratios.setdefault(str(k), {})[label] = _over(theirs, ours)
    return ratios


def _growth(rows: Sequence[Row]) -> dict[str, float]:
    """Returns what many objects cost igm over few."""
    few, many = _find(rows, GIVEN, FEW), _find(rows, GIVEN, MANY)
    return _over(many, few) if few and many else {}


def _over(above: Row, below: Row) -> dict[str, float]:
    return {q: above[q] / below[q] for q in QUANTITIES if above.get(q) and below.get(q)}


def _headline(
    ratios: Mapping[str, Mapping[str, Mapping[str, float]]],
    growth: Mapping[str, float],
    numbers: Mapping[str, int],
    note: str,
) -> Table:
    columns = [
        (f"K={k}, {label.removeprefix('igm-sgd, ')}", r)
        for k, ways in ratios.items()
        for label, r in ways.items()
    ]
    columns.append((f"igm, K={MANY} over K={FEW}", growth))
    rows = [[name, *(_times(ratio.get(q)) for _, ratio in columns)] for q, name in QUANTITIES.items()]
    title = (
        f"igm-sgd (R={numbers['restarts']}, {numbers['steps']} steps) over igm (K given), "
        f"and igm at {MANY} objects over {FEW}"
    )
    return Table("headline", title, ["cost", *(head for head, _ in columns)], rows, note)


def _table(axis: str, rows: Sequence[Row]) -> Table:
    """Returns all rows of an axis; only columns that any of them fills."""
    columns = [name for name in _FORMATS if any(row.get(name) is not None for row in rows)]
    heads = [X_LABELS[axis] if name == "x" else _HEADS.get(name, name) for name in columns]
    cells = [
        [_FORMATS[name].format(row[name]) if row.get(name) is not None else "" for name in columns]
        for row in rows
    ]
    return Table(f"cost-{axis}", _title(axis), heads, cells, _fastest(rows) if axis == "batch" else "")


def _title(axis: str) -> str:
    about = AXES[axis]
    return capitalised(about) if axis in ("batch", "memory") else f"Cost over {about}"


_FORMATS = {
    "label": "{}",
    "x": "{:g}",
    "images_per_second": "{:.3f}",
    "seconds": "{:.3f}",
    "seconds_std": "{:.3f}",
    "seconds_median": "{:.3f}",
    "cpu_seconds": "{:.3f}",
    "passes": "{:.0f}",
    "contributions": "{:.0f}",
    "whole_calls": "{:.0f}",
    "network_calls": "{:.0f}",
    "gflop": "{:.1f}",
    "memory_mb": "{:.0f}",
    "process_mb": "{:.0f}",
    "nonlinearity": "{:.1%}",
    "scaled_from": "{}",
    "runs": "{}",
}
_HEADS = {
    "label": "method",
    "images_per_second": "images a second",
    "seconds": "seconds an image",
    "seconds_std": "± std",
    "seconds_median": "median",
    "cpu_seconds": "processor seconds",
    "passes": "trunk passes",
    "whole_calls": "whole-network calls, bases shared",
    "network_calls": "network calls",
    "gflop": "GFLOP",
    "memory_mb": "MB above the loaded model",
    "process_mb": "MB in all",
    "nonlinearity": "farthest from linear",
    "scaled_from": "scaled from steps",
}


def _fastest(rows: Sequence[Row]) -> str:
    best = max(rows, key=lambda row: float(row["images_per_second"]))
    return f"Fastest: {best['label']}, {best['images_per_second']:.3f} images a second."


def _plots(axes: Mapping[str, Sequence[Row]]) -> list[Plot]:
    """Returns seconds and passes over every axis that is a number; memory by itself."""
    plots = []
    for axis, rows in axes.items():
        wanted = {"memory": ("memory_mb",), "batch": ()}.get(axis, ("seconds", "passes", "network_calls"))
        plots += [_plot(axis, quantity, rows) for quantity in wanted]
    return plots


def _plot(axis: str, quantity: str, rows: Sequence[Row]) -> Plot:
    curves = []
    for label in dict.fromkeys(row["label"] for row in rows):
        mine = sorted((row for row in rows if row["label"] == label), key=lambda row: float(row["x"]))
        y = [float(row[quantity]) for row in mine]
        spread = [float(row.get("seconds_std", 0.0)) if quantity == "seconds" else 0.0 for row in mine]
        low = [max(v - s, v / 10) for v, s in zip(y, spread, strict=True)] if any(spread) else []
        high = [v + s for v, s in zip(y, spread, strict=True)] if any(spread) else []
        curves.append(Curve(label, [float(row["x"]) for row in mine], y, low, high))
    name = "MB above the loaded model" if quantity == "memory_mb" else QUANTITIES[quantity]
    wide = len(curves) > 1 and quantity != "memory_mb"
    title = f"{capitalised(name)} over {X_LABELS[axis]}"
    return Plot(f"cost-{axis}-{quantity}", title, X_LABELS[axis], name, curves, log_y=wide)


def _notes(numbers: Mapping[str, int], scaled: str, axes: Mapping[str, Sequence[Row]]) -> list[str]:
    notes = [
        f"{numbers['images']} rendered images a point (small objects only where there are more than ten), after a warm-up; "
        f"igm {numbers['repeats']} times each.",
        scaled,
        "Both methods compute in the same precision: bf16 where the processor has it.",
        "Network use is counted in samples by a wrapper in untimed runs. Whole-network calls are what the same questions cost with an unfactored network.",
        "GFLOP are matrix products, convolutions and attention with backward passes; a multiplication and an addition are two.",
        "Processor seconds leave out waiting for other programs: where they lie far below seconds times threads, the machine was busy.",
    ]
    off = [row["nonlinearity"] for rows in axes.values() for row in rows if row.get("nonlinearity") is not None]
    if off:
        notes.append(f"Farthest from the line of seconds over steps: {max(off):.1%}.")
    return notes


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}×" if value < 100 else f"{value:.0f}×"
