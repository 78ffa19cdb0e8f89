"""How sure an answer is: the posterior of what was chosen.

p(c | x) ∝ exp(-error(c) / tau)        (Diffusion Classifier, Li et al. 2023, eq. 6; tau calibrated)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from igm_cli.core.inference.statistics import PairedDifference

CERTAIN = 0.9
"""Probability from which on a factor counts as certain."""


def posterior(difference: PairedDifference, image: int, rivals: Sequence[int], temperature: float) -> float:
    """Returns the probability of what was chosen, over it and its rivals.

    With temperature tau it is the softmax of -error/tau, its argument shrunk by what the finite number of noise samples
    leaves open (MacKay 1992); with 0, where nothing is calibrated, the probability that more noise samples would not
    change the choice.

    Args:
        difference: By how much alternatives are worse ``[B,A]``.
        image: Which of the B images.
        rivals: Which of the alternatives.
        temperature: tau.
    """
    if not temperature:
        return min((float(p) for p in difference.probability()[image, list(rivals)]), default=1.0)
    total = 1.0
    for mean, stderr in zip(
        difference.mean[image, list(rivals)].tolist(),
        difference.stderr[image, list(rivals)].tolist(),
        strict=True,
    ):
        std = min(stderr, 1e6) / temperature
        total += math.exp(min(50.0, -mean / temperature / math.sqrt(1 + math.pi / 8 * std**2)))
    return 1 / total


def least_certain(probability: Tensor, chance: Tensor) -> float:
    """Returns how certain the least certain factor is, 0..1; 0 is chance.

    On images like those trained on every factor can be told; where one cannot, the image is not like them, and what the
    others seem to say counts for less.

    Args:
        probability: Probability of every chosen value ``[F]``.
        chance: What guessing would have ``[F]``.
    """
    return float(((probability - chance) / (CERTAIN - chance)).clamp(0, 1).min())


def shrink_to_chance(probability: Tensor, chance: Tensor, typical: float) -> Tensor:
    """Shrinks the probabilities of chosen values ``[F]`` to chance ``[F]``, as far as the image is not typical."""
    if math.isnan(typical):
        return probability
    return typical * probability + (1 - typical) * chance
