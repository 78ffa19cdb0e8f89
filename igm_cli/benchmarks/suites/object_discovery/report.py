"""What the records of object discovery amount to: tables, plots, confusions, pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from igm_cli.benchmarks.frame.images import Scenes
from igm_cli.benchmarks.frame.tables import (
    by_label,
    common_tables,
    every_figure,
    failed_methods,
    interval,
    of_splits,
    percent,
    what_was_compared,
)
from igm_cli.benchmarks.suite import Confusion, Curve, PictureGrid, Plot, Record, Report, Table
from igm_cli.benchmarks.suites.object_discovery.figures import Scores, score
from igm_cli.benchmarks.suites.object_discovery.published import PUBLISHED
from igm_cli.benchmarks.suites.object_discovery.splits import SPLITS
from igm_cli.core.metrics import Estimate, rate
from igm_cli.plugins.base import ConceptParser

_COLUMNS = (
    "method",
    "perceived",
    "published",
    "error",
    "K exact",
    "seconds",
    "network calls",
    "images",
    "perceived (mean)",
    "K off by",
    "recall",
    "precision",
)
_BRIEF = 8  # columns a terminal has room for
_NOTES = (
    "Perceived: objects matched to a prediction whose squared error, summed over x and y, is below 0.002, with K "
    "given; (mean): averaged over x and y. Error: mean squared error of matched objects. K exact, K off by (mean "
    "absolute), recall and precision: with K estimated. 95 % intervals: bootstrap over images, Wilson's at 0 and 100 % and for a single image.",
    "Published: perception rate and estimation error of the paper, on its own images and with its own models.",
    "Network calls: one for every noised image a network looks at and one for every concept evaluated on it. "
    "A concept costs igm's factored model about a hundredth of such a look: igm benchmark cost weighs them.",
    "igm-sgd: all 20 starts are computed together, under the same draws; the seconds of R < 20 are those of 20 in "
    "proportion to twenty steps of both.",
)
_PLAIN = {
    "the images of the folder": ("folder-3-5", "folder-6-8", "folder"),
    "rendered images": ("3-5", "6-8", "9-10"),
}
_PICTURES = 9  # rows of the grid, shared by the splits


def summarise(
    records: Sequence[Record],
    infos: Mapping[str, Mapping[str, Any]],
    scenes: Mapping[str, Scenes],
    parser: ConceptParser,
) -> Report:
    """The report of all records.

    Args:
        records: Of every method, split and image.
        infos: What the methods say of themselves.
        scenes: Images of every split, for the pictures.
        parser: Draws results.
    """
    parts = {name: part for name in scenes if (part := of_splits(records, [name]))}
    splits, about = list(parts), {name: SPLITS[name].about for name in parts}
    scores = {name: _scores(part) for name, part in parts.items()}
    failed = failed_methods(infos)
    tables = [_table(name, about[name], scores[name], failed) for name in splits]
    tables += common_tables(parts, about, score, _table)
    tables.append(what_was_compared(infos))
    figures: list[Plot | Confusion | PictureGrid] = []
    for title, group in _PLAIN.items():
        part = of_splits(records, group)
        if part:
            figures += [_over_objects(title, part), *_confusion(title, part)]
    figures += [_over_time(name, scores[name]) for name in splits if name in PUBLISHED]
    if splits:
        figures.append(_pictures(records, splits, scenes, parser))
    summary = {
        name: {s.label: {"images": len(s.objects), **_plain(s.estimates)} for s in parts}
        for name, parts in scores.items()
    }
    return Report(tables, [every_figure(summary)], figures, {"splits": summary, "methods": dict(infos)}, _NOTES)


def _scores(records: Sequence[Record]) -> list[Scores]:
    return [score(label, list(rows.values())) for label, rows in by_label(records).items()]


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, list[float]]:
    return {name: estimate.to_list() for name, estimate in estimates.items()}


def _table(name: str, about: str, scores: Sequence[Scores], failed: Sequence[str] = ()) -> Table:
    published = PUBLISHED.get(name, {})
    rows = [[s.label, *_cells(s, published.get(s.label, ""))] for s in scores]
    blank = [""] * (len(_COLUMNS) - 3)
    rows += [[method, "failed", published.get(method, ""), *blank] for method in failed]
    return Table(f"table-{name}", about[0].upper() + about[1:], _COLUMNS, rows, brief=_BRIEF)


def _cells(scores: Scores, published: str) -> list[str]:
    e = scores.estimates
    counts = "k_exact" in e
    return [
        percent(e["perception"]),
        published,
        interval(e["error"], ".1e"),
        percent(e["k_exact"]) if counts else "",
        interval(e["seconds"], ".3g"),
        interval(e["calls"], ".0f"),
        str(len(scores.objects)),
        percent(e["perception_mean"]),
        interval(e["k_off"], ".2f") if counts else "",
        percent(e["recall"]) if counts else "",
        percent(e["precision"]) if counts else "",
    ]


def _over_objects(title: str, records: Sequence[Record]) -> Plot:
    """Perception rate over the true number of objects."""
    curves = []
    for label, rows in by_label(records).items():
        if label.startswith("igm-sgd") and not label.endswith("R=20"):
            continue
        s = score(label, list(rows.values()))
        counts = sorted({int(n) for n in s.objects.tolist()})
        rates = [rate(s.perceived["sum"][s.objects == n], s.objects[s.objects == n]) for n in counts]
        values = [[100 * v for v in column] for column in zip(*(r.to_list() for r in rates), strict=True)]
        curves.append(Curve(label, [float(n) for n in counts], *values))
    name = f"perception-{'folder' if 'folder' in title else 'rendered'}"
    return Plot(name, f"Perception, {title}", "objects in the image", "objects perceived, %", curves)


def _over_time(name: str, scores: Sequence[Scores]) -> Plot:
    """Estimation error over seconds: a line through the restarts, a point for the others."""
    descents: dict[str, list[Scores]] = {}
    for s in scores:
        descents.setdefault(s.label.partition(" R=")[0], []).append(s)
    curves = [
        Curve(
            label,
            [s.estimates["seconds"].value for s in parts],
            [s.estimates["error"].value for s in parts],
            [s.estimates["error"].low for s in parts],
            [s.estimates["error"].high for s in parts],
        )
        for label, parts in descents.items()
    ]
    axes = ("seconds an image, K given", "estimation error (mean MSE)")
    return Plot(f"time-{name}", f"Error over time spent: {SPLITS[name].about}", *axes, curves, True, True)


def _confusion(title: str, records: Sequence[Record]) -> list[Confusion]:
    """True against estimated K, of the methods that count."""
    scores = [s for s in _scores(records) if len(s.counted)]
    if not scores:
        return []
    truths = sorted({int(n) for s in scores for n in s.objects.tolist()})
    estimates = list(range(int(max(math.ceil(float(s.counted.max())) for s in scores)) + 1))
    counts = {}
    for s in scores:
        table = torch.zeros(len(truths), len(estimates), dtype=torch.long)
        for truth, estimate in zip(s.objects.tolist(), s.counted.tolist(), strict=True):
            table[truths.index(int(truth)), int(estimate)] += 1
        counts[s.label] = table.tolist()
    name = f"counts-{'folder' if 'folder' in title else 'rendered'}"
    labels = [str(n) for n in truths], [str(n) for n in estimates]
    return [Confusion(name, f"Estimated number of objects, {title}", *labels, counts)]


def _pictures(
    records: Sequence[Record], splits: Sequence[str], scenes: Mapping[str, Scenes], parser: ConceptParser
) -> PictureGrid:
    """The first images of every split with their truths and what each method found, K given."""
    labels = {
        label: rows
        for label, rows in by_label(records).items()
        if not label.startswith("igm-sgd") or label.endswith("R=20")
    }
    rows = []
    for split in splits:
        items = list(dict.fromkeys(r["item"] for r in records if r["split"] == split))
        items = items[: max(1, _PICTURES // len(splits))]
        for item in items:
            scene, key = scenes[split][item], f"{split} {item}"

            def drawn(concepts: Any, scene: Any = scene) -> Any:
                items = parser.decode(torch.tensor(concepts).reshape(-1, 2), scene.frame)
                return parser.draw(scene.image, items)

            found = [drawn(rows[key]["given"]) if key in rows else None for rows in labels.values()]
            rows.append((f"{split}", [drawn(scene.truth.tolist()), *found]))
    return PictureGrid("pictures", "Truth and what each method found, K given", ["truth", *labels], rows)
