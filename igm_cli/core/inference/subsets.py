"""Exact search over all sets of K candidates: the best set, and the best one with or without each candidate."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.inference.evidence import Quadratic
from igm_cli.core.inference.search import Found
from igm_cli.errors import UsageError

MOST_SUBSETS = 30_000_000

ENTRIES = 1_000_000
"""Of the table of pairs that is searched at a time: it stays in the cache."""


@dataclass(frozen=True)
class Minima:
    """For every candidate, the best of all sets of K that hold it.

    Attributes:
        errors: ``[M]``.
        subsets: ``[M,K]`` candidates, the smallest first.
    """

    errors: Tensor
    subsets: Tensor

    @property
    def best(self) -> Found:
        """The best of all sets of K."""
        index = int(self.errors.argmin())
        return Found(tuple(self.subsets[index].tolist()), float(self.errors[index]))


def check_number(candidates: int, sizes: Sequence[int]) -> None:
    """Refuses a search that would not end.

    Raises:
        UsageError: If there are too many sets of these sizes in all.
    """
    number = sum(math.comb(candidates, size) for size in sizes)
    if number > MOST_SUBSETS:
        raise UsageError(
            f"{number} sets of up to {max(sizes)} of {candidates} labels are too many to try; "
            "give fewer labels or a smaller --k or --k-max"
        )


def minima(form: Quadratic, k: int) -> Minima:
    """Scores every set of K candidates: all pairs at once that complete some sets of K - 2, the heads.

    The error of a head and a pair is the head's own, the pair's own, and what each of the pair shares with the head.

    Args:
        form: Expected errors.
        k: At least 1, at most the number of candidates.

    Raises:
        UsageError: If there are too many sets.
    """
    m = len(form.linear)
    check_number(m, [k])
    w, diagonal = form.w(k), form.gram.diagonal()
    alone = -2 * w * form.linear + w * w * diagonal  # [M]
    if k == 1:
        return Minima(form.constant + alone, torch.arange(m)[:, None])
    crossed = 2 * w * w * form.gram
    pairs = (alone[:, None] + alone[None, :] + crossed).fill_diagonal_(math.inf)  # [M,M]
    table = Minima(torch.full((m,), math.inf, dtype=alone.dtype), torch.zeros(m, k, dtype=torch.long))
    for heads in _heads(m, k - 2):
        shared = crossed[heads].sum(1)  # [H,M]
        within = shared.gather(1, heads).sum(1) - 2 * w * w * diagonal[heads].sum(1)
        own = form.constant + alone[heads].sum(1) + within / 2
        # Every set once: its pair comes after its head.
        after = torch.arange(m) > (heads[:, -1:] if k > 2 else -1)
        shared = shared.masked_fill(~after, math.inf)
        rest, partners = (pairs + shared[:, None, :]).min(2)  # [H,M]: the best partner of every first
        _lower(table, heads, own[:, None] + shared + rest, partners)
    return table


def _heads(candidates: int, size: int) -> Iterator[Tensor]:
    """All sets of so many candidates that leave two after them, ``[H,size]``, few enough for tables of pairs."""
    sets = itertools.combinations(range(candidates - 2), size)
    few = max(1, ENTRIES // candidates**2)
    while chunk := list(itertools.islice(sets, few)):
        yield torch.tensor(chunk, dtype=torch.long).reshape(len(chunk), size)


def _lower(table: Minima, heads: Tensor, errors: Tensor, partners: Tensor) -> None:
    """Enters the best of some sets, for the members of their heads too.

    Args:
        table: Minima so far, changed in place.
        heads: ``[H,K-2]``.
        errors: Of a head, one more candidate, and the best partner of both ``[H,M]``.
        partners: Which that is ``[H,M]``.
    """
    least, first = errors.min(1)  # [H]
    errors = errors.scatter(1, heads, least[:, None].expand_as(heads))
    others = torch.arange(errors.shape[1]).expand_as(errors).scatter(1, heads, first[:, None].expand_as(heads))
    lowest, head = errors.min(0)  # [M]
    better = (lowest < table.errors).nonzero()[:, 0]
    head = head[better]
    one = others[head, better]
    sets = torch.cat([heads[head], torch.stack([one, partners[head, one]], 1)], 1)
    table.errors[better] = lowest[better]
    table.subsets[better] = sets.sort(1).values


def best_without(form: Quadratic, k: int, candidate: int) -> Found | None:
    """The best set of K that does not hold a candidate; None if there are too few others."""
    m = len(form.linear)
    if k > m - 1:
        return None
    others = torch.tensor([i for i in range(m) if i != candidate], dtype=torch.long)
    rest = Quadratic(form.constant, form.linear[others], form.gram[others][:, others], form.composition)
    found = minima(rest, k).best
    return Found(tuple(others[list(found.subset)].tolist()), found.error)
