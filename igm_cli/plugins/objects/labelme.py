"""LabelMe's JSON, one file per image: ``{"shapes": [{"label": ..., "shape_type": ..., "points": ...}]}``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from igm_cli.plugins.objects.annotations import Annotation, Findings, Object, boxed, number, outlined
from igm_cli.plugins.objects.layout import Folder
from igm_cli.plugins.pictures.tables import text_of

WHAT = "LabelMe (.json for each image, with shapes)"
SUFFIXES = (".json",)
PER_IMAGE = True
SHAPES = ("point", "circle", "rectangle", "polygon")


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
            if kind in SHAPES:
                objects.append(_object(kind, shape))
            else:
                findings.add("unknown", file, f"a {kind} is none of {', '.join(SHAPES)}, and is left out")
        return Annotation(str(data.get("imagePath") or ""), objects, file, size if all(size) else None)

    return folder.one_by_one(files, parse, findings)


def _object(kind: str, shape: Mapping[str, Any]) -> Object:
    points = [(number(x), number(y)) for x, y in shape["points"]]
    label = str(shape.get("label") or "").strip()
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
