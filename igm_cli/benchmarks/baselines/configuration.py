"""One conditional diffusion model of a whole configuration (a value of every factor), not composed.

IGM (Wang, Dauwels & Du 2025, section 5.2) compares with it under the names GC, "generative classifier",
and GC with each factor alone; inference tries every condition, under shared noise draws:

    gc           argmin E ‖eps - eps_theta(x_t, t | C)‖²    over theta, then over C = {c_1 .. c_F}
    gc-variant   argmin E ‖eps - eps_theta(x_t, t | c_f)‖²  over theta for random f, then over c_f for every f

Data, network, schedule and objective, including the contrast, are those of the factored denoiser, and training may
start from its trained trunk; only the condition differs.  The whole configuration is one row with a 1 for each
value; the head is not linear in it, so that the meaning of a value may depend on the others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from igm_cli.benchmarks.baselines.gc import DiffusionBaseline, start_from
from igm_cli.core.checkpoint import ModelSpec
from igm_cli.core.concepts import Categorical
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.device import inference_precision
from igm_cli.core.inference.direct import Hypotheses, composed_predictions, mean_errors
from igm_cli.core.models.factored_global import GlobalDenoiser
from igm_cli.core.noise_schedule import Draws, Schedule, draw
from igm_cli.core.objective import denoising_weight
from igm_cli.core.training.contrast import contrasts
from igm_cli.core.types import InversionSettings
from igm_cli.errors import InputError

MOST = 1_000_000  # maximum number of configurations tried


@dataclass(frozen=True)
class ConfigurationInversion:
    """The result for one image."""

    values: tuple[int, ...]  # index of the value chosen for every factor, within the factor
    errors: Tensor  # one per condition in the order of ``conditions_of``, float64 on the CPU
    network_calls: int  # per draw, one pass of the trunk and one of the head per condition


def conditions(concepts: Tensor, given: Tensor) -> Tensor:
    """Returns rows ``[B,D]`` with a 1 for the value of every factor in ``given [B,F]``; concepts are ``[B,F,D]``."""
    return (concepts * given[..., None]).sum(1)


def exchanged(concepts: Tensor, given: Tensor, space: Categorical) -> Tensor:
    """Returns conditions ``[B,D,D]`` in which each value replaces its factor's, if that is given."""
    factor = [f for f, group in enumerate(space.groups()) for _ in group]
    change = space.candidates().to(concepts) - concepts[:, factor]  # [B,D,D]
    return conditions(concepts, given)[:, None] + given[:, factor, None] * change


@dataclass(frozen=True)
class ConfigurationClassifier(DiffusionBaseline):
    """GC over configurations."""

    spec: ModelSpec  # of the model it is compared with, which defines network, space and schedule
    contrast: float = 0.0  # weight of the contrast between values (:mod:`igm_cli.core.training.contrast`)

    def describe(self) -> dict[str, Any]:
        """Returns everything that shapes the model, as JSON."""
        spec = {key: getattr(self.spec, key) for key in ("architecture", "options", "space", "schedule")}
        return {**spec, "contrast": self.contrast, **self.training_options()}

    def build(self) -> GlobalDenoiser:
        """Returns the network, its trunk from ``init`` if there is one (see :func:`.gc.start_from`)."""
        model = self.spec.build()
        if not (isinstance(model, GlobalDenoiser) and isinstance(model.space, Categorical)):
            raise InputError(f"{self.name} needs a factored denoiser over factors; give a model that has them")
        if self.init is not None:
            parts = {f"head.{name}": f"head.{name}" for name in ("view", "notice", "noticed", "readout")}
            start_from(model, self.init, GlobalDenoiser, "whole images", parts)
        return model

    def given(self, concepts: Tensor, factor: Tensor) -> Tensor:
        """Returns which factors of ``[B,F,D]`` are in the condition, ``[B,F]``: all, regardless of the one drawn."""
        return torch.ones(concepts.shape[:2], dtype=torch.bool, device=concepts.device)

    def loss(
        self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Returns the error under one condition per image, averaged over images, pixels, timesteps and noise.

        Timesteps are spread evenly over the batch, as in the training of the composed model.
        """
        count = len(images)
        strata = torch.randperm(count, generator=generator)
        u = (strata + torch.rand(count, generator=generator)) / count
        t = self.timesteps(u, cast(Schedule, model.schedule))
        draws = Draws(t, torch.randn(images.shape, generator=generator)).to(images.device)
        factor = torch.rand(concepts.shape[:2], generator=generator).argmax(1).to(concepts.device)
        return self._error(model, images, concepts, self.given(concepts, factor), draws)

    def _error(self, model: nn.Module, images: Tensor, concepts: Tensor, given: Tensor, draws: Draws) -> Tensor:
        """Returns the composed model's objective for one condition, without anything to compose."""
        schedule, space = cast(Schedule, model.schedule), cast(Categorical, model.space)
        x_t = schedule.add_noise(images, draws.noise, draws.t)
        rows = exchanged(concepts, given, space) if self.contrast else conditions(concepts, given)[:, None]
        base, delta, *read = model(x_t, draws.t, rows, read=bool(self.contrast))
        delta = delta.float().flatten(2)
        errors = ((draws.noise - base.float()).flatten(1)[:, None] - delta).square().mean(2)  # [B,D or 1]
        true, first = concepts.argmax(2), given.float().argmax(1)[:, None]  # first: a factor that is given
        at_truth = true.gather(1, first) if self.contrast else torch.zeros_like(first)
        total = denoising_weight(schedule, draws.t) * errors.gather(1, at_truth)[:, 0]
        if self.contrast:
            each = contrasts(errors, read[0], true, space.groups(), delta.shape[2])
            total = total + self.contrast * (each * given).sum(1)
        return torch.as_tensor(total.mean())

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Returns the mean error at the noise levels of inference, with the same draws at every call."""
        schedule, shape, total = cast(Schedule, model.schedule), tuple(images.shape[1:]), 0.0
        for number in range(self.validation_draws):
            turn = (torch.arange(len(concepts), device=concepts.device) + number) % concepts.shape[1]
            given = self.given(concepts, turn)
            for rows in torch.arange(len(images)).split(self.batch_size):
                start = number * len(images) + int(rows[0])
                draws = draw(schedule, shape, len(rows), low=self.low, high=self.high, seed=0, start=start)
                draws = draws.to(images.device)
                with inference_precision(images.device):
                    total += float(self._error(model, images[rows], concepts[rows], given[rows], draws)) * len(
                        rows
                    )
        return total / (len(images) * self.validation_draws)

    def conditions_of(self, space: Categorical) -> Sequence[tuple[int, ...]]:
        """Returns the candidates of every condition that inference tries: all configurations."""
        if math.prod(len(group) for group in space.groups()) > MOST:
            raise InputError(f"more than {MOST} configurations are too many to try; name fewer factors")
        return list(itertools.product(*space.groups()))

    @torch.no_grad()
    def invert(self, model: nn.Module, image: Tensor, settings: InversionSettings) -> ConfigurationInversion:
        """Returns the values whose conditions give an image ``[C,H,W]`` the least error.

        Of the settings, ``max_draws``, ``low``, ``high``, ``power`` and ``seed`` are used.
        """
        denoiser, space = cast(Denoiser, model), model.space
        if not isinstance(space, Categorical):
            raise InputError("the model knows no factors; give one that is trained on factors")
        tried = torch.tensor(self.conditions_of(space))  # [M,F or 1]
        rows = torch.zeros(len(tried), 1, space.dim).scatter_(2, tried[:, None], 1.0).to(image.device)

        def predict(features: Any, which: Tensor) -> Tensor:
            return composed_predictions(denoiser, features, rows[which.to(rows.device)], "sum")

        settings = replace(settings, draws=settings.max_draws)
        scores = mean_errors(denoiser, image, settings, Hypotheses(len(tried), 1, predict))
        ranked = tried[scores.errors.argsort(stable=True)].flatten().tolist()
        values = tuple(next(c - group[0] for c in ranked if c in group) for group in space.groups())  # the best
        return ConfigurationInversion(values, scores.errors, scores.calls + settings.draws)


@dataclass(frozen=True, kw_only=True)
class FactorClassifier(ConfigurationClassifier):
    """GC of each factor alone: every condition is one value, independent of the other factors."""

    name: str = "gc-variant"

    def given(self, concepts: Tensor, factor: Tensor) -> Tensor:
        """Returns the one factor drawn for each image, ``[B,F]``."""
        return functional.one_hot(factor, concepts.shape[1]).bool()

    def conditions_of(self, space: Categorical) -> Sequence[tuple[int, ...]]:
        """Returns every single value."""
        return [(index,) for index in range(space.dim)]
