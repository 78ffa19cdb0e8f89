"""Exhaustive search as a blocked matrix product: the honest reference of small problems."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.result import Decomposition, conclude

PRODUCTS_AT_ONCE = 2048
"""Few enough to stay in a processor's cache."""


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
    at_once = min(len(beginnings), max(1, PRODUCTS_AT_ONCE // last))
    room = codebooks.spectra[-1].new_empty(at_once, *codebooks.spectra[-1].shape)  # for every block the same
    for block in beginnings.split(at_once):
        products = _products(codebooks, unravel(block, sizes), room[: len(block)])  # [P,F]
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


def _products(codebooks: Codebooks, beginnings: Tensor, room: Tensor) -> Tensor:
    """All products that begin with some codewords ``[N,K-1]``, in ``[N,n_K,F]``: spectra ``[N·n_K,F]``."""
    result = codebooks.spectra[0][beginnings[:, 0]]
    for factor in range(1, beginnings.shape[1]):
        result = result * codebooks.spectra[factor][beginnings[:, factor]]
    return torch.mul(result[:, None], codebooks.spectra[-1][None], out=room).flatten(0, 1)
