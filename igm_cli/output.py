"""The only module that writes output: results to stdout, everything else to stderr.

With ``--json`` stdout carries one JSON object per line and nothing else.  In a distributed run only the main process
shows progress.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO, TypeAlias

from igm_cli.errors import UsageError, brief

Record: TypeAlias = Mapping[str, Any]
"""The fields of a JSON line."""

ProgressReport: TypeAlias = Callable[[str, int, int], None]
"""Shows progress; called with (current activity, number done, total)."""


def called(record: Record) -> str:
    """Returns the readable name of a record's image: its path, and for a frame its number and time."""
    if "frame" not in record:
        return "standard input" if record["image"] == "-" else str(record["image"])
    time = f" ({record['time']:.2f} s)" if record.get("time") is not None else ""
    return f"{record['image']} frame {record['frame']}{time}"


class Output:
    """Writes for people, or JSON lines for programs; nothing if ``quiet``, as in all processes of a run but the main one."""

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet

    @classmethod
    def of_process(cls, as_json: bool) -> Output:
        """Returns the output of this process, quiet unless it is the main one."""
        return cls(as_json=as_json, quiet=process_rank()[0] != 0)

    def result(self, data: Mapping[str, Any]) -> None:
        """Writes one JSON object on a line of stdout with ``--json``; people get :meth:`table`."""
        if self.as_json and not self.quiet:
            self.write(json_line(data) + "\n")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Writes a table on stdout for people; nothing with ``--json``."""
        if self.as_json or self.quiet:
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        if title:
            self.say(title)
        terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if terminal else WIDE
        shown = fitting(columns, rows, width) if terminal else len(columns)
        table = Table()
        for column in columns[:shown]:
            table.add_column(escape(_on_line(column, sys.stdout)), overflow="fold")
        for row in rows:
            table.add_row(*(escape(_on_line(cell, sys.stdout)) for cell in row[:shown]))
        console = _shown[0] if _shown and terminal else Console(file=sys.stdout, width=width, highlight=False)
        console.print(table)
        if shown < len(columns):
            self.say(f"a wider terminal shows {_listed(columns[shown:])}, too")

    def say(self, text: str) -> None:
        """Writes a line for people on stdout, broken between words on a terminal; nothing with ``--json``."""
        if self.as_json or self.quiet:
            return
        self.write(_broken(_on_line(text, sys.stdout), sys.stdout) + "\n")

    def markdown(self, text: str) -> None:
        """Writes Markdown on stdout; on a terminal it is laid out, without its front matter."""
        text = "\n".join(_on_line(line, sys.stdout) for line in text.split("\n"))
        if not sys.stdout.isatty():
            self.write(text)
            return
        from rich.console import Console
        from rich.markdown import Markdown

        body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
        laid_out = Markdown(body, code_theme="ansi_dark", hyperlinks=False)
        Console(file=sys.stdout, width=shutil.get_terminal_size().columns, highlight=False).print(laid_out)

    def note(self, text: str) -> None:
        """Writes a line on stderr, broken between words on a terminal."""
        if not self.quiet:
            sys.stderr.write(_broken(_on_line(text, sys.stderr), sys.stderr) + "\n")
            sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Writes a warning on stderr; if quotations make it long, it is shortened in the middle."""
        self.note(f"igm: {brief(text)}")

    @staticmethod
    def error(text: str) -> None:
        """Writes an error on stderr; never silenced."""
        Output().warn(text)

    @staticmethod
    def write(text: str) -> None:
        """Writes text as it is on stdout at once, above any progress bars on a terminal."""
        if _shown and sys.stdout.isatty():
            _shown[0].out(text, end="", highlight=False)
            return
        sys.stdout.write(text)
        sys.stdout.flush()

    @property
    def on_terminal(self) -> bool:
        """Whether progress appears on a terminal; never if quiet."""
        return not self.quiet and sys.stderr.isatty()

    @contextmanager
    def progress(self) -> Iterator[ProgressReport]:
        """Shows progress and the time left on stderr: bars on a terminal, occasional lines elsewhere."""
        if not self.on_terminal:
            yield _Lines(self.note)
            return
        from rich import progress as bars
        from rich.console import Console
        from rich.table import Column

        whole = Column(no_wrap=True)
        console = Console(stderr=True)
        columns = (
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(40 if console.width >= 110 else 12),
            bars.MofNCompleteColumn(table_column=whole),
            bars.TimeElapsedColumn(table_column=whole),
            bars.TimeRemainingColumn(table_column=whole),
            bars.TextColumn("left", table_column=whole),
        )
        # Rich puts only stderr above the bars, since stdout may go into a file.
        with bars.Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
            _shown.append(console)
            tasks: dict[str, Any] = {}

            def report(what: str, done: int, total: int) -> None:
                key = what.partition(":")[0]
                if key not in tasks:
                    tasks[key] = bar.add_task(_on_line(what, sys.stderr), total=total)
                if done == 0:  # a new start: the earlier pace no longer counts
                    bar.reset(tasks[key])
                bar.update(tasks[key], description=_on_line(what, sys.stderr), completed=done, total=total)

            try:
                yield report
            finally:
                _shown.remove(console)


FIRST, EVERY = 10.0, 60.0
"""Seconds before the first progress line in a log, and between further ones."""


class _Lines:
    """Progress in a log: lines such as ``images 3 of 12, network calls 80 of 400 (a.png), 40 seconds left``."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note, self.next = note, time.monotonic() + FIRST
        self.tasks: dict[str, tuple[str, int, int]] = {}
        self.begun: dict[str, tuple[int, float]] = {}  # the number done and the time at the first report

    def __call__(self, what: str, done: int, total: int) -> None:
        name, now = what.partition(":")[0], time.monotonic()
        self.tasks[name] = (what, done, total)
        names = list(self.tasks)
        for inner in names[names.index(name) + 1 :]:  # parts of the current activity
            del self.tasks[inner]
            self.begun.pop(inner, None)
        if done == 0:
            self.begun.pop(name, None)
        else:
            self.begun.setdefault(name, (done, now))
        if now < self.next or not self.begun:
            return
        self.next = now + EVERY
        parts, left = [], ""
        for name, (what, done, total) in self.tasks.items():
            if done == total:
                continue
            about = what.partition(": ")[2]
            parts.append(f"{name} {done} of {total}" + (f" ({about})" if about else ""))
            first, begun = self.begun.get(name, (done, now))
            if done > first and not left:
                seconds = (now - begun) / (done - first) * (total - done)
                left = f"{span(seconds, seconds)} left"
        if parts:
            self.note(", ".join([*parts, left] if left else parts))


WIDE = 200
"""Width in columns of tables written to files."""

_shown: list[Any] = []
"""The console of the bars now on the terminal, if any."""


def fitting(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> int:
    """Returns how many columns of a table fit into a width without breaking a word; at least two.

    The last columns, the least important, are dropped first.
    """
    words = [max(map(len, " ".join(cells).split()), default=0) for cells in zip(columns, *rows, strict=True)]
    shown = len(columns)
    while shown > 2 and sum(words[:shown]) + 3 * shown + 1 > width:
        shown -= 1
    return shown


def _listed(names: Sequence[str]) -> str:
    """Joins names for a sentence."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def span(least: float, most: float) -> str:
    """Returns a range of seconds in the unit that suits its upper end, e.g. ``12 to 45 minutes``."""
    unit, size = next((unit, size) for unit, size in _UNITS.items() if most >= 1.5 * size or size == 1)
    low, high = _figure(least / size), _figure(most / size)
    alone = unit.removesuffix("s") if high == "1" else unit
    if low == "0":
        return f"{high} {alone} at most"
    return f"{high} {alone}" if low == high else f"{low} to {high} {unit}"


def _figure(value: float) -> str:
    """Returns a number as an integer, or if below 10 with one decimal."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")


_UNITS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


def json_line(data: Mapping[str, Any]) -> str:
    """Returns strict JSON on one line, in ASCII only; NaN and infinity become null."""
    return json.dumps(_strict(data), allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(k): _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    return value


def open_streams() -> None:
    """Opens the null device in place of closed standard streams.

    Otherwise the next file opened would take the place of stdout and receive what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def _on_line(text: str, stream: TextIO) -> str:
    """Returns text that is safe on a terminal: control characters (cursor, colour, text direction) are spelt out.

    So are characters that the stream's encoding lacks, except that igm's own symbols have stand-ins.
    """
    plain = "".join(c if c == "\t" or unicodedata.category(c) not in _HIDDEN else _spelt(c) for c in text)
    encoding = stream.encoding or "utf-8"
    try:
        plain.encode(encoding)
    except UnicodeEncodeError:
        return plain.translate(_STAND_INS).encode(encoding, "backslashreplace").decode(encoding)
    return plain


def _broken(text: str, stream: TextIO) -> str:
    """Returns a line broken between words, if the stream is a terminal."""
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _spelt(character: str) -> str:
    return character.encode("unicode-escape").decode("ascii")


_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of characters that are visible only by their effect."""

_STAND_INS = str.maketrans({"◯": "o", "×": "x", "±": "+-", "·": "*", "…": "...", "–": "-", "²": "^2"})


def process_rank() -> tuple[int, int]:
    """Returns (rank, number of processes) of a run under ``accelerate launch`` or ``torchrun``.

    Raises:
        UsageError: If the environment contradicts itself.
    """
    named = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_PORT")}
    for name, text in named.items():
        if text and not (text.isascii() and text.isdigit() and len(text) < 6):
            raise UsageError(f"{name} of the environment is {text!r}, which is not a valid value; unset it")
    if int(named["MASTER_PORT"] or 0) > 65535:
        raise UsageError(
            f"MASTER_PORT={named['MASTER_PORT']} of the environment is not a port from 1 to 65535; correct it"
        )
    rank, world = int(named["RANK"] or 0), int(named["WORLD_SIZE"] or 1)
    if not rank < world:
        raise UsageError(f"RANK={rank} of the environment is not below WORLD_SIZE={world}; unset both")
    if world > 1 and not (named["RANK"] and named["MASTER_PORT"] and os.environ.get("MASTER_ADDR")):
        raise UsageError(
            f"WORLD_SIZE={world} of the environment needs RANK, MASTER_ADDR and MASTER_PORT; start several processes by "
            "accelerate launch, or unset it"
        )
    return rank, world
