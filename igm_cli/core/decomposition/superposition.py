"""Sums of bound vectors: finds how many products they hold, and which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.decomposition.auto import auto
from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.decompose import OWN_STREAM, check_vectors
from igm_cli.core.decomposition.result import BEYOND_CHANCE, Decomposition, beyond_chance

REPRODUCED = 1e-4  # proportion of a vector's square below which nothing is left to explain


@dataclass(frozen=True)
class Superposition:
    """The S products that sum to a vector.

    Attributes:
        indices: Indices of their codewords ``[S,K]``, in the order in which they were found.
        confidence: Confidence in each index ``[S,K]``.
        ambiguous: True where another codeword of the factor fits equally well ``[S,K]``.
        similarity: Cosine of each product and what the others leave unexplained ``[S]``, negative if its weight is.
        errors: Proportion of the vector's square that the best 0, 1, 2, ... products leave unexplained ``[S+1]``.
    """

    indices: Tensor
    confidence: Tensor
    ambiguous: Tensor
    similarity: Tensor
    errors: Tensor

    @property
    def count(self) -> int:
        """Number S of products."""
        return len(self.indices)


def superposition(vector: Tensor, codebooks: Codebooks, *, k_max: int = 8, seed: int = 0) -> Superposition:
    """Finds products one after the other, each in the residual of those before it (orthogonal matching pursuit).

    A product counts if it, or else its negative, is more similar to the residual than the best of all products would be by
    chance.

    Args:
        vector: The sum ``[D]``.
        codebooks: Codebooks of K factors.
        k_max: Most products to find.
        seed: Seed of all random numbers.

    Raises:
        InputError: If the vector cannot be decomposed.
    """
    check_vectors(vector[None], codebooks)
    generator = torch.Generator().manual_seed(seed + OWN_STREAM)
    whole = codebooks.spectrum(vector[None])[0]
    residual, errors, none = whole, [1.0], torch.zeros(0, len(codebooks.sizes))
    indices, confidence, ambiguous = none.long().to(whole.device), none, none.bool()
    while len(indices) < k_max and errors[-1] >= REPRODUCED:
        found = _further(codebooks, residual[None], generator) or _further(
            codebooks, -residual[None], generator
        )
        if not found:
            break
        indices = torch.cat([indices, found.indices])
        confidence = torch.cat([confidence, found.confidence.cpu()])
        ambiguous = torch.cat([ambiguous, found.ambiguous.cpu()])
        residual = _residual(codebooks, whole, indices)
        errors.append(float(codebooks.square(residual)) / float(codebooks.square(whole)))
    similarity = []
    for s, each in enumerate(codebooks.product(indices)):
        without_it = _residual(codebooks, whole, torch.cat([indices[:s], indices[s + 1 :]]))
        similarity.append(float(codebooks.similarity(each, without_it)))
    return Superposition(indices.cpu(), confidence, ambiguous, torch.tensor(similarity), torch.tensor(errors))


def _further(codebooks: Codebooks, residual: Tensor, generator: torch.Generator) -> Decomposition | None:
    """Returns the product in a residual ``[1,F]``; None if it may be one by chance."""
    found = auto(codebooks, residual, generator)
    sure = beyond_chance(codebooks, found.similarity, residual, found.indices)
    return found if float(sure) >= BEYOND_CHANCE else None


DEPENDENT = 1e-6
"""Relative size of singular values of a Gram matrix that float32 cannot tell from 0: products that depend on each other."""


def _residual(codebooks: Codebooks, whole: Tensor, indices: Tensor) -> Tensor:
    """Returns the residual of a vector ``[F]`` under products ``[S,K]`` with the best real weights."""
    if not len(indices):
        return whole
    products = codebooks.product(indices)
    inner = (products.conj() * codebooks.weights) @ whole[:, None]
    gram = (products.conj() * codebooks.weights) @ products.T
    # On the CPU: CUDA's solver needs a full rank, which a product found twice has not, and MPS has no float64.
    normal = gram.real.cpu().double(), inner.real.cpu().double()
    weights = torch.linalg.lstsq(*normal, rcond=DEPENDENT).solution.float()
    residual: Tensor = whole - (weights.to(whole.device) * products).sum(0)
    return residual
