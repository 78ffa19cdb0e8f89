"""Trains a baseline within a budget: short trials choose the learning rate, and the rest trains from scratch."""

from __future__ import annotations

import json
import math
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from igm_cli.core.device import inference_precision
from igm_cli.core.files import WEIGHTS, exclusive, write_json
from igm_cli.core.training.batches import Batches, Samples, as_floats, make_batches
from igm_cli.core.training.config import Budget, TrainConfig
from igm_cli.core.training.plan import StepPlan
from igm_cli.core.training.state import BASELINE, STATE, RunRecord
from igm_cli.core.training.trainer import DivergenceError, Trainer, learned
from igm_cli.core.weights import read_weights, write_weights
from igm_cli.errors import InputError, counted, need
from igm_cli.plugins.base import Progress

__all__ = ["Baseline", "Budget", "ErrorBaseline", "Fitted", "TrainingData", "fit", "outputs"]

TRIAL_SHARE = 0.08
SAVE_SECONDS = 60.0
WHOLE = 1000
"""Units of a budget for the learning-rate schedule: one 20th is warm-up, one half is decay."""
CHUNK = 50  # images per batch outside training


@dataclass(frozen=True, kw_only=True)
class Baseline(ABC):
    """A network that names the concepts of an image, and its training."""

    network: ClassVar[type[Any]]  # built from these options
    name: str = ""  # in reports
    learning_rates: tuple[float, ...] = ()  # those to try
    batch_size: int = 32
    ema: float = 0.998  # decay of the moving average of the weights
    weight_decay: float = 0.01  # of AdamW

    def describe(self) -> dict[str, Any]:
        """Returns everything that shapes the model and its training, as JSON."""
        return asdict(self)

    def build(self) -> nn.Module:
        """Returns the network with fresh weights; frozen parameters are neither trained nor stored."""
        return self.network(self)  # type: ignore[no-any-return]

    @abstractmethod
    def loss(
        self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Returns the training loss of images ``[B,3,H,W]`` in -1..1 with ``concepts [B,K,D]``, ``present [B,K]``."""

    @abstractmethod
    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Returns the error on held-out images, deterministic and without gradients; lower is better."""


class ErrorBaseline(Baseline):
    """A baseline whose loss and measure are one error of its network's output."""

    @abstractmethod
    def error(self, said: Tensor, concepts: Tensor, present: Tensor) -> Tensor:
        """Returns the error of the network's output."""

    def loss(
        self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Returns the error of the output."""
        return self.error(model(images), concepts, present)

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Returns the error of the output."""
        return float(self.error(outputs(model, images), concepts, present))


@torch.no_grad()
def outputs(model: nn.Module, images: Tensor) -> Tensor:
    """Returns a network's output for images, float32, computed in batches of :data:`CHUNK`."""
    return torch.cat([model(chunk).float() for chunk in images.split(CHUNK)])


@dataclass(frozen=True)
class TrainingData:
    """The training data of baselines, loaded once and only if something has to be trained."""

    about: Mapping[str, Any]  # its description, as JSON
    load: Callable[[], tuple[Samples, Samples]]

    @cached_property
    def parts(self) -> tuple[Samples, Samples]:
        """Training images, and validation images, which only choose learning rates."""
        return self.load()


@dataclass(frozen=True)
class Fitted:
    """A trained baseline."""

    model: nn.Module  # in evaluation mode, with averaged weights
    learning_rate: float  # the one chosen
    steps: int  # of the final training; trials are not counted
    images: int  # seen in the final training
    seconds: float  # of the final training
    validation: float  # error on the validation samples
    trials: dict[str, float]  # validation error per learning rate tried; infinite if it diverged

    def info(self, budget: Budget) -> dict[str, Any]:
        """Returns the facts about the training for a report."""
        return {
            "budget": f"{budget.minutes:g} minutes"
            if budget.minutes is not None
            else counted(budget.steps or 0, "step"),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "learning rate": self.learning_rate,
            **({"validation error by learning rate": self.trials} if self.trials else {}),
            "steps": self.steps,
            "images seen": self.images,
            "seconds": self.seconds,
        }


def fit(
    baseline: Baseline,
    data: TrainingData,
    budget: Budget,
    folder: Path,
    *,
    seed: int = 0,
    device: torch.device,
    progress: Progress = lambda what, done, total: None,
) -> Fitted:
    """Trains a baseline, continues an interrupted training, or loads a finished one.

    The budget covers trials and final training together; the folder holds the state of the training, then its
    result.  ``progress`` is called with (what, done, total), in the budget's unit: seconds or steps.

    Raises:
        InputError: If the folder holds something else, is damaged, or the training diverges.
    """
    described = {"baseline": baseline.name, "model": baseline.describe(), "data": dict(data.about)}
    identity = {**described, "budget": asdict(budget), "seed": seed}
    record = RunRecord(folder, identity)
    record.refuse_other_run()
    if (folder / BASELINE).is_file():
        return _load(baseline, folder, device)
    with exclusive(folder):
        record.begin(0)
        fitted = _Fitting(baseline, *data.parts, record, device, progress).run(budget, seed)
        write_weights(folder / WEIGHTS, learned(fitted.model))
        result = {name: value for name, value in vars(fitted).items() if name != "model"}
        machine = {"torch": torch.__version__, "processor": platform.processor() or platform.machine()}
        # Written last: it marks the result as complete.
        write_json(folder / BASELINE, {**identity, "result": result, **machine})
        (folder / STATE).unlink(missing_ok=True)
    return fitted


@dataclass
class _Fitting:
    """Runs trials and final training in order, saving their state periodically; also their objective."""

    baseline: Baseline
    training: Samples
    validation: Samples
    record: RunRecord
    device: torch.device
    progress: Progress
    trials: dict[str, float] = field(default_factory=dict)
    pending: dict[str, Any] | None = None  # state of the interrupted training
    batches: Batches = field(init=False)  # the training samples

    def _take(self, state: dict[str, Any]) -> None:
        self.trials, self.pending = state["trials"], state["run"]

    def run(self, budget: Budget, seed: int) -> Fitted:
        """Runs the remaining trials, then the final training."""
        self.record.load_state(self._take)
        rates = self.baseline.learning_rates
        if budget.steps and budget.steps * TRIAL_SHARE < 1:  # too few to tell rates apart
            rates = rates[len(rates) // 2 :][:1]
        for rate in rates if len(rates) > 1 else ():
            if str(rate) not in self.trials:
                trial = self._trainer(rate, budget.part(TRIAL_SHARE), seed)
                self.trials[str(rate)] = self._train(trial, f"trial of learning rate {rate:g}")
                self._save_state(None)
        rate = min(rates, key=lambda rate: self.trials.get(str(rate), 0.0))
        final = self._trainer(rate, budget.part(1 - TRIAL_SHARE * len(self.trials)), seed)
        error = self._train(final, f"training at {rate:g}")
        if not math.isfinite(error):
            raise InputError(f"{self.baseline.name} diverges at learning rate {rate:g}; try lower ones")
        images = final.step * self.baseline.batch_size
        return Fitted(final.average.module, rate, final.step, images, final.spent, error, self.trials)

    def _trainer(self, rate: float, budget: Budget, seed: int) -> Trainer:
        """Returns a trainer at one learning rate, at its start or where it was interrupted."""
        names = ("batch_size", "weight_decay", "ema")
        options: dict[str, Any] = {name: getattr(self.baseline, name) for name in names}
        config = TrainConfig(
            learning_rate=rate, seed=seed, steps=WHOLE, warmup=WHOLE // 20, decay=0.5, **options
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.baseline.build()
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)  # accelerate uses the current one
        need("bench", "accelerate")
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=self.device.type == "cpu")
        self.batches = make_batches(self.training, config, accelerator)
        trainer = Trainer(
            model, self, len(self.training), config, accelerator, budget=budget, average_buffers=True
        )
        if self.pending:
            trainer.load(self.pending)
            self.pending = None
        return trainer

    def _train(self, trainer: Trainer, what: str) -> float:
        """Trains to the end of the budget; returns the validation error, infinite if the training diverges."""
        budget, saved = trainer.budget, time.monotonic()
        total = round(60 * budget.minutes) if budget.minutes is not None else budget.steps or 0
        try:
            for _ in trainer.run():
                if time.monotonic() - saved >= SAVE_SECONDS:
                    self._save_state(trainer)
                    saved = time.monotonic()
                done = int(budget.used(trainer.spent, trainer.step, total))
                self.progress(f"{self.baseline.name}: {what}", min(total, done), total)
        except DivergenceError:
            return math.inf
        count = len(self.validation)
        batch = self.validation.batch(list(range(count)), [False] * count)
        images, concepts, present = (tensor.to(self.device) for tensor in batch)
        with torch.no_grad(), inference_precision(self.device):
            model = trainer.average.module.eval()
            error = self.baseline.validate(model, as_floats(images), concepts, present)
        return error if math.isfinite(error) else math.inf

    def loss(self, model: nn.Module, step: int, plan: StepPlan) -> Tensor:
        """See :class:`~igm_cli.core.training.objectives.Objective`."""
        images, concepts, present = self.batches.rows(plan)
        images = images.contiguous(memory_format=torch.channels_last)
        with inference_precision(self.device):
            return self.baseline.loss(model, images, concepts, present, plan.generator())

    def _save_state(self, trainer: Trainer | None) -> None:
        self.record.save_state({"trials": self.trials, "run": trainer.state() if trainer else None})


def _load(baseline: Baseline, folder: Path, device: torch.device) -> Fitted:
    try:
        result = json.loads((folder / BASELINE).read_text(encoding="utf-8"))["result"]
        weights = read_weights(folder / WEIGHTS)
        model = baseline.build()
        missing = learned(model).keys() ^ weights.keys()
        model.load_state_dict(weights, strict=False)
        if missing:
            raise KeyError(sorted(missing)[0])
        model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        return Fitted(model, **result)
    except (InputError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{folder} is damaged ({error}); delete it to train again") from error
