"""The report of the suite ``object-discovery``: perception, plots over the number of objects and over time, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from igm_cli.benchmarks import report
from igm_cli.benchmarks.frame import AnnotatedImage, CheckpointBench
from igm_cli.benchmarks.intervals import Estimate, mean, rate, ratio
from igm_cli.benchmarks.scores import Rows, ScoredSplits, Scores, by_label, grouped
from igm_cli.benchmarks.suite import Figure, PictureGrid, Plot, Record
from igm_cli.benchmarks.suites.object_values import points, value_metrics
from igm_cli.core.metrics import match
from igm_cli.plugins import registry

RESTARTS = (1, 5, 10, 15, 20)  # R of the paper's Table 1

GROUPS = {
    "folder": ("the images of the folder", ("folder-3-5", "folder-6-8", "folder")),
    "rendered": ("rendered images", ("3-5", "6-8", "9-10")),
}
"""Splits plotted together over the number of objects: file stem to heading and splits."""


def metrics(rows: Rows) -> dict[str, Estimate]:
    """Returns perception, error and cost with K given, and if a method counts, the accuracy of the estimated K."""
    objects = [len(row["truth"]) for row in rows]
    pairs, by_square = ([_matched(row, "given", squared=squared) for row in rows] for squared in (False, True))
    # An object without a prediction counts as an error to the far corner.
    squared = [float(p.squared.mean(1).sum()) + n - len(p.squared) for p, n in zip(pairs, objects, strict=True)]
    absolute = [
        float(p.squared.sqrt().mean(1).sum()) + n - len(p.squared) for p, n in zip(pairs, objects, strict=True)
    ]
    estimates = {
        "perception": rate([int(p.perceived("sum").sum()) for p in pairs], objects),
        "perception_mean": rate([int(p.perceived("mean").sum()) for p in pairs], objects),
        "perception_squares": rate([int(p.perceived("sum").sum()) for p in by_square], objects),
        "error": ratio(squared, objects),
        "absolute_error": ratio(absolute, objects),
        "seconds": mean(row["seconds"] for row in rows),
        "calls": mean(row["calls"] for row in rows),
    }
    estimates |= value_metrics(rows)
    if any(row["free"] is None for row in rows):
        return estimates
    counted = [len(row["free"]) for row in rows]
    recalled = [int(_matched(row, "free").perceived().sum()) for row in rows]
    off = [abs(k - n) for k, n in zip(counted, objects, strict=True)]
    return {
        **estimates,
        "k_exact": rate([int(d == 0) for d in off], [1] * len(off)),
        "k_off": mean(off),
        "recall": rate(recalled, objects),
        "precision": rate(recalled, counted),
    }


def _matched(row: Mapping[str, Any], found: str, *, squared: bool = False) -> Any:
    return match(points(row[found]), points(row["truth"]), squared=squared)


def figures(bench: CheckpointBench, records: Sequence[Record], scored: ScoredSplits) -> list[Figure]:
    """Returns plots, confusions and pictures."""
    found: list[Figure] = []
    for stem, (title, group) in GROUPS.items():
        if labels := by_label(record for record in records if record["split"] in group):
            rows = {label: list(part.values()) for label, part in labels.items()}
            found += [_over_objects(stem, title, rows), *_confusion(stem, title, rows)]
    for split, scores in scored.scores.items():
        if bench.published(split):
            found.append(_over_time(split, bench.suite.splits[split], scores))
    return [*found, _pictures(bench, records, list(scored.scores))] if scored.scores else found


def _is_plotted(label: str) -> bool:
    """Returns whether a label is plotted where there is no room for all numbers of starts."""
    return not label.startswith("igm-sgd") or label.endswith(f" R={max(RESTARTS)}")


def _over_objects(stem: str, title: str, labels: Mapping[str, Rows]) -> Plot:
    """Returns the perception rate over the true number of objects."""
    curves = []
    for label, rows in labels.items():
        if _is_plotted(label):
            counts = sorted({len(row["truth"]) for row in rows})
            rates = [metrics([r for r in rows if len(r["truth"]) == n])["perception"] for n in counts]
            curves.append(report.curve(label, zip(counts, rates, strict=True), 100))
    axes = ("objects in the image", "objects perceived, %")
    return Plot(f"perception-{stem}", f"Perception, {title}", *axes, curves)


def _confusion(stem: str, title: str, labels: Mapping[str, Rows]) -> list[Figure]:
    """Returns the confusion of true and estimated K for the methods that count."""
    pairs = {
        label: [(len(row["truth"]), len(row["free"])) for row in rows]
        for label, rows in labels.items()
        if all(row["free"] is not None for row in rows)
    }
    if not pairs:
        return []
    every = [pair for part in pairs.values() for pair in part]
    truths, estimates = sorted({truth for truth, _ in every}), range(max(found for _, found in every) + 1)
    heading = f"Estimated number of objects, {title}"
    return [report.confusion(f"counts-{stem}", heading, pairs, estimates, truths)]


def _over_time(split: str, about: str, scores: Sequence[Scores]) -> Plot:
    """Returns a plot of the estimation error over seconds: a line through the restarts, a point per other method."""
    labels = grouped(scores, lambda s: s.label.partition(" R=")[0])
    curves = [
        report.curve(label, [(s["seconds"].value, s["error"]) for s in part]) for label, part in labels.items()
    ]
    title = f"Error over time spent: {about}"
    axes = ("seconds per image, K given", "estimation error (mean MSE)")
    return Plot(f"time-{split}", title, *axes, curves, log_x=True, log_y=True)


def _pictures(bench: CheckpointBench, records: Sequence[Record], splits: Sequence[str]) -> PictureGrid:
    """Returns the first images of every split with the truth and what each method found with K given."""

    def drawn(scene: AnnotatedImage, concepts: Sequence[Any]) -> Any:
        """Returns an image with concepts; only their positions if a method predicts nothing else."""
        rows = torch.tensor(concepts).reshape(len(concepts), -1)
        parser = bench.parser if rows.shape[1] == bench.parser.space.dim else registry.concept_parser("pos")
        return bench.parser.draw(scene.image, parser.decode(rows, scene.frame) if len(rows) else [])

    labels = {label: rows for label, rows in by_label(records).items() if _is_plotted(label)}
    rows = []
    for split in splits:
        items = list(dict.fromkeys(r["item"] for r in records if r["split"] == split))
        for item in items[: max(1, report.GRID_ROWS // len(splits))]:
            scene, key = bench.scenes[split][item], f"{split} {item}"
            given = [found[key]["given"] if key in found else None for found in labels.values()]
            answers = [None if concepts is None else drawn(scene, concepts) for concepts in given]
            rows.append((split, [drawn(scene, scene.truth.tolist()), *answers]))
    return PictureGrid("pictures", "Truth and what each method found, K given", ["truth", *labels], rows)
