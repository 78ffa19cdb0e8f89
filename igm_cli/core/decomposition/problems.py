"""Random problems: codebooks, products of their codewords, noise and superposition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.decomposition.binding import BINDINGS
from igm_cli.core.decomposition.codebooks import Codebooks


@dataclass(frozen=True)
class Problems:
    """Bound vectors ``[B,D]`` and the indices of their codewords ``[B,K]``, or ``[B,S,K]`` for superposed products."""

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
    """Draws codebooks and bound vectors.

    Args:
        codewords: Number n of codewords of each codebook.
        factors: Number K of codebooks.
        dim: Dimension D of the vectors.
        count: Number B of bound vectors.
        binding: ``map``, ``hrr`` or ``fhrr``.
        noise: Standard deviation of white noise on the bound vector, relative to that of the vector's coordinates.
        superposed: Number S of products summed in each vector.
        seed: Seed of codebooks, choices and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    kind = BINDINGS[binding]
    books = [kind.random(codewords, dim, generator) for _ in range(factors)]
    truth = torch.randint(0, codewords, (count, superposed, factors), generator=generator)
    chosen = [book[truth[..., k]] for k, book in enumerate(books)]  # [B,S,D] each
    vectors = kind.bind(*chosen).sum(1)
    if noise:
        std = vectors.abs().square().mean(1, keepdim=True).sqrt()
        # of variance one, also if complex
        white = torch.randn(vectors.shape, generator=generator, dtype=vectors.dtype)
        vectors = vectors + noise * std * white
    return Problems(Codebooks(books, binding), truth[:, 0] if superposed == 1 else truth, vectors)
