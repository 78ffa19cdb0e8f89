"""Runs ``igm benchmark``: every method on every item, saved line by line, then the report."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from igm_cli.bundled import name_of
from igm_cli.commands.results import ResultFile
from igm_cli.core.files import exclusive, fingerprint_of, home_expanded, read_json, write_json
from igm_cli.errors import IgmError, InputError, OutputError, counted, debugging, kind_and_message, need
from igm_cli.interrupts import saying
from igm_cli.output import Output, ProgressReport

if TYPE_CHECKING:
    from igm_cli.benchmarks.suite import Bench, Request, Suite

SCHEMA = "igm.benchmark/1"
ROW_SCHEMA = "igm.benchmark-record/1"
IDENTITY, RECORDS, METHODS = "benchmark.json", "records.jsonl", "methods.json"
LIMITED = "limited"
"""Key in METHODS, beside what a method reports: its number of items per split, and the options that it depends on."""
_PACKAGES = ("torch", "diffusers", "transformers", "datasets", "igm-cli")


def run_benchmark(suite: Suite, methods: Sequence[str], request: Request, out: Path, sink: Output) -> None:
    """Runs methods of a suite as requested and writes the report into the folder ``out``.

    Raises:
        IgmError: If nothing can be measured, or ``out`` holds another configuration.
        Exit: With exit code 3, if every method failed.
    """
    need("bench", "datasets", "matplotlib")
    from igm_cli.core.device import keep_freed_memory

    if request.device.type == "cpu":
        keep_freed_memory()
    if (out.is_symlink() or out.exists()) and not out.is_dir():
        raise InputError(f"--out {out} is not a folder; name another one")
    with saying(f"the same command continues in {out}"), exclusive(out):
        _run(suite, methods, request, out, sink)


def _run(suite: Suite, methods: Sequence[str], request: Request, out: Path, sink: Output) -> None:
    from igm_cli.commands.report_files import show_report, write_report

    with sink.progress() as progress:
        bench = suite.open(replace(request, progress=progress))
        run = _Run(suite.name, bench, request.options, out, sink, progress)
        with closing(run.store):
            run.work(methods, request.splits)
    try:
        report = bench.report(run.records(methods, request.splits), run.infos(methods))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        if not run.goes_on:
            raise
        raise InputError(
            f"{out} holds records that do not fit the suite ({kind_and_message(error)[:80]}); use another --out"
        ) from error
    origin = {**provenance(), "suite": suite.name, "seed": request.seed, "device": str(request.device)}
    origin |= {"checkpoint": name_of(request.model)} if request.model.name else {}
    origin |= {"failed": run.failures} if run.failures else {}
    written = write_report(report, out, origin)
    show_report(sink, report)
    sink.result({"schema": SCHEMA, "suite": suite.name, "failed": run.failures, **report.summary})
    if others := sorted(set(run.known) - set(methods)):
        sink.note(
            f"{out} holds records of {', '.join(others)}, too; name them with --methods to have them in the report"
        )
    sink.note(f"igm: {counted(len(written), 'file')} of the report in {out}")
    if set(methods) <= set(run.failures):
        raise typer.Exit(3)


class _Run:
    """Keeps the records of one results folder, which belongs to one configuration, and adds to them."""

    def __init__(
        self,
        suite: str,
        bench: Bench,
        options: Mapping[str, Any],
        out: Path,
        sink: Output,
        progress: ProgressReport,
    ) -> None:
        from igm_cli.core.training.state import refuse_other

        self.options = fingerprint_of({key: str(value) for key, value in options.items()})
        self.bench, self.out, self.sink, self.progress = bench, out, sink, progress
        identity = {"suite": suite, **bench.identity}
        refuse_other(out / IDENTITY, identity, what="benchmark", option="--out")
        write_json(out / IDENTITY, identity)
        self.goes_on = (out / RECORDS).is_file()
        key = ("method", "split", "item")
        self.store = ResultFile(out / RECORDS, ROW_SCHEMA, fingerprint_of(identity), key=key)
        told = out / METHODS
        self.known = read_json(told) if told.is_file() else {}
        self.failures: dict[str, str] = {}

    def work(self, methods: Sequence[str], splits: Sequence[str]) -> None:
        """Runs every method on the items not done yet; one that fails does not stop the others."""
        for name in methods:
            if not self._pending(name, splits, self._limit(name)):
                continue
            try:
                self._work_through(name, splits)
            except OutputError as error:
                raise OutputError(
                    f"{error}; the folder keeps {counted(len(self.store.done), 'record')}"
                ) from error
            except IgmError as error:
                self._fail(name, str(error))
            except Exception as error:  # a third-party baseline may raise anything
                if debugging():
                    raise
                self._fail(name, kind_and_message(error))

    def _pending(self, name: str, splits: Sequence[str], limit: int | None) -> list[tuple[str, str]]:
        """Returns the splits and items that a method has not been run on, no more than its ``limit`` per split."""
        return [
            (s, i)
            for s in splits
            for i in self.bench.items(s)[:limit]
            if _about(name, s, i) not in self.store.done
        ]

    def _limit(self, name: str) -> int | None:
        """Returns the limit of a method that ran with the same options, which is known without loading it."""
        limited = self.known.get(name, {}).get(LIMITED, {})
        return limited["limit"] if limited.get("options") == self.options else None

    def _work_through(self, name: str, splits: Sequence[str]) -> None:
        method = self.bench.method(name)
        limited = {} if method.limit is None else {LIMITED: {"limit": method.limit, "options": self.options}}
        self.known[name] = {**method.info, **limited}
        write_json(self.out / METHODS, self.known)
        pending = self._pending(name, splits, method.limit)
        for number, (split, item) in enumerate(pending):
            self.progress(f"{name}: {split}", number, len(pending))
            line = {"schema": ROW_SCHEMA, "run": self.store.run, "method": name, "split": split, "item": item}
            self.store.add({**line, "rows": method(split, item)})
        self.progress(f"{name}: done", len(pending), len(pending))

    def _fail(self, name: str, reason: str) -> None:
        self.failures[name] = reason
        self.sink.error(f"{name} failed, the others go on: {reason}")

    def infos(self, methods: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Returns what the requested methods report about themselves, or why they failed."""
        failed = {name: {"failed": reason} for name, reason in self.failures.items()}
        known = {**self.known, **failed}
        return {
            name: {key: value for key, value in known[name].items() if key != LIMITED}
            for name in methods
            if name in known
        }

    def records(self, methods: Sequence[str], splits: Sequence[str]) -> list[dict[str, Any]]:
        """Returns the records of the requested methods, splits and items, in their order."""
        wanted = (_about(m, s, i) for m in methods for s in splits for i in self.bench.items(s))
        return [self.store.done[about] for about in wanted if about in self.store.done]


def _about(method: str, split: str, item: str) -> str:
    return f"{method} {split} {item}"


def cache_folder() -> Path:
    """Returns the folder of trained baselines: ``$IGM_CACHE``, or igm in the user's cache."""
    given = os.environ.get("IGM_CACHE")
    base = home_expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    folder = home_expanded(given) if given else base / "igm"
    if str(folder).startswith("~"):
        raise InputError(f"there is no such home as that of {folder}; set IGM_CACHE to a folder")
    return folder


def provenance() -> dict[str, Any]:
    """Returns the command, the machine and versions for the report."""
    import torch

    versions = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "command": shlex.join(["igm", *map(_portable, sys.argv[1:])]),
        "machine": f"{_processor()}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "versions": versions,
    }


def _portable(argument: str) -> str:
    """Shortens an absolute path, alone or after ``=``, to its last part; the rest means nothing on other machines."""
    option, equals, value = argument.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if value.startswith("/") else argument


def _processor() -> str:
    """Returns the processor's name, if the system reports it."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    named = re.search(r"^model name\s*:(.*)$", told, re.MULTILINE)
    return named[1].strip() if named else platform.machine()
