"""Runs cases by the hundred: each in a fork of this process, which has imported all that igm imports."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import forks

from faults import guard
from faults.case import Case, Outcome, contents


def run(cases: Iterable[Case], folder: Path, jobs: int = 2) -> Iterator[tuple[Case, Outcome]]:
    """Yields every case with what igm did, as they end.

    Args:
        cases: The cases.
        folder: Where each gets an empty folder, which is removed afterwards.
        jobs: How many run at once.
    """
    import_all()
    given = list(cases)
    waiting = list(enumerate(given))[::-1]
    running: dict[int, tuple[int, Case, Path, dict[str, str], float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            number, case = waiting.pop()
            place = folder / f"case{number}"
            (place / "work").mkdir(parents=True)
            case.place(place / "work")
            before = contents(place / "work")
            running[start(case, place)] = number, case, place, before, time.monotonic()
        for process, (number, case, place, before, began) in list(running.items()):
            code = ended(process)
            late = time.monotonic() - began > case.seconds
            if code is None and not late:
                continue
            if code is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
            del running[process]
            after = contents(place / "work")
            changed = tuple(name for name in before if after.get(name) != before[name])
            how = {"encoding": case.encoding, "errors": "replace"}
            texts = [
                (place / name).read_text(**how) if (place / name).exists() else ""
                for name in ("out", "err", "alarm")
            ]
            alarm = texts.pop()
            if forks.unlucky(texts[1]) and not case.process:
                shutil.rmtree(place)
                waiting.append((number, replace(case, process=True)))
                continue
            yield given[number], Outcome(code, *texts, place / "work", changed, alarm)
            shutil.rmtree(place, ignore_errors=True)
        time.sleep(0.002)


def start(case: Case, place: Path, before: Callable[[], object] = lambda: None) -> int:
    """Starts a case; returns the number of its process, which leads a group of its own and calls ``before`` first."""
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "120", "HF_HOME": str(place / "hub"), **case.env}
    if case.process:
        with (place / "out").open("wb") as out, (place / "err").open("wb") as err:
            words = [sys.executable, "-m", "igm_cli", *case.command]
            started = subprocess.Popen(
                words, cwd=place / "work", env=environment, stdout=out, stderr=err,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        return started.pid

    def begin() -> None:
        if case.largest:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.largest, case.largest))
        if case.guarded:
            guard.watch(place)
        before()

    process = os.fork()
    if not process:
        out, err = place / "out", place / "err"
        how = {"encoding": case.encoding, "closed": case.closed, "before": begin}
        forks.child(case.command, environment, place / "work", out, err, **how)
    return process


def ended(process: int) -> int | None:
    """Returns the exit code of a process, negative for a signal; None while it runs."""
    done, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def import_all() -> None:
    """Imports igm with the libraries it uses, so that a fork need not."""
    import torch

    torch.set_num_threads(1)
    packages: list[str] = ["igm_cli.commands", "igm_cli.core", "igm_cli.plugins"]
    for package in packages:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("_triton"):
                importlib.import_module(module.name)
