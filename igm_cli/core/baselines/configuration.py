"""One conditional diffusion model of a configuration, a value of every factor, not composed.

What IGM (Wang, Dauwels & Du 2025, section 5.2) compares with under the names GC, "generative
classifier", and GC with each factor alone:

    gc           argmin_theta  E_{x0, t, eps}     ‖eps - eps_theta(x_t, t | C)‖²,    C = {c_1 .. c_F} as one condition
    gc-variant   argmin_theta  E_{x0, f, t, eps}  ‖eps - eps_theta(x_t, t | c_f)‖²,  one factor f at random

Data, network, schedule and objective are those of the factored denoiser, and its trained trunk may
be the start: what differs is the condition.  The whole configuration is one row with a 1 for each
value; the head is not linear in it, so that what a value means may depend on the others.
Inference is in :mod:`.configuration_inversion`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from igm_cli.core.baselines.configuration_inversion import (
    ConfigurationInversion,
    invert_configuration,
    invert_each_factor,
)
from igm_cli.core.checkpoint import ModelSpec, fingerprint, load_checkpoint
from igm_cli.core.concepts import Categorical
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.device import inference_precision
from igm_cli.core.models.factored_global import GlobalDenoiser
from igm_cli.core.objective import composed_loss
from igm_cli.core.schedule import Draws, Schedule, draw
from igm_cli.errors import InputError


def multi_hot(concepts: Tensor, present: Tensor) -> Tensor:
    """A configuration as one row ``[B,D]``, from one-hot rows ``[B,K,D]`` that are there ``[B,K]``."""
    return (concepts * present[..., None]).sum(1)


def start_from(model: GlobalDenoiser, init: Path) -> None:
    """Takes the trunk, the unconditional output and the head's view of the trunk from a checkpoint.

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
            model.head.view.load_state_dict(donor.head.view.state_dict())
    except RuntimeError as error:
        raise InputError(f"the trunk of {init} has another shape than the one to be trained") from error


@dataclass(frozen=True)
class ConfigurationClassifier:
    """GC over configurations: a :class:`~igm_cli.core.baselines.fit.Baseline`.

    Attributes:
        spec: The model that it is compared with: network, space and schedule are taken from it.
        init: Checkpoint folder of a factored denoiser whose trunk the training starts from.
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

    def condition(self, concepts: Tensor, present: Tensor, generator: torch.Generator) -> Tensor:
        """What the model is told in a training step ``[B,1,D]``.

        Args:
            concepts: One-hot rows ``[B,K,D]``.
            present: ``[B,K]``, False for padding.
            generator: Of what is drawn.
        """
        return multi_hot(concepts, present)[:, None]

    def validation_condition(self, concepts: Tensor, present: Tensor, number: int) -> Tensor:
        """The same in validation draw number ``number``, without chance."""
        return multi_hot(concepts, present)[:, None]

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
        return self._error(model, images, self.condition(concepts, present, generator), draws)

    def _error(self, model: nn.Module, images: Tensor, condition: Tensor, draws: Draws) -> Tensor:
        """The composed objective with K = 1, a scalar: nothing is left to compose."""
        there = torch.ones(condition.shape[:2], dtype=torch.bool, device=condition.device)
        schedule = cast(Schedule, model.schedule)
        return composed_loss(
            model, schedule, self.spec.composition, images, condition, there, draws.t, draws.noise
        )

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Mean error over the noise that inference looks at; the same draws at every call."""
        schedule, total = cast(Schedule, model.schedule), 0.0
        shape = tuple(images.shape[1:])
        with torch.no_grad(), inference_precision(images.device):
            for number in range(self.validation_draws):
                condition = self.validation_condition(concepts, present, number)
                for first in range(0, len(images), self.batch_size):
                    x0 = images[first : first + self.batch_size]
                    start = number * len(images) + first
                    draws = draw(schedule, shape, len(x0), low=self.low, high=self.high, seed=0, start=start)
                    rows = condition[first : first + len(x0)]
                    total += float(self._error(model, x0, rows, draws.to(x0.device))) * len(x0)
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

    def condition(self, concepts: Tensor, present: Tensor, generator: torch.Generator) -> Tensor:
        """One row of each image at random, ``[B,1,D]``."""
        lots = torch.rand(present.shape, generator=generator).to(present.device)
        return _row(concepts, present, lots.masked_fill(~present, -1.0).argmax(1))

    def validation_condition(self, concepts: Tensor, present: Tensor, number: int) -> Tensor:
        """The rows of an image in turn, draw by draw."""
        place = torch.arange(len(concepts), device=concepts.device) + number
        return _row(concepts, present, place % present.sum(1).clamp(min=1))

    def invert(
        self, model: nn.Module, image: Tensor, draws: Draws, power: float = 0.0
    ) -> ConfigurationInversion:
        """The configuration of an image ``[C,H,W]``: see :func:`.invert_each_factor`."""
        return invert_each_factor(cast(Denoiser, model), image, draws, power)


def _row(concepts: Tensor, present: Tensor, index: Tensor) -> Tensor:
    """Row ``index[b]`` of every image ``[B,1,D]``; zeros where it is not there."""
    rows = concepts * present[..., None]
    return rows[torch.arange(len(rows), device=rows.device), index][:, None]
