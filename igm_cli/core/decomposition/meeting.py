"""Meeting in the middle: the products of half the factors are looked up among those of the other half.

If y = ⊙_k x_k, then y ⊙ conj(⊙_{k∈A} x_k) = ⊙_{k∈B} x_k.  The signs of some b coordinates are a key, so a table of the
products over B is asked for every product over A: n^|A| questions instead of n^K comparisons.  Noise turns signs; another
b coordinates, drawn among those that are most sure, are tried until the answer is beyond chance.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.exhaustive import unravel

SPARE_BITS = 3
"""A key has so many bits more than it takes to number all products: chance hits are one in 2^3 then."""

MOST_BITS = 60


class Halves:
    """The factors in two halves of nearly equal products.

    Args:
        codebooks: K of them.

    Attributes:
        asked: Factors of the smaller half, which asks.
        table: The others, which are looked up.
        bits: Of a key.
    """

    def __init__(self, codebooks: Codebooks) -> None:
        self.codebooks = codebooks
        self.asked, self.table = _halves(codebooks.sizes)
        self.questions = math.prod(codebooks.sizes[k] for k in self.asked)
        self.entries = math.prod(codebooks.sizes[k] for k in self.table)
        wanted = math.ceil(math.log2(codebooks.search_space)) + SPARE_BITS
        self.bits = min(MOST_BITS, wanted, codebooks.spectra[0].shape[1])

    @property
    def operations(self) -> float:
        """Of a table and its questions for one problem: keys, a sort, and look-ups."""
        total = self.questions + self.entries
        return float(total * (2 * self.bits + 2 * math.log2(max(2, self.entries))))

    def meet(self, spectra: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """All pairs of products whose keys agree.

        Args:
            spectra: Bound vectors at the key's coordinates ``[B,b]``.
            coordinates: These ``[b]``.

        Returns:
            Numbers of the problems ``[H]`` and indices ``[H,K]``.
        """
        codebooks = self.codebooks
        there = _products(codebooks, self.table, coordinates)  # [entries,b]
        sorted_keys, order = _keys(there).sort()
        keys, entries = sorted_keys.unique_consecutive(return_counts=True)
        here = spectra[:, None] * _products(codebooks, self.asked, coordinates).conj()
        wanted = _keys(here).flatten()  # [B·questions]
        place = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
        number = (keys[place] == wanted).nonzero()[:, 0]  # questions that some entries answer
        place = place[number]
        hits = entries[place].clamp_max(MOST_HITS)
        source = torch.repeat_interleave(number, hits)
        offset = torch.arange(len(source), device=keys.device) - torch.repeat_interleave(
            hits.cumsum(0) - hits, hits
        )
        first = entries.cumsum(0) - entries
        entry = order[torch.repeat_interleave(first[place], hits) + offset]
        indices = torch.empty(len(source), len(codebooks.sizes), dtype=torch.long, device=keys.device)
        indices[:, self.asked] = unravel(source % self.questions, [codebooks.sizes[k] for k in self.asked])
        indices[:, self.table] = unravel(entry, [codebooks.sizes[k] for k in self.table])
        return source // self.questions, indices


MOST_HITS = 4
"""Entries of one key that are looked at; more means codewords that are the same."""


def _halves(sizes: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Factors in two parts whose products are as equal as can be; the smaller one first."""
    total, best = math.log(math.prod(sizes)), (math.inf, [0])
    for mask in range(1, 2 ** len(sizes) - 1):
        part = [k for k in range(len(sizes)) if mask >> k & 1]
        size = sum(math.log(sizes[k]) for k in part)
        if size <= total / 2 + 1e-9:
            best = min(best, (total / 2 - size, part))
    return best[1], [k for k in range(len(sizes)) if k not in best[1]]


def _products(codebooks: Codebooks, factors: list[int], coordinates: Tensor) -> Tensor:
    """All products of codewords of some factors at some coordinates ``[N,b]``."""
    result = codebooks.spectra[factors[0]][:, coordinates]
    for factor in factors[1:]:
        book = codebooks.spectra[factor][:, coordinates]
        result = (result[:, None] * book[None]).flatten(0, 1)
    return result


def _keys(products: Tensor) -> Tensor:
    """Signs of the real parts as the bits of a number: ``[...,b]`` to ``[...]``."""
    real = products.real if torch.is_complex(products) else products
    keys = torch.zeros(real.shape[:-1], dtype=torch.long, device=real.device)
    for bit in range(real.shape[-1]):
        keys |= (real[..., bit] < 0).long() << bit
    return keys
