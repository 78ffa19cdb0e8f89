"""Exact search over all sets of K candidates: the best set, and the best one with or without each candidate."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.evidence import Quadratic
from igm_cli.core.search import Found
from igm_cli.errors import UsageError

MOST_SUBSETS = 30_000_000


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


def check_number(candidates: int, k: int) -> None:
    """Refuses a search that would not end.

    Raises:
        UsageError: If there are too many sets.
    """
    number = math.comb(candidates, k)
    if number > MOST_SUBSETS:
        raise UsageError(
            f"{number} sets of {k} of {candidates} labels are too many to try; "
            "give fewer labels or a smaller --k-max"
        )


def minima(form: Quadratic, k: int) -> Minima:
    """Scores every set of K candidates: all pairs at once that complete a set of K - 2.

    Args:
        form: Expected errors.
        k: At least 1, at most the number of candidates.

    Raises:
        UsageError: If there are too many sets.
    """
    m = len(form.linear)
    check_number(m, k)
    w, diagonal = form.w(k), form.gram.diagonal()
    alone = -2 * w * form.linear + w * w * diagonal  # [M]
    if k == 1:
        return Minima(form.constant + alone, torch.arange(m)[:, None])
    table = _Table(m, k, form.linear.dtype)
    pairs = alone[:, None] + alone[None, :] + 2 * w * w * form.gram  # [M,M]
    for chosen in itertools.combinations(range(m - 2), k - 2):
        members = list(chosen)
        first = members[-1] + 1 if members else 0
        shared = 2 * w * w * form.gram[members].sum(0)  # [M]
        base = (
            form.constant
            + alone[members].sum()
            + (shared[members].sum() - 2 * w * w * diagonal[members].sum()) / 2
        )
        errors = base + pairs + shared[:, None] + shared[None, :]
        table.add(members, first, errors[first:, first:])
    return Minima(table.errors, table.subsets)


class _Table:
    """Minima while sets are gone through."""

    def __init__(self, m: int, k: int, dtype: torch.dtype) -> None:
        self.errors = torch.full((m,), math.inf, dtype=dtype)
        self.subsets = torch.zeros(m, k, dtype=torch.long)
        self.upper = torch.triu(torch.ones(m, m, dtype=torch.bool), diagonal=1)

    def add(self, members: list[int], first: int, errors: Tensor) -> None:
        """Sets of these members and two candidates from ``first`` on, their errors ``[n,n]`` (a < b counts)."""
        n = len(errors)
        upper = self.upper[:n, :n]
        either = errors.masked_fill(~upper, math.inf)
        either = torch.minimum(either, either.T)  # symmetric: row a, the best partner in any place
        least, partner = either.min(dim=1)  # [n]
        self._take(torch.arange(first, first + n), least, members, partner + first)
        if members:
            at = int(least.argmin())
            pair = torch.tensor([first + at]), least[at][None], members, partner[at][None] + first
            self._take(*pair, into=torch.tensor(members))

    def _take(
        self, one: Tensor, errors: Tensor, members: list[int], other: Tensor, into: Tensor | None = None
    ) -> None:
        """Sets {one, other, members} where they are better; ``into`` says for whom, if not for ``one``."""
        rows = one if into is None else into
        errors = errors.expand(len(rows))
        better = errors < self.errors[rows]
        if not bool(better.any()):
            return
        pair = torch.stack([torch.minimum(one, other), torch.maximum(one, other)], dim=1).expand(len(rows), 2)
        head = torch.tensor(members, dtype=torch.long).expand(len(rows), -1)
        sets = torch.cat([head, pair], dim=1)
        self.errors[rows[better]] = errors[better]
        self.subsets[rows[better]] = sets[better]


def best_without(form: Quadratic, k: int, candidate: int) -> Found | None:
    """The best set of K that does not hold a candidate; None if there are too few others."""
    m = len(form.linear)
    if k > m - 1:
        return None
    others = torch.tensor([i for i in range(m) if i != candidate], dtype=torch.long)
    rest = Quadratic(form.constant, form.linear[others], form.gram[others][:, others], form.composition)
    found = minima(rest, k).best
    return Found(tuple(others[list(found.subset)].tolist()), found.error)
