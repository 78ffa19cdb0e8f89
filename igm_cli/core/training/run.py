"""A training run in a folder: trains, logs, and writes states and weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from igm_cli.core.checkpoint import ModelSpec, load_weights, save_model
from igm_cli.core.device import peak_memory, tf32_products, training_precision
from igm_cli.core.files import exclusive
from igm_cli.core.models import TEXT_TO_IMAGE
from igm_cli.core.training.batches import Samples
from igm_cli.core.training.config import TrainConfig
from igm_cli.core.training.objectives import Companion, ComposedObjective, Objective
from igm_cli.core.training.state import RunRecord, describe_run
from igm_cli.core.training.trainer import Note, Trainer
from igm_cli.errors import need

if TYPE_CHECKING:
    from accelerate import Accelerator

MEASURED = 2.0
"""Seconds that :func:`measure` takes, where three steps take no longer."""

Report: TypeAlias = Callable[[int, Mapping[str, float]], None]
"""Called on the main process after every step, with its number and the figures logged for it, often none."""

Validate: TypeAlias = Callable[[int, nn.Module], tuple[Mapping[str, float], Mapping[str, Tensor]] | None]
"""Called every ``picture_every`` steps with the averaged weights, on the main process; returns figures and pictures
``[H,W,3]`` of bytes to log, or None if it was stopped."""


def fresh_model(spec: ModelSpec, seed: int, init: Path | None = None) -> nn.Module:
    """Returns a model at the start of training, with fresh weights from a seed or those of another checkpoint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = spec.build()
    if init:
        load_weights(model, init, grown=True)
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
    companions: Sequence[Companion] = (),
    note: Note = lambda text: None,
    stop: Callable[[], bool] = lambda: False,
    trackers: Sequence[str] = (),
) -> int:
    """Trains a model and writes its checkpoint to a folder; calling it again resumes.

    Args:
        spec: Description of the model.
        samples: The training samples.
        config: The training options.
        folder: Where states, metrics and weights go.
        data: Description of the data, compared when a run is resumed.
        report: Receives every step and its logged figures.
        validate: Scores the averaged weights; None skips this.
        device_is_cpu: Trains on the CPU even if there is an accelerator.
        init: Checkpoint folder whose weights the training starts from; None starts afresh.
        model: Result of :func:`fresh_model` for the above, if already built.
        companions: Frozen models that it learns to add to.
        note: Receives sentences for the user.
        stop: Asked after every step and validation whether to end the training there, with its checkpoint.  A validation
            that this leaves out or cuts short is made when the training is resumed.
        trackers: Further trackers besides metrics.jsonl and tensorboard, by accelerate's names.

    Returns:
        The step it ends at: the last one unless ``stop`` ended it.

    Raises:
        MissingError: If ``init`` is not a checkpoint.
        InputError: If the folder holds something else, ``init`` does not fit, or the training diverges.
    """
    logs = {"log_with": ["tensorboard", *trackers], "project_dir": str(folder / "tensorboard")}
    accelerator = _accelerator(config, device_is_cpu, **logs)
    record = RunRecord(folder, describe_run(spec, config, data or {}, init, [c.folder for c in companions]))
    main = accelerator.is_main_process
    model = model or fresh_model(spec, config.seed, init)
    objective = _objective(model, spec, samples, config, accelerator, companions)
    trainer = Trainer(model, objective, len(samples), config, accelerator, note=note)

    def due(every: int) -> bool:
        return every > 0 and (trainer.step % every == 0 or trainer.step == config.steps)

    def log(values: Mapping[str, float]) -> None:
        if main and values:
            record.add_metrics({"step": trainer.step, **values})
            accelerator.log(dict(values), step=trainer.step)
        if main and report:
            report(trainer.step, values)

    def look() -> None:
        if validate and main and not record.validated(trainer.step):
            with torch.random.fork_rng(), torch.no_grad():
                seen = validate(trainer.step, trainer.average.module)
            if seen:
                figures, pictures = seen
                _show(accelerator, pictures, trainer.step)
                log(figures)
        accelerator.wait_for_everyone()

    with exclusive(folder) if main else nullcontext(), tf32_products(accelerator.device):
        record.refuse_other_run()
        record.refuse_lost_state()
        record.load_state(trainer.load)
        accelerator.wait_for_everyone()
        if main:
            if 0 < trainer.step < config.steps:
                note(f"resuming at step {trainer.step} of {config.steps}")
            record.begin(trainer.step)
            options = record.options() if trainer.step == 0 else None
            accelerator.init_trackers(folder.resolve().name or "igm", config=options)
            if report:
                report(trainer.step, {})
        if trainer.step >= config.steps:
            _save(record, spec, trainer)  # in case files of a finished run are gone
        if trainer.step and due(config.picture_every):
            look()
        for loss in trainer.run():
            trainer.losses.append(loss)
            stopped = trainer.all_agree(stop)
            ends = stopped or trainer.step == config.steps
            log(trainer.figures() if due(config.log_every) else {})
            looks = validate is not None and due(config.picture_every)
            if ends or looks or due(config.checkpoint_every):  # first, as the validation may be killed, or fail
                _save(record, spec, trainer)
            if looks and not stopped:
                look()
                ends = ends or trainer.all_agree(stop)
            if ends:
                break
        accelerator.wait_for_everyone()  # the first to leave would end the others
        accelerator.end_training()
    return trainer.step


def measure(
    spec: ModelSpec,
    samples: Samples,
    config: TrainConfig,
    model: nn.Module,
    *,
    device_is_cpu: bool = False,
    companions: Sequence[Companion] = (),
) -> tuple[float, float | None]:
    """Times three to twenty training steps, for :data:`MEASURED` seconds, which change only the weights of ``model``.

    The arguments are those of :func:`train`.

    Returns:
        Seconds per step, and peak memory in GB, None if unknown.

    Raises:
        InputError: If a step needs more memory than is available.
    """
    accelerator = _accelerator(config, device_is_cpu)
    objective = _objective(model, spec, samples, config, accelerator, companions)
    trainer = Trainer(model, objective, len(samples), config, accelerator)
    trainer.train_step()  # the first one has more to prepare
    trainer.require_sound()
    begun, first = time.monotonic(), trainer.step
    while trainer.step < first + 3 or (time.monotonic() - begun < MEASURED and trainer.step < first + 20):
        trainer.train_step()
    trainer.require_sound()  # which waits for them
    return (time.monotonic() - begun) / (trainer.step - first), peak_memory(accelerator.device)


def _accelerator(config: TrainConfig, on_cpu: bool, **more: Any) -> Accelerator:
    """Returns the accelerator of a training, with its device and precision."""
    need("train", "accelerate", "tensorboard")
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # an earlier training in this process may have used another precision
    precision = training_precision(config.precision, PartialState(cpu=on_cpu).device)
    return Accelerator(mixed_precision=precision, cpu=on_cpu, **more)


def _objective(
    model: nn.Module,
    spec: ModelSpec,
    samples: Samples,
    config: TrainConfig,
    accelerator: Accelerator,
    companions: Sequence[Companion],
) -> Objective:
    """Returns the objective of an architecture."""
    if spec.architecture == TEXT_TO_IMAGE:
        from igm_cli.core.training.latent import LatentObjective

        return LatentObjective(model, samples, config, accelerator)  # type: ignore[arg-type]
    return ComposedObjective(model, spec, samples, config, accelerator, companions)


def _show(accelerator: Accelerator, pictures: Mapping[str, Tensor], step: int) -> None:
    """Hands pictures to the trackers that accept them."""
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            order = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({name: each[None].numpy() for name, each in pictures.items()}, step, **order)


def _save(record: RunRecord, spec: ModelSpec, trainer: Trainer) -> None:
    """Writes the state, then the averaged weights as a checkpoint of so many steps.

    So there are weights without a state only if somebody deleted it.  All processes call it; the main one writes.
    """
    state = trainer.state()
    if trainer.accelerator.is_main_process:
        dtype = torch.float16 if trainer.config.half else torch.float32
        record.save_state(state)
        spec = replace(spec, info={**spec.info, "steps": trainer.step})
        save_model(record.folder, spec, trainer.average.module, dtype)
