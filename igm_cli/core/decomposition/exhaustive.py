"""Exhaustive search as a blocked matrix product: the honest reference of small problems."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.result import Decomposition, conclude

PRODUCTS_AT_ONCE = 8192


def exhaustive(codebooks: Codebooks, spectra: Tensor) -> Decomposition:
    """The product of codewords that is most similar, of all there are.

    Args:
        codebooks: K of them.
        spectra: Bound vectors ``[B,F]``.
    """
    *sizes, last = codebooks.sizes
    best = torch.full((len(spectra),), -torch.inf, device=spectra.device)
    winner = torch.zeros(len(spectra), dtype=torch.long, device=spectra.device)
    beginnings = torch.arange(codebooks.search_space // last, device=spectra.device)
    for block in beginnings.split(max(1, PRODUCTS_AT_ONCE // last)):
        products = _products(codebooks, unravel(block, sizes))  # [P,F]
        scores, top = codebooks.compare(spectra, products).max(1)
        better = scores > best
        best = torch.where(better, scores, best)
        winner = torch.where(better, block[0] * last + top, winner)
    operations = torch.full((len(spectra),), exhaustive_operations(codebooks), dtype=torch.float64)
    none = torch.zeros(len(spectra), dtype=torch.long, device=spectra.device)
    return conclude(codebooks, spectra, unravel(winner, codebooks.sizes), none, operations.to(spectra.device))


def exhaustive_operations(codebooks: Codebooks) -> float:
    """Multiplications and additions for one problem."""
    return 2.0 * codebooks.search_space * codebooks.values


def unravel(numbers: Tensor, sizes: Sequence[int]) -> Tensor:
    """Numbers of products ``[N]`` as indices of their factors ``[N,len(sizes)]``."""
    digits = []
    for size in reversed(sizes):
        digits.append(numbers % size)
        numbers = numbers // size
    return torch.stack(digits[::-1], -1)


def _products(codebooks: Codebooks, beginnings: Tensor) -> Tensor:
    """All products that begin with some codewords ``[N,K-1]``: spectra ``[N·n_K,F]``."""
    result = codebooks.spectra[0][beginnings[:, 0]]
    for factor in range(1, beginnings.shape[1]):
        result = result * codebooks.spectra[factor][beginnings[:, factor]]
    return (result[:, None] * codebooks.spectra[-1][None]).flatten(0, 1)
