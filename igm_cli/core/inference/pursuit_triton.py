"""The search of :func:`igm_cli.core.inference.pursuit.pursuit` as one kernel in Triton; imported on a GPU only.

Step by step from the host, the search would launch thousands of tiny kernels and wait after each round of exchanges.
Here one program per image runs the whole search.
"""

# mypy: ignore-errors

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from igm_cli.core.composition import weight
from igm_cli.core.inference.statistics import QuadraticForm

MOST_MEMBERS = 32
MOST_CANDIDATES = 128
"""The most that a program holds in its registers."""


def fits(form: QuadraticForm, top: int) -> bool:
    """Returns whether the kernel can search sets of up to ``top`` candidates; else the CPU does."""
    return top < MOST_MEMBERS and 0 < form.linear.shape[1] <= MOST_CANDIDATES


def search(form: QuadraticForm, k_max: int, top: int, *, swaps: int, exchanges: int) -> tuple[Tensor, Tensor]:
    """Returns the best sets found ``[B,k_max+1,k_max]``, padded with -1, and which were found ``[B,k_max+1]``.

    Args:
        form: Expected errors of B images.
        k_max: Largest set asked for.
        top: How many concepts the way down begins with.
        swaps: Exchanges of one member in a row at most.
        exchanges: Rounds of exchanges of one and of two members at most.
    """
    b, m = form.linear.shape
    device, t = form.gram.device, MOST_MEMBERS
    sets = torch.full((b, k_max + 1, k_max), -1, dtype=torch.int64, device=device)
    found = torch.zeros(b, k_max + 1, dtype=torch.int8, device=device)
    w = weight(form.composition, torch.arange(t + 1, device=device)).double()
    inputs = (form.constant, form.linear, form.gram, form.usable.to(torch.int8))
    block = max(16, triton.next_power_of_2(m))
    pursuit[(b,)](
        *(tensor.contiguous() for tensor in inputs),
        w,
        sets,
        found,
        m,
        k_max,
        top,
        BM=block,
        BT=t,
        SWAPS=swaps,
        EXCHANGES=exchanges,
        num_warps=16 if block > 64 else 8,
    )
    return sets, found.bool()


@triton.jit
def _members_of(members, size, linear, gram, M, w, BT: tl.constexpr):
    """Returns the T members' <r,Delta> and inner products ``[T,T]``, and the rise of the error without each."""
    t = tl.arange(0, BT)
    there = t < size
    lin = tl.load(linear + members, mask=there, other=0.0)
    both = there[:, None] & there[None, :]
    inner = tl.load(gram + members[:, None] * M + members[None, :], mask=both, other=0.0)
    own = tl.load(gram + members * (M + 1), mask=there, other=0.0)
    out = 2 * w * lin + w * w * (own - 2 * tl.sum(inner, 1))
    return lin, inner, tl.where(there, out, float("inf"))


@triton.jit
def _error(members, size, linear, gram, M, w, BT: tl.constexpr):
    """Returns the error of the members, without the constant."""
    lin, inner, _out = _members_of(members, size, linear, gram, M, w, BT)
    return -2 * w * tl.sum(lin, 0) + w * w * tl.sum(tl.sum(inner, 1), 0)


@triton.jit
def _others_of(members, size, linear, gram, usable, M, w, BM: tl.constexpr, BT: tl.constexpr):
    """Returns all M candidates' inner products with the members ``[T,M]``, and the rise with each that may be added."""
    t, j = tl.arange(0, BT), tl.arange(0, BM)
    there, inside = t < size, j < M
    rows = tl.load(gram + members[:, None] * M + j[None, :], mask=there[:, None] & inside[None, :], other=0.0)
    lin = tl.load(linear + j, mask=inside, other=0.0)
    own = tl.load(gram + j * (M + 1), mask=inside, other=0.0)
    into = -2 * w * lin + w * w * (own + 2 * tl.sum(rows, 0))
    member = tl.sum(((members[:, None] == j[None, :]) & there[:, None]).to(tl.int32), 0) > 0
    free = inside & ~member & (tl.load(usable + j, mask=inside, other=0) != 0)
    return rows, tl.where(free, into, float("inf"))


@triton.jit
def _at(values, index, BT: tl.constexpr):
    """Returns one of T values."""
    return tl.sum(tl.where(tl.arange(0, BT) == index, values, 0), 0)


@triton.jit
def _least(values, ROWS: tl.constexpr):
    """Returns the least of a table of values, its row and its column."""
    lowest, column = tl.min(values, 1, return_indices=True)
    least, row = tl.min(lowest, 0, return_indices=True)
    return least, row, _at(column, row, ROWS)


@triton.jit
def _rearranged(members, source, BT: tl.constexpr):
    """Returns the members at other places ``[T]``."""
    s = tl.arange(0, BT)
    return tl.sum(tl.where(source[:, None] == s[None, :], members[None, :], 0), 1)


@triton.jit
def _swap(
    members,
    size,
    linear,
    gram,
    usable,
    M,
    w,
    tolerance,
    BM: tl.constexpr,
    BT: tl.constexpr,
    SWAPS: tl.constexpr,
):
    """Replaces one member by another candidate as long as the error falls."""
    t = tl.arange(0, BT)
    rounds = 0
    while rounds < SWAPS:
        out = _members_of(members, size, linear, gram, M, w, BT)[2]
        rows, into = _others_of(members, size, linear, gram, usable, M, w, BM, BT)
        change = out[:, None] + into[None, :] - 2 * w * w * rows
        fall, place, taken = _least(change, BT)
        better = fall < -tolerance
        members = tl.where(t == tl.where(better, place, -1), taken, members)
        rounds = tl.where(better, rounds + 1, SWAPS)
    return members


@triton.jit
def _swap_pair(members, size, linear, gram, usable, M, w, tolerance, BM: tl.constexpr, BT: tl.constexpr):
    """Makes the best exchange of two members for two other candidates, and returns whether one helped."""
    t, j = tl.arange(0, BT), tl.arange(0, BM)
    inside = j < M
    out = _members_of(members, size, linear, gram, M, w, BT)[2]
    into = _others_of(members, size, linear, gram, usable, M, w, BM, BT)[1]
    every = tl.load(gram + j[:, None] * M + j[None, :], mask=inside[:, None] & inside[None, :], other=0.0)
    every = tl.where(j[:, None] == j[None, :], float("inf"), 2 * w * w * every)
    least = -tolerance
    p, q, one, other = 0, 0, 0, 0
    for left in range(size):
        leave_left, member_left = _at(out, left, BT), _at(members, left, BT)
        row_left = tl.load(gram + member_left * M + j, mask=inside, other=0.0)
        for right in range(left + 1, size):
            member_right = _at(members, right, BT)
            row_right = tl.load(gram + member_right * M + j, mask=inside, other=0.0)
            both = tl.load(gram + member_left * M + member_right)
            leave = leave_left + _at(out, right, BT) + 2 * w * w * both
            enter = into - 2 * w * w * (row_left + row_right)
            lowest, first, second = _least(every + enter[:, None] + (enter + leave)[None, :], BM)
            better = lowest < least
            least = tl.where(better, lowest, least)
            p, q = tl.where(better, left, p), tl.where(better, right, q)
            one, other = tl.where(better, first, one), tl.where(better, second, other)
    improved = q > 0
    # Those added stand behind those that stay.
    source = t + (t >= p).to(tl.int32)
    source = source + (source >= q).to(tl.int32)
    moved = _rearranged(members, source, BT)
    moved = tl.where(t == size - 2, one, tl.where(t == size - 1, other, moved))
    return tl.where(improved, moved, members), improved


@triton.jit
def _exchange(
    members, size, pairs, linear, gram, usable, M, w, tolerance,
    BM: tl.constexpr, BT: tl.constexpr, SWAPS: tl.constexpr, EXCHANGES: tl.constexpr,
):  # fmt: skip
    """Exchanges single members, then pairs, until neither lowers the error."""
    rounds = 0
    while rounds < EXCHANGES:
        members = _swap(members, size, linear, gram, usable, M, w, tolerance, BM, BT, SWAPS)
        rounds += 1
        if pairs:
            members, improved = _swap_pair(members, size, linear, gram, usable, M, w, tolerance, BM, BT)
            rounds = tl.where(improved, rounds, EXCHANGES)
        else:
            rounds += EXCHANGES
    return members


@triton.jit
def pursuit(
    constant, linear, gram, usable, weights, sets, found, M, k_max, top,
    BM: tl.constexpr, BT: tl.constexpr, SWAPS: tl.constexpr, EXCHANGES: tl.constexpr,
):  # fmt: skip
    """Goes the way up and the way down for one image; see :func:`igm_cli.core.inference.pursuit.pursuit`.

    It tries every size up to ``top``; the CPU stops on the way up where costs rule larger sets out.
    """
    image = tl.program_id(0).to(tl.int64)
    linear, gram, usable = linear + image * M, gram + image * M * M, usable + image * M
    t, j = tl.arange(0, BT), tl.arange(0, BM)
    tolerance = 1e-7 * tl.load(constant + image)
    usable_count = tl.sum((tl.load(usable + j, mask=j < M, other=0) != 0).to(tl.int32), 0)
    most = tl.minimum(top, usable_count)
    members = tl.full([BT], 0, tl.int32)
    known = tl.full([BT, BT], -1, tl.int32)  # the best set of every size
    errors = tl.full([BT], float("inf"), tl.float64)  # without the constant, which all share

    for size in range(1, most + 1):
        w = tl.load(weights + size)
        into = _others_of(members, size - 1, linear, gram, usable, M, w, BM, BT)[1]
        members = tl.where(t == size - 1, tl.argmin(into, 0), members)
        pairs = (size <= k_max) & (size > 1)
        members = _exchange(
            members, size, pairs, linear, gram, usable, M, w, tolerance, BM, BT, SWAPS, EXCHANGES
        )
        error = _error(members, size, linear, gram, M, w, BT)
        errors = tl.where(t == size, error, errors)
        known = tl.where((t[:, None] == size) & (t[None, :] < size), members[None, :], known)

    for step in range(1, most):
        size = most - step
        w = tl.load(weights + size)
        out = _members_of(members, size + 1, linear, gram, M, w, BT)[2]
        members = _rearranged(members, t + (t >= tl.argmin(out, 0)).to(tl.int32), BT)
        best = tl.sum(tl.where(t[:, None] == size, known, 0), 0)
        same = (best[:, None] == members[None, :]) & (t[:, None] < size) & (t[None, :] < size)
        new = (size > k_max) | (tl.sum(tl.sum(same.to(tl.int32), 1), 0) < size)
        if new:  # a set known from the way up needs no further exchange
            pairs = (size <= k_max) & (size > 1)
            members = _exchange(
                members, size, pairs, linear, gram, usable, M, w, tolerance, BM, BT, SWAPS, EXCHANGES
            )
            error = _error(members, size, linear, gram, M, w, BT)
            better = error < _at(errors, size, BT) - tolerance
            row = tl.where(better, size, -1)
            errors = tl.where(t == row, error, errors)
            known = tl.where((t[:, None] == row) & (t[None, :] < size), members[None, :], known)

    place = sets + image * (k_max + 1) * k_max + t[:, None] * k_max + t[None, :]
    tl.store(place, known.to(tl.int64), mask=(t[:, None] <= k_max) & (t[None, :] < k_max))
    tl.store(found + image * (k_max + 1) + t, (t <= most).to(tl.int8), mask=t <= k_max)
