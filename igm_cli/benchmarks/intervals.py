"""Numbers over images with their 95 % confidence intervals: by bootstrap over the images, or Wilson's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from scipy.stats import t as student
from torch import Tensor

RESAMPLES = 2000
Z = 1.96  # of Wilson's intervals, as in the papers' tables

ENOUGH = 6
"""Fewest images that tell two methods apart: with five, the p of a sign test is 2^-4 even if all agree.  A bootstrap of fewer
is too narrow."""


class Estimate(NamedTuple):
    """A number with its 95 % interval (nan where it is unknown)."""

    value: float
    low: float
    high: float


UNKNOWN = Estimate(math.nan, math.nan, math.nan)  # a ratio over nothing


def ratio(numerators: Iterable[float], denominators: Iterable[float]) -> Estimate:
    """Returns a ratio of sums over images, with its percentile bootstrap interval over the images."""
    value, resampled = _ratios(numerators, denominators)
    return percentiles(value, resampled)


def ratio_difference(
    first: tuple[Iterable[float], Iterable[float]], second: tuple[Iterable[float], Iterable[float]]
) -> Estimate:
    """Returns the difference of two ratios of sums on the same images, with its paired bootstrap interval.

    Each is (numerators, denominators), one per image, in the same order; both are resampled together.
    """
    (one, ones), (other, others) = _ratios(*first), _ratios(*second)
    return percentiles(one - other, ones - others)


def _ratios(numerators: Iterable[float], denominators: Iterable[float]) -> tuple[float, Tensor]:
    """Returns a ratio of sums over images, and that of every resample (none for fewer than two images); 0 / 0 is nan."""
    above, below = (torch.tensor(list(map(float, n))).double() for n in (numerators, denominators))
    index = resamples(len(above))
    return float(above.sum() / below.sum()), above[index].sum(1) / below[index].sum(1)


def resamples(count: int, number: int = RESAMPLES) -> Tensor:
    """Returns the image indices of bootstrap resamples ``[number,count]``; none for fewer than two images."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(max(1, count), (number if count > 1 else 0, count), generator=generator)


def percentiles(value: float, resampled: Tensor) -> Estimate:
    """Returns a number with the interval from its resamples, if there are any."""
    if not len(resampled):
        return Estimate(value, math.nan, math.nan)
    low, high = torch.nanquantile(resampled, torch.tensor([0.025, 0.975]).double()).tolist()
    return Estimate(value, low, high)


def mean(numbers: Iterable[float]) -> Estimate:
    """Returns the mean of numbers, one per image, with its bootstrap interval."""
    numbers = list(numbers)
    return ratio(numbers, [1] * len(numbers))


def rate(hits: Sequence[float], trials: Sequence[float]) -> Estimate:
    """Returns the proportion of trials that are hits, both counted per image, with its bootstrap interval.

    If all or none are hits, resamples do not differ, so the interval is Wilson's of independent trials.  Trials of one image
    alone have no interval.
    """
    if sum(t > 0 for t in trials) != 1 and sum(hits) in (0, sum(trials)):
        return _wilson(sum(hits), sum(trials))
    return ratio(*_tried(hits, trials))


def clustered_rate(hits: Sequence[float], trials: Sequence[float]) -> Estimate:
    """Returns the proportion of trials that are hits, both counted per image, for few images or windows of the same ones.

    The interval is that of Korn & Graubard 1998 for clustered samples: Wilson's for as many independent trials as have the
    variance over images, which is widened by Student's t because few images tell little of it; a bootstrap of three images
    would be too narrow.  If images do not differ, trials count as independent.
    """
    hits, trials = _tried(hits, trials)
    count, every = len(trials), sum(trials)
    if count < 2:
        return rate(hits, trials)
    share = sum(hits) / every
    squares = sum((h - share * t) ** 2 for h, t in zip(hits, trials, strict=True))
    variance = count / (count - 1) * squares / every**2
    independent = min(every, share * (1 - share) / variance) if variance else every
    effective = independent * (Z / float(student.ppf(0.975, count - 1))) ** 2
    return _wilson(share * effective, effective)


def proportion(hits: Sequence[bool]) -> Estimate:
    """Returns the proportion of images that are hits, each a trial of its own, with Wilson's interval."""
    return _wilson(sum(hits), len(hits))


def _tried(hits: Sequence[float], trials: Sequence[float]) -> tuple[list[float], list[float]]:
    """Returns hits and trials of the images that have trials."""
    pairs = [(float(h), float(t)) for h, t in zip(hits, trials, strict=True) if t]
    return [h for h, _ in pairs], [t for _, t in pairs]


def _wilson(hits: float, trials: float) -> Estimate:
    if not trials:
        return UNKNOWN
    share = hits / trials
    middle, half = (
        share + Z**2 / (2 * trials),
        Z * math.sqrt(share * (1 - share) / trials + (Z / trials) ** 2 / 4),
    )
    low, high = ((middle + side * half) / (1 + Z**2 / trials) for side in (-1, 1))
    return Estimate(share, low if hits else 0.0, high if hits < trials else 1.0)
