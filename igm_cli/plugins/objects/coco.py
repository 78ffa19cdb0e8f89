"""COCO's JSON: ``{"images": [...], "annotations": [...], "categories": [...]}`` (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from igm_cli.errors import InputError, counted
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
    """Returns whether the beginning and the end of a file look like COCO's; other exports have its categories alone."""
    return '"annotations"' in ends or ('"categories"' in ends and '"image' in ends)


def read(folder: Folder, files: Sequence[str], findings: Findings) -> Iterator[Annotation]:
    """Yields the annotations of every image in the files; crowds are regions to ignore."""
    for file in files:
        with findings.reading(folder.root / file, file, "its images are left out"):
            data = json.loads(text_of(folder.root / file))
            if not isinstance(data, dict) or not {"images", "annotations"} <= data.keys():
                raise InputError("it has no images and annotations as COCO JSON has; export it as COCO")
            names = _by_id("categories", data.get("categories", ()), "name")
            written = _by_id("images", data["images"], "file_name")
            rows = {_key(row["id"]): row for row in data["images"]}
            objects: dict[Any, list[Object] | None] = {home: [] for home in written}
            if data["annotations"] and not any(row.get(key) for row in data["annotations"] for key in _PLACES):
                findings.add("unreadable", file, "it says of no object where it is, and is left out")
                continue
            for row in data["annotations"]:
                home = _key(row.get("image_id"))
                if home not in written:
                    says = f"it has annotations of image {home}, which it does not list"
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


def _by_id(what: str, rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, str]:
    """Returns the names of rows by their ids; raises a ValueError if two names have the same id."""
    names: dict[str, str] = {}
    for row in rows:
        name, id_ = str(row[key]).strip(), _key(row["id"])
        if names.setdefault(id_, name) != name:
            raise ValueError(f"the {what} {names[id_]!r} and {name!r} have the same id {id_}")
    return names


def _key(id_: Any) -> str:
    """Returns an id as text: some programs write 0 in one place and "0" or 0.0 in another."""
    return str(int(id_) if isinstance(id_, float) and id_.is_integer() else id_)


def _object(row: Mapping[str, Any], names: Mapping[str, str], file: str, findings: Findings) -> Object:
    """Returns an object: the mean of its visible keypoints, the centre of its box, or the centroid of its outline or mask."""
    category = row.get("category_id")
    label = "" if category is None else names.get(_key(category), str(category))
    if category is not None and _key(category) not in names:
        findings.add("unnamed", file, f"category {category} has no name, and its number is the label")
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
        return _masked(outlines["counts"], outlines["size"], label, **more)
    return outlined(max(map(pairs, outlines), key=len), label, **more)


def _masked(counts: str | Sequence[Any], size: Sequence[Any], label: str, **more: Any) -> Object:
    """Returns the object of a mask of (height, width) in runs: its centre is the centroid, its box encloses it.

    The runs go down the columns, outside of the mask and inside in turn.
    """
    high, wide = map(int, map(number, size))
    runs = _runs(counts) if isinstance(counts, str) else [int(number(each)) for each in counts]
    if min(runs, default=0) < 0 or not 0 < sum(runs) == high * wide:
        raise ValueError(f"a mask of {wide}×{high} pixels has {sum(runs)} pixels in its runs")
    area = columns = rows = stop = 0  # sums over the pixels inside
    left, right, top, bottom = wide, 0, high, 0
    for place, run in enumerate(runs):
        start, stop = stop, stop + run
        if not (place % 2 and run):
            continue
        area += run
        columns += _sums(stop, high)[0] - _sums(start, high)[0]
        rows += _sums(stop, high)[1] - _sums(start, high)[1]
        first, last = start // high, (stop - 1) // high
        left, right = min(left, first), max(right, last + 1)
        top, bottom = (
            (min(top, start % high), max(bottom, (stop - 1) % high + 1)) if first == last else (0, high)
        )
    if not area:
        return Object(0.0, 0.0, label, (0.0, 0.0), **more)
    box = (float(right - left), float(bottom - top))
    return Object(columns / area + 0.5, rows / area + 0.5, label, box, **more)


def _sums(count: int, high: int) -> tuple[int, int]:
    """Returns the sum of the columns and that of the rows of the first pixels, counted down columns of a height."""
    whole, rest = divmod(count, high)
    return high * whole * (whole - 1) // 2 + rest * whole, whole * high * (high - 1) // 2 + rest * (
        rest - 1
    ) // 2


def _runs(text: str) -> list[int]:
    """Returns the runs of a mask that COCO's own tools compressed to text.

    Source: https://github.com/cocodataset/cocoapi, ``rleFrString`` in ``common/maskApi.c``.
    """
    runs: list[int] = []
    run = shift = 0
    for byte in text.encode():
        five = byte - 48
        run |= (five & 31) << shift
        shift += 5
        if not five & 32:  # the last five bits of a run, of which the first is the sign
            run -= (five & 16) << (shift - 4)
            runs.append(run + runs[-2] if len(runs) > 2 else run)
            run = shift = 0
    return runs


def _size(row: Mapping[str, Any]) -> tuple[float, float] | None:
    size = number(row.get("width") or 0), number(row.get("height") or 0)
    return size if all(size) else None
