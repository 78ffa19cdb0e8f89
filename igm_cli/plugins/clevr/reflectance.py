"""How rough surfaces send a lamp's light back."""

from torch import Tensor

from igm_cli.plugins.clevr.vectors import Vector, dot, plus, unit


def ggx(
    normal: Vector, to_light: Vector, to_eye: Vector, roughness: float, fresnel: tuple[float, float]
) -> Tensor:
    """π times the GGX reflectance (Walter et al., EGSR 2007; Schlick's masking).

    Args:
        normal: [N] unit.
        to_light: [N] unit.
        to_eye: [N] unit.
        roughness: 0 for a mirror.
        fresnel: Reflectance seen head-on and, added, at grazing angles.

    Returns:
        [N] reflectance.
    """
    half = unit(plus(to_light, to_eye))
    square = roughness * roughness
    facing = dot(normal, half)
    spread = square / (facing * facing * (square - 1) + 1).square()
    masking = _masking(normal, to_light, roughness) * _masking(normal, to_eye, roughness)
    grazing = (1 - dot(to_eye, half)).clamp_min(0)
    return spread / masking / 4 * (fresnel[0] + fresnel[1] * grazing.square().square() * grazing)


def _masking(normal: Vector, direction: Vector, roughness: float) -> Tensor:
    k = roughness / 2
    return dot(normal, direction).clamp_min(1e-3) * (1 - k) + k
