"""Scores of objects with values, such as a color: single objects, whole scenes, and average precision.

Average precision is measured in the image and in the world.  Objects of CLEVR stand on the ground, so that their place in
the image, their size and the camera determine their place in the world.  The camera moves a little from image to image,
by a rule that nobody tells the methods: what is left is to expect the place in the world, given those in the image, which
is a regression (:class:`WorldPlaces`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from igm_cli.errors import InputError
from igm_cli.plugins.base import ConceptParser, Frame

THRESHOLDS = (math.inf, 1.0, 0.5, 0.25, 0.125)
"""Distances within which an object counts as found, where the world is 6 wide (Slot Attention, Locatello et al. 2020).

In the image, whose sides are 6 long then, they are the distances of the points.
"""

KINDS = {"precision": "in the image", "world precision": "in the world"}
"""Average precisions by their names, and where their distances are measured."""

RESAMPLES = 200

DEGREE = 3
FEWEST = 100
"""Degree of the polynomials in x and y, one for every value, and fewest objects that they are fitted to."""


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
    """Returns the area under the precision-recall curve of some images, with precision made monotonic.

    Equal confidences are one point of the curve, so that the order of the images does not matter.
    """
    ranked = sorted((pair for i in index for pair in found[i]), key=lambda pair: -pair[0])
    total = int(counts[list(index)].sum())
    if not ranked or not total:
        return 0.0
    hits = torch.tensor([hit for _, hit in ranked]).double()
    doubt = -torch.tensor([sure for sure, _ in ranked]).double()
    reached = (hits.cumsum(0) / torch.arange(1, len(hits) + 1))[
        torch.searchsorted(doubt, doubt, right=True) - 1
    ]
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


@dataclass(frozen=True)
class WorldPlaces:
    """The expected places of objects in the world, as a linear map of their :func:`terms`."""

    weights: Tensor  # [10 (1+V), 3]

    @classmethod
    def fitted(
        cls, parser: ConceptParser, examples: Iterable[tuple[Mapping[str, Any], Frame]]
    ) -> WorldPlaces | None:
        """Fits the map to annotated objects by least squares; returns None if hardly any has a place in the world."""
        alone = (({"objects": [thing]}, frame) for example, frame in examples for thing in example["objects"])
        known = [pair for thing, frame in alone if (pair := annotated(parser, thing, frame))]
        if len(known) < FEWEST:
            return None
        concepts, places = (torch.cat(part) for part in zip(*known, strict=True))
        # gelsd takes matrices without full rank: the values of a factor sum to one.
        return cls(torch.linalg.lstsq(terms(concepts), places, driver="gelsd").solution)

    def __call__(self, concepts: Tensor) -> Tensor:
        """Returns the places ``[K,3]`` of points with values ``[K,2+V]``, in units of the world."""
        return terms(concepts) @ self.weights


def terms(concepts: Tensor) -> Tensor:
    """Returns all products of a monomial of x and y with 1 or a value, ``[K, 10 (1+V)]``, of concepts ``[K,2+V]``."""
    concepts = concepts.detach().double().cpu()
    x, y = concepts[:, :2].unbind(1)
    powers = [x**i * y**j for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)]
    values = torch.cat([torch.ones(len(concepts), 1), concepts[:, 2:]], dim=1)
    return (torch.stack(powers, 1)[:, :, None] * values[:, None]).flatten(1)


def annotated(parser: ConceptParser, example: Mapping[str, Any], frame: Frame) -> tuple[Tensor, Tensor] | None:
    """Returns the concepts ``[L,D]`` of an example and their places in the world ``[L,3]``.

    Returns None if an object has no place in the world, or a value that the parser does not know.
    """
    try:
        found = [
            (parser.parse({"objects": [thing]}, frame), thing.get("3d_coords")) for thing in example["objects"]
        ]
    except InputError:
        return None
    inside = [(row, place) for row, place in found if len(row)]
    if not inside or any(not place for _, place in inside):
        return None
    concepts, places = zip(*inside, strict=True)
    return torch.cat(concepts), torch.tensor(places).double()
