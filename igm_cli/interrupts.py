"""Handles Ctrl-C, SIGTERM and SIGHUP, which also come from schedulers such as SLURM and closed terminals.

A command cleans up and ends at once; training finishes its step first.  A second signal ends either by force.
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

ANEW = "the same command starts again"
"""What an interruption says unless something else is known."""

ECHO = 2.0
"""Seconds within which several processes ignore a second signal: terminal and launcher both send the first one."""


class Interrupted(BaseException):
    """A signal asks the process to end; ``says`` informs the user.  ``except Exception`` in libraries cannot catch it."""

    def __init__(self, number: int, says: str = ANEW) -> None:
        super().__init__(says)
        self.number = number

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for the others."""
        return 130 if self.number == signal.SIGINT else 143


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Gives interruptions within the block the message ``what``."""
    try:
        yield
    except Interrupted as error:
        raise Interrupted(error.number, what) from error


class _Received:
    number: int | None = None  # the first signal of this call


def received() -> int | None:
    """Returns the number of the signal received, if any, even if a library turned it into another error."""
    return _Received.number


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Raises :class:`Interrupted` at a signal within the block."""

    def end(number: int, frame: FrameType | None) -> None:
        _Received.number = number
        _let_end()
        raise Interrupted(number)

    _Received.number = None
    with _handling(end):
        yield


@contextmanager
def finishing() -> Iterator[Callable[[], bool]]:
    """Only records the first signal; yields a function that tells whether one came."""
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
    """Installs a handler for the signals that are not ignored (as under nohup); only in the main thread."""
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
    """Writes to stderr directly, bypassing its buffer."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):
            os.write(2, text.encode())
