"""The paper's gradient relaxation of discrete concepts (IGM, Wang et al. 2025, appendix, Algorithm 5).

Values of a factor are mixed with weights on the simplex, the weights descend the composed error by
stochastic gradients, and the value of largest weight is taken.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Categorical
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.factors import of_configuration
from igm_cli.core.inference.hypotheses import hypothesis_errors
from igm_cli.core.inference.inversion import Inversion, InversionSettings
from igm_cli.core.inference.look import importance_of
from igm_cli.core.noise_schedule import Draws, draw

RATE = 0.1
"""Of AdamW on the logits."""

BATCH = 4
"""Draws a step."""


def relax(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, composition: Composition
) -> Inversion:
    """One value of every factor, by descent on relaxed one-hot rows.

    Args:
        denoiser: Over a :class:`Categorical` space.
        image: ``[C,H,W]``.
        settings: ``relax_steps``, ``low``, ``high``, ``power`` and ``seed`` are used.
        composition: How contributions add up.
    """
    s, space = settings, cast(Categorical, denoiser.space)
    groups = space.groups()
    logits = torch.zeros(space.dim, device=image.device, requires_grad=True)
    optimizer = torch.optim.AdamW([logits], lr=RATE, weight_decay=0.0)
    error = 0.0
    for step in range(s.relax_steps):
        shape, start = tuple(image.shape), step * BATCH
        draws = draw(denoiser.schedule, shape, BATCH, low=s.low, high=s.high, seed=s.seed, start=start)
        with torch.enable_grad():
            loss = _error(denoiser, image, draws.to(image.device), relaxed(logits, groups), s, composition)
            (logits.grad,) = torch.autograd.grad(loss, logits)
        # The error hardly depends on what is looked for: the direction counts, not its length.
        logits.grad /= logits.grad.norm().clamp(min=1e-12)
        optimizer.step()
        error = float(loss.detach())
    chosen = [group[int(logits.detach()[group].argmax())] for group in groups]
    calls = s.relax_steps * BATCH * (1 + len(groups))
    rows = space.candidates()[chosen]
    return of_configuration(rows, None, error, calls=calls, draws=s.relax_steps * BATCH)


def relaxed(logits: Tensor, groups: list[list[int]]) -> Tensor:
    """Rows of weights on the simplex of each factor ``[F,D]`` of logits ``[D]``."""
    rows = []
    for group in groups:
        row = torch.zeros_like(logits)
        row[group] = torch.softmax(logits[group], dim=0)
        rows.append(row)
    return torch.stack(rows)


def _error(
    denoiser: Denoiser,
    image: Tensor,
    draws: Draws,
    rows: Tensor,
    settings: InversionSettings,
    composition: Composition,
) -> Tensor:
    """The composed error of one relaxed configuration ``[F,D]`` over the draws."""
    importance = importance_of(denoiser, draws.t, settings.power)
    errors = hypothesis_errors(denoiser, image, draws, rows[None], composition)[0]
    return (importance / importance.sum()) @ errors
