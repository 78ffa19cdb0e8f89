"""Search over subsets of candidates, on evidence alone: no network call is made here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from igm_cli.core.evidence import Quadratic
from igm_cli.errors import InputError

EXHAUSTIVE_LIMIT = 1_000_000


@dataclass(frozen=True)
class Found:
    """A subset of candidates and its expected error."""

    subset: tuple[int, ...]
    error: float


def exhaustive_subsets(form: Quadratic, k: int) -> Found:
    """The best of all subsets of K candidates.

    Raises:
        InputError: If there are more than a million.
    """
    candidates = len(form.linear)
    _check(math.comb(candidates, k), f"subsets of {k} of {candidates} candidates")
    return _best(form, itertools.combinations(range(candidates), k))


def exhaustive_configurations(form: Quadratic, groups: Sequence[Sequence[int]]) -> Found:
    """The best of all choices of one candidate from every group (one value per factor).

    Raises:
        InputError: If there are more than a million.
    """
    _check(math.prod(len(group) for group in groups), "configurations")
    return _best(form, itertools.product(*groups))


def _check(number: int, what: str) -> None:
    if number > EXHAUSTIVE_LIMIT:
        raise InputError(f"{number} {what} are too many to try; narrow the candidates")


def _best(
    form: Quadratic, subsets: itertools.combinations[tuple[int, ...]] | itertools.product[tuple[int, ...]]
) -> Found:
    best = Found((), math.inf)
    while chunk := list(itertools.islice(subsets, 65536)):
        errors = form.error(torch.tensor(chunk, dtype=torch.long, device=form.linear.device))
        least = int(errors.argmin())
        if float(errors[least]) < best.error:
            best = Found(tuple(chunk[least]), float(errors[least]))
    return best


def pursuit(form: Quadratic, k_max: int) -> list[Found]:
    """The best subset found for every size 0..k_max, in one pass.

    Adds the candidate that lowers the error most, then swaps single members while that helps.

    Returns:
        At most k_max + 1 subsets, shorter if there are fewer candidates.
    """
    subset: list[int] = []
    path = [Found((), float(form.constant))]
    for _ in range(min(k_max, len(form.linear))):
        subset = _swap(form, _add(form, subset))
        error = float(form.error(torch.tensor(subset, device=form.linear.device)))
        path.append(Found(tuple(subset), error))
    return path


def _add(form: Quadratic, subset: list[int]) -> list[int]:
    """The subset with the best further candidate."""
    w = form.w(len(subset) + 1)
    pull = form.gram[:, subset].sum(1)  # sum_S A_js
    change = -2 * w * form.linear + w * w * (2 * pull + form.gram.diagonal())
    change[subset] = math.inf
    return [*subset, int(change.argmin())]


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
        if float(change[place, candidate]) >= -1e-9 * max(1e-6, float(form.constant)):
            break
        subset = [*subset[:place], candidate, *subset[place + 1 :]]
    return subset
