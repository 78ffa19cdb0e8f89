"""The output of all annotation readers: the objects of one image, and the problems found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree import ElementTree

from igm_cli.errors import InputError, counted, kind_and_message

Point: TypeAlias = tuple[float, float]

UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, SyntaxError, RecursionError, OSError)
"""Exceptions from reading a broken file; ``SyntaxError`` comes from XML."""

KINDS: Mapping[str, tuple[str, str]] = {
    "unreadable": ("annotation", " that cannot be read"),
    "line": ("line", " left out of a table"),
    "unlisted": ("annotation", " of images that its file does not list"),
    "missing": ("annotation", " of images that are not there"),
    "bare": ("image", " without annotation"),
    "broken": ("image", " that cannot be opened"),
    "resized": ("image", " of another size than annotated"),
    "empty": ("image", " annotated as empty"),
    "twice": ("image", " annotated more than once"),
    "unplaced": ("image", " in no split"),
    "unnamed": ("object", " of classes without a name"),
    "unknown": ("object", " of shapes without an area"),
    "flat": ("object", " without an area"),
    "outside": ("object", " outside of the image"),
    "identical": ("object", " annotated more than once"),
    "crowd": ("crowd", " taken as a region to ignore"),
}
"""Kinds of problems, and the nouns that count them."""

SHOWN = 3
"""Files reported per kind; the others are counted."""


@dataclass(frozen=True)
class Object:
    """One object, in the units of its annotation: pixels, unless that gives another size of the image."""

    x: float  # its centre
    y: float
    label: str = ""
    box: Point | None = None  # width and height
    attributes: Mapping[str, str] = field(default_factory=dict)
    crowd: bool = False  # whether it is a region of objects that are not annotated one by one


@dataclass(frozen=True)
class Annotation:
    """The objects of an image in one file."""

    image: str  # its path in the folder
    objects: Sequence[Object] | None  # None if they cannot be read
    source: str = ""  # path of the file in the folder
    size: Point | None = None  # width and height of the image in the units of its objects; None in pixels


def boxed(left: float, top: float, right: float, bottom: float, label: str = "", **more: Any) -> Object:
    """Returns the object in a box."""
    return Object((left + right) / 2, (top + bottom) / 2, label, (right - left, bottom - top), **more)


def outlined(points: Sequence[Point], label: str = "", **more: Any) -> Object:
    """Returns the object in a polygon: its centre is the polygon's centroid, its box encloses it."""
    (xs, ys), following = zip(*points, strict=True), [*points[1:], points[0]]
    cross = [x * v - u * y for (x, y), (u, v) in zip(points, following, strict=True)]
    width, height, area = max(xs) - min(xs), max(ys) - min(ys), sum(cross) / 2
    if abs(area) <= 1e-9 * width * height:  # its points lie on a line
        return Object((max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2, label, (0.0, 0.0), **more)
    sums = (sum((p[i] + q[i]) * c for p, q, c in zip(points, following, cross, strict=True)) for i in (0, 1))
    x, y = (total / (6 * area) for total in sums)
    return Object(x, y, label, (width, height), **more)


def middle(points: Sequence[Point], label: str = "", **more: Any) -> Object:
    """Returns the object at the mean of its points."""
    xs, ys = zip(*points, strict=True)
    return Object(sum(xs) / len(xs), sum(ys) / len(ys), label, **more)


def number(value: Any) -> float:
    """Returns a finite number; raises a ValueError for anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{str(value)[:40]!r} is not a number")
    return found


def pairs(values: Sequence[Any]) -> list[Point]:
    """Returns ``x, y, x, y, ...`` as points."""
    if len(values) % 2:
        raise ValueError(f"{counted(len(values), 'coordinate')} cannot be pairs of x and y")
    found = [number(value) for value in values]
    return list(zip(found[::2], found[1::2], strict=True))


class Findings:
    """Problems of a folder: one sentence for each of the first files, and counts of all."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, tuple[str, list[int]]]] = {}

    def add(self, kind: str, file: str, says: str, count: int = 1) -> None:
        """Adds a problem of a file; of several of one kind only the first is reported, and 0 is not counted."""
        counts = self._found.setdefault(kind, {}).setdefault(file, (says, []))[1]
        counts += [count] * (count > 0)

    @contextmanager
    def reading(self, path: Path, file: str, kept: str = "its image is left out") -> Iterator[None]:
        """Turns the exception of a broken file into a finding."""
        try:
            yield
        except InputError as error:
            self.add("unreadable", file, str(error).removeprefix(f"{path} "))
        except UNREADABLE as error:
            self.add("unreadable", file, f"cannot be read, {kept}; correct or remove it ({told(error)})")

    def sentences(self) -> list[str]:
        """Returns the sentences to report, without the counts."""
        return [
            f"{file}: {says}{f' (and {len(counts) - 1} more like it)' if len(counts) > 1 else ''}"
            for kind in KINDS
            for file, (says, counts) in list(self._found.get(kind, {}).items())[:SHOWN]
        ]

    def counts(self) -> str:
        """Returns the number of findings of every kind, in one phrase; empty if there are none."""
        return ", ".join(counted(self.count(kind), *nouns) for kind, nouns in KINDS.items() if self.count(kind))

    def count(self, kind: str) -> int:
        """Returns the number of findings of a kind."""
        return sum(sum(counts) for _, counts in self._found.get(kind, {}).values())


def told(error: BaseException) -> str:
    """Returns a broken file's exception in words, if it has any."""
    if isinstance(error, json.JSONDecodeError):
        return f"damaged JSON in line {error.lineno}: {error.msg}" if error.doc.strip() else "it is empty"
    if isinstance(error, ElementTree.ParseError):
        return f"damaged XML in line {error.position[0]}: {str(error).partition(':')[0]}"
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    if isinstance(error, TypeError | AttributeError | IndexError):
        return "it is not laid out like this format"
    plain = type(error) is ValueError and str(error)
    return str(error) if plain else kind_and_message(error)
