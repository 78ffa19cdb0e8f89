"""Weights on disk: safetensors files, written atomically, all of their values finite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from igm_cli.core.files import write_atomically
from igm_cli.errors import InputError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file, floating-point ones as float32; an InputError if it is damaged."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"the weights {path} cannot be used: {str(error).strip().splitlines()[0]}") from error
    require_finite(tensors, f"the weights {path}", "take another copy, or train the model again")
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def write_weights(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Writes tensors by name atomically, floating-point ones as ``dtype``; values must be finite in that type."""
    stored = {}
    for name, value in tensors.items():
        stored[name] = (
            (value.to(dtype) if dtype and value.is_floating_point() else value).detach().cpu().contiguous()
        )
    require_finite(stored)
    write_atomically(path, lambda temporary: save_file(stored, temporary, {"format": "pt"}))


def require_finite(
    tensors: Mapping[str, Tensor],
    what: str = "the weights to be saved",
    way_out: str = "lower the learning rate, or store them with half = false",
) -> None:
    """Raises an :class:`InputError` if a floating-point tensor holds a value that is not finite."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise InputError(f"{what} hold values that are not finite, in {name}; {way_out}")
