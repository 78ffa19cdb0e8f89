"""A folder of annotated images: which files are which, which image an annotation means, and in which format."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import ModuleType

from igm_cli.errors import InputError
from igm_cli.imaging import SUFFIXES
from igm_cli.plugins.objects import coco, labelme, points, table, voc, yolo
from igm_cli.plugins.objects.annotations import Annotation, Findings
from igm_cli.plugins.pictures.files import walk

FORMATS: Mapping[str, ModuleType] = {
    "coco": coco, "voc": voc, "yolo": yolo, "points": points, "table": table, "labelme": labelme,
}  # fmt: skip
"""Readers: each knows its files by their ends (``claims``), and yields the annotations in them (``read``)."""

LISTS = {
    "train": "train", "training": "train", "trainval": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of splits, and so of folders and lists of one, to the split that is meant."""

_OTHERS = (".json", ".jsonl", ".xml", ".txt", ".csv", ".tsv", ".yaml", ".yml", ".names")
_MASKS = frozenset(("SegmentationClass", "SegmentationObject"))  # of Pascal VOC: images that are annotations
_END = 20_000  # bytes from which a format is known


class Folder:
    """The files of a folder at any depth, by their paths in it; none is opened here, and hidden ones are passed over.

    Attributes:
        root: The folder.
        images: Images, in an order that is the same on every machine.
        others: Files that may say something about them.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise InputError(f"data root {root} is not a folder; give a folder of images and annotations")
        self.root = root
        files = sorted(walk(root, (*SUFFIXES, *_OTHERS)), key=lambda file: (_plain(file), file))
        self.images = [f for f in files if _suffix(f) in SUFFIXES and _MASKS.isdisjoint(f.split("/"))]
        self.others = [file for file in files if _suffix(file) in _OTHERS]
        if not self.images:
            raise InputError(f"{root} holds no image; give a folder with {', '.join(SUFFIXES[:4])} files")
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for file in self.images:
            self._by_stem[_parts(file)[-1]].append(file)

    def find(self, written: str, near: str) -> str | None:
        """Returns the image that an annotation means; None if there is none.

        Its path may be written with folders of another machine or none, in another case, or without its suffix.  Of
        several images of the name, the one whose folders are most like those written, then like those of ``near``.

        Raises:
            InputError: If it may be one of several.
        """
        path = written.strip().replace("\\", "/")
        *folders, name = _parts(path)
        beside = set(_plain(near).split("/")[:-1])

        def likeness(file: str) -> tuple[int, bool, int, int]:
            own, same = _parts(file)[:-1], 0
            while same < min(len(own), len(folders)) and own[-1 - same] == folders[-1 - same]:
                same += 1
            alike = beside.intersection(own)
            exact = _plain(file.rpartition("/")[2]) == _plain(path.rpartition("/")[2])
            return same, exact, len(alike), len(alike) - len(own)

        best = sorted(self._by_stem.get(name, ()), key=likeness, reverse=True)
        if len(best) > 1 and likeness(best[0]) == likeness(best[1]):
            raise InputError(f"{written} may be {best[0]} or {best[1]}; rename one of them, or take it out")
        return best[0] if best else None

    def image(self, written: str, source: str, findings: Findings) -> str | None:
        """Returns what :meth:`find` does; None is told as a finding about the annotation's file."""
        try:
            image = self.find(written, source)
        except InputError as error:
            findings.add("unreadable", source, str(error))
            return None
        if image is None:
            findings.add("missing", source, f"there is no image {written}; add it or remove its annotation")
        return image

    def one_by_one(
        self, files: Sequence[str], parse: Callable[[str], Annotation], findings: Findings
    ) -> Iterator[Annotation]:
        """Yields the annotations of files that have one image each: it is named as they are, or as they say."""
        for file in files:
            read = None
            with findings.reading(self.root / file, file):
                read = parse(file)
            with findings.reading(self.root / file, file):
                says = read.image if read else ""
                image = self.find(file[: -len(_suffix(file))] + _suffix(says), file) or self.find(says, file)
                if image is not None:
                    yield replace(read, image=image) if read else Annotation(image, None, file)
                elif read:
                    findings.add("missing", file, "there is no image of its name; add it or remove this file")

    def named_like(self, file: str) -> bool:
        """Returns whether an image has the name of another file, but for the suffix."""
        return _plain(PurePosixPath(file).stem) in self._by_stem

    def annotated_in(self, name: str, only: bool) -> list[str]:
        """Returns the files of a format: those like it, and with them those named like images, or empty.

        Args:
            name: A key of ``FORMATS``.
            only: Whether it was chosen, so that all files of its suffix are taken if none is like it.
        """
        reader = FORMATS[name]
        files = [file for file in self.others if _suffix(file) in reader.SUFFIXES and not self.is_list(file)]
        ends = {file: _ends(self.root / file) for file in files}
        claimed = {file for file in files if reader.claims(ends[file])}
        if not claimed:
            return files if only else []
        alike = self.named_like if reader.PER_IMAGE else lambda file: not ends[file].strip()
        return [file for file in files if file in claimed or alike(file)]

    @staticmethod
    def is_list(file: str) -> bool:
        """Returns whether a file lists the images of a split."""
        return PurePosixPath(file).stem.lower() in LISTS and _suffix(file) == ".txt"

    def choose(self, name: str | None) -> tuple[str, list[str]]:
        """Returns the format of the annotations and the files that hold them; None finds out.

        Raises:
            InputError: If there are none, or files of several formats.
        """
        if name is not None:
            found = {name: self.annotated_in(name, only=True)}
        else:
            found = {each: self.annotated_in(each, only=False) for each in FORMATS}
        found = {each: files for each, files in found.items() if files}
        if len(found) > 1:
            listed = " and ".join(f"{each} ({files[0]})" for each, files in found.items())
            raise InputError(
                f"{self.root} has annotations in several formats, {listed}; "
                f"choose one with --set data.format={next(iter(found))}"
            )
        if not found:
            known = [name] if name else list(FORMATS)
            what = "; ".join(FORMATS[each].WHAT for each in known)
            more = "" if name else ", or name it with --set data.format=... to be told what is wrong in it"
            raise InputError(
                f"{self.root} has {len(self.images)} images and no annotation that igm knows: {what}; add one{more}"
            )
        return next(iter(found.items()))


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
    return begin.decode("utf-8-sig", errors="replace")


def _plain(path: str) -> str:
    return unicodedata.normalize("NFC", path.casefold())


def _suffix(file: str) -> str:
    return PurePosixPath(file).suffix.lower()


def _parts(path: str) -> list[str]:
    """Returns the folders and the name of an image, the latter without its suffix, for comparison."""
    stem = path[: -len(_suffix(path))] if _suffix(path) in SUFFIXES else path
    return [part for part in _plain(stem).split("/") if part not in ("", ".", "..")] or [""]
