"""Labels listed in a table: ``metadata.jsonl``, ``metadata.csv``, ``labels.csv`` or another ``.csv``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igm_cli.errors import InputError
from igm_cli.plugins.pictures.files import ImageFiles
from igm_cli.plugins.pictures.tables import FILE_COLUMNS, read_rows
from igm_cli.plugins.pictures.words import Vocabulary, plain

_LABEL_COLUMNS = ("labels", "label", "text")
_TRUTH = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_NAMES = {"jsonl": ("metadata.jsonl",), "csv": ("metadata.csv", "labels.csv")}


def table_in(folder: Path, layout: str) -> Path | None:
    """The table of a folder; None if it has none.

    Args:
        folder: Where it lies; not in folders inside.
        layout: ``jsonl``, ``csv``, or ``auto`` for the first of these.  Others have no table.

    Raises:
        InputError: If several files may be it.
    """
    kinds = list(_NAMES) if layout == "auto" else [kind for kind in _NAMES if kind == layout]
    tables = (_table(folder, kind, named=layout == "auto" and kind == "jsonl") for kind in kinds)
    return next(filter(None, tables), None)


def _table(folder: Path, kind: str, named: bool) -> Path | None:
    """A table by its usual name, or unless it must be named so the only one."""
    files = sorted(
        path for path in folder.glob("[!.]*") if path.suffix.lower() == f".{kind}" and path.is_file()
    )
    by_name = {path.name.lower(): path for path in files}
    usual = next(filter(by_name.__contains__, _NAMES[kind]), None)
    if usual or named:  # lines of JSON may hold anything, as what igm itself writes
        return by_name[usual] if usual else None
    if len(files) > 1:
        raise InputError(
            f"{folder} holds {files[0].name} and {files[1].name}; call the one with the labels "
            f"{_NAMES[kind][-1]}, or choose the layout names or folders"
        )
    return files[0] if files else None


def read_table(path: Path, files: ImageFiles, vocabulary: Vocabulary) -> dict[str, list[str]]:
    """Labels of the images that a table lists, in the order of the images; others are left out.

    Args:
        path: The table.
        files: Images that it may list.
        vocabulary: Labels that count.

    Raises:
        InputError: If a line cannot be read, lists no image or one twice, or has no label; it is named.
    """
    lines: dict[str, int] = {}
    labels: dict[str, list[str]] = {}
    for line, row in read_rows(path):
        try:
            file = files.find(_written(row))
            labels[file] = _labels(row, path, vocabulary)
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
    """The path of an image as it is written."""
    column = next(filter(row.__contains__, FILE_COLUMNS), None)
    if column is None:
        raise InputError(f"it has no {FILE_COLUMNS[0]}; add the path of an image")
    file = row[column]
    if not isinstance(file, str) or not file.strip():
        raise InputError(f"{column} is {file!r}; write the path of an image")
    return file


def _labels(row: Mapping[str, Any], path: Path, vocabulary: Vocabulary) -> list[str]:
    column = next(filter(row.__contains__, _LABEL_COLUMNS), None)
    if column is not None:
        found = _listed(column, row[column], vocabulary)
    elif path.suffix.lower() == ".jsonl":
        raise InputError("it has no labels; add a list of them")
    else:
        found = _marked(row, vocabulary)
    if not found:
        counting = f" of {', '.join(vocabulary.known)}" if vocabulary.known else ""
        raise InputError(f"the image has no label{counting}; add one or remove the line")
    return found


def _listed(column: str, value: Any, vocabulary: Vocabulary) -> list[str]:
    """The labels in a value: a list, or text."""
    if isinstance(value, str):
        return vocabulary.in_name(value) if column == "text" else vocabulary.in_cell(value)
    if isinstance(value, list) and all(isinstance(label, str) for label in value):
        return vocabulary.among(value)
    raise InputError(f'{column} is {str(value)[:40]}, which is no text; write labels as ["cat", "dog"]')


def _marked(row: Mapping[str, str], vocabulary: Vocabulary) -> list[str]:
    """The labels whose columns say 1."""
    file = next(filter(row.__contains__, FILE_COLUMNS))
    marked = []
    for column, cell in row.items():
        if column == file or (vocabulary.known and plain(column) not in vocabulary.known):
            continue
        if cell.lower() not in _TRUTH:
            raise InputError(
                f"{column} is {cell[:40]!r}, neither 0 nor 1; correct it, or name the columns of labels "
                "with the option labels"
            )
        if _TRUTH[cell.lower()]:
            marked.append(column)
    return vocabulary.among(marked)
