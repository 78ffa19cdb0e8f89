"""Baselines that a benchmark trains: on what, once, and what its report says about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igm_cli.benchmarks.baselines.fit import Baseline, Budget, Fitted, fit
from igm_cli.core.checkpoint import Checkpoint
from igm_cli.core.files import fingerprint_of
from igm_cli.core.training.trainer import Samples
from igm_cli.plugins.base import Progress


class Deferred:
    """Samples that are loaded when first used: a trained baseline needs none."""

    def __init__(self, load: Callable[[], Samples]) -> None:
        self._load = load

    @cached_property
    def _samples(self) -> Samples:
        return self._load()

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, indices: list[int], flips: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what the samples return."""
        return self._samples.batch(indices, flips)


class TrainingData:
    """What baselines are trained on.

    Args:
        about: What it is, as JSON.
        training: Loads the images.
        validation: Loads others, which only choose learning rates.
    """

    def __init__(
        self, about: Mapping[str, Any], training: Callable[[], Samples], validation: Callable[[], Samples]
    ) -> None:
        self.about = dict(about)
        self.training, self.validation = Deferred(training), Deferred(validation)


def fitted(
    baseline: Baseline,
    data: TrainingData,
    budget: Budget,
    cache: Path,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> Fitted:
    """Returns a trained baseline: from the cache folder, where one of the same configuration is."""
    identity = [baseline.describe(), data.about, vars(budget), seed]
    digest = fingerprint_of(identity, 12)
    return fit(
        baseline,
        data.training,
        data.validation,
        budget,
        cache / f"{baseline.name}-{digest}",
        seed=seed,
        device=device,
        data=data.about,
        progress=progress,
    )


def training_info(trained: Fitted, budget: Budget) -> dict[str, Any]:
    """Returns what the report says about a training."""
    return {
        "budget": f"{budget.minutes:g} minutes" if budget.minutes is not None else f"{budget.steps} steps",
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "learning rate": trained.learning_rate,
        "validation error by learning rate": trained.trials,
        "steps": trained.steps,
        "images seen": trained.images,
        "seconds": trained.seconds,
    }


def checkpoint_info(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns what the report says about a checkpoint."""
    info = checkpoint.info
    kept = ("data", "steps", "training", "hardware")
    return {"checkpoint": checkpoint.name, **{key: info[key] for key in kept if key in info}}
