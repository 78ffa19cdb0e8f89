"""Whole configurations scored by network calls: the paper's enumeration, and elimination in stages.

Both ask the network for every factor of every configuration, as the objective is written.  They are the
references that the evidence is held against: equal answers, at the cost of the product of the numbers of
values instead of their sum.
"""

from __future__ import annotations

import itertools
import math
from typing import cast

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Categorical
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.factors import of_configuration
from igm_cli.core.hypotheses import hypothesis_errors
from igm_cli.core.inversion import Inversion, InversionSettings
from igm_cli.core.look import importance_of
from igm_cli.core.schedule import Draws, draw
from igm_cli.errors import UsageError

FLOATS_AT_ONCE = 2**24
"""Of contributions: bounds the memory."""

MOST_CONFIGURATIONS = 2**16
FIRST_STAGE = 4
"""Draws of the first stage of elimination at least."""


def enumerate_all(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, composition: Composition
) -> Inversion:
    """All configurations under ``draws`` shared draws (IGM, Wang et al. 2025, section 4.2).

    Raises:
        UsageError: If there are too many.
    """
    hypotheses = configurations(cast(Categorical, denoiser.space)).to(image.device)
    draws = _draws(denoiser, image, settings, 0, settings.draws)
    errors = score(denoiser, image, draws, hypotheses, composition)
    mean = _weighted(errors, denoiser, draws, settings)
    best = int(mean.argmin())
    calls = _calls(len(draws), hypotheses)
    return of_configuration(hypotheses[best], None, float(mean[best]), calls=calls, draws=len(draws))


def eliminate(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, composition: Composition
) -> Inversion:
    """After every stage the worse half of the configurations is left out, and the rest sees more draws.

    Diffusion Classifier (Li et al. 2023, section 3.3, Algorithm 2), its labels being configurations.
    The last stage reaches ``max_draws``.

    Raises:
        UsageError: If there are too many.
    """
    hypotheses = configurations(cast(Categorical, denoiser.space)).to(image.device)
    totals = torch.zeros(len(hypotheses), device=image.device)
    weight, taken, calls = 0.0, 0, 0
    stages = max(1, math.ceil(math.log2(len(hypotheses))))
    for stage in range(1, stages + 1):
        goal = max(settings.max_draws >> (stages - stage), min(FIRST_STAGE * stage, settings.max_draws))
        if goal > taken:
            draws = _draws(denoiser, image, settings, taken, goal - taken)
            importance = importance_of(denoiser, draws.t, settings.power)
            totals = totals + score(denoiser, image, draws, hypotheses, composition) @ importance
            weight, taken = weight + float(importance.sum()), goal
            calls += _calls(len(draws), hypotheses)
        kept = totals.argsort()[: 1 if stage == stages else math.ceil(len(totals) / 2)]
        totals, hypotheses = totals[kept], hypotheses[kept]
    return of_configuration(hypotheses[0], None, float(totals[0]) / weight, calls=calls, draws=taken)


def configurations(space: Categorical) -> Tensor:
    """All choices of one value of every factor, as one-hot rows ``[R,F,D]``.

    Raises:
        UsageError: If there are too many to ask the network for each.
    """
    groups, rows = space.groups(), space.candidates()
    number = math.prod(len(group) for group in groups)
    if number > MOST_CONFIGURATIONS:
        raise UsageError(
            f"{number} configurations are too many to ask the network for each; use --method evidence"
        )
    return rows[torch.tensor(list(itertools.product(*groups)))]


def score(
    denoiser: Denoiser, image: Tensor, draws: Draws, hypotheses: Tensor, composition: Composition
) -> Tensor:
    """Errors of hypotheses ``[R,K,D]`` under all draws ``[R,N]``, a bounded part at a time."""
    one = hypotheses.shape[1] * image.numel()
    together = max(1, min(len(hypotheses), FLOATS_AT_ONCE // one))
    at_once = max(1, FLOATS_AT_ONCE // (one * together))
    parts = []
    for t, noise in zip(draws.t.split(at_once), draws.noise.split(at_once), strict=True):
        part = Draws(t, noise)
        rows = [hypothesis_errors(denoiser, image, part, h, composition) for h in hypotheses.split(together)]
        parts.append(torch.cat(rows))
    return torch.cat(parts, dim=1)


def _draws(denoiser: Denoiser, image: Tensor, s: InversionSettings, start: int, count: int) -> Draws:
    shape = tuple(image.shape)
    taken = draw(denoiser.schedule, shape, count, low=s.low, high=s.high, seed=s.seed, start=start)
    return taken.to(image.device)


def _weighted(errors: Tensor, denoiser: Denoiser, draws: Draws, settings: InversionSettings) -> Tensor:
    """Expected errors ``[R]`` of errors ``[R,N]``."""
    importance = importance_of(denoiser, draws.t, settings.power).double()
    return errors.double() @ (importance / importance.sum())


def _calls(draws: int, hypotheses: Tensor) -> int:
    """One for the base and one for every factor of every configuration, under every draw."""
    return draws * (1 + hypotheses.shape[0] * hypotheses.shape[1])
