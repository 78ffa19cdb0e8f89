"""Arrays of numbers in .npy, .npz and .safetensors files; never a pickle."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igm_cli.errors import InputError

SUFFIXES = (".npy", ".npz", ".safetensors")

PREFERRED = "vectors"
"""Name of the array that is read of several."""

_DAMAGED = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError)


def read_array(path: Path) -> Tensor:
    """The array of a file as float32 or complex64.

    An archive holds it alone, or under the name ``vectors``.

    Raises:
        InputError: If the file cannot be read, or holds something else.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path} is no file of vectors; give a .npy, .npz or .safetensors file")
    if suffix == ".safetensors":
        with open_safetensors(path) as file:
            return as_numbers(path, file.get_tensor(_only_name(path, file.keys())))
    check_readable(path)
    return as_numbers(path, _numpy_array(path))


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """An open .safetensors file.

    Raises:
        InputError: If it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    check_readable(path)
    try:
        opened = safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is no .safetensors file that can be read; save it again") from error
    with opened as file:
        yield file


def check_readable(path: Path) -> None:
    """Raises an :class:`InputError` unless a path is a file with something in it that may be read."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{path} cannot be read ({reason}); change its permissions") from error
    if empty:
        raise InputError(f"{path} is empty (0 bytes); save it again")


def _numpy_array(path: Path) -> Any:
    """The array of a .npy, or the one of a .npz."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            return loaded
        with loaded:
            return loaded[_only_name(path, loaded.files)]
    except InputError:
        raise
    except _DAMAGED as error:
        if "pickle" in str(error).lower() and _is_pickled(path, str(error)):
            raise InputError(
                f"{path} holds a pickle, which could run any code, so it is not opened; save a plain array of numbers"
            ) from error
        raise InputError(f"{path} is no {path.suffix.lower()} file that can be read; save it again") from error


def _is_pickled(path: Path, says: str) -> bool:
    """Whether it is a pickle or an array of objects; NumPy takes anything unknown for a pickle."""
    with path.open("rb") as file:
        return "Object arrays" in says or file.read(1) == b"\x80"


def _only_name(path: Path, names: Sequence[str]) -> str:
    names = list(names)
    if PREFERRED in names or len(names) == 1:
        return PREFERRED if PREFERRED in names else names[0]
    if not names:
        raise InputError(f"{path} holds no array; save the vectors under the name {PREFERRED!r}")
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise InputError(f"{path} holds {len(names)} arrays ({listed}); name the bound vectors {PREFERRED!r}")


def as_numbers(path: Path, values: Any) -> Tensor:
    """An array or tensor as float32 or complex64.

    Raises:
        InputError: If it does not hold numbers.
    """
    if isinstance(values, Tensor):
        if values.dtype == torch.bool:
            raise InputError(f"{path} holds truth values, not numbers; bipolar vectors hold 1 and -1")
        return values.to(torch.complex64 if torch.is_complex(values) else torch.float32)
    if values.dtype.kind not in "iufc":
        kind = "truth values" if values.dtype.kind == "b" else f"values of the kind {values.dtype}"
        raise InputError(f"{path} holds {kind}, not numbers; bipolar vectors hold 1 and -1")
    with np.errstate(over="ignore"):  # infinite then, which is refused as such
        plain = np.array(values, dtype=np.complex64 if values.dtype.kind == "c" else np.float32)
    return torch.from_numpy(plain)
