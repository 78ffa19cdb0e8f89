"""Clocks, and facts about the machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch

from igm_cli.errors import counted

T = TypeVar("T")


class Clock(NamedTuple):
    """The time of a run: wall-clock seconds, and processor seconds of all threads."""

    seconds: float
    cpu_seconds: float


def timed(run: Callable[[], T], device: torch.device) -> tuple[T, Clock]:
    """Returns the result of a run, and its time until the device had done all of it."""
    synchronize(device)
    cpu, wall = time.process_time(), time.perf_counter()
    result = run()
    synchronize(device)
    return result, Clock(time.perf_counter() - wall, time.process_time() - cpu)


def synchronize(device: torch.device) -> None:
    """Waits until a device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine(device: torch.device) -> dict[str, Any]:
    """Returns facts about the machine, as JSON."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "processor": platform.processor() or platform.machine(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def machine_note(machine: dict[str, Any]) -> str:
    """Returns a sentence about the machine for a report."""
    threads, cores = counted(machine["threads"], "thread"), counted(machine["cores"], "core")
    return f"{machine['device']}, {machine['processor']}, {threads} on {cores}, torch {machine['torch']}."
