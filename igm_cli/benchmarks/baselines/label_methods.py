"""Baselines for finding labels by inner products: methods that run the network on every hypothesis.

    enumerate       argmin_S  E ‖eps - 1/K sum_{k in S} eps_theta(x_t, t | label_k)‖²    K C(M,K) calls per draw
    dc-compound     argmin_S  E ‖eps - eps_theta(x_t, t | "a label_1 and a label_2")‖²   C(M,K) calls per draw
    dc-variant      the K labels of least  E ‖eps - eps_theta(x_t, t | label)‖²          M calls per draw
    prompt-weights  argmin_w  E ‖eps - sum_j w_j eps_theta(x_t, t | label_j)‖², w on the simplex; the K largest

The first is IGM's search (Wang, Dauwels & Du 2025, section 4.3), the last its Algorithm 6; the others are
Diffusion Classifier (Li et al. 2023) as compared there.  All but the last see the draws that
:func:`igm_cli.core.inference.engine.invert` sees.

Each takes a denoiser over a :class:`Text` space, an image that it denoises ``[C,H,W]``, or views ``[V,C,H,W]``,
settings (``draws``, or ``relax_steps`` for prompt-weights, ``low``, ``high``, ``power`` and ``seed``) and K.
Each raises :class:`UsageError` if ``k`` is out of range or there are too many sets.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from igm_cli.core.concepts import Text
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.any_set import sizes_of
from igm_cli.core.inference.direct import Hypotheses, Scores, mean_errors
from igm_cli.core.inference.noised_batch import importance_of, predictions
from igm_cli.core.inference.reference import unsure_answer
from igm_cli.core.models.prompts import compound
from igm_cli.core.noise_schedule import draw, views_of_draws
from igm_cli.core.types import Inversion, InversionSettings

RATE = 0.1  # learning rate of prompt-weights: AdamW on the logits of the weights
BATCH = 4  # draws per step of prompt-weights


@torch.no_grad()
def enumerate_sets(denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int) -> Inversion:
    """Tries every set of K labels with separate network calls; no prediction is reused for another set."""
    space, sets = _sets(denoiser, settings, k)
    rows = space.candidates().to(image.device)

    def composed(features: Any, which: Tensor) -> Tensor:
        members = torch.tensor(sets)[which].flatten()  # [R*K]
        predicted = predictions(denoiser, features, rows[None, members])  # [N,R*K,C,H,W]
        return torch.as_tensor(predicted.unflatten(1, (len(which), k)).mean(2))

    hypotheses = Hypotheses(len(sets), k * len(space.templates), composed)
    return _least(space, sets, mean_errors(denoiser, image, settings, hypotheses), settings.draws)


@torch.no_grad()
def compound_prompts(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int, *, stages: bool = False
) -> Inversion:
    """Runs Diffusion Classifier with captions of K labels as classes: "a photo of a cup and a spoon".

    The denoiser must also have ``predictions_of_prompts(features, texts)``: eps_theta(x_t, t | text) of P texts
    ``[N,P,C,H,W]`` float32.  With ``stages`` the worse half of the captions is dropped after every stage
    (Algorithm 2 there), and the last stage reaches ``draws``; otherwise every caption sees all draws.
    """
    space, sets = _sets(denoiser, settings, k)

    def named(features: Any, which: Tensor) -> Tensor:
        labels = [[space.labels[index] for index in sets[number]] for number in which.tolist()]
        texts = [compound(template, chosen) for chosen in labels for template in space.templates]
        predicted = cast(Any, denoiser).predictions_of_prompts(features, texts)
        return torch.as_tensor(predicted.unflatten(1, (len(which), len(space.templates))).mean(2))

    hypotheses = Hypotheses(len(sets), len(space.templates), named)
    scores = mean_errors(denoiser, image, settings, hypotheses, None if stages else 1)
    return _least(space, sets, scores, settings.draws)


@torch.no_grad()
def labels_alone(denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int) -> Inversion:
    """Scores every label alone, as if it were the only one, and reports the mean error of the K best."""
    space, _ = _sets(denoiser, settings, k)
    rows = space.candidates().to(image.device)

    def alone(features: Any, which: Tensor) -> Tensor:
        return predictions(denoiser, features, rows[None, which])

    scores = mean_errors(denoiser, image, settings, Hypotheses(space.dim, len(space.templates), alone))
    chosen = scores.errors.argsort(stable=True)[:k]
    return unsure_answer(rows.cpu()[chosen], float(scores.errors[chosen].mean()), scores.calls, settings.draws)


def prompt_weights(denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int) -> Inversion:
    """Learns the weights of prompts by stochastic gradients, with new draws at every step, and keeps the K largest.

    Predictions do not depend on the weights, so no gradient passes through the network; a draw costs M calls.
    """
    space, _ = _sets(denoiser, settings, k)
    logits = torch.zeros(space.dim, device=image.device)
    optimizer = torch.optim.AdamW([logits], lr=RATE, weight_decay=0.0)
    error = 0.0
    for step in range(settings.relax_steps):
        error, gradient = _error_of_weights(denoiser, image, settings, logits, step * BATCH)
        # Normalised, so that no draw dominates because its error depends more on the labels.
        logits.grad = gradient / gradient.norm().clamp(min=1e-12)
        optimizer.step()
    chosen, draws = logits.cpu().argsort(descending=True, stable=True)[:k], settings.relax_steps * BATCH
    return unsure_answer(space.candidates()[chosen], error, draws * space.dim * len(space.templates), draws)


def _error_of_weights(
    denoiser: Denoiser, image: Tensor, s: InversionSettings, logits: Tensor, start: int
) -> tuple[float, Tensor]:
    """Returns the error under the softmax of ``logits [M]``, and its gradient ``[M]``, from draw ``start`` on."""
    shape, schedule = tuple(image.shape[-3:]), denoiser.schedule
    draws = draw(schedule, shape, BATCH, low=s.low, high=s.high, seed=s.seed, start=start).to(image.device)
    with torch.no_grad():
        x_t = schedule.add_noise(views_of_draws(image, start, BATCH), draws.noise, draws.t)
        rows = torch.eye(len(logits), device=image.device)
        predicted = predictions(denoiser, denoiser.features(x_t, draws.t), rows[None])  # [N,M,C,H,W]
        importance = importance_of(denoiser.schedule, draws.t, s.power)
    with torch.enable_grad():
        variable = logits.detach().requires_grad_(True)
        composed = torch.einsum("m,nmchw->nchw", variable.softmax(0), predicted)
        loss = (importance / importance.sum()) @ (draws.noise - composed).square().mean((1, 2, 3))
        (gradient,) = torch.autograd.grad(loss, variable)
    return float(loss.detach()), gradient


def _sets(denoiser: Denoiser, settings: InversionSettings, k: int) -> tuple[Text, list[tuple[int, ...]]]:
    """Returns the labels, and all sets of K labels."""
    space = cast(Text, denoiser.space)
    sizes_of(space.dim, k, settings)  # refuses an impossible k or too many sets
    return space, list(itertools.combinations(range(space.dim), k))


def _least(space: Text, sets: Sequence[Sequence[int]], scores: Scores, draws: int) -> Inversion:
    """Returns the set with the least error."""
    best = int(scores.errors.argmin())
    return unsure_answer(space.candidates()[list(sets[best])], float(scores.errors[best]), scores.calls, draws)
