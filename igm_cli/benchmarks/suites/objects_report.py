"""The report of the suite ``objects``: figures over photographs, plots over the number of objects, and where igm loses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from igm_cli.benchmarks import report
from igm_cli.benchmarks.intervals import ENOUGH, Estimate, rate, ratio, ratio_difference
from igm_cli.benchmarks.scores import Rows, ScoredSplits, by_label, grouped
from igm_cli.benchmarks.suite import PictureGrid, Plot, Record
from igm_cli.benchmarks.suites.objects_windows import Windows
from igm_cli.errors import counted
from igm_cli.plugins.base import ConceptParser

COMPARED = {"f1": ("F1", 1, ("right", "both")), "mae": ("count off by", -1, ("off", "images"))}
"""Estimates on which igm is compared with the best baseline: their name, whether more (1) or less (-1) is better, and the
two :func:`sums` whose ratio they are."""


def sums(rows: Rows) -> dict[str, list[float]]:
    """Returns the sums over each photograph's images, with photographs in the order of their names."""

    def off(row: Mapping[str, Any]) -> float:
        return float(row["count"] - row["objects"])

    values: dict[str, Callable[[Mapping[str, Any]], float]] = {
        **{name: itemgetter(name) for name in ("right", "answers", "objects", "seconds")},
        "images": lambda row: 1,
        "both": lambda row: (row["answers"] + row["objects"]) / 2,
        "off": lambda row: abs(off(row)),
        "bias": off,
        "squared": lambda row: off(row) ** 2,
        "share": lambda row: abs(off(row)) / max(1, row["objects"]),
    }
    parts = [part for _, part in sorted(grouped(rows, itemgetter("photograph")).items())]
    return {name: [sum(map(value, part)) for part in parts] for name, value in values.items()}


def metrics(rows: Rows) -> dict[str, Estimate]:
    """Returns precision, recall and F1 of points, errors of counts and time, with intervals over photographs."""
    s = sums(rows)
    images = s["images"]
    squared = ratio(s["squared"], images)
    return {
        "f1": rate(s["right"], s["both"]),
        "precision": rate(s["right"], s["answers"]),
        "recall": rate(s["right"], s["objects"]),
        "mae": ratio(s["off"], images),
        "rmse": Estimate(*(math.sqrt(end) for end in squared)),
        "bias": ratio(s["bias"], images),
        "mape": ratio(s["share"], images),
        "seconds": ratio(s["seconds"], images),
        "objects": ratio(s["objects"], images),
    }


def comparisons(scored: ScoredSplits) -> tuple[list[list[str]], list[str], dict[str, Any]]:
    """Compares igm with the best baseline of every split; returns cells of a table, a sentence per split, and JSON.

    A split without igm, or without a baseline on the same images, is left out.
    """
    rows: list[list[str]] = []
    sentences: list[str] = []
    found: dict[str, Any] = {}
    for split, labels in scored.labels.items():
        scores, own = {s.label: s for s in scored.scores[split]}, labels.get("igm", {})
        others = [n for n, part in labels.items() if not n.startswith("igm") and part.keys() == own.keys()]
        if not own or not others:
            continue
        clauses = []
        for name, (called, sign, ratio_of) in COMPARED.items():
            goodness = {label: sign * scores[label][name].value for label in others}
            best = max(others, key=goodness.__getitem__)
            added = [sums(scores[label].rows) for label in ("igm", best)]
            ours, theirs = ((s[ratio_of[0]], s[ratio_of[1]]) for s in added)
            less = ratio_difference(ours, theirs)
            better = sorted((sign * less.low, sign * less.high))
            told = len(ours[0]) >= ENOUGH and not math.isnan(less.low)
            verdict = (
                "neither" if not told or better[0] <= 0 <= better[1] else "wins" if better[0] > 0 else "loses"
            )
            cell, shown = (_points, report.percent) if name == "f1" else (_number, _number)
            both = [shown(scores[label][name]) for label in ("igm", best)]
            rows.append([split, called, best, cell(less), *both, str(len(ours[0]))])
            found.setdefault(split, {})[name] = {"best": best, "difference": list(less), "igm": verdict}
            clauses.append(_clause(called, verdict, best, cell(less)))
        few = "" if told else f"; {counted(len(ours[0]), 'photograph')} cannot tell methods apart"
        sentences.append(f"On {split} igm {' and '.join(clauses)}{few}.")
    return rows, sentences, found


def _clause(called: str, verdict: str, best: str, difference: str) -> str:
    words = {"wins": "is better than", "loses": "LOSES to", "neither": "cannot be told from"}
    return f"{words[verdict]} {best} in {'F1' if called == 'F1' else 'counting'} ({difference})"


def _points(e: Estimate) -> str:
    return report.interval(Estimate(*(100 * end for end in e)), "+.1f") + " points"


def _number(e: Estimate) -> str:
    return report.interval(e, ".2f")


def figures(scored: ScoredSplits) -> list[Plot]:
    """Returns F1, the error of the count and the time over the number of objects, a point per split."""
    every = [s for split, part in scored.scores.items() if split != "whole" for s in part]
    if not every:
        return []
    labels = grouped(every, lambda s: s.label)

    def plot(name: str, title: str, axis: str, factor: float = 1.0, log_y: bool = False) -> Plot:
        curves = [
            report.curve(label, sorted((e["objects"].value, e[name]) for e in points), factor)
            for label, points in labels.items()
        ]
        return Plot(
            f"objects-{name}", title, "objects in the image (mean of the split)", axis, curves, True, log_y
        )

    return [
        plot("f1", "Positions over the number of objects", "F1, %", 100),
        plot("mape", "Counts over the number of objects", "count off by, % of the number", 100),
        plot("seconds", "Time over the number of objects", "seconds per image", log_y=True),
    ]


def pictures(
    records: Sequence[Record], scenes: Mapping[str, Windows], parser: ConceptParser
) -> Iterator[PictureGrid]:
    """Yields grids of the first image of the last split with annotations and answers, a few methods at a time."""
    split = next((name for name in reversed(list(scenes)) if any(r["split"] == name for r in records)), None)
    if split is None:
        return
    item = next(r["item"] for r in records if r["split"] == split)
    scene, labels = scenes[split].scene(item), by_label(records)
    width, height = scene.picture.image.size

    def drawn(points: Sequence[Sequence[float]]) -> Any:
        items = [{"x": x / width, "y": y / height, "x_px": x, "y_px": y} for x, y in points]
        return parser.draw(scene.picture.image, items)

    answers = {name: rows[f"{split} {item}"] for name, rows in labels.items() if f"{split} {item}" in rows}
    names = list(answers)
    for number, first in enumerate(range(0, len(names), report.ACROSS - 1), start=1):
        part = names[first : first + report.ACROSS - 1]
        heads = [
            f"annotated: {len(scene.points)}",
            *(f"{name}: {len(answers[name]['predicted'])}" for name in part),
        ]
        row = [drawn(scene.points.tolist()), *(drawn(answers[name]["predicted"]) for name in part)]
        yield PictureGrid(
            f"pictures-{number}", f"{item}: what is annotated and what methods answer", heads, [("", row)]
        )
