"""COCO's JSON: ``{"images": [...], "annotations": [...], "categories": [...]}`` (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from igm_cli.plugins.objects.annotations import (
    UNREADABLE,
    Annotation,
    Findings,
    Object,
    boxed,
    middle,
    number,
    outlined,
    pairs,
    told,
)
from igm_cli.plugins.objects.layout import Folder
from igm_cli.plugins.pictures.tables import text_of

WHAT = "COCO (.json with images and annotations)"
SUFFIXES = (".json",)
PER_IMAGE = False
_PLACES = ("bbox", "keypoints", "segmentation")


def claims(ends: str) -> bool:
    """Returns whether the beginning and the end of a file look like COCO's."""
    return '"annotations"' in ends or '"categories"' in ends


def read(folder: Folder, files: Sequence[str], findings: Findings) -> Iterator[Annotation]:
    """Yields the annotations of every image in the files; crowds are left out."""
    for file in files:
        with findings.reading(folder.root / file, file, "its images are left out"):
            data = json.loads(text_of(folder.root / file))
            images = {row["id"]: (str(row["file_name"]), row) for row in data["images"]}
            names = {row["id"]: str(row["name"]).strip() for row in data.get("categories", ())}
            objects: dict[Any, list[Object] | None] = {home: [] for home in images}
            if data["annotations"] and not any(row.get(key) for row in data["annotations"] for key in _PLACES):
                findings.add("unreadable", file, "it says of no object where it is, and is left out")
                continue
            for row in data["annotations"]:
                home = row.get("image_id")
                if home not in images:
                    findings.add(
                        "missing", file, f"it has annotations of image {home!r}, which it does not list"
                    )
                elif (known := objects[home]) is not None and not row.get("iscrowd"):
                    try:
                        known.append(_object(row, names, file, findings))
                    except UNREADABLE as error:
                        objects[home] = None
                        says = f"an annotation of {images[home][0]} cannot be read, which is left out ({told(error)})"
                        findings.add("unreadable", file, says)
            for home, (written, row) in images.items():
                image = folder.image(written, file, findings)
                if image is not None:
                    yield Annotation(image, objects[home], file, _size(row))


def _object(row: Mapping[str, Any], names: Mapping[Any, str], file: str, findings: Findings) -> Object:
    """Returns an object: the mean of its visible keypoints, the centre of its box, or the centroid of its outline."""
    category = row.get("category_id")
    if category is not None and category not in names:
        findings.add("unnamed", file, f"category {category} has no name, and its number is the label")
    label = names.get(category, "" if category is None else str(category))
    given = row.get("attributes")
    attributes = {k: str(v) for k, v in given.items()} if isinstance(given, dict) else {}
    points = row.get("keypoints") or []
    visible = [pairs(points[i : i + 2])[0] for i in range(0, len(points), 3) if points[i + 2]]
    if visible:
        return middle(visible, label, attributes=attributes)
    if row.get("bbox"):
        left, top, width, height = map(number, row["bbox"])
        return boxed(left, top, left + width, top + height, label, attributes=attributes)
    outlines = row["segmentation"]
    if not isinstance(outlines, list):
        raise ValueError("a mask has no bbox")
    return outlined(max(map(pairs, outlines), key=len), label, attributes=attributes)


def _size(row: Mapping[str, Any]) -> tuple[float, float] | None:
    size = number(row.get("width") or 0), number(row.get("height") or 0)
    return size if all(size) else None
