"""One conditional diffusion model of a configuration, a value of every factor, not composed.

What IGM (Wang, Dauwels & Du 2025, section 5.2) compares with under the names GC, "generative
classifier", and GC with each factor alone:

    gc           argmin_theta  E_{x0, t, eps}     ‖eps - eps_theta(x_t, t | C)‖²,    C = {c_1 .. c_F} as one condition
    gc-variant   argmin_theta  E_{x0, f, t, eps}  ‖eps - eps_theta(x_t, t | c_f)‖²,  one factor f at random

Data, network, schedule and objective, its contrast included, are those of the factored denoiser, and its
trained trunk may be the start: what differs is the condition.  The whole configuration is one row with a 1 for each
value; the head is not linear in it, so that what a value means may depend on the others.
Inference is in :mod:`.configuration_inversion`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from igm_cli.benchmarks.baselines.configuration_inversion import (
    ConfigurationInversion,
    invert_configuration,
    invert_each_factor,
)
from igm_cli.core.checkpoint import ModelSpec, fingerprint, load_checkpoint
from igm_cli.core.concepts import Categorical
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.device import inference_precision
from igm_cli.core.models.factored_global import GlobalDenoiser
from igm_cli.core.noise_schedule import Draws, Schedule, draw
from igm_cli.core.objective import denoising_weight
from igm_cli.core.training.contrast import contrasts
from igm_cli.errors import InputError


def conditions(concepts: Tensor, told: Tensor) -> Tensor:
    """What the model is told, as one row ``[B,D]``: a 1 for the value of every factor it is told of.

    Args:
        concepts: One-hot rows ``[B,F,D]``.
        told: Which factors ``[B,F]``.
    """
    return (concepts * told[..., None]).sum(1)


def exchanged(concepts: Tensor, told: Tensor, space: Categorical) -> Tensor:
    """Conditions with every value in place of its factor's ``[B,D,D]``; unchanged where that is not told."""
    factor = [f for f, group in enumerate(space.groups()) for _ in group]
    change = space.candidates().to(concepts) - concepts[:, factor]  # [B,D,D]
    return conditions(concepts, told)[:, None] + told[:, factor, None] * change


def start_from(model: GlobalDenoiser, init: Path) -> None:
    """Takes the trunk, the unconditional output, the head's view of the trunk and its read-out from a checkpoint.

    Args:
        model: Of the same trunk.
        init: Checkpoint folder.

    Raises:
        MissingError: If ``init`` is no checkpoint.
        InputError: If it holds another architecture or another trunk.
    """
    donor: object = load_checkpoint(init).denoiser
    if not isinstance(donor, GlobalDenoiser):
        raise InputError(
            f"{init} holds no factored denoiser of whole images, whose trunk the training starts from"
        )
    try:
        model.trunk.load_state_dict(donor.trunk.state_dict())
        model.base_out.load_state_dict(donor.base_out.state_dict())
        if donor.head.view.weight.shape == model.head.view.weight.shape:
            for name in ("view", "notice", "noticed", "readout"):
                getattr(model.head, name).load_state_dict(getattr(donor.head, name).state_dict())
    except RuntimeError as error:
        raise InputError(f"the trunk of {init} has another shape than the one to be trained") from error


@dataclass(frozen=True)
class ConfigurationClassifier:
    """GC over configurations: a :class:`~igm_cli.benchmarks.baselines.fit.Baseline`.

    Attributes:
        spec: The model that it is compared with: network, space and schedule are taken from it.
        init: Checkpoint folder of a factored denoiser whose trunk the training starts from.
        contrast: Weight of the contrast between values (:mod:`igm_cli.core.training.contrast`).
        timestep_power: t = T u^power with u uniform; above 1 favours low noise.
        low: Least timestep of validation as a fraction of T.
        high: Greatest timestep of validation.
        validation_draws: Noise draws for each validation image.
        learning_rates: To choose from.
        batch_size: Images a step.
        ema: Decay of the averaged weights.
        weight_decay: Of AdamW.
    """

    spec: ModelSpec
    init: Path | None = None
    contrast: float = 0.0
    timestep_power: float = 1.0
    low: float = 0.02
    high: float = 0.98
    validation_draws: int = 4
    learning_rates: tuple[float, ...] = (1e-3, 5e-4, 2e-4)
    batch_size: int = 48
    ema: float = 0.9985
    weight_decay: float = 0.01
    name: str = "gc"

    def describe(self) -> dict[str, Any]:
        """Everything that shapes the model, as JSON."""
        return {
            "name": self.name,
            "architecture": self.spec.architecture,
            "options": dict(self.spec.options),
            "space": dict(self.spec.space),
            "schedule": dict(self.spec.schedule),
            "init": None if self.init is None else fingerprint(self.init),
            "contrast": self.contrast,
            "timestep_power": self.timestep_power,
            "validation": [self.low, self.high, self.validation_draws],
            "learning_rates": list(self.learning_rates),
            "batch_size": self.batch_size,
            "ema": self.ema,
            "weight_decay": self.weight_decay,
        }

    def build(self) -> GlobalDenoiser:
        """The network, its trunk from ``init`` if there is one.

        Raises:
            MissingError: If ``init`` is no checkpoint.
            InputError: If its trunk has another shape, or the model is none of factors of whole images.
        """
        model = self.spec.build()
        if not (isinstance(model, GlobalDenoiser) and isinstance(model.space, Categorical)):
            raise InputError(f"{self.name} needs a factored denoiser over factors; give a model that has them")
        if self.init is not None:
            start_from(model, self.init)
        return model

    def told(self, concepts: Tensor, generator: torch.Generator) -> Tensor:
        """Which factors the model is told of in a training step ``[B,F]``: all of them.

        Args:
            concepts: One-hot rows ``[B,F,D]``.
            generator: Of what is drawn.
        """
        return torch.ones(concepts.shape[:2], dtype=torch.bool, device=concepts.device)

    def told_in_validation(self, concepts: Tensor, number: int) -> Tensor:
        """The same in validation draw number ``number``, without chance."""
        return torch.ones(concepts.shape[:2], dtype=torch.bool, device=concepts.device)

    def loss(
        self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The error under one condition an image, averaged over images, pixels, timesteps and noise.

        Timesteps are spread evenly over the batch, as in the training of the composed model.

        Args:
            model: Of :meth:`build`.
            images: ``[B,3,H,W]`` in -1..1.
            concepts: One-hot rows ``[B,K,D]``.
            present: ``[B,K]``, False for padding.
            generator: Of timesteps, noise, and factors.
        """
        count, schedule = len(images), cast(Schedule, model.schedule)
        strata = torch.randperm(count, generator=generator)
        u = (strata + torch.rand(count, generator=generator)) / count
        t = (u**self.timestep_power * schedule.steps).long().clamp(max=schedule.steps - 1)
        draws = Draws(t, torch.randn(images.shape, generator=generator)).to(images.device)
        return self._error(model, images, concepts, self.told(concepts, generator), draws)

    def _error(self, model: nn.Module, images: Tensor, concepts: Tensor, told: Tensor, draws: Draws) -> Tensor:
        """The objective of the composed model for one condition, a scalar: nothing is left to compose."""
        schedule, space = cast(Schedule, model.schedule), cast(Categorical, model.space)
        x_t = schedule.add_noise(images, draws.noise, draws.t)
        rows = exchanged(concepts, told, space) if self.contrast else conditions(concepts, told)[:, None]
        base, delta, *read = model(x_t, draws.t, rows, read=bool(self.contrast))
        delta = delta.float().flatten(2)
        errors = ((draws.noise - base.float()).flatten(1)[:, None] - delta).square().mean(2)  # [B,D or 1]
        true, first = concepts.argmax(2), told.float().argmax(1)[:, None]  # first: a factor that is told
        at_truth = true.gather(1, first) if self.contrast else torch.zeros_like(first)
        total = denoising_weight(schedule, draws.t) * errors.gather(1, at_truth)[:, 0]
        if self.contrast:
            each = contrasts(errors, read[0], true, space.groups(), delta.shape[2])
            total = total + self.contrast * (each * told).sum(1)
        return torch.as_tensor(total.mean())

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Mean error over the noise that inference looks at; the same draws at every call."""
        schedule, total = cast(Schedule, model.schedule), 0.0
        shape = tuple(images.shape[1:])
        with torch.no_grad(), inference_precision(images.device):
            for number in range(self.validation_draws):
                told = self.told_in_validation(concepts, number)
                for first in range(0, len(images), self.batch_size):
                    x0 = images[first : first + self.batch_size]
                    start = number * len(images) + first
                    draws = draw(schedule, shape, len(x0), low=self.low, high=self.high, seed=0, start=start)
                    part = slice(first, first + len(x0))
                    error = self._error(model, x0, concepts[part], told[part], draws.to(x0.device))
                    total += float(error) * len(x0)
        return total / (len(images) * self.validation_draws)

    def invert(
        self, model: nn.Module, image: Tensor, draws: Draws, power: float = 0.0
    ) -> ConfigurationInversion:
        """The configuration of an image ``[C,H,W]``: see :func:`.invert_configuration`."""
        return invert_configuration(cast(Denoiser, model), image, draws, power)


@dataclass(frozen=True)
class FactorClassifier(ConfigurationClassifier):
    """GC of each factor alone: every condition is one value, and no value knows of the others."""

    name: str = "gc-variant"

    def told(self, concepts: Tensor, generator: torch.Generator) -> Tensor:
        """One factor of each image at random ``[B,F]``."""
        lots = torch.rand(concepts.shape[:2], generator=generator).argmax(1)
        return functional.one_hot(lots, concepts.shape[1]).bool().to(concepts.device)

    def told_in_validation(self, concepts: Tensor, number: int) -> Tensor:
        """The factors of an image in turn, draw by draw."""
        place = (torch.arange(len(concepts), device=concepts.device) + number) % concepts.shape[1]
        return functional.one_hot(place, concepts.shape[1]).bool()

    def invert(
        self, model: nn.Module, image: Tensor, draws: Draws, power: float = 0.0
    ) -> ConfigurationInversion:
        """The configuration of an image ``[C,H,W]``: see :func:`.invert_each_factor`."""
        return invert_each_factor(cast(Denoiser, model), image, draws, power)
