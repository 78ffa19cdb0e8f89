"""Exhaustive search as a blocked matrix product: the reference for small problems."""

from __future__ import annotations

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.result import Decomposition, SearchState
from igm_cli.errors import UsageError

PRODUCTS_AT_ONCE = 2048  # few enough to stay in a processor's cache
ON_DEVICE = 2**15  # at once on another device, which fewer would leave idle
MOST_OPERATIONS = 1e14  # per problem, which take an hour or so


def exhaustive(codebooks: Codebooks, spectra: Tensor) -> Decomposition:
    """Returns the most similar of all products, for bound vectors ``[B,F]``.

    Raises:
        UsageError: If there are too many products.
    """
    if exhaustive_operations(codebooks) > MOST_OPERATIONS:
        raise UsageError(f"{codebooks.search_space} products are too many to try each; use --method auto")
    search = SearchState(codebooks, spectra)
    *sizes, last = codebooks.sizes
    best = torch.full((len(spectra),), -torch.inf, device=spectra.device)
    winner = torch.zeros(len(spectra), dtype=torch.long, device=spectra.device)
    beginnings = codebooks.search_space // last
    products_at_once = PRODUCTS_AT_ONCE if spectra.device.type == "cpu" else ON_DEVICE
    at_once = min(beginnings, max(1, products_at_once // last))
    room = codebooks.spectra[-1].new_empty(at_once, *codebooks.spectra[-1].shape)  # used again by each block
    for first in range(0, beginnings, at_once):
        block = torch.arange(first, min(first + at_once, beginnings), device=spectra.device)
        begin = codebooks.product(unravel(block, sizes), without=len(sizes))  # of the first K-1 factors [P',F]
        products = torch.mul(begin[:, None], codebooks.spectra[-1], out=room[: len(block)]).flatten(0, 1)
        scores, top = codebooks.compare(spectra, products).max(1)
        better = scores > best
        best = torch.where(better, scores, best)
        winner = torch.where(better, first * last + top, winner)
    indices = unravel(winner, codebooks.sizes)
    search.improve(search.undecided(), indices, codebooks.similarity(codebooks.product(indices), spectra))
    search.operations += exhaustive_operations(codebooks)
    return search.result()


def exhaustive_operations(codebooks: Codebooks) -> float:
    """Returns the multiplications and additions for one problem."""
    return 2.0 * codebooks.search_space * codebooks.values


def unravel(numbers: Tensor, sizes: list[int] | tuple[int, ...]) -> Tensor:
    """Converts numbers of products ``[N]`` to the indices of their codewords ``[N,len(sizes)]``."""
    indices = []
    for size in reversed(sizes):  # torch.unravel_index copies the sizes to the device and makes the host wait
        indices.append(numbers % size)
        numbers = numbers // size
    return torch.stack(indices[::-1], -1)
