"""Metrics of the papers: matched perception rate, estimation error, intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

PERCEPTION_THRESHOLD = 0.002
"""Largest squared error of a perceived concept (IGM, Wang et al. 2025, section 5.1)."""


@dataclass(frozen=True)
class Matching:
    """Predictions matched to truths.

    Attributes:
        predicted: Index of the prediction of each pair ``[P]``.
        truth: Index of the truth of each pair ``[P]``.
        squared: Squared error of each coordinate of each pair ``[P,D]``.
    """

    predicted: Tensor
    truth: Tensor
    squared: Tensor

    def perceived(self, criterion: Literal["sum", "mean"] = "sum") -> Tensor:
        """Which pairs count as perceived ``[P]``.

        The paper asks for an MSE below 0.002 and leaves open whether over coordinates it is summed
        (the stricter reading, ours) or averaged.
        """
        error = self.squared.sum(dim=1) if criterion == "sum" else self.squared.mean(dim=1)
        return error < PERCEPTION_THRESHOLD


def match(predicted: Tensor, truth: Tensor, *, squared: bool = False) -> Matching:
    """Hungarian matching by distance.

    The paper does not say what its matching adds up.  A sum of squares shifts a whole chain of pairs,
    all of them rightly found, to shorten one that is far apart; by the triangle inequality a sum of
    distances never gains by that.

    Args:
        predicted: ``[K,D]``.
        truth: ``[L,D]``.
        squared: Match by squared distance instead.

    Returns:
        min(K, L) pairs.
    """
    from scipy.optimize import linear_sum_assignment  # takes 0.4 s to import, and only scores need it

    predicted, truth = predicted.detach().cpu().double(), truth.detach().cpu().double()
    errors = (predicted[:, None] - truth[None]).square()  # [K,L,D]
    cost = errors.sum(dim=2) if squared else errors.sum(dim=2).sqrt()
    rows, columns = linear_sum_assignment(cost.numpy())
    p, q = torch.as_tensor(rows), torch.as_tensor(columns)
    return Matching(p, q, errors[p, q])


def bootstrap_interval(
    numerator: Tensor,
    denominator: Tensor,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a ratio of sums, resampling images.

    Args:
        numerator: Per image, e.g. perceived objects ``[I]``.
        denominator: Per image, e.g. objects ``[I]``.
        level: Coverage.
        resamples: Number of bootstrap samples.
        seed: Of the resampling.

    Returns:
        (low, high).
    """
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(len(numerator), (resamples, len(numerator)), generator=generator)
    ratios = numerator.double()[index].sum(1) / denominator.double()[index].sum(1).clamp(min=1e-12)
    low, high = torch.quantile(ratios, torch.tensor([(1 - level) / 2, (1 + level) / 2]).double())
    return float(low), float(high)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_list(self) -> list[float]:
        """JSON form: value, low, high."""
        return [self.value, self.low, self.high]


def ratio(numerator: Tensor, denominator: Tensor) -> Estimate:
    """A ratio of sums over images ``[I]``, with its bootstrap interval; that of a single image is unknown (nan)."""
    value = float(numerator.double().sum() / denominator.double().sum().clamp(min=1e-12))
    if len(numerator) < 2:
        return Estimate(value, math.nan, math.nan)
    return Estimate(value, *bootstrap_interval(numerator, denominator))


def rate(hits: Tensor, trials: Tensor) -> Estimate:
    """A share of trials, both counted per image ``[I]``.

    Where all or none are hits, or there is one image, no resample differs: the interval is Wilson's,
    every trial on its own.
    """
    estimate = ratio(hits, trials)
    if len(hits) < 2 or float(hits.sum()) in (0.0, float(trials.sum())):
        return Estimate(estimate.value, *wilson_interval(float(hits.sum()), float(trials.sum())))
    return estimate


def share(hits: Tensor) -> Estimate:
    """The share of images that are hits ``[I]``, each a trial of its own, with Wilson's interval."""
    number = float(hits.sum())
    return Estimate(number / max(1, len(hits)), *wilson_interval(number, len(hits)))


def wilson_interval(hits: float, trials: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a rate."""
    n = max(1.0, trials)
    p = hits / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def mcnemar(first: int, second: int) -> float:
    """Exact two-sided p that images on which only one of two is right fall to either with equal chance.

    Args:
        first: Images on which only the first is right.
        second: Images on which only the second is.

    Source: McNemar 1947; the binomial test of discordant pairs.
    """
    n = first + second
    tail = sum(math.comb(n, i) for i in range(min(first, second) + 1))
    return min(1.0, 2 * tail / (1 << n))
