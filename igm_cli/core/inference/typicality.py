"""Typicality: how much an image is like those the model was trained on, an out-of-distribution score.

A model denoises an unfamiliar image worse at some noise levels or, if it shows little, much better, and the concepts
found stand out less: both are untypical (Nalisnick et al. 2019, "Detecting out-of-distribution inputs to deep generative
models using typicality"; errors over noise levels: Graham et al. 2023, "Denoising diffusion models for
out-of-distribution detection").  Where many images are known, a :mod:`closer look <igm_cli.core.inference.closer_look>`
also compares where in the image the error stands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field, Strict
from torch import Tensor

from igm_cli.core.validation import PositiveFloat, Share, validated
from igm_cli.errors import InputError

LEVELS = 4
"""Ranges of noise levels, of equal width, whose mean errors are compared with usual ones."""

MARGINS = 2
"""Features of the concepts found: how much they stand out at least and at most."""

LEAST_MARGIN, MOST_MARGIN = -2, -1
"""Indices of these."""

RESERVE = 1.1
"""Distance at which an image is as likely typical as not, over that of the farthest image of the fit."""

BEYOND = 100
"""Of so many images of the fit, one may be farther."""

LOOKS = (0.1, 0.4, 0.7)
"""Noise levels of a closer look, as fractions of T."""

REGIONS = 3
"""Parts along each side of an image that a closer look tells apart."""

MANY = 300
"""Images of one size to which a closer look is fitted at least."""

STEEPNESS = 30.0
"""How fast typicality falls with the distance, in units of the limit."""

LEAST = 1e-9
"""Errors below this are treated as equal."""

UNBOUNDED = 1e12
"""The variance of a feature of which any value is usual."""

UNTYPICAL = 0.5
"""Typicality below which an answer is little more than a guess."""

Row = Annotated[tuple[float, ...], Strict(False)]


def is_untypical(typicality: float | None) -> bool:
    """Returns whether an image is unlike those trained on; False if that is unknown."""
    return typicality is not None and typicality < UNTYPICAL


@validated("field of the table 'typical'")
class Typical:
    """A normal distribution of the :func:`features` of images like those trained on.

    Attributes:
        low: Least noise level, as a fraction of T.
        high: Greatest noise level.
        mean: Of every feature ``[F]``.
        covariance: Of the features ``[F,F]``.
        limit: Distance (Mahalanobis) at which an image is as likely typical as not.
        looks: Noise levels of a closer look, as fractions of T ``[L]``, whose ``L * regions**2`` features come first; none
            without one.
        regions: Parts along each side of an image that it tells apart.
    """

    low: Share
    high: Share
    mean: Row
    covariance: Annotated[tuple[Row, ...], Strict(False)]
    limit: PositiveFloat
    looks: Annotated[tuple[Share, ...], Strict(False)] = ()
    regions: Annotated[int, Field(ge=1, le=64)] = REGIONS

    def __post_init__(self) -> None:
        count = len(self.mean)
        if self.ranges < 1 or [len(row) for row in self.covariance] != [count] * count:
            raise InputError("the table 'typical' needs a mean and a covariance of as many features")
        if self.low >= self.high:
            raise InputError(
                f"the noise levels {self.low}..{self.high} of the table 'typical' are none; put the lower one first"
            )
        if torch.linalg.cholesky_ex(torch.tensor(self.covariance, dtype=torch.float64)).info:
            raise InputError(
                "the covariance of the table 'typical' is not positive definite; take the table out of igm.json, and calibrate "
                "the model again"
            )

    def at(self, seen: Tensor) -> float:
        """Returns how typical features ``[F]`` are; those that are nan, or usual whatever they are, are left out."""
        known = seen.isfinite() & (torch.tensor(self.covariance, dtype=torch.float64).diagonal() < UNBOUNDED)
        if not bool(known.any()):
            return math.nan
        off = self.distance(seen[known], known) / self.limit - 1
        return 1 / (1 + math.exp(min(50.0, STEEPNESS * off)))

    def whatever(self, *places: int) -> Typical:
        """Returns the same, but any value of some features is usual, as where other settings change them."""
        covariance = torch.tensor(self.covariance, dtype=torch.float64)
        for place in places:
            covariance[place], covariance[:, place] = 0.0, 0.0
            covariance[place, place] = UNBOUNDED
        return replace(self, covariance=tuple(map(tuple, covariance.tolist())))

    @property
    def ranges(self) -> int:
        """Number of ranges of noise levels."""
        return len(self.mean) - MARGINS - len(self.looks) * self.regions**2

    @classmethod
    def unknown(cls, low: float, high: float, looks: Sequence[float]) -> Typical:
        """Returns what is usual before it is fitted: anything, seen with these closer looks."""
        count = len(looks) * REGIONS**2 + LEVELS + MARGINS
        covariance = tuple(map(tuple, torch.eye(count, dtype=torch.float64).tolist()))
        return cls(low, high, (0.0,) * count, covariance, limit=1e6, looks=tuple(looks))

    def distance(self, seen: Tensor, known: Tensor) -> float:
        """Returns the Mahalanobis distance of the known features, scaled as if all F were as far off on average."""
        off = seen - torch.tensor(self.mean, dtype=torch.float64)[known]
        covariance = torch.tensor(self.covariance, dtype=torch.float64)[known][:, known]
        squared = float(off @ torch.linalg.solve(covariance, off))
        return math.sqrt(squared * len(known) / len(off))


def features(
    levels: Tensor, errors: Tensor, margins: Tensor, low: float, high: float, ranges: int = LEVELS
) -> Tensor:
    """Returns the features that typicality is based on ``[ranges + 2]``, as logarithms; nan where data are missing.

    Args:
        levels: Noise level of every noise sample as a fraction of T ``[N]``.
        errors: Denoising error under the answer for each ``[N]``.
        margins: How much the error rises if each part of the answer is left out or changed ``[K]``; empty if the answer
            has no parts.
        low: Least noise level used.
        high: Greatest noise level.
        ranges: Number of ranges of noise levels.
    """
    place = ((levels - low) / (high - low) * ranges).floor().long()
    place = torch.where(levels == high, ranges - 1, place)
    every = torch.full((ranges + MARGINS,), math.nan, dtype=torch.float64)
    for number in range(ranges):
        if bool((place == number).any()):
            every[number] = errors[place == number].double().mean().clamp(min=LEAST).log()
    if len(margins):
        every[ranges:] = torch.stack([margins.min(), margins.max()]).double().clamp(min=LEAST).log()
    return every


def fitted(seen: Sequence[Tensor], low: float, high: float, looks: Sequence[float] = ()) -> Typical:
    """Returns what is usual, from the features ``[F]`` of images like those trained on, those of closer looks first.

    Images in which nothing is found have no margins, and tell of the other features alone.  The covariance is shrunk to
    its diagonal (Ledoit & Wolf 2004, with the identity in units of the variances), for there may be few images.

    Raises:
        InputError: If something is found in fewer images than 2 F.
    """
    known = [row for row in seen if bool(row[:-MARGINS].isfinite().all())]
    found, count = sum(bool(row.isfinite().all()) for row in known), len(seen[0]) if seen else LEVELS + MARGINS
    if found < 2 * count:
        raise InputError(
            f"what is typical is fitted to {2 * count} images or more in which something is found by {LEVELS} noise draws "
            f"or more, not to {found}"
        )
    rows, n = torch.stack(known), len(known)
    there = rows.isfinite()
    whole = rows[there.all(1)]
    mean, std = rows[:, :-MARGINS].mean(0), rows[:, :-MARGINS].std(0)
    mean, std = torch.cat([mean, whole[:, -MARGINS:].mean(0)]), torch.cat([std, whole[:, -MARGINS:].std(0)])
    std = std.clamp(min=0.02)
    unit = ((rows - mean) / std).nan_to_num()
    share = there.double().mean(0).sqrt()
    correlation = unit.T @ unit / n / (share[:, None] * share)
    spread = float((correlation - torch.eye(count)).square().sum())
    noise = float(((unit[:, :, None] * unit[:, None, :] - correlation).square().sum((1, 2))).sum()) / n**2
    shrunk = min(1.0, noise / max(spread, 1e-12))
    correlation = (1 - shrunk) * correlation + shrunk * torch.eye(count)
    covariance = correlation * std[:, None] * std[None]
    usual = Typical(
        low, high, tuple(mean.tolist()), tuple(map(tuple, covariance.tolist())), limit=1.0, looks=tuple(looks)
    )
    far = sorted(usual.distance(row[known], known) for row, known in zip(rows, there, strict=True))
    return replace(usual, limit=RESERVE * far[-1 - n // BEYOND])
