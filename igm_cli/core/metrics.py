"""Metrics of the papers: predictions matched to truths, and which count as perceived."""

from __future__ import annotations

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
        """Returns which pairs count as perceived ``[P]``.

        The paper asks for an MSE below 0.002 and leaves open whether it is summed over coordinates
        (the stricter reading, ours) or averaged.
        """
        error = self.squared.sum(dim=1) if criterion == "sum" else self.squared.mean(dim=1)
        return error < PERCEPTION_THRESHOLD


def match(predicted: Tensor, truth: Tensor, *, squared: bool = False) -> Matching:
    """Matches predictions ``[K,D]`` to truths ``[L,D]`` by distance, or its square (Hungarian algorithm).

    The paper does not say which cost its matching sums.  A sum of squares shifts a whole chain of
    correctly found pairs to shorten one long pair; by the triangle inequality a sum of distances never
    gains by that.
    """
    from scipy.optimize import linear_sum_assignment  # takes 0.4 s to import, and only scores need it

    predicted, truth = predicted.detach().cpu().double(), truth.detach().cpu().double()
    errors = (predicted[:, None] - truth[None]).square()  # [K,L,D]
    cost = errors.sum(dim=2) if squared else errors.sum(dim=2).sqrt()
    rows, columns = linear_sum_assignment(cost.numpy())
    p, q = torch.as_tensor(rows), torch.as_tensor(columns)
    return Matching(p, q, errors[p, q])


def match_within(predicted: Tensor, truth: Tensor, radius: float, spared: Tensor | None = None) -> Matching:
    """Matches as many pairs within a radius as possible, with the least sum of distances among such matchings.

    Args:
        predicted: ``[K,D]``.
        truth: ``[L,D]``.
        radius: Largest distance of a pair.
        spared: Truths that need not be found ``[L]``: they take only predictions that no other truth can have.
    """
    from scipy.optimize import linear_sum_assignment

    predicted, truth = predicted.detach().cpu().double(), truth.detach().cpu().double()
    errors = (predicted[:, None] - truth[None]).square()  # [K,L,D]
    distance = errors.sum(dim=2).sqrt()
    near, more = distance <= radius, min(distance.shape) + 1
    # Above any number of spared ones, and those above any distance.
    gain = torch.full((len(truth),), float(more**2)).double()
    if spared is not None:
        gain[spared] = more
    cost = near * (distance / radius - gain)
    rows, columns = (torch.as_tensor(found) for found in linear_sum_assignment(cost.numpy()))
    kept = near[rows, columns]
    p, q = rows[kept], columns[kept]
    return Matching(p, q, errors[p, q])
