"""COCO's JSON: ``{"images": [...], "annotations": [...], "categories": [...]}`` (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from igm_cli.errors import counted
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
    """Yields the annotations of every image in the files; crowds are regions to ignore."""
    for file in files:
        with findings.reading(folder.root / file, file, "its images are left out"):
            data = json.loads(text_of(folder.root / file))
            names = _by_id("categories", data.get("categories", ()), "name")
            written = _by_id("images", data["images"], "file_name")
            rows = {row["id"]: row for row in data["images"]}
            objects: dict[Any, list[Object] | None] = {home: [] for home in written}
            if data["annotations"] and not any(row.get(key) for row in data["annotations"] for key in _PLACES):
                findings.add("unreadable", file, "it says of no object where it is, and is left out")
                continue
            for row in data["annotations"]:
                home = row.get("image_id")
                if home not in written:
                    says = f"it has annotations of image {home!r}, which it does not list"
                    findings.add("unlisted", file, says)
                elif (known := objects[home]) is not None:
                    try:
                        known.append(thing := _object(row, names, file, findings))
                    except UNREADABLE as error:
                        objects[home] = None
                        which = f"annotation {row['id']!r}" if "id" in row else "an annotation"
                        says = f"{which} of {written[home]} cannot be read, which is left out ({told(error)})"
                        findings.add("unreadable", file, says)
                        continue
                    if thing.crowd:
                        says = "(iscrowd: 1) is a region to ignore, which no crop overlaps"
                        findings.add("crowd", file, f"a crowd in {written[home]} {says}")
            images = folder.images_of(list(written.values()), file, findings)
            for home, name in written.items():
                if image := images[name]:
                    yield Annotation(image, objects[home], file, _size(rows[home]))


def _by_id(what: str, rows: Sequence[Mapping[str, Any]], key: str) -> dict[Any, str]:
    """Returns the names of rows by their ids; raises a ValueError if two names have the same id."""
    names: dict[Any, str] = {}
    for row in rows:
        name = str(row[key]).strip()
        if names.setdefault(row["id"], name) != name:
            raise ValueError(f"the {what} {names[row['id']]!r} and {name!r} have the same id {row['id']!r}")
    return names


def _object(row: Mapping[str, Any], names: Mapping[Any, str], file: str, findings: Findings) -> Object:
    """Returns an object: the mean of its visible keypoints, the centre of its box, or the centroid of its outline."""
    category = row.get("category_id")
    if category is not None and category not in names:
        findings.add("unnamed", file, f"category {category} has no name, and its number is the label")
    label = names.get(category, "" if category is None else str(category))
    given, crowd = row.get("attributes"), bool(row.get("iscrowd"))
    attributes = {k: str(v) for k, v in given.items()} if isinstance(given, dict) else {}
    more: dict[str, Any] = {"attributes": attributes, "crowd": crowd}
    points = row.get("keypoints") or []
    if len(points) % 3:
        raise ValueError(f"{counted(len(points), 'number')} cannot be keypoints, which have 3 each")
    visible = [pairs(points[i : i + 2])[0] for i in range(0, len(points), 3) if points[i + 2]]
    if visible and not crowd:
        return middle(visible, label, **more)
    if box := row.get("bbox"):
        if len(box) != 4:
            raise ValueError(f"a bbox has 4 numbers, not {len(box)}")
        left, top, width, height = map(number, box)
        return boxed(left, top, left + width, top + height, label, **more)
    outlines = row.get("segmentation")
    if not outlines:
        raise ValueError("it has neither a bbox nor a segmentation")
    if not isinstance(outlines, list):
        raise ValueError("a mask has no bbox")
    return outlined(max(map(pairs, outlines), key=len), label, **more)


def _size(row: Mapping[str, Any]) -> tuple[float, float] | None:
    size = number(row.get("width") or 0), number(row.get("height") or 0)
    return size if all(size) else None
