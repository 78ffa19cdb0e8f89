"""The methods that are trained for the benchmark: generative classifiers, and a supervised network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from igm_cli.benchmarks.baselines.configuration import ConfigurationClassifier
from igm_cli.benchmarks.baselines.fit import Budget, Fitted
from igm_cli.benchmarks.baselines.resnet import ResNetFactors, most_likely
from igm_cli.benchmarks.frame.images import Scene
from igm_cli.benchmarks.frame.training import training_info
from igm_cli.benchmarks.suite import Row
from igm_cli.benchmarks.suites.attributes.inversions import found
from igm_cli.core.device import inference_precision
from igm_cli.core.inference.inversion import InversionSettings


class Classified:
    """A conditional diffusion model that is not composed, inverted by trying its conditions.

    Args:
        baseline: What was trained.
        trained: The model.
        budget: That it was trained within.
        settings: ``max_draws``, ``low``, ``high``, ``power`` and ``seed`` are used.
        device: Where to compute.
    """

    limit = None

    def __init__(
        self,
        baseline: ConfigurationClassifier,
        trained: Fitted,
        budget: Budget,
        settings: InversionSettings,
        device: torch.device,
    ) -> None:
        self.baseline, self.settings, self.device = baseline, settings, device
        self.model = trained.model.requires_grad_(False)
        self.info: Mapping[str, Any] = {**training_info(trained, budget), "contrast": baseline.contrast}

    def __call__(self, scene: Scene) -> list[Row]:
        """One row."""
        image, started = scene.x0.to(self.device), time.monotonic()
        inversion = self.baseline.invert(self.model, image, self.settings)
        seconds = time.monotonic() - started
        return [
            found(
                self.baseline.name,
                list(inversion.values),
                confidence=None,
                seconds=seconds,
                calls=inversion.network_calls,
                draws=self.settings.max_draws,
            )
        ]


class Predicted:
    """A network that names all values in one pass.

    Args:
        label: Name in the report.
        baseline: What was trained.
        trained: The model.
        budget: That it was trained within.
        device: Where to compute.
    """

    limit = None

    def __init__(
        self, label: str, baseline: ResNetFactors, trained: Fitted, budget: Budget, device: torch.device
    ) -> None:
        self.label, self.baseline, self.model, self.device = label, baseline, trained.model, device
        self.info: Mapping[str, Any] = training_info(trained, budget)

    def __call__(self, scene: Scene) -> list[Row]:
        """One row."""
        space, started = self.baseline.space, time.monotonic()
        with inference_precision(self.device):
            probabilities = self.baseline.predict(self.model, scene.x0[None].to(self.device)).float()
        seconds = time.monotonic() - started
        confidence = [float(probabilities[0, group].max()) for group in space.groups()]
        values = most_likely(space, probabilities)[0].tolist()
        return [found(self.label, values, confidence=confidence, seconds=seconds, calls=1, draws=0)]
