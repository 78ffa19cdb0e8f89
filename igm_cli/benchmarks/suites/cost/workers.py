"""Inversions in processes of their own: peak memory of one, and a batch shared among several.

Processes start afresh (spawn): the memory of one is its own, and no lock of a thread is inherited.
"""

from __future__ import annotations

import multiprocessing
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igm_cli.benchmarks.suites.cost.measure import Subject, clocked
from igm_cli.core.checkpoint import load_checkpoint
from igm_cli.core.device import keep_freed_memory
from igm_cli.core.inference.inversion import InversionSettings, invert

_CPU = torch.device("cpu")
# Of a worker process.
_opened: list[Subject] = []
_barriers: list[Barrier] = []


def seconds_by_processes(folder: Path, settings: InversionSettings, images: Sequence[Tensor], n: int) -> float:
    """Wall-clock seconds in which n warm processes of one thread invert all images, K estimated."""
    context = multiprocessing.get_context("spawn")
    arrays = [image.numpy() for image in images]
    setup = (folder, settings.to_dict(), arrays[0], context.Barrier(n))
    with ProcessPoolExecutor(n, context, _open_warm, setup) as pool:
        for task in [pool.submit(_meet) for _ in range(n)]:
            task.result()
        began = time.perf_counter()
        list(pool.map(_invert_array, arrays))
        return time.perf_counter() - began


def seconds_in_turn(subject: Subject, images: Sequence[Tensor]) -> float:
    """Wall-clock seconds in which this process inverts all images, K estimated, with all its threads."""
    run = _inverter(subject)
    run(images[0])
    return clocked(lambda: [run(image) for image in images], subject.device).seconds


def seconds_by_threads(subject: Subject, images: Sequence[Tensor], n: int) -> float:
    """Wall-clock seconds in which n threads, each computing on one core, invert all images."""
    before = torch.get_num_threads()
    run = _inverter(subject)
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
    """Memory of one inversion in MB (1e6 bytes), as fields of a row.

    On CUDA what tensors took at most; else the resident memory of a fresh process, with everything.
    """
    if device.type == "cuda":
        return _cuda_peak(_load(folder, settings, device), image, k)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        task = pool.submit(
            resident_peak, folder, settings.to_dict(), image.cpu().numpy(), k, torch.get_num_threads()
        )
        return task.result()


def resident_peak(
    folder: Path, settings: Mapping[str, Any], array: Any, k: int, threads: int
) -> dict[str, Any]:
    """Peak resident memory of this process while it inverts one image, and before."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    subject = _load(folder, InversionSettings.from_dict(settings), _CPU)
    reset = _reset_peak()
    loaded = _resident("VmRSS") if reset else _most_ever()
    invert(subject.denoiser, torch.from_numpy(array), subject.settings, k=k, composition=subject.composition)
    peak = _resident("VmHWM") if reset else _most_ever()
    return {"process_mb": peak, "memory_mb": peak - loaded}


def _inverter(subject: Subject) -> Callable[[Tensor], None]:
    """Inverts an image, K estimated."""

    def run(image: Tensor) -> None:
        invert(subject.denoiser, image, subject.settings, composition=subject.composition)

    return run


def _cuda_peak(subject: Subject, image: Tensor, k: int) -> dict[str, Any]:
    device = subject.device
    invert(subject.denoiser, image, subject.settings, k=k, composition=subject.composition)
    loaded = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    invert(subject.denoiser, image, subject.settings, k=k, composition=subject.composition)
    peak = torch.cuda.max_memory_allocated(device)
    return {"process_mb": peak / 1e6, "memory_mb": (peak - loaded) / 1e6}


def _load(folder: Path, settings: InversionSettings, device: torch.device) -> Subject:
    checkpoint = load_checkpoint(folder, device)
    return Subject(checkpoint.denoiser, checkpoint.composition, settings, device)


def _open_warm(folder: Path, settings: Mapping[str, Any], array: Any, barrier: Barrier) -> None:
    """Makes a worker ready: its model and, with a first inversion, everything else."""
    torch.set_num_threads(1)
    keep_freed_memory()
    _opened.append(_load(folder, InversionSettings.from_dict(settings), _CPU))
    _barriers.append(barrier)
    _invert_array(array)


def _meet() -> None:
    """Returns once every worker is here, and so ready."""
    _barriers[0].wait(timeout=600)


def _invert_array(array: Any) -> None:
    _inverter(_opened[0])(torch.from_numpy(array))


def _reset_peak() -> bool:
    """Lets the kernel forget the highest resident memory so far; False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident(field: str) -> float:
    """A line of the process' status in MB (the kernel's kB are 1024 bytes)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return float(value.split()[0]) * 1024 / 1e6
    return float("nan")


def _most_ever() -> float:
    """The highest resident memory since the process began, in MB, where it cannot be reset."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
