"""Sums of bound vectors: how many products there are, and which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.decomposition.auto import auto
from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.decompose import OWN_STREAM, check_vectors
from igm_cli.core.decomposition.result import BEYOND_CHANCE, Decomposition, beyond_chance, join, spread

REPRODUCED = 1e-4
"""Share of a vector's square below which nothing is left to explain."""


@dataclass(frozen=True)
class Superposition:
    """The products whose sum a vector is.

    Attributes:
        indices: Of their codewords ``[S,K]``, in the order in which they were found.
        confidence: Of every index ``[S,K]``.
        ambiguous: Whether another codeword of the factor would do as well ``[S,K]``.
        similarity: Cosine of every product and what the others leave of the vector ``[S]``.
        errors: Share of the vector's square that the best 0, 1, 2, ... products leave unexplained ``[k_max+1]`` or
            fewer, where nothing is left or nothing more is found.
    """

    indices: Tensor
    confidence: Tensor
    ambiguous: Tensor
    similarity: Tensor
    errors: Tensor

    @property
    def count(self) -> int:
        """Number of products."""
        return len(self.indices)


def superposition(vector: Tensor, codebooks: Codebooks, *, k_max: int = 8, seed: int = 0) -> Superposition:
    """Finds products one after the other, each in what those before it leave (orthogonal matching pursuit).

    A product counts if it is more similar to what is left than any of all products would be by chance.

    Args:
        vector: ``[D]``.
        codebooks: K of them.
        k_max: Most products looked for.
        seed: Of everything random.

    Raises:
        InputError: If the vector cannot be taken apart.
    """
    check_vectors(vector[None], codebooks)
    generator = torch.Generator().manual_seed(seed + OWN_STREAM)
    whole = codebooks.spectrum(vector[None])[0]
    found, left, errors = [], whole, [1.0]
    for _ in range(k_max):
        next_one = auto(codebooks, left[None], generator)
        by_chance = spread(codebooks, left[None], next_one.indices)
        if float(beyond_chance(codebooks, next_one.similarity, by_chance)[0]) < BEYOND_CHANCE:
            break
        found.append(next_one)
        left = _left(codebooks, whole, torch.cat([each.indices for each in found]))
        errors.append(_square(codebooks, left) / _square(codebooks, whole))
        if errors[-1] < REPRODUCED:
            break
    return _sorted_out(codebooks, whole, found, errors)


def _left(codebooks: Codebooks, whole: Tensor, indices: Tensor) -> Tensor:
    """What products ``[S,K]`` with the best real weights leave of a vector ``[F]``."""
    products = codebooks.product(indices)
    inner = (products.conj() * codebooks.weights) @ whole[:, None]
    gram = (products.conj() * codebooks.weights) @ products.T
    weights = torch.linalg.lstsq(gram.real.double(), inner.real.double()).solution.float()
    left: Tensor = whole - (weights * products).sum(0)
    return left


def _square(codebooks: Codebooks, spectrum: Tensor) -> float:
    return float((codebooks.weights * spectrum.abs().square()).sum())


def _sorted_out(
    codebooks: Codebooks, whole: Tensor, found: list[Decomposition], errors: list[float]
) -> Superposition:
    """The result, every product compared with what all others leave; on the CPU."""
    if not found:
        none = torch.zeros(0, len(codebooks.sizes))
        return Superposition(none.long(), none, none.bool(), torch.zeros(0), torch.tensor(errors))
    every = join(found)
    indices, similarity = torch.cat([each.indices for each in found]), []
    for number in range(len(indices)):
        rest = torch.cat([indices[:number], indices[number + 1 :]])
        left = _left(codebooks, whole, rest) if len(rest) else whole
        similarity.append(codebooks.similarity(codebooks.product(indices[number]), left))
    alike = torch.stack(similarity).cpu()
    return Superposition(every.indices, every.confidence, every.ambiguous, alike, torch.tensor(errors))
