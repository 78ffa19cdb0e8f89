"""Bound vectors and codebooks in .npy, .npz and .safetensors files; never a pickle.

A file of codebooks is a .safetensors with one tensor ``[n_k,D]`` per factor, named factor_0, factor_1, ...; its
metadata may name the binding.  It may also hold bound vectors (``vectors``) and their indices (``truth``).
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from igm_cli.core.decomposition.binding import BINDINGS
from igm_cli.core.decomposition.codebooks import Codebooks, factor_names, guess_binding, numbers
from igm_cli.core.decomposition.decompose import check_vectors
from igm_cli.core.decomposition.problems import Problems
from igm_cli.errors import InputError, some
from igm_cli.imaging import MAX_BYTES, opened

SUFFIXES = (".npy", ".npz", ".safetensors")
VECTORS = "vectors"  # name of the array to read if there are several
TRUTH = "truth"  # name of the indices of the vectors' codewords, [B,K] or [B,S,K]

_DAMAGED = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError)


def read_vectors(path: Path, codebooks: Codebooks | None = None) -> Tensor:
    """Returns bound vectors ``[B,D]``, or a single one ``[D]``, float32 or complex64.

    An archive holds them as its only array, or under the name ``vectors``.
    """
    _check_readable(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is not a file of vectors; give a .npy, .npz or .safetensors file")
    if path.suffix.lower() == ".safetensors":
        with _open_safetensors(path) as file:
            array = _tensor(path, file, _only_name(path, list(file.keys())))
    else:
        array = _numpy_array(path)
    values = numbers(array, str(path))
    if values.ndim not in (1, 2):
        what = f"an array of the shape {list(values.shape)}" if values.ndim else "a single number"
        raise InputError(
            f"{path} holds {what}; bound vectors must be an array of the shape [D] or [vectors, D]"
        )
    if 0 in values.shape:
        raise InputError(f"{path} holds an array without a number; save the bound vectors again")
    if codebooks is not None:
        with _naming(path):
            check_vectors(torch.atleast_2d(values), codebooks)
    return values


def read_codebooks(path: Path, binding: str | None = None) -> Codebooks:
    """Returns the codebooks of a file.

    Args:
        path: A .safetensors file.
        binding: ``map``, ``hrr`` or ``fhrr``; None takes the file's, else the one that fits the codewords: ``fhrr``
            for complex ones, ``map`` for ±1, ``hrr`` for other real ones.
    """
    _check_readable(path)
    if path.suffix.lower() != ".safetensors":
        raise InputError(
            f"{path} is not a .safetensors file; save the codebooks in one, as tensors [codewords, D] named factor_0, "
            "factor_1, ... (save_file of safetensors.numpy does)"
        )
    with _open_safetensors(path) as file:
        names = factor_names(list(file.keys()), str(path))
        books = [numbers(_tensor(path, file, name), str(path)) for name in names]
        named = (file.metadata() or {}).get("binding")
    if binding is None and named is not None and named not in BINDINGS:
        raise InputError(f"{path} says the binding {named!r}; name one of {', '.join(BINDINGS)} with --binding")
    with _naming(path):
        made = Codebooks(books, binding or named or guess_binding(books))
    made.guessed = not (binding or named)
    return made


def read_problems(path: Path) -> Problems:
    """Returns the codebooks of a file, with its bound vectors and their truth."""
    codebooks = read_codebooks(path)
    vectors = torch.atleast_2d(read_vectors(path, codebooks))
    with _open_safetensors(path) as file:
        if TRUTH not in file.keys():  # noqa: SIM118
            raise InputError(
                f"{path} has no tensor {TRUTH!r}; write the indices of the vectors' codewords to it"
            )
        truth = file.get_tensor(TRUTH).long()
    shape, factors = list(truth.shape), len(codebooks.sizes)
    if truth.ndim not in (2, 3) or shape[0] != len(vectors) or shape[-1] != factors:
        raise InputError(f"the truth of {path} has the shape {shape}; it must be [{len(vectors)}, {factors}]")
    if (truth < 0).any() or (truth >= torch.tensor(codebooks.sizes)).any():
        raise InputError(f"the truth of {path} names codewords that its codebooks do not have; correct it")
    return Problems(codebooks, truth, vectors)


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        opened = safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a .safetensors file that can be read; save it again") from error
    with opened as file:
        yield file


def _numpy_array(path: Path) -> Any:
    """Returns the array of a .npy, or the one array of a .npz."""
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                if file.read(1) == b"\x93":
                    file.seek(0)
                    _check_header(path, file)
            return np.load(path, allow_pickle=False)
        with np.load(path, allow_pickle=False) as loaded:
            name = _only_name(path, loaded.files)
            with loaded.zip.open(name if name in loaded.zip.namelist() else f"{name}.npy") as file:
                _check_header(path, file)
            return loaded[name]
    except InputError:
        raise
    except _DAMAGED as error:
        # NumPy takes any unknown file for a pickle, which begins with this byte
        with path.open("rb") as file:
            pickled = "pickle" in str(error).lower() and file.read(1) == b"\x80"
        if pickled or "Object arrays" in str(error):
            raise InputError(
                f"{path} holds a pickle, which could run any code, so it is not opened; save a plain array of numbers"
            ) from error
        raise InputError(
            f"{path} is not a {path.suffix.lower()} file that can be read; save it again"
        ) from error


def _check_header(path: Path, file: IO[bytes]) -> None:
    """Refuses an array that would take too much memory, according to its header."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    _check_size(path, shape, dtype.itemsize)


def _tensor(path: Path, file: Any, name: str) -> Tensor:
    """Returns a tensor of a .safetensors file, unless it would take too much memory."""
    _check_size(path, file.get_slice(name).get_shape(), 8)
    found: Tensor = file.get_tensor(name)
    return found


def _check_size(path: Path, shape: Sequence[int], width: int) -> None:
    takes = math.prod(shape) * max(width, 8)
    if takes > MAX_BYTES:
        raise InputError(
            f"{path} has the shape {list(shape)[:4]}, which takes {takes / 2**30:.1f} GB, more than igm allows "
            f"({MAX_BYTES >> 30} GB); give it in several files"
        )


def _check_readable(path: Path) -> None:
    """Refuses a path unless it is a readable file that is not empty."""
    with opened(path) as file:
        if not file.read(1):
            raise InputError(f"{path} is empty (0 bytes); save it again")


def _only_name(path: Path, names: Sequence[str]) -> str:
    """Returns the name of the vectors among the arrays of an archive."""
    if VECTORS in names:
        return VECTORS
    if len(names) == 1:
        return names[0]
    if not names:
        raise InputError(f"{path} holds no array; save the vectors under the name {VECTORS!r}")
    raise InputError(f"{path} holds {len(names)} arrays ({some(names, 5)}); name the bound vectors {VECTORS!r}")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts a file's name before errors about its contents."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
