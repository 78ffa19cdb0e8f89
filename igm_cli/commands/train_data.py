"""The data of a training: its parts are loaded, shown and told."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from igm_cli.commands.train_preset import DataPart, Preset
from igm_cli.errors import InputError, counted
from igm_cli.output import ProgressReport

if TYPE_CHECKING:
    import datasets
    import torch

    from igm_cli.core.training.batches import Samples
    from igm_cli.plugins.base import ConceptParser, DatasetAdapter, Note, Progress, RenderingAdapter


def load_part(
    adapter: DatasetAdapter, part: DataPart, root: Path | None, progress: Progress, note: Note
) -> datasets.Dataset:
    """The images of a part that are trained on."""
    return part.load(adapter, part.split or adapter.splits[0], part.limit, root, progress, note)


def told(samples: Samples, adapter: DatasetAdapter) -> str:
    """Returns what is trained on in words."""
    large = len(getattr(samples, "images", ()))
    what = (
        f"{counted(len(samples), 'crop')} of {counted(large, 'image')}"
        if large
        else counted(len(samples), "image")
    )
    return f"{what} of {adapter.name}"


def draw_samples(samples: Samples, parser: ConceptParser, path: Path, count: int = 12) -> None:
    """Writes a picture of some training samples with their concepts."""
    from igm_cli.commands.drawings import save_picture, sheet
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


def load_samples(
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
        data = known if known is not None else load_part(adapter, part, root, shown, note)
        if crops:
            loaded.append(CropSamples(data, parser, image_size, crops, seed, shown, note))
        else:
            loaded.append(DatasetSamples(data, parser, image_size, progress=shown))
    return loaded[0] if len(loaded) == 1 else JoinedSamples(loaded)


def validation_data(
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
