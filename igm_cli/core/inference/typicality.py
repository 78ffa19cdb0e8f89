"""Typicality: how much an image is like those the model was trained on, an out-of-distribution score."""

from __future__ import annotations

import math
from collections.abc import Sequence

UNTYPICAL = 6.0
"""Standard deviations off the typical log error at which the typicality is one half."""


def typicality(error: float, typical: Sequence[float]) -> float:
    """Returns how typical an image is of those the model was trained on, 0..1, by its denoising error.

    An image of something else is denoised worse, or, if there is little on it, much better: both are untypical
    (Nalisnick et al. 2019, "Detecting out-of-distribution inputs ... using typicality").

    Args:
        error: Denoising error under the best concepts.
        typical: Geometric mean of the errors of images like those trained on, and their standard deviation in log
            error; empty if it is not calibrated.

    Returns:
        nan if it is not calibrated.
    """
    if not typical:
        return math.nan
    middle, std = typical
    off = abs(math.log(max(error, 1e-12) / middle)) / std
    return 1 / (1 + math.exp(min(50.0, 2 * (off - UNTYPICAL))))
