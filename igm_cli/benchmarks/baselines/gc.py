"""GC: one conditional diffusion model of a whole set, not composed (IGM, Wang et al. 2025, section 5.1).

    training    argmin_theta  E_{x0,C,t,eps} ‖eps - eps_theta(x_t, t | C)‖²,   C = {c_1 .. c_K} one condition
    inference   argmin_C      E_{t,eps}      ‖eps - eps_theta(x_t, t | C)‖²    (:mod:`.gc_inversion`)

Data, trunk, schedule and objective are those of the factored denoiser, and training may start from its trained trunk;
the only difference is that the set is not decomposed.  :mod:`.configuration` does the same with factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from igm_cli.benchmarks.baselines.fit import Baseline
from igm_cli.benchmarks.baselines.gc_network import SetConfig, SetDenoiser
from igm_cli.core.checkpoint import load_checkpoint, weights_fingerprint
from igm_cli.core.device import inference_precision
from igm_cli.core.models.factored import FactoredDenoiser
from igm_cli.core.noise_schedule import Draws, Schedule, timestep_quadrature
from igm_cli.errors import InputError


def start_from(model: nn.Module, init: Path, kind: type[nn.Module], of: str, parts: Mapping[str, str]) -> None:
    """Copies from ``init`` the trunk, the unconditional output and the parts of the head with the same shape.

    ``parts`` maps their names in the model to those in the checkpoint, whose denoiser is a ``kind`` (``of`` in messages).
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
class DiffusionBaseline(Baseline):
    """The training of a conditional diffusion model that is not composed."""

    init: Path | None = None  # checkpoint folder of the factored denoiser from whose trunk training starts
    timestep_power: float = 1.0  # t = T u^power with u uniform; above 1 favours low noise
    low: float = 0.02  # least timestep of validation, as a fraction of T
    high: float = 0.98  # greatest timestep of validation
    validation_draws: int = 4  # per image
    learning_rates: tuple[float, ...] = (1e-3, 5e-4, 2e-4)
    batch_size: int = 48
    ema: float = 0.9985
    name: str = "gc"

    def training_options(self) -> dict[str, Any]:
        """Returns everything that shapes the training, as JSON."""
        names = ("name", "timestep_power", "learning_rates", "batch_size", "ema", "weight_decay")
        options = {name: getattr(self, name) for name in names}
        init = None if self.init is None else weights_fingerprint(self.init)
        return {**options, "init": init, "validation": [self.low, self.high, self.validation_draws]}

    def timesteps(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Returns the training timesteps ``[B]`` for u ``[B]`` in 0..1."""
        return (u**self.timestep_power * schedule.steps).long().clamp(max=schedule.steps - 1)

    def condition(self, concepts: Tensor, present: Tensor) -> tuple[Tensor, ...]:
        """Returns the network's condition for images."""
        return concepts, present

    def loss(
        self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Returns the error of v, averaged over images ``[B,3,H,W]``, pixels, timesteps and noise."""
        u = torch.rand(len(images), generator=generator)
        noise = torch.randn(images.shape, generator=generator)
        draws = Draws(self.timesteps(u, Schedule()), noise).to(images.device)
        return set_error(model, images, draws, *self.condition(concepts, present)).mean()


def set_error(model: nn.Module, x0: Tensor, draws: Draws, *condition: Tensor) -> Tensor:
    """Returns ‖v - v_theta(x_t, t | C)‖² per image ``[B,C,H,W]``, the error of eps over alpha², with one draw each."""
    schedule = Schedule()
    x_t = schedule.add_noise(x0, draws.noise, draws.t)
    alpha, sigma = (level(draws.t)[:, None, None, None] for level in (schedule.alpha, schedule.sigma))
    v = alpha * draws.noise - sigma * x0
    return torch.as_tensor((v - model(x_t, draws.t, *condition).float()).square().mean(dim=(1, 2, 3)))


@dataclass(frozen=True)
class GenerativeClassifier(DiffusionBaseline):
    """GC of a set of positions."""

    config: SetConfig = field(default_factory=SetConfig)
    timestep_power: float = field(default=2.0, kw_only=True)
    high: float = field(default=0.35, kw_only=True)

    def describe(self) -> dict[str, Any]:
        """Returns everything that shapes the model, as JSON."""
        schedule = Schedule().config.to_dict()
        return {"config": asdict(self.config), "schedule": schedule, **self.training_options()}

    def build(self) -> SetDenoiser:
        """Returns the network, its trunk from ``init`` if there is one (see :func:`start_from`)."""
        model = SetDenoiser(self.config)
        if self.init is not None:
            parts = {"to_cells": "head.here", "to_readable": "head.there"}
            start_from(model, self.init, FactoredDenoiser, "positions", parts)
        return model

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Returns the mean error of v at the noise levels of inference, with the same draws at every call."""
        generator, total = torch.Generator().manual_seed(0), 0.0
        for rows in torch.arange(len(images)).split(self.batch_size):
            for _ in range(self.validation_draws):
                start = int(torch.randint(2**16, (1,), generator=generator))
                t = timestep_quadrature(Schedule(), self.low, self.high, start, len(rows))
                noise = torch.randn(images[rows].shape, generator=generator)
                draws = Draws(t, noise).to(images.device)
                with inference_precision(images.device):
                    error = set_error(model, images[rows], draws, concepts[rows], present[rows])
                total += float(error.sum()) / self.validation_draws
        return total / len(images)
