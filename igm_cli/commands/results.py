"""Saves results line by line; overwrites only igm's own files."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.core.files import exclusive, telling_unwritable, write_atomically
from igm_cli.errors import InputError, OutputError, UsageError, cause, some
from igm_cli.folders import RESULT
from igm_cli.inputs import what_about
from igm_cli.output import json_line, process_rank

if TYPE_CHECKING:
    from igm_cli.folders import Source


class ResultFile:
    """A JSON-lines file that a run extends by whole lines; a file with anything else in it is refused unchanged.

    A line cut short by a crash is dropped, and its item is done again.  Each of several processes
    adds to a file of its own beside it, and :meth:`merge` joins them.

    Every line must carry ``run``.  The fields ``key`` together identify a line; it may lack all but the first.
    ``differences`` says how a line of another run differs from this run; it is empty if it cannot tell.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        run: str,
        key: Sequence[str] = ("image",),
        differences: Callable[[Mapping[str, Any]], str] = lambda line: "",
    ) -> None:
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file in it, such as {path}/results.jsonl")
        self.path, self.schema, self.run, self.key = path, schema, run, tuple(key)
        self._differences = differences
        rank, world = process_rank()
        self._own = path if world == 1 else _share(path, rank)
        self.done: dict[str, dict[str, Any]] = {}  # lines by their key fields, joined by spaces
        self._text: dict[str, bytes] = {}  # every line as it is in the file
        self._superseded = False
        for part in [path, *_shares(path)]:
            self._take(self._read(part, repair=part == self._own))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        with telling_unwritable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._own, flags, 0o666)

    def add(self, record: Mapping[str, Any]) -> None:
        """Appends a line in one write; it replaces an older one with the same key.

        Raises:
            OutputError: If the disk is full; then no part of the line stays.
        """
        data = (json_line(record) + "\n").encode()
        end = os.fstat(self._file).st_size
        try:
            written, why = os.write(self._file, data), "the disk is full"
        except OSError as error:
            written, why = 0, cause(error)
        if written < len(data):  # remove the partial line
            os.ftruncate(self._file, end)
            raise OutputError(
                f"{self.path} cannot grow ({why}); free some space and run the same command again"
            )
        self._take([(dict(record), data)])

    def close(self) -> None:
        """Ends adding to the file."""
        os.close(self._file)

    def forget(self, about: str) -> None:
        """Drops an invalid line; it is removed from the file when the run ends."""
        self._superseded |= self.done.pop(about, None) is not None

    def about(self, line: Mapping[str, Any]) -> str:
        """Returns the key fields of a line."""
        return what_about(line, self.key)

    def merge(self, order: Sequence[str]) -> None:
        """Joins the files of all processes into one, with one line per item.

        Lines about items that are not in ``order`` stay at the front, unchanged.
        """
        shares = _shares(self.path)
        if not shares and not self._superseded:
            return
        self.done, self._text = {}, {}
        for part in [self.path, *shares]:
            self._take(self._read(part, repair=False))
        asked = set(order)
        about = [*(a for a in self.done if a not in asked), *(a for a in order if a in self.done)]
        content = b"".join(self._text[a] for a in about)
        write_atomically(self.path, lambda path: path.write_bytes(content))
        for part in shares:
            part.unlink()

    def _take(self, lines: Iterable[tuple[dict[str, Any], bytes]]) -> None:
        for line, text in lines:
            about = self.about(line)
            self._superseded |= about in self.done
            self.done[about], self._text[about] = line, text

    def _read(self, path: Path, repair: bool) -> list[tuple[dict[str, Any], bytes]]:
        """Returns the lines of a file, all of which must be igm's; with ``repair``, cuts off an incomplete last line."""
        if not path.is_file():
            return []
        data = path.read_bytes()
        *whole, rest = data.split(b"\n")
        lines = [(self._parse(text, path), text + b"\n") for text in whole]
        if rest[: len(RESULT)] != RESULT[: len(rest)]:
            raise InputError(f"{path} holds lines that are not results of igm; choose another file")
        if repair and rest:
            os.truncate(path, len(data) - len(rest))
        return lines

    def _parse(self, text: bytes, path: Path) -> dict[str, Any]:
        from igm_cli.commands.schemas import is_record

        try:
            line = json.loads(text.decode(), parse_constant=_no_number)
            schema, run = line["schema"], line["run"]
            about = [line[self.key[0]], *(line[name] for name in self.key[1:] if name in line)]
            json_line(line).encode()  # half a surrogate is not text
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path} holds lines that are not results of igm; choose another file") from error
        if schema != self.schema or run != self.run:
            differ = self._differences(line) if schema == self.schema and is_record(line) else ""
            what = f"made with other options ({differ})" if differ else "of another model or other options"
            raise InputError(f"{path} holds results {what}; choose another --output, or use those again")
        if not all(isinstance(name, str | int) for name in about) or not is_record(line):
            raise InputError(
                f"{path} holds results that are damaged; mend or remove it, or choose another file"
            )
        return dict(line)


@contextmanager
def open_results(
    path: Path | None, schema: str, run: str, key: Sequence[str], inputs: Iterable[Path], **options: Any
) -> Iterator[ResultFile | None]:
    """Opens the file of ``--output`` and keeps other runs from writing to it; yields None if results are not saved.

    ``options`` are further ones of :class:`ResultFile`.
    """
    if path is None:
        yield None
        return
    if path.suffix.lower() in (".csv", ".tsv"):
        raise UsageError(f"--output writes JSON lines, and {path} is named as a table; name a .jsonl file")
    refuse_inputs([path], inputs, "--output")
    rank = process_rank()[0]
    lock = exclusive(path if rank == 0 else _share(path, rank))
    with lock, closing(ResultFile(path, schema, run, key, **options)) as store:
        yield store


_OPTIONS = {"branches": "or"}
"""Options whose name differs from their field."""


def differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describes the options that were different, of those that both tell."""
    return ", ".join(
        f"--{_OPTIONS.get(name, name)} was {_in_words(was[name])} and is {_in_words(value)}"
        for name, value in now.items()
        if name in was and was[name] != value
    )


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return some(value, 10)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _share(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.name}.rank{rank}")


def _shares(path: Path) -> list[Path]:
    return sorted(p for p in path.parent.glob(f"{glob.escape(path.name)}.rank[0-9]*") if p.suffix[5:].isdigit())


def refuse_inputs(targets: Iterable[Path], inputs: Iterable[Path], option: str) -> None:
    """Raises a :class:`UsageError` if an input would be overwritten, however its path is written.

    Neither is anything written through a link, nor over what is not a file, such as a device or a pipe.
    """
    known = {(found.st_dev, found.st_ino): path for path in inputs if path.exists() and (found := path.stat())}
    for target in targets:
        if target.exists() and (path := known.get((target.stat().st_dev, target.stat().st_ino))):
            raise UsageError(f"{option} would overwrite {path}; choose another path")
        if target.is_symlink():
            raise UsageError(f"{option} {target} is a link; name the file itself, or choose another path")
        if target.exists() and not (target.is_file() or target.is_dir()):
            raise UsageError(f"{option} {target} is not a file but a device or a pipe; choose another path")


def paths_of(sources: Iterable[Source]) -> list[Path]:
    """Returns the paths of the sources that are files."""
    return [source.path for source in sources if source.path is not None]
