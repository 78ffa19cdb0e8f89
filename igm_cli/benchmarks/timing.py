"""Clocks, and facts about the machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Clock:
    """One timed run: wall-clock seconds, and processor seconds of all threads."""

    seconds: float
    cpu_seconds: float


def clocked(run: Callable[[], Any], device: torch.device) -> Clock:
    """Times one run, including the work it started on the device."""
    synchronize(device)
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    synchronize(device)
    return Clock(time.perf_counter() - wall, time.process_time() - cpu)


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
    return (
        f"{machine['device']}, {machine['processor']}, {machine['threads']} threads on {machine['cores']} cores, "
        f"torch {machine['torch']}."
    )
