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
is too narrow, so that their intervals are Student's."""


class Estimate(NamedTuple):
    """A number with its 95 % interval (nan where it is unknown)."""

    value: float
    low: float
    high: float


UNKNOWN = Estimate(math.nan, math.nan, math.nan)  # a ratio over nothing


def ratio(numerators: Iterable[float], denominators: Iterable[float]) -> Estimate:
    """Returns a ratio of sums over images, with its percentile bootstrap interval over the images, or Student's of few."""
    numerators = list(numerators)
    found = _over_images(*_ratios(numerators, denominators))
    return found._replace(low=max(found.low, 0.0)) if min(numerators, default=0) >= 0 else found


def ratio_difference(
    first: tuple[Iterable[float], Iterable[float]], second: tuple[Iterable[float], Iterable[float]]
) -> Estimate:
    """Returns the difference of two ratios of sums on the same images, with its paired interval.

    Each is (numerators, denominators), one per image, in the same order; both are resampled together.
    """
    (one, *ones), (other, *others) = _ratios(*first), _ratios(*second)
    return _over_images(one - other, ones[0] - others[0], ones[1] - others[1])


def _ratios(numerators: Iterable[float], denominators: Iterable[float]) -> tuple[float, Tensor, Tensor]:
    """Returns a ratio of sums over images, that of every resample, and the part of each image in its linearised error.

    There are no resamples of fewer than two images; 0 / 0 is nan.
    """
    above, below = (torch.tensor(list(n), dtype=torch.float64) for n in (numerators, denominators))
    index, value = resamples(len(above)), above.sum() / below.sum()
    return float(value), above[index].sum(1) / below[index].sum(1), (above - value * below) / below.sum()


def _over_images(value: float, resampled: Tensor, parts: Tensor) -> Estimate:
    """Returns a number with the interval from its resamples, or with Student's from the parts of few images."""
    count = len(parts)
    if not 1 < count < ENOUGH:
        return percentiles(value, resampled)
    half = _quantile(count) * math.sqrt(count / (count - 1) * float(parts.square().sum()))
    return Estimate(value, value - half, value + half)


def _quantile(count: int) -> float:
    """Returns the quantile of Student's t that a 95 % interval of so many images reaches to."""
    return float(student.ppf(0.975, count - 1))


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

    If all or none are hits, resamples do not differ, so the interval is Wilson's of independent trials.  For few images
    it is that of :func:`clustered_rate`, or Wilson's if each is a single trial.
    """
    hits, trials = _tried(hits, trials)
    if len(trials) < ENOUGH and any(count != 1 for count in trials):
        return clustered_rate(hits, trials)
    exact = len(trials) < ENOUGH or sum(hits) in (0, sum(trials))
    return _wilson(sum(hits), sum(trials)) if exact else ratio(hits, trials)


def clustered_rate(hits: Sequence[float], trials: Sequence[float]) -> Estimate:
    """Returns the proportion of trials that are hits, both counted per image, for few images or windows of the same ones.

    The interval is that of Korn & Graubard 1998 for clustered samples: Wilson's for as many independent trials as have the
    variance over images, which is widened by Student's t because few images tell little of it; a bootstrap of three images
    would be too narrow.  If images do not differ, trials count as independent.  Trials of one image alone have no interval.
    """
    hits, trials = _tried(hits, trials)
    count, every = len(trials), sum(trials)
    if not count:
        return UNKNOWN
    share = sum(hits) / every
    if count == 1:
        return Estimate(share, math.nan, math.nan)
    squares = sum((h - share * t) ** 2 for h, t in zip(hits, trials, strict=True))
    variance = count / (count - 1) * squares / every**2
    independent = min(every, share * (1 - share) / variance) if variance else every
    effective = independent * (Z / _quantile(count)) ** 2
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
