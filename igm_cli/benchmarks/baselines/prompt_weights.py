"""Learned weights of prompts (IGM, Wang, Dauwels & Du 2025, appendix, Algorithm 6).

    w* = argmin_w  E_{t,eps} ‖eps - sum_j w_j eps_theta(x_t, t | label_j)‖²,    w on the simplex

by stochastic gradients, new draws every step; the K labels of largest weight are kept.  Predictions do not
depend on the weights: no gradient passes through the network, and a step costs M calls a draw.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from igm_cli.benchmarks.baselines.label_methods import chosen_labels
from igm_cli.core.concepts import Text
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.inversion import Inversion, InversionSettings
from igm_cli.core.inference.label_evidence import predictions
from igm_cli.core.inference.labels import sizes_of
from igm_cli.core.inference.look import importance_of
from igm_cli.core.inference.views import shown
from igm_cli.core.noise_schedule import draw

RATE = 0.1
"""Of AdamW on the logits of the weights."""

BATCH = 4
"""Draws a step."""


def prompt_weights(denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int) -> Inversion:
    """The K labels of largest weight.

    Args:
        denoiser: Over a :class:`Text` space.
        image: What it denoises ``[C,H,W]``, or views of it ``[V,C,H,W]``.
        settings: ``relax_steps``, ``low``, ``high``, ``power`` and ``seed`` are used.
        k: Number of labels.

    Raises:
        UsageError: If ``k`` is out of range.
    """
    s, space = settings, cast(Text, denoiser.space)
    sizes_of(space.dim, k, s)
    logits = torch.zeros(space.dim, device=image.device)
    optimizer = torch.optim.AdamW([logits], lr=RATE, weight_decay=0.0)
    error = 0.0
    for step in range(s.relax_steps):
        error, gradient = _step(denoiser, image, s, logits, step * BATCH)
        # The error hardly depends on what is looked for: the direction counts, not its length.
        logits.grad = gradient / gradient.norm().clamp(min=1e-12)
        optimizer.step()
    chosen = logits.argsort(descending=True, stable=True)[:k].tolist()
    draws = s.relax_steps * BATCH
    calls = draws * space.dim * len(space.templates)
    return chosen_labels(chosen, space.dim, error, calls=calls, draws=draws)


def _step(
    denoiser: Denoiser, image: Tensor, s: InversionSettings, logits: Tensor, first: int
) -> tuple[float, Tensor]:
    """The error under weights softmax of ``[M]``, and its gradient ``[M]``, under draws number ``first`` on."""
    shape = tuple(image.shape[-3:])
    draws = draw(denoiser.schedule, shape, BATCH, low=s.low, high=s.high, seed=s.seed, start=first).to(
        image.device
    )
    with torch.no_grad():
        images = shown(image, first, BATCH)
        features = denoiser.features(denoiser.schedule.add_noise(images, draws.noise, draws.t), draws.t)
        rows = torch.eye(len(logits), device=image.device)
        told = predictions(denoiser, features, rows)  # [N,M,C,H,W]
        importance = importance_of(denoiser, draws.t, s.power)
    with torch.enable_grad():
        variable = logits.detach().requires_grad_(True)
        composed = torch.einsum("m,nmchw->nchw", variable.softmax(0), told)
        errors = (draws.noise - composed).square().mean((1, 2, 3))
        loss = (importance / importance.sum()) @ errors
        (gradient,) = torch.autograd.grad(loss, variable)
    return float(loss.detach()), gradient
