"""Bound vectors and codebooks in files: .npy, .npz and .safetensors; never a pickle.

A file of codebooks is a .safetensors with one tensor ``[n_k,D]`` a factor, named factor_0, factor_1, ...; its
metadata may name the binding.  It may hold bound vectors (``vectors``) and their indices (``truth``) too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from igm_cli.core.decomposition.binding import BINDINGS
from igm_cli.core.decomposition.codebooks import Codebooks, guess_binding
from igm_cli.core.decomposition.decompose import check_vectors
from igm_cli.core.decomposition.problems import Problems
from igm_cli.core.files import write_atomically
from igm_cli.errors import InputError
from igm_cli.plugins.codebook.arrays import PREFERRED, as_numbers, open_safetensors, read_array

TRUTH = "truth"
"""Name of the indices of the vectors' codewords, ``[B,K]`` or ``[B,S,K]``."""

_FACTOR = re.compile(r"factor_(0|[1-9]\d*)")


def read_vectors(path: Path) -> Tensor:
    """Bound vectors ``[B,D]``, float32 or complex64; one vector ``[D]`` is a batch of one.

    An archive holds them as its only array, or under the name ``vectors``.

    Raises:
        InputError: If the file cannot be read, or holds something else.
    """
    values = read_array(path)
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"{path} has the shape {list(values.shape)}; it must be [D] or [vectors, D]")
    return values


def check_bound(path: Path, vectors: Tensor, codebooks: Codebooks) -> None:
    """Refuses vectors that cannot be taken apart.

    Raises:
        InputError: Naming the file, the vector and what is wrong with it.
    """
    with _naming(path):
        check_vectors(vectors, codebooks)


def read_codebooks(path: Path, binding: str | None = None) -> Codebooks:
    """The codebooks of a file.

    Args:
        path: A .safetensors file.
        binding: ``map``, ``hrr`` or ``fhrr``; None takes the file's, or the one that the codewords look like.

    Raises:
        InputError: If the file cannot be read, or its codebooks cannot be used.
    """
    if path.suffix.lower() != ".safetensors":
        raise InputError(
            f"{path} is no file of codebooks; give a .safetensors file with factor_0, factor_1, ..."
        )
    with open_safetensors(path) as file:
        books = [as_numbers(path, file.get_tensor(name)) for name in _factors(path, list(file.keys()))]
        said = (file.metadata() or {}).get("binding")
    if binding is None and said is not None and said not in BINDINGS:
        raise InputError(f"{path} says the binding {said!r}; name one of {', '.join(BINDINGS)} with --binding")
    with _naming(path):
        return Codebooks(books, binding or said or guess_binding(books))


def write_codebooks(
    path: Path, books: Sequence[Tensor], binding: str, others: Mapping[str, Tensor] | None = None
) -> None:
    """Writes a file of codebooks.

    Args:
        path: Ends in .safetensors.
        books: Codewords ``[n_k,D]`` of every factor, torchhd's tensors too.
        binding: ``map``, ``hrr`` or ``fhrr``.
        others: Further tensors by name, such as ``vectors``.
    """
    from safetensors.torch import save_file

    named = {f"factor_{number}": book for number, book in enumerate(books)} | dict(others or {})
    plain = {name: value.as_subclass(Tensor).detach().cpu().contiguous() for name, value in named.items()}
    write_atomically(path, lambda temporary: save_file(plain, temporary, metadata={"binding": binding}))


def write_problems(path: Path, problems: Problems) -> None:
    """Writes codebooks with bound vectors and their truth, which ``igm invert`` reads as either."""
    books = problems.codebooks
    words = [books.binding.vector(spectrum, books.dim) for spectrum in books.spectra]
    write_codebooks(path, words, books.binding.name, {PREFERRED: problems.vectors, TRUTH: problems.truth})


def read_problems(path: Path) -> Problems:
    """Inverse of :func:`write_problems`.

    Raises:
        InputError: If the file holds none.
    """
    codebooks, vectors = read_codebooks(path), read_vectors(path)
    check_bound(path, vectors, codebooks)
    with open_safetensors(path) as file:
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


def _factors(path: Path, names: Sequence[str]) -> list[str]:
    """factor_0, factor_1, ... of the names, none missing."""
    numbers = sorted(int(name.removeprefix("factor_")) for name in names if _FACTOR.fullmatch(name))
    if not numbers:
        listed = ", ".join(sorted(names)[:5]) or "nothing"
        raise InputError(f"{path} holds {listed}; codebooks must be named factor_0, factor_1, ...")
    missing = sorted(set(range(numbers[-1] + 1)) - set(numbers))
    if missing:
        raise InputError(f"{path} has factor_{numbers[-1]} but no factor_{missing[0]}; number them from 0 on")
    return [f"factor_{number}" for number in numbers]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts a file's name before what is wrong with its contents."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
