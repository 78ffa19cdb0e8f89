"""What finding labels by inner products is compared with: methods that ask the network for every hypothesis.

    enumerate     argmin_S  E_{t,eps} ‖eps - 1/K sum_{k in S} eps_theta(x_t, t | label_k)‖²     K C(M,K) calls a draw
    dc-compound   argmin_S  E_{t,eps} ‖eps - eps_theta(x_t, t | "a label_1 and a label_2")‖²    C(M,K) calls a draw
    dc-variant    the K labels of least  E_{t,eps} ‖eps - eps_theta(x_t, t | label)‖²            M calls a draw

The first is how IGM (Wang, Dauwels & Du 2025, section 4.3) searches; the others are Diffusion Classifier (Li et al.
2023) as it is compared with there.  All of them see the very draws that :func:`igm_cli.core.inference.labels.invert_labels` sees.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from igm_cli.core.concepts import Text
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.hypothesis_scores import Hypotheses, mean_errors, staged_errors
from igm_cli.core.inference.inversion import Inversion, InversionSettings, KPoint
from igm_cli.core.inference.label_evidence import predictions
from igm_cli.core.inference.labels import sizes_of
from igm_cli.core.models.prompts import compound


class Prompted(Denoiser, Protocol):
    """A denoiser that takes whole prompts, too."""

    def predictions_of_prompts(self, features: Any, texts: Sequence[str]) -> Tensor:
        """eps_theta(x_t, t | text), ``[N,P,C,H,W]`` float32, of P prompts, one network call each."""
        ...


@torch.no_grad()
def enumerate_sets(denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int) -> Inversion:
    """Every set of K labels, each by network calls of its own: none is kept for another set.

    Args:
        denoiser: Over a :class:`Text` space.
        image: What it denoises ``[C,H,W]``, or views of it ``[V,C,H,W]``.
        settings: ``draws``, ``low``, ``high``, ``power`` and ``seed`` are used.
        k: Number of labels.

    Raises:
        UsageError: If ``k`` is out of range, or there are too many sets.
    """
    space = _space(denoiser, k, settings)
    sets = torch.tensor(list(itertools.combinations(range(space.dim), k)))
    rows = space.candidates().to(image.device)

    def composed(features: Any, which: Tensor) -> Tensor:
        asked = rows[sets[which].flatten()]  # [R*K,M]
        told = predictions(denoiser, features, asked)
        return told.reshape(len(told), len(which), k, *told.shape[2:]).mean(2)

    hypotheses = Hypotheses(len(sets), k * len(space.templates), composed)
    scores = mean_errors(denoiser, image, settings, hypotheses)
    best = int(scores.errors.argmin())
    chosen = sets[best].tolist()
    return chosen_labels(
        chosen, space.dim, float(scores.errors[best]), calls=scores.calls, draws=settings.draws
    )


@torch.no_grad()
def compound_prompts(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int, *, stages: bool = False
) -> Inversion:
    """Diffusion Classifier, its classes being captions of K labels: "a photo of a cup and a spoon".

    Args:
        denoiser: A :class:`Prompted` one over a :class:`Text` space.
        image: What it denoises ``[C,H,W]``, or views of it ``[V,C,H,W]``.
        settings: ``draws``, ``low``, ``high``, ``power`` and ``seed`` are used.
        k: Number of labels.
        stages: Whether the worse half of the captions is left out after every stage (its Algorithm 2), the last
            stage reaching ``draws``; else every caption sees all draws.

    Raises:
        UsageError: If ``k`` is out of range, or there are too many sets.
    """
    space, prompted = _space(denoiser, k, settings), cast(Prompted, denoiser)
    sets = list(itertools.combinations(range(space.dim), k))
    captions = [_captions(space, chosen) for chosen in sets]

    def named(features: Any, which: Tensor) -> Tensor:
        texts = [text for index in which.tolist() for text in captions[index]]
        told = prompted.predictions_of_prompts(features, texts)
        return told.reshape(len(told), len(which), -1, *told.shape[2:]).mean(2)

    score = staged_errors if stages else mean_errors
    scores = score(denoiser, image, settings, Hypotheses(len(sets), len(space.templates), named))
    best = int(scores.errors.argmin())
    error = float(scores.errors[best])
    return chosen_labels(sets[best], space.dim, error, calls=scores.calls, draws=settings.draws)


@torch.no_grad()
def labels_alone(denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int) -> Inversion:
    """Every label alone, as if it were all there is; those K of least error, whose mean is told.

    Args:
        denoiser: Over a :class:`Text` space.
        image: What it denoises ``[C,H,W]``, or views of it ``[V,C,H,W]``.
        settings: ``draws``, ``low``, ``high``, ``power`` and ``seed`` are used.
        k: Number of labels.

    Raises:
        UsageError: If ``k`` is out of range.
    """
    space = _space(denoiser, k, settings)
    rows = space.candidates().to(image.device)

    def alone(features: Any, which: Tensor) -> Tensor:
        return predictions(denoiser, features, rows[which])

    scores = mean_errors(denoiser, image, settings, Hypotheses(space.dim, len(space.templates), alone))
    chosen = scores.errors.argsort(stable=True)[:k]
    error = float(scores.errors[chosen].mean())
    return chosen_labels(chosen.tolist(), space.dim, error, calls=scores.calls, draws=settings.draws)


def chosen_labels(chosen: Sequence[int], labels: int, error: float, *, calls: int, draws: int) -> Inversion:
    """What a method found that does not say how sure it is.

    Args:
        chosen: Indices of K labels.
        labels: M.
        error: Of what was chosen.
        calls: Network calls.
        draws: Noise draws.
    """
    k = len(chosen)
    return Inversion(
        concepts=torch.eye(labels)[list(chosen)],
        confidence=torch.full((k,), math.nan),
        k=k,
        k_source="given",
        denoising_error=error,
        k_curve=(KPoint(k, error, 0.0),),
        network_calls=calls,
        seconds=0.0,
        draws=draws,
    )


def _space(denoiser: Denoiser, k: int, settings: InversionSettings) -> Text:
    """The labels, K of which can be chosen."""
    space = cast(Text, denoiser.space)
    sizes_of(space.dim, k, settings)
    return space


def _captions(space: Text, chosen: Sequence[int]) -> list[str]:
    """A set of labels in every template."""
    return [compound(template, [space.labels[index] for index in chosen]) for template in space.templates]
