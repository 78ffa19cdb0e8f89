"""One text file per image, with a line ``x y`` or ``x y class`` in pixels per object."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from igm_cli.plugins.objects.annotations import Annotation, Findings, Object, number
from igm_cli.plugins.objects.layout import Folder
from igm_cli.plugins.objects.yolo import Classes, line_by_line

WHAT = 'points (.txt for each image, with lines "x y" or "x y class")'
SUFFIXES = (".txt",)
PER_IMAGE = True
_LINE = re.compile(r"\s*(-?[\d.]+)(?:\s*[,;]\s*|\s+)(-?[\d.]+)(?:(?:\s*[,;]\s*|\s+)(\S+))?\s*")


def claims(ends: str) -> bool:
    """Returns whether the beginning of a file is such a line."""
    return _LINE.fullmatch(ends.strip().partition("\n")[0]) is not None


def read(folder: Folder, files: Sequence[str], findings: Findings) -> Iterator[Annotation]:
    """Yields the annotation of every file."""
    classes = Classes.of(folder, findings)

    def parse(line: str, file: str) -> Object:
        match = _LINE.fullmatch(line)
        if not match:
            raise ValueError(f'{line.strip()[:40]!r} is not "x y" or "x y class" with numbers in pixels')
        x, y, name = match.groups()
        return Object(number(x), number(y), classes.label(name, file) if name else "")

    return line_by_line(folder, files, parse, findings)
