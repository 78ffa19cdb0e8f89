"""Random problems: codebooks, products of their codewords, noise and superposition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.decomposition.binding import BINDINGS
from igm_cli.core.decomposition.codebooks import Codebooks


@dataclass(frozen=True)
class Problems:
    """Bound vectors and how they came about.

    Attributes:
        codebooks: K of them.
        truth: Indices ``[B,K]``; of superposed products ``[B,S,K]``.
        vectors: ``[B,D]``.
    """

    codebooks: Codebooks
    truth: Tensor
    vectors: Tensor


def random_problems(
    codewords: int,
    factors: int,
    dim: int,
    count: int,
    *,
    binding: str = "map",
    noise: float = 0.0,
    superposed: int = 1,
    seed: int = 0,
) -> Problems:
    """Random codebooks and bound vectors.

    Args:
        codewords: n of every codebook.
        factors: K.
        dim: D.
        count: B.
        binding: ``map``, ``hrr`` or ``fhrr``.
        noise: Standard deviation of white noise on the bound vector, over that of the vector's coordinates.
        superposed: Products whose sum a vector is.
        seed: Of everything.
    """
    generator = torch.Generator().manual_seed(seed)
    kind = BINDINGS[binding]
    books = [kind.random(codewords, dim, generator) for _ in range(factors)]
    truth = torch.randint(0, codewords, (count, superposed, factors), generator=generator)
    vectors = sum(kind.bind(*(book[truth[:, s, k]] for k, book in enumerate(books))) for s in range(superposed))
    assert isinstance(vectors, Tensor)  # at least one product
    if noise:
        spread = vectors.abs().square().mean(1, keepdim=True).sqrt()
        vectors = vectors + noise * spread * _white(vectors, generator)
    return Problems(Codebooks(books, binding), truth[:, 0] if superposed == 1 else truth, vectors)


def _white(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise, of variance one for complex numbers too."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)
