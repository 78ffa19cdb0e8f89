"""Scores of objects with values, such as a color: single objects, whole scenes, and average precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from igm_cli.benchmarks.baselines.resnet import most_likely
from igm_cli.benchmarks.intervals import Estimate, percentiles, rate, resamples
from igm_cli.benchmarks.report import declared_table, percent
from igm_cli.benchmarks.scores import Rows
from igm_cli.benchmarks.suite import Table
from igm_cli.core.concepts import Product
from igm_cli.core.metrics import match
from igm_cli.core.types import Inversion

THRESHOLDS = (math.inf, 1.0, 0.5, 0.25, 0.125)
"""Distances within which an object counts as found, where the world is 6 wide (Slot Attention, Locatello et al. 2020).

In the image, whose sides are 6 long then, they are the distances of the points.
"""

KINDS = {"precision": "in the image", "world precision": "in the world"}
"""Average precisions by their names, and where their distances are measured."""

RESAMPLES = 200


def described(space: Product, found: Inversion, free: Inversion, truth: Tensor) -> dict[str, Any]:
    """Returns a row's fields about values: the index of each factor's value per object, and each object's confidence.

    ``found`` is the inversion with K given, ``free`` that with K estimated; ``truth`` is ``[L,D]``.
    """

    def values(concepts: Tensor) -> list[list[int]]:
        return most_likely(space.what, concepts[:, space.where.dim :]).tolist()

    certain = free.confidence if free.values is None else free.confidence * free.values.prod(1)
    return {
        "factors": list(space.what.factors),
        "values": {"given": values(found.concepts), "free": values(free.concepts), "truth": values(truth)},
        "certainty": certain.tolist(),
    }


def value_metrics(rows: Rows) -> dict[str, Estimate]:
    """Returns how many objects and whole scenes have the right values; empty for rows without values."""
    if not rows or "values" not in rows[0]:
        return {}
    objects = [len(row["truth"]) for row in rows]
    given = [_right(row, "given") for row in rows]
    free = [_right(row, "free") for row in rows]
    scenes = [
        int(bool(right.all(1).sum() == len(row["truth"]) == len(row["free"])))
        for right, row in zip(free, rows, strict=True)
    ]
    return {
        "described": rate([int(right.all(1).sum()) for right in given], objects),
        **{
            f"{factor} right": rate([int(right[:, i].sum()) for right in given], objects)
            for i, factor in enumerate(rows[0]["factors"])
        },
        "scene right": rate(scenes, [1] * len(scenes)),
        **{f"precision {t:g}": precision(rows, t) for t in THRESHOLDS},
        **{
            f"world precision {t:g}": precision(rows, t, "world")
            for t in THRESHOLDS
            if all("world" in row for row in rows)
        },
    }


def _right(row: Mapping[str, Any], found: str) -> Tensor:
    """Returns which values are right, ``[P,F]``, of the objects whose position is perceived."""
    pairs = match(points(row[found]), points(row["truth"]))
    values, true = (
        torch.tensor(row["values"][name]).reshape(-1, len(row["factors"])) for name in (found, "truth")
    )
    same: Tensor = values[pairs.predicted] == true[pairs.truth]
    return same & pairs.perceived("sum")[:, None]


def precision(rows: Rows, threshold: float, where: Literal["image", "world"] = "image") -> Estimate:
    """Returns the average precision of objects with all values right within a distance, with K estimated.

    Answers of all images are ranked by confidence.  One is right if it has the values of an object of its image, within the
    distance, that no earlier answer has taken.  The interval is the bootstrap's over images.
    """
    found = [_ranked(row, threshold, where) for row in rows]
    counts = torch.tensor([len(row["truth"]) for row in rows])
    value = _area(found, counts, range(len(rows)))
    drawn = resamples(len(rows), RESAMPLES).tolist()
    return percentiles(value, torch.tensor([_area(found, counts, index) for index in drawn]).double())


def _ranked(row: Mapping[str, Any], threshold: float, where: str) -> list[tuple[float, bool]]:
    """Returns the confidence of each answer of an image, and whether it is right."""
    if where == "world":
        answers, truth = (torch.tensor(row["world"][name]).reshape(-1, 3) for name in ("free", "truth"))
    else:
        answers, truth = 6 * points(row["free"]), 6 * points(row["truth"])
    distance = torch.cdist(answers.double(), truth.double())
    free = set(range(len(truth)))
    ranked = []
    for i in sorted(range(len(answers)), key=lambda i: -row["certainty"][i]):
        same = [j for j in free if row["values"]["free"][i] == row["values"]["truth"][j]]
        near = min(same, key=lambda j: float(distance[i, j]), default=None)
        hit = near is not None and float(distance[i, near]) <= threshold
        if hit and near is not None:
            free.remove(near)
        ranked.append((row["certainty"][i], hit))
    return ranked


def _area(found: Sequence[Sequence[tuple[float, bool]]], counts: Tensor, index: Sequence[int]) -> float:
    """Returns the area under the precision-recall curve of some images, with precision made monotonic."""
    ranked = sorted((pair for i in index for pair in found[i]), key=lambda pair: -pair[0])
    total = int(counts[list(index)].sum())
    if not ranked or not total:
        return 0.0
    hits = torch.tensor([hit for _, hit in ranked]).double()
    reached = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    highest = reached.flip(0).cummax(0).values.flip(0)
    return float((highest * hits).sum() / total)


def points(concepts: Any) -> Tensor:
    """Returns the points ``[K,2]`` of concepts ``[K,D]``, given as lists."""
    rows = torch.tensor(concepts)
    return rows[:, :2] if rows.numel() else torch.zeros(0, 2)


def values_table(
    scores: Mapping[str, Sequence[Any]], published: Mapping[str, Mapping[str, str]]
) -> list[Table]:
    """Returns the table of average precision with published figures; none without values."""
    rows = [
        [split, f"{s.label}, {where}", *(percent(s[f"{name} {t:g}"]) for t in THRESHOLDS)]
        for split, part in scores.items()
        for s in part
        for name, where in KINDS.items()
        if f"{name} inf" in s.estimates
    ]
    if not rows:
        return []
    rows += [
        ["published", label, *(figures[f"{t:g}"] for t in THRESHOLDS)] for label, figures in published.items()
    ]
    return [declared_table("object-discovery", "precision", rows)]
