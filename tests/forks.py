"""Runs igm as a process of its own without the seconds of a start: a fork of this one, which has imported torch."""

from __future__ import annotations

import functools
import importlib
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

LISTED = ("igm_clevr_render.dataset", "igm_cli.benchmarks.report", "scipy.ndimage", "scipy.stats")
ALWAYS = (
    "igm_cli.app",
    "igm_cli.commands.runner",
    "igm_cli.session",
    "markdown_it",
    "PIL.BmpImagePlugin",
    "PIL.GifImagePlugin",
    "PIL.JpegImagePlugin",
    "PIL.PpmImagePlugin",
    "rich.markdown",
    "rich.progress",
    "rich.table",
    "scipy.special",
    "typer._adapters",
    "typer.rich_utils",
)
WANTED = {
    "benchmark": LISTED,
    "plugins": LISTED,
    "train": (
        "accelerate",
        "datasets",
        "igm_clevr_render.dataset",
        "igm_cli.commands.train_run",
        "igm_cli.core.inference.engine",
        "igm_cli.evaluation",
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        "scipy.io",
        "scipy.optimize",
        "torch._dynamo",
        "torch.utils.tensorboard",
    ),
    "doctor": (*LISTED, "diffusers", "transformers.modeling_utils", "diffusers.models.modeling_utils"),
}  # fmt: skip
"""What takes seconds to import, by the command that does: a fork finds it imported."""


@functools.cache
def prepare(command: str) -> None:
    """Imports what a command will want."""
    own = f"igm_cli.commands.{command.replace('-', '_')}"
    for module in (*ALWAYS, own, *WANTED.get(command, ())):
        with suppress(ImportError):
            importlib.import_module(module)


def unlucky(said: str) -> bool:
    """Returns whether torch found its threads gone, as it does now and then in a fork."""
    return "INTERNAL ASSERT FAILED" in said and "Invalid thread pool" in said


class Fork:
    """igm, or ``work``, in a process that was just forked, with as much of ``subprocess.Popen`` as tests need."""

    def __init__(
        self, words: Sequence[str], env: Mapping[str, str], cwd: Path, work: Callable[[], object] | None = None
    ) -> None:
        prepare(words[0] if words else "")
        self.words, self._folder = words, tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name, name) for name in ("out", "err")]
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            child(words, env, cwd, *self._files, work=work)

    def send_signal(self, number: int) -> None:
        """Sends a signal to it, and to what it has started."""
        if self.poll() is None:
            os.killpg(self.pid, number)

    def poll(self) -> int | None:
        """Returns its exit code, None while it runs."""
        if self.returncode is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(ended[1])
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Waits for its end; returns what it said on stdout and on stderr.

        Raises:
            subprocess.TimeoutExpired: It took longer, and was killed.
        """
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                self.send_signal(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise subprocess.TimeoutExpired(list(self.words), timeout)
            time.sleep(0.002)
        out, err = (path.read_text(encoding="utf-8") for path in self._files)
        return out, err


def run(words: list[str], env: dict[str, str], cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
    """Returns what igm makes of some words, as ``subprocess.run`` does of a command."""
    process = Fork(words, env, cwd)
    said = process.communicate(timeout)
    if unlucky(said[1]):
        return run(words, env, cwd, timeout)
    assert process.returncode is not None
    return subprocess.CompletedProcess(words, process.returncode, *said)


def together(work: Callable[[], object]) -> list[str]:
    """Runs a function in two forks that work together, as a launcher starts them; returns what each printed."""

    def anew() -> None:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(True)  # which says that this process is alone
        work()

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(one.getsockname()[1])}
    shared = {**os.environ, **where, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    processes = [Fork([], shared | rank, Path.cwd(), anew) for rank in ranks]
    try:
        said = [process.communicate(240) for process in processes]
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
    if any(unlucky(err) for _, err in said):
        return together(work)
    assert [process.returncode for process in processes] == [0, 0], [err[-2000:] for _, err in said]
    return [out for out, _ in said]


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
    work: Callable[[], object] | None = None,
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
        work: What to do instead of the command.
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
        if work:
            work()
            code = 0
        else:
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
