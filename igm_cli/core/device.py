"""Where and how precisely to compute."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from contextlib import AbstractContextManager

import torch

from igm_cli.errors import InputError, UsageError


def resolve_device(name: str = "auto") -> torch.device:
    """The device of a name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UsageError: If the name is none of these.
        InputError: If the device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise UsageError(f"unknown device {name!r}; choose auto, cpu, cuda or mps")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r} is not here; use --device auto or cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("device 'mps' is not here; use --device auto or cpu")
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """True if the processor multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu" and platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_avx512_bf16_supported())
    return False


def inference_precision(device: torch.device) -> AbstractContextManager[object]:
    """bf16 autocast where the processor has it, else float32."""
    if has_bf16(device):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def keep_freed_memory() -> None:
    """Tells glibc to keep large freed blocks instead of giving them back to the system.

    Every step frees and asks for the same megabytes; fetching them anew as zeroed pages takes about
    a quarter of a training step on a CPU.  Does nothing on another C library.
    """
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
    libc.mallopt(m_top_pad, 64 << 20)
