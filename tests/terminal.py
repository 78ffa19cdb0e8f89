"""A terminal that looks at commands as people do: what stands on its screen when they end."""

from __future__ import annotations

import os
import pty
import struct
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pyte
from forks import prepare

LINES = 160


def screen(arguments: list[str], columns: int, folder: Path, stdout: Path | None = None) -> str:
    """Runs igm in a fork on a terminal of some columns, its stdout in a file if one is named.

    Returns what stands on the terminal at the end.
    """
    prepare(next(iter(arguments), ""))
    seen = pyte.Screen(columns, LINES)
    stream = pyte.ByteStream(seen)
    process, terminal = pty.fork()
    if not process:
        _run(arguments, columns, folder, stdout)
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        stream.feed(data)
    os.close(terminal)
    os.waitpid(process, 0)
    return "\n".join(line.rstrip() for line in seen.display).rstrip("\n") + "\n"


def _run(arguments: list[str], columns: int, folder: Path, stdout: Path | None) -> None:
    try:
        ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
        if stdout:
            os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT), 1)
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            os.environ.pop(name, None)
        os.environ["TERM"] = "xterm"
        os.chdir(folder)
        for number, name in enumerate(
            ("stdin", "stdout", "stderr")
        ):  # a test runner has put others in their place
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
        from igm_cli import app

        app.main(arguments)
        sys.stdout.flush()
    finally:
        os._exit(0)
