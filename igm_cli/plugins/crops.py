"""Training on parts of large images: random crops with few objects, from images with many."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from igm_cli.core.validation import Positive, Share, validated
from igm_cli.errors import InputError, counted
from igm_cli.imaging import Frame, cut_out, refuse_enlarged, to_rgb
from igm_cli.plugins.base import ConceptParser, Note, Progress
from igm_cli.plugins.samples import pad

if TYPE_CHECKING:
    import datasets

TRIES = 400
"""Places tried for a crop before giving up."""


@validated("option of [crops]")
class Crops:
    """How crops are cut.

    Attributes:
        scale: Pixels of a crop per pixel of the image.
        most: Most objects visible in a crop.
        margin: Pixels beyond a crop's border up to which objects with their centre there still show in part.
        count: Crops per epoch; each is cut on request, and is the same every time.
        turns: Whether crops are turned by quarters, for images without an upper side.
        brightness: Largest change of brightness and of contrast, as a proportion of the range.
    """

    scale: Annotated[float, Field(ge=0.001, le=100)] = 1.0
    most: Positive = 6
    margin: Annotated[int, Field(ge=0, le=2**14)] = 0
    count: Positive = 100_000
    turns: bool = False
    brightness: Share = 0.0


@dataclass(frozen=True)
class Crop:
    """The image and box of a crop, and its changes.

    Attributes:
        row: Index of the image.
        box: Its left, top, right and lower side in pixels of the scaled image.
        turn: Quarter turns.
        gain: Factor of its contrast.
        shift: Added to its values, which are 0..255.
    """

    row: int
    box: tuple[int, int, int, int]
    turn: int
    gain: float
    shift: float


@dataclass(frozen=True)
class _Large:
    """An image to cut from: its pixels ``[3,H,W]`` as the model sees them, and its annotations."""

    pixels: Tensor
    size: tuple[int, int]
    example: Mapping[str, Any]
    centres: Tensor  # of its objects, in scaled pixels [L,2]
    ignored: Tensor  # boxes that no crop may overlap, in scaled pixels [R,4]


class CropSamples:
    """Crops of the images of a dataset, whose rows have ``objects`` with ``pixel_coords``, and may have ``ignored`` boxes.

    Implements :class:`igm_cli.core.training.batches.Samples`.  Images are kept as bytes at the scale of the crops.

    Args:
        dataset: The images, with columns that the parser reads.
        parser: The concept parser.
        image_size: Width and height of a crop.
        crops: How they are cut.
        seed: Seed of the crops.
        progress: Called while images are read.
        note: Receives a sentence about images that are too small.

    Raises:
        InputError: If no image is as large as a crop, or no crop holds few enough objects.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        parser: ConceptParser,
        image_size: tuple[int, int],
        crops: Crops,
        seed: int,
        progress: Progress | None = None,
        note: Note = lambda text: None,
    ) -> None:
        self.parser, self.image_size, self.crops, self.seed = parser, image_size, crops, seed
        self.images: list[_Large] = []
        for row, example in enumerate(dataset):
            image = to_rgb(example["image"])
            size = round(image.width * crops.scale), round(image.height * crops.scale)
            refuse_enlarged(image.size, crops.scale, str(example.get("file") or f"image {row}"), "crops.scale")
            if _holds(size, image_size) or (crops.turns and _holds(size, image_size[::-1])):
                self.images.append(_read(image, size, example))
            if progress:
                progress("reading images", row + 1, len(dataset))
        if small := len(dataset) - len(self.images):
            width, height = (round(side / crops.scale) for side in image_size)
            are = "is" if small == 1 else "are"
            says = f"{small} of {counted(len(dataset), 'image')} {are} smaller than a crop of {width}×{height} pixels"
            if not self.images:
                raise InputError(f"{says}; raise crops.scale, or lower model.image_size")
            note(f"{says}, and {are} left out")
        if not self.images:
            raise InputError("the data hold no image to train on; check --data-root and --limit")
        areas = (image.pixels[0].numel() for image in self.images)
        self.areas = list(itertools.accumulate(areas))

    def __len__(self) -> int:
        return self.crops.count

    def crop(self, index: int) -> Crop:
        """Returns the crop of an index, always the same.

        Raises:
            InputError: If no place holds few enough objects.
        """
        chance = random.Random(f"{self.seed} {index}")
        for _ in range(TRIES):
            row = chance.choices(range(len(self.images)), cum_weights=self.areas)[0]
            image = self.images[row]
            turn = chance.randrange(4) if self.crops.turns else 0
            width, height = self.image_size[::-1] if turn % 2 else self.image_size
            high, wide = image.pixels.shape[1:]
            if not _holds((wide, high), (width, height)):
                continue
            left, top = chance.randint(0, wide - width), chance.randint(0, high - height)
            box = (left, top, left + width, top + height)
            seen = int(_within(image.centres, box, self.crops.margin).sum())
            if seen <= self.crops.most and not _meets(image.ignored, box):
                gain, shift = (chance.uniform(-self.crops.brightness, self.crops.brightness) for _ in "ab")
                return Crop(row, box, turn, 1 + gain, 255 * shift)
        width, height = (round(side / self.crops.scale) for side in self.image_size)
        beside = " beside the regions to ignore" if any(len(image.ignored) for image in self.images) else ""
        raise InputError(
            f"hardly any crop of {width}×{height} pixels{beside} holds {counted(self.crops.most, 'object')} or fewer; "
            "lower model.image_size, or raise crops.most"
        )

    def cut(self, crop: Crop) -> tuple[Tensor, Tensor]:
        """Returns a crop as bytes ``[3,H,W]``, and its concepts ``[K,D]`` in its frame."""
        image, (left, top, right, bottom) = self.images[crop.row], crop.box
        pixels = image.pixels[:, top:bottom, left:right].rot90(crop.turn, (1, 2))
        if (crop.gain, crop.shift) != (1.0, 0.0):
            changed = (pixels.float() - 127.5) * crop.gain + (127.5 + crop.shift)
            pixels = changed.round().clamp(0, 255).to(torch.uint8)
        high, wide = image.pixels.shape[1:]
        across, down = image.size[0] / wide, image.size[1] / high
        margin = self.crops.margin
        frame = Frame(
            image.size,
            (left * across, top * down, right * across, bottom * down),
            (margin * across, margin * down),
        )
        near = _within(image.centres, crop.box, margin + 1).nonzero()[:, 0].tolist()
        shown = {**image.example, "objects": [image.example["objects"][i] for i in near]}
        concepts = self.parser.parse(shown, frame)
        for _ in range(crop.turn):
            concepts = self.parser.turn(concepts)  # type: ignore[attr-defined]
        return pixels, concepts

    def batch(self, indices: Sequence[int], flips: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns images ``[B,3,H,W]`` as bytes, concepts ``[B,K,D]``, presence ``[B,K]``."""
        images, rows = [], []
        for index, flip in zip(indices, flips, strict=True):
            pixels, concepts = self.cut(self.crop(index))
            images.append(pixels.flip(-1) if flip else pixels)
            rows.append(self.parser.mirror(concepts) if flip else concepts)
        return torch.stack(images), *pad(rows)


def _read(image: Any, size: tuple[int, int], example: Mapping[str, Any]) -> _Large:
    """Returns an image to cut from, at a size."""
    whole = Frame(image.size, (0.0, 0.0, float(image.width), float(image.height)))
    scale = torch.tensor([size[0] / image.width, size[1] / image.height])
    centres = torch.tensor([thing["pixel_coords"][:2] for thing in example["objects"]]).reshape(-1, 2) * scale
    ignored = torch.tensor(example.get("ignored") or []).reshape(-1, 4) * scale.repeat(2)
    pixels = cut_out(image, whole, size)
    return _Large(pixels, image.size, {k: v for k, v in example.items() if k != "image"}, centres, ignored)


def _holds(size: tuple[int, int], crop: tuple[int, int]) -> bool:
    return size[0] >= crop[0] and size[1] >= crop[1]


def _within(centres: Tensor, box: tuple[int, int, int, int], margin: float) -> Tensor:
    """Returns which centres ``[L,2]`` are in a box or within ``margin`` of it ``[L]``."""
    low, high = torch.tensor(box[:2]) - margin, torch.tensor(box[2:]) + margin
    return ((centres >= low) & (centres <= high)).all(1)


def _meets(boxes: Tensor, box: tuple[int, int, int, int]) -> bool:
    """Returns whether any of the boxes ``[R,4]`` overlaps a box."""
    low, high = torch.tensor(box[:2]), torch.tensor(box[2:])
    return bool(((boxes[:, :2] < high) & (boxes[:, 2:] > low)).all(1).any())
