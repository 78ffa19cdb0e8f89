"""CelebA's files of one line per image, as published (``.txt``) or as on Kaggle (``.csv``)."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from igm_cli.errors import InputError, counted

_TRUTH = {"-1": 0, "0": 0, "1": 1}

Row: TypeAlias = "tuple[int, list[str]]"
"""The number of a line, and its values."""


@dataclass(frozen=True)
class AttributeTable:
    """The attributes of images."""

    path: Path  # the file they were read from
    files: Sequence[str]  # names of the images, in its order
    names: Sequence[str]  # names of the attributes
    holds: np.ndarray  # whether an image has an attribute, ``[N,A]``


def read_attributes(path: Path) -> AttributeTable:
    """Reads ``list_attr_celeba``: every image's value of every attribute, 1 for yes and -1 or 0 for no."""
    rows = _rows(path)
    declared, names = _header(path, rows)
    seen: dict[str, int] = {}
    holds = []
    for line, (file, *values) in rows:
        if len(values) != len(names):
            raise InputError(
                f"{path} line {line} has {counted(len(values), 'value')} for {counted(len(names), 'attribute')}; fetch it again"
            )
        try:
            holds.append(bytes(map(_TRUTH.__getitem__, values)))
        except KeyError as error:
            wrong = names[values.index(error.args[0])]
            raise InputError(
                f"{path} line {line}: {wrong} is {error.args[0]!r}, neither 1 nor -1; fetch it again"
            ) from None
        _note(path, seen, file, line)
    if declared not in (None, len(seen)):
        raise InputError(
            f"{path} line 1 says {counted(declared or 0, 'image')}, and there are {len(seen)}; fetch it again or correct line 1"
        )
    table = np.frombuffer(b"".join(holds), dtype=np.bool_).reshape(len(seen), len(names))
    return AttributeTable(path, list(seen), names, table)


def read_partition(path: Path) -> dict[str, int]:
    """Reads ``list_eval_partition``: the official split of every image, by its name: 0 train, 1 val, 2 test."""
    rows = _rows(path)
    if path.suffix == ".csv":
        next(rows, None)  # names of columns
    seen: dict[str, int] = {}
    parts = []
    for line, (file, *values) in rows:
        if len(values) != 1 or values[0] not in ("0", "1", "2"):
            raise InputError(
                f"{path} line {line}: the split is {' '.join(values)!r}, neither 0 nor 1 nor 2; fetch it again"
            )
        _note(path, seen, file, line)
        parts.append(int(values[0]))
    return dict(zip(seen, parts, strict=True))


def _rows(path: Path) -> Iterator[Row]:
    """Yields the lines that are not blank, split at commas or at runs of spaces."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                reader = csv.reader(file, skipinitialspace=True)
                yield from ((reader.line_num, row) for row in reader if any(row))
            else:
                split = (line.split() for line in file)
                yield from ((number, row) for number, row in enumerate(split, 1) if row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}; fetch it again") from error


def _header(path: Path, rows: Iterator[Row]) -> tuple[int | None, list[str]]:
    """Returns the number of images that follow, if the first line says it, and the names of the attributes."""
    declared = None
    if path.suffix == ".txt":
        line, values = next(rows, (1, [""]))
        try:
            (declared,) = map(int, values)
        except ValueError:
            raise InputError(
                f"{path} line {line} must be the number of images, not {' '.join(values)[:40]!r}; fetch it again"
            ) from None
    line, names = next(rows, (1, []))
    names = names if path.suffix == ".txt" else names[1:]
    if not names:
        raise InputError(f"{path} line {line} names no attribute; fetch it again")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"{path} line {line} names the attribute {twice[0]} twice; fetch it again")
    return declared, names


def _note(path: Path, seen: dict[str, int], file: str, line: int) -> None:
    """Remembers the line of an image, and refuses a second one."""
    if seen.setdefault(file, line) != line:
        raise InputError(f"{path} line {line}: {file} is in line {seen[file]} already; keep one of them")
