"""Rows of ``.csv`` and ``.jsonl`` files with the numbers of their lines, as editors and spreadsheets save them."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from igm_cli.errors import InputError

Row: TypeAlias = "tuple[int, dict[str, Any]]"
"""The number of a line, and values by the names of columns in lower case."""

FILE_COLUMNS = ("file_name", "file", "filename", "image")
"""What the column with the paths of images is called."""

_DELIMITERS = (",", ";", "\t")
_LONGEST_HEADER = 100_000  # characters; csv refuses more in one cell
_HEADER = "begin it with a line such as file,labels or file,cat,dog, or choose the layout names or folders"


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a table that are not blank.

    Raises:
        InputError: If it cannot be read, naming the line.
    """
    rows = _json_rows if path.suffix.lower() == ".jsonl" else _csv_rows
    return rows(path, _text(path))


def _text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 if it says so."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check it") from error
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path} line {line} is not in UTF-8; save the file as UTF-8") from error
    if "\0" in text:  # UTF-16 that does not say so, or no text at all
        raise InputError(f"{path} is not in UTF-8; save the file as UTF-8")
    return text


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()  # halves of characters cannot be kept
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} line {number} is not JSON: {error}; correct it") from error
        if not isinstance(row, dict):
            raise InputError(
                f'{path} line {number} is no object; write it as {{"file_name": "1.jpg", "labels": ["cat"]}}'
            )
        yield number, {name.strip().lower(): value for name, value in row.items()}


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    delimiter = _delimiter(path, text)
    rows = _cells(path, text, delimiter)
    line, names = next(rows)
    columns = [name.lower() for name in names]
    twice = [name for name in columns if name and columns.count(name) > 1]
    if twice:
        raise InputError(f"{path} line {line} names the column {twice[0]} twice; rename one")
    for line, cells in rows:
        if len(cells) != len(columns):
            raise InputError(
                f"{path} line {line} has {len(cells)} values for {len(columns)} columns; correct it, "
                f'and put quotes around labels with commas between them: "cat,dog"'
            )
        # A column without a name numbers the rows, as pandas does.
        yield line, {name: cell for name, cell in zip(columns, cells, strict=True) if name}


def _delimiter(path: Path, text: str) -> str:
    """The character between columns: in some countries spreadsheets write semicolons."""
    header = next(filter(str.strip, io.StringIO(text, newline=None)), "")[:_LONGEST_HEADER]
    for delimiter in _DELIMITERS:
        names = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True))
        if len(names) > 1 and any(name.strip().lower() in FILE_COLUMNS for name in names):
            return delimiter
    raise InputError(f"{path} does not say which columns hold files and labels; {_HEADER}")


def _cells(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, Sequence[str]]]:
    # Without strict a quote that nothing closes would swallow the rest of the file.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    line = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path} line {line} is no line of a table: {error}; correct its quotes") from error
