"""One value of every factor: exact search for the best configuration, on statistics alone.

The error of a configuration is a sum over factors and pairs of factors:

    error(v_1 .. v_F) = c + sum_f u_f(v_f) + sum_{f<g} p_fg(v_f, v_g)

Up to a million configurations are all computed; beyond, branches whose errors cannot fall below the best one found are
left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from igm_cli.core.concepts import Categorical, ConceptSpace
from igm_cli.core.inference.constraints import Alternatives, Answer, Constraint, Solution
from igm_cli.core.inference.statistics import GramStatistics, PairedDifference, QuadraticForm
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError, counted

EXHAUSTIVE_LIMIT = 1_000_000
FRONTIER = 2**16
"""Partial configurations that are expanded at once, which bounds the memory of branch and bound."""

Groups = Sequence[Sequence[int]]
"""Candidates of each factor."""


class OneOfEach(Constraint):
    """Exactly one candidate of each group."""

    name = "one-of-each"

    def __init__(self, space: ConceptSpace, settings: InversionSettings, k: int | None) -> None:
        super().__init__(space, settings, k)
        self.groups = groups_of(cast(Categorical, space), k)

    def solve(self, form: QuadraticForm) -> Solution:
        """Returns the best configuration of each image."""
        return self.containing(form, [])

    def alternatives(self, statistics: GramStatistics, solution: Solution, rows: Tensor) -> Alternatives:
        """Compares the configuration with all that differ from it in one factor."""
        best, d = solution.best, statistics.linear.shape[2]
        exchanged = best[:, None].repeat(1, d, 1)  # [B,D,F]
        for factor, group in enumerate(self.groups):
            exchanged[:, group, factor] = torch.tensor(group)
        errors, chosen = statistics.errors(exchanged), statistics.errors(solution.sets)
        difference = PairedDifference.of(errors, chosen, statistics.importance)
        others = torch.ones(len(best), d, dtype=torch.bool).scatter_(1, best, False)
        return Alternatives(statistics, solution, rows, difference, others)

    @property
    def largest(self) -> int:
        """Number of factors."""
        return len(self.groups)

    def containing(self, form: QuadraticForm, held: Sequence[int]) -> Solution:
        """Returns, for each image, the best configuration with the given values."""
        groups = [[v for v in group if v in held] or group for group in self.groups]
        sets, errors = best_configurations(form, groups)
        return Solution(sets[:, None], errors[:, None], torch.zeros(len(sets), dtype=torch.long))

    def least_with(self, form: QuadraticForm, held: Sequence[int]) -> Tensor:
        """Returns the least error of a configuration with the given values and one more ``[B,M]``.

        Only one value per factor is tried, that of the best configuration for all images together: images can have only
        one value of a factor in common.
        """
        least = torch.full_like(form.linear, torch.inf)
        for value in self.containing(form.mean(), held).members(0):
            if value not in held:
                least[:, value] = self.containing(form, [*held, value]).errors[:, 0]
        return least

    def answers(self, found: Alternatives, candidates: Tensor, images: Sequence[int]) -> list[Answer]:
        """Compares each value with the others of its factor, with the other factors fixed."""
        answers, concepts = [], candidates.float().cpu()
        chance = torch.tensor([1 / len(group) for group in self.groups])
        for image in images:
            members = found.solution.members(image)
            others = [[value for value in group if value not in members] for group in self.groups]
            rivals = [found.difference.among(image, each) for each in others]
            answers.append(Answer(concepts[image, members], rivals, chance))
        return answers


def groups_of(space: Categorical, k: int | None) -> list[list[int]]:
    """Returns the candidates of each factor; a :class:`UsageError` if ``k`` is given and is not their number."""
    groups = space.groups()
    if k not in (None, len(groups)):
        raise UsageError(f"the model has {counted(len(groups), 'factor')}, so k cannot be {k}; leave it out")
    return groups


@dataclass(frozen=True)
class Pairwise:
    """Errors of the configurations of F factors of one image.

    Attributes:
        constant: c.
        unary: u_f ``[V_f]`` for every factor.
        pair: p_fg ``[V_f,V_g]`` for every f < g.
        groups: Candidate index of every value of every factor.
    """

    constant: float
    unary: list[Tensor]
    pair: dict[tuple[int, int], Tensor]
    groups: Groups

    @classmethod
    def of(cls, form: QuadraticForm, image: int, groups: Groups) -> Pairwise:
        """Reads the sums off a quadratic form whose candidates are the values of factors."""
        w, linear, gram = form.w(len(groups)), form.linear[image], form.gram[image]
        unary = [-2 * w * linear[g] + w * w * gram.diagonal()[g] for g in map(list, groups)]
        pair = {
            (f, g): 2 * w * w * gram[list(groups[f])][:, list(groups[g])]
            for g in range(len(groups))
            for f in range(g)
        }
        return cls(float(form.constant[image]), unary, pair, groups)

    def extended(self, errors: Tensor, chosen: Tensor) -> Tensor:
        """Returns the errors ``[n,V_f]`` of partial configurations ``[n,f]`` extended by one factor.

        They, and the errors of the configurations before ``[n]``, are without the constant.
        """
        f = chosen.shape[1]
        total = errors[:, None] + self.unary[f]
        for earlier in range(f):
            total = total + self.pair[earlier, f][chosen[:, earlier]]
        return total

    def candidates(self, values: Sequence[int]) -> list[int]:
        """Returns the candidates of a configuration."""
        return [int(group[v]) for group, v in zip(self.groups, values, strict=True)]


def best_configurations(form: QuadraticForm, groups: Groups) -> tuple[Tensor, Tensor]:
    """Returns each image's configuration of least error ``[B,F]``, however many there are, and its error ``[B]``."""
    few = math.prod(len(group) for group in groups) <= EXHAUSTIVE_LIMIT
    search = exhaustive if few else branch_and_bound
    found = [search(Pairwise.of(form, image, groups)) for image in range(len(form.linear))]
    errors = torch.tensor([error for _, error in found], dtype=torch.float64)
    return torch.tensor([members for members, _ in found]), errors


def exhaustive(sums: Pairwise) -> tuple[list[int], float]:
    """Finds the best configuration by computing the errors of all."""
    sizes = [len(group) for group in sums.groups]
    errors = torch.zeros((), dtype=sums.unary[0].dtype)
    for f, size in enumerate(sizes):
        step = sums.unary[f]  # broadcast over the values of all earlier factors: [V_1,..,V_f]
        for earlier in range(f):
            shape = [1] * f + [size]
            shape[earlier] = sizes[earlier]
            step = step + sums.pair[earlier, f].view(shape)
        errors = errors[..., None] + step
    best = errors.argmin()
    values = [int(v) for v in torch.unravel_index(best, sizes)]
    return sums.candidates(values), sums.constant + float(errors.flatten()[best])


def branch_and_bound(sums: Pairwise) -> tuple[list[int], float]:
    """Finds the best configuration, and skips branches that cannot hold it.

    The bound of a branch is its error so far and, for each open factor, the least sum of its own error, its pairs with
    the chosen factors, and the least of each of its pairs with the open factors before it.
    """
    open_pairs = _least_open_pairs(sums)
    start = torch.zeros(1, dtype=sums.unary[0].dtype), torch.zeros(1, 0, dtype=torch.long)
    best_values, best_error = _descended(sums)
    pending = [start]
    while pending:
        errors, chosen = pending.pop()
        f, size = chosen.shape[1], len(sums.groups[chosen.shape[1]])
        children = sums.extended(errors, chosen).flatten()
        values = torch.arange(size).repeat(len(errors))
        chosen = torch.cat([chosen.repeat_interleave(size, 0), values[:, None]], 1)
        if f + 1 == len(sums.groups):
            least = int(children.argmin())
            if float(children[least]) < best_error:
                best_error, best_values = float(children[least]), chosen[least].tolist()
            continue
        bounds = children + _rest(sums, open_pairs, chosen)
        order = bounds.argsort(stable=True)
        order = order[bounds[order] < best_error]
        # The most promising part is pushed last, so that it is entered first.
        pending += [(children[part], chosen[part]) for part in reversed(order.split(FRONTIER)) if len(part)]
    return sums.candidates(best_values), sums.constant + best_error


def _descended(sums: Pairwise) -> tuple[list[int], float]:
    """Returns a good configuration to begin with, by coordinate descent over the factors."""
    values = [int(u.argmin()) for u in sums.unary]
    error = math.inf
    while True:
        for f in range(len(values)):
            values[f] = int(_conditional(sums, values, f).argmin())
        now = _error(sums, values)
        if not now < error:
            return values, error
        error = now


def _conditional(sums: Pairwise, values: Sequence[int], f: int) -> Tensor:
    """Returns the part of the error that changes with factor f ``[V_f]``, the others fixed."""
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
    """Returns, for f factors chosen and each later g, the least sum of g's pairs with open ones before it ``[V_g]``."""
    count = len(sums.unary)
    return [
        [
            sum((sums.pair[h, g].amin(0) for h in range(f, g)), torch.zeros_like(sums.unary[g]))
            for g in range(f, count)
        ]
        for f in range(count + 1)
    ]


def _rest(sums: Pairwise, open_pairs: list[list[Tensor]], chosen: Tensor) -> Tensor:
    """Returns the least that the open factors can add to partial configurations ``[n,f]``, ``[n]``."""
    f = chosen.shape[1]
    rest = torch.zeros(len(chosen), dtype=sums.unary[0].dtype)
    for g in range(f, len(sums.unary)):
        own = (sums.unary[g] + open_pairs[f][g - f]).expand(len(chosen), -1)
        for earlier in range(f):
            own = own + sums.pair[earlier, g][chosen[:, earlier]]
        rest = rest + own.amin(1)
    return rest
