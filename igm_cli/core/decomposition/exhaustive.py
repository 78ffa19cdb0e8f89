"""Exhaustive search as a blocked matrix product: the honest reference of small problems."""

from __future__ import annotations

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.result import Decomposition, conclude

BLOCK = 8192
"""Products of all factors but one that are compared at once."""


def exhaustive(codebooks: Codebooks, spectra: Tensor) -> Decomposition:
    """The product of codewords that is most similar, of all there are.

    ``⟨y, ⊙_k x_k⟩ = ⟨y ⊙ conj(⊙_{j<K} x_j), x_K⟩`` is a matrix product over all x_K, for blocks of the others.

    Args:
        codebooks: K of them.
        spectra: Bound vectors ``[B,F]``.
    """
    found = torch.stack([_search(codebooks, each) for each in spectra])
    operations = torch.full((len(spectra),), exhaustive_operations(codebooks), dtype=torch.float64)
    return conclude(codebooks, spectra, found, torch.zeros_like(operations, dtype=torch.long), operations)


def exhaustive_operations(codebooks: Codebooks) -> float:
    """Multiplications and additions for one problem."""
    return 2.0 * codebooks.search_space * codebooks.values


def _search(codebooks: Codebooks, spectrum: Tensor) -> Tensor:
    """Of one bound vector ``[F]``: indices ``[K]``."""
    *sizes, last = codebooks.sizes
    squares = codebooks.spectra[-1].abs().square() * codebooks.weights  # [n,F]
    unit = bool((codebooks.norms[-1] - codebooks.norms[-1][0]).abs().max() < 1e-3) and not codebooks.binding.name == "hrr"
    best, winner = -torch.inf, torch.zeros(len(sizes) + 1, dtype=torch.long, device=spectrum.device)
    for block in torch.arange(codebooks.search_space // last, device=spectrum.device).split(BLOCK):
        indices = unravel(block, sizes)
        product = _product(codebooks, indices)
        scores = codebooks.scores(len(sizes), spectrum * product.conj())  # [block,n]
        if not unit:
            scores = scores / (product.abs().square() @ squares.T).sqrt().clamp_min(1e-20)
        top = scores.flatten().argmax()
        if float(scores.flatten()[top]) > best:
            best = float(scores.flatten()[top])
            winner = torch.cat([indices[top // last], top[None] % last])
    return winner


def unravel(numbers: Tensor, sizes: list[int] | tuple[int, ...]) -> Tensor:
    """Numbers of products ``[N]`` as indices of their factors ``[N,len(sizes)]``."""
    digits = []
    for size in reversed(sizes):
        digits.append(numbers % size)
        numbers = numbers // size
    return torch.stack(digits[::-1], -1)


def _product(codebooks: Codebooks, indices: Tensor) -> Tensor:
    """Spectra of products of the first factors ``[N,k]`` to ``[N,F]``."""
    result = codebooks.spectra[0][indices[:, 0]]
    for factor in range(1, indices.shape[1]):
        result = result * codebooks.spectra[factor][indices[:, factor]]
    return result
