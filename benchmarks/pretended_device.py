"""A simulated device: its tensors are on the CPU, but torch takes them for an accelerator's.

Code on it takes the accelerator's code paths, and every operation is recorded: which ones would start a kernel, and which
would make the host wait for the device.
"""

from __future__ import annotations

import collections
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

# What torch expects of a device module; the generator is that of the CPU.
_MODULE = SimpleNamespace(
    is_initialized=lambda: True,
    is_available=lambda: True,
    _is_in_bad_fork=lambda: False,
    current_device=lambda: 0,
    device_count=lambda: 1,
    manual_seed_all=lambda seed: None,
    get_rng_state=lambda device: torch.empty(0),
    set_rng_state=lambda state, device: None,
)
NAME = "pretended"
_setup_privateuseone_for_python_backend(NAME, _MODULE)
DEVICE = torch.device(NAME, 0)
aten = torch.ops.aten

WAITS = (
    "_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_linalg_check_errors", "unique",
)  # fmt: skip
"""Operations whose result or shape the host must know."""

FREE = (
    "view", "_unsafe_view", "expand", "permute", "transpose", "t", "mT", "select", "slice", "unsqueeze", "squeeze",
    "detach", "alias", "as_strided", "unbind", "split", "split_with_sizes", "chunk", "diagonal", "unfold", "empty",
    "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "_reshape_alias", "is_same_size",
)  # fmt: skip
"""Operations that start no kernel."""


class PretendedTensor(Tensor):
    """A tensor of the pretended device around one on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> PretendedTensor:
        """Wraps a tensor on the CPU."""
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
            requires_grad=inner.requires_grad,
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"pretended {self.inner!r}"


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Computes an operation of the pretended device on the CPU, and wraps the result."""
    if func is aten._conj.default:  # a lazy view, which a wrapper would lose
        func = aten._conj_physical.default
    inner_args = tree_map_only(PretendedTensor, lambda x: x.inner, args)
    inner_kwargs = tree_map_only(PretendedTensor, lambda x: x.inner, kwargs)
    on_cpu = False
    if inner_kwargs.get("device") is not None:
        on_cpu = torch.device(inner_kwargs["device"]).type == "cpu"
        inner_kwargs["device"] = torch.device("cpu")
    name = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)
    if name.endswith("_") and not name.endswith("__") and isinstance(args[0], PretendedTensor):
        func(*inner_args, **inner_kwargs)
        return args[0]
    out = func(*inner_args, **inner_kwargs)
    if on_cpu:
        return out
    if "out" in kwargs:
        return kwargs["out"]
    return tree_map_only(Tensor, PretendedTensor, out)


class MadeOnTheHost(TorchFunctionMode):
    """Makes ``torch.tensor(data, device=...)`` create the tensor on the host and copy it, so that the host waits."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and kwargs.get("device") is not None:
            return func(*args, **{**kwargs, "device": None}).to(kwargs["device"])
        return func(*args, **kwargs)


class Pretended(TorchDispatchMode):
    """Provides a pretended device within the block, and counts its operations.

    Args:
        lines: Whether to note the lines of igm that cause them.
        float64: Whether the device has float64; otherwise it raises a TypeError, as MPS does.

    Attributes:
        kernels: How often each operation would start a kernel.
        waits: How often each operation would make the host wait.
    """

    def __init__(self, lines: bool = False, float64: bool = True) -> None:
        super().__init__()
        self.float64 = float64
        self.lines, self.kernel_lines, self.wait_lines = lines, collections.Counter(), collections.Counter()
        self.kernels: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        asked = kwargs.get("device")
        there = any(isinstance(x, PretendedTensor) for x in tree_leaves((args, kwargs)))
        if not there and (asked is None or torch.device(asked).type != NAME):
            return func(*args, **kwargs)
        self.count(func, args, kwargs, there)
        made = run(func, args, kwargs)
        for tensor in tree_leaves(made):
            double = isinstance(tensor, PretendedTensor) and tensor.dtype in (torch.float64, torch.complex128)
            if double and not self.float64:
                raise TypeError(f"{func} makes float64, which the device does not have")
        return made

    def count(self, func: Any, args: Any, kwargs: dict[str, Any], there: bool) -> None:
        """Counts one operation."""
        name = func.overloadpacket.__name__
        asked = kwargs.get("device")
        if name in FREE:
            return
        self.kernels[name] += 1
        line = self.line() if self.lines else ""
        self.kernel_lines[line] += 1
        mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
        )
        copied = name == "_to_copy" and (not there or (asked is not None and torch.device(asked).type == "cpu"))
        copied = copied and not kwargs.get("non_blocking")
        if name == "copy_":
            copied = (isinstance(args[0], PretendedTensor) != isinstance(args[1], PretendedTensor)) and not (
                len(args) > 2 and args[2]
            )
        if name in WAITS or mask or copied:
            self.waits[name] += 1
            self.wait_lines[line] += 1

    @staticmethod
    def line() -> str:
        """Returns the line of igm that causes an operation, and its caller."""
        frames = [f for f in traceback.extract_stack() if "igm_cli" in f.filename]
        return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-2:]))
