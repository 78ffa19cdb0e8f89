"""The methods that invert igm's own checkpoint: ours, and the paper's restarted descent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from igm_cli.benchmarks.frame.images import Scene
from igm_cli.benchmarks.frame.training import checkpoint_info
from igm_cli.benchmarks.suite import Row
from igm_cli.core.checkpoint import Checkpoint
from igm_cli.core.inference.inversion import Inversion, InversionSettings, invert
from igm_cli.core.inference.sgd import descend, score

RESTARTS = (1, 5, 10, 15, 20)
"""R of the paper's Table 1."""

FEW_STEPS = 20
"""Steps by which the times of fewer starts are compared."""


def found(label: str, given: Tensor, free: Tensor | None, **figures: Any) -> Row:
    """A row: concepts with K given and with K estimated (None: not estimated), and what they took."""
    return {
        "label": label,
        "given": given.tolist(),
        "free": None if free is None else free.tolist(),
        **figures,
    }


class Evidence:
    """Evidence, pursuit and refinement (ours), with K given and with K estimated."""

    limit = None

    def __init__(self, checkpoint: Checkpoint, settings: InversionSettings, device: torch.device) -> None:
        self.checkpoint, self.settings, self.device = checkpoint, settings, device
        self.info: Mapping[str, Any] = checkpoint_info(checkpoint)

    def __call__(self, scene: Scene) -> list[Row]:
        """One row."""
        given, free = self._invert(scene, len(scene.truth)), self._invert(scene, None)
        return [
            found(
                "igm",
                given.concepts,
                free.concepts,
                seconds=given.seconds,
                seconds_free=free.seconds,
                calls=given.network_calls,
                calls_free=free.network_calls,
            )
        ]

    def _invert(self, scene: Scene, k: int | None) -> Inversion:
        checkpoint, image = self.checkpoint, scene.x0.to(self.device)
        return invert(checkpoint.denoiser, image, self.settings, k=k, composition=checkpoint.composition)


class Descent:
    """The paper's algorithm; one run of 20 starts gives the rows of 1, 5, 10, 15 and 20.

    The starts share their draws and are computed together, so that the first R of them are
    a run of R starts.  The time of R < 20 is that of 20 in proportion to a few steps of both.

    Args:
        label: Name in the report.
        checkpoint: The model.
        settings: ``steps``, ``learning_rate``, ``score_draws`` and ``seed`` are used.
        device: Where to compute.
        limit: Images a split, for it takes minutes an image.
    """

    def __init__(
        self,
        label: str,
        checkpoint: Checkpoint,
        settings: InversionSettings,
        device: torch.device,
        limit: int | None,
    ) -> None:
        self.label, self.checkpoint, self.device, self.limit = label, checkpoint, device, limit
        self.settings = replace(settings, method="sgd", restarts=max(RESTARTS))
        self.info: Mapping[str, Any] = {**checkpoint_info(checkpoint), "steps": settings.steps}

    def __call__(self, scene: Scene) -> list[Row]:
        """A row for every number of starts."""
        image, k, started = scene.x0.to(self.device), len(scene.truth), time.monotonic()
        denoiser, composition = self.checkpoint.denoiser, self.checkpoint.composition
        with torch.no_grad():
            ends, descending = descend(denoiser, image, self.settings, k, composition)
            errors, scoring = score(denoiser, image, ends, self.settings, composition)
            mean = errors.mean(dim=1).cpu()  # also waits for the device
        seconds, calls = time.monotonic() - started, descending + scoring
        few = {restarts: self._few_steps(image, k, restarts) for restarts in RESTARTS}
        rows = []
        for restarts in RESTARTS:
            best = ends[int(mean[:restarts].argmin())].cpu()
            rows.append(
                found(
                    f"{self.label} R={restarts}",
                    best,
                    None,
                    seconds=seconds * few[restarts] / few[max(RESTARTS)],
                    calls=calls * restarts // max(RESTARTS),
                )
            )
        return rows

    def _few_steps(self, image: Tensor, k: int, restarts: int) -> float:
        """Seconds that a short descent takes."""
        settings = replace(self.settings, restarts=restarts, steps=min(FEW_STEPS, self.settings.steps))
        started = time.monotonic()
        descend(self.checkpoint.denoiser, image, settings, k, self.checkpoint.composition)[0].cpu()
        return time.monotonic() - started


class Descents:
    """The paper's algorithm on several checkpoints.

    Args:
        parts: One for each.
    """

    def __init__(self, parts: Sequence[Descent]) -> None:
        self.parts, self.limit = parts, parts[0].limit
        self.info: Mapping[str, Any] = {part.label: part.info for part in parts}

    def __call__(self, scene: Scene) -> list[Row]:
        """The rows of all checkpoints."""
        return [row for part in self.parts for row in part(scene)]
