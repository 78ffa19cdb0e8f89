"""Dataset ``animals``: scenes of one to three animals, composed of pictograms."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import InputError, UsageError, need
from igm_cli.plugins.animals.pictograms import Drawings, Pictograms
from igm_cli.plugins.animals.scenes import MAX_ANIMALS, compose_scene
from igm_cli.plugins.base import Progress
from igm_cli.plugins.choices import check_choice, check_request, image_count, preset_files
from igm_cli.plugins.generated import SPLIT_SEEDS, Generator, generated

if TYPE_CHECKING:
    import datasets

_SIZES = {"train": 30000, "val": 400, "test": 400}

SIDE = 64

_OPTIONS = {
    "styles": "comma list of drawing styles, or of folders of pictograms in the data root (default: all)",
    "without": "comma list of styles left out where they are, to be kept unseen",
    "animals": "comma list of the animals that occur (default: all there are)",
    "count": "how many a scene: a number or a range such as 1-3 (default)",
    "jitter": "whether pictograms are redrawn and colours changed at random: on or off (default: on for train)",
    "size": "how many scenes to compose",
}


class Animals:
    """Scenes of animals at random places, scales and angles before random backdrops, partly hidden."""

    name = "animals"
    summary = "scenes of one to three animals, of our own drawings or of pictograms given"
    licence = "our own drawings: as this project (MIT); pictograms: as they are"
    source = (
        "pictograms as STYLE/ANIMAL/*.png with transparent surroundings, such as emoji of npm's @iconify-json"
    )
    splits = ("train", "val", "test")
    image_size = (SIDE, SIDE)
    concepts = "labels"
    options: Mapping[str, str] = _OPTIONS
    version = 5
    """Raise it whenever scenes change, so that caches are composed anew."""

    @property
    def presets(self) -> Mapping[str, Path]:
        """The TOML files beside this module."""
        return preset_files(Path(__file__).parent)

    def load(
        self,
        split: str,
        *,
        data_root: Path | None = None,
        limit: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> datasets.Dataset:
        """A split with columns ``image``, ``file`` and ``labels`` (what is in it, from the back to the front).

        Raises:
            UsageError: If the split or an option is unknown.
            InputError: If the folder holds no pictograms.
        """
        need("train", "datasets")
        import datasets

        check_request(self.name, split, self.splits, options, _OPTIONS)
        size = image_count(options.get("size", _SIZES[split]))
        styles = _names(options.get("styles", ""))
        without = _names(options.get("without", ""))
        source = _source(data_root, styles, without)
        animals = _names(options.get("animals", "")) or source.animals
        for animal in animals:
            check_choice("animal", animal, source.animals)
        least, most = _count(options.get("count", f"1-{MAX_ANIMALS}"), len(animals))
        features = datasets.Features(
            {
                "image": datasets.Image(),
                "file": datasets.Value("string"),
                "labels": datasets.Sequence(datasets.Value("string")),
            }
        )
        kwargs = {
            "root": None if data_root is None else str(data_root.resolve()),
            "styles": styles,  # tuples: of lists `datasets` would make shards
            "without": without,
            "animals": animals,
            "least": least,
            "most": most,
            "jitter": _switch("jitter", options.get("jitter", "on" if split == "train" else "off")),
            "count": min(size, limit) if limit else size,
            "seed": seed + SPLIT_SEEDS[split],
            "version": self.version,
        }
        return generated(_Scenes(progress), features, kwargs)


def _source(root: Path | None, styles: Sequence[str], without: Sequence[str]) -> Drawings | Pictograms:
    """Where pictures of animals come from: a folder, or our own drawings."""
    return Drawings(styles, without) if root is None else Pictograms(root, styles, without)


class _Scenes(Generator):
    """Composes scenes."""

    def __call__(
        self,
        root: str | None,
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
            yield {"image": scene, "file": f"scene_{index:06d}.png", "labels": labels}


def _names(text: Any) -> tuple[str, ...]:
    """A comma list, or a list already."""
    parts = text.split(",") if isinstance(text, str) else text
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _count(text: Any, animals: int) -> tuple[int, int]:
    least, dash, most = str(text).partition("-")
    try:
        low, high = int(least), int(most if dash else least)
    except ValueError as error:
        raise UsageError(f"count must be a number such as 2 or a range such as 1-3, not {text!r}") from error
    if not 1 <= low <= high <= MAX_ANIMALS:
        raise UsageError(f"count must lie between 1 and {MAX_ANIMALS}, not {text}")
    if high > animals:
        raise InputError(f"scenes of {high} different animals need as many to choose from, not {animals}")
    return low, high


def _switch(option: str, value: Any) -> bool:
    if value in (True, False):
        return bool(value)
    if value not in ("on", "off"):
        raise UsageError(f"{option} must be on or off, not {value!r}")
    return bool(value == "on")
