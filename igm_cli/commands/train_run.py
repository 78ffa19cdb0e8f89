"""A run of ``igm train``: it is checked as far as can be, then its data are loaded, then it trains."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from igm_cli.commands.train_data import load_part, load_samples, told, validation_data
from igm_cli.commands.train_dry_run import DryRun
from igm_cli.commands.train_preset import DataPart, Recipe, data_parts, model_spec
from igm_cli.commands.train_watch import Watch, draw_curves, how_it_went
from igm_cli.errors import InputError, PluginError, UsageError, cause, need
from igm_cli.interrupts import Interrupted, finishing, received
from igm_cli.output import Output, process_rank

if TYPE_CHECKING:
    import datasets
    import torch

    from igm_cli.plugins.base import AdvisingAdapter, ConceptParser, DatasetAdapter, Note


@dataclass(frozen=True)
class Place:
    """Where a training reads and writes, and how; the names are the options of igm train."""

    output: Path
    data_root: Path | None = None
    builtin: bool = False
    limit: int | None = None
    device: str = "auto"
    init: Path | None = None
    companions: Sequence[Path] = ()
    trackers: Sequence[str] = ()
    dry_run: bool = False


def run_training(
    adapter: DatasetAdapter, parser: ConceptParser, recipe: Recipe, place: Place, sink: Output
) -> None:
    """Trains, unless the folder holds the finished run, and says how it went and how to use the model."""
    need("train")
    output, root, init, companions = place.output, place.data_root, place.init, place.companions
    _check(adapter, parser, output, init)
    from igm_cli.core.device import keep_freed_memory
    from igm_cli.core.training.objectives import Companion
    from igm_cli.core.training.state import RunRecord, describe_run
    from igm_cli.core.training.trainer import fresh_model, train
    from igm_cli.model import open_checkpoint

    device = _training_device(place.device)
    on_cpu = device.type == "cpu"
    own = frozenset(getattr(adapter, "rendered_options", ()))
    preset = recipe.preset()
    parts = data_parts(preset, root, place.limit, own, builtin=place.builtin)
    note = _once(sink.note)  # the parts of the data and its splits may be in one folder
    first: datasets.Dataset | None = None
    if hasattr(adapter, "advise"):
        with sink.progress() as progress:
            first = load_part(adapter, parts[0], root, progress, note)
        advice = cast("AdvisingAdapter", adapter).advise(first, asdict(preset))
        for reason in advice.reasons:
            note(reason)
        recipe = replace(recipe, advised=advice.tables)
        preset = recipe.preset()
    config = preset.config()
    known = [open_checkpoint(str(folder), None, str(device)) for folder in companions]
    if known:
        preset = replace(preset, info={**preset.info, "with": [model.name for model in known]})
    spec = model_spec(adapter, parser, preset, parts)
    command = "zero-shot" if spec.architecture == "text-to-image" else "invert"
    every = " ".join(f"--model {path}" for path in (*companions, output))
    use = f"igm generate EXPRESSION {every}" if known else f"igm {command} IMAGE --model {output}"
    data: dict[str, Any] = {"dataset": adapter.name, "parts": [part.describe(root) for part in parts]}
    record = RunRecord(output, describe_run(spec, config, data, init, companions))
    calibrates = config.calibration > 0 and command == "invert" and not known
    calibrate = partial(_calibrate, adapter, parts[0], root, output, str(device), config.calibration, sink)
    if not place.dry_run:
        if record.is_finished(config.steps, spec):
            sink.note(
                f"{output} already holds all {config.steps} steps of this run; "
                f"use it with {use}, or go on with more --steps"
            )
            if calibrates and process_rank()[0] == 0:
                with _saved_whole(output):
                    calibrate()
            return
        record.refuse_other_run()
    if command == "zero-shot" and known:
        raise UsageError("a text-to-image model adds to no other; leave out --with")
    if command == "zero-shot" and not (config.autoencoder_steps or init):
        raise UsageError("a training without autoencoder_steps starts from a trained model; give --init MODEL")
    model = fresh_model(spec, config.seed, init)
    if on_cpu:
        keep_freed_memory()
    load = partial(
        load_samples,
        adapter,
        preset=preset,
        root=root,
        image_size=spec.image_size,
        device=device,
        first=first,
    )
    watch = Watch(sink, config.steps, config.batch_size)
    with sink.progress() as progress, ExitStack() as begun:
        samples = load(parser, parts, progress=progress, note=note)
        beside = [
            Companion(
                folder, each.denoiser, each.composition,
                load(each.parser, parts, progress=progress, note=note),
            )
            for folder, each in zip(companions, known, strict=True)
        ]  # fmt: skip
        if place.dry_run:
            DryRun(adapter, parser, recipe, parts, spec, samples).show(output, model, beside, on_cpu, sink)
            return
        validation = None
        if known and config.picture_every:
            sink.note("a model that adds to others is not validated while it is trained")
        elif config.picture_every and (examples := validation_data(adapter, parts[0], root, command, note)):
            from igm_cli.commands.validation import Validation

            validation = Validation(examples, parser, spec, output, preset.cut())
        sink.note(f"training on {told(samples, adapter)} for {config.steps} steps in {output}")
        data["images"] = len(samples)
        stop = begun.enter_context(finishing())
        ended = train(
            spec, samples, config, output, data=data, report=watch.shown_by(progress), validate=validation,
            device_is_cpu=on_cpu, init=init, model=model, companions=beside, note=sink.note,
            stop=stop, trackers=place.trackers,
        )  # fmt: skip
    if ended < config.steps:
        raise Interrupted(
            received() or signal.SIGINT,
            f"step {ended} of {config.steps} is saved in {output}, and the same command goes on from there",
        )
    if process_rank()[0] != 0:
        return
    with _saved_whole(output):
        if calibrates:
            calibrate()
        said, advised = how_it_went(record.metrics(), config.steps)
        sink.note(said)
        sink.note(f"{advised}; {draw_curves(record.metrics(), output)}")
    sink.note(f"done; use it with: {use}")


@contextmanager
def _saved_whole(folder: Path) -> Iterator[None]:
    """Says of an interruption that it takes nothing of the model."""
    try:
        yield
    except Interrupted as error:
        says = f"the model is saved whole in {folder}, and the same command goes on from there"
        raise Interrupted(error.number, says) from error


def _calibrate(
    adapter: DatasetAdapter,
    part: DataPart,
    root: Path | None,
    folder: Path,
    device: str,
    images: int,
    sink: Output,
) -> None:
    """Calibrates a trained model on images of the second split, unless it is; says why if it cannot be."""
    from igm_cli.core.checkpoint import read_spec
    from igm_cli.evaluation import Evaluation, in_words, keep_calibration
    from igm_cli.model import open_checkpoint

    split = adapter.splits[min(1, len(adapter.splits) - 1)]
    if not {"calibrated", "not_calibrated"}.isdisjoint(read_spec(folder).info):
        return
    try:
        model = open_checkpoint(str(folder), None, device)
        with sink.progress() as progress:
            data = part.load(adapter, split, None if model.scale else images, root, progress, lambda text: None)
            evaluation = Evaluation(model, data, images, progress)
            fitted = evaluation.calibrated(progress)
    except (InputError, PluginError, UsageError) as error:  # PluginError: a parser that has no name of its own
        keep_calibration(folder, {}, {"not_calibrated": str(error)})
        sink.note(f"the model is not calibrated ({error}); igm evaluate --calibrate does it")
        return
    about = {"images": evaluation.count, "dataset": adapter.name, "split": split}
    keep_calibration(folder, fitted, {"calibrated": about})
    sink.note(f"calibrated on {evaluation.count} images of {split}: {in_words(fitted)}")


def _check(adapter: DatasetAdapter, parser: ConceptParser, folder: Path, init: Path | None) -> None:
    """Refuses what there is nothing to learn of, and folders that cannot be written to, before the long work."""
    from igm_cli.core.concepts import Codebook

    if isinstance(parser.space, Codebook):
        raise UsageError(
            "codebooks need no training, their denoiser is known exactly; use igm invert with --codebooks"
        )
    if min(adapter.image_size) < 1:
        raise UsageError(
            f"the dataset {adapter.name!r} has no images to train on; choose one of igm plugins that has"
        )
    if init and init.resolve() == folder.resolve():
        raise UsageError(f"--init and --output are both {folder}; give another --output to keep both models")
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--output {folder} is no folder; name another one")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({cause(error)}); choose another --output") from error


def _training_device(name: str) -> torch.device:
    """The device of this process; a GPU is made the current one, which accelerate takes."""
    import torch

    from igm_cli.session import process_device

    device = process_device(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def _once(note: Note) -> Note:
    """Returns a function that notes every sentence once."""
    noted: set[str] = set()

    def say(text: str) -> None:
        if text not in noted:
            noted.add(text)
            note(text)

    return say
