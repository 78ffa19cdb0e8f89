"""The best configuration, one value of every factor: exact, on evidence alone, without a network call.

The error of a configuration is a sum over factors and pairs of factors:

    error(v_1 .. v_F) = c + sum_f u_f(v_f) + sum_{f<g} p_fg(v_f, v_g)

Up to a million configurations are all computed; beyond, whole branches are left out whose errors cannot
come below the best one found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.inference.evidence import Quadratic
from igm_cli.core.inference.search import Found

EXHAUSTIVE_LIMIT = 1_000_000
FRONTIER = 2**16
"""Partial configurations that are expanded at once: bounds the memory of branch and bound."""


@dataclass(frozen=True)
class Pairwise:
    """Errors of configurations of F factors.

    Attributes:
        constant: c.
        unary: u_f ``[V_f]`` for every factor.
        pair: p_fg ``[V_f,V_g]`` for every f < g.
        groups: Candidate index of every value of every factor.
    """

    constant: float
    unary: list[Tensor]
    pair: dict[tuple[int, int], Tensor]
    groups: Sequence[Sequence[int]]

    @classmethod
    def of(cls, form: Quadratic, groups: Sequence[Sequence[int]]) -> Pairwise:
        """Reads the sums off a quadratic form whose candidates are the values of factors."""
        w = form.w(len(groups))
        unary = [-2 * w * form.linear[g] + w * w * form.gram.diagonal()[g] for g in map(list, groups)]
        pair = {
            (f, g): 2 * w * w * form.gram[list(groups[f])][:, list(groups[g])]
            for g in range(len(groups))
            for f in range(g)
        }
        return cls(float(form.constant), unary, pair, groups)

    def extended(self, errors: Tensor, chosen: Tensor) -> Tensor:
        """Errors of partial configurations with one factor more.

        Args:
            errors: Of n partial configurations ``[n]``, the constant left out.
            chosen: Their values of the first f factors ``[n,f]``.

        Returns:
            ``[n,V_f]``.
        """
        f = chosen.shape[1]
        total = errors[:, None] + self.unary[f]
        for earlier in range(f):
            total = total + self.pair[earlier, f][chosen[:, earlier]]
        return total

    def found(self, values: Sequence[int], error: float) -> Found:
        """A configuration as candidates, its constant included."""
        subset = tuple(int(group[v]) for group, v in zip(self.groups, values, strict=True))
        return Found(subset, self.constant + error)


def best_configuration(form: Quadratic, groups: Sequence[Sequence[int]]) -> Found:
    """The configuration of least error, however many there are.

    Args:
        form: Expected errors; its candidates are the values of all factors.
        groups: Candidates of each factor.
    """
    few = math.prod(len(group) for group in groups) <= EXHAUSTIVE_LIMIT
    return exhaustive_configurations(form, groups) if few else branch_and_bound(form, groups)


def exhaustive_configurations(form: Quadratic, groups: Sequence[Sequence[int]]) -> Found:
    """The best of all configurations, each of whose errors is computed."""
    sums = Pairwise.of(form, groups)
    sizes = [len(group) for group in groups]
    errors = torch.zeros((1,) * 0, dtype=form.linear.dtype)
    for f, size in enumerate(sizes):
        step = sums.unary[f]  # broadcast over the values of all earlier factors: [V_1,..,V_f]
        for earlier in range(f):
            shape = [1] * f + [size]
            shape[earlier] = sizes[earlier]
            step = step + sums.pair[earlier, f].view(shape)
        errors = errors[..., None] + step
    best = int(errors.argmin())
    return sums.found(
        [int(v) for v in torch.unravel_index(torch.tensor(best), sizes)], float(errors.flatten()[best])
    )


def branch_and_bound(form: Quadratic, groups: Sequence[Sequence[int]]) -> Found:
    """The best of all configurations; branches that cannot hold it are not entered.

    A branch is bounded by what it has, and for each factor that is left the least of its own error, its
    pairs with the factors chosen, and the least of each pair with a factor still open.
    """
    sums = Pairwise.of(form, groups)
    open_pairs = _least_open_pairs(sums)
    start = torch.zeros(1, dtype=form.linear.dtype), torch.zeros(1, 0, dtype=torch.long)
    best_values, best_error = _descended(sums)
    pending = [start]
    while pending:
        errors, chosen = pending.pop()
        f = chosen.shape[1]
        children = sums.extended(errors, chosen).flatten()
        values = torch.arange(len(groups[f])).repeat(len(errors))
        chosen = torch.cat([chosen.repeat_interleave(len(groups[f]), 0), values[:, None]], 1)
        if f + 1 == len(groups):
            least = int(children.argmin())
            if float(children[least]) < best_error:
                best_error, best_values = float(children[least]), chosen[least].tolist()
            continue
        bounds = children + _rest(sums, open_pairs, chosen)
        order = bounds.argsort()
        order = order[bounds[order] < best_error]
        # The most promising part is pushed last, so that it is entered first.
        pending += [(children[part], chosen[part]) for part in reversed(order.split(FRONTIER)) if len(part)]
    return sums.found(best_values, best_error)


def _descended(sums: Pairwise) -> tuple[list[int], float]:
    """A good configuration to begin with: one factor after the other changed while that helps."""
    values = [int(u.argmin()) for u in sums.unary]
    error = math.inf
    while True:
        for f in range(len(values)):
            values[f] = int(_conditional(sums, values, f).argmin())
        now = _error(sums, values)
        if now >= error:
            return values, error
        error = now


def _conditional(sums: Pairwise, values: Sequence[int], f: int) -> Tensor:
    """The part of the error that changes with factor f ``[V_f]``, the others held."""
    total = sums.unary[f]
    for g in range(len(values)):
        if g < f:
            total = total + sums.pair[g, f][values[g]]
        elif g > f:
            total = total + sums.pair[f, g][:, values[g]]
    return total


def _error(sums: Pairwise, values: Sequence[int]) -> float:
    errors, chosen = torch.zeros(1, dtype=sums.unary[0].dtype), torch.zeros(1, 0, dtype=torch.long)
    for v in values:
        errors = sums.extended(errors, chosen)[:, v]
        chosen = torch.cat([chosen, torch.tensor([[v]])], 1)
    return float(errors[0])


def _least_open_pairs(sums: Pairwise) -> list[list[Tensor]]:
    """For f factors chosen and each later g: the least sum of g's pairs with other open ones before it ``[V_g]``."""
    count = len(sums.unary)
    return [
        [
            sum(
                (sums.pair[h, g].amin(0) for h in range(f, g)),
                torch.zeros(len(sums.unary[g]), dtype=sums.unary[g].dtype),
            )
            for g in range(f, count)
        ]
        for f in range(count + 1)
    ]


def _rest(sums: Pairwise, open_pairs: list[list[Tensor]], chosen: Tensor) -> Tensor:
    """Least that the open factors can add to partial configurations ``[n,f]``, ``[n]``."""
    f = chosen.shape[1]
    rest = torch.zeros(len(chosen), dtype=sums.unary[0].dtype)
    for g in range(f, len(sums.unary)):
        own = (sums.unary[g] + open_pairs[f][g - f]).expand(len(chosen), -1)
        for earlier in range(f):
            own = own + sums.pair[earlier, g][chosen[:, earlier]]
        rest = rest + own.amin(1)
    return rest
