"""What is left of a run over images: results kept line by line, and pictures."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from igm_cli.errors import IgmError, InputError, UsageError
from igm_cli.imaging import SUFFIXES
from igm_cli.output import json_line, process_rank


class ResultFile:
    """A JSON-lines file that a run adds to, one whole line at a time.

    A line cut short by a crash is dropped; its item is done again.  With several processes each
    adds to a file of its own beside it, and :meth:`merge` joins them.

    Args:
        path: Of the file.
        schema: Of its lines.
        run: Fingerprint that every line must carry.
        key: Fields that together name what a line is about.

    Attributes:
        done: Lines by what they are about, the fields joined by spaces.

    Raises:
        InputError: If the file holds something else.
    """

    def __init__(self, path: Path, schema: str, run: str, key: Sequence[str] = ("image",)) -> None:
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file in it, such as {path}/results.jsonl")
        self.path, self.schema, self.run, self.key = path, schema, run, tuple(key)
        rank, world = process_rank()
        self._own = path if world == 1 else _share(path, rank)
        self.done: dict[str, dict[str, Any]] = {}
        for part in [path, *_shares(path)]:
            for line in self._read(part, repair=part == self._own):
                self.done[self.about(line)] = line
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = os.open(self._own, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(
                f"cannot write {path} ({(error.strerror or str(error)).lower()}); choose another file"
            ) from error

    def add(self, record: Mapping[str, Any]) -> None:
        """Appends a line, in one write."""
        data = (json_line(record) + "\n").encode()
        end = os.fstat(self._file).st_size
        written = os.write(self._file, data)
        if written < len(data):  # a full disk: take the piece back, so that only whole lines stay
            os.ftruncate(self._file, end)
            raise InputError(f"{self.path} cannot grow, the disk is full; free some space and run it again")
        self.done[self.about(record)] = dict(record)

    def about(self, line: Mapping[str, Any]) -> str:
        """What a line is about."""
        return " ".join(str(line[name]) for name in self.key)

    def merge(self, images: Sequence[str]) -> None:
        """Joins the files of all processes into one, in the order of the images.

        Lines about other images stay in front, as they were.
        """
        from igm_cli.core.files import write_atomically

        shares = _shares(self.path)
        if not shares:
            return
        lines: dict[str, dict[str, Any]] = {}
        for part in [self.path, *shares]:
            for line in self._read(part, repair=False):
                lines[self.about(line)] = line
        asked = set(images)
        order = [*(i for i in lines if i not in asked), *(i for i in images if i in lines)]
        text = "".join(json_line(lines[image]) + "\n" for image in order)
        write_atomically(self.path, lambda path: path.write_text(text, encoding="utf-8"))
        for part in shares:
            part.unlink()
        self.done = lines

    def _read(self, path: Path, repair: bool) -> list[dict[str, Any]]:
        if not path.is_file():
            return []
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if repair and len(whole) < len(data):
            os.truncate(path, len(whole))
        return [
            self._parse(line, path) for line in whole.decode("utf-8", "replace").splitlines() if line.strip()
        ]

    def _parse(self, text: str, path: Path) -> dict[str, Any]:
        way_out = "choose another file"
        try:
            line = json.loads(text)
            about, schema, run = [line[name] for name in self.key], line["schema"], line["run"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} holds lines that are no results of igm; {way_out}") from error
        if schema != self.schema or run != self.run or not all(isinstance(name, str | int) for name in about):
            raise InputError(
                f"{path} holds results of another model or other options; {way_out} or use those again"
            )
        return dict(line)


def open_results(
    path: Path | None, schema: str, run: str, key: Sequence[str] = ("image",)
) -> ResultFile | None:
    """The file of ``--output``; None if results are not kept."""
    return ResultFile(path.expanduser(), schema, run, key) if path else None


def _share(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.name}.rank{rank}")


def _shares(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{glob.escape(path.name)}.rank*"))


def picture_targets(paths: Sequence[Path], target: Path | None, option: str) -> dict[str, Path]:
    """Where the picture of each image goes: the file itself for one image, into a folder for several.

    Args:
        paths: Images.
        target: As given.
        option: Name of the option, for messages.

    Raises:
        UsageError: If it is a file for several images, or an image would be overwritten.
    """
    if target is None:
        return {}
    looks_like_file = target.suffix.lower() in SUFFIXES and not target.is_dir()
    if len(paths) == 1 and looks_like_file:
        targets = {str(paths[0]): target}
    elif looks_like_file:
        raise UsageError(f"{option} {target} is one file for {len(paths)} images; name a folder")
    elif len(paths) == 1 and target.suffix and not target.is_dir():
        raise UsageError(f"{option} cannot write {target.suffix} files; use .png, .jpg or .webp")
    else:
        targets, taken = {}, set()
        for path in paths:
            name, number = f"{path.stem}.png", 2
            while name in taken:
                name, number = f"{path.stem}-{number}.png", number + 1
            taken.add(name)
            targets[str(path)] = target / name
    inputs = {(found.st_dev, found.st_ino): path for path in paths if path.exists() and (found := path.stat())}
    for picture in targets.values():
        if picture.exists() and (image := inputs.get((picture.stat().st_dev, picture.stat().st_ino))):
            raise UsageError(f"{option} would overwrite {image}; choose another path")
    return targets


def save_picture(image: Any, path: Path) -> None:
    """Writes a PIL image atomically in the format its name says."""
    from PIL import Image

    from igm_cli.core.files import write_atomically

    kind = Image.registered_extensions().get(path.suffix.lower(), "PNG")
    try:
        write_atomically(path, lambda temporary: image.save(temporary, format=kind))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise IgmPictureError(f"cannot write {path} ({reason}); choose another path") from error


class IgmPictureError(IgmError):
    """A picture cannot be written: not the fault of one image, so it ends the run."""

    exit_code = 3
