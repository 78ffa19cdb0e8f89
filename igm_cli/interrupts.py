"""What Ctrl-C, SIGTERM and SIGHUP do, which a scheduler such as SLURM or a closed terminal sends.

A command ends at once, and cleans up; a training finishes its step first.  A second signal ends either by force.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[int, "FrameType | None"], Any]

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

ECHO = 2.0
"""Seconds within which several processes take a second signal for the same: the terminal and the launcher both send it."""


class Interrupted(BaseException):
    """A signal asks for the end, and it ``says`` what the user should know; none of a library's clauses catches it."""

    def __init__(
        self, number: int, says: str = "igm train, and any command with --output, continues where it stopped"
    ) -> None:
        super().__init__(says)
        self.number = number

    @property
    def exit_code(self) -> int:
        """130 of Ctrl-C, 143 of the others."""
        return 130 if self.number == signal.SIGINT else 143


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Says of an interruption within it what is true there."""
    try:
        yield
    except Interrupted as error:
        raise Interrupted(error.number, what) from error


class _Received:
    number: int | None = None  # the first signal of this call


def received() -> int | None:
    """Returns the number of the signal that came, if one did: whatever a library made of it."""
    return _Received.number


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Raises :class:`Interrupted` at a signal, while it lasts."""

    def end(number: int, frame: FrameType | None) -> None:
        _Received.number = number
        _let_end()
        raise Interrupted(number)

    _Received.number = None
    with _handling(end):
        yield


@contextmanager
def finishing() -> Iterator[Callable[[], bool]]:
    """Only remembers the first signal; yields a function that says whether one came."""
    began: list[float] = []
    several = os.environ.get("WORLD_SIZE", "1") != "1"

    def remember(number: int, frame: FrameType | None) -> None:
        if not began:
            _Received.number = number
            began.append(time.monotonic())
            _say("igm: stopping after this step; a second signal ends at once\n")
        elif not several or time.monotonic() - began[0] > ECHO:
            _let_end()
            os.kill(os.getpid(), number)

    with _handling(remember):
        yield lambda: bool(began)


@contextmanager
def _handling(handler: Handler) -> Iterator[None]:
    """Handles the signals, unless they are ignored, as nohup has it, or this is not the main thread."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _let_end() -> None:
    """Lets the next signal end the process by force."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _say(text: str) -> None:
    """Writes on stderr, past whatever is being written there now."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):
            os.write(2, text.encode())
