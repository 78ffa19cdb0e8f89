"""The one place that writes: results to stdout, everything else to stderr.

With ``--json`` stdout carries one JSON object per line and nothing else.  Progress is shown by the main process of a
distributed run only.
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
"""A result as programs read it."""

ProgressReport: TypeAlias = Callable[[str, int, int], None]
"""Called with (what is being done, done so far, in all), which it shows."""


def called(record: Record) -> str:
    """Returns what people call the image of a record: its path, of a frame with its number and time."""
    if "frame" not in record:
        return "standard input" if record["image"] == "-" else str(record["image"])
    time = f" ({record['time']:.2f} s)" if record.get("time") is not None else ""
    return f"{record['image']} frame {record['frame']}{time}"


class Output:
    """Writes for people, or JSON lines for programs; nothing if ``quiet``, as all but the main process of a run are."""

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet

    @classmethod
    def of_process(cls, as_json: bool) -> Output:
        """Returns the output of one of several processes: all but the main one are quiet."""
        return cls(as_json=as_json, quiet=process_rank()[0] != 0)

    def result(self, data: Mapping[str, Any]) -> None:
        """Writes one JSON object on a line of stdout; nothing for people, who get :meth:`table`."""
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
        """Writes Markdown on stdout, laid out on a terminal, where what stands in front of it for programs is left out."""
        if not sys.stdout.isatty():
            self.write(text)
            return
        from rich.console import Console
        from rich.markdown import Markdown

        body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
        plain = "\n".join(_on_line(line, sys.stdout) for line in body.split("\n"))
        laid_out = Markdown(plain, code_theme="ansi_dark", hyperlinks=False)
        Console(file=sys.stdout, width=shutil.get_terminal_size().columns, highlight=False).print(laid_out)

    def note(self, text: str) -> None:
        """Writes a line on stderr, broken between words on a terminal."""
        if not self.quiet:
            sys.stderr.write(_broken(_on_line(text, sys.stderr), sys.stderr) + "\n")
            sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Writes a line on stderr about what may be amiss, shortened in the middle where what it quotes makes it long."""
        self.note(f"igm: {brief(text)}")

    @staticmethod
    def error(text: str) -> None:
        """Writes a line on stderr about something that went wrong; never silenced."""
        Output().warn(text)

    @staticmethod
    def write(text: str) -> None:
        """Writes text as it is on stdout, at once; on a terminal above the bars of a progress that is shown there."""
        if _shown and sys.stdout.isatty():
            _shown[0].out(text, end="", highlight=False)
            return
        sys.stdout.write(text)
        sys.stdout.flush()

    @property
    def on_terminal(self) -> bool:
        """Whether somebody looks at the progress; never of a quiet one."""
        return not self.quiet and sys.stderr.isatty()

    @contextmanager
    def progress(self) -> Iterator[ProgressReport]:
        """Shows progress with the time left on stderr: by bars on a terminal, elsewhere by a line now and then."""
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
        # Only stderr is put above the bars by rich: what goes to stdout may go into a file.
        with bars.Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
            _shown.append(console)
            tasks: dict[str, Any] = {}

            def report(what: str, done: int, total: int) -> None:
                key = what.partition(":")[0]
                if key not in tasks:
                    tasks[key] = bar.add_task(_on_line(what, sys.stderr), total=total)
                if done == 0:  # begun, perhaps anew: the pace of what went before says nothing
                    bar.reset(tasks[key])
                bar.update(tasks[key], description=_on_line(what, sys.stderr), completed=done, total=total)

            try:
                yield report
            finally:
                _shown.remove(console)


FIRST, EVERY = 10.0, 60.0
"""Seconds before the first line of progress in a log, and between the others."""


class _Lines:
    """Progress in a log: lines such as ``images 3 of 12, network calls 80 of 400 (a.png), 40 seconds left``."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note, self.next = note, time.monotonic() + FIRST
        self.tasks: dict[str, tuple[str, int, int]] = {}
        self.begun: dict[str, tuple[int, float]] = {}  # what the first report said was done, and when

    def __call__(self, what: str, done: int, total: int) -> None:
        name, now = what.partition(":")[0], time.monotonic()
        self.tasks[name] = (what, done, total)
        names = list(self.tasks)
        for inner in names[names.index(name) + 1 :]:  # a part of what is done now
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
"""Columns of a table that goes into a file."""

_shown: list[Any] = []
"""The console of the bars that are on the terminal now, if there are any."""


def fitting(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> int:
    """Returns how many of the columns of a table fit into a width without breaking a word; two at least.

    The last ones, which are the least important, are left out first.
    """
    words = [max(map(len, " ".join(cells).split()), default=0) for cells in zip(columns, *rows, strict=True)]
    shown = len(columns)
    while shown > 2 and sum(words[:shown]) + 3 * shown + 1 > width:
        shown -= 1
    return shown


def _listed(names: Sequence[str]) -> str:
    """Returns names as a sentence has them."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def span(least: float, most: float) -> str:
    """A range of seconds in the unit that suits its end, e.g. ``12 to 45 minutes``."""
    unit, size = next((unit, size) for unit, size in _UNITS.items() if most >= 1.5 * size or size == 1)
    low, high = _figure(least / size), _figure(most / size)
    alone = unit.removesuffix("s") if high == "1" else unit
    if low == "0":
        return f"{high} {alone} at most"
    return f"{high} {alone}" if low == high else f"{low} to {high} {unit}"


def _figure(value: float) -> str:
    """Two digits, or one behind the point."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")


_UNITS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


def json_line(data: Mapping[str, Any]) -> str:
    """Returns strict JSON on one line, in ASCII whatever the names in it, where NaN and infinity become null."""
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
    """Opens those of stdin, stdout and stderr that whoever started the process has closed: nothing comes of them.

    Otherwise the next file that is opened would take the place of stdout, and hold what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def _on_line(text: str, stream: TextIO) -> str:
    """Returns text as a line of a terminal shows it, with what would move its cursor, colour it or turn it round spelt out.

    So is what the stream's encoding lacks; signs of our own have a stand-in there.
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
"""Unicode's categories of characters that are seen by their effect alone."""

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
