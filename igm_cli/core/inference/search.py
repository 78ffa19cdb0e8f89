"""Search over subsets of candidates, on evidence alone: no network call is made here."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from igm_cli.core.inference.evidence import Quadratic

PAIRS_AT_ONCE = 2**21
"""Exchanges of two that are tried in one step: bounds the memory."""


@dataclass(frozen=True)
class Found:
    """A subset of candidates and its expected error."""

    subset: tuple[int, ...]
    error: float


def pursuit(form: Quadratic, k_max: int, beyond: int = 4) -> list[Found]:
    """The best subset found for every size 0..k_max.

    Upwards, the candidate that lowers the error most is added; downwards from a few concepts more,
    the one that is missed least is left out.  After each step one and two members are exchanged for
    other candidates as long as that helps: two objects close together are easily mistaken for one
    between them, and only a change of both mends it.

    Args:
        form: Expected errors.
        k_max: Largest subset asked for.
        beyond: How many concepts more the way down begins with.

    Returns:
        At most k_max + 1 subsets, fewer if there are fewer candidates.
    """
    candidates = len(form.linear)
    top = min(k_max + beyond, candidates)
    best = {0: Found((), float(form.constant))}
    subset: list[int] = []
    for size in range(1, top + 1):
        subset = _add(form, subset)
        # What lies beyond k_max only starts the way down.
        subset = _exchange(form, subset) if size <= k_max else _swap(form, subset)
        best[size] = _found(form, subset)
    for size in range(top - 1, 0, -1):
        subset = _drop(form, subset)
        subset = _exchange(form, subset) if size <= k_max else _swap(form, subset)
        best[size] = min(best[size], _found(form, subset), key=lambda found: found.error)
    return [best[size] for size in range(min(k_max, candidates) + 1)]


def _found(form: Quadratic, subset: list[int]) -> Found:
    return Found(tuple(subset), float(form.error(torch.tensor(subset, device=form.linear.device))))


def _add(form: Quadratic, subset: list[int]) -> list[int]:
    """The subset with the best further candidate."""
    w = form.w(len(subset) + 1)
    pull = form.gram[:, subset].sum(1)  # sum_S A_js
    change = -2 * w * form.linear + w * w * (2 * pull + form.gram.diagonal())
    change[subset] = math.inf
    return [*subset, int(change.argmin())]


def _drop(form: Quadratic, subset: list[int]) -> list[int]:
    """The subset without the member that is missed least."""
    w = form.w(len(subset) - 1)
    pull = form.gram[:, subset].sum(1)[subset]
    change = 2 * w * form.linear[subset] + w * w * (form.gram.diagonal()[subset] - 2 * pull)
    least = int(change.argmin())
    return subset[:least] + subset[least + 1 :]


def _exchange(form: Quadratic, subset: list[int], rounds: int = 20) -> list[int]:
    """Exchanges single members, then pairs, until neither lowers the error."""
    for _ in range(rounds):
        subset = _swap(form, subset)
        better = _swap_pair(form, subset)
        if better is None:
            break
        subset = better
    return subset


def _swap(form: Quadratic, subset: list[int], rounds: int = 50) -> list[int]:
    """Replaces one member by another candidate as long as the error falls."""
    w = form.w(len(subset))
    gram, diagonal = form.gram, form.gram.diagonal()
    for _ in range(rounds):
        members = torch.tensor(subset, device=gram.device)
        pull = gram[:, members].sum(1)  # [M]
        out = 2 * w * form.linear[members] + w * w * (diagonal[members] - 2 * pull[members])
        into = -2 * w * form.linear + w * w * (diagonal + 2 * pull)
        change = out[:, None] + into[None, :] - 2 * w * w * gram[members]  # [K,M]
        change[:, members] = math.inf
        best = int(change.argmin())
        place, candidate = divmod(best, change.shape[1])
        if float(change[place, candidate]) >= -_tolerance(form):
            break
        subset = [*subset[:place], candidate, *subset[place + 1 :]]
    return subset


def _swap_pair(form: Quadratic, subset: list[int]) -> list[int] | None:
    """The best exchange of two members for two other candidates, or None if none helps."""
    if len(subset) < 2 or len(form.linear) - len(subset) < 2:
        return None
    w, gram, diagonal = form.w(len(subset)), form.gram, form.gram.diagonal()
    members = torch.tensor(subset, device=gram.device)
    free = torch.ones(len(form.linear), dtype=torch.bool, device=gram.device)
    free[members] = False
    others = free.nonzero()[:, 0]
    pull = gram[:, members].sum(1)  # sum_S A_js
    out = 2 * w * form.linear + w * w * (diagonal - 2 * pull)  # leaving out j
    into = (-2 * w * form.linear + w * w * (diagonal + 2 * pull))[others]  # taking in j
    both = 2 * w * w * gram[others][:, others]  # what two taken in share
    both.fill_diagonal_(math.inf)
    best, exchanged = -_tolerance(form), None
    for pairs in torch.combinations(members).split(max(1, PAIRS_AT_ONCE // len(others) ** 2)):
        left, right = pairs.unbind(1)
        leave = out[left] + out[right] + 2 * w * w * gram[left, right]  # [pairs]
        enter = into - 2 * w * w * (gram[left][:, others] + gram[right][:, others])  # [pairs,M']
        change = leave[:, None, None] + enter[:, :, None] + enter[:, None, :] + both
        least = int(change.argmin())
        pair, rest = divmod(least, len(others) ** 2)
        i, j = divmod(rest, len(others))
        if float(change[pair, i, j]) < best:
            best = float(change[pair, i, j])
            kept = [member for member in subset if member not in pairs[pair].tolist()]
            exchanged = [*kept, int(others[i]), int(others[j])]
    return exchanged


def _tolerance(form: Quadratic) -> float:
    """What rounding can make of no change at all."""
    return 1e-7 * float(form.constant)
