"""The images in a folder, and the ones that a table means."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath

from igm_cli.errors import InputError
from igm_cli.folders import SUFFIXES, walk

PICTURES_INSIDE = (
    "holds pictures, which are not read from inside a table; write each to a file of its own, and their names and labels to "
    "a metadata.jsonl or labels.csv beside them"
)


class ImageFiles:
    """Images at any depth of a folder; none is opened, and hidden files and folders are skipped.

    ``names`` are their paths with ``/`` between folders, in the same order on every machine.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        walked = walk(folder)
        self.left_out = walked.left_out  # a sentence about it
        # Some machines split letters and accents in names; this must not change their order.
        self.names = sorted(walked.files, key=lambda name: (unicodedata.normalize("NFC", name), name))
        if not self.names and (tables := walk(folder, [".parquet"]).files):
            raise InputError(f"{folder / tables[0]} {PICTURES_INSIDE}")
        if not self.names:
            raise InputError(f"{folder} holds no image; give a folder with {', '.join(SUFFIXES[:4])} files")
        self._present = frozenset(self.names)
        self._alike: dict[str, list[str]] = {}  # ways to write an image's path to all images meant
        for name in self.names:
            for key in {comparable(name), comparable(name.rpartition("/")[2])}:
                self._alike.setdefault(key, []).append(name)

    def find(self, written: str) -> str:
        """Returns the image that a table means.

        A path may have backslashes, another case, or no folders if no other image has the name.
        """
        path = PurePosixPath(written.strip().replace("\\", "/")).as_posix()
        for name in (written, path):
            if name in self._present:
                return name
        alike = self._alike.get(comparable(path), [])
        if len(alike) > 1:
            raise InputError(f"{written} may be {alike[0]} or {alike[1]}; write it with its folder")
        if not alike:
            raise InputError(
                f"there is no image {written} in {self.folder}; write its path in that folder, add it or remove the line"
            )
        return alike[0]


def comparable(path: str) -> str:
    """Returns a path as it is compared: in one case, and composed, as some machines split letters and accents."""
    return unicodedata.normalize("NFC", path.casefold())
