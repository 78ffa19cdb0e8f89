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
from contextlib import suppress
from pathlib import Path

UNLUCKY = "Invalid thread pool"
"""What torch says now and then in a fork, whose threads are gone."""


def run(words: list[str], env: dict[str, str], cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
    """Returns what igm makes of some words, as ``subprocess.run`` does of a command."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = os.fork()
        if not process:
            _child(words, env, cwd, out, err)
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
        run(words, env, cwd, timeout) if UNLUCKY in said[1] else subprocess.CompletedProcess(words, code, *said)
    )


def _child(words: list[str], env: dict[str, str], cwd: Path, out: Path, err: Path) -> None:
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
            io.TextIOWrapper(os.fdopen(number, "wb", closefd=False), encoding="utf-8", errors=errors)
            for number, errors in ((1, "strict"), (2, "backslashreplace"))
        )
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        sys.argv = ["igm", *words]
        from igm_cli import app

        code = app.main(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
