"""Loads, shows and describes the parts of the training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from igm_cli.commands.drawings import save_picture, sheet
from igm_cli.commands.train_preset import DataPart, Preset, Recipe
from igm_cli.core.training.batches import Samples, as_floats
from igm_cli.errors import InputError, counted
from igm_cli.imaging import Frame, from_model
from igm_cli.output import Output, ProgressReport
from igm_cli.plugins.base import (
    Advice,
    AdvisingAdapter,
    AdvisingParser,
    ConceptParser,
    DatasetAdapter,
    Note,
    RenderingAdapter,
    validation_split,
)
from igm_cli.plugins.crops import CropSamples
from igm_cli.plugins.doubts import LOOKED_AT, doubts
from igm_cli.plugins.samples import DatasetSamples, JoinedSamples, RenderedSamples

if TYPE_CHECKING:
    import datasets

    from igm_cli.plugins.adapters import Adapter


@dataclass
class TrainingData:
    """The parts of a dataset used in training."""

    adapter: DatasetAdapter
    parts: Sequence[DataPart]  # the parts
    root: Path | None  # folder of the real data
    note: Note  # receives problems found
    # the images of the first part, if they were read before training starts
    first: datasets.Dataset | None = None
    few: bool = False  # of the images that the dataset makes, only the first ones are made
    left_out: int = 0  # how many images that leaves out

    def advised(self, recipe: Recipe, parser: ConceptParser, sink: Output, *, count: bool) -> Recipe:
        """Returns the recipe with the dataset's advice for its images, which are read for this.

        With ``count``, the number of images in every split is reported, and what is amiss in them.
        """
        if not hasattr(self.adapter, "advise"):
            return recipe
        with sink.progress() as progress:
            self.first = self.parts[0].load(self.adapter, self.root, progress, self.note)
        preset = recipe.preset()
        advice = cast("AdvisingAdapter", self.adapter).advise(self.first, asdict(preset))
        concepts, advising = Advice({}, ()), hasattr(parser, "advise")
        told = {"note": self.note} if count else {}
        known = {self.parts[0].split or self.adapter.splits[0]: self.first}
        if advising or count:  # other splits may have further values
            for split in self.adapter.splits:
                if split not in known:
                    other = replace(self.parts[0], split=split)
                    with suppress(InputError), sink.progress() as progress:
                        known[split] = other.load(self.adapter, self.root, progress, **told)
        if count:
            counts = (f"{len(known.get(split, ()))} in {split}" for split in self.adapter.splits)
            self.note(f"usable images: {', '.join(counts)}")
        if advising:
            concepts = cast("AdvisingParser", parser).advise(list(known.values()), preset.concepts)
        for reason in (*advice.reasons, *concepts.reasons):
            self.note(reason)
        return replace(recipe, advised={**advice.tables, **concepts.tables})

    def samples(
        self,
        parser: ConceptParser,
        preset: Preset,
        image_size: tuple[int, int],
        device: torch.device,
        progress: ProgressReport,
    ) -> Samples:
        """Returns all parts with a parser's concepts, cropped if the preset says so; a GPU renders those that it can."""
        adapter, crops, seed = self.adapter, preset.cut(), preset.config().seed
        own_size = image_size == adapter.image_size
        renders = not crops and device.type == "cuda" and hasattr(adapter, "render") and own_size

        def show(number: int, what: str, done: int, total: int) -> None:
            several = len(self.parts) > 1
            progress(f"{what} ({number} of {len(self.parts)})" if several else what, done, total)

        loaded: list[Samples] = []
        self.left_out = 0
        for number, part in enumerate(self.parts, 1):
            shown = partial(show, number)
            if renders and part.data_root == "builtin":
                rendering = cast("RenderingAdapter", adapter)
                loaded.append(RenderedSamples(part.render(rendering, device, shown), parser))
                continue
            known = self.first if number == 1 else None
            makes = part.data_root == "builtin" and hasattr(adapter, "requested")
            few = self.few and makes and known is None and not crops
            asked = replace(part, limit=min(LOOKED_AT, part.limit or LOOKED_AT)) if few else part
            data = known if known is not None else asked.load(adapter, self.root, shown, self.note)
            if few:
                self.left_out += part.count(cast("Adapter", adapter)) - len(data)
            if crops:
                loaded.append(CropSamples(data, parser, image_size, crops, seed, shown, self.note))
            else:
                loaded.append(DatasetSamples(data, parser, image_size, progress=shown))
        return loaded[0] if len(loaded) == 1 else JoinedSamples(loaded)

    def validation(self, count: int) -> datasets.Dataset | None:
        """Returns a few images of the second split; None, which is noted, if there are none in it or in the given folder."""
        part = replace(self.parts[0], split=validation_split(self.adapter), limit=count)
        try:
            found = part.load(self.adapter, self.root, None, self.note)
            if len(found):
                return found
            why = f"{self.adapter.name} has no images in {part.split}"
        except InputError as error:
            if part.data_root == "builtin":
                raise
            why = str(error)
        self.note(f"training goes on without validation and calibration: {why}")
        return None

    def doubts(self, samples: Samples, parser: ConceptParser) -> Iterator[str]:
        """Yields what looks wrong in the first samples."""
        first = list(range(min(LOOKED_AT, len(samples))))
        images, concepts, present = samples.batch(first, [False] * len(first))
        rows = [some[there] for some, there in zip(concepts, present, strict=True)]
        yield from doubts(parser, rows, (images.shape[-1], images.shape[-2]))

    def told(self, samples: Samples) -> str:
        """Describes the training data in words."""
        large, whole = len(getattr(samples, "images", ())), len(samples) + self.left_out
        crops = f"{counted(len(samples), 'crop')} of {counted(large, 'image')}"
        return f"{crops if large else counted(whole, 'image')} of {self.adapter.name}"

    def settings(self, recipe: Recipe) -> list[tuple[str, str, str]]:
        """Returns every setting of every part, in the words of a preset: its name, value and origin."""
        rows = []
        for number, part in enumerate(self.parts):
            name = "data" if len(self.parts) == 1 else f"data[{number}]"
            for key in ("data_root", "split", "limit", "seed"):
                value = getattr(part, key)
                rows.append((f"{name}.{key}", "" if value is None else str(value), ""))
            for key in self.adapter.options:
                given = key in part.options
                who = recipe.origin("data", key) if given else "default"
                rows.append((f"{name}.{key}", str(part.options[key]) if given else "", who))
        return rows


def draw_samples(samples: Samples, parser: ConceptParser, path: Path) -> None:
    """Writes a picture of twelve training samples with their concepts."""
    rows = list(range(min(12, len(samples))))
    images, concepts, present = samples.batch(rows, [False] * len(rows))
    pictures = []
    for image, some, there in zip(as_floats(images), concepts, present, strict=True):
        picture = from_model(image)
        items = parser.decode(some[there], Frame.fit(picture.size, picture.width / picture.height))
        pictures.append(parser.draw(picture, items))
    save_picture(sheet(pictures), path)
