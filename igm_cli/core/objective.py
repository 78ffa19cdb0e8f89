"""The error of the composed prediction, which training lowers over theta and inversion over c.

    ‖eps - compose_k eps_theta(x_t, t | c_k)‖²     (IGM, Wang et al. 2025)

Here for one set of concepts per image; :mod:`igm_cli.core.inference.statistics` has the same error as a quadratic
form, for all sets of many candidates at once.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from igm_cli.core.composition import Composition, compose
from igm_cli.core.noise_schedule import Schedule


def composed_loss(
    model: nn.Module,
    schedule: Schedule,
    composition: Composition,
    x0: Tensor,
    concepts: Tensor,
    present: Tensor,
    t: Tensor,
    noise: Tensor,
    frozen: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """‖eps - compose_k eps_theta(x_t, t | c_k)‖², averaged over pixels and images.

    Networks that predict v, or the velocity of a flow, are weighted by 1/alpha^2, which makes it the error of v
    (eps_hat - eps = alpha (v_hat - v)).

    Args:
        model: Called with (x_t, t, concepts) for (eps_u, Delta).
        schedule: The noise schedule.
        composition: ``sum`` or ``mean``.
        x0: Clean images ``[B,C,H,W]``.
        concepts: ``[B,K,D]``.
        present: ``[B,K]``.
        t: ``[B]``.
        noise: ``[B,C,H,W]``.
        frozen: The prediction of other models, given (x_t, t), to which this one adds; it takes the place of eps_u.
    """
    x_t = schedule.add_noise(x0, noise, t)
    base, contributions = model(x_t, t, concepts)
    if frozen is not None:
        base = frozen(x_t, t)
    prediction = compose(base.float(), contributions.float(), composition, present)
    error = (noise - prediction).square().mean(dim=(1, 2, 3))
    return (denoising_weight(schedule, t) * error).mean()


def denoising_weight(schedule: Schedule, t: Tensor) -> Tensor:
    """1/alpha^2 for networks that predict v or a velocity, 1 for those that predict eps, ``[B]``."""
    return schedule.epsilon_gain(t).clamp(min=0.05).square().reciprocal()
