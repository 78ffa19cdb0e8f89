"""Meeting in the middle: the products of half the factors are looked up among those of the other half.

If y = ⊙_k x_k, then y ⊙ conj(⊙_{k∈A} x_k) = ⊙_{k∈B} x_k.  The signs of b coordinates are a key, so a table of the products
over B is queried for each product over A: n^|A| queries instead of n^K comparisons.  Noise flips signs; then other
coordinates, drawn among those of the largest modulus, are tried until the answer is beyond chance.
"""

from __future__ import annotations

import math
from functools import reduce
from itertools import combinations

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.exhaustive import unravel

SPARE_BITS = 3  # of a key beyond those that number all products: a vector meets 2^-3 wrong pairs by chance
MOST_BITS = 60  # of a key
MOST_HITS = 4  # entries of one key that are returned; codewords that differ in few coordinates share a key


class Halves:
    """Two halves of the factors with nearly equal numbers of products: one queries a table, the other makes its entries.

    Attributes:
        queries: Number of queries per bound vector.
        entries: Number of entries of a table.
        bits: Bits b of a key.
        operations: Arithmetic of a table and its queries for one problem: keys, a sort, and look-ups.
    """

    def __init__(self, codebooks: Codebooks) -> None:
        self.codebooks, sizes = codebooks, codebooks.sizes
        self.query_factors, self.table_factors = _halves(sizes)
        self.query_sizes = tuple(sizes[k] for k in self.query_factors)
        self.table_sizes = tuple(sizes[k] for k in self.table_factors)
        self.queries, self.entries = math.prod(self.query_sizes), math.prod(self.table_sizes)
        wanted = math.ceil(math.log2(codebooks.search_space)) + SPARE_BITS
        self.bits = min(MOST_BITS, wanted, codebooks.spectra[0].shape[1])
        each = 2 * self.bits + 2 * math.log2(max(2, self.entries))
        self.operations = float((self.queries + self.entries) * each)

    def meet(self, spectra: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Returns all pairs of products whose keys agree: indices of problems ``[H]`` and of codewords ``[H,K]``.

        The key's coordinates are ``[b]``, the bound vectors at these are ``[B,b]``.
        """
        codebooks = self.codebooks
        sorted_keys, order = _keys(_products(codebooks, self.table_factors, coordinates)).sort(stable=True)
        keys, entries = sorted_keys.unique_consecutive(return_counts=True)
        queries = spectra[:, None] * _products(codebooks, self.query_factors, coordinates).conj()
        wanted = _keys(queries).flatten()  # [B·queries]
        place = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
        number = (keys[place] == wanted).nonzero()[:, 0]  # queries that some entry answers [A]
        place = place[number]
        hits = entries[place].clamp_max(MOST_HITS)
        source = number.repeat_interleave(hits)  # [H]
        offset = torch.arange(len(source), device=keys.device) - (hits.cumsum(0) - hits).repeat_interleave(hits)
        first = (entries.cumsum(0) - entries)[place]
        entry = order[first.repeat_interleave(hits) + offset]
        queried, found = unravel(source % self.queries, self.query_sizes), unravel(entry, self.table_sizes)
        numbered = zip([*self.query_factors, *self.table_factors], [*queried.T, *found.T], strict=True)
        columns = dict(numbered)
        return source // self.queries, torch.stack([columns[k] for k in range(len(columns))], 1)


def _halves(sizes: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Returns the factors in two parts with numbers of products as equal as possible, the smaller part first."""
    factors, total = range(len(sizes)), math.prod(sizes)
    parts = [part for n in factors[1:] for part in combinations(factors, n)]
    counts = {part: math.prod(sizes[k] for k in part) for part in parts}
    smaller = min((-count, part) for part, count in counts.items() if count**2 <= total)[1]
    return list(smaller), [k for k in factors if k not in smaller]


def _products(codebooks: Codebooks, factors: list[int], coordinates: Tensor) -> Tensor:
    """Returns all products of codewords of some factors at some coordinates ``[N,b]``."""
    books = (codebooks.spectra[k][:, coordinates] for k in factors)
    return reduce(lambda one, other: (one[:, None] * other[None]).flatten(0, 1), books)


def _keys(products: Tensor) -> Tensor:
    """Returns the signs of the real parts as the bits of a number: ``[...,b]`` to ``[...]``."""
    keys = torch.zeros(products.shape[:-1], dtype=torch.long, device=products.device)
    for bit in range(products.shape[-1]):
        keys |= (products[..., bit].real < 0).long() << bit
    return keys
