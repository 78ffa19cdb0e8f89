"""GC: one conditional diffusion model of the whole set, not composed (IGM, Wang et al. 2025, section 5.1).

    training    argmin_theta  E_{x0, C, t, eps} ‖eps - eps_theta(x_t, t | C)‖²,   C = {c_1 .. c_K} as one condition
    inference   argmin_C      E_{t, eps}        ‖eps - eps_theta(x_t, t | C)‖²    (:mod:`.set_inversion`)

Data, trunk, schedule and objective are those of the factored denoiser, and its trained trunk may be
the start: what differs is that the set is not taken apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from igm_cli.benchmarks.baselines.set_denoiser import SetConfig, SetDenoiser, start_from
from igm_cli.core.checkpoint import fingerprint
from igm_cli.core.device import inference_precision
from igm_cli.core.noise_schedule import Draws, Schedule, timestep_quadrature


def set_error(model: nn.Module, schedule: Schedule, x0: Tensor, draws: Draws, *condition: Tensor) -> Tensor:
    """‖v - v_theta(x_t, t | C)‖² per image ``[B]``, the error of eps over alpha^2.

    Args:
        model: Called with (x_t, t, concepts, present) for v.
        schedule: Of v-prediction.
        x0: Clean images ``[B,C,H,W]``.
        draws: One an image.
        condition: Concepts ``[B,K,2]`` and presence ``[B,K]``.
    """
    x_t = schedule.add_noise(x0, draws.noise, draws.t)
    alpha, sigma = (level(draws.t)[:, None, None, None] for level in (schedule.alpha, schedule.sigma))
    v = alpha * draws.noise - sigma * x0
    error: Tensor = (v - model(x_t, draws.t, *condition).float()).square().mean(dim=(1, 2, 3))
    return error


@dataclass(frozen=True)
class GenerativeClassifier:
    """How GC is made: a :class:`~igm_cli.benchmarks.baselines.fit.Baseline`.

    Attributes:
        config: Shape of the network.
        init: Checkpoint folder of a factored denoiser whose trunk the training starts from.
        timestep_power: t = T u^power with u uniform; above 1 favours low noise, where inference looks.
        low: Least timestep of validation as a fraction of T.
        high: Greatest timestep of validation.
        validation_draws: Noise draws for each validation image.
        learning_rates: To choose from.
        batch_size: Images a step.
        ema: Decay of the averaged weights.
        weight_decay: Of AdamW.
    """

    config: SetConfig = field(default_factory=SetConfig)
    init: Path | None = None
    timestep_power: float = 2.0
    low: float = 0.02
    high: float = 0.35
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
            "config": self.config.to_dict(),
            "schedule": Schedule().config.to_dict(),
            "init": None if self.init is None else fingerprint(self.init),
            "timestep_power": self.timestep_power,
            "validation": [self.low, self.high, self.validation_draws],
            "learning_rates": list(self.learning_rates),
            "batch_size": self.batch_size,
            "ema": self.ema,
            "weight_decay": self.weight_decay,
        }

    def build(self) -> SetDenoiser:
        """The network, its trunk from ``init`` if there is one.

        Raises:
            MissingError: If ``init`` is no checkpoint.
            InputError: If its trunk has another shape.
        """
        model = SetDenoiser(self.config)
        if self.init is not None:
            start_from(model, self.init)
        return model

    def loss(
        self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The error of v, averaged over images ``[B,3,H,W]``, pixels, timesteps and noise.

        Args:
            model: Of :meth:`build`.
            images: ``[B,3,H,W]`` in -1..1.
            concepts: ``[B,K,2]``.
            present: ``[B,K]``, False for padding.
            generator: Of timesteps and noise.
        """
        schedule = Schedule()
        u = torch.rand(len(images), generator=generator, device=generator.device)
        t = (u**self.timestep_power * schedule.steps).long().clamp(max=schedule.steps - 1)
        noise = torch.randn(images.shape, generator=generator, device=generator.device)
        draws = Draws(t, noise).to(images.device)
        return set_error(model, schedule, images, draws, concepts, present).mean()

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Mean error of v over the noise that inference looks at; the same draws at every call."""
        schedule, generator = Schedule(), torch.Generator().manual_seed(0)
        total, count = 0.0, self.validation_draws
        with torch.no_grad(), inference_precision(images.device):
            for first in range(0, len(images), self.batch_size):
                rows = slice(first, first + self.batch_size)
                for _ in range(count):
                    x0 = images[rows]
                    start = int(torch.randint(2**16, (1,), generator=generator))
                    t = timestep_quadrature(schedule, self.low, self.high, start, len(x0))
                    draws = Draws(t, torch.randn(x0.shape, generator=generator)).to(images.device)
                    error = set_error(model, schedule, x0, draws, concepts[rows], present[rows])
                    total += float(error.sum()) / count
        return total / len(images)
