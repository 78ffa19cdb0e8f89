"""``igm evaluate``: evaluates how well a model finds the concepts of annotated images, and calibrates it on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from igm_cli.commands import options as o
from igm_cli.core.files import DESCRIPTION, home_expanded, require_writable
from igm_cli.errors import IgmError, InputError, UsageError, need, percentage
from igm_cli.interrupts import saying
from igm_cli.output import Output

if TYPE_CHECKING:
    from igm_cli.benchmarks.intervals import Estimate
    from igm_cli.benchmarks.suite import PictureGrid
    from igm_cli.core.concepts import ConceptSpace
    from igm_cli.evaluation import Evaluation, Judged

WORST = 12
"""Images that --worst draws."""


@saying(
    "nothing of the evaluation is kept, except a calibration that was reported; the same command starts it again"
)
def evaluate(
    model: o.Model = None,
    concepts: o.Concepts = None,
    dataset: Annotated[
        str | None, o.data("Dataset: a name of igm plugins.  Default: that of the model's training.", "NAME")
    ] = None,
    data_root: Annotated[
        Path | None, o.data("Folder of annotated images.  Default: the dataset's own images.", "FOLDER")
    ] = None,
    pixel_range: o.Range = None,
    split: Annotated[
        str | None,
        o.data("Split.  Default: the second, which is for validation; all is a whole folder.", "NAME"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        o.data(
            "Options of the dataset, e.g. objects=3-5, or settings of the inversion, e.g. inference.low=0.02.",
            "KEY=VALUE",
            "--set",
        ),
    ] = None,
    limit: Annotated[int, o.data("Most images, or windows of large images.", "N", min=1)] = 100,
    penalty: o.Penalty = None,
    draws: o.Draws = None,
    seed: o.Seed = None,
    calibrate: Annotated[
        bool,
        o.model(
            "Fit the penalty (unless it is given), the confidence and what is typical to 16 images or more, and store them, and "
            "all settings of the inversion given here but the seed, in the model's folder.",
            None,
            "--calibrate",
        ),
    ] = False,
    device: o.Device = "auto",
    as_json: o.Json = False,
    worst: Annotated[
        Path | None, o.output("Draw the images with the most mistakes, as annotated and as found.", "FILE")
    ] = None,
    csv: Annotated[
        Path | None, o.output("Write a table with a row for each image, the most mistakes first.", "FILE")
    ] = None,
) -> None:
    """Evaluate a model on annotated images: what it finds, how many, and whether it is as sure as it is right.

    A concept is right if it matches an annotation as closely as the papers ask; for images of any size, as closely in
    pixels as in images of 96 pixels, which is 4.3.  What matches an annotation beyond a window's border is neither right
    nor wrong.  Calibration error is the expected calibration error of the confidences.
    """
    from igm_cli.api import load
    from igm_cli.commands.drawings import require_picture, save_picture
    from igm_cli.commands.exports import Export, is_own_table
    from igm_cli.commands.figures import draw
    from igm_cli.evaluation import Evaluation, in_words, numbers
    from igm_cli.plugins import registry
    from igm_cli.plugins.base import noted, validation_split

    need("train", "datasets")
    sink = Output.of_process(as_json)
    o.check_data_range(pixel_range, data_root)
    opened = load(model, concepts=concepts, device=device)
    folder = home_expanded(model or "")
    if calibrate and not (model and (folder / DESCRIPTION).is_file()):
        raise UsageError(
            "--calibrate changes a model's folder; name a folder of yours by --model, a copy if need be"
        )
    if calibrate:
        require_writable(folder / DESCRIPTION)
    table = Export("--csv", csv, lambda _: images_csv(evaluation, ranked), is_own_table) if csv else None
    if table:
        table.check()
    if worst:
        need("plots")
        require_picture(worst, "--worst")
    name = dataset or opened.dataset
    if not name:
        raise UsageError(f"the model {opened.name!r} does not say what it was trained on; give --dataset")
    adapter = registry.dataset(name, typed=dataset is not None)  # a file must not name code
    chosen = split or validation_split(adapter)
    options = o.parse_settings(settings or []) | ({} if pixel_range is None else {"range": pixel_range})
    of_inference = [key for key in options if key.startswith("inference.")]
    given = {key.removeprefix("inference."): options.pop(key) for key in of_inference}
    asked = {"penalty": penalty, "draws": draws, "seed": seed}
    given |= {name: value for name, value in asked.items() if value is not None}
    fitted: dict[str, Any] = {}
    with sink.progress() as progress:
        options |= {"data_root": data_root, "limit": None if opened.scale else limit}
        with naming_others(None if dataset else data_root, adapter.name, opened.parser.name):
            data = adapter.load(chosen, progress=progress, **noted(adapter, sink.note), **options)
        evaluation = Evaluation(opened, data, limit, progress, sink.note)
        if calibrate:
            fitted = evaluation.calibrated(progress, given)
            told = evaluation.keep(folder, fitted, name, chosen)
            sink.note(f"igm: {folder} is {told}: {in_words(fitted, opened.inference)}")
            opened.inference = {**opened.inference, **fitted}
        judged = evaluation.judge(given, progress)
    ranked = sorted(judged, key=lambda each: -each.mistakes)
    if table:
        table.write()
    if worst:
        mistaken = [each for each in ranked[:WORST] if each.mistakes] or ranked[:1]
        save_picture(draw(worst_images(evaluation, mistaken)), worst)
    if split is None and len(adapter.splits) < 2:
        sink.warn(
            f"{name} has no split but {chosen}, which is for training; figures on images not trained on may be worse"
        )
    show(judged, evaluation, {"dataset": name, "split": chosen}, numbers(fitted), sink)
    for path in filter(None, (worst, csv)):
        sink.say(f"wrote {path}")


@contextmanager
def naming_others(root: Path | None, name: str, concepts: str) -> Iterator[None]:
    """If the model's own dataset cannot read the user's folder, adds to the error which datasets can."""
    try:
        yield
    except InputError as error:
        others = readers(root, name, concepts) if root else []
        if not others:
            raise
        way_out = " or ".join(f"--dataset {other}" for other in others)
        raise InputError(f"{error}, or {way_out}, which reads this folder") from error


def readers(root: Path, name: str, concepts: str) -> list[str]:
    """Returns the other datasets with these default concepts that can read some image of a folder."""
    from igm_cli.plugins import registry

    found = []
    for listing in registry.listings("datasets"):
        with suppress(IgmError):
            other = registry.dataset(listing.name)
            for split in other.splits if other.name != name and other.concepts == concepts else ():
                with suppress(IgmError):
                    if listing.name not in found and len(other.load(split, data_root=root, limit=1)):
                        found.append(listing.name)
    return found


def show(
    judged: Sequence[Judged],
    evaluation: Evaluation,
    about: dict[str, str],
    fitted: dict[str, float],
    sink: Output,
) -> None:
    """Shows the figures of a model; ``about`` names the dataset and the split, and ``fitted`` are new settings."""
    from igm_cli.commands.show import unlike

    model = evaluation.model
    figures, errors = figures_of(judged, model.parser.space)
    record = {"schema": "igm.evaluate/1", "model": model.name, **about, **evaluation.counts}
    record["figures"] = {key.replace(" ", "_"): e._asdict() for key, e in figures.items()}
    record["calibration_error"] = {key.replace(" ", "_"): value for key, value in errors.items()}
    if fitted:
        record["fitted"] = fitted
    sink.result({**record, "seconds": sum(each.found.seconds for each in judged) / len(judged)})
    rows = [(key, percentage(e.value), _interval(e)) for key, e in figures.items()]
    rows += [(f"calibration error, {key}", percentage(value), "") for key, value in errors.items()]
    title = f"{model.name} on {evaluation.of} of {about['dataset']}, {about['split']}"
    sink.table(title, ("figure", "", "95 % interval"), rows)
    if "typical" in figures and not figures["typical"].value:
        most = max(each.found.typicality for each in judged if each.found.typicality == each.found.typicality)
        known = {"typicality": most}
        sink.warn(unlike("every image", model.name, known, "what was found", ", the most typical one too"))


def _interval(e: Estimate) -> str:
    return (
        "objects of one image give none"
        if math.isnan(e.low)
        else f"{percentage(e.low)} to {percentage(e.high)}"
    )


def images_csv(evaluation: Evaluation, judged: Sequence[Judged]) -> str:
    """Returns CSV with a row per image: what is annotated, found and right, and with what confidence."""
    from igm_cli.commands.exports import marked_csv

    columns = ("image", "annotated", "found", "right", "mistakes", "least_confidence", "typicality")
    rows = []
    for each in judged:
        sure, typical = each.found.confidence, each.found.typicality
        least = f"{float(sure.min()):.4f}" if len(sure) and sure.isfinite().all() else ""
        counts = map(str, (each.count, len(each.right), each.hits, each.mistakes))
        rows.append([evaluation.name(each), *counts, least, f"{typical:.4f}" if typical == typical else ""])
    return marked_csv(columns, rows)


def worst_images(evaluation: Evaluation, judged: Sequence[Judged]) -> PictureGrid:
    """Returns a grid of images as annotated and as found."""
    from igm_cli.benchmarks.suite import PictureGrid

    rows = []
    for each in judged:
        how = f"{each.hits} of {each.count} found, {len(each.right) - each.hits} wrong"
        rows.append((f"{evaluation.name(each)}: {how}", evaluation.pictures(each)))
    return PictureGrid("worst", "The images with most mistakes", ("annotated", "found"), rows)


def figures_of(judged: Sequence[Judged], space: ConceptSpace) -> tuple[dict[str, Estimate], dict[str, float]]:
    """Returns proportions with their intervals, and the expected calibration errors.

    Intervals are over images: windows of one image are not independent of each other.  For concepts with values, figures
    include the share of those in the right place whose value is right, per factor.
    """
    import torch

    from igm_cli.benchmarks.intervals import clustered_rate, proportion, rate
    from igm_cli.core.calibration import expected_calibration_error
    from igm_cli.core.inference.typicality import is_untypical

    images = [each.image for each in judged]
    cut = len(set(images)) < len(images) or len(images) == 1

    def by_image(numbers: Sequence[int]) -> list[int]:
        sums = dict.fromkeys(images, 0)
        for image, number in zip(images, numbers, strict=True):
            sums[image] += number
        return list(sums.values())

    def over(hits: Sequence[int], trials: Sequence[int]) -> Estimate:
        return clustered_rate(by_image(hits), by_image(trials)) if cut else rate(hits, trials)

    def share(hits: Sequence[bool | None]) -> Estimate:  # None is unknown
        known = [hit for hit in hits if hit is not None]
        return over([hit or 0 for hit in hits], [hit is not None for hit in hits]) if cut else proportion(known)

    found, true = [len(each.right) for each in judged], [each.count for each in judged]
    hits = [each.hits for each in judged]
    figures = {
        "true of those found": over(hits, found),
        "found of those true": over(hits, true),
        "all right": share([not each.mistakes for each in judged]),
    }
    if factors := getattr(getattr(space, "what", None), "factors", ()):
        placed = [int(each.right[:, 0].sum()) for each in judged]
        figures["place right of those found"] = over(placed, found)
        for place, factor in enumerate(factors, 1):
            so = [int(each.right[:, place].sum()) for each in judged]
            figures[f"{factor} right of those in place"] = over(so, placed)
    if space.countable:
        figures["number exact"] = share([f == t for f, t in zip(found, true, strict=True)])
    seen = [each.found.typicality for each in judged]
    figures["typical"] = share([None if math.isnan(value) else not is_untypical(value) for value in seen])
    figures = {name: e for name, e in figures.items() if not math.isnan(e.value)}  # nan of nothing
    values = [(each.found.values, each.right) for each in judged if each.found.values is not None]
    certain = {
        "concepts": [(each.found.confidence, each.right[:, 0]) for each in judged],
        "values": [(sure[right[:, 0]], right[right[:, 0], 1:]) for sure, right in values],
    }
    errors = {}
    for what, pairs in certain.items():
        sure, right = (torch.cat([torch.zeros(0), *(pair[i].flatten() for pair in pairs)]) for i in (0, 1))
        if len(sure) and sure.isfinite().all():  # a method may give no confidence
            errors[what] = expected_calibration_error(sure, right)
    return figures, errors
