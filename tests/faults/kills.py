"""Commands that are killed at any moment, a third of them while they write, and go on: nothing is lost, changed or doubled."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import forks

from faults import forked
from faults.case import Case, Content
from faults.kit import CPU, QUICK, Kit
from faults.outputs import BENCHMARK, PRESET, TRAIN, pipeline

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CODES = {signal.SIGTERM: 143, signal.SIGHUP: 143, signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}
PATIENCE = 20.0
"""Seconds after which a process that was told to end is held to hang."""

LEFT = re.compile(r".*(\.igm-tmp|\.tmp|\.lock|\.rank\d+)$")
WRITES = ((os, "fsync"), (os, "write"), (os, "replace"), (Path, "write_bytes"), (Path, "write_text"), (Path, "replace"),
          (Path, "unlink"), (Path, "rename"))  # fmt: skip
"""What writes call."""

Found: TypeAlias = Mapping[str, Any]
"""Results by what they are about; those that occur twice under ``doubled``."""

COLUMNS = ("kills", "writing", "lost", "changed", "doubled", "left over", "wrong end")


@dataclass(frozen=True)
class Task:
    """A command that is killed.

    Attributes:
        command: It.
        files: What it needs.
        results: Reads what it left, what may differ from run to run aside.
    """

    command: Sequence[str]
    files: Mapping[str, Content]
    results: Callable[[Path], Found]


def tasks(kit: Kit) -> dict[str, Task]:
    """Returns the commands by name."""
    images: dict[str, Content] = {f"{i}.png": (kit.pictures / f"{i % 3}.png").read_bytes() for i in range(6)}
    pictures = ("--overlay", "drawn", "--map", "maps", "-o", "r.jsonl")
    train = PRESET.replace("steps = 4", "steps = 14").replace("log_every = 1", "log_every = 3")
    zero = ("zero-shot", *images, "--model", str(pipeline(kit)), *QUICK, "--overlay", "drawn", "-o", "r.jsonl")
    bench = (
        "benchmark",
        "decomposition",
        "--methods",
        "auto,resonator",
        "--splits",
        "points",
        *CPU,
        "--set",
        "problems=2",
    )
    assert BENCHMARK[:2] == bench[:2]
    return {
        "train": Task((*TRAIN, "-o", "run"), {"tiny.toml": train}, _of_training),
        "invert": Task(
            kit.invert(*images, *pictures, "--csv", "t.csv", "--coco", "t.json"), images, _of_images
        ),
        "zero-shot": Task(zero, images, _of_images),
        "benchmark": Task(
            (*bench, "--set", "points=K2-n4-D64,K2-n5-D64,K2-n6-D64", "--out", "out"), {}, _of_benchmark
        ),
    }


def _lines(path: Path, about: Sequence[str], leave_out: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in path.read_bytes().splitlines() if path.exists() else ():
        line = json.loads(text)
        key = " ".join(str(line[name]) for name in about if name in line)
        if key in found:
            found.setdefault("doubled", []).append(key)
        found[key] = {name: value for name, value in line.items() if name not in (*leave_out, "root")}
    return found


def _files(folder: Path, *patterns: str) -> dict[str, bytes]:
    every = (path for pattern in patterns for path in folder.glob(pattern))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in every}


def _of_images(folder: Path) -> Found:
    return _lines(folder / "r.jsonl", ("image",), ("seconds",)) | _files(folder, "drawn/*", "maps/*", "t.*")


def _of_training(folder: Path) -> Found:
    metrics = _lines(folder / "run" / "metrics.jsonl", ("step",), ("seconds", "images_per_second", "memory_gb"))
    return metrics | _files(folder, "run/*.safetensors", "run/igm.json", "run/config.json")


def _of_benchmark(folder: Path) -> Found:
    known = _lines(folder / "out" / "records.jsonl", ("method", "split", "item"), ("rows",))
    return known | dict.fromkeys(_files(folder, "out/*.csv", "out/*.png", "out/*.md", "out/*.json"), b"")


def report(kit: Kit, count: int, seed: int, complain: Callable[[str], object]) -> Iterator[str]:
    """Kills commands and lets them go on; yields the rows of a table.

    Args:
        kit: Makes what they need.
        count: How many kills.
        seed: Of the moments and signals.
        complain: Called with a sentence about each that did not do as it must.
    """
    forked.import_all()
    draw, every = random.Random(seed), tasks(kit)
    table: dict[str, Counter[str]] = {name: Counter() for name in every}
    right: dict[str, tuple[Found, float, int]] = {}
    for name, task in every.items():
        place = kit.folder / "kills" / name
        began, writes = time.monotonic(), place / "writes"
        code = _run(task, place, lambda writes=writes: _count_writes(writes))
        assert code == 0, f"exit code {code}: {(place / 'err').read_text()}"
        right[name] = task.results(place / "work"), time.monotonic() - began, int(writes.read_text())
    for number in range(count):
        name = list(every)[number % len(every)]
        sent, writing = SIGNALS[number // len(every) % len(SIGNALS)], draw.random() < 1 / 3
        wanted, seconds, writes_in_all = right[name]
        place, row = kit.folder / "kills" / f"{number}", table[name]
        if writing:
            where, half = draw.randrange(writes_in_all), draw.random() < 0.5
            code = _run(every[name], place, lambda w=where, s=sent, h=half: _kill_at_write(w, s, h))
            when = f"at write {where} of {writes_in_all}{' in the middle' * half}"
        else:
            after = draw.uniform(0.0, seconds)
            code = _run(every[name], place, sent=sent, after=after)
            when = f"after {after:.2f} of {seconds:.2f} s"
        row.update({"kills": 1, "writing": int(writing)})
        said = f"{name}, {sent.name} {when}, seed {seed} number {number}"
        wrong = _wrong_end(code, sent, place, name)
        again = _run(every[name], place) if not wrong else None
        if not wrong and again != 0:
            wrong = f"does not go on: {again}: {(place / 'err').read_text().strip()[-200:]!r}"
        if wrong:
            row["wrong end"] += 1
            complain(f"kills: {said}: {wrong}")
        else:
            for kind, what in _compared(wanted, every[name].results(place / "work"), place / "work"):
                row[kind] += 1
                complain(f"kills: {said}: {kind}: {what}")
        shutil.rmtree(place)
    yield f"{'':12}" + "".join(f"{column:>11}" for column in COLUMNS)
    for name, row in table.items():
        yield f"{name:12}" + "".join(f"{row[column]:>11}" for column in COLUMNS)
    total = sum(table.values(), Counter[str]())
    yield f"{'in all':12}" + "".join(f"{total[column]:>11}" for column in COLUMNS)


def _run(
    task: Task,
    place: Path,
    before: Callable[[], object] = lambda: None,
    sent: signal.Signals | None = None,
    after: float = 0.0,
) -> int | None:
    """Runs a command, sends it a signal after some seconds; returns its exit code, None if it hangs."""
    case, began = Case("", "", tuple(task.command), task.files), time.monotonic()
    if not (place / "work").exists():
        (place / "work").mkdir(parents=True)
        case.place(place / "work")
    for name in ("out", "err"):
        (place / name).unlink(missing_ok=True)
    started = forked.start(case, place, before)
    while (code := forked.ended(started)) is None:
        now = time.monotonic() - began
        if sent is not None and now > after:
            os.kill(started, sent)
            sent = None
        if now > after + 3 * PATIENCE:
            os.killpg(started, signal.SIGKILL)
            os.waitpid(started, 0)
            return None
        time.sleep(0.002)
    said = place / "err"  # not there where it was killed before it began
    if said.exists() and forks.unlucky(said.read_text()):
        return _run(task, place, before, sent, after)
    return code


def _patch_writes(called: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]) -> None:
    for owner, name in WRITES:
        real = getattr(owner, name)

        def replaced(*words: Any, _real: Callable[..., Any] = real, **how: Any) -> Any:
            return called(_real, words, how)

        setattr(owner, name, replaced)


def _count_writes(path: Path) -> None:
    """Writes how many writes there were so far into a file."""
    file, count = os.open(path, os.O_CREAT | os.O_WRONLY), 0
    put = os.pwrite

    def called(real: Callable[..., Any], words: tuple[Any, ...], how: dict[str, Any]) -> Any:
        nonlocal count
        count += 1
        put(file, str(count).encode(), 0)
        return real(*words, **how)

    _patch_writes(called)


def _kill_at_write(number: int, sent: signal.Signals, half: bool) -> None:
    """Sends this process a signal at one of its writes, before it or in the middle, as only SIGKILL can."""
    left = number

    def called(real: Callable[..., Any], words: tuple[Any, ...], how: dict[str, Any]) -> Any:
        nonlocal left
        left -= 1
        if left == -1:
            if half and sent == signal.SIGKILL and len(words) > 1 and isinstance(words[1], bytes | str):
                real(words[0], words[1][: len(words[1]) // 2])
            os.kill(os.getpid(), sent)
        return real(*words, **how)

    _patch_writes(called)


def _wrong_end(code: int | None, sent: signal.Signals, place: Path, name: str) -> str:
    """Returns what is wrong with how a command ended; nothing if it is right."""
    said = (place / "err").read_text() if (place / "err").exists() else ""
    if code == 0:  # it was faster
        return ""
    early = not said and code == -sent  # before igm had begun
    if code != CODES[sent] and not early:
        return f"exit code {code}: {said.strip()[-200:]!r}"
    if sent == signal.SIGKILL or early:
        return ""
    if "igm: interrupted" not in said or "Traceback" in said:
        return f"says {said.strip()[-200:]!r}"
    left = [path.name for path in (place / "work").rglob("*") if LEFT.match(path.name)]
    if left:
        return f"leaves {left}"
    if saved := re.search(r"step (\d+) of \d+ is saved in run", said):
        import torch

        step = torch.load(place / "work" / "run" / "state.pt", weights_only=True)["step"]
        return "" if step == int(saved[1]) else f"saved step {step}, not {saved[1]}"
    if name == "train" and "training on" in said and "is saved whole in run" not in said:
        return f"saves nothing: {said.strip()[-200:]!r}"
    return ""


def _compared(wanted: Found, found: Found, folder: Path) -> Iterator[tuple[str, str]]:
    for key, value in wanted.items():
        if key not in found:
            yield "lost", key
        elif found[key] != value:
            yield "changed", key
    for key in found.get("doubled", ()):
        yield "doubled", key
    for path in folder.rglob("*"):
        if LEFT.match(path.name):
            yield "left over", str(path.relative_to(folder))
