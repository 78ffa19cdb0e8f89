"""One table of all objects, one per line: CSV, TSV or JSON Lines with columns ``file``, ``x`` and ``y``, in pixels.

Columns ``x_px`` and ``y_px``, if present, are the pixels, as in the tables that ``igm invert --csv`` writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from igm_cli.errors import InputError
from igm_cli.plugins.objects.annotations import UNREADABLE, Annotation, Findings, Object, number, told
from igm_cli.plugins.objects.layout import Folder
from igm_cli.plugins.pictures.tables import FILE_COLUMNS, Row, csv_rows, json_rows

WHAT = "a table (.csv, .tsv or .jsonl with columns file, x and y)"
SUFFIXES = (".csv", ".tsv", ".jsonl")
PER_IMAGE = False
LABEL_COLUMNS = ("label", "class", "category", "name")


def claims(ends: str) -> bool:
    """Returns whether the first line names such columns."""
    words = re.split(r"[,;\t{}:]", ends.strip().partition("\n")[0].lower())
    names = {word.strip().strip('"') for word in words}
    return {"x", "y"} <= names and not names.isdisjoint(FILE_COLUMNS)


def read(folder: Folder, files: Sequence[str], findings: Findings) -> Iterator[Annotation]:
    """Yields the annotations of every image in the files; a line without x and y means an image without objects."""
    for file in files:
        path = folder.root / file
        objects: dict[str, list[Object]] = {}
        spoilt: set[str] = set()
        leave_out = partial(_leave_out, findings, path, file)
        with findings.reading(path, file, "its images are left out"):
            every = [
                written for _, row in _rows(path, lambda error: None) if (written := _written(row)) is not None
            ]
            images = folder.images_of(every, file, findings)
            for line, row in _rows(path, leave_out):
                written = _written(row)
                if written is None or not {"x", "y"} <= row.keys():
                    leave_out(InputError(f"line {line} has no columns file, x and y; add them"))
                    continue
                image = images[written]
                if image is None:
                    continue
                known = objects.setdefault(image, [])
                try:
                    if any(str(row[side]).strip() not in ("", "None") for side in "xy"):
                        known.append(_object(row))
                except UNREADABLE as error:
                    spoilt.add(image)
                    leave_out(InputError(f"line {line} of {image} cannot be read ({told(error)}); correct it"))
            for image, found in objects.items():
                nothing_left = image in spoilt and not found
                yield Annotation(image, None if nothing_left else found, file)


def _written(row: Mapping[str, Any]) -> str | None:
    """Returns the path of an image as a row has it."""
    column = next(filter(row.__contains__, FILE_COLUMNS), None)
    return None if column is None else str(row[column])


def _leave_out(findings: Findings, path: Path, file: str, error: InputError) -> None:
    """Adds a line of a table to the findings; its image is kept without it."""
    findings.add("line", file, str(error).removeprefix(f"{path} "))


def _rows(path: Path, leave_out: Callable[[InputError], None]) -> Iterator[Row]:
    if path.suffix.lower() == ".jsonl":
        return json_rows(path, leave_out)
    return csv_rows(path, leave_out, "file,x,y,label", ("x", "y"))


def _object(row: Mapping[str, Any]) -> Object:
    cells = {name: "" if value is None else str(value).strip() for name, value in row.items()}
    label = next(filter(cells.__contains__, LABEL_COLUMNS), "")
    across, down = ("x_px", "y_px") if {"x_px", "y_px"} <= cells.keys() else ("x", "y")
    width = 2 * number(cells["radius"]) if cells.get("radius") else None
    used = {"x", "y", across, down, "radius", label, *FILE_COLUMNS}
    return Object(
        number(cells[across]),
        number(cells[down]),
        cells.get(label, ""),
        None if width is None else (width, width),
        {name: value for name, value in cells.items() if name not in used},
    )
