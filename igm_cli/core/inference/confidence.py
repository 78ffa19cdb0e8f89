"""How sure the values of factors are: their posterior under the evidence, and how familiar the image is.

p(c | x) ∝ exp(-error(c) / tau)        (Diffusion Classifier, Li et al. 2023, eq. 6; tau calibrated)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.inference.evidence import Evidence, Gap, paired


@dataclass(frozen=True)
class Rivals:
    """By how much every other value of each factor is worse than the one chosen, the other factors held.

    Attributes:
        gaps: For every factor, one gap for each of its other values.
    """

    gaps: Sequence[Sequence[Gap]]

    @classmethod
    def of(cls, evidence: Evidence, subset: Sequence[int], groups: Sequence[Sequence[int]]) -> Rivals:
        """Compares a configuration with all that differ from it in one factor.

        Args:
            evidence: Of all values.
            subset: The chosen candidate of every factor.
            groups: Candidates of each factor.
        """
        errors = evidence.errors(subset)
        gaps = []
        for place, group in enumerate(groups):
            others = [[*subset[:place], v, *subset[place + 1 :]] for v in group if v != subset[place]]
            gaps.append([paired(evidence.errors(o), errors, evidence.importance) for o in others])
        return cls(gaps)

    def settled(self, standard_errors: float) -> bool:
        """Whether every gap is that many standard errors wide."""
        return all(gap.mean >= standard_errors * gap.stderr for rivals in self.gaps for gap in rivals)

    def probability(self, temperature: float) -> Tensor:
        """Of every chosen value ``[F]``, the other factors held.

        With temperature tau the softmax of -error/tau, its argument shrunk by what the finite number of
        draws leaves open (MacKay 1992); with 0, where nothing is calibrated, the probability that more
        draws would not change the choice.
        """
        if not temperature:
            return torch.tensor([min(gap.probability() for gap in rivals) for rivals in self.gaps])
        return torch.tensor([softmax(rivals, temperature) for rivals in self.gaps])


def softmax(rivals: Sequence[Gap], temperature: float) -> float:
    """Of what was chosen, over it and its rivals, shrunk as :meth:`Rivals.probability` says."""
    total = 1.0
    for gap in rivals:
        spread = min(gap.stderr, 1e6) / temperature
        total += math.exp(min(50.0, -gap.mean / temperature / math.sqrt(1 + math.pi / 8 * spread**2)))
    return 1 / total


UNTYPICAL = 6.0
"""Standard deviations off the typical log error at which an image is half familiar."""


def familiarity(error: float, typical: Sequence[float]) -> float:
    """How much an image is like those the model was trained on, 0..1, by its denoising error.

    An image of something else is denoised worse, or, if there is little on it, much better: both are
    untypical (Nalisnick et al. 2019, "Detecting out-of-distribution inputs ... using typicality").

    Args:
        error: Under the best concepts.
        typical: Geometric mean of the errors of images like those trained on, and their spread in log
            error; empty if not calibrated.

    Returns:
        nan if it is not calibrated.
    """
    if not typical:
        return math.nan
    middle, spread = typical
    off = abs(math.log(max(error, 1e-12) / middle)) / spread
    return 1 / (1 + math.exp(min(50.0, 2 * (off - UNTYPICAL))))


LEGIBLE = 0.9
"""Probability from which on a factor counts as told."""


def legibility(probability: Tensor, groups: Sequence[Sequence[int]]) -> float:
    """How well the factor that is told worst can be told, 0..1: 0 is chance.

    On images like those trained on every factor can be told; where one cannot, the image is not like them,
    and what the others seem to say counts for less.

    Args:
        probability: Of every chosen value ``[F]``.
        groups: Candidates of each factor.
    """
    chance = torch.tensor([1 / len(group) for group in groups])
    return float(((probability - chance) / (LEGIBLE - chance)).clamp(0, 1).min())


def tempered(probability: Tensor, groups: Sequence[Sequence[int]], familiar: float) -> Tensor:
    """Probabilities of chosen values ``[F]`` for an image that is only so familiar: drawn towards chance."""
    if math.isnan(familiar):
        return probability
    chance = torch.tensor([1 / len(group) for group in groups])
    return familiar * probability + (1 - familiar) * chance
