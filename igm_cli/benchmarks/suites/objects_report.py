"""What the suite ``objects`` reports: figures over photographs, plots over the number of objects, where igm loses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from igm_cli.benchmarks import report
from igm_cli.benchmarks.intervals import Estimate, rate, ratio, ratio_difference
from igm_cli.benchmarks.scores import Rows, ScoredSplits, by_label
from igm_cli.benchmarks.suite import PictureGrid, Plot, Record
from igm_cli.benchmarks.suites.objects_windows import Windows
from igm_cli.plugins.base import ConceptParser

SLICES = {"1-6": (1, 6), "7-20": (7, 20), "21-60": (21, 60), "61-140": (61, 140), "whole": (0, 2**31)}
"""Splits by the least and the largest number of objects of an image."""

COMPARED = {"f1": ("F1", 1), "mae": ("count off by", -1)}
"""What igm is compared in with the best baseline: estimate to what it is called, and whether more or less is better."""


def sums(rows: Rows) -> dict[str, list[float]]:
    """Returns for every photograph, in the order of their names, what its images add up to."""
    photographs: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        photographs.setdefault(row["photograph"], []).append(row)
    parts = [part for _, part in sorted(photographs.items())]

    def each(value: Callable[[Mapping[str, Any]], float]) -> list[float]:
        return [sum(value(row) for row in part) for part in parts]

    def off(row: Mapping[str, Any]) -> float:
        return float(row["count"] - row["objects"])

    return {
        "images": each(lambda row: 1),
        "right": each(lambda row: row["right"]),
        "answers": each(lambda row: row["answers"]),
        "objects": each(lambda row: row["objects"]),
        "both": each(lambda row: (row["answers"] + row["objects"]) / 2),
        "off": each(lambda row: abs(off(row))),
        "bias": each(off),
        "squared": each(lambda row: off(row) ** 2),
        "share": each(lambda row: abs(off(row)) / max(1, row["objects"])),
        "seconds": each(lambda row: row["seconds"]),
    }


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


def _fractions(rows: Rows, name: str) -> tuple[list[float], list[float]]:
    s = sums(rows)
    return (s["right"], s["both"]) if name == "f1" else (s["off"], s["images"])


def comparisons(scored: ScoredSplits) -> tuple[list[list[str]], list[str], dict[str, Any]]:
    """Returns igm beside the best baseline of every split: cells of a table, a sentence per split, and as JSON.

    A split without igm, or without a baseline on the same images, is left out.
    """
    rows: list[list[str]] = []
    sentences: list[str] = []
    found: dict[str, Any] = {}
    for split, labels in scored.labels.items():
        own = labels.get("igm", {})
        others = {
            name: part
            for name, part in labels.items()
            if not name.startswith("igm") and part.keys() == own.keys()
        }
        if not own or not others:
            continue
        clauses = []
        for name, (called, sign) in COMPARED.items():
            values = {
                label: metrics(list(part.values()))[name] for label, part in {"igm": own, **others}.items()
            }
            best = max(others, key=lambda label, v=values: sign * v[label].value)  # type: ignore[misc]
            pair = [_fractions(list(part.values()), name) for part in (own, others[best])]
            less = ratio_difference(pair[0], pair[1])
            better = sorted((sign * less.low, sign * less.high)) if not math.isnan(less.low) else [-1.0, 1.0]
            verdict = "wins" if better[0] > 0 else "loses" if better[1] < 0 else "neither"
            cell = _points if name == "f1" else _number
            photographs = str(len(pair[0][0]))
            shown = report.percent if name == "f1" else _number
            rows.append(
                [split, called, best, cell(less), shown(values["igm"]), shown(values[best]), photographs]
            )
            found.setdefault(split, {})[name] = {"best": best, "difference": list(less), "igm": verdict}
            clauses.append(_clause(called, verdict, best, cell(less)))
        sentences.append(f"On {split} igm {' and '.join(clauses)}.")
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
    labels: dict[str, list[Mapping[str, Estimate]]] = {}
    for split, part in scored.scores.items():
        for scores in part if split != "whole" else ():
            labels.setdefault(scores.label, []).append(scores.estimates)
    if not labels:
        return []

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
    """Yields the first image of the last split with what is annotated and what every method answers, a few at a time."""
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
