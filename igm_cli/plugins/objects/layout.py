"""A folder of annotated images: sorts its files, and finds the image that an annotation means."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from igm_cli.errors import InputError
from igm_cli.folders import SUFFIXES, walk
from igm_cli.plugins.adapters import SPLIT_NAMES
from igm_cli.plugins.objects.annotations import Annotation, Findings
from igm_cli.plugins.pictures.files import comparable

_OTHERS = (".json", ".jsonl", ".xml", ".txt", ".csv", ".tsv", ".yaml", ".yml", ".names")
_MASKS = frozenset(("SegmentationClass", "SegmentationObject"))  # Pascal VOC's images that are annotations


class Folder:
    """The files of a folder at any depth, by their paths in it; none is opened here, and hidden ones are skipped.

    Attributes:
        root: The folder.
        images: Images, in the same order on every machine.
        others: Files that may annotate them.
        left_out: A sentence about skipped files; empty if there are none.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise InputError(f"data root {root} is not a folder; give a folder of images and annotations")
        self.root = root
        walked = walk(root, (*SUFFIXES, *_OTHERS))
        self.left_out = walked.left_out
        files = sorted(walked.files, key=lambda file: (comparable(file), file))
        self.images = [f for f in files if suffix_of(f) in SUFFIXES and _MASKS.isdisjoint(f.split("/"))]
        self.others = [file for file in files if suffix_of(file) in _OTHERS]
        if not self.images:
            raise InputError(f"{root} holds no image; give a folder with {', '.join(SUFFIXES[:4])} files")
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for file in self.images:
            self._by_stem[_parts(file)[-1]].append(file)

    def find(self, written: str, near: str) -> str | None:
        """Returns the image that an annotation means; None if there is none.

        Its path may have another machine's folders or none, another case, or no suffix.  Of several images with the
        name, it is the one whose folders are most like those written, then most like those of ``near``.

        Raises:
            InputError: If several images fit.
        """
        path = written.strip().replace("\\", "/")
        *folders, name = _parts(path)
        beside = set(comparable(near).split("/")[:-1])

        def likeness(file: str) -> tuple[int, bool, int, int]:
            own = _parts(file)[:-1]
            alike = beside.intersection(own)
            exact = comparable(file.rpartition("/")[2]) == comparable(path.rpartition("/")[2])
            return _in_common(own, folders), exact, len(alike), len(alike) - len(own)

        best = sorted(self._by_stem.get(name, ()), key=likeness, reverse=True)
        if len(best) > 1 and likeness(best[0]) == likeness(best[1]):
            raise InputError(f"{written} may be {best[0]} or {best[1]}; rename one of them, or take it out")
        return best[0] if best else None

    def images_of(self, written: Sequence[str], source: str, findings: Findings) -> dict[str, str | None]:
        """Returns the image that each name in one file means; None is reported as a finding about that file.

        If several names would mean one image, only those are taken that are most like its path: ``sub/a.png`` may stand
        for ``a.png`` unless the file also names ``a.png`` itself.
        """
        found: dict[str, str | None] = {}
        for name in dict.fromkeys(written):
            try:
                found[name] = self.find(name, source)
            except InputError as error:
                findings.add("unreadable", source, str(error))
        strays = {name: _strays(name, image) for name, image in found.items() if image}
        least: dict[str | None, tuple[int, bool]] = {}
        for name, stray in strays.items():
            least[found[name]] = min(stray, least.get(found[name], stray))
        for name, count in Counter(written).items():
            if name in found and (name not in strays or strays[name] > least[found[name]]):
                found[name] = None
                says = f"there is no image {name}; add it or remove its annotation"
                findings.add("missing", source, says, count)
        return {name: found.get(name) for name in written}

    def one_by_one(
        self, files: Sequence[str], parse: Callable[[str], Annotation], findings: Findings
    ) -> Iterator[Annotation]:
        """Yields the annotations of files with one image each: the one with their name, or the one they name."""
        for file in files:
            read = None
            with findings.reading(self.root / file, file):
                read = parse(file)
            with findings.reading(self.root / file, file):
                says = read.image if read else ""
                image = self.find(file[: -len(suffix_of(file))] + suffix_of(says), file) or self.find(
                    says, file
                )
                if image is not None:
                    yield replace(read, image=image) if read else Annotation(image, None, file)
                elif read:
                    findings.add("missing", file, "there is no image of its name; add it or remove this file")

    def named_like(self, file: str) -> bool:
        """Returns whether an image has the same name as a file, except for the suffix."""
        return comparable(PurePosixPath(file).stem) in self._by_stem

    @staticmethod
    def is_list(file: str) -> bool:
        """Returns whether a file lists the images of a split."""
        return PurePosixPath(file).stem.lower() in SPLIT_NAMES and suffix_of(file) == ".txt"


def suffix_of(file: str) -> str:
    """Returns the suffix of a file in lower case."""
    return PurePosixPath(file).suffix.lower()


def _in_common(own: Sequence[str], others: Sequence[str]) -> int:
    """Returns the number of innermost folders that two paths have in common."""
    pairs = zip(reversed(own), reversed(others), strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(own), len(others)))


def _strays(written: str, image: str) -> tuple[int, bool]:
    """Returns how a name differs from an image's path: by how many folders that are not the image's, and in its suffix."""
    path = written.strip().replace("\\", "/")
    folders, suffix = _parts(path)[:-1], suffix_of(path)
    another = suffix in SUFFIXES and suffix != suffix_of(image)
    return len(folders) - _in_common(_parts(image)[:-1], folders), another


def _parts(path: str) -> list[str]:
    """Returns the folders and the name, without suffix, of an image for comparison."""
    stem = path[: -len(suffix_of(path))] if suffix_of(path) in SUFFIXES else path
    return [part for part in comparable(stem).split("/") if part not in ("", ".", "..")] or [""]
