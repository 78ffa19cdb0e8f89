"""Errors of whole hypotheses by network calls: the objective as written, without inner products.

    error(c_1..c_K) = E_{t,eps} ‖eps - compose_k eps_theta(x_t, t | c_k)‖²     (IGM, Wang et al. 2025, eq. 6)

The papers' own algorithms are built on it, and tests compare the statistics with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igm_cli.core.composition import Composition, compose
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.device import inference_precision
from igm_cli.core.inference.noised_batch import importance_of
from igm_cli.core.noise_schedule import Draws, draw, views_of_draws
from igm_cli.core.types import InversionSettings

FLOATS_AT_ONCE = 2**24
"""Values of predictions held at once, which bounds the memory."""

FIRST_STAGE = 4
"""Least number of noise samples of the first stage of elimination."""


def hypothesis_errors(
    denoiser: Denoiser, image: Tensor, draws: Draws, hypotheses: Tensor, composition: Composition
) -> Tensor:
    """Returns the errors of R hypotheses ``[R,K,D]`` about an image ``[C,H,W]`` under N noise samples ``[R,N]``.

    It takes K network calls for each of them.  The noise samples are on the image's device.
    """
    x_t = denoiser.schedule.add_noise(image[None], draws.noise, draws.t)
    with inference_precision(image.device):
        features = denoiser.features(x_t, draws.t)
    prediction = composed_predictions(denoiser, features, hypotheses, composition)
    errors: Tensor = (draws.noise[:, None] - prediction).square().mean((2, 3, 4))
    return errors.T


def composed_predictions(
    denoiser: Denoiser, features: Any, hypotheses: Tensor, composition: Composition
) -> Tensor:
    """Returns what the model predicts for N noised images under each of R hypotheses ``[R,K,D]``, ``[N,R,C,H,W]``."""
    r, k, dim = hypotheses.shape
    with inference_precision(hypotheses.device):
        base = denoiser.base(features)
        delta = denoiser.contributions(features, hypotheses.reshape(1, r * k, dim)).unflatten(1, (r, k))
    shared = base[:, None].expand(len(base), r, *base.shape[1:]).flatten(0, 1)
    composed: Tensor = compose(shared, delta.flatten(0, 1), composition)
    return composed.reshape(len(base), r, *base.shape[1:])


@dataclass(frozen=True)
class Hypotheses:
    """R hypotheses about an image, each with its own prediction.

    Attributes:
        count: R.
        calls: Network calls per prediction under one of them.
        predict: Maps the features of N noised images and the indices of some hypotheses ``[R']`` to predictions
            ``[N,R',C,H,W]``.
    """

    count: int
    calls: int
    predict: Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Scores:
    """Errors of hypotheses.

    Attributes:
        errors: ``[R]``, float64 on the CPU; infinite for those eliminated early.
        calls: Network calls.
    """

    errors: Tensor
    calls: int


def mean_errors(
    denoiser: Denoiser,
    image: Tensor,
    settings: InversionSettings,
    hypotheses: Hypotheses,
    stages: int | None = 1,
) -> Scores:
    """Scores hypotheses under ``settings.draws`` noise samples, the worse half eliminated after every stage but the last.

    Diffusion Classifier (Li et al. 2023, section 3.3, Algorithm 2).  With None, one or two are left at the last stage.
    """
    shape, s = tuple(image.shape[-3:]), settings

    def summed(which: Tensor, first: int, count: int) -> tuple[Tensor, float]:
        """Returns the weighted errors of some hypotheses ``[R']``, summed over noise samples, and the summed weights."""
        draws = draw(denoiser.schedule, shape, count, low=s.low, high=s.high, seed=s.seed, start=first)
        every = (
            importance_of(denoiser.schedule, draws.t, s.power).cpu().double()
        )  # not every device has float64
        draws = draws.to(image.device)
        total, weight = torch.zeros(len(which), dtype=torch.float64), 0.0
        most = max(1, FLOATS_AT_ONCE // (draws.noise[0].numel() * hypotheses.calls))
        group = min(most, len(which))  # hypotheses at once; noise samples take the room left
        at_once, images = max(1, most // group), views_of_draws(image, first, count)
        parts = (part.split(at_once) for part in (images, draws.t, draws.noise, every))
        for seen, t, noise, importance in zip(*parts, strict=True):
            with inference_precision(image.device):
                features = denoiser.features(denoiser.schedule.add_noise(seen, noise, t), t)
            errors = [
                (noise[:, None] - hypotheses.predict(features, part)).square().mean((2, 3, 4))
                for part in which.split(group)
            ]
            total += importance @ torch.cat(errors, dim=1).cpu().double()
            weight += float(importance.sum())
        return total, weight

    alive, total = torch.arange(hypotheses.count), torch.zeros(hypotheses.count, dtype=torch.float64)
    stages = stages or max(1, math.ceil(math.log2(hypotheses.count)))
    weight, taken, calls = 0.0, 0, 0
    for stage in range(1, stages + 1):
        goal = max(s.draws >> (stages - stage), min(FIRST_STAGE * stage, s.draws))
        if goal > taken:
            more, seen = summed(alive, taken, goal - taken)
            total[alive] += more
            calls += (goal - taken) * len(alive) * hypotheses.calls
            weight, taken = weight + seen, goal
        if stage < stages:
            order = total[alive].argsort(stable=True)
            alive = alive[order[: math.ceil(len(alive) / 2)]].sort().values
    errors = torch.full_like(total, math.inf)
    errors[alive] = total[alive] / weight
    return Scores(errors, calls)
