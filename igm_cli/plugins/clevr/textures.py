"""Patterns that textured scenes wear: each gives values in 0..1 at points [N] of any frame.

Their arguments are the points, a seed [N] in 0..1 that moves the pattern, and its frequency.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from igm_cli.plugins.clevr.vectors import Vector

TURN = 6.2832  # radians


def _checker(p: Vector, seed: Tensor, frequency: float) -> Tensor:
    x, y, z = ((c * frequency * 0.8 + seed + 0.13).floor() for c in p)
    return (x + y + z).remainder(2)


def _stripes(p: Vector, seed: Tensor, frequency: float) -> Tensor:
    angle = TURN * seed
    across = p[0] * angle.cos() + p[1] * angle.sin() + 0.6 * p[2]
    return 0.5 + 0.5 * (2.5 * (2.5 * frequency * across).sin()).tanh()


def _noise(p: Vector, seed: Tensor, frequency: float) -> Tensor:
    """A smooth irregular pattern: sines bent by sines."""
    x, y, z = (c * frequency + seed * s for c, s in zip(p, (17.0, 31.0, 47.0), strict=True))
    wave = (
        (x + 1.7 * (0.9 * y + z).sin()).sin()
        + (0.8 * y - x + 1.3 * (1.1 * z - x).sin()).sin()
        + (z + 0.7 * x + 1.9 * (1.3 * y).sin()).sin()
    )
    return 0.5 + wave / 6


TEXTURES: dict[str, Callable[[Vector, Tensor, float], Tensor]] = {
    "checker": _checker,
    "stripes": _stripes,
    "noise": _noise,
}


def pattern(names: Sequence[str], point: Vector, seed: Tensor, frequency: float, choice: Tensor) -> Tensor:
    """The pattern at points [N].

    Args:
        names: One or more out of `TEXTURES`.
        point: [N] of any frame.
        seed: [N] in 0..1, moves the pattern.
        frequency: Of the pattern.
        choice: [N] in 0..1, which of several patterns each point wears.

    Returns:
        [N] in 0..1.
    """
    values = TEXTURES[names[0]](point, seed, frequency)
    chosen = (choice * len(names)).floor()
    for number, name in enumerate(names[1:], 1):
        values = torch.where(chosen == number, TEXTURES[name](point, seed, frequency), values)
    return values
