"""The images in a folder, and which of them a table means."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NoReturn

from igm_cli.errors import InputError
from igm_cli.imaging import SUFFIXES


class ImageFiles:
    """Images at any depth of a folder; none is opened, and hidden files and folders are passed over.

    ``names`` are their paths with ``/`` between folders, in an order that is the same on every machine.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Some machines take names apart into letters and accents: this must not change their order.
        self.names = sorted(walk(folder), key=lambda name: (unicodedata.normalize("NFC", name), name))
        if not self.names:
            raise InputError(f"{folder} holds no image; give a folder with {', '.join(SUFFIXES[:4])} files")
        self._present = frozenset(self.names)
        self._alike: dict[str, list[str]] = {}  # ways to write the path of an image to all it may be
        for name in self.names:
            for key in {_key(name), _key(name.rpartition("/")[2])}:
                self._alike.setdefault(key, []).append(name)

    def find(self, written: str) -> str:
        """Returns the image that a table means.

        A path may be written with backslashes, in another case, or without its folders if no other image has the name.
        """
        path = PurePosixPath(written.strip().replace("\\", "/")).as_posix()
        for name in (written, path):
            if name in self._present:
                return name
        alike = self._alike.get(_key(path), [])
        if len(alike) > 1:
            raise InputError(f"{written} may be {alike[0]} or {alike[1]}; write it with its folder")
        if not alike:
            raise InputError(
                f"there is no image {written} in {self.folder}; write its path in that folder, add it or remove the line"
            )
        return alike[0]


def _key(path: str) -> str:
    return unicodedata.normalize("NFC", path.casefold())


def walk(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> Iterator[str]:
    """Yields paths of images, or of files of other suffixes, in a folder; links to folders are followed, but to no folder twice."""

    def refuse(error: OSError) -> NoReturn:
        raise InputError(
            f"{error.filename} may not be read ({error.strerror}); change its permissions"
        ) from error

    seen = {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        targets = {
            os.path.realpath(Path(parent, name)): name for name in sorted(filter(_visible, folders))[::-1]
        }
        folders[:] = sorted(name for target, name in targets.items() if target not in seen)
        seen.update(targets)
        for name in filter(_visible, names):
            if Path(name).suffix.lower() in suffixes:
                path = Path(parent, name).relative_to(folder).as_posix()
                if any("\ud800" <= character <= "\udfff" for character in path):  # what UTF-8 cannot hold
                    raise InputError(f"{folder} has a file {path!r} whose name is not in UTF-8; rename it")
                yield path


def _visible(name: str) -> bool:
    """Returns whether a file is none of those that file managers and archives leave behind."""
    return not name.startswith(".") and name != "__MACOSX"
