"""A run of ``igm train``: it is checked as far as can be, then its data are loaded, then it trains."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from igm_cli.commands.train_preset import DataPart, Preset, data_parts, model_spec
from igm_cli.errors import InputError, UsageError, cause, need
from igm_cli.interrupts import Interrupted, finishing, received
from igm_cli.output import Output, ProgressReport, process_rank

if TYPE_CHECKING:
    import datasets
    import torch

    from igm_cli.core.training.batches import Samples
    from igm_cli.plugins.base import (
        AdvisingAdapter,
        ConceptParser,
        DatasetAdapter,
        Note,
        Progress,
        RenderingAdapter,
    )


def run_training(
    adapter: DatasetAdapter,
    parser: ConceptParser,
    preset: Preset,
    *,
    advised: Callable[[Mapping[str, Any]], Preset] | None = None,
    output: Path,
    data_root: Path | None,
    limit: int | None,
    device: str,
    init: Path | None,
    companions: Sequence[Path] = (),
    dry_run: bool = False,
    sink: Output,
) -> None:
    """Trains, unless the folder holds the finished run, and says how to use the model; the options are igm train's.

    ``advised`` returns the preset with what the dataset advises, where that is not said otherwise; None asks for no advice.
    """
    need("train")
    _check(adapter, parser, output, init)
    from igm_cli.commands.results import refuse_others_pictures
    from igm_cli.core.device import keep_freed_memory
    from igm_cli.core.training.objectives import Companion
    from igm_cli.core.training.state import SAMPLES, RunRecord, describe_run
    from igm_cli.core.training.trainer import fresh_model, train
    from igm_cli.model import open_checkpoint

    place = _training_device(device)
    on_cpu = place.type == "cpu"
    own = frozenset(getattr(adapter, "rendered_options", ()))
    parts = data_parts(preset, data_root, limit, own)
    note = _once(sink.note)  # the parts of the data and its splits may be in one folder
    first: datasets.Dataset | None = None
    if advised and hasattr(adapter, "advise"):
        with sink.progress() as progress:
            first = _load_part(adapter, parts[0], data_root, progress, note)
        advice = cast("AdvisingAdapter", adapter).advise(first, asdict(preset))
        for reason in advice.reasons:
            note(reason)
        preset = advised(advice.tables)
    config = preset.config()
    known = [open_checkpoint(str(folder), None, str(place)) for folder in companions]
    if known:
        preset = replace(preset, info={**preset.info, "with": [model.name for model in known]})
    spec = model_spec(adapter, parser, preset, parts)
    command = "zero-shot" if spec.architecture == "text-to-image" else "invert"
    use = f"igm {command} IMAGE --model {output}"
    data: dict[str, Any] = {"dataset": adapter.name, "parts": [part.describe(data_root) for part in parts]}
    record = RunRecord(output, describe_run(spec, config, data, init, companions))
    if record.is_finished(config.steps, spec):
        sink.note(
            f"{output} already holds all {config.steps} steps of this run; "
            f"use it with {use}, or go on with more --steps"
        )
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
        _load_samples,
        adapter,
        preset=preset,
        root=data_root,
        image_size=spec.image_size,
        device=place,
        first=first,
    )
    with sink.progress() as progress, ExitStack() as begun:
        samples = load(parser, parts, progress=progress, note=note)
        if dry_run:
            picture = output / SAMPLES
            refuse_others_pictures([picture], "--dry-run")
            _draw_samples(samples, parser, picture)
            sink.note(
                f"would train on {_told(samples, adapter)} for {config.steps} steps; twelve are drawn in {picture}"
            )
            return
        validation = None
        beside = [
            Companion(
                folder, each.denoiser, each.composition,
                load(each.parser, parts, progress=progress, note=note),
            )
            for folder, each in zip(companions, known, strict=True)
        ]  # fmt: skip
        if known and config.picture_every:
            sink.note("a model that adds to others is not validated while it is trained")
        elif config.picture_every and (
            examples := _validation_data(adapter, parts[0], data_root, command, note)
        ):
            from igm_cli.commands.validation import Validation

            validation = Validation(examples, parser, spec, output, preset.cut())
        sink.note(f"training on {_told(samples, adapter)} for {config.steps} steps in {output}")
        data["images"] = len(samples)
        stop = begun.enter_context(finishing())
        ended = train(
            spec, samples, config, output, data=data, report=partial(_report, progress, config.steps), validate=validation,
            device_is_cpu=on_cpu, init=init, model=model, companions=beside, note=sink.note,
            stop=stop,
        )  # fmt: skip
    if ended < config.steps:
        raise Interrupted(
            received() or signal.SIGINT,
            f"step {ended} of {config.steps} is saved in {output}, and the same command goes on from there",
        )
    if known:
        every = " ".join(f"--model {path}" for path in (*companions, output))
        use = f"igm generate EXPRESSION {every}"
    elif config.calibration and command == "invert" and process_rank()[0] == 0:
        _calibrate(adapter, parts[0], data_root, output, str(place), config.calibration, sink)
    sink.note(f"done; use it with: {use}")


def _calibrate(
    adapter: DatasetAdapter,
    part: DataPart,
    root: Path | None,
    folder: Path,
    device: str,
    images: int,
    sink: Output,
) -> None:
    """Calibrates a trained model on images of the second split, and keeps that with it; says why if it cannot be."""
    from igm_cli.evaluation import Evaluation, keep_calibration, told
    from igm_cli.model import open_checkpoint

    split = adapter.splits[min(1, len(adapter.splits) - 1)]
    model = open_checkpoint(str(folder), None, device)
    try:
        with sink.progress() as progress:
            data = part.load(adapter, split, None if model.scale else images, root, progress, lambda text: None)
            evaluation = Evaluation(model, data, images, progress)
            fitted = evaluation.calibrated(progress)
    except (InputError, UsageError) as error:
        sink.note(f"the model is not calibrated ({error}); igm evaluate --calibrate does it")
        return
    keep_calibration(folder, fitted, {"images": evaluation.count, "dataset": adapter.name, "split": split})
    sink.note(f"calibrated on {evaluation.count} images of {split}: {told(fitted)}")


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


def _report(progress: ProgressReport, steps: int, step: int, figures: Mapping[str, float]) -> None:
    """Shows the figures of a step; those of validation are in the metrics."""
    if "loss" in figures:
        shown = f"loss {figures['loss']:.4g} learning_rate {figures['learning_rate']:.4g}"
        if "memory_gb" in figures:
            shown += f", {figures['images_per_second']:.0f} images/s, {figures['memory_gb']:.1f} GB"
        progress(f"training: {shown}", step, steps)


def _load_part(
    adapter: DatasetAdapter, part: DataPart, root: Path | None, progress: Progress, note: Note
) -> datasets.Dataset:
    """The images of a part that are trained on."""
    return part.load(adapter, part.split or adapter.splits[0], part.limit, root, progress, note)


def _told(samples: Samples, adapter: DatasetAdapter) -> str:
    """Returns what is trained on in words."""
    large = len(getattr(samples, "images", ()))
    crops = f"crops of {large} image{'' if large == 1 else 's'}"
    return f"{len(samples)} {crops if large else 'images'} of {adapter.name}"


def _draw_samples(samples: Samples, parser: ConceptParser, path: Path, count: int = 12) -> None:
    """Writes a picture of some training samples with their concepts."""
    from igm_cli.commands.results import save_picture, sheet
    from igm_cli.core.training.batches import as_floats
    from igm_cli.imaging import Frame, from_model

    rows = list(range(min(count, len(samples))))
    images, concepts, present = samples.batch(rows, [False] * len(rows))
    pictures = []
    for image, some, there in zip(as_floats(images), concepts, present, strict=True):
        picture = from_model(image)
        items = parser.decode(some[there], Frame.fit(picture.size, picture.width / picture.height))
        pictures.append(parser.draw(picture, items))
    save_picture(sheet(pictures), path)


def _load_samples(
    adapter: DatasetAdapter,
    parser: ConceptParser,
    parts: Sequence[DataPart],
    *,
    preset: Preset,
    root: Path | None,
    image_size: tuple[int, int],
    device: torch.device,
    progress: ProgressReport,
    note: Note,
    first: datasets.Dataset | None = None,
) -> Samples:
    """All parts of the training data, decoded, and cut where the preset says so; a GPU renders those that it can.

    ``first`` is the first part, if that is loaded already.
    """
    from igm_cli.plugins.crops import CropSamples
    from igm_cli.plugins.samples import DatasetSamples, JoinedSamples, RenderedSamples

    crops, seed = preset.cut(), preset.config().seed
    renders = (
        not crops and device.type == "cuda" and hasattr(adapter, "render") and image_size == adapter.image_size
    )

    def show(number: int, what: str, done: int, total: int) -> None:
        progress(f"{what} ({number} of {len(parts)})" if len(parts) > 1 else what, done, total)

    loaded: list[Samples] = []
    for number, part in enumerate(parts, 1):
        shown = partial(show, number)
        if renders and part.data_root == "builtin":
            rendering = cast("RenderingAdapter", adapter)
            loaded.append(RenderedSamples(part.render(rendering, device, shown), parser))
            continue
        known = first if number == 1 else None
        data = known if known is not None else _load_part(adapter, part, root, shown, note)
        if crops:
            loaded.append(CropSamples(data, parser, image_size, crops, seed, shown, note))
        else:
            loaded.append(DatasetSamples(data, parser, image_size, progress=shown))
    return loaded[0] if len(loaded) == 1 else JoinedSamples(loaded)


def _validation_data(
    adapter: DatasetAdapter, part: DataPart, root: Path | None, command: str, note: Note
) -> datasets.Dataset | None:
    """A few images of the second split; None if the dataset or the given folder has only one."""
    from igm_cli.commands.validation import COUNT

    if len(adapter.splits) < 2:
        return None
    if command == "zero-shot":
        note("text-to-image models are not validated while they are trained; see igm benchmark zero-shot")
        return None
    try:
        return part.load(adapter, adapter.splits[1], COUNT, root, None, note)
    except InputError as error:
        if part.data_root == "builtin":
            raise
        note(f"training goes on without validation: {error}")
        return None
