"""Calibration: the cost of a concept, how sure an answer is, and what is typical, fitted to annotated images.

Guo et al. 2017, "On calibration of modern neural networks": one temperature, by the likelihood of the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from igm_cli.core.inference.posterior import posteriors
from igm_cli.core.inference.statistics import PairedDifference
from igm_cli.core.types import KPoint

TEMPERATURES = [10 ** (-6 + step / 16) for step in range(16 * 5 + 1)]
PENALTIES = [0.0, *(10 ** (-1 + step / 12) for step in range(12 * 3 + 1))]
"""In units of 1e-4, as in :attr:`igm_cli.core.types.InversionSettings.penalty`."""


def fitted_temperature(rivals: Sequence[PairedDifference], right: Sequence[bool]) -> float:
    """Returns the temperature under which the truth is likeliest; 0 if there are no data to fit it to.

    ``rivals`` say how much worse the alternatives to each part of the answers are, ``right`` whether the part is right.
    """
    if not rivals:
        return 0.0
    hit = torch.tensor(list(right))
    hits, misses = int(hit.sum()), int((~hit).sum())
    # If all were right, no temperature would be low enough: the targets of Platt 1999 stay clear of 0 and 1.
    target = torch.where(hit, (hits + 1) / (hits + 2), 1 / (misses + 2))

    def surprise(temperature: float) -> float:
        sure = posteriors(rivals, temperature).clamp(1e-6, 1 - 1e-6)
        return float(-(target * sure.log() + (1 - target) * (1 - sure).log()).mean())

    return min(TEMPERATURES, key=surprise)


def fitted_penalty(curves: Sequence[Sequence[KPoint]], truth: Sequence[int], areas: Sequence[float]) -> float:
    """Returns the penalty under which most counts are exact; of several, the middle one on a log scale.

    Args:
        curves: Every image's error per number of concepts, found without a penalty.
        truth: True numbers of concepts.
        areas: Area of every image over that of an image of the training size.
    """
    scores = {}
    for penalty in PENALTIES:
        costs = [penalty * 1e-4 / area for area in areas]
        found = [
            min(curve, key=lambda p, cost=cost: p.error + cost * p.k).k  # type: ignore[misc]
            for curve, cost in zip(curves, costs, strict=True)
        ]
        off = [k - true for k, true in zip(found, truth, strict=True)]
        scores[penalty] = sum(each == 0 for each in off), -sum(map(abs, off))
    best = [p for p, score in scores.items() if score == max(scores.values())]
    return best[len(best) // 2]


def expected_calibration_error(confidence: Tensor, right: Tensor, bins: int = 10) -> float:
    """Returns the mean distance of confidence and accuracy in bins of confidence (Naeini et al. 2015); nan if empty.

    The confidence is ``[N]`` in 0..1, ``right`` are booleans ``[N]``; bins are equally wide.
    """
    if not len(confidence):
        return math.nan
    sure, hits = confidence.double(), right.double()
    place = (sure * bins).long().clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, sure - hits)
    return float(gaps.abs().sum()) / len(hits)
