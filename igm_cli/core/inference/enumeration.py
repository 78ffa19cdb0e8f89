"""Whole configurations scored by network calls: the paper's enumeration, and elimination in stages.

Both ask the network for every factor of every configuration, as the objective is written.  They are the
references that the evidence is held against: equal answers, at the cost of the product of the numbers of
values instead of their sum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Categorical
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.factors import of_configuration
from igm_cli.core.inference.hypotheses import composed_predictions
from igm_cli.core.inference.hypothesis_scores import Hypotheses, Scores, mean_errors, staged_errors
from igm_cli.core.inference.inversion import Inversion, InversionSettings
from igm_cli.errors import UsageError

MOST_CONFIGURATIONS = 2**16


def enumerate_all(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, composition: Composition
) -> Inversion:
    """All configurations under ``draws`` shared draws (IGM, Wang et al. 2025, section 4.2).

    Raises:
        UsageError: If there are too many.
    """
    return _best(denoiser, image, settings, composition, mean_errors)


def eliminate(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, composition: Composition
) -> Inversion:
    """After every stage the worse half of the configurations is left out, and the rest sees more draws.

    Diffusion Classifier (Li et al. 2023, section 3.3, Algorithm 2), its labels being configurations.
    The last stage reaches ``max_draws``.

    Raises:
        UsageError: If there are too many.
    """
    return _best(denoiser, image, replace(settings, draws=settings.max_draws), composition, staged_errors)


def _best(
    denoiser: Denoiser,
    image: Tensor,
    settings: InversionSettings,
    composition: Composition,
    score: Callable[[Denoiser, Tensor, InversionSettings, Hypotheses], Scores],
) -> Inversion:
    """The configuration of the least error under ``settings.draws`` draws."""
    rows = configurations(cast(Categorical, denoiser.space)).to(image.device)  # [R,F,D]

    def predict(features: Any, which: Tensor) -> Tensor:
        return composed_predictions(denoiser, features, rows[which.to(rows.device)], composition)

    scores = score(denoiser, image, settings, Hypotheses(len(rows), rows.shape[1], predict))
    best = int(scores.errors.argmin())
    calls = scores.calls + settings.draws  # the base, once a draw
    return of_configuration(rows[best], None, float(scores.errors[best]), calls=calls, draws=settings.draws)


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
