"""Writes the files of codebooks, bound vectors and their truth that ``igm invert`` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from igm_cli.core.decomposition.problems import Problems
from igm_cli.plugins.codebook.files import TRUTH, VECTORS


def write_codebooks(
    path: Path, books: Sequence[Tensor], binding: str, others: Mapping[str, Tensor] | None = None
) -> None:
    """Writes the codewords ``[n_k,D]`` of each factor, torchhd's tensors, too, and other tensors by name."""
    named = {f"factor_{number}": book for number, book in enumerate(books)} | dict(others or {})
    plain = {name: value.as_subclass(Tensor).detach().cpu().contiguous() for name, value in named.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(plain, path, metadata={"binding": binding})


def write_problems(path: Path, problems: Problems) -> None:
    """Writes codebooks with bound vectors and their truth, which ``igm invert`` reads as either."""
    books = problems.codebooks
    words = [books.binding.vector(spectrum, books.dim) for spectrum in books.spectra]
    write_codebooks(path, words, books.binding.name, {VECTORS: problems.vectors, TRUTH: problems.truth})
