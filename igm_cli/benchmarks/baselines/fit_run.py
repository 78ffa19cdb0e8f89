"""One training of a baseline at one learning rate, to the end of a budget of minutes or steps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from igm_cli.core.device import inference_precision
from igm_cli.core.training.config import TrainConfig
from igm_cli.core.training.plan import plan_step
from igm_cli.core.training.trainer import Samples
from igm_cli.errors import InputError

WARMUP, DECAY, CLIP = 0.05, 0.5, 1.0


@dataclass(frozen=True)
class Budget:
    """How long a training may take: exactly one of the two is given.

    Attributes:
        minutes: Of training; reading data and validation do not count.
        steps: Optimizer steps.
    """

    minutes: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None) or (self.minutes or self.steps or 0) <= 0:
            raise InputError("a budget is a positive number of either minutes or steps")

    def part(self, share: float) -> Budget:
        """A share of the budget, at least one step."""
        if self.minutes is not None:
            return Budget(minutes=share * self.minutes)
        return Budget(steps=max(1, round(share * (self.steps or 0))))

    def used(self, seconds: float, steps: int) -> float:
        """Which fraction of it a training has used."""
        return seconds / (60 * self.minutes) if self.minutes is not None else steps / (self.steps or 1)


class Baseline(Protocol):
    """A network that names the concepts of an image, and how it learns."""

    @property
    def name(self) -> str:
        """As reports show it."""
        ...

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """Those that are tried."""
        ...

    @property
    def batch_size(self) -> int:
        """Images a step."""
        ...

    @property
    def ema(self) -> float:
        """Decay of the moving average of the weights."""
        ...

    @property
    def weight_decay(self) -> float:
        """Of AdamW."""
        ...

    def describe(self) -> dict[str, Any]:
        """Everything that shapes the model and its training, as JSON."""
        ...

    def build(self) -> nn.Module:
        """The network with fresh weights; frozen parameters are neither trained nor stored."""
        ...

    def loss(
        self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """What training minimises, a scalar, of images ``[B,3,H,W]`` in -1..1 with ``[B,K,D]``, ``[B,K]``."""
        ...

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Error on held-out images, without chance; lower is better."""
        ...


class FitRun:
    """A training under way.

    Args:
        baseline: What is trained.
        rate: Peak learning rate.
        budget: How long.
        seed: Of the weights and of everything drawn; a step's draws follow from (seed, step) alone.
        device: Where.
    """

    def __init__(
        self, baseline: Baseline, rate: float, budget: Budget, seed: int, device: torch.device
    ) -> None:
        self.baseline, self.rate, self.budget, self.device = baseline, rate, budget, device
        self.plan = TrainConfig(batch_size=baseline.batch_size, seed=seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = baseline.build()
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {name: value.clone() for name, value in learned(self.model).items()}
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=baseline.weight_decay)
        self.steps, self.seconds, self.diverged = 0, 0.0, False

    @property
    def used(self) -> float:
        """Fraction of the budget that is spent."""
        return self.budget.used(self.seconds, self.steps)

    def step(self, samples: Samples) -> None:
        """One optimizer step, timed; a loss that is no number ends the training."""
        began = time.monotonic()
        loss = self._loss(samples)
        if bool(loss.isfinite()):
            self._descend(loss)
        else:
            self.diverged = True
        self.steps += 1
        self.seconds += time.monotonic() - began

    def _loss(self, samples: Samples) -> Tensor:
        plan = plan_step(self.steps, len(samples), self.plan)
        images, concepts, present = (
            tensor.to(self.device) for tensor in samples.batch(plan.indices, plan.flips)
        )
        images = images.contiguous(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(plan.seed)
        self.model.train()
        with inference_precision(self.device):
            return self.baseline.loss(self.model, images, concepts, present, generator)

    def _descend(self, loss: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * rate_factor(self.used)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self._update_average()

    @torch.no_grad()
    def _update_average(self) -> None:
        """A moving average that forgets its first steps faster; counts are copied."""
        weight = max(1 - self.baseline.ema, 10 / (10 + self.steps))
        current = learned(self.model)
        names = [name for name, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in names], [current[n] for n in names], weight)
        for name in current.keys() - set(names):
            self.average[name].copy_(current[name])

    def finished(self) -> nn.Module:
        """The model with its averaged weights, in evaluation mode."""
        self.model.load_state_dict(self.average, strict=False)
        return self.model.eval()

    def state(self) -> dict[str, Any]:
        """What :meth:`load` goes on from."""
        return {
            "steps": self.steps,
            "seconds": self.seconds,
            "model": learned(self.model),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from :meth:`state`."""
        self.steps, self.seconds, self.average = state["steps"], state["seconds"], state["average"]
        self.model.load_state_dict(state["model"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])


def learned(model: nn.Module) -> dict[str, Tensor]:
    """The weights without the frozen ones, which come from elsewhere."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def rate_factor(used: float) -> float:
    """Learning rate over the budget: linear warm-up, constant, then linear decay to zero."""
    return max(0.0, min(1.0, (used + 1e-3) / WARMUP, (1 - used) / DECAY))
