"""The training loop, of every model and every baseline, and a training run in a folder.

Every process plans the whole batch and takes its rows of it; see :mod:`igm_cli.core.training.plan`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from igm_cli.core.checkpoint import TEXT_TO_IMAGE, ModelSpec, load_weights, save_model
from igm_cli.core.files import exclusive
from igm_cli.core.training.config import Budget, TrainConfig
from igm_cli.core.training.learning_rate import learning_rate_factor
from igm_cli.core.training.objectives import ComposedObjective, Objective, Samples
from igm_cli.core.training.plan import plan_step
from igm_cli.core.training.state import RunRecord, describe_run
from igm_cli.core.weights import require_finite
from igm_cli.errors import InputError, need

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["DivergenceError", "Samples", "Trainer", "fresh_model", "learned", "train"]

Report: TypeAlias = Callable[[int, Mapping[str, float]], None]
"""Called with the step and its figures whenever some are logged, on the main process."""

Validate: TypeAlias = Callable[[int, nn.Module], Mapping[str, float]]
"""Called every ``picture_every`` steps with the averaged weights, on the main process; returns figures to log."""


class DivergenceError(InputError):
    """A training whose loss or gradients are no longer finite."""


class Trainer:
    """The loop: optimizer, learning rate, average of the weights, and the state that a training goes on from.

    Args:
        model: What is trained; frozen parameters stay as they are.
        objective: What is minimised.
        images: Number of samples.
        config: How.  ``steps`` is the length of its learning-rate schedule.
        accelerator: Where, in how many processes, and how precisely.
        budget: How long; None takes the configuration's steps.
        average_buffers: Whether buffers (statistics of normalisation) are averaged, too, instead of copied.

    Raises:
        InputError: If the batch cannot be shared among the processes.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        images: int,
        config: TrainConfig,
        accelerator: Accelerator,
        *,
        budget: Budget | None = None,
        average_buffers: bool = False,
    ) -> None:
        if config.batch_size % (accelerator.num_processes * config.accumulation):
            raise InputError(
                f"batch_size {config.batch_size} must be divisible by {accelerator.num_processes} processes "
                f"times {config.accumulation} accumulation steps"
            )
        self.objective, self.images, self.config, self.accelerator = objective, images, config, accelerator
        self.budget = budget or Budget(steps=config.steps)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        # Copied before accelerate wraps forward, and kept without its wrappers: unwrapping a model
        # would take its autocast away.
        self.average = _averaged(model, config.ema, average_buffers).to(accelerator.device)
        self.bare_model = model
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.step, self.spent = 0, 0.0

    @property
    def position(self) -> float:
        """How far the training is, of ``config.steps`` in all."""
        return self.budget.used(self.spent, self.step, self.config.steps)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.config.learning_rate * learning_rate_factor(self.position, self.config)

    def run(self) -> Iterator[float]:
        """Trains until the budget is used, and yields the loss of every step on this process.

        Raises:
            DivergenceError: If the gradients of a step are not finite; the weights are those before it then.
        """
        self.model.train()
        while self.position < self.config.steps:
            yield self.train_step()

    def train_step(self) -> float:
        """One optimizer step, timed; returns the loss of this process."""
        began = time.monotonic()
        plan = plan_step(self.step, self.images, self.config)
        share = self.config.batch_size // self.accelerator.num_processes
        first = self.accelerator.process_index * share
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        micro, total = share // self.config.accumulation, 0.0
        for part in range(self.config.accumulation):
            rows = plan.rows(first + part * micro, first + (part + 1) * micro)
            last = part == self.config.accumulation - 1
            with self.accelerator.no_sync(self.model) if not last else nullcontext():
                loss = self.objective.loss(self.model, self.step, rows)
                self.accelerator.backward(loss / self.config.accumulation)
            total += float(loss.detach()) / self.config.accumulation
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if self.accelerator.scaler is None:  # with one, steps that overflow are left out
            self.require_finite(float(norm))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.bare_model)
        self.step += 1
        self.spent += time.monotonic() - began
        return total

    def figures(self, losses: Sequence[float]) -> dict[str, float]:
        """What is logged after some steps: the mean of their losses over all processes, the rate, the time."""
        loss = self.accelerator.reduce(torch.tensor(sum(losses) / len(losses)), "mean").item()
        self.require_finite(loss)
        return {"loss": loss, "learning_rate": self.optimizer.param_groups[0]["lr"], "seconds": self.spent}

    def require_finite(self, figure: float) -> None:
        """Raises a :class:`DivergenceError` if a loss or the norm of the gradients is not finite."""
        if not math.isfinite(figure):
            raise DivergenceError(
                f"the training diverges after step {self.step}, what was saved before is kept; "
                "use a lower learning_rate, or more warmup"
            )

    def state(self) -> dict[str, Any]:
        """What :meth:`load` goes on from."""
        state = {
            "step": self.step,
            "spent": self.spent,
            "model": learned(self.bare_model),
            "average": learned(self.average),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return state

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from :meth:`state`.

        Raises:
            InputError: If weights are not finite.
            KeyError: If it lacks something.
        """
        for module, weights in ((self.bare_model, state["model"]), (self.average, state["average"])):
            require_finite(weights, "the weights of the run's state", "start another run")
            if learned(module).keys() - weights.keys():
                raise KeyError("weights are missing")
            module.load_state_dict({**module.state_dict(), **weights})
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.spent = state["step"], state["spent"]
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def _averaged(model: nn.Module, decay: float, buffers: bool) -> AveragedModel:
    """An exponential moving average that forgets its first steps faster; whole numbers are copied."""

    def update(averages: Any, currents: Any, count: Any) -> None:
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, max(1 - decay, 10 / (10 + float(count))))
        else:
            torch._foreach_copy_(averages, currents)

    return AveragedModel(model, multi_avg_fn=torch.no_grad()(update), use_buffers=buffers)


def learned(model: nn.Module) -> dict[str, Tensor]:
    """The weights without the frozen ones, which come from elsewhere."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def fresh_model(spec: ModelSpec, seed: int, init: Path | None = None) -> nn.Module:
    """A model as a training begins with it: fresh weights of a seed, or those of another checkpoint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = spec.build()
    if init:
        load_weights(model, init)
    return model


def train(
    spec: ModelSpec,
    samples: Samples,
    config: TrainConfig,
    folder: Path,
    *,
    data: Mapping[str, Any] | None = None,
    report: Report | None = None,
    validate: Validate | None = None,
    device_is_cpu: bool = False,
    init: Path | None = None,
    model: nn.Module | None = None,
) -> None:
    """Trains a model and leaves its checkpoint in a folder; the same call again resumes.

    Args:
        spec: What is trained.
        samples: What it is trained on.
        config: How.
        folder: Where states, metrics and weights go.
        data: Description of the data, compared when a run is resumed.
        report: Told what is logged.
        validate: Scores the averaged weights; None leaves it out.
        device_is_cpu: Keeps accelerate off an accelerator that is there.
        init: Checkpoint folder whose weights the training starts from; None starts afresh.
        model: What :func:`fresh_model` made of the above, if that is built already.

    Raises:
        MissingError: If ``init`` is no checkpoint.
        InputError: If the folder holds something else, ``init`` does not fit, or the training diverges.
    """
    need("train", "accelerate", "tensorboard")
    from accelerate import Accelerator

    accelerator = Accelerator(
        mixed_precision=config.precision, cpu=device_is_cpu, log_with="tensorboard", project_dir=str(folder)
    )
    record = RunRecord(folder, describe_run(spec, config, data or {}, init))
    main = accelerator.is_main_process
    model = model or fresh_model(spec, config.seed, init)
    objective = _objective(model, spec, samples, config, accelerator)
    trainer = Trainer(model, objective, len(samples), config, accelerator)

    def due(every: int) -> bool:
        return every > 0 and (trainer.step % every == 0 or trainer.step == config.steps)

    def log(values: Mapping[str, float]) -> None:
        if main and values:
            record.add_metrics({"step": trainer.step, **values})
            accelerator.log(dict(values), step=trainer.step)
            if report:
                report(trainer.step, values)

    with exclusive(folder) if main else nullcontext():
        record.refuse_other_run()
        record.load_state(accelerator.device, trainer.load)
        accelerator.wait_for_everyone()
        if main:
            record.begin(trainer.step)
            accelerator.init_trackers("tensorboard")
            if trainer.step >= config.steps:
                _save(record, spec, trainer)  # whatever of a finished run is gone
        losses: list[float] = []
        for loss in trainer.run():
            losses.append(loss)
            if due(config.log_every):
                log(trainer.figures(losses))
                losses.clear()
            if due(config.checkpoint_every) and main:
                _save(record, spec, trainer)
            if due(config.picture_every):
                if validate and main:
                    with torch.random.fork_rng(), torch.no_grad():
                        log(validate(trainer.step, trainer.average.module))
                accelerator.wait_for_everyone()
        accelerator.end_training()


def _objective(
    model: nn.Module, spec: ModelSpec, samples: Samples, config: TrainConfig, accelerator: Accelerator
) -> Objective:
    """What models of an architecture learn by."""
    if spec.architecture == TEXT_TO_IMAGE:
        from igm_cli.core.training.latent import LatentObjective

        return LatentObjective(model, samples, config, accelerator)  # type: ignore[arg-type]
    return ComposedObjective(model, spec, samples, config, accelerator.device)


def _save(record: RunRecord, spec: ModelSpec, trainer: Trainer) -> None:
    """Writes the averaged weights as a checkpoint, then the state: a run that says it is finished has its weights."""
    dtype = torch.float16 if trainer.config.half else torch.float32
    save_model(record.folder, spec, trainer.average.module, dtype)
    record.save_state(trainer.state())
