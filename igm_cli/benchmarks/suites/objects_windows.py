"""The images of the suite ``objects``: whole photographs, and windows of them with few objects."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from igm_cli.benchmarks.frame import AnnotatedImage, AnnotatedImages
from igm_cli.benchmarks.points import border, within
from igm_cli.core.inference.tiles import scaled
from igm_cli.imaging import Frame, refuse_enlarged, to_model, to_rgb

if TYPE_CHECKING:
    import datasets

SLICES = {"1-6": (1, 6), "7-20": (7, 20), "21-60": (21, 60), "61-140": (61, 140), "whole": (0, 2**31)}
"""Splits by the minimum and maximum number of objects in an image."""

MOST = 4
"""Maximum number of windows per photograph and split."""

TRIES = 400
"""Places tried for these windows."""

Box: TypeAlias = "tuple[int, int, int, int]"
"""Left, top, right and lower side in pixels of the photograph."""


@dataclass(frozen=True)
class Sight:
    """How a model sees images of any size."""

    scale: float  # pixels it sees per pixel of the image
    unit: int  # divisor of the sides of its input
    least: tuple[int, int]  # width and height of its training crops, in pixels of its input

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the size of its input for an image of a size (width, height), as in a session."""
        refuse_enlarged(size, self.scale, "a photograph", "scale of the model")
        return scaled(size, self.scale, self.unit)

    def side(self, length: float, axis: int) -> int:
        """Returns the length near to ``length`` that needs no squeezing, at least that of a training crop."""
        units = max(math.ceil(self.least[axis] / self.unit), round(length * self.scale / self.unit))
        return round(units * self.unit / self.scale)


class Bands(NamedTuple):
    """Widths of the bands along the sides of an image in which nothing counts, in pixels."""

    cut: float  # along sides that cut the photograph
    own: float = 0.0  # along sides of the photograph


class Scene(NamedTuple):
    """One image given to methods."""

    picture: AnnotatedImage  # its frame is all of it; its concepts are the objects whose centres lie in it
    points: Tensor  # centres of the objects in pixels [L,2]
    ignored: Tensor  # boxes in which nothing counts, in pixels [R,4]
    photograph: str  # file from which it was cut


def regions(box: Box, size: tuple[int, int], ignored: Sequence[Sequence[float]], bands: Bands) -> Tensor:
    """Returns the regions of a window in which nothing counts, boxes ``[R,4]`` in pixels of the window.

    These are the photograph's own regions to ignore, and the bands along the sides.
    """
    left, top, right, bottom = box
    sides = (left > 0, top > 0, right < size[0], bottom < size[1])
    widths = [bands.cut if cut else bands.own for cut in sides]
    own = torch.tensor(ignored).reshape(-1, 4) - torch.tensor([left, top, left, top])
    return torch.cat([own, border((right - left, bottom - top), widths)])


def cut(
    size: tuple[int, int],
    centres: Tensor,
    ignored: Sequence[Sequence[float]],
    counts: tuple[int, int],
    sight: Sight,
    bands: Bands,
    chance: random.Random,
) -> list[Box]:
    """Returns the whole photograph if its number of objects that count is in range; if it has more, disjoint windows.

    The photograph has a ``size`` (width, height), ``centres [L,2]`` of objects and regions to ignore, see :func:`regions`;
    ``counts`` are the minimum and maximum number of objects.  Windows are no smaller than training crops, have sizes that
    need no squeezing, and lie at random places.
    """

    def held(box: Box) -> int:
        inside = within(centres, torch.tensor([box]).float())
        beside = within(centres - torch.tensor(box[:2]), regions(box, size, ignored, bands))
        return int((inside & ~beside).sum())

    whole = (0, 0, *size)
    if held(whole) <= counts[1]:
        return [whole] if held(whole) >= counts[0] else []
    found: list[Box] = []
    for _ in range(TRIES):
        area = chance.randint(*counts) * math.prod(size) / len(centres)
        width = min(size[0], sight.side(math.sqrt(area) + 2 * bands.cut, 0))
        height = min(size[1], sight.side(area / width + 2 * bands.cut, 1))
        left, top = chance.randint(0, size[0] - width), chance.randint(0, size[1] - height)
        box = (left, top, left + width, top + height)
        if counts[0] <= held(box) <= counts[1] and not any(_meet(box, other) for other in found):
            found.append(box)
            if len(found) == MOST:
                break
    return found


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@dataclass
class Windows(AnnotatedImages):
    """The images of one split, whole or cut out by their number of objects, decoded on access.

    The first windows of all photographs come first, then the second ones; a limit leaves out the last.
    """

    name: str  # of the split; with the seed it determines where windows lie
    sight: Sight
    bands: Bands
    seed: int
    limit: int | None
    boxes: dict[str, Box] = field(init=False)

    def __post_init__(self) -> None:
        turns: list[tuple[int, int, str, Box]] = []
        for row, example in enumerate(self.data.remove_columns("image")):
            chance = random.Random(f"{self.seed} {self.name} {example['file']}")
            size = example["width"], example["height"]
            how = (_ignored(example), SLICES[self.name], self.sight, self.bands, chance)
            for turn, box in enumerate(cut(size, centres_of(example), *how)):
                corner = (
                    "" if box == (0, 0, *size) else f" {box[2] - box[0]}x{box[3] - box[1]}+{box[0]}+{box[1]}"
                )
                turns.append((turn, row, f"{example['file']}{corner}", box))
        chosen = sorted(turns)[: self.limit]
        self.rows = {item: row for _, row, item, _ in chosen}
        self.boxes = {item: box for _, _, item, box in chosen}

    def __getitem__(self, item: str) -> AnnotatedImage:
        return self.scene(item).picture

    def scene(self, item: str) -> Scene:
        """Returns an image with its annotations."""
        example, box = self.data[self.rows[item]], self.boxes[item]
        photograph = to_rgb(example["image"])
        image = photograph.crop(box)
        frame = Frame.fit(image.size, 1.0, "squash")
        truth = self.parser.parse(example, Frame(photograph.size, tuple(map(float, box))))  # type: ignore[arg-type]
        picture = AnnotatedImage(
            image, frame, to_model(image, frame, self.sight.size(image.size)), truth, example
        )
        where = regions(box, photograph.size, _ignored(example), self.bands)
        points = truth[:, :2].cpu() * torch.tensor(image.size)
        return Scene(picture, points, where, example["file"])


def centres_of(example: Mapping[str, Any]) -> Tensor:
    """Returns the centres of the objects of an example ``[L,2]`` in pixels."""
    return torch.tensor([thing["pixel_coords"][:2] for thing in example["objects"]]).reshape(-1, 2)


def typical_radius(data: datasets.Dataset) -> float:
    """Returns half of a typical object's radius in pixels: a quarter of the median distance of nearest neighbours.

    It is nan if no image has two objects.
    """
    nearest = [math.nan]
    for example in data.remove_columns("image"):
        centres = centres_of(example)
        if len(centres) > 1:
            apart = torch.cdist(centres, centres).fill_diagonal_(math.inf)
            nearest += apart.amin(1).tolist()
    return float(torch.tensor(nearest).nanmedian()) / 4


def _ignored(example: Mapping[str, Any]) -> Sequence[Sequence[float]]:
    return example.get("ignored") or []
