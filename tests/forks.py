"""Runs igm as a process of its own without the seconds of a start: a fork of this one, which has imported torch."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn


def unlucky(said: str) -> bool:
    """Returns whether torch found its threads gone, as it does now and then in a fork."""
    return "INTERNAL ASSERT FAILED" in said and "Invalid thread pool" in said


def run(words: list[str], env: dict[str, str], cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
    """Returns what igm makes of some words, as ``subprocess.run`` does of a command."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = os.fork()
        if not process:
            child(words, env, cwd, out, err)
        until = time.monotonic() + timeout
        while not (ended := os.waitpid(process, os.WNOHANG))[0]:
            if time.monotonic() > until:
                os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
                raise subprocess.TimeoutExpired(words, timeout)
            time.sleep(0.002)
        code = os.waitstatus_to_exitcode(ended[1])
        said = [path.read_text(encoding="utf-8") for path in (out, err)]
    return (
        run(words, env, cwd, timeout) if unlucky(said[1]) else subprocess.CompletedProcess(words, code, *said)
    )


def child(
    words: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    out: Path,
    err: Path,
    *,
    encoding: str = "utf-8",
    closed: Sequence[int] = (),
    before: Callable[[], object] = lambda: None,
) -> NoReturn:
    """Is igm from here on, in a process that was just forked, and ends it.

    Args:
        words: The command, without ``igm``.
        env: Its environment.
        cwd: Where it runs.
        out: File of its stdout.
        err: File of its stderr.
        encoding: Of both.
        closed: Numbers of the standard streams that whoever started it has closed.
        before: Called first.
    """
    code = 1
    try:
        os.setsid()
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(os.fdopen(number, "wb", closefd=False), encoding=encoding, errors=errors)
            for number, errors in ((1, "strict"), (2, "backslashreplace"))
        )
        for number in closed:
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        sys.argv = ["igm", *words]
        before()
        from igm_cli import app

        code = app.main(list(words))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
        os._exit(code)
