"""Materials of surfaces: the patterns of textured scenes, and reflection by rough surfaces."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from igm_clevr_render.geometry import dot, unit

TURN = 6.2832  # radians


def ggx(
    normal: Tensor, to_light: Tensor, to_eye: Tensor, roughness: float, fresnel: tuple[float, float]
) -> Tensor:
    """Returns π times the GGX reflectance [N] (Walter et al., EGSR 2007; Schlick's masking).

    Args:
        normal: Unit normals [3,N].
        to_light: Unit directions [3,N].
        to_eye: Unit directions [3,N].
        roughness: 0 for a mirror.
        fresnel: Reflectance seen head-on and, added to it, at grazing angles.
    """
    half = unit(to_light + to_eye)
    square = roughness * roughness
    facing = dot(normal, half)
    lobe = square / (facing * facing * (square - 1) + 1).square()
    masking = _masking(normal, to_light, roughness) * _masking(normal, to_eye, roughness)
    grazing = (1 - dot(to_eye, half)).clamp_min(0)
    return lobe / masking / 4 * (fresnel[0] + fresnel[1] * grazing.square().square() * grazing)


def _masking(normal: Tensor, direction: Tensor, roughness: float) -> Tensor:
    k = roughness / 2
    return dot(normal, direction).clamp_min(1e-3) * (1 - k) + k


def _checker(p: Tensor, seed: Tensor, frequency: float) -> Tensor:
    cell = (p * frequency * 0.8 + seed + 0.13).floor()
    return (cell[0] + cell[1] + cell[2]).remainder(2)


def _stripes(p: Tensor, seed: Tensor, frequency: float) -> Tensor:
    angle = TURN * seed
    across = p[0] * angle.cos() + p[1] * angle.sin() + 0.6 * p[2]
    return 0.5 + 0.5 * (2.5 * (2.5 * frequency * across).sin()).tanh()


def _noise(p: Tensor, seed: Tensor, frequency: float) -> Tensor:
    """Returns a smooth irregular pattern: sines bent by sines."""
    x, y, z = (p[i] * frequency + seed * step for i, step in enumerate((17.0, 31.0, 47.0)))
    wave = (
        (x + 1.7 * (0.9 * y + z).sin()).sin()
        + (0.8 * y - x + 1.3 * (1.1 * z - x).sin()).sin()
        + (z + 0.7 * x + 1.9 * (1.3 * y).sin()).sin()
    )
    return 0.5 + wave / 6


TEXTURES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "checker": _checker,
    "stripes": _stripes,
    "noise": _noise,
}
"""Patterns: values in 0..1 at points [3,N] of any frame, for a seed [N] that moves the pattern and a frequency."""


def pattern(names: Sequence[str], point: Tensor, seed: Tensor, frequency: float, choice: Tensor) -> Tensor:
    """Returns the values in 0..1 [N] of patterns at points.

    Args:
        names: One or more out of `TEXTURES`.
        point: Points [3,N] in any frame.
        seed: Numbers in 0..1 [N] that move the pattern.
        frequency: How fine the pattern is.
        choice: Numbers in 0..1 [N] that select each point's pattern if there are several.
    """
    values = TEXTURES[names[0]](point, seed, frequency)
    chosen = (choice * len(names)).floor()
    for number, name in enumerate(names[1:], 1):
        values = torch.where(chosen == number, TEXTURES[name](point, seed, frequency), values)
    return values
