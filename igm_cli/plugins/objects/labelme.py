"""LabelMe's JSON, one file per image: ``{"shapes": [{"label": ..., "shape_type": ..., "points": ...}]}``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

from igm_cli.errors import counted
from igm_cli.plugins.objects.annotations import (
    Annotation,
    Findings,
    Object,
    Point,
    boxed,
    number,
    outlined,
    pairs,
)
from igm_cli.plugins.objects.layout import Folder
from igm_cli.plugins.pictures.tables import text_of

WHAT = "LabelMe (.json for each image, with shapes)"
SUFFIXES = (".json",)
PER_IMAGE = True
SHAPES = {"point": 1, "circle": 2, "rectangle": 2, "polygon": 3}
"""Shapes with an area or a place, and the points that each needs."""


def claims(ends: str) -> bool:
    """Returns whether the beginning and the end of a file look like LabelMe's."""
    return '"shapes"' in ends and '"annotations"' not in ends


def read(folder: Folder, files: Sequence[str], findings: Findings) -> Iterator[Annotation]:
    """Yields the annotation of every file; lines and other shapes without an area are left out."""

    def parse(file: str) -> Annotation:
        data = json.loads(text_of(folder.root / file))
        size = (number(data.get("imageWidth") or 0), number(data.get("imageHeight") or 0))
        objects = []
        for shape in data["shapes"]:
            kind = shape.get("shape_type") or "polygon"
            points = [each for point in shape.get("points") or () for each in pairs(point)]
            if kind not in SHAPES:
                findings.add("unknown", file, f"a {kind} is none of {', '.join(SHAPES)}, and is left out")
            elif kind == "polygon" and 0 < len(points) < SHAPES[kind]:
                says = (
                    f"a polygon of {counted(len(points), 'point')} has no area, and is left out; it needs three"
                )
                findings.add("unknown", file, says)
            elif len(points) < SHAPES[kind]:
                raise ValueError(f"a {kind} has {counted(len(points), 'point')} and needs {SHAPES[kind]}")
            else:
                objects.append(_object(kind, points, str(shape.get("label") or "").strip()))
        return Annotation(str(data.get("imagePath") or ""), objects, file, size if all(size) else None)

    return folder.one_by_one(files, parse, findings)


def _object(kind: str, points: Sequence[Point], label: str) -> Object:
    if kind == "polygon":
        return outlined(points, label)
    (x, y), *others = points
    if kind == "point":
        return Object(x, y, label)
    if kind == "circle":
        width = 2 * math.dist((x, y), others[0])
        return Object(x, y, label, (width, width))
    xs, ys = zip(*points, strict=True)  # corners, in any order
    return boxed(min(xs), min(ys), max(xs), max(ys), label)
