"""YOLO's text, one file per image: lines ``class x y width height``, or outlines, in fractions of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from igm_cli.plugins.objects.annotations import (
    Annotation,
    Findings,
    Object,
    boxed,
    middle,
    number,
    outlined,
    pairs,
)
from igm_cli.plugins.objects.layout import Folder
from igm_cli.plugins.pictures.tables import text_of

WHAT = "YOLO (.txt for each image, with lines of a class and numbers in 0..1)"
SUFFIXES = (".txt",)
PER_IMAGE = True


def claims(ends: str) -> bool:
    """Returns whether the beginning of a file is such a line."""
    first, *numbers = ends.strip().partition("\n")[0].split() or [""]
    try:
        return first.isdecimal() and len(numbers) >= 4 and all(abs(number(each)) <= 1.5 for each in numbers)
    except ValueError:
        return False


def read(folder: Folder, files: Sequence[str], findings: Findings) -> Iterator[Annotation]:
    """Yields the annotation of every file."""
    classes = Classes.of(folder, findings)

    def parse(line: str, file: str) -> Object:
        first, *numbers = line.split()
        if not first.isdecimal():
            raise ValueError(f"{first[:40]!r} is not the number of a class")
        return to_object(classes.label(first, file), numbers, classes.keypoints)

    return line_by_line(folder, files, parse, findings, (1.0, 1.0))


def line_by_line(
    folder: Folder,
    files: Sequence[str],
    parse: Callable[[str, str], Object],
    findings: Findings,
    size: tuple[float, float] | None = None,
) -> Iterator[Annotation]:
    """Yields the annotations of files with one line per object; ``size`` is that of images in the lines' units."""

    def parse_file(file: str) -> Annotation:
        objects = []
        for row, line in enumerate(text_of(folder.root / file).splitlines(), 1):
            if line.strip():
                try:
                    objects.append(parse(line, file))
                except ValueError as error:
                    raise ValueError(f"line {row}: {error}") from error
        return Annotation("", objects, file, size)

    return folder.one_by_one(files, parse_file, findings)


def to_object(label: str, numbers: Sequence[str], keypoints: tuple[int, int] | None = None) -> Object:
    """Returns the object of a line.

    Args:
        label: Name of its class.
        numbers: What follows the class: a box, perhaps with a confidence at its end; a box and keypoints; or an outline.
        keypoints: How many there are, and how many numbers each has (the third is 0 for one not labelled), if any.
    """
    if keypoints and len(numbers) == 4 + keypoints[0] * keypoints[1]:
        points = [numbers[i : i + keypoints[1]] for i in range(4, len(numbers), keypoints[1])]
        visible = [pairs(point[:2])[0] for point in points if len(point) < 3 or number(point[2])]
        if visible:
            return middle(visible, label)
        numbers = numbers[:4]
    if len(numbers) in (4, 5):
        x, y, width, height = map(number, numbers[:4])
        return boxed(x - width / 2, y - height / 2, x + width / 2, y + height / 2, label)
    if len(numbers) < 6:
        raise ValueError(f"a box has 4 numbers and an outline 6 or more, not {len(numbers)}")
    return outlined(pairs(numbers), label)


@dataclass(frozen=True)
class Classes:
    """Names of numbered classes: ``names`` of a ``data.yaml``, or the lines of ``classes.txt`` or ``obj.names``."""

    names: Mapping[str, str]
    findings: Findings
    keypoints: tuple[int, int] | None = None

    @classmethod
    def of(cls, folder: Folder, findings: Findings) -> Classes:
        """Reads the first of these files in a folder that names classes."""
        for file in sorted(folder.others, key=lambda file: (file.count("/"), file)):
            path = PurePosixPath(file)
            listed = path.name.lower() == "classes.txt" or path.suffix.lower() == ".names"
            if not listed and path.suffix.lower() not in (".yaml", ".yml"):
                continue
            with findings.reading(folder.root / file, file, "its names of classes are left out"):
                text = text_of(folder.root / file)
                table = {"names": text.splitlines()} if listed else _yaml(text)
                names = table.get("names")
                if names and isinstance(names, list | dict):
                    rows = names.items() if isinstance(names, dict) else enumerate(names)
                    count, *each = table.get("kpt_shape") or [0]
                    points = (int(count), int(each[0])) if each in (["2"], ["3"]) else None
                    return cls({str(k): v.strip() for k, v in rows if v.strip()}, findings, points)
        return cls({}, findings)

    def label(self, written: str, file: str) -> str:
        """Returns the name of a class; a name, or a number without one, stands for itself."""
        key = str(int(written)) if written.isdecimal() else written
        if key in self.names or not written.isdecimal():
            return self.names.get(key, written)
        if self.names:
            self.findings.add("unnamed", file, f"class {key} has no name, and its number is the label")
        else:
            says = "there is none, so classes have no names, and their numbers are the labels"
            self.findings.add("unnamed", "classes.txt", says, 0)
        return key


def _yaml(text: str) -> dict[str, Any]:
    """Returns a table in YAML, with every name and number as text, so that a class may be called no."""
    import yaml  # type: ignore[import-untyped]

    try:
        found = yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error
    return found if isinstance(found, dict) else {}
