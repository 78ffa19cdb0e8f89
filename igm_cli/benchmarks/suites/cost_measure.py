"""Measures the cost of inversions (suite ``cost``): clocks, counts, peak memory, and long descents scaled from short ones.

Memory is measured in a separate process, and a batch may be shared among several.  Processes start from scratch (spawn),
so that their memory is their own and they inherit no thread's lock.
"""

from __future__ import annotations

import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from igm_cli.benchmarks.timing import Clock, timed
from igm_cli.core.checkpoint import Checkpoint, load_checkpoint
from igm_cli.core.device import keep_freed_memory
from igm_cli.core.device import peak_memory as peak_gigabytes
from igm_cli.core.inference.call_counter import CallCounter
from igm_cli.core.inference.engine import invert
from igm_cli.core.types import InversionSettings

T = TypeVar("T")

FEW_SCORED = 8
"""Draws for scoring short descents; the full scoring is measured once, separately."""


def with_gflop(run: Callable[[], T]) -> tuple[T, float]:
    """Runs a function on one thread and counts its arithmetic, backward passes included.

    Counting slows it down: do not time it.

    Returns:
        The function's result, and 1e9 floating-point operations of matrix products, convolutions and
        attention (a multiplication and an addition are two); nothing else is counted.
    """
    counter, threads = FlopCounterMode(display=False), torch.get_num_threads()
    torch.set_num_threads(1)  # the counter sees the thread it is opened in
    try:
        with counter:
            result = run()
    finally:
        torch.set_num_threads(threads)
    return result, counter.get_total_flops() / 1e9


class NetworkUse(NamedTuple):
    """Use of the network in one run, or the mean of several."""

    passes: float  # noised images that the trunk saw
    contributions: float  # (noised image, concept) pairs
    network_calls: float  # as the inversion reports them
    gflop: float  # 1e9 floating-point operations; nan if not counted

    def along(self, other: NetworkUse, share: float) -> NetworkUse:
        """Returns the linear interpolation from this use to another at ``share``; extrapolates above 1."""
        return NetworkUse(*(a + share * (b - a) for a, b in zip(self, other, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields of a row."""
        gflop = None if self.gflop != self.gflop else self.gflop
        return {**self._asdict(), "whole_calls": self.passes + self.contributions, "gflop": gflop}


@dataclass(frozen=True)
class Meter:
    """Measures a model's inversions of images ``[C,H,W]``; ``flops`` says whether to count arithmetic."""

    checkpoint: Checkpoint
    flops: bool

    def timed(self, image: Tensor, settings: InversionSettings, k: int | None) -> Clock:
        """Times one inversion."""
        return timed(lambda: _invert(self.checkpoint, settings, image, k), image.device)[1]

    def counted(self, image: Tensor, settings: InversionSettings, k: int | None) -> NetworkUse:
        """Counts one untimed inversion."""
        tally, composition = CallCounter(self.checkpoint.denoiser), self.checkpoint.spec.composition

        def run() -> int:
            return invert(tally, image, settings, k=k, composition=composition).network_calls

        calls, gflop = with_gflop(run) if self.flops else (run(), float("nan"))
        return NetworkUse(tally.used.passes, tally.used.contributions, calls, gflop)

    def measure(
        self, images: Sequence[Tensor], settings: InversionSettings, k: int | None, repeats: int
    ) -> dict[str, Any]:
        """Returns the cost of inversions as fields of a row; each is timed ``repeats`` times after one warm-up."""
        self.timed(images[0], settings, k)
        clocks = [self.timed(image, settings, k) for image in images for _ in range(repeats)]
        counts = [self.counted(image, settings, k) for image in images]
        mean = NetworkUse(*map(statistics.fmean, zip(*counts, strict=True)))
        return {**_clocks(clocks), **mean.to_dict(), "runs": len(clocks)}

    def descent(
        self, images: Sequence[Tensor], settings: InversionSettings, k: int, short: int
    ) -> dict[str, Any]:
        """Returns the cost of ``settings.steps`` steps of descent, scaled from few, as fields of a row.

        It measures one step with the full scoring, and the cost of a further step between half and twice ``short``
        steps.  All steps have the same counts, and the same arithmetic except for windows that extend beyond the
        border.
        """
        lengths, more = (short // 2, short, 2 * short), settings.steps - 1

        def run(image: Tensor, steps: int, scored: int) -> Clock:
            return self.timed(image, replace(settings, steps=steps, score_draws=scored), k)

        run(images[0], 1, FEW_SCORED)
        totals, deviations = [], []
        for image in images:
            first = run(image, 1, settings.score_draws)
            runs = [run(image, steps, FEW_SCORED) for steps in lengths]
            wall, deviation = line(lengths, [r.seconds for r in runs])
            cpu, _ = line(lengths, [r.cpu_seconds for r in runs])
            totals.append(Clock(first.seconds + more * wall, first.cpu_seconds + more * cpu))
            deviations.append(deviation)
        one, two = (self.counted(images[0], replace(settings, steps=steps), k) for steps in (1, 2))
        scaled = {"scaled_from": list(lengths), "nonlinearity": max(deviations)}
        return {**_clocks(totals), **one.along(two, more).to_dict(), "runs": len(totals), **scaled}


def line(steps: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Returns the slope of seconds over steps by least squares, and the farthest point's relative distance from it."""
    slope, intercept = statistics.linear_regression(steps, seconds)
    return slope, max(abs(intercept + slope * n - s) / s for n, s in zip(steps, seconds, strict=True))


def repeated(row: dict[str, Any], times: int) -> dict[str, Any]:
    """Returns the fields of ``times`` successive runs, each like the one measured."""
    kept = ("label", "runs", "scaled_from", "nonlinearity")
    return {name: v if name in kept or v is None else v * times for name, v in row.items()}


def _clocks(clocks: Sequence[Clock]) -> dict[str, float]:
    seconds = [clock.seconds for clock in clocks]
    return {
        "seconds": statistics.fmean(seconds),
        "seconds_std": statistics.stdev(seconds) if len(seconds) > 1 else 0.0,
        "seconds_median": statistics.median(seconds),
        "cpu_seconds": statistics.fmean(clock.cpu_seconds for clock in clocks),
    }


def _invert(checkpoint: Checkpoint, settings: InversionSettings, image: Tensor, k: int | None = None) -> None:
    invert(checkpoint.denoiser, image, settings, k=k, composition=checkpoint.spec.composition)


_CPU = torch.device("cpu")
# In a worker process: what it inverts with, and the barrier where it waits for the others.
_opened: list[tuple[Checkpoint, InversionSettings]] = []
_barriers: list[Barrier] = []


def seconds_by_processes(folder: Path, settings: InversionSettings, images: Sequence[Tensor], n: int) -> float:
    """Returns the wall-clock seconds in which n warm processes of one thread invert all images, K estimated."""
    context = multiprocessing.get_context("spawn")
    arrays = [image.numpy() for image in images]
    setup = (folder, settings.to_dict(), arrays[0], context.Barrier(n))
    with ProcessPoolExecutor(n, context, _open_warm, setup) as pool:
        for task in [pool.submit(_meet) for _ in range(n)]:
            task.result()
        began = time.perf_counter()
        list(pool.map(_invert_array, arrays))
        return time.perf_counter() - began


def seconds_in_turn(checkpoint: Checkpoint, settings: InversionSettings, images: Sequence[Tensor]) -> float:
    """Returns the seconds in which this process inverts all images, K estimated, with all its threads."""
    run = partial(_invert, checkpoint, settings)
    run(images[0])
    return timed(lambda: [run(image) for image in images], images[0].device)[1].seconds


def seconds_by_threads(
    checkpoint: Checkpoint, settings: InversionSettings, images: Sequence[Tensor], n: int
) -> float:
    """Returns the wall-clock seconds in which n threads, each computing on one core, invert all images."""
    before = torch.get_num_threads()
    run = partial(_invert, checkpoint, settings)
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(run, [images[0]] * n))
            began = time.perf_counter()
            list(pool.map(run, images))
            return time.perf_counter() - began
    finally:
        torch.set_num_threads(before)


def peak_memory(
    folder: Path, settings: InversionSettings, image: Tensor, k: int, device: torch.device
) -> dict[str, Any]:
    """Returns the memory of one inversion in MB (1e6 bytes), as fields of a row.

    On CUDA this is the peak of tensors, otherwise the whole resident memory of a fresh process.
    """
    if device.type == "cuda":
        checkpoint = load_checkpoint(folder, device)
        _invert(checkpoint, settings, image, k)
        loaded = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        _invert(checkpoint, settings, image, k)
        peak = torch.cuda.max_memory_allocated(device)
        return {"process_mb": peak / 1e6, "memory_mb": (peak - loaded) / 1e6}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        array, threads = image.cpu().numpy(), torch.get_num_threads()
        return pool.submit(resident_peak, folder, settings.to_dict(), array, k, threads).result()


def resident_peak(
    folder: Path, settings: Mapping[str, Any], array: Any, k: int, threads: int
) -> dict[str, Any]:
    """Returns the peak resident memory of this process while it inverts one image, and before."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    checkpoint = load_checkpoint(folder, _CPU)
    reset = _reset_peak()
    loaded = _resident("VmRSS") if reset else _most_ever()
    _invert(checkpoint, InversionSettings.from_dict(settings), torch.from_numpy(array), k)
    peak = _resident("VmHWM") if reset else _most_ever()
    return {"process_mb": peak, "memory_mb": peak - loaded}


def _open_warm(folder: Path, settings: Mapping[str, Any], array: Any, barrier: Barrier) -> None:
    """Prepares a worker: loads its model and warms up by a first inversion."""
    torch.set_num_threads(1)
    keep_freed_memory()
    _opened.append((load_checkpoint(folder, _CPU), InversionSettings.from_dict(settings)))
    _barriers.append(barrier)
    _invert_array(array)


def _meet() -> None:
    """Returns once every worker is ready."""
    _barriers[0].wait(timeout=600)


def _invert_array(array: Any) -> None:
    _invert(*_opened[0], torch.from_numpy(array))


def _reset_peak() -> bool:
    """Makes the kernel reset the peak of resident memory; returns False if it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident(field: str) -> float:
    """Returns a field of the process status in MB (the kernel's kB are 1024 bytes)."""
    found = re.search(rf"^{field}:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else float("nan")


def _most_ever() -> float:
    """Returns the peak resident memory since the process began, in MB, for systems that cannot reset it."""
    most = peak_gigabytes(_CPU)
    return float("nan") if most is None else 1000 * most
