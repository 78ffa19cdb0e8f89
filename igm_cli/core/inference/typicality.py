"""Typicality: how much an image is like those the model was trained on, an out-of-distribution score.

A model denoises an image of something else worse at some noise levels or, if there is little on it, much better, and what
it finds there stands out less: both are untypical (Nalisnick et al. 2019, "Detecting out-of-distribution inputs to deep
generative models using typicality"; errors over noise levels: Graham et al. 2023, "Denoising diffusion models for
out-of-distribution detection").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Strict
from torch import Tensor

from igm_cli.core.validation import PositiveFloat, Share, validated
from igm_cli.errors import InputError

LEVELS = 4
"""Ranges of noise levels, of equal width, whose mean errors are compared with usual ones."""

MARGINS = 2
"""Features of what is found: how much it stands out at least and at most."""

LEAST_MARGIN = -2
"""Place of the first of these."""

RESERVE = 1.1
"""How many times as far off as the farthest of the images it was fitted to an image may be, to be as likely typical as not."""

STEEPNESS = 30.0
"""How fast typicality falls with the distance, in units of the limit."""

LEAST = 1e-9
"""Errors below this are not told apart."""

UNTYPICAL = 0.5
"""Typicality below which an answer is little more than a guess."""

Row = Annotated[tuple[float, ...], Strict(False)]


def is_untypical(typicality: float | None) -> bool:
    """Returns whether an image is unlike those trained on; not where that is not known."""
    return typicality is not None and typicality < UNTYPICAL


@validated("field of the table 'typical'")
class Typical:
    """What is usual on images like those trained on: a normal distribution of :func:`features`.

    Attributes:
        low: Least noise level, as a fraction of T.
        high: Greatest noise level.
        mean: Of every feature ``[F]``.
        covariance: Of the features ``[F,F]``.
        limit: Distance (Mahalanobis) at which an image is as likely typical as not.
    """

    low: Share
    high: Share
    mean: Row
    covariance: Annotated[tuple[Row, ...], Strict(False)]
    limit: PositiveFloat

    def __post_init__(self) -> None:
        if len(self.mean) <= MARGINS or [len(row) for row in self.covariance] != [len(self.mean)] * len(
            self.mean
        ):
            raise InputError("the table 'typical' needs a mean and a covariance of as many features")

    def at(self, seen: Tensor) -> float:
        """Returns how typical features ``[F]`` are; those that are nan are left out."""
        known = seen.isfinite()
        if not bool(known.any()):
            return math.nan
        off = self.distance(seen[known], known) / self.limit - 1
        return 1 / (1 + math.exp(min(50.0, STEEPNESS * off)))

    @property
    def ranges(self) -> int:
        """Number of ranges of noise levels."""
        return len(self.mean) - MARGINS

    def distance(self, seen: Tensor, known: Tensor) -> float:
        """Returns the Mahalanobis distance of some of the features, for all F as far off as these on average."""
        off = seen - torch.tensor(self.mean, dtype=torch.float64)[known]
        covariance = torch.tensor(self.covariance, dtype=torch.float64)[known][:, known]
        squared = float(off @ torch.linalg.solve(covariance, off))
        return math.sqrt(squared * len(known) / len(off))


def features(
    levels: Tensor, errors: Tensor, margins: Tensor, low: float, high: float, ranges: int = LEVELS
) -> Tensor:
    """Returns what typicality looks at ``[ranges + 2]``, all as logarithms; nan where there is nothing to look at.

    Args:
        levels: Noise level of every noise sample as a fraction of T ``[N]``.
        errors: Denoising error under the answer for each ``[N]``.
        margins: By how much leaving out or changing each part of the answer raises the error ``[K]``; empty if the
            answer has no parts, or was asked to have more or fewer than there are.
        low: Least noise level that is looked at.
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


def fitted(seen: Sequence[Tensor], low: float, high: float) -> Typical:
    """Returns what is usual, from the features ``[F]`` of images like those trained on.

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
    table = {"low": low, "high": high, "mean": tuple(mean.tolist()), "covariance": covariance.tolist()}
    usual = Typical(**table, limit=1.0)  # type: ignore[arg-type]
    farthest = max(usual.distance(row[known], known) for row, known in zip(rows, there, strict=True))
    return Typical(**table, limit=RESERVE * farthest)  # type: ignore[arg-type]
