"""Exports results to other programs: a CSV table and COCO JSON, both made from records."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import igm_cli
from igm_cli.commands.results import refuse_inputs
from igm_cli.core.files import MARK, fingerprint_of, require_writable, telling_unwritable, write_atomically
from igm_cli.errors import InputError, UsageError
from igm_cli.folders import ADDRESS
from igm_cli.output import Record, json_line

if TYPE_CHECKING:
    from igm_cli.session import ImageSession

PLACE = ("x_px", "y_px", "x", "y", "confidence")
"""Columns that come first if items have places."""

LABELS = ("label", "category", "class")
"""Fields and factors that say what kind of object an item is."""

OBJECT = "object"
"""Category of objects of unknown kind."""


@dataclass
class Export:
    """A file of all that a run finds, written when it ends; it replaces only unchanged files of igm."""

    option: str  # the option that asks for it
    path: Path
    text: Callable[[Sequence[Record]], str]  # makes its content from records
    is_own: Callable[[str], bool]  # whether a content is unchanged from ``text``
    _records: list[Record] = field(default_factory=list)

    def check(self, inputs: Sequence[Path] = ()) -> None:
        """Refuses to overwrite an input or what is not igm's (:class:`UsageError`), or what cannot be written (:class:`OutputError`)."""
        if str(self.path) == "-":
            raise UsageError(
                f"{self.option} writes a file, and - is none; name one, or use --json for standard output"
            )
        if self.path.is_dir():
            raise InputError(f"{self.path} is a folder; name a file in it for {self.option}")
        refuse_inputs([self.path], inputs, self.option)
        require_writable(self.path)
        with telling_unwritable(self.path):
            old = self.path.read_bytes() if self.path.exists() else b""
        if old and not self.is_own(old.decode("utf-8", "replace")):
            raise UsageError(
                f"{self.option} would overwrite {self.path}, which igm did not write as it is; choose another path"
            )

    def add(self, record: Record) -> None:
        """Adds the record of an input."""
        self._records.append({name: value for name, value in record.items() if name != "k_curve"})

    def write(self) -> None:
        """Writes the whole file."""
        self.check()
        content = self.text(self._records).encode()
        write_atomically(self.path, lambda temporary: temporary.write_bytes(content))


def image_exports(session: ImageSession, csv_file: Path | None, coco_file: Path | None) -> list[Export]:
    """Returns the exports for ``--csv`` and ``--coco``; the latter needs items with a place, or a :class:`UsageError` is raised."""
    exports, example = [], session.example()
    if csv_file:
        exports.append(table(csv_file, (*session.key, "time"), example))
    if coco_file:
        if not {"x_px", "y_px"} <= {*example}:
            raise UsageError(
                f"--coco needs items with x_px and y_px, and those of the concepts {session.parser.name} have none; use --csv"
            )
        exports.append(Export("--coco", coco_file, coco_text, is_own_coco))
    return exports


def table(path: Path, key: Sequence[str], example: Mapping[str, Any] | None = None) -> Export:
    """Returns the export for ``--csv``; the arguments are those of :func:`items_csv`."""
    return Export("--csv", path, lambda records: items_csv(records, key, example), is_own_table)


def items_csv(records: Sequence[Record], key: Sequence[str], example: Mapping[str, Any] | None = None) -> str:
    """Returns CSV with a row per item of records: its input, its number there, and its fields.

    Each factor has a column of its own.

    Args:
        records: Results, with ``items``.
        key: Fields of a record that together name its input; fields that no record has get no column.
        example: An example of an item, whose columns appear even if nothing was found.
    """
    key = [name for name in key if any(name in record for record in records)] or key[:1]
    rows = [
        {**{name: record[name] for name in key if name in record}, "number": number, **_cells(item)}
        for record in records
        for number, item in enumerate(record["items"], 1)
    ]
    known = {**_cells(example), "confidence": None} if example else {}
    names = [name for row in (known, *rows) for name in row if name not in (*key, "number")]
    if PLACE[0] in names:
        names = [*PLACE, *names]
    columns = [*key, "number", *dict.fromkeys(names)]
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    return marked_csv(columns, cells)


def marked_csv(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Returns a table as CSV with a last column by which :func:`is_own_table` recognizes it."""
    mark = _mark(columns, cells)
    return csv_text([*columns, MARK], [[*row, mark] for row in cells])


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table as CSV with a header row."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows([columns, *rows])
    return buffer.getvalue()


def is_own_table(text: str) -> bool:
    """Returns whether a text is an unchanged table of :func:`marked_csv`."""
    try:
        (*columns, last), *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (csv.Error, ValueError):
        return False
    mark = _mark(columns, [row[:-1] for row in rows])
    return last == MARK and all(row[-1:] == [mark] for row in rows) and bool(columns)


def coco_text(records: Sequence[Record]) -> str:
    """Returns COCO JSON of records: a keypoint per item, in pixels of its image.

    An image is named by its path below the folder that all images share.  The category is an item's kind, or ``object``
    if unknown; ``attributes`` are all its values, and ``score`` is the confidence.

    Source: https://cocodataset.org/#format-data, "Keypoint Detection".
    """
    images = zip(_below_common_folder(records), records, strict=True)
    items = [(number, item) for number, record in enumerate(records, 1) for item in record["items"]]
    kinds = sorted({_kind(item) for _, item in items} or {OBJECT})
    data: dict[str, Any] = {
        "images": [_image(number, *each) for number, each in enumerate(images, 1)],
        "annotations": [
            _annotation(number, image, kinds.index(_kind(item)) + 1, item)
            for number, (image, item) in enumerate(items, 1)
        ],
        "categories": [
            {"id": number, "name": kind, "supercategory": "", "keypoints": ["centre"], "skeleton": []}
            for number, kind in enumerate(kinds, 1)
        ],
    }
    about = {"description": "Objects found by igm", "version": igm_cli.__version__, MARK: _mark(data)}
    return json_line({"info": about, **data}) + "\n"


def is_own_coco(text: str) -> bool:
    """Returns whether a text was written by :func:`coco_text`."""
    try:
        data = json.loads(text)
        return bool(data.pop("info")[MARK] == _mark(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _mark(*content: Any) -> str:
    return f"igm-{fingerprint_of(content)}"


def _image(number: int, path: str, record: Record) -> dict[str, Any]:
    """Returns the COCO entry of an image; a frame is a numbered file in a folder named after its video."""
    width, height = record["size"]
    image = {"id": number, "file_name": path, "width": width, "height": height}
    if "frame" in record:
        image |= {"file_name": f"{path}/{record['frame']:06d}.png", "frame_id": record["frame"]}
    return image


def _annotation(number: int, image: int, category: int, item: Record) -> dict[str, Any]:
    """Returns an item as an annotation; a keypoint is visible if its third number is 2."""
    said = dict(_values(item))
    confidence = item.get("confidence")
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "keypoints": [item["x_px"], item["y_px"], 2],
        "num_keypoints": 1,
        "iscrowd": 0,
        **({"attributes": said} if said else {}),
        **({} if confidence is None else {"score": confidence}),
    }


def _kind(item: Record) -> str:
    """Returns the kind of an item: its label, or its value if there is only one factor."""
    said = dict(_values(item))
    named = [str(each[name]) for each in (item, said) for name in LABELS if name in each]
    return (named or (list(said.values()) if len(said) == 1 else []) or [OBJECT])[0]


def _values(item: Record) -> Iterator[tuple[str, str]]:
    """Yields the factors' values from an item's tables."""
    for value in item.values():
        if isinstance(value, Mapping):
            yield from ((str(name), each) for name, each in value.items() if isinstance(each, str))


def _cells(item: Record) -> dict[str, Any]:
    """Returns the fields of an item, with tables of values flattened."""
    fields = {name: value for name, value in item.items() if not isinstance(value, Mapping)}
    nested = [(name, value) for name, value in item.items() if isinstance(value, Mapping)]
    for table, inner in nested:
        fields |= {f"{table}.{name}" if name in fields else name: value for name, value in inner.items()}
    return fields


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)


def _below_common_folder(records: Sequence[Record]) -> list[str]:
    """Returns the paths of images below the deepest folder that contains all; unchanged if there is none."""
    images = [record["image"] for record in records]
    paths = [os.path.abspath(image) for image in images]  # noqa: PTH100
    try:
        if any(ADDRESS.match(image) for image in images):
            raise ValueError
        root = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    except ValueError:  # several drives, an address, or no images
        return [image if ADDRESS.match(image) else Path(image).as_posix() for image in images]
    return [Path(path).relative_to(root).as_posix() for path in paths]
