"""Where and how precisely to compute."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import platform
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from igm_cli.errors import InputError, UsageError

T = TypeVar("T")
R = TypeVar("R")


def _other_devices() -> str:
    """Returns what to use instead of a missing GPU."""
    count = torch.cuda.device_count()
    if count:
        others = {1: "", 2: " and cuda:1"}.get(count, f" to cuda:{count - 1}")
        return f"this machine has cuda:0{others}"
    return f"this machine has no GPU that torch {torch.__version__} can use; use --device auto or cpu"


def resolve_device(name: str = "auto") -> torch.device:
    """Returns the device of a name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UsageError: If the name is none of these.
        InputError: If the device is missing.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if not re.fullmatch("cpu|mps|cuda(:[0-9]+)?", name):
        raise UsageError(f"unknown device {name!r}; choose auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda" and (len(number) > 4 or int(number or 0) >= torch.cuda.device_count()):
        raise InputError(f"device {name[:12]!r} is not here; {_other_devices()}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("device 'mps' is not here; use --device auto or cpu")
    return torch.device(name)


def runs_ahead(device: torch.device) -> bool:
    """Returns whether the host goes on while a device computes, so reading a result has to wait."""
    return device.type != "cpu"


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a copy of a host tensor on a device, without waiting for it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type != "mps")  # mps was known to copy too late


def fits(size: int, device: torch.device) -> bool:
    """Returns whether ``size`` bytes of data leave most of a device's free memory to computations."""
    if device.type == "cuda":
        return size <= torch.cuda.mem_get_info(device)[0] // 4
    return device.type != "mps" or size <= torch.mps.recommended_max_memory() // 4


def peak_memory(device: torch.device) -> float | None:
    """Returns the peak memory of tensors on a device, or of the process on a CPU, in GB; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 1e9
    try:
        import resource
    except ImportError:  # on Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e9 if sys.platform == "darwin" else most * 1024 / 1e9


@functools.cache
def has_triton(device: torch.device) -> bool:
    """Returns whether our own kernels run on a device: they are in Triton, which torch brings along with CUDA."""
    if device.type != "cuda":
        return False
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


@functools.cache
def fast_memory(device: torch.device) -> int:
    """Returns the bytes of memory that the threads of one program share on a GPU."""
    properties: Any = torch.cuda.get_device_properties(device)
    return int(properties.shared_memory_per_block_optin)


def search_device(device: torch.device) -> torch.device:
    """Returns where to run small computations in double precision: on the device, or on the CPU if it has none."""
    return torch.device("cpu") if device.type == "mps" else device


def has_bf16(device: torch.device) -> bool:
    """Returns whether the processor multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu" and platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_avx512_bf16_supported())
    return False


def gpu_state(number: int) -> dict[str, Any]:
    """Returns a CUDA device's properties and state; ``problem`` says why it cannot be used, and is empty if it can."""
    device = torch.device("cuda", number)
    state: dict[str, Any] = {"device": str(device), "name": "unknown", "memory_gb": None, "free_gb": None}
    state |= {"capability": None, "bf16": False, "tf32": False}
    try:
        known, (free, _) = torch.cuda.get_device_properties(device), torch.cuda.mem_get_info(device)
    except RuntimeError as error:  # busy, full or broken
        return state | {"problem": str(error).partition("\n")[0]}
    memory = {"memory_gb": round(known.total_memory / 1e9, 1), "free_gb": round(free / 1e9, 1)}
    what = {"name": known.name, "capability": f"{known.major}.{known.minor}"}
    return {**state, **what, **memory, "bf16": has_bf16(device), "tf32": known.major >= 8, "problem": ""}


def inference_precision(device: torch.device) -> AbstractContextManager[object]:
    """Returns bf16 autocast if the processor has it, else float32."""
    if has_bf16(device):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def training_precision(name: str, device: torch.device) -> str:
    """Returns the precision of training, ``no``, ``bf16`` or ``fp16``: ``auto`` is bf16 on a processor that has it.

    A device that does not support it is refused by an :class:`InputError`.
    """
    if name == "auto":
        return "bf16" if has_bf16(device) else "no"
    if name == "bf16" and device.type == "cuda" and not has_bf16(device):
        raise InputError("this GPU does not compute in bf16; use --precision auto or fp16")
    return name


@contextmanager
def tf32_products(device: torch.device) -> Iterator[None]:
    """Computes products of float32 matrices on a GPU in TF32 within the context, which training tolerates.

    Elsewhere they are exact: inference decides by small differences of errors.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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


class _Lane(threading.local):
    """How many threads a thread may divide its work among; 0 outside :func:`divided_work`."""

    threads = 0


_lane = _Lane()


@contextmanager
def divided_work(device: torch.device) -> Iterator[None]:
    """Divides CPU work by :func:`side_by_side` within the context, and no single operation.

    Coarse parts keep several cores busy where the small operations of an inference cannot.  As no operation is
    divided, results are the same on any number of threads.
    """
    if device.type != "cpu" or _lane.threads:
        yield
        return
    _lane.threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(_lane.threads)
        _lane.threads = 0


def side_by_side(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Returns a function's results for items, without gradients, on several threads within :func:`divided_work`.

    Nested calls run one after another.
    """
    if _lane.threads < 2 or len(items) < 2:
        return [function(item) for item in items]
    return list(_pool(_lane.threads).map(torch.no_grad()(function), items))


def on_streams(function: Callable[[Tensor], R], items: Sequence[Tensor]) -> list[R]:
    """Returns a function's results, which lie on the CPU, for tensors on one device, without gradients.

    On CUDA it is called two at a time: one computes while the host prepares another.
    """
    device = items[0].device
    if device.type != "cuda" or len(items) < 2:
        return [function(item) for item in items]
    before = torch.cuda.current_stream(device)
    streams = threading.local()

    def begin() -> None:
        streams.own = torch.cuda.Stream(device)
        streams.own.wait_stream(before)

    def run(item: Tensor) -> R:
        with torch.no_grad(), torch.cuda.stream(streams.own):
            return function(item)

    with ThreadPoolExecutor(2, thread_name_prefix="igm", initializer=begin) as pool:
        return list(pool.map(run, items))


def memory_of(device: torch.device) -> int:
    """Returns the bytes of memory of a device; those of a small one if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return 24 * 2**30


def floats_at_once(device: torch.device) -> int:
    """Returns how many floats an inference holds at a time, which bounds its memory: 128 MiB on a CPU."""
    return 2**25 if device.type == "cpu" else memory_of(device) // 64


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    def begin() -> None:
        _lane.threads = 1
        torch.set_num_threads(1)

    return ThreadPoolExecutor(threads, thread_name_prefix="igm", initializer=begin)
