"""Constraints: which sets of candidates are answers, which of them is best, and what has to be ruled out.

A concept space names its constraint (:attr:`igm_cli.core.concepts.ConceptSpace.constraint`); a constraint is a subclass
of :class:`Constraint` with that name, which the engine looks up.  Each has a file of its own: :mod:`one_of_each`, :mod:`any_set` and
:mod:`sparse_subset`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
        sets: Candidates ``[B,S,K]``; -1 fills up smaller sets.
        errors: Expected error of each ``[B,S]``; infinite where there is no such set.
        chosen: Place of the chosen size among the S sizes ``[B]``.
    """

    sets: Tensor
    errors: Tensor
    chosen: Tensor

    @property
    def best(self) -> Tensor:
        """The chosen sets ``[B,K]``."""
        return self.sets[torch.arange(len(self.sets), device=self.sets.device), self.chosen]

    def to(self, device: torch.device) -> Solution:
        """The same on a device."""
        return Solution(self.sets.to(device), self.errors.to(device), self.chosen.to(device))

    def members(self, image: int) -> list[int]:
        """The candidates chosen for an image."""
        return [index for index in self.best[image].tolist() if index >= 0]


@dataclass(frozen=True)
class Alternatives:
    """By how much the A alternatives to the chosen sets of B images are worse than these.

    Attributes:
        difference: Of each alternative ``[B,A]``.
        exists: Whether there is such an alternative ``[B,A]``.
    """

    difference: PairedDifference
    exists: Tensor

    def ruled_out(self, standard_errors: float) -> Tensor:
        """Whether every alternative is worse by that many standard errors ``[B]``."""
        return (self.difference.at_least(standard_errors) | ~self.exists).all(1)


@dataclass(frozen=True)
class Answer:
    """What is said of one image.

    Attributes:
        concepts: The concepts of the candidates chosen ``[K,D]``, in the order they are reported.
        rivals: What each was chosen over, and by how much that is worse: K differences ``[R]``.
        chance: Probability that a guess would have each ``[K]``.
        marginals: Probability of every candidate ``[M]``, where that is known.
        value_rivals: The same as ``rivals`` for the F values of each concept, where concepts have values.
        nothing: By how much a prediction that stands for none of the concepts is worse than the answer ``[1]``, where the
            model has such a one.
    """

    concepts: Tensor
    rivals: Sequence[PairedDifference]
    chance: Tensor
    marginals: Tensor | None = None
    value_rivals: Sequence[Sequence[PairedDifference]] | None = None
    nothing: PairedDifference | None = None

    def scaled(self, area: float) -> Answer:
        """Returns the same with differences as on an image of the size trained on, so many times smaller than this one.

        Errors are means over pixels, and what is local changes as many of them on an image of any size.
        """
        values = self.value_rivals
        return replace(
            self,
            rivals=[each.scaled(area) for each in self.rivals],
            value_rivals=values and [[each.scaled(area) for each in every] for every in values],
        )


class Constraint(ABC):
    """Which sets of candidates are answers.

    Args:
        space: The concept space.
        settings: How to invert.
        k: Number of concepts if it is given; None estimates it.
        images: B, the number of images.

    Attributes:
        cost: Fall of the error that justifies one more concept.

    Raises:
        UsageError: If ``k`` is out of range for the space.
    """

    name: ClassVar[str]

    def __init__(self, space: ConceptSpace, settings: InversionSettings, k: int | None, images: int) -> None:
        self.space, self.settings, self.k, self.images = space, settings, k, images
        self.cost = settings.cost

    @abstractmethod
    def solve(self, form: QuadraticForm) -> Solution:
        """Returns the best sets under the expected errors."""

    @abstractmethod
    def alternatives(
        self, statistics: GramStatistics, form: QuadraticForm, solution: Solution, rows: Tensor
    ) -> Alternatives:
        """Compares the chosen sets with what must be ruled out before they are an answer.

        Args:
            statistics: Statistics of the images.
            form: Their expected errors.
            solution: What was chosen.
            rows: Which of the images that the search began with these are ``[B]``.
        """

    @abstractmethod
    def answers(
        self,
        statistics: GramStatistics,
        solution: Solution,
        alternatives: Alternatives,
        candidates: Tensor,
        images: Sequence[int],
        rows: Tensor,
    ) -> list[Answer]:
        """Says how sure the chosen sets of some of the images are.

        Args:
            statistics: Statistics of the images.
            solution: What was chosen.
            alternatives: From :meth:`alternatives`.
            candidates: ``[B,M,D]``.
            images: Which of the images of the statistics.
            rows: Which of the images that the search began with these are ``[B]``.
        """

    @property
    def largest(self) -> int:
        """Number of concepts in the largest set that is an answer."""
        raise UsageError(f"what images have in common cannot be found for {self.space.plural}")

    def containing(self, form: QuadraticForm, held: Sequence[int]) -> Solution:
        """Returns the best sets that hold some candidates, and which of them is chosen."""
        raise UsageError(f"what images have in common cannot be found for {self.space.plural}")

    def least_with(self, form: QuadraticForm, held: Sequence[int]) -> Tensor:
        """Returns the error of the best set that holds some candidates and one more, at the cost of its concepts.

        Returns:
            For every candidate ``[B,M]``, float64; infinite where there is no such set, and for those held.
        """
        raise UsageError(f"what images have in common cannot be found for {self.space.plural}")

    @property
    def first_draws(self) -> int:
        """How many noise samples to take before candidates are looked at first: those of the first decision."""
        return self.settings.draws

    def more_draws(self, seen: int) -> int:
        """Returns how many noise samples to take next, where so many did not decide: as many again."""
        return seen

    def still_possible(
        self, statistics: GramStatistics, solution: Solution, alternatives: Alternatives
    ) -> Tensor:
        """Returns which candidates can still be part of an answer ``[B,M]``; others see no further noise."""
        return statistics.usable
