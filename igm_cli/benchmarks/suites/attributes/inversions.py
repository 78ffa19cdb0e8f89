"""The methods that invert igm's own checkpoint: the evidence, and whole configurations by network calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from igm_cli.benchmarks.frame.images import Scene
from igm_cli.benchmarks.frame.training import checkpoint_info
from igm_cli.benchmarks.suite import Row
from igm_cli.core.checkpoint import Checkpoint
from igm_cli.core.concepts import Categorical
from igm_cli.core.inference.inversion import InversionSettings, invert

ENUMERATE = "enumerate"
SAME_DRAWS = "igm, same draws"
"""The evidence under the draws of the enumeration beside it."""


def found(
    label: str,
    predicted: list[int],
    *,
    confidence: list[float] | None,
    seconds: float,
    calls: int,
    draws: int,
    **more: Any,
) -> Row:
    """A row: the value of every factor, how sure it is (None: not told), and what it took."""
    return {
        "label": label,
        "predicted": predicted,
        "confidence": confidence,
        "seconds": seconds,
        "calls": calls,
        "draws": draws,
        **more,
    }


def values_of(space: Categorical, concepts: Tensor) -> list[int]:
    """Index of the value of every factor, within the factor, of one-hot rows ``[F,D]``."""
    chosen = concepts.argmax(dim=1).tolist()
    return [group.index(index) for group, index in zip(space.groups(), chosen, strict=True)]


class Inversions:
    """The checkpoint inverted under one or several settings.

    Args:
        checkpoint: The model.
        settings: Label of a row to the settings behind it.
        device: Where to compute.
        limit: Images of a split; None for all.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: Mapping[str, InversionSettings],
        device: torch.device,
        limit: int | None = None,
    ) -> None:
        self.checkpoint, self.settings, self.device, self.limit = checkpoint, settings, device, limit
        told = {label: _told(one) for label, one in settings.items()}
        self.info: Mapping[str, Any] = {
            **checkpoint_info(checkpoint),
            "settings": told if len(told) > 1 else told[next(iter(told))],
        }

    def __call__(self, scene: Scene) -> list[Row]:
        """A row for each of the settings."""
        image = scene.x0.to(self.device)
        return [self._row(label, image, settings) for label, settings in self.settings.items()]

    def _row(self, label: str, image: Tensor, settings: InversionSettings) -> Row:
        denoiser = self.checkpoint.denoiser
        inversion = invert(denoiser, image, settings, composition=self.checkpoint.composition)
        confidence = inversion.confidence.tolist()
        return found(
            label,
            values_of(cast(Categorical, denoiser.space), inversion.concepts),
            confidence=None if any(math.isnan(c) for c in confidence) else confidence,
            seconds=inversion.seconds,
            calls=inversion.network_calls,
            draws=inversion.draws,
            error=inversion.denoising_error,
        )


def exact_pair(settings: InversionSettings) -> dict[str, InversionSettings]:
    """Enumeration by network calls, and the evidence, under the same draws: as many as igm takes at most."""
    same = replace(settings, method="evidence", draws=settings.max_draws)
    return {ENUMERATE: replace(same, method="enumerate"), SAME_DRAWS: same}


def _told(settings: InversionSettings) -> str:
    """Method and draws, as the report shows them."""
    s = settings
    draws = {
        "relax": f"{s.relax_steps} steps",
        "enumerate": f"{s.draws} draws",
        "eliminate": f"up to {s.max_draws} draws",
        "evidence": f"{s.draws} to {s.max_draws} draws" if s.draws < s.max_draws else f"{s.draws} draws",
    }
    return f"{s.method}, {draws[s.method]}"
