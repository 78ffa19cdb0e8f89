"""A run of ``igm train``: it is checked as far as can be, then its data are loaded, then it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.commands.train_data import DataPart, data_parts, load_samples, load_validation
from igm_cli.commands.train_spec import check_inference, model_spec
from igm_cli.errors import InputError, UsageError
from igm_cli.output import Output, ProgressReport

if TYPE_CHECKING:
    import torch

    from igm_cli.commands.train_preset import Plan
    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.core.training.config import TrainConfig
    from igm_cli.core.training.trainer import Report
    from igm_cli.plugins.base import ConceptParser, DatasetAdapter


def run_training(
    adapter: DatasetAdapter,
    parser: ConceptParser,
    plan: Plan,
    *,
    output: Path,
    data_root: Path | None,
    limit: int | None,
    device: str,
    init: Path | None,
    sink: Output,
) -> None:
    """Trains, unless the folder holds the finished run, and says how to use the model.

    Args:
        adapter: The dataset.
        parser: Of its concepts.
        plan: The preset with what the command line changes.
        output: Run folder.
        data_root: As ``--data-root`` has it.
        limit: As ``--limit`` has it.
        device: As ``--device`` has it.
        init: Checkpoint folder that the training starts from; None starts afresh.
        sink: For progress and messages.

    Raises:
        IgmError: With the way out, whatever does not fit.
    """
    _check_writable(output)
    from igm_cli.core.device import keep_freed_memory
    from igm_cli.core.training.config import TrainConfig

    target = _current_device(device)
    config = TrainConfig.from_dict(plan.train)
    own = frozenset(getattr(adapter, "rendered_options", ()))
    parts = data_parts(plan, data_root, limit, config.seed, own)
    spec = model_spec(adapter, parser, plan, config.steps, parts)
    check_inference(plan.inference)
    run = Run(adapter, parser, parts, spec, config, output, init)
    if run.is_finished():
        sink.note(
            f"{output} already holds all {config.steps} steps of this run; "
            f"use it with {_use(spec, output)}, or go on with more --steps"
        )
        return
    run.check_model()
    keep_freed_memory()
    run.train(sink, on_cpu=target.type == "cpu")
    sink.note(f"done; use it with: {_use(spec, output)}")


def _use(spec: ModelSpec, output: Path) -> str:
    """The command that a model is for."""
    command = "zero-shot" if spec.architecture == "text-to-image" else "invert"
    return f"igm {command} IMAGE --model {output}"


@dataclass(frozen=True)
class Run:
    """A run as far as it is known before its data are loaded.

    Attributes:
        adapter: The dataset.
        parser: Of its concepts.
        parts: Of the data.
        spec: What is trained.
        config: How.
        folder: Where it is kept.
        init: Checkpoint folder that it starts from.
    """

    adapter: DatasetAdapter
    parser: ConceptParser
    parts: Sequence[DataPart]
    spec: ModelSpec
    config: TrainConfig
    folder: Path
    init: Path | None

    def describe_data(self) -> dict[str, Any]:
        """The data for the run's record, less the number of images."""
        return {"dataset": self.adapter.name, "parts": [part.describe() for part in self.parts]}

    def is_finished(self) -> bool:
        """Whether the folder holds this very run with all its steps, told without loading the data.

        Raises:
            MissingError: If the checkpoint to start from has no weights.
        """
        from igm_cli.core.training.state import RunRecord, describe_run

        description = describe_run(self.spec, self.config, self.describe_data(), self.init)
        return RunRecord(self.folder, description).is_finished(self.config.steps)

    def check_model(self) -> None:
        """Reports wrong options, and weights that do not fit, before the data are loaded.

        Raises:
            InputError: If there are any.
            UsageError: If no step and no model gives an autoencoder.
        """
        from igm_cli.core.checkpoint import load_weights

        model = self.spec.build()
        if self.init:
            load_weights(model, self.init)
        elif self.spec.architecture == "text-to-image" and not self.config.autoencoder_steps:
            raise UsageError(
                "a training without autoencoder_steps starts from a trained model; give --init MODEL"
            )

    def train(self, sink: Output, *, on_cpu: bool) -> None:
        """Loads the data and trains, showing progress."""
        from igm_cli.core.training.trainer import train

        steps = self.config.steps
        with sink.progress() as progress:
            samples = load_samples(self.adapter, self.parser, self.parts, self.spec.image_size, progress)
            validation = None
            if self.config.picture_every:
                part = self.parts[0]
                validation = load_validation(self.adapter, self.parser, part, self.spec, self.folder, sink)
            what = f"{len(samples)} images of {self.adapter.name}"
            sink.note(f"training on {what} for {steps} steps in {self.folder}")
            train(
                self.spec,
                samples,
                self.config,
                self.folder,
                data={**self.describe_data(), "images": len(samples)},
                report=_shown(progress, steps),
                validate=validation,
                device_is_cpu=on_cpu,
                init=self.init,
            )


def _shown(progress: ProgressReport, steps: int) -> Report:
    """Shows the figures of training steps as progress; those of validation are in the metrics."""

    def report(step: int, figures: Mapping[str, float]) -> None:
        shown = " ".join(f"{k} {v:.4g}" for k, v in figures.items() if k in ("loss", "learning_rate"))
        if shown:
            progress(f"training: {shown}", step, steps)

    return report


def _current_device(name: str) -> torch.device:
    import torch

    from igm_cli.core.device import resolve_device

    device = resolve_device(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # accelerate takes the current one
    return device


def _check_writable(folder: Path) -> None:
    """Fails before the long work, not after it."""
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot write to {folder} ({reason}); choose another --output") from error
