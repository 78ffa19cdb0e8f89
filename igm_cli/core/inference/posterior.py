"""How sure an answer is: the posterior of the choice.

p(c | x) ∝ exp(-error(c) / tau)        (Diffusion Classifier, Li et al. 2023, eq. 6; tau calibrated)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from igm_cli.core.inference.statistics import PairedDifference


def posterior(rivals: PairedDifference, temperature: float) -> float:
    """Returns the probability of the choice among itself and its rivals.

    With temperature tau it is the softmax of -error/tau, whose argument is shrunk by what the finite number of noise
    samples leaves open (MacKay 1992).  With 0, if nothing is calibrated, it is the probability that more noise samples
    would not change the choice.

    Args:
        rivals: How much worse each of these is ``[R]``.
        temperature: tau.
    """
    if not temperature:
        return min((float(p) for p in rivals.probability()), default=1.0)
    total = 1.0
    for mean, stderr in zip(rivals.mean.tolist(), rivals.stderr.tolist(), strict=True):
        std = min(stderr, 1e6) / temperature
        total += math.exp(min(50.0, -mean / temperature / math.sqrt(1 + math.pi / 8 * std**2)))
    return 1 / total


def posteriors(rivals: Sequence[PairedDifference], temperature: float) -> Tensor:
    """Returns the probability of every part of an answer over its rivals ``[K]``."""
    return torch.tensor([posterior(each, temperature) for each in rivals])


def shrink_to_chance(probability: Tensor, chance: Tensor, typical: float) -> Tensor:
    """Shrinks probabilities ``[K]`` towards those of a guess ``[K]``, the more the less typical an image is (nan: not)."""
    if math.isnan(typical):
        return probability
    return typical * probability + (1 - typical) * chance
