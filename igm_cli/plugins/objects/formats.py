"""Formats of annotations: finds the one in a folder, and its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from igm_cli.errors import InputError, counted
from igm_cli.plugins.adapters import choice
from igm_cli.plugins.objects import coco, labelme, points, table, voc, yolo
from igm_cli.plugins.objects.annotations import told
from igm_cli.plugins.objects.layout import Folder, suffix_of
from igm_cli.plugins.pictures.tables import encoding_of, text_of

FORMATS: Mapping[str, ModuleType] = {
    "coco": coco, "voc": voc, "yolo": yolo, "points": points, "table": table, "labelme": labelme,
}  # fmt: skip
"""Readers: each knows its files by their ends (``claims``), and yields the annotations in them (``read``)."""

_END = 20_000  # bytes by which a format is recognised


def choose(folder: Folder, name: str | None) -> tuple[str, list[str]]:
    """Returns the format of the annotations in a folder and the files that hold them; None finds out.

    Raises:
        UsageError: If the format is unknown.
        InputError: If there are none, or files of several formats.
    """
    known = list(FORMATS) if name is None else [choice("format", name, FORMATS)]
    found = {each: files for each in known if (files := _files(folder, each, only=bool(name)))}
    if len(found) > 1:
        listed = " and ".join(f"{each} ({files[0]})" for each, files in found.items())
        raise InputError(
            f"{folder.root} has annotations in several formats, {listed}; "
            f"choose one with --set data.format={' or --set data.format='.join(found)}"
        )
    if not found:
        have = f"{folder.root} has {counted(len(folder.images), 'image')} and no annotation that igm knows"
        if name:
            raise InputError(f"{have}: {FORMATS[name].WHAT}; add one")
        for file in folder.others:
            may_be = {
                each: reader.WHAT for each, reader in FORMATS.items() if suffix_of(file) in reader.SUFFIXES
            }
            if may_be and not folder.is_list(file):
                _refuse_damaged(folder.root / file, f"{have}: {file} is")
                seen = f"{'neither' if len(may_be) > 1 else 'not'} {' nor '.join(may_be.values())}"
                seen = seen if _ends(folder.root / file).strip() else "empty"
                named = " or ".join(f"--set data.format={each}" for each in may_be)
                way_out = f"correct it, or name the format with {named} to be told what is wrong"
                raise InputError(f"{have}: {file} is {seen}; {way_out}")
        raise InputError(f"{have} ({', '.join(FORMATS)}); add one")
    return next(iter(found.items()))


def _refuse_damaged(path: Path, begin: str) -> None:
    """Raises an :class:`InputError` that begins with ``begin`` if a file of JSON is cut off or otherwise damaged."""
    if suffix_of(path.name) == ".json" and _ends(path).strip():
        try:
            json.loads(text_of(path))
        except json.JSONDecodeError as error:
            raise InputError(f"{begin} {told(error)}; save it again, or correct that line") from error
        except RecursionError:
            pass


def _files(folder: Folder, name: str, only: bool) -> list[str]:
    """Returns the files of a format: those that look like it, and with them those named like images, or empty.

    If only this format is asked for and no file looks like it, all files with its suffix are taken.
    """
    reader = FORMATS[name]
    files = [f for f in folder.others if suffix_of(f) in reader.SUFFIXES and not folder.is_list(f)]
    ends = {file: _ends(folder.root / file) for file in files}
    claimed = {file for file in files if reader.claims(ends[file])}
    if not claimed:
        return files if only else []
    alike = folder.named_like if reader.PER_IMAGE else lambda file: not ends[file].strip()
    return [file for file in files if file in claimed or alike(file)]


def _ends(path: Path) -> str:
    """Returns the beginning and the end of a file, whatever it holds."""
    try:
        with path.open("rb") as file:
            begin = file.read(_END)
            if len(begin) == _END:
                file.seek(-min(_END, path.stat().st_size), 2)
                begin += file.read()
    except OSError:
        return ""
    return begin.decode(encoding_of(begin), errors="replace")
