"""GC: one conditional diffusion model of the whole set, not composed (IGM, Wang et al. 2025, section 5.1).

    training    argmin_theta  E_{x0,C,t,eps} ‖eps - eps_theta(x_t, t | C)‖²,   C = {c_1 .. c_K} one condition
    inference   argmin_C      E_{t,eps}      ‖eps - eps_theta(x_t, t | C)‖²    (:mod:`.gc_inversion`)

Data, trunk, schedule and objective are those of the factored denoiser, and its trained trunk may be
the start: what differs is that the set is not taken apart.  :mod:`.configuration` does the same with factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from igm_cli.benchmarks.baselines.gc_network import SetConfig, SetDenoiser
from igm_cli.core.checkpoint import fingerprint, load_checkpoint
from igm_cli.core.device import inference_precision
from igm_cli.core.models.factored import FactoredDenoiser
from igm_cli.core.noise_schedule import Draws, Schedule, draw
from igm_cli.errors import InputError


def start_from(model: nn.Module, init: Path, kind: type[nn.Module], of: str, parts: Mapping[str, str]) -> None:
    """Copies the trunk, the unconditional output and parts of the head from the checkpoint of a factored denoiser.

    Args:
        model: Network to be trained.
        init: Folder of the checkpoint.
        kind: Class that the denoiser must have.
        of: What such a denoiser is of, for the user.
        parts: Names of parts in the model, and in the checkpoint; those of the same shape are copied.

    Raises:
        InputError: If the folder holds another architecture or another trunk.
    """
    donor: object = load_checkpoint(init).denoiser
    if not isinstance(donor, kind):
        raise InputError(f"{init} holds no factored denoiser of {of}, whose trunk the training starts from")
    for own, other in {"trunk": "trunk", "base_out": "base_out", **parts}.items():
        part, values = model.get_submodule(own), donor.get_submodule(other).state_dict()
        shapes, others = ({n: v.shape for n, v in state.items()} for state in (part.state_dict(), values))
        if shapes == others:
            part.load_state_dict(values)
        elif own not in parts:
            raise InputError(f"the trunk of {init} has another shape than the one to be trained")


@dataclass(frozen=True, kw_only=True)
class DiffusionBaseline:
    """How a conditional diffusion model that is not composed is trained."""

    timestep_power: float = 1.0  # t = T u^power with u uniform; above 1 favours low noise
    low: float = 0.02  # least timestep of validation, as a fraction of T
    high: float = 0.98  # greatest timestep of validation
    validation_draws: int = 4  # per image
    learning_rates: tuple[float, ...] = (1e-3, 5e-4, 2e-4)
    batch_size: int = 48
    ema: float = 0.9985
    weight_decay: float = 0.01
    name: str = "gc"

    def training_options(self, init: Path | None) -> dict[str, Any]:
        """Returns everything that shapes the training, which starts from the checkpoint ``init``, as JSON."""
        names = ("name", "timestep_power", "learning_rates", "batch_size", "ema", "weight_decay")
        return {
            **{name: getattr(self, name) for name in names},
            "init": None if init is None else fingerprint(init),
            "validation": [self.low, self.high, self.validation_draws],
        }

    def errors(self, model: nn.Module, x0: Tensor, concepts: Tensor, chosen: Tensor, draws: Draws) -> Tensor:
        """Returns the objective for images ``[B,C,H,W]``, one draw and one condition per image ``[B]``."""
        raise NotImplementedError

    def drawn(self, concepts: Tensor, present: Tensor, generator: torch.Generator) -> Tensor:
        """Returns what a training step chooses of concepts to be the condition: all that is there."""
        return present

    def turned(self, concepts: Tensor, present: Tensor, turn: int) -> Tensor:
        """Returns what the turn of a validation chooses of concepts, without chance."""
        return present

    def loss(
        self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Returns the error under one condition per image, averaged over images, pixels, timesteps and noise.

        Timesteps are spread evenly over the batch, as in the training of the composed model.
        """
        count, steps = len(images), cast(Schedule, model.schedule).steps
        u = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
        t = (u**self.timestep_power * steps).long().clamp(max=steps - 1)
        draws = Draws(t, torch.randn(images.shape, generator=generator)).to(images.device)
        chosen = self.drawn(concepts, present, generator)
        return self.errors(model, images, concepts, chosen, draws).mean()

    @torch.no_grad()
    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Returns the mean error over the noise that inference looks at; the same draws at every call."""
        schedule, shape, total = cast(Schedule, model.schedule), tuple(images.shape[1:]), 0.0
        for number in range(self.validation_draws):
            chosen = self.turned(concepts, present, number)
            for rows in torch.arange(len(images)).split(self.batch_size):
                start = number * len(images) + int(rows[0])
                draws = draw(schedule, shape, len(rows), low=self.low, high=self.high, seed=0, start=start)
                with inference_precision(images.device):
                    errors = self.errors(
                        model, images[rows], concepts[rows], chosen[rows], draws.to(images.device)
                    )
                total += float(errors.sum())
        return total / (len(images) * self.validation_draws)


@dataclass(frozen=True)
class GenerativeClassifier(DiffusionBaseline):
    """GC of a set of positions."""

    config: SetConfig = field(default_factory=SetConfig)
    init: Path | None = None  # checkpoint folder of a factored denoiser whose trunk the training starts from
    _: KW_ONLY
    timestep_power: float = 2.0
    high: float = 0.35

    def describe(self) -> dict[str, Any]:
        """Returns everything that shapes the model, as JSON."""
        schedule = Schedule().config.to_dict()
        options = {"network": 2, "schedule": schedule, **self.training_options(self.init)}
        return {"config": asdict(self.config), **options}

    def build(self) -> SetDenoiser:
        """Returns the network, its trunk from ``init`` if there is one (see :func:`start_from`)."""
        model = SetDenoiser(self.config)
        if self.init is not None:
            parts = {"to_cells": "head.here", "to_readable": "head.there"}
            start_from(model, self.init, FactoredDenoiser, "positions", parts)
        return model

    def errors(self, model: nn.Module, x0: Tensor, concepts: Tensor, chosen: Tensor, draws: Draws) -> Tensor:
        """Returns ‖v - v_theta(x_t, t | C)‖² ``[B]``, the error of eps over alpha²; the model puts out v."""
        schedule = cast(Schedule, model.schedule)
        x_t = schedule.add_noise(x0, draws.noise, draws.t)
        alpha, sigma = (level(draws.t)[:, None, None, None] for level in (schedule.alpha, schedule.sigma))
        v = alpha * draws.noise - sigma * x0
        return torch.as_tensor((v - model(x_t, draws.t, concepts, chosen).float()).square().mean((1, 2, 3)))
