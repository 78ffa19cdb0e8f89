"""Finds the files that users name, and those in named folders, in the same way for every command and dataset."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from igm_cli.core.files import DESCRIPTION, file_hash, home_expanded
from igm_cli.errors import InputError, UsageError, cause
from igm_cli.imaging import is_drawn

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".apng", ".jpe", ".jfif", ".mpo", ".dib",
    ".pbm", ".pgm", ".ppm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpx", ".avif",
)  # fmt: skip
"""Suffixes searched for in folders; a file named on the command line may have any suffix."""

NOT_READ = (
    ".heic", ".heif", ".jxl", ".psd", ".tga", ".ico", ".icns", ".svg", ".eps", ".ps", ".pdf", ".exr", ".hdr", ".dng",
    ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".dcm", ".nii", ".czi", ".lif", ".nd2", ".svs", ".xcf",
    ".pcx", ".qoi", ".sgi", ".fits", ".fit",
)  # fmt: skip
"""Suffixes of images that igm does not read; those in a folder are counted."""


TABLES = (
    ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xml", ".txt", ".yaml", ".yml", ".toml", ".parquet", ".arrow",
    ".npy", ".npz", ".safetensors", ".pt", ".mat", ".h5", ".hdf5", ".zip", ".tar",
)  # fmt: skip
"""Suffixes of files that hold annotations, or data other than images."""

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""Suffixes of videos; their frames are read where the user says which."""

STDIN = "-"
"""How users name the image on standard input."""

ADDRESS = re.compile(r"https?://", re.IGNORECASE)
"""Matches addresses, which igm fetches only if a user types them, never because a file names them."""

RESULT = b'{"schema": "igm.'
"""The beginning of every line of a results file."""

HEAD, MOST_READ = 4096, 1 << 26
"""Bytes of a file that tell it from others, and size of the largest table that is read whole for this."""

LONGEST_PATH = 255
"""Most characters of an option that may be a path: systems refuse to look for a longer name."""

_LONGEST_STEM = 100

_AGAIN = "link to a folder that is read already"
_DRAWN = "overlay, map or sheet of igm"
_PLURAL = {
    _AGAIN: "links to folders that are read already",
    _DRAWN: "overlays, maps or sheets of igm",
    "pipe or device": "pipes or devices",
}


@dataclass(frozen=True)
class Walked:
    """The files of a folder."""

    files: list[str]  # paths of the files in the folder, with ``/`` between folders
    left_out: str  # a sentence about what was skipped; empty if nothing was


@dataclass(frozen=True)
class Source:
    """An input that a user names."""

    name: str  # its name in records and messages: a path, an address, or ``-``
    path: Path | None  # the file; None for an address or standard input

    @classmethod
    def of(cls, path: Path) -> Source:
        """Returns a file as an input."""
        return cls(str(path), path)

    @property
    def is_video(self) -> bool:
        """Whether its name has the suffix of a video."""
        return self._written.suffix.lower() in VIDEOS

    @property
    def stem(self) -> str:
        """The file name for pictures of it, without suffix."""
        return "stdin" if self.name == STDIN else self._written.stem[:_LONGEST_STEM] or "image"

    def end(self, parts: int) -> str:
        """Returns the last ``parts`` of its path as a name: the file with its suffix, or without it after some of its folders."""
        path = self._written
        *folders, name = [p for p in path.parts[-parts:] if p not in (path.anchor, "..")] or ["image"]
        return "-".join((*folders, path.stem))[-_LONGEST_STEM:] if folders else name[-_LONGEST_STEM:]

    @property
    def _written(self) -> PurePosixPath | Path:
        if self.path is not None or self.name == STDIN:
            return self.path or Path(self.name)
        from urllib.parse import urlsplit

        try:
            return PurePosixPath(urlsplit(self.name).path)
        except ValueError:  # reported when it is fetched
            return PurePosixPath()


def walk(
    folder: Path, suffixes: Sequence[str] = SUFFIXES, *, any_name: bool = False, drawn: bool = True
) -> Walked:
    """Returns the files with given suffixes at any depth of a folder, without opening any.

    Links to folders are followed, but to no folder twice, so a loop ends.  Hidden files and folders, among them what macOS
    and Jupyter leave behind (``._photo.png``, ``__MACOSX``, ``.ipynb_checkpoints``), are skipped.  The suffixes are in lower
    case and match any case; ``any_name`` allows names that UTF-8 cannot encode.  Without ``drawn``, what igm drew of images
    is skipped as well, for which the beginning of every image is read.

    Raises:
        InputError: If a folder may not be read, or a name cannot be encoded in UTF-8.
    """

    def refuse(error: OSError) -> NoReturn:
        raise InputError(
            f"{error.filename} may not be read ({cause(error)}); change its permissions"
        ) from error

    files: list[str] = []
    passed: Counter[str] = Counter()
    seen = {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        passed["hidden folder"] += sum(not _visible(name) for name in folders)
        visible = sorted(filter(_visible, folders))
        targets = {os.path.realpath(Path(parent, name)): name for name in visible[::-1]}
        folders[:] = sorted(name for target, name in targets.items() if target not in seen)
        passed[_AGAIN] += len(visible) - len(folders)
        seen.update(targets)
        for name in names:
            suffix = Path(name).suffix.lower()
            if suffix in suffixes and _visible(name):
                path = Path(parent, name)
                written = path.relative_to(folder).as_posix()
                if not any_name and any("\ud800" <= character <= "\udfff" for character in written):
                    raise InputError(f"{folder} has a file {written!r} whose name is not in UTF-8; rename it")
                if path.is_file():
                    if drawn or not is_drawn(path):
                        files.append(written)
                    else:
                        passed[_DRAWN] += 1
                else:
                    passed["broken link" if path.is_symlink() else "pipe or device"] += 1
            elif suffix in SUFFIXES and not _visible(name):
                passed["hidden file"] += 1
            elif suffix in (*NOT_READ, *VIDEOS) and _visible(name):
                passed[f"{suffix} file"] += 1
    return Walked(files, _sentence(folder, passed))


def content_of(root: Path, *without: Path) -> str:
    """Returns a fingerprint of the images and tables in a folder: their names, sizes and contents.

    Of an image, only the first bytes are read.  Hidden files are left out, as are the folders ``without``, and what igm
    wrote: results, and the folders of a benchmark or a model.
    """
    digest = hashlib.sha256()
    files = [Path(name) for name in walk(root, SUFFIXES + TABLES, any_name=True).files]
    ours = {path.parent for path in files if path.name in ("benchmark.json", DESCRIPTION)} - {Path()}
    home, others = root.resolve(), [folder.resolve() for folder in without]
    ours |= {folder.relative_to(home) for folder in others if folder.is_relative_to(home)}
    for path in sorted(each for each in files if ours.isdisjoint(each.parents)):
        size = (root / path).stat().st_size
        whole = path.suffix.lower() not in SUFFIXES and size <= MOST_READ
        with (root / path).open("rb") as file:
            content = file.read() if whole else file.read(HEAD)
        if not content.startswith(RESULT):
            digest.update(f"{path.as_posix()} {size} ".encode(errors="surrogateescape") + content)
    return digest.hexdigest()[:8]


def option_identity(value: object) -> str:
    """Returns the value of an option as identities hold it: a file by its name, a folder by its name and content."""
    path = home_expanded(text := str(value))
    if not text or len(text) > LONGEST_PATH or not path.exists():
        return text
    if path.is_file():
        return path.name
    # Of large files, the content of the folder is the beginning.
    weights = file_hash(*sorted(path.glob("*.safetensors")))
    return f"{path.absolute().name}-{content_of(path)}-{weights[:8]}"


def expand_inputs(
    inputs: Sequence[str],
    suffixes: Sequence[str] = SUFFIXES,
    noun: str = "image",
    note: Callable[[str], None] = lambda text: None,
    *,
    anywhere: bool = False,
) -> list[Source]:
    """Expands files, folders (searched in depth), patterns and addresses, sorted within each, without duplicates.

    Folders are searched for files with the ``suffixes``; ``note`` receives a sentence about what was skipped.  With
    ``anywhere``, http and https addresses, and ``-`` for standard input, are inputs as well.

    Raises:
        InputError: If a folder or a pattern yields nothing, or there is no input at all.
        UsageError: If a video is named where ``suffixes`` has none, or something else than a path where only these are read.
    """
    found: dict[str, Source] = {}
    for text in inputs:
        if text == STDIN or ADDRESS.match(text):
            if anywhere:
                found.setdefault(text, Source(text, None))
                continue
            if not Path(text).exists():
                raise UsageError(f"{text} names no {noun}; save what comes from there, and name the file")
        if not text.strip():
            raise InputError(f"a path is empty; name a file, a folder or a pattern of {noun}s")
        if "\0" in text:
            raise InputError(f"no path holds a zero byte, as {text!r} does; check the path")
        path = home_expanded(text)
        if path.is_dir():
            walked = walk(path, suffixes, any_name=True, drawn=False)  # one bad name does not stop the others
            files = sorted(path / name for name in walked.files)
            if not files:
                also = f" ({walked.left_out})" if walked.left_out else ""
                more = f" or other {noun}" * (len(suffixes) > 4)
                raise InputError(
                    f"{path} holds no {noun}{also}; give a folder with {', '.join(suffixes[:4])}{more} files"
                )
            if walked.left_out:
                note(walked.left_out)
        elif not path.exists() and glob.has_magic(text):
            matches = (Path(m) for m in sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207
            files = [f for f in matches if f.is_file()]
            if not files:
                raise InputError(f"no file matches {text}; check the pattern")
        else:
            files = [path]
        for file in files:
            named = file.absolute() if str(file) == STDIN else file
            found.setdefault(str(file.absolute()), Source.of(named))
    if not found:
        raise InputError(f"no {noun} given; name a file, a folder or a pattern")
    if anywhere and not set(VIDEOS) & set(suffixes):
        for source in found.values():
            if source.is_video:
                raise UsageError(f"{source.name} is a video; add --every N to look at each Nth of its frames")
    return list(found.values())


def inside(folder: Path, written: str, where: str) -> Path:
    """Returns the path of a file that an annotation names relative to a folder.

    Raises:
        InputError: If it leads out of the folder; the message names ``where`` it was written.
    """
    path = Path(os.path.normpath(folder / written))
    if "\0" in written or folder.absolute() not in path.absolute().parents:
        raise InputError(f"{where} names {written[:80]!r}, which is not a file in {folder}; correct it")
    return path


def _sentence(folder: Path, passed: Counter[str]) -> str:
    told = [
        f"{count} {what if count == 1 else _PLURAL.get(what, f'{what}s')}"
        for what, count in sorted((+passed).items())
    ]
    return f"left out of {folder}: {', '.join(told)}" if told else ""


def _visible(name: str) -> bool:
    """Returns whether a file is not one that file managers, archives and notebooks leave behind."""
    return not name.startswith(".") and name != "__MACOSX"
