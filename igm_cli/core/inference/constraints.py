"""Constraints: which sets of candidates are answers, which of them is best, and what must be ruled out.

A concept space names its constraint (:attr:`igm_cli.core.concepts.ConceptSpace.constraint`); the engine looks up the
subclass of :class:`Constraint` with that name.  Each has its own file: :mod:`one_of_each`, :mod:`any_set` and
:mod:`sparse_subset`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from igm_cli.core.concepts import ConceptSpace
from igm_cli.core.inference.statistics import GramStatistics, PairedDifference, QuadraticForm
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError


@dataclass(frozen=True)
class Solution:
    """The best set of every size, for B images, and the size chosen.

    Attributes:
        sets: Candidates ``[B,S,K]``; smaller sets are padded with -1.
        errors: Expected error of each ``[B,S]``; infinite where there is no such set.
        chosen: Index of the chosen size among the S sizes ``[B]``.
    """

    sets: Tensor
    errors: Tensor
    chosen: Tensor

    @property
    def best(self) -> Tensor:
        """The chosen sets ``[B,K]``."""
        return self.sets[torch.arange(len(self.sets), device=self.sets.device), self.chosen]

    @property
    def error(self) -> Tensor:
        """Expected errors of the chosen sets ``[B]``."""
        return self.errors.gather(1, self.chosen[:, None])[:, 0]

    def total(self, cost: float) -> Tensor:
        """Returns the expected errors plus costs of the chosen sets ``[B]``."""
        return self.error + cost * (self.best >= 0).sum(1)

    def to(self, device: torch.device) -> Solution:
        """Returns the same on a device."""
        return Solution(self.sets.to(device), self.errors.to(device), self.chosen.to(device))

    def members(self, image: int) -> list[int]:
        """Returns the candidates chosen for an image."""
        return [index for index in self.best[image].tolist() if index >= 0]


@dataclass(frozen=True)
class Alternatives:
    """How much worse than the chosen sets of B images their A alternatives are.

    Attributes:
        statistics: Statistics of the images.
        solution: The chosen sets.
        rows: Indices of the images among those that the search began with ``[B]``.
        difference: Of each alternative ``[B,A]``.
        exists: Whether there is such an alternative ``[B,A]``.
    """

    statistics: GramStatistics
    solution: Solution
    rows: Tensor
    difference: PairedDifference
    exists: Tensor

    def ruled_out(self, standard_errors: float) -> Tensor:
        """Returns whether every alternative is worse by this many standard errors ``[B]``."""
        return (self.difference.at_least(standard_errors) | ~self.exists).all(1)


@dataclass(frozen=True)
class Answer:
    """The answer for one image, and how certain it is.

    Attributes:
        concepts: The concepts of the candidates chosen ``[K,D]``, in the order they are reported.
        rivals: How much worse the R alternatives to each concept are: K differences ``[R]``.
        chance: Probability that a guess would include each ``[K]``.
        marginals: Probability of every candidate ``[M]``, if known.
        value_rivals: The same as ``rivals`` for the F values of each concept, if concepts have values.
        nothing: How much worse than the answer a prediction that stands for none of the concepts is ``[1]``, if the model
            has one.
    """

    concepts: Tensor
    rivals: Sequence[PairedDifference]
    chance: Tensor
    marginals: Tensor | None = None
    value_rivals: Sequence[Sequence[PairedDifference]] | None = None
    nothing: PairedDifference | None = None


class Constraint(ABC):
    """Which sets of candidates are answers.

    Args:
        space: The concept space.
        settings: How to invert.
        k: Number of concepts; None estimates it.

    Attributes:
        cost: Fall of the error that justifies one more concept.

    Raises:
        UsageError: If ``k`` is out of range for the space.
    """

    name: ClassVar[str]

    def __init__(self, space: ConceptSpace, settings: InversionSettings, k: int | None) -> None:
        self.space, self.settings, self.k, self.cost = space, settings, k, settings.cost

    @abstractmethod
    def solve(self, form: QuadraticForm) -> Solution:
        """Returns the best sets under the expected errors."""

    @abstractmethod
    def alternatives(self, statistics: GramStatistics, solution: Solution, rows: Tensor) -> Alternatives:
        """Compares the chosen sets with the alternatives that must be ruled out, see :class:`Alternatives`."""

    @abstractmethod
    def answers(self, found: Alternatives, candidates: Tensor, images: Sequence[int]) -> list[Answer]:
        """Returns answers of some of the B images, by index, from candidates ``[B,M,D]``, and how certain they are."""

    @property
    def largest(self) -> int:
        """Number of concepts in the largest set that is an answer."""
        raise UsageError(f"what images have in common cannot be found for {self.space.plural}")

    def containing(self, form: QuadraticForm, held: Sequence[int]) -> Solution:
        """Returns the best sets that hold the given candidates, and which of these sets is chosen."""
        raise UsageError(f"what images have in common cannot be found for {self.space.plural}")

    def least_with(self, form: QuadraticForm, held: Sequence[int]) -> Tensor:
        """Returns the least error plus cost of a set that holds the given candidates and one more.

        Returns:
            For every candidate ``[B,M]``, float64; infinite where there is no such set, and for those held.
        """
        raise UsageError(f"what images have in common cannot be found for {self.space.plural}")

    @property
    def first_draws(self) -> int:
        """Noise samples to take before candidates are first compared: those of the first decision."""
        return self.settings.draws

    def more_draws(self, seen: int) -> int:
        """Returns how many noise samples to take next, if those seen did not decide: the same number again."""
        return seen

    def cheapest(self, errors: Tensor, sizes: Tensor) -> Tensor:
        """Returns the index of the size of least error plus cost, argmin_K  min_{|S| = K} error(S) + cost K, ``[B]``.

        The errors of the best sets ``[B,S]`` are infinite for sizes ``[S]`` that may not be chosen.
        """
        return (errors + self.cost * sizes).argmin(1)

    def still_possible(self, found: Alternatives) -> Tensor:
        """Returns which candidates can still be part of an answer ``[B,M]``; others see no further noise."""
        return found.statistics.usable


def occurring(sets: Tensor, candidates: int) -> Tensor:
    """Returns which of M candidates occur in sets ``[B,...]``, which are padded with -1, ``[B,M]``."""
    there = torch.zeros(len(sets), candidates + 1, dtype=torch.bool, device=sets.device)
    return there.scatter_(1, sets.flatten(1) + 1, True)[:, 1:]
