"""Annotated images of a benchmark's split, and methods that look at one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from igm_cli.benchmarks.suite import Request, Row
from igm_cli.errors import InputError
from igm_cli.imaging import to_model, to_rgb
from igm_cli.plugins import registry
from igm_cli.plugins.base import ConceptParser, Frame

if TYPE_CHECKING:
    import datasets
    from PIL.Image import Image


def drawn_version(dataset: str) -> int:
    """The ``version`` of what a dataset adapter draws or renders itself; 0 where it says none.

    Records of other pictures must not be taken for those of these, though they have the same names.
    """
    return int(getattr(registry.dataset(dataset), "version", 0))


def portable(options: Mapping[str, Any], *free: str) -> dict[str, str]:
    """Options by which records are told apart: a path by its last part, so that a folder may move.

    Args:
        options: Of a suite.
        free: Names of those that may differ between two calls.
    """
    return {
        key: Path(str(value)).name if os.sep in str(value) else str(value)
        for key, value in options.items()
        if key not in free
    }


@dataclass(frozen=True)
class Scene:
    """One annotated image.

    Attributes:
        image: As given.
        frame: The part of it that models see.
        x0: That part ``[3,H,W]`` in -1..1.
        truth: Its concepts ``[L,D]``.
    """

    image: Image
    frame: Frame
    x0: Tensor
    truth: Tensor


@dataclass
class Scenes:
    """The images of one split, decoded when asked for.

    Attributes:
        data: The dataset.
        parser: Reads its annotations.
        image_size: (width, height) that models see.
    """

    data: datasets.Dataset
    parser: ConceptParser
    image_size: tuple[int, int]
    rows: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = {name: row for row, name in enumerate(self.data["file"])}

    def __getitem__(self, item: str) -> Scene:
        example = self.data[self.rows[item]]
        image = to_rgb(example["image"])
        width, height = self.image_size
        frame = Frame.fit(image.size, width / height)
        x0 = to_model(image, frame, self.image_size)
        return Scene(image, frame, x0, self.parser.parse(example, frame))


def folder_of(request: Request, split: str, what: str) -> Path:
    """The folder that a split is read from.

    Args:
        request: Says which.
        split: Name of the split.
        what: The folder holds, for the message.

    Raises:
        InputError: If there is none.
    """
    if request.data_root is None:
        raise InputError(f"the split {split} needs --data-root, a folder {what}")
    return request.data_root


@dataclass
class SceneMethod:
    """A method of scenes behind the protocol of a suite's: it looks up images and adds their truth.

    Attributes:
        scenes: Images of every split.
        method: From an image to rows.
        limit: Most images of a split.
        info: What the report says of it.
        told: From true concepts ``[L,D]`` to JSON as rows hold it.
    """

    scenes: Mapping[str, Scenes]
    method: Callable[[Scene], list[Row]]
    limit: int | None
    info: Mapping[str, Any]
    told: Callable[[Tensor], Any] = Tensor.tolist

    def __call__(self, split: str, item: str) -> list[Row]:
        """The rows of one image."""
        scene = self.scenes[split][item]
        return [{**row, "truth": self.told(scene.truth)} for row in self.method(scene)]
