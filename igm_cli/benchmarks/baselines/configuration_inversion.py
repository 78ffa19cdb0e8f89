"""Inversion of a model of configurations: every hypothesis is tried (IGM, Wang et al. 2025, section 5.2).

    gc           argmin_C       E_{t,eps} ‖eps - eps_theta(x_t, t | C)‖²,  over all configurations C
    gc-variant   argmin_{c_f}   E_{t,eps} ‖eps - eps_theta(x_t, t | c_f)‖²,  for every factor f on its own

All hypotheses share the draws.  A condition is one row, whatever it says, so that a draw costs one
look and one call of the head for each hypothesis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.concepts import Categorical
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.configurations import EXHAUSTIVE_LIMIT
from igm_cli.core.inference.look import Look, contributions, look
from igm_cli.core.noise_schedule import Draws
from igm_cli.errors import InputError

FLOATS = 2**24  # at most in the contributions of some hypotheses under some draws
DRAWS = 64  # seen at once at most


@dataclass(frozen=True)
class ConfigurationInversion:
    """What was found in one image.

    Attributes:
        values: Index of the value chosen for every factor, within the factor.
        concepts: The same as one-hot rows ``[F,D]``.
        errors: Expected error of every hypothesis, float64 on the CPU: of all configurations in the
            order of ``itertools.product(*space.groups())``, or of all D values where each factor is
            judged on its own.
        network_calls: One look and one call a hypothesis for every draw.
    """

    values: tuple[int, ...]
    concepts: Tensor
    errors: Tensor
    network_calls: int


@torch.no_grad()
def invert_configuration(
    model: Denoiser, image: Tensor, draws: Draws, power: float = 0.0, floats: int = FLOATS
) -> ConfigurationInversion:
    """The configuration of least error, by trying them all.

    Args:
        model: Conditioned on rows with a 1 for the value of every factor; in evaluation mode.
        image: ``[C,H,W]`` in -1..1.
        draws: N, shared by all configurations.
        power: Draws are weighted by (sigma/alpha)^power.
        floats: Bounds the contributions ``[N,M,P]`` that are held at once.

    Raises:
        InputError: If there are more than a million configurations.
    """
    space = _factors(model)
    groups = space.groups()
    if math.prod(len(group) for group in groups) > EXHAUSTIVE_LIMIT:
        raise InputError(f"more than {EXHAUSTIVE_LIMIT} configurations are too many to try; name fewer factors")
    configurations = torch.tensor(list(itertools.product(*groups)))  # [M,F]
    rows = torch.zeros(len(configurations), space.dim).scatter_(1, configurations, 1.0)
    errors = condition_errors(model, image, rows, draws, power, floats)
    return _found(space, configurations[int(errors.argmin())].tolist(), errors, len(draws))


@torch.no_grad()
def invert_each_factor(
    model: Denoiser, image: Tensor, draws: Draws, power: float = 0.0, floats: int = FLOATS
) -> ConfigurationInversion:
    """The value of least error of every factor on its own.

    Args:
        model: Conditioned on the one-hot row of one value; in evaluation mode.
        image: ``[C,H,W]`` in -1..1.
        draws: N, shared by all values.
        power: Draws are weighted by (sigma/alpha)^power.
        floats: Bounds the contributions ``[N,M,P]`` that are held at once.
    """
    space = _factors(model)
    errors = condition_errors(model, image, space.candidates(), draws, power, floats)
    chosen = [min(group, key=lambda index: float(errors[index])) for group in space.groups()]
    return _found(space, chosen, errors, len(draws))


def condition_errors(
    model: Denoiser, image: Tensor, rows: Tensor, draws: Draws, power: float, floats: int = FLOATS
) -> Tensor:
    """E ‖eps - eps_theta(x_t, t | row)‖² of every row, averaged over pixels and weighted draws.

    Args:
        model: The model.
        image: ``[C,H,W]``.
        rows: ``[M,D]``, each a condition of its own.
        draws: N, shared by all.
        power: Draws are weighted by (sigma/alpha)^power.
        floats: Bounds the contributions ``[N,M,P]`` that are held at once.

    Returns:
        ``[M]`` float64 on the CPU.
    """
    rows = rows.to(image.device)
    at_once = max(1, min(DRAWS, floats // image.numel()))
    total, weight = torch.zeros(len(rows), dtype=torch.float64), 0.0
    for first in range(0, len(draws), at_once):
        part = Draws(draws.t[first : first + at_once], draws.noise[first : first + at_once])
        seen = look(model, image, part, power)
        parts = rows.split(max(1, floats // seen.residual.numel()))
        total += torch.cat([_weighted_errors(model, seen, some) for some in parts])
        weight += float(seen.importance.cpu().double().sum())
    return total / weight


def _weighted_errors(model: Denoiser, seen: Look, rows: Tensor) -> Tensor:
    """Sum over draws of importance times ‖r - Delta‖² ``[M]``, of rows ``[M,D]``, on the CPU."""
    change = contributions(model, seen, rows)  # [N,M,P]
    errors = (seen.residual[:, None] - change).square().mean(2)
    return seen.importance.cpu().double() @ errors.cpu().double()


def _factors(model: Denoiser) -> Categorical:
    if not isinstance(model.space, Categorical):
        raise InputError("the model knows no factors; give one that is trained on factors")
    return model.space


def _found(space: Categorical, chosen: Sequence[int], errors: Tensor, draws: int) -> ConfigurationInversion:
    """The result, from the candidate index chosen for every factor."""
    values = tuple(group.index(index) for group, index in zip(space.groups(), chosen, strict=True))
    concepts = space.candidates()[list(chosen)]
    return ConfigurationInversion(values, concepts, errors, draws * (1 + len(errors)))
