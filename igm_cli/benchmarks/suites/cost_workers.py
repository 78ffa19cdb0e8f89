"""Inversions in processes of their own: peak memory of one, and a batch shared among several (suite ``cost``).

Processes start afresh (spawn): the memory of one is its own, and no lock of a thread is inherited.
"""

from __future__ import annotations

import multiprocessing
import platform
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igm_cli.benchmarks.timing import clocked
from igm_cli.core.checkpoint import Checkpoint, load_checkpoint
from igm_cli.core.device import keep_freed_memory
from igm_cli.core.inference.engine import invert
from igm_cli.core.types import InversionSettings

_CPU = torch.device("cpu")
# Of a worker process: what it inverts with, and where it waits for the others.
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
    return clocked(lambda: [run(image) for image in images], images[0].device).seconds


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

    On CUDA the most that tensors took; else the resident memory of a fresh process, with everything.
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


def _invert(checkpoint: Checkpoint, settings: InversionSettings, image: Tensor, k: int | None = None) -> None:
    invert(checkpoint.denoiser, image, settings, k=k, composition=checkpoint.spec.composition)


def _open_warm(folder: Path, settings: Mapping[str, Any], array: Any, barrier: Barrier) -> None:
    """Makes a worker ready: its model and, with a first inversion, everything else."""
    torch.set_num_threads(1)
    keep_freed_memory()
    _opened.append((load_checkpoint(folder, _CPU), InversionSettings.from_dict(settings)))
    _barriers.append(barrier)
    _invert_array(array)


def _meet() -> None:
    """Returns once every worker is here, and so ready."""
    _barriers[0].wait(timeout=600)


def _invert_array(array: Any) -> None:
    _invert(*_opened[0], torch.from_numpy(array))


def _reset_peak() -> bool:
    """Lets the kernel forget the highest resident memory so far; returns False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident(field: str) -> float:
    """Returns a line of the process' status in MB (the kernel's kB are 1024 bytes)."""
    found = re.search(rf"^{field}:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else float("nan")


def _most_ever() -> float:
    """Returns the highest resident memory since the process began, in MB, where it cannot be reset."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
