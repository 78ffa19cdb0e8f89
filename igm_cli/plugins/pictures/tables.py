"""Labels in a table: ``metadata.jsonl``, ``metadata.csv``, ``labels.csv``, the only ``.csv``, ``metadata.parquet``.

``datasets`` also reads tables, with its imagefolder builder, but only those with commas and a column ``file_name``, and it
mistakes a line with one value too many for one with an index.  This module reports every mistake with its line.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from igm_cli.core.files import MARK
from igm_cli.core.names import plain
from igm_cli.errors import InputError, cause, counted, some
from igm_cli.folders import walk
from igm_cli.plugins.pictures.files import PICTURES_INSIDE, ImageFiles
from igm_cli.plugins.pictures.words import Vocabulary

Row: TypeAlias = "tuple[int, dict[str, Any]]"
"""The number of a line, and values by the names of columns in lower case."""

NAMES = {
    "jsonl": ("metadata.jsonl",),
    "csv": ("metadata.csv", "metadata.tsv", "labels.tsv", "labels.csv"),
    "parquet": ("metadata.parquet",),
}
FILE_COLUMNS = ("file_name", "file", "filename", "image")
LABEL_COLUMNS = ("labels", "label", "text")
TRUTH = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}

BEGINNINGS = "file,labels or file,cat,dog, or choose the layout names or folders"

_DATA = re.compile(r"[-+]?[\d.,]*\d|.*\.\w+")  # a number or the name of a file, of which no header consists
LONGEST_HEADER = 100_000  # characters; csv refuses more in one cell


_READABLE = (".csv", ".tsv")
_UNREAD = (".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".feather", ".xlsx", ".xls", ".ods")
_OTHER = frozenset(("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"))
_CLASS_NAMES = ("classes.txt", "class_names.txt", "labels.txt", "names.txt")


def find_table(folder: Path, layout: str) -> Path | None:
    """Returns the table in a folder; None if there is none.

    The layout is a key of `NAMES`, or ``auto`` for any of them; other layouts have no table.

    Raises:
        InputError: If there are several, or one of a kind that is not read; labels are then not taken from names.
    """
    if layout not in ("auto", *NAMES):
        return None
    files = sorted(path for path in folder.glob("[!.]*") if path.is_file())
    kinds = [*NAMES] if layout == "auto" else [layout]
    usual = [path for path in files if any(path.name.lower() in NAMES[kind] for kind in kinds)]
    for path in files if layout in ("auto", "parquet") else ():
        if path.suffix.lower() == ".parquet" and _holds_pictures(path):
            raise InputError(f"{path} {PICTURES_INSIDE}")
    of_kind = _READABLE if layout in ("auto", "csv") else (f".{layout}",)
    found = usual or [path for path in files if path.suffix.lower() in of_kind and not _of_igm(path)]
    if len(found) > 1:
        raise InputError(
            f"{folder} holds {found[0].name} and {found[1].name}; call the one with the labels "
            f"{NAMES['csv' if layout == 'auto' else layout][-1]} and take the other out, or choose the layout names or folders"
        )
    if not found and layout == "auto":
        for path in files:
            if (
                path.suffix.lower() in _UNREAD
                and path.name not in _OTHER
                and path.stat().st_size
                and not _of_igm(path)
            ):
                raise InputError(
                    f"{folder} holds {path.name}, which may be its labels and is not read; call it metadata.jsonl, "
                    "metadata.parquet or labels.csv, or choose the layout names or folders"
                )
    return found[0] if found else None


def _holds_pictures(path: Path) -> bool:
    """Returns whether a column of a parquet file has the bytes of files, as ``datasets`` keeps pictures."""
    from pyarrow import parquet, types  # type: ignore[import-untyped]

    try:
        columns = [field.type for field in parquet.read_schema(path)]
    except (OSError, ValueError):  # reading the file will report what is wrong with it
        return False
    inner = [part.type for column in columns if types.is_struct(column) for part in column]
    return any(types.is_binary(each) or types.is_large_binary(each) for each in (*columns, *inner))


def tables_below(folder: Path, layout: str) -> list[Path]:
    """Returns the tables with the usual names in the subfolders of a folder, at any depth."""
    if layout not in ("auto", *NAMES):
        return []
    names = {name for kind in (NAMES if layout == "auto" else (layout,)) for name in NAMES[kind]}
    files = walk(folder, [Path(name).suffix for name in names]).files
    return sorted(folder / file for file in files if "/" in file and PurePosixPath(file).name in names)


def _of_igm(path: Path) -> bool:
    """Returns whether a file holds results or a table written by igm."""
    try:
        with path.open("rb") as file:
            first = file.readline(4096)
    except OSError:
        return False
    return b'"schema": "igm.' in first or first.rstrip().endswith(f",{MARK}".encode())


def class_names(path: Path) -> tuple[str, ...]:
    """Returns the names of a table's numbered classes: its own, as ``datasets`` keeps them, or a list next to it."""
    if path.suffix.lower() == ".parquet":
        from pyarrow import parquet

        try:
            known = json.loads((parquet.read_schema(path).metadata or {}).get(b"huggingface", b"{}"))
            features = known.get("info", {}).get("features", {})
            for column in LABEL_COLUMNS:
                feature = features.get(column, {})
                feature = feature.get("feature", feature) if isinstance(feature, dict) else feature[0]
                if names := feature.get("names"):
                    return tuple(str(name) for name in names)
        except (OSError, ValueError, AttributeError, TypeError, IndexError, KeyError):
            pass  # reading the file will report what is wrong with it
    for name in _CLASS_NAMES:
        if (beside := path.with_name(name)).is_file():
            return tuple(line.strip() for line in text_of(beside).splitlines() if line.strip())
    return ()


def read_table(path: Path, files: ImageFiles, vocabulary: Vocabulary) -> dict[str, list[str]]:
    """Returns labels of the images in a table, in the order of the images; others are left out."""
    read = {".jsonl": json_rows, ".parquet": _parquet_rows}.get(path.suffix.lower(), csv_rows)
    names = class_names(path)
    lines: dict[str, int] = {}
    labels: dict[str, list[str]] = {}
    for line, row in read(path):
        try:
            file = files.find(_written(row))
            labels[file] = _labels(row, path, vocabulary, names)
        except InputError as error:
            raise InputError(f"{path} line {line}: {error}") from error
        if lines.setdefault(file, line) != line:
            raise InputError(
                f"{path} line {line}: {file} is in line {lines[file]} already; keep one line with all of its labels"
            )
    if not labels:
        raise InputError(f"{path} lists no image; add a line for each")
    return {file: labels[file] for file in files.names if file in labels}


def _written(row: Mapping[str, Any]) -> str:
    """Returns the path of an image as written."""
    column = next(filter(row.__contains__, FILE_COLUMNS), None)
    if column is None:
        raise InputError(f"it has no {FILE_COLUMNS[0]}; add the path of an image")
    file = row[column]
    if not isinstance(file, str) or not file.strip():
        raise InputError(f"{column} is {file!r}; write the path of an image")
    return file


def _labels(row: Mapping[str, Any], path: Path, vocabulary: Vocabulary, names: Sequence[str]) -> list[str]:
    """Returns the labels of a row: those listed in a column, or those whose own column is 1."""
    column = next(filter(row.__contains__, LABEL_COLUMNS), None)
    if column is not None:
        found = _listed(column, row[column], vocabulary, names)
    elif path.suffix.lower() == ".jsonl":
        raise InputError("it has no labels; add a list of them")
    else:
        found = vocabulary.among(
            name for name in row if name not in FILE_COLUMNS and _marked(name, row, vocabulary)
        )
    if not found:
        counting = f" of {', '.join(vocabulary.known)}" if vocabulary.known else ""
        raise InputError(f"the image has no label{counting}; add one or remove the line")
    return found


def _listed(column: str, value: Any, vocabulary: Vocabulary, names: Sequence[str]) -> list[str]:
    """Returns the labels of a cell: text, numbers of named classes, or a list of either."""
    each = value if isinstance(value, list) else [value]
    numbers = [n for n in map(_class_number, each) if n is not None]
    if numbers and len(numbers) == len(each) and not all(str(n) in vocabulary.known for n in numbers):
        if wrong := [n for n in numbers if n >= len(names)]:
            has = (
                f"the classes have {counted(len(names), 'name')}"
                if names
                else f"classes have no names; list them in {_CLASS_NAMES[0]}, a line each"
            )
            raise InputError(f"{column} is the number {wrong[0]}, and {has}, from 0 on")
        return vocabulary.among(names[n] for n in numbers)
    if isinstance(value, str):
        if column == "text":
            return vocabulary.in_name(value)
        return vocabulary.in_cell(value, one=column == "label")
    if isinstance(value, list) and all(isinstance(label, str) for label in value):
        return vocabulary.among(value)
    raise InputError(f'{column} is {str(value)[:40]}, which is not text; write labels as ["cat", "dog"]')


def _class_number(value: Any) -> int | None:
    """Returns the number of a class; None if the value is not one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 9:
        return int(value)
    return value if isinstance(value, int) and value >= 0 else None


def _marked(column: str, row: Mapping[str, Any], vocabulary: Vocabulary) -> bool:
    cell = str(row[column])
    if vocabulary.known and plain(column) not in vocabulary.known:
        return False
    if cell.lower() not in TRUTH:
        raise InputError(
            f"{column} is {cell[:40]!r}, neither 0 nor 1; correct it, or name the columns of labels "
            "with the option labels"
        )
    return TRUTH[cell.lower()]


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} cannot be read ({' '.join(str(error).split())}); check it") from error
    for number, row in enumerate(rows, 1):
        yield number, {name.strip().lower(): value for name, value in row.items()}


def refuse(error: InputError) -> None:
    """Stops reading a table at a line that cannot be read."""
    raise error


def json_rows(path: Path, bad: Callable[[InputError], None] = refuse) -> Iterator[Row]:
    """Yields the lines of a file in JSON Lines; ``bad`` receives those that cannot be read."""
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text_of(path)), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()  # lone surrogates cannot be kept
        except (ValueError, RecursionError) as error:
            bad(InputError(f"{path} line {number} is not JSON: {error}; correct it"))
            continue
        if not isinstance(row, dict):
            bad(InputError(f'{path} line {number} is not an object; write it as {{"file_name": "1.jpg", ...}}'))
            continue
        yield number, {name.strip().lower(): value for name, value in row.items()}


def csv_rows(
    path: Path,
    bad: Callable[[InputError], None] = refuse,
    beginnings: str = BEGINNINGS,
    needed: Sequence[str] = (),
) -> Iterator[Row]:
    """Yields the lines of a table with commas, semicolons or tabs, except for the header.

    ``bad`` receives lines that cannot be read.  ``beginnings`` describes header lines, for the error if a table has none, or
    lacks the column of the files or one ``needed`` beside it.
    """
    text = text_of(path)
    delimiter = _delimiter(path, text, beginnings, needed)
    # Without strict, an unclosed quote would swallow the rest of the file.
    options: Any = {"delimiter": delimiter, "skipinitialspace": True, "strict": True}
    reader = csv.reader(io.StringIO(text, newline=""), **options)
    columns: list[str] = []
    line = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if columns and any(cells):
                if len(cells) != len(columns):
                    says = (
                        f"{path} line {line} has {counted(len(cells), 'value')} for {counted(len(columns), 'column')}; "
                        'correct it, and put quotes around labels with commas between them: "cat,dog"'
                    )
                    bad(InputError(says))
                else:
                    # A column without a name numbers the rows, as pandas does.
                    yield line, {name: cell for name, cell in zip(columns, cells, strict=True) if name}
            elif any(cells):
                columns = [name.lower() for name in cells]
                twice = next((name for name in columns if name and columns.count(name) > 1), None)
                if twice:
                    raise InputError(f"{path} line {line} names the column {twice} twice; rename one")
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path} line {line} is not a line of a table: {error}; correct its quotes") from error


def _delimiter(path: Path, text: str, beginnings: str, needed: Sequence[str]) -> str:
    """Returns the character between columns: in some countries spreadsheets write semicolons."""
    header = next(filter(str.strip, io.StringIO(text, newline=None)), "")[:LONGEST_HEADER]
    names: list[str] = []
    for delimiter in ",;\t":
        cells = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True))
        names = max(names, [cell.strip() for cell in cells], key=len)
        if len(cells) > 1 and not _lacking(cells, needed):
            return delimiter
    if len(names) < 2 or any(map(_DATA.fullmatch, names)):
        raise InputError(
            f"{path} does not say what its columns hold; begin it with a line such as {beginnings}"
        )
    columns, lacking = some([name for name in names if name], 8), " nor ".join(_lacking(names, needed))
    raise InputError(
        f"{path} has the columns {columns}, but none called {lacking}; name them as in {beginnings}"
    )


def _lacking(cells: Sequence[str], needed: Sequence[str]) -> list[str]:
    """Returns which columns a header lacks: that of the files, and others."""
    known = {cell.strip().lower() for cell in cells}
    return ["file"] * known.isdisjoint(FILE_COLUMNS) + [name for name in needed if name not in known]


def encoding_of(content: bytes) -> str:
    """Returns the encoding of a text: UTF-16 if it says so, else UTF-8."""
    return "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def text_of(path: Path) -> str:
    """Returns the text of a file in UTF-8, or in UTF-16 if it says so."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({cause(error)}); check it") from error
    try:
        text = content.decode(encoding_of(content))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path} line {line} is not in UTF-8; save the file as UTF-8") from error
    if "\0" in text:  # UTF-16 that does not say so, or no text at all
        raise InputError(f"{path} is not in UTF-8; save the file as UTF-8")
    return text
