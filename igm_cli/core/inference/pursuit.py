"""Pursuit: good sets of every size among many candidates, by greedy steps and exchanges on the quadratic form alone.

The search of an image takes many small steps, each of which depends on the one before: on a CPU in NumPy, which has the
least overhead per step, and on a GPU in a kernel of our own (:mod:`pursuit_triton`).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from igm_cli.core.device import has_triton
from igm_cli.core.inference.constraints import Solution
from igm_cli.core.inference.statistics import QuadraticForm

Floats: TypeAlias = npt.NDArray[np.float64]
Sets: TypeAlias = npt.NDArray[np.int64]

PAIRS_AT_ONCE = 2**21
"""Exchanges of two members tried at once, which bounds the memory."""

PAIRS_IN_ALL = 2**22
"""Number of exchanges of two up to which all are tried; beyond, only neighbours whose surroundings changed."""

NEIGHBOURS = 48
"""Candidates tried in place of each of two neighbours."""

BEYOND = 4
"""How many concepts beyond ``k_max`` the way down begins with."""

PATIENCE = 24
"""How far sets grow beyond the size of least error plus cost before larger ones are given up."""

SWAPS, EXCHANGES = 50, 20
"""Most exchanges of one member in a row, and most rounds of exchanges."""


def pursuit(form: QuadraticForm, k_max: int, *, cost: float = 0.0, least: int | None = None) -> Solution:
    """Finds a good set of every size 0..k_max.

    Upwards it adds the candidate that lowers the error most; downwards, from :data:`BEYOND` concepts more, it drops the one that
    is missed least.  After each step it exchanges one member, then two, for other candidates as long as that helps: two
    objects close together are easily mistaken for one between them, and only a change of both corrects it.

    Args:
        form: Expected errors of B images.
        k_max: Largest set asked for.
        cost: Cost of a concept; it decides which sets are too large to be chosen.
        least: Size up to which no sets are given up; None gives up none at all.

    Returns:
        Sets, none chosen yet; those larger than the number of candidates, or given up, have an infinite error.
    """
    if has_triton(form.gram.device):
        from igm_cli.core.inference import pursuit_triton as kernel

        if kernel.fits(form, k_max + BEYOND):
            sets, found = kernel.search(form, k_max, k_max + BEYOND, swaps=SWAPS, exchanges=EXCHANGES)
            errors = form.error(sets).masked_fill(~found, torch.inf)
            return Solution(sets, errors, torch.zeros_like(sets[:, 0, 0]))
    if form.gram.device.type != "cpu":
        searched = pursuit(form.to(torch.device("cpu")), k_max, cost=cost, least=least)
        return searched.to(form.gram.device)
    images = len(form.linear)
    sets = torch.full((images, k_max + 1, k_max), -1)
    errors = torch.full((images, k_max + 1), torch.inf, dtype=torch.float64)
    for image in range(images):
        path = _Search(form, image).run(k_max, cost, least)
        sets[image], errors[image] = map(torch.from_numpy, path)
    return Solution(sets, errors, torch.zeros(images, dtype=torch.long))


class _Search:
    """A set of candidates of one image, changed step by step, always by the step that lowers the error most.

    Attributes:
        linear: b ``[M]``.
        gram: A ``[M,M]``.
        members: The set S.
        pull: sum_S A_js of every candidate j ``[M]``.
        blocked: Candidates that are members already, or not usable ``[M]``.
        changed: Candidates added or dropped since pairs were last exchanged ``[M]``.
        tolerance: Change of the error that rounding alone can cause.
    """

    def __init__(self, form: QuadraticForm, image: int) -> None:
        self.form, self.constant = form, float(form.constant[image])
        self.linear, self.gram = form.linear[image].numpy(), form.gram[image].numpy()
        self.diagonal = self.gram.diagonal().copy()
        self.members: list[int] = []
        self.pull = np.zeros_like(self.linear)
        self.blocked = ~form.usable[image].numpy()
        self.changed = self.blocked.copy()
        self.tolerance = 1e-7 * self.constant
        self.w = 1.0
        """Weight of a contribution at the current size."""

    def run(self, k_max: int, cost: float, least: int | None) -> tuple[Sets, Floats]:
        """Returns the best set found of every size ``[k_max+1,k_max]`` and its error; see :func:`pursuit`."""
        sets, errors = np.full((k_max + 1, k_max), -1), np.full(k_max + 1, np.inf)
        errors[0] = self.constant
        top = min(k_max + BEYOND, int((~self.blocked).sum()))

        def keep() -> None:
            size, error = len(self.members), self.error()
            if error < errors[size] - self.tolerance:
                errors[size], sets[size, :size] = error, self.members

        for size in range(1, top + 1):
            self.w = self.form.w(size)
            self.take(int(self.into().argmin()))  # the best further candidate
            self.exchange(pairs=size <= k_max)
            if size > k_max:
                continue
            keep()
            if least is not None and PATIENCE + least < size:
                total = errors[: size + 1] + cost * np.arange(size + 1)
                if total.argmin() + PATIENCE < size:
                    top = size
                    break
        for size in range(top - 1, 0, -1):
            self.w = self.form.w(size)
            self.leave(int(self.out(self.members).argmin()))  # the one that is missed least
            if size > k_max or {*sets[size, :size]} != {*self.members}:  # else it was exchanged on the way up
                self.exchange(pairs=size <= k_max)
                if size <= k_max:
                    keep()
        return sets, errors

    def error(self) -> float:
        """Returns the error of the set: c - 2 w b(S) + w² A(S,S)."""
        linear, pull = self.linear[self.members].sum(), self.pull[self.members].sum()
        return float(self.constant - 2 * self.w * linear + self.w * self.w * pull)

    def into(self) -> Floats:
        """Returns the rise of the error if each candidate is added ``[M]``; infinite for blocked ones."""
        change = self.w * self.w * (self.diagonal + 2 * self.pull) - 2 * self.w * self.linear
        change[self.blocked] = np.inf
        return change

    def out(self, members: list[int]) -> Floats:
        """Returns the rise of the error if each of some members is dropped."""
        within = self.diagonal[members] - 2 * self.pull[members]
        return 2 * self.w * self.linear[members] + self.w * self.w * within

    def take(self, candidate: int, place: int | None = None) -> None:
        """Adds a candidate, at a place or behind the others."""
        self.pull += self.gram[candidate]
        self.blocked[candidate] = self.changed[candidate] = True
        self.members.insert(len(self.members) if place is None else place, candidate)

    def leave(self, place: int) -> None:
        """Drops the member at a place."""
        member = self.members.pop(place)
        self.pull -= self.gram[member]
        self.blocked[member], self.changed[member] = False, True

    def exchange(self, pairs: bool) -> None:
        """Exchanges single members, then pairs, until neither lowers the error."""
        for _ in range(EXCHANGES):
            self.swap()
            if not pairs or len(self.members) < 2:
                return
            best = self.best_pair()
            self.changed[:] = False
            if best is None:
                return
            first, second, one, other = best
            self.leave(second)
            self.leave(first)
            self.take(one)
            self.take(other)

    def swap(self) -> None:
        """Replaces one member by another candidate as long as the error falls."""
        for _ in range(SWAPS):
            change = self.out(self.members)[:, None] + self.into()
            change -= 2 * self.w * self.w * self.gram[self.members]  # [K,M]
            best = int(change.argmin())
            if not change.flat[best] < -self.tolerance:
                return
            place, candidate = divmod(best, change.shape[1])
            self.leave(place)
            self.take(candidate, place)

    def best_pair(self) -> tuple[int, int, int, int] | None:
        """Returns the best exchange of two members: their places and two candidates; None if none lowers the error.

        If there are few exchanges, all pairs are tried with all candidates.  Otherwise only overlapping members near
        which something changed are tried, with candidates that overlap either.
        """
        gram, flat, m, two = self.gram, self.gram.reshape(-1), len(self.gram), 2 * self.w * self.w
        members, into, out = np.array(self.members), self.into(), self.out(self.members)
        first, second = np.triu_indices(len(members), 1)
        if every := len(first) * m * m <= PAIRS_IN_ALL:
            number = m
        else:
            number = min(NEIGHBOURS, m)
            stirred = (gram[members][:, self.changed] != 0).any(1)
            near = (gram[members[first], members[second]] != 0) & (stirred[first] | stirred[second])
            first, second = first[near], second[near]
        least, best, step = -self.tolerance, None, max(1, PAIRS_AT_ONCE // (number * number))
        for begin in range(0, len(first), step):
            i, j = first[begin : begin + step], second[begin : begin + step]
            left, right = members[i], members[j]  # [P]
            leave = out[i] + out[j] + two * gram[left, right]
            enter = into - two * (gram[left] + gram[right])  # [P,M]
            if every:
                change = two * gram + enter[:, :, None]
            else:
                enter[(gram[left] == 0) & (gram[right] == 0)] = np.inf
                index = np.argpartition(enter, number - 1, axis=1)[:, :number]
                enter = np.take_along_axis(enter, index, axis=1)
                change = flat.take(index[:, :, None] * m + index[:, None, :])  # [P,C,C]
                change *= two
                change += enter[:, :, None]
            change += (enter + leave[:, None])[:, None, :]
            np.einsum("pcc->pc", change)[:] = np.inf
            pair, one, other = np.unravel_index(int(change.argmin()), change.shape)
            if change[pair, one, other] < least:
                least = change[pair, one, other]
                one, other = (one, other) if every else (index[pair, one], index[pair, other])
                best = int(i[pair]), int(j[pair]), int(one), int(other)
        return best
