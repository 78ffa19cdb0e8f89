"""Joint training of the composed prediction (IGM, Wang et al. 2025, Algorithm 1).

    argmin_theta  E_{x0, c, t, eps} ‖eps - compose_k eps_theta(x_t, t | c_k)‖²

Every process plans and draws the whole batch and takes its rows of it; see
:mod:`igm_cli.core.training.plan`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from igm_cli.core.checkpoint import ModelSpec, load_weights, save_checkpoint, write_description
from igm_cli.core.concepts import Categorical, space_to_dict
from igm_cli.core.models.factored_global import GlobalDenoiser
from igm_cli.core.models.latent import LatentTextToImage
from igm_cli.core.noise_schedule import Schedule
from igm_cli.core.objective import composed_loss
from igm_cli.core.training.config import TrainConfig
from igm_cli.core.training.contrast import contrastive_loss
from igm_cli.core.training.latent import LatentTraining
from igm_cli.core.training.plan import StepPlan, learning_rate_factor, plan_step
from igm_cli.core.training.state import RunRecord, describe_run
from igm_cli.errors import InputError


class Samples(Protocol):
    """Training images with their concepts."""

    def __len__(self) -> int: ...

    def batch(self, indices: list[int], flips: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
        """Images ``[B,C,H,W]`` in -1..1, concepts ``[B,K,D]``, presence ``[B,K]`` (False = padding)."""
        ...


Report: TypeAlias = Callable[[int, Mapping[str, float]], None]
"""Called with the step and its figures whenever some are logged, on the main process."""

Validate: TypeAlias = Callable[[int, nn.Module], Mapping[str, float]]
"""Called every ``picture_every`` steps with the averaged weights, on the main process; returns figures to log."""


def _check_shares(config: TrainConfig, processes: int) -> None:
    """Every process must get as many images as the others, in equal micro-batches."""
    if config.batch_size % (processes * config.accumulation):
        raise InputError(
            f"batch_size {config.batch_size} must be divisible by "
            f"{processes} processes times {config.accumulation} accumulation steps"
        )


def _averaged(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average that forgets its first steps faster."""

    def update(averages: Any, currents: Any, count: Any) -> None:
        weight = max(1 - decay, 10 / (10 + float(count)))
        torch._foreach_lerp_(averages, currents, weight)

    return AveragedModel(model, multi_avg_fn=torch.no_grad()(update))


def _check_objective(spec: ModelSpec, config: TrainConfig, processes: int) -> None:
    """What is trained must be something that the model can learn by."""
    if spec.architecture == "text-to-image":
        if processes > 1:
            raise InputError("text-to-image models are trained by one process; run igm train without launch")
    elif config.autoencoder_steps or config.reading_steps:
        raise InputError(
            "autoencoder_steps and reading_steps are of text-to-image models; set them to 0 for others"
        )
    elif config.contrast and (spec.space.get("kind") != "categorical" or spec.architecture != "factored"):
        raise InputError("contrast is between values of factors of a factored denoiser; set it to 0 for others")


class Trainer:
    """One training run in one folder.

    Args:
        spec: What is trained.
        samples: On what.
        config: How.
        folder: Where states, metrics and weights go.
        data: Description of the data, compared when a run is resumed.
        report: Told what is logged.
        validate: Scores the averaged weights; None leaves it out.
        device_is_cpu: Keeps accelerate off an accelerator that is there.
        init: Checkpoint folder whose weights the training starts from; None starts afresh.

    Raises:
        MissingError: If ``init`` is no checkpoint.
        InputError: If its weights do not fit.
    """

    def __init__(
        self,
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
    ) -> None:
        self.spec, self.samples, self.config, self.folder = spec, samples, config, folder
        self.report, self.validate = report, validate
        self.accelerator = Accelerator(
            mixed_precision=config.precision,
            cpu=device_is_cpu,
            log_with="tensorboard",
            project_dir=str(folder),
        )
        _check_shares(config, self.accelerator.num_processes)
        _check_objective(spec, config, self.accelerator.num_processes)
        self.record = RunRecord(folder, describe_run(spec, config, data or {}, init))
        torch.manual_seed(config.seed)
        model = spec.build()
        if init:
            load_weights(model, init)
        if isinstance(model, GlobalDenoiser):  # distributed training refuses parameters that no loss reaches
            for layer in (model.head.notice, model.head.readout):
                layer.requires_grad_(config.contrast > 0)
        self.schedule: Schedule = model.schedule  # type: ignore[assignment]
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        # Copied before accelerate wraps forward, and kept without its wrappers: unwrapping a model
        # would take its autocast away.
        self.average = _averaged(model, config.ema).to(self.accelerator.device)
        self.bare_model = model
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.latent = (
            LatentTraining(self.bare_model, samples, config, self.accelerator)
            if isinstance(self.bare_model, LatentTextToImage)
            else None
        )
        self.step = 0
        self.spent = 0.0

    def run(self) -> None:
        """Trains to the configured number of steps, resuming what the folder holds.

        Raises:
            InputError: If the folder holds a run of another configuration.
        """
        self._open_folder()
        if self.accelerator.is_main_process:
            self.accelerator.init_trackers("tensorboard")
        started, sums, count = time.monotonic() - self.spent, 0.0, 0
        self.model.train()
        while self.step < self.config.steps:
            sums, count = sums + self.train_step(), count + 1
            self.spent = time.monotonic() - started
            if self._due(self.config.log_every):
                loss = self.accelerator.reduce(torch.tensor(sums / count), "mean").item()
                self._log({"loss": loss, "learning_rate": self._rate(self.step - 1), "seconds": self.spent})
                sums, count = 0.0, 0
            if self._due(self.config.checkpoint_every):
                self.save()
            if self.config.picture_every and self._due(self.config.picture_every):
                self._validate()
        self.accelerator.end_training()

    def train_step(self) -> float:
        """One optimizer step; returns the loss of this process."""
        plan = plan_step(self.step, len(self.samples), self.config)
        share = self.config.batch_size // self.accelerator.num_processes
        first = self.accelerator.process_index * share
        noise = self._noise(plan.seed)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(self.step)
        micro, total = share // self.config.accumulation, 0.0
        for part in range(self.config.accumulation):
            start = first + part * micro
            last = part == self.config.accumulation - 1
            with self.accelerator.no_sync(self.model) if not last else nullcontext():
                loss = self._loss(plan.rows(start, start + micro), noise[start : start + micro])
                self.accelerator.backward(loss / self.config.accumulation)
            total += float(loss.detach()) / self.config.accumulation
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.bare_model)
        self.step += 1
        return total

    def _loss(self, plan: StepPlan, noise: Tensor) -> Tensor:
        device = self.accelerator.device
        t = (plan.u**self.config.timestep_power * self.schedule.steps).long()
        t = t.clamp(max=self.schedule.steps - 1).to(device)
        if self.latent:
            return self.latent.loss(self.step, plan, t, self._contrast())
        images, concepts, present = self.samples.batch(plan.indices, plan.flips)
        images, concepts, noise = images.to(device), concepts.to(device), noise.to(device)
        model, schedule, composition = self.model, self.schedule, self.spec.composition
        if self.config.contrast:
            space, contrast = cast(Categorical, self.bare_model.space), self._contrast()
            return contrastive_loss(model, schedule, composition, space, images, concepts, t, noise, contrast)
        return composed_loss(model, schedule, composition, images, concepts, present.to(device), t, noise)

    def _contrast(self) -> float:
        """Its weight in this step; with 0 it is computed all the same, so that every parameter has a gradient."""
        return self.config.contrast if self.step >= self.config.contrast_from else 0.0

    def _noise(self, seed: int) -> Tensor:
        width, height = self.spec.image_size
        shape = (self.config.batch_size, 3, height, width)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def _rate(self, step: int) -> float:
        return self.config.learning_rate * learning_rate_factor(step, self.config)

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _log(self, values: Mapping[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        self.record.add_metrics({"step": self.step, **values})
        self.accelerator.log(dict(values), step=self.step)
        if self.report:
            self.report(self.step, values)

    def _validate(self) -> None:
        if self.validate and self.accelerator.is_main_process:
            with torch.random.fork_rng(), torch.no_grad():
                figures = self.validate(self.step, self.average.module)
            if figures:
                self._log(figures)
        self.accelerator.wait_for_everyone()

    def save(self) -> None:
        """Writes the resumable state and the averaged weights as a checkpoint."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "step": self.step,
            "spent": self.spent,
            "model": self.bare_model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        dtype = torch.float16 if self.config.half else torch.float32
        if isinstance(self.average.module, LatentTextToImage):
            self.average.module.save_folder(self.folder, dtype)
            write_description(self.folder, replace(self.spec, space=space_to_dict(self.average.module.asked)))
        else:
            save_checkpoint(self.folder, self.spec, self.average.module.state_dict(), dtype)
        # The state last: a run that says it is finished has its weights.
        self.record.save_state(state)

    def _open_folder(self) -> None:
        """Starts a run, or loads the one that is there if it is the same."""
        self.record.refuse_other_run()
        self.record.load_state(self.accelerator.device, self._load)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.record.begin(self.step)

    def _load(self, state: dict[str, Any]) -> None:
        self.step, self.spent = state["step"], state["spent"]
        self.bare_model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])


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
) -> None:
    """Trains a model and leaves its checkpoint in ``folder``; the same call again resumes.

    Raises:
        MissingError: If ``init`` is no checkpoint.
        InputError: If the folder holds a run of another configuration, or ``init`` does not fit.
    """
    Trainer(
        spec,
        samples,
        config,
        folder,
        data=data,
        report=report,
        validate=validate,
        device_is_cpu=device_is_cpu,
        init=init,
    ).run()
