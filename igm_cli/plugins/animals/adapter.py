"""Dataset ``animals``: scenes of one to three animals, composed of pictograms."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from igm_cli.core.names import names_option
from igm_cli.errors import InputError, UsageError
from igm_cli.folders import content_of
from igm_cli.plugins.adapters import Adapter, Dataset, Generator, SplitRequest, choice, generated, number_range
from igm_cli.plugins.animals.pictograms import Drawings, Pictograms
from igm_cli.plugins.animals.scenes import MAX_ANIMALS, NOTHING, compose_scene

SIDE = 64


class Animals(Adapter):
    """Scenes of animals at random places, scales and angles in front of random backdrops, partly hidden.

    The columns of a split are ``image``, ``file`` and ``labels`` (the animals, from the back to the front).
    """

    name = "animals"
    summary = "scenes of one to three animals, of our own drawings or of pictograms given"
    licence = "pictograms given: as they are"
    own_licence = "our own drawings: as this project (MIT)"
    source = (
        "pictograms as STYLE/ANIMAL/*.png with transparent surroundings, such as emoji of npm's @iconify-json"
    )
    image_size = (SIDE, SIDE)
    concepts = "labels"
    options: Mapping[str, str] = {
        "styles": "comma list of drawing styles, or of folders of pictograms in the data root (default: all)",
        "without": "comma list of styles left out where they are, to be kept unseen",
        "animals": "comma list of the animals that occur (default: all there are)",
        "count": "how many animals are in a scene: a number or a range such as 1-3 (default); of 0 the label is nothing",
        "jitter": "whether pictograms are redrawn and colours changed at random: on or off (default: on for train)",
        "size": "how many scenes to compose",
    }
    sizes: Mapping[str, int] = {"train": 30000, "val": 400, "test": 400}
    version = 6

    def make(self, request: SplitRequest) -> Dataset:
        """Returns scenes of igm's own drawings."""
        return self._scenes(request, None)

    def read(self, root: Path, request: SplitRequest) -> Dataset:
        """Returns scenes of the pictograms in a folder."""
        return self._scenes(request, root)

    def _scenes(self, request: SplitRequest, root: Path | None) -> Dataset:
        options = request.options
        given = {name: names_option(name, options.get(name)) for name in ("styles", "without", "animals")}
        styles, without = given["styles"], given["without"]
        source = _source(root, styles, without)
        animals = given["animals"] or source.animals
        for animal in animals:
            choice("animal", animal, source.animals)
        least, most = _count(options.get("count"), len(animals))
        kwargs = {
            "root": None if root is None else str(root.resolve()),
            "content": "" if root is None else content_of(root),
            "styles": styles,  # tuples: `datasets` would make shards of lists
            "without": without,
            "animals": animals,
            "least": least,
            "most": most,
            "jitter": _switch("jitter", options.get("jitter", "on" if request.split == "train" else "off")),
            **self.requested(request),
        }
        return generated(
            _Scenes(request.progress), {"image": "image", "file": "string", "labels": ["string"]}, kwargs
        )


def _source(root: Path | None, styles: Sequence[str], without: Sequence[str]) -> Drawings | Pictograms:
    """Returns the source of animal pictures: a folder, or igm's own drawings."""
    return Drawings(styles, without) if root is None else Pictograms(root, styles, without)


class _Scenes(Generator):
    def __call__(
        self,
        root: str | None,
        content: str,
        styles: tuple[str, ...],
        without: tuple[str, ...],
        animals: tuple[str, ...],
        least: int,
        most: int,
        jitter: bool,
        count: int,
        seed: int,
        version: int,
    ) -> Iterator[dict[str, Any]]:
        source = _source(None if root is None else Path(root), styles, without)
        for index in range(count):
            rng = random.Random(f"{seed} {index}")
            labels = rng.sample(animals, rng.randint(least, most))
            scene = compose_scene(labels, source.draw, rng, size=SIDE, jitter=jitter)
            self.report("composing scenes", index, count)
            yield {"image": scene, "file": f"scene_{index:06d}.png", "labels": labels or [NOTHING]}


def _count(text: Any, animals: int) -> tuple[int, int]:
    low, high = number_range("count", text, least=0) or (1, MAX_ANIMALS)
    if high > MAX_ANIMALS:
        raise UsageError(f"count must lie between 0 and {MAX_ANIMALS}, not {text}")
    if high > animals:
        raise InputError(f"scenes of {high} different animals need as many to choose from, not {animals}")
    return low, high


def _switch(option: str, value: Any) -> bool:
    if value not in (True, False, "on", "off"):
        raise UsageError(f"{option} must be on or off, not {value!r}")
    return value in (True, "on")
