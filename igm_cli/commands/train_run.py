"""A run of ``igm train``: it is checked as far as possible, then its data are loaded, then it trains."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from igm_cli.bundled import bundled
from igm_cli.commands.drawings import refuse_others_pictures
from igm_cli.commands.train_data import TrainingData, draw_samples
from igm_cli.commands.train_preset import Recipe, data_parts, model_spec
from igm_cli.commands.train_validation import COUNT, Validation
from igm_cli.commands.train_watch import Watch, draw_curves, how_it_went
from igm_cli.core.checkpoint import add_to_description, read_spec
from igm_cli.core.device import has_bf16, keep_freed_memory, training_precision
from igm_cli.core.files import DESCRIPTION, read_json
from igm_cli.core.models import TEXT_TO_IMAGE
from igm_cli.core.training.batches import Samples
from igm_cli.core.training.objectives import Companion
from igm_cli.core.training.run import fresh_model, measure, train
from igm_cli.core.training.state import SAMPLES, RunRecord, describe_run
from igm_cli.errors import InputError, PluginError, UsageError, cause, counted, need
from igm_cli.evaluation import Evaluation, in_words, keep_calibration
from igm_cli.folders import content_of
from igm_cli.interrupts import Interrupted, finishing, received, saying
from igm_cli.model import open_checkpoint
from igm_cli.open_model import process_device
from igm_cli.output import Output, process_rank, span
from igm_cli.plugins import registry
from igm_cli.plugins.adapters import RANGE
from igm_cli.plugins.base import ConceptParser, DatasetAdapter, validation_split


@dataclass(frozen=True)
class Place:
    """Where a training reads and writes, and how; the fields are named after the options of igm train."""

    output: Path
    dataset: str = ""
    concepts: str = ""
    data_root: Path | None = None
    builtin: bool = False
    limit: int | None = None
    device: str = "auto"
    init: Path | None = None
    companions: Sequence[Path] = ()
    trackers: Sequence[str] = ()
    dry_run: bool = False


class Training:
    """A training of igm train, which raises an :class:`IgmError` for all that can be found before the data are loaded."""

    def __init__(
        self, adapter: DatasetAdapter, parser: ConceptParser, recipe: Recipe, place: Place, sink: Output
    ) -> None:
        need("train")
        _check(adapter, parser, place.output, place.init)
        self.place, self.sink = place, sink
        self.device = process_device(place.device)
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)  # accelerate uses the current one
        self.note = cache(sink.note)  # once each, as parts and splits of the data may share a folder
        own = frozenset(getattr(adapter, "rendered_options", ()))
        real = frozenset({RANGE, *getattr(adapter, "folder_options", ())})
        given = recipe.preset(), place.data_root, place.limit
        parts = data_parts(*given, own, of_folders=real, builtin=place.builtin)
        self.data = TrainingData(adapter, parts, place.data_root, self.note, few=place.dry_run)
        self.recipe = self.data.advised(recipe, parser, sink, count=place.dry_run)
        self.preset = self.recipe.preset()
        self.parser = registry.configured(parser, self.preset.concepts)
        self.config = self.preset.config()
        self.known = [open_checkpoint(folder, None, str(self.device)) for folder in place.companions]
        if self.known:
            names = [model.name for model in self.known]
            self.preset = replace(self.preset, info={**self.preset.info, "with": names})
        self.spec = model_spec(adapter, self.parser, self.preset, parts)
        self.text_to_image = self.spec.architecture == TEXT_TO_IMAGE
        if self.text_to_image and self.known:
            raise UsageError("a text-to-image model adds to no other; leave out --with")
        if self.text_to_image and not (self.config.autoencoder_steps or place.init):
            raise UsageError(
                "a training without autoencoder_steps starts from a trained model; give --init MODEL"
            )
        told = [part.describe(place.data_root) for part in parts]
        self.told: dict[str, Any] = {"dataset": adapter.name, "parts": told}
        if place.data_root and place.data_root.is_dir():
            self.told["files"] = content_of(place.data_root, place.output)
        what = describe_run(self.spec, self.config, self.told, place.init, place.companions)
        self.record = RunRecord(place.output, what)

    @property
    def use(self) -> str:
        """The command that uses the model."""
        if self.known:
            return f"igm generate EXPRESSION {' '.join(map(_named, self.place.companions))} {self._model}"
        return f"igm {'zero-shot' if self.text_to_image else 'invert'} IMAGE {self._model}"

    @property
    def _model(self) -> str:
        """The options that name the model, and its parser if that is no plugin's, as files may not name code."""
        output, concepts = _named(self.place.output), self.place.concepts
        return f"{output} --concepts {concepts}" if ":" in concepts and not self.known else output

    def run(self) -> None:
        """Trains, unless the folder holds the finished run, and reports how it went and how to use the model."""
        output, steps, main = self.place.output, self.config.steps, process_rank()[0] == 0
        if not self.place.dry_run:
            held = self.record.held(steps, self.spec)
            if held and not self._unseen(held):
                every = "all " if held == steps else ""
                more = ", or continue with more --steps" if self.record.has_state else ""
                self.sink.note(
                    f"{output} already holds {every}{counted(held, 'step')} of this run; use it with {self.use}{more}"
                )
                if main:
                    self._conclude(held)
                return
            self.record.refuse_other_run()
            self.record.refuse_lost_state()
        ended = self._train()
        if ended and main:
            self._conclude(ended)
            self.sink.note(f"done; use it with: {self.use}")

    def _unseen(self, held: int) -> bool:
        """Returns whether the run was ended after its last step and before the validation that belongs to it."""
        if not (self.config.picture_every and self.record.has_state and self.record.metrics()):
            return False
        told = read_json(self.place.output / DESCRIPTION).get("info", {})
        return "outcome" not in told and not self.record.validated(held)

    def _conclude(self, steps: int) -> None:
        """Calibrates the model, keeps with it how its training went and says so, as far as that has yet to be done."""
        output = self.place.output
        with _saved_whole(output):
            self._calibrate()
            known = read_json(output / DESCRIPTION)
            if "outcome" in known.get("info", {}) or not (metrics := self.record.metrics()):
                return
            how = {"cut": self.preset.cut() is not None, "recounts": "typical" in known.get("inference", {})}
            went = how_it_went(metrics, steps, self.config.warmup, **how)
            add_to_description(output, {"outcome": went.said, "not_learned": went.not_learned})
            self.sink.note(went.said)
            self.sink.note(f"{went.advice}; {draw_curves(metrics, output)}")

    def _train(self) -> int | None:
        """Loads the data and trains; returns the last step, None for a dry run.

        Raises:
            Interrupted: If a signal ended it.
        """
        place, on_cpu = self.place, self.device.type == "cpu"
        model = fresh_model(self.spec, self.config.seed, place.init)
        if on_cpu:
            keep_freed_memory()
        if on_cpu and self.config.precision == "bf16" and not has_bf16(self.device):
            self.sink.note(
                "this processor has no bf16 instructions that torch knows of, and may take ten times as long in bf16; "
                "--precision auto uses float32 instead"
            )
        with self.sink.progress() as progress, ExitStack() as begun:
            how = (self.preset, self.spec.image_size, self.device, progress)
            samples = self.data.samples(self.parser, *how)
            if getattr(self.parser.space, "mixes", False) and not self.config.mixed:
                self.sink.note(
                    "the values of a concept have too many combinations to try each at every place, so mixtures of them are "
                    "tried first, and the model learns what a mixture is only if train.mixed is above 0 (--set mixed=0.15)"
                )
            beside = [
                Companion(folder, each.denoiser, each.composition, self.data.samples(each.parser, *how))
                for folder, each in zip(place.companions, self.known, strict=True)
            ]
            if place.dry_run:
                self._show(samples, model, beside)
                return None
            validation = self._validation()
            steps = counted(self.config.steps, "step")
            self.sink.note(
                f"training on {self.data.told(samples)} for {steps} in {place.output}, a model for {self.use}"
            )
            self.told["images"] = len(samples)
            watch = Watch(self.sink, self.config.steps, progress)
            stop = begun.enter_context(finishing())
            validate = partial(validation, progress=progress, stop=stop) if validation else None
            ended = train(
                self.spec, samples, self.config, place.output, data=self.told, report=watch,
                validate=validate, device_is_cpu=on_cpu, init=place.init, model=model, companions=beside,
                note=self.sink.note, stop=stop, trackers=place.trackers,
            )  # fmt: skip
            if stop() or ended < self.config.steps:
                raise Interrupted(
                    received() or signal.SIGINT,
                    f"step {ended} of {self.config.steps} is saved in {place.output}, and the same command continues from there",
                )
            return ended

    def _show(self, samples: Samples, model: nn.Module, beside: Sequence[Companion]) -> None:
        """Prints every setting, draws twelve samples, and tries a few steps; nothing else is written."""
        picture = self.place.output / SAMPLES
        refuse_others_pictures([picture], "--dry-run")
        draw_samples(samples, self.parser, picture)
        rows = self.data.settings(self.recipe) + self.recipe.settings(self.parser, self.spec.image_size)
        self.sink.table(f"igm train {self.data.adapter.name}", ("setting", "value", "said by"), rows)
        config, on_cpu = self.config, self.device.type == "cpu"
        for doubt in self.data.doubts(samples, self.parser):
            self.sink.note(doubt)
        seconds, memory = measure(self.spec, samples, config, model, device_is_cpu=on_cpu, companions=beside)
        whole = seconds * config.steps
        shown = training_precision(config.precision, self.device).replace("no", "float32")
        left_out = self.data.left_out * samples.batch([0], [False])[0].nbytes / 1e9
        taken = "" if memory is None else f" and {memory + left_out:.1f} GB"
        first = " if all are like the first ones" if len([n for n in config.phases if n]) > 1 else ""
        self.sink.note(
            f"would train on {self.data.told(samples)} for {counted(config.steps, 'step')} of {seconds:.2g} s in {shown}, "
            f"which takes {span(whole, whole)}{taken}{first}, and gives a model for {self.use}; twelve are drawn in {picture}"
        )
        calibrates = config.calibration and not (self.text_to_image or self.known)
        if calibrates and self.data.validation(1) is not None:
            self.sink.note(
                f"then the model is calibrated on up to {counted(config.calibration, 'image')}; --set calibration=0 leaves that out"
            )

    def _validation(self) -> Validation | None:
        """Returns the validation during training; None if there is none."""
        if self.text_to_image:
            self.note(
                "text-to-image models are neither validated nor calibrated while they are trained; then "
                f"igm evaluate {self._model} --calibrate does both"
            )
            return None
        if not self.config.picture_every:
            return None
        if self.known:
            self.sink.note("a model that adds to others is not validated while it is trained")
            return None
        if len(self.data.adapter.splits) < 2:
            return None
        examples = self.data.validation(COUNT)
        if examples is None:
            return None
        return Validation(examples, self.parser, self.spec, self.place.output, self.preset.cut())

    def _calibrate(self) -> None:
        """Calibrates the model on the second split, unless it already is or is not to be; reports why if this fails."""
        images, folder, adapter = self.config.calibration, self.place.output, self.data.adapter
        if not images or self.text_to_image or self.known:
            return
        if not {"calibrated", "not_calibrated"}.isdisjoint(read_spec(folder).info):
            return
        split = validation_split(adapter)
        try:
            model = open_checkpoint(folder, self.parser, str(self.device))
            with self.sink.progress() as progress:
                part = replace(self.data.parts[0], split=split, limit=None if model.scale else images)
                data = part.load(adapter, self.place.data_root, progress)
                evaluation = Evaluation(model, data, images, progress, self.note)
                fitted = evaluation.calibrated(progress)
        except (InputError, PluginError, UsageError) as error:
            keep_calibration(folder, {}, {"not_calibrated": str(error)})
            on = f" --dataset {self.place.dataset}" * (":" in self.place.dataset)
            way_out = f"igm evaluate {self._model}{on} --calibrate does it"
            self.sink.note(f"the model is not calibrated ({error}); {way_out}")
            return
        told = evaluation.keep(folder, fitted, adapter.name, split)
        self.sink.note(f"{told}: {in_words(fitted, {})}")


def _named(folder: Path) -> str:
    """Returns the option that names a model's folder, also where a bundled model has its name."""
    return f"--model ./{folder}" if str(folder) in bundled() else f"--model {folder}"


def _saved_whole(folder: Path) -> AbstractContextManager[None]:
    """Makes interruptions report that the model is complete."""
    return saying(f"the model is saved whole in {folder}, and the same command continues from there")


def _check(adapter: DatasetAdapter, parser: ConceptParser, folder: Path, init: Path | None) -> None:
    """Refuses vectors, datasets without images, and folders that cannot be written to, before the long work."""
    if getattr(parser, "reads", "images") == "vectors":
        raise UsageError(f"{parser.name}s need no training, their denoiser is known exactly; use igm decompose")
    if min(adapter.image_size) < 1:
        raise UsageError(
            f"the dataset {adapter.name!r} has no images to train on; choose one of igm plugins that has"
        )
    if init and init.resolve() == folder.resolve():
        raise UsageError(f"--init and --output are both {folder}; give another --output to keep both models")
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--output {folder} is not a folder; name another one")
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({cause(error)}); choose another --output") from error
