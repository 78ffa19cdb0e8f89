"""The error of the composed prediction, which training lowers over theta and inversion over c.

    ‖eps - compose_k eps_theta(x_t, t | c_k)‖²     (IGM, Wang et al. 2025)

This module has it for one set of concepts per image; :mod:`igm_cli.core.inference.statistics` has it as a quadratic
form, for all sets of many candidates at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from igm_cli.core.composition import Composition, compose
from igm_cli.core.noise_schedule import Schedule


class Noised(NamedTuple):
    """Images or latents under noise, x_t = alpha_t x_0 + sigma_t eps.

    Attributes:
        x_t: ``[B,C,H,W]``.
        t: Timesteps ``[B]``.
        noise: eps ``[B,C,H,W]``.
        weight: Weight of each error, see :func:`denoising_weight` ``[B]``.
    """

    x_t: Tensor
    t: Tensor
    noise: Tensor
    weight: Tensor

    @classmethod
    def of(cls, schedule: Schedule, x0: Tensor, t: Tensor, noise: Tensor) -> Noised:
        """Noises clean images ``[B,C,H,W]`` at timesteps ``[B]`` by noise ``[B,C,H,W]``."""
        return cls(schedule.add_noise(x0, noise, t), t, noise, denoising_weight(schedule, t))


def composed_loss(
    model: nn.Module,
    seen: Noised,
    composition: Composition,
    concepts: Tensor,
    present: Tensor,
    frozen: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Returns ‖eps - compose_k eps_theta(x_t, t | c_k)‖², averaged over pixels and images.

    Networks that predict v, or the velocity of a flow, are weighted by 1/alpha^2, which makes it the error of v
    (eps_hat - eps = alpha (v_hat - v)), but for the noisiest samples, which weigh 400 at most.

    Args:
        model: Called with (x_t, t, concepts) for (eps_u, Delta).
        seen: B images under noise.
        composition: ``sum`` or ``mean``.
        concepts: ``[B,K,D]``.
        present: ``[B,K]``.
        frozen: The prediction of other models, given (x_t, t), to which this one adds; it takes the place of eps_u.
    """
    base, contributions = model(seen.x_t, seen.t, concepts)
    if frozen is not None:
        base = frozen(seen.x_t, seen.t)
    prediction = compose(base.float(), contributions.float(), composition, present)
    error = (seen.noise - prediction).square().mean(dim=(1, 2, 3))
    return (seen.weight * error).mean()


def denoising_weight(schedule: Schedule, t: Tensor) -> Tensor:
    """Returns 1/max(alpha, 0.05)^2 for networks that predict v or a velocity, 1 for those that predict eps, ``[B]``."""
    return schedule.epsilon_gain(t).clamp(min=0.05).square().reciprocal()
