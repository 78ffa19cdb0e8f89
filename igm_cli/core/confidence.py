"""How sure the values of factors are: their posterior under the evidence, and how familiar the image is.

p(c | x) ∝ exp(-error(c) / tau)        (Diffusion Classifier, Li et al. 2023, eq. 6; tau calibrated)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.evidence import Evidence, Gap, paired


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
        return torch.tensor([_softmax(rivals, temperature) for rivals in self.gaps])


def _softmax(rivals: Sequence[Gap], temperature: float) -> float:
    total = 1.0
    for gap in rivals:
        spread = min(gap.stderr, 1e6) / temperature
        total += math.exp(min(50.0, -gap.mean / temperature / math.sqrt(1 + math.pi / 8 * spread**2)))
    return 1 / total


def familiarity(error: float, unfamiliar: Sequence[float]) -> float:
    """How much an image is like what the model was trained on, 0..1, by its denoising error.

    Args:
        error: Under the best concepts.
        unfamiliar: (error at which it is one half, width of the step in log error); empty if not calibrated.

    Returns:
        nan if it is not calibrated.
    """
    if not unfamiliar:
        return math.nan
    half, width = unfamiliar
    return 1 / (1 + math.exp(min(50.0, (math.log(max(error, 1e-12)) - math.log(half)) / width)))


def tempered(probability: Tensor, groups: Sequence[Sequence[int]], familiar: float) -> Tensor:
    """Probabilities of chosen values ``[F]`` for an image that is only so familiar: drawn towards chance."""
    if math.isnan(familiar):
        return probability
    chance = torch.tensor([1 / len(group) for group in groups])
    return familiar * probability + (1 - familiar) * chance
