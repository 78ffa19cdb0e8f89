"""Concept parser ``pos``: objects by where they are in the image."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from igm_cli.core.concepts import Continuous
from igm_cli.errors import InputError, UnknownConceptError, UsageError, counted

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from igm_cli.plugins.base import Frame

ANYWHERE = ((0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95))
"""Corners of the area for random places, if a model does not say."""

TRIES = 400
"""Most places, over all sets tried, before giving up."""

_PLACE = re.compile(r"pos\s*\(([^,()]*),([^,()]*)\)")
_SOME = re.compile(r"(\d+)(?:\s*-\s*(\d+))? pos")


class Positions:
    """Object centres, x to the right and y down, 0..1 of the frame the model sees."""

    name = "pos"
    summary = "object positions in the image"
    space = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True)
    options: Mapping[str, str] = {
        "region": "corners [[x, y], ...] of the convex area in which igm generate draws places at random, 0..1",
        "distance": "least distance of places drawn at random, in 0..1 (default 0.1)",
    }

    def __init__(self, region: Sequence[Sequence[float]] = ANYWHERE, distance: float = 0.1) -> None:
        if not isinstance(distance, int | float):
            raise ValueError(f"the distance must be a number, not {distance!r}")
        self.region, self.distance = torch.tensor(region, dtype=torch.float64), float(distance)
        if self.region.dim() != 2 or self.region.shape[1] != 2 or len(self.region) < 3 or self.distance < 0:
            raise ValueError("a region is three corners (x, y) or more, and a distance is 0 or more")

    def configured(self, options: Mapping[str, Any]) -> Positions:
        """Returns a parser that draws places elsewhere."""
        try:
            return Positions(**options)
        except (TypeError, ValueError) as error:
            raise InputError(f"the options of concepts pos cannot be used: {error}") from error

    def parse(self, example: Mapping[str, Any], frame: Frame) -> Tensor:
        """Returns ``pixel_coords`` of the example's objects as ``[K,2]``; those beyond the frame's margin are left out."""
        try:
            pixels = [[float(o["pixel_coords"][i]) for i in (0, 1)] for o in example["objects"]]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(
                "concepts pos need 'objects' with 'pixel_coords' of x and y; this dataset has none"
            ) from error
        width, height = frame.size
        for x, y in pixels:  # the centre of an object may be somewhat outside its image, but not by half a side
            if not (-width / 2 <= x <= 1.5 * width and -height / 2 <= y <= 1.5 * height):
                raise InputError(
                    f"pixel_coords ({x:g}, {y:g}) lie outside their {width}×{height} image; "
                    "the scenes file belongs to images of another size"
                )
        concepts = _to_frame(torch.tensor(pixels, dtype=torch.float32).reshape(-1, 2), frame)
        left, top, right, bottom = frame.box
        margin = torch.tensor(frame.margin) / torch.tensor([right - left, bottom - top])
        inside = ((concepts >= -margin) & (concepts <= 1 + margin)).all(dim=1)
        return concepts[inside]

    def encode(self, items: Sequence[Mapping[str, Any]], frame: Frame) -> Tensor:
        """Returns items with ``x``, ``y`` (0..1 of the image as given) as ``[K,2]`` in the frame."""
        points = torch.tensor([[item["x"], item["y"]] for item in items], dtype=torch.float64)
        pixels = points.reshape(-1, 2) * torch.tensor(frame.size, dtype=torch.float64)
        return _to_frame(pixels, frame).float()

    def decode(self, concepts: Tensor, frame: Frame) -> list[dict[str, Any]]:
        """Returns ``[K,2]`` in the frame as items on the image as given."""
        left, top, right, bottom = frame.box
        scale = torch.tensor([right - left, bottom - top], dtype=torch.float64)
        pixels = concepts.double().cpu() * scale + torch.tensor([left, top], dtype=torch.float64)
        width, height = frame.size
        return [{"x": x / width, "y": y / height, "x_px": x, "y_px": y} for x, y in pixels.tolist()]

    def ask(self, text: str, random: torch.Generator, beside: Tensor) -> Tensor:
        """Returns the place of ``pos(x,y)`` ``[1,2]``, or random places for ``3 pos`` and ``3-5 pos`` ``[K,2]``."""
        if place := _PLACE.fullmatch(text):
            return _place(text, *place.groups())
        some = _SOME.fullmatch(text)
        if not some:
            raise UnknownConceptError(f"{text!r} is not a place; write pos(0.3,0.5), 3 pos or 3-5 pos")
        least, most = int(some[1]), int(some[2] or some[1])
        if most > 100 * TRIES:
            raise UsageError(f"there is no room for {some[2] or some[1]} places; ask for fewer")
        if most < least:
            raise UsageError(f"{text!r} names its larger number first; write {most}-{least} pos")
        count = int(torch.randint(least, most + 1, (), generator=random))
        width, height = (self.region.amax(0) - self.region.amin(0) + self.distance).tolist()
        if count * math.pi / 4 * self.distance**2 < width * height and count < TRIES:
            for _ in range(TRIES // max(1, count)):
                places = self._scattered(count, random, beside.double().cpu())
                if len(places) == count:
                    return places.float()
        raise UsageError(
            f"there is no room for {counted(count, 'place')} at least {self.distance:g} apart; ask for fewer, or name each"
        )

    def _scattered(self, count: int, random: torch.Generator, beside: Tensor) -> Tensor:
        """Returns up to ``count`` random places ``[K,2]`` that keep their distance from one another and from ``beside``."""
        low, high = self.region.amin(0), self.region.amax(0)
        points = low + (high - low) * torch.rand(20 * count, 2, generator=random, dtype=torch.float64)
        side = self.region.roll(-1, 0) - self.region
        away = points[:, None] - self.region
        turn = side[:, 0] * away[..., 1] - side[:, 1] * away[..., 0]  # on which side of every edge
        taken = beside.reshape(-1, 2)
        for point in points[(turn >= 0).all(1) | (turn <= 0).all(1)]:
            if len(taken) < len(beside) + count and bool(
                (torch.cdist(point[None], taken) >= self.distance).all()
            ):
                taken = torch.cat([taken, point[None]])
        return taken[len(beside) :]

    def mirror(self, concepts: Tensor) -> Tensor:
        """Returns positions in the image flipped left to right."""
        return torch.stack([1 - concepts[..., 0], concepts[..., 1]], dim=-1)

    def turn(self, concepts: Tensor) -> Tensor:
        """Returns positions in the image turned by a quarter, like ``rot90`` of its rows and columns."""
        return torch.stack([concepts[..., 1], 1 - concepts[..., 0]], dim=-1)

    def score(self, predicted: Tensor, truth: Tensor) -> dict[str, float]:
        """Returns the perceived objects by both readings of the paper's criterion, and the matched error."""
        from igm_cli.core.metrics import match

        result = match(predicted, truth)
        return {
            "objects": float(len(truth)),
            "perceived_sum": float(result.perceived("sum").sum()),
            "perceived_mean": float(result.perceived("mean").sum()),
            "squared_error": float(result.squared.mean(dim=1).sum()),
            "matched": float(len(result.squared)),
            "k_exact": float(len(predicted) == len(truth)),
        }

    def right(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Returns which positions match an object of their own, by the paper's criterion ``[K,1]``."""
        from igm_cli.core.metrics import match

        result = match(predicted, truth)
        right = torch.zeros(len(predicted), 1, dtype=torch.bool)
        right[result.predicted, 0] = result.perceived("sum")
        return right

    def draw(self, image: Picture, items: Sequence[Mapping[str, Any]]) -> Picture:
        """Returns a copy with a numbered ring at every position, enlarged by an integer factor if small."""
        from igm_cli.plugins.overlays import Mark, confidence_of, draw_marks

        return draw_marks(image, [Mark(item["x"], item["y"], confidence_of(item)) for item in items])

    def draw_map(self, image: Picture, values: Tensor, frame: Frame) -> Picture:
        """Returns the image with a map of values ``[rows,columns]`` over what the model sees of it."""
        from igm_cli.plugins.overlays import draw_heat

        return draw_heat(image, values, frame.box)


def _place(text: str, *coordinates: str) -> Tensor:
    try:
        x, y = (float(value) for value in coordinates)
    except ValueError as error:
        raise UsageError(f"{text!r} needs two numbers, such as pos(0.3,0.5)") from error
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise UsageError(
            f"{text!r} lies outside the image; x and y are 0..1 of its width and height, y downwards"
        )
    return torch.tensor([[x, y]])


def _to_frame(pixels: Tensor, frame: Frame) -> Tensor:
    left, top, right, bottom = frame.box
    corner, scale = pixels.new_tensor([left, top]), pixels.new_tensor([right - left, bottom - top])
    return (pixels - corner) / scale
