"""The methods that are trained for the benchmark: set predictors, and a diffusion model of the whole set."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from igm_cli.benchmarks.baselines.fit import Budget, Fitted
from igm_cli.benchmarks.baselines.gc_inversion import SetSettings, count_set, invert_set
from igm_cli.benchmarks.baselines.set_prediction import SetPredictor
from igm_cli.benchmarks.frame.images import Scene
from igm_cli.benchmarks.frame.training import training_info
from igm_cli.benchmarks.suite import Row
from igm_cli.benchmarks.suites.object_discovery.inversions import found
from igm_cli.core.device import inference_precision


class Predicted:
    """A network that names all positions in one pass."""

    limit = None

    def __init__(
        self, label: str, predictor: SetPredictor, trained: Fitted, budget: Budget, device: torch.device
    ) -> None:
        self.label, self.predictor, self.model, self.device = label, predictor, trained.model, device
        self.info: Mapping[str, Any] = training_info(trained, budget)

    def __call__(self, scene: Scene) -> list[Row]:
        """One row."""
        image, started = scene.x0[None].to(self.device), time.monotonic()
        given = self._predict(image, len(scene.truth))
        seconds = time.monotonic() - started
        free = self._predict(image, None)
        return [found(self.label, given, free, seconds=seconds, calls=1)]

    def _predict(self, image: Tensor, k: int | None) -> Tensor:
        with torch.no_grad(), inference_precision(self.device):
            return self.predictor.predict(self.model, image, [k])[0]


class WholeSet:
    """A conditional diffusion model of the whole set, inverted by search.

    Args:
        trained: The model.
        budget: That it was trained within.
        settings: Of the search.
        device: Where to compute.
        most: Largest K tried where K is estimated, which takes as many searches; 0 does not estimate.
    """

    limit = None

    def __init__(
        self, trained: Fitted, budget: Budget, settings: SetSettings, device: torch.device, most: int
    ) -> None:
        self.model: Any = trained.model.requires_grad_(False)
        self.settings, self.device, self.most = settings, device, most
        self.info: Mapping[str, Any] = training_info(trained, budget)

    def __call__(self, scene: Scene) -> list[Row]:
        """One row."""
        image = scene.x0.to(self.device)
        given = invert_set(self.model, image, len(scene.truth), self.settings)
        free = count_set(self.model, image, k_max=self.most, settings=self.settings) if self.most else None
        counted = None if free is None else free.concepts
        return [found("gc", given.concepts, counted, seconds=given.seconds, calls=given.passes)]
