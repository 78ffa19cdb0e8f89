"""The image sets of the benchmark: the domain trained on and shifts of it, and the axis of cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from igm_cli.benchmarks.frame.images import Scenes, folder_of
from igm_cli.benchmarks.suite import Request
from igm_cli.plugins import registry
from igm_cli.plugins.base import ConceptParser

DATASET = "celeba"
DOMAIN = "female"
"""Trained on, as in the paper."""

DRAWN = 400  # faces of a drawn split, unless another limit is given
FACTORS = "factors"
COUNTS = (2, 3, 4, 6, 8, 10, 12)
"""Numbers of binary factors."""


@dataclass(frozen=True)
class Split:
    """One set of images.

    Attributes:
        about: One line.
        options: Of the dataset adapter.
        folder: Whether the images come from the given folder instead of being drawn.
    """

    about: str
    options: Mapping[str, Any]
    folder: bool = False


IMAGES: dict[str, Split] = {
    "folder-female": Split("female faces of --data-root", {"domain": "female"}, folder=True),
    "folder-male": Split("male faces of --data-root, never trained on", {"domain": "male"}, folder=True),
    "female": Split("drawn female faces", {"domain": "female"}),
    "male": Split("drawn male faces (short hair, beards), never trained on", {"domain": "male"}),
    "outlined": Split(
        "female faces drawn with outlines, never trained on", {"domain": "female", "style": "outlined"}
    ),
    "outlined-male": Split(
        "male faces drawn with outlines, never trained on", {"domain": "male", "style": "outlined"}
    ),
}

SPLITS: dict[str, str] = {
    **{name: split.about for name, split in IMAGES.items()},
    FACTORS: f"cost over the number of factors, {COUNTS[0]} to {COUNTS[-1]}: igm and enumerate",
}


def load_split(name: str, request: Request, image_size: tuple[int, int], parser: ConceptParser) -> Scenes:
    """The images of a split.

    Args:
        name: One of :data:`IMAGES`.
        request: Says the folder, how many, and the seed.
        image_size: (width, height) that models see.
        parser: Reads annotations.

    Raises:
        InputError: If the split needs a folder and there is none, or the images lack an attribute.
    """
    split, adapter = IMAGES[name], registry.dataset(DATASET)
    if split.folder:
        root = folder_of(request, name, "in the layout of CelebA")
        data = adapter.load("test", data_root=root, limit=request.limit, **split.options)
    else:
        data = adapter.load(
            "test", seed=request.seed, progress=request.progress, size=request.limit or DRAWN, **split.options
        )
    scenes = Scenes(data, parser, image_size)
    scenes[next(iter(scenes.rows))]  # attributes that the images lack are told before anything is trained
    return scenes
