"""The methods: each from a picture's latent to a set of labels, under the same draws."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from igm_cli.benchmarks.baselines.label_methods import (
    BATCH,
    compound_prompts,
    enumerate_sets,
    labels_alone,
    prompt_weights,
)
from igm_cli.benchmarks.suite import Row
from igm_cli.benchmarks.suites.zero_shot.splits import Cell
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.inversion import Inversion, InversionSettings
from igm_cli.core.inference.labels import invert_labels
from igm_cli.core.inference.views import encoded_views
from igm_cli.core.models.text_to_image import TextToImageDenoiser

ENUMERATE, IGM, ADAPTIVE, WEIGHTS = "enumerate", "igm", "igm-adaptive", "prompt-weights"

METHODS = {
    IGM: "exact search over the evidence of every label, all draws for all labels",
    ADAPTIVE: "the same as users get it: labels given up early, draws until the choice is settled",
    ENUMERATE: "the paper's: U-Net calls for every label of every set",
    "dc-compound": "Diffusion Classifier, a caption for every set",
    "dc-variant": "Diffusion Classifier, each label alone, the best kept",
    WEIGHTS: "the paper's learned weights of prompts, the largest kept",
}
COUNTING = (IGM, ADAPTIVE)
"""Those that find the number of labels, too."""

SLOW = 100
"""U-Net calls an image in units of the draws that a method is equal in, above which it is slow."""


@dataclass(frozen=True)
class Plan:
    """How methods are run.

    Attributes:
        settings: Of the model; ``draws`` are those of ``igm-adaptive``'s first decision.
        draws: That all others see.
        stages: Whether ``dc-compound`` leaves captions out in stages.
        slow_limit: Images of a split that slow methods are run on.
        templates: Prompts.
    """

    settings: InversionSettings
    draws: int
    stages: bool
    slow_limit: int
    templates: tuple[str, ...]

    @property
    def equal(self) -> InversionSettings:
        """The settings of all methods but ``igm-adaptive``."""
        return replace(self.settings, draws=self.draws, max_draws=self.draws)

    def calls(self, method: str, labels: int, k: int) -> int:
        """U-Net calls an image, at most."""
        sets = math.comb(labels, k)
        each = {ENUMERATE: k * sets, "dc-compound": sets}.get(method, labels)
        draws = {WEIGHTS: BATCH * self.settings.relax_steps, ADAPTIVE: self.settings.max_draws}
        return each * draws.get(method, self.draws) * len(self.templates)

    def limit(self, method: str, cell: Cell) -> int | None:
        """Images of a split, fewer for a slow method; None for all."""
        calls = self.calls(method, len(cell.labels), cell.most)
        slow = method not in COUNTING and calls > SLOW * self.draws * len(self.templates)
        return self.slow_limit if slow else None

    def find(self, method: str) -> Callable[[TextToImageDenoiser, Tensor, int | None], Inversion]:
        """The method, from a latent to what is found."""
        if method in COUNTING:
            settings, adaptive = (self.settings, True) if method == ADAPTIVE else (self.equal, False)
            return lambda model, x, k: invert_labels(
                cast(Denoiser, model), x, settings, k, "mean", eliminate=adaptive
            )
        methods: Mapping[str, Any] = {
            ENUMERATE: enumerate_sets,
            "dc-compound": partial(compound_prompts, stages=self.stages),
            "dc-variant": labels_alone,
            WEIGHTS: prompt_weights,
        }
        return lambda model, x, k: methods[method](model, x, self.equal, k)


class LabelMethod:
    """One method over all splits, behind the protocol of a suite's.

    Args:
        name: Of the method.
        plan: How it is run.
        denoiser: The model, whose labels are exchanged for those of a split.
        cells: The splits.
        info: What the report says of it.
    """

    limit = None  # slow methods have one of their own in every split

    def __init__(
        self,
        name: str,
        plan: Plan,
        denoiser: TextToImageDenoiser,
        cells: Mapping[str, Cell],
        info: Mapping[str, Any],
    ) -> None:
        self.name, self.plan, self.cells, self.info = name, plan, cells, info
        self.find = plan.find(name)
        self.models = {
            split: denoiser.with_labels(cell.labels, plan.templates)
            for split, cell in cells.items()
            if cell.k or cell.given or name in COUNTING
        }
        self.limits = {split: plan.limit(name, cells[split]) for split in self.models}

    def __call__(self, split: str, item: str) -> list[Row]:
        """One row; none beyond the limit, or where the method cannot count."""
        cell = self.cells[split]
        limit = self.limits.get(split, 0)
        if limit is not None and cell.scenes.rows[item] >= limit:
            return []
        scene, model = cell.scenes[item], self.models[split]
        k = len(scene.truth) if cell.given else cell.k
        started = time.monotonic()
        with torch.no_grad():
            found = self.find(model, encoded_views(model.encode, scene.x0, self.plan.settings.views), k)
        seconds = time.monotonic() - started
        sure = found.confidence.tolist()
        return [
            {
                "label": self.name,
                "predicted": cell.names(scene, found.concepts),
                "truth": cell.names(scene, scene.truth),
                "confidence": None if any(map(math.isnan, sure)) else sure,
                "seconds": seconds,
                "calls": found.network_calls,
                "draws": found.draws,
                "error": found.denoising_error,
            }
        ]
