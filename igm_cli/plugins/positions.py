"""Concept parser ``pos``: objects by where they are in the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from igm_cli.core.concepts import Continuous
from igm_cli.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from igm_cli.plugins.base import Frame

SHORT_SIDE, LONG_SIDE = 480, 4096
"""Small images are enlarged to one, so that rings and numbers can be read, but no side beyond the other."""

COLOR, DOUBTFUL = (255, 214, 0), (255, 110, 60)


class Positions:
    """Object centres, x to the right and y down, 0..1 of the frame the model sees."""

    name = "pos"
    summary = "object positions in the image"
    space = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True)

    def parse(self, example: Mapping[str, Any], frame: Frame) -> Tensor:
        """Returns ``pixel_coords`` of the example's objects as ``[K,2]``; those outside the frame are left out."""
        try:
            pixels = [[float(o["pixel_coords"][i]) for i in (0, 1)] for o in example["objects"]]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(
                "concepts pos need 'objects' with 'pixel_coords' of x and y; this dataset has none"
            ) from error
        width, height = frame.size
        for x, y in pixels:  # the centre of an object may lie somewhat off its image, but not by half a side
            if not (-width / 2 <= x <= 1.5 * width and -height / 2 <= y <= 1.5 * height):
                raise InputError(
                    f"pixel_coords ({x:g}, {y:g}) lie outside their {width}×{height} image; "
                    "the scenes file belongs to images of another size"
                )
        concepts = _to_frame(torch.tensor(pixels, dtype=torch.float32).reshape(-1, 2), frame)
        inside = ((concepts >= 0) & (concepts <= 1)).all(dim=1)
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

    def mirror(self, concepts: Tensor) -> Tensor:
        """Returns positions in the image flipped left to right."""
        return torch.stack([1 - concepts[..., 0], concepts[..., 1]], dim=-1)

    def score(self, predicted: Tensor, truth: Tensor) -> dict[str, float]:
        """Returns perceived objects by both readings of the paper's criterion, and the matched error."""
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

    def draw(self, image: Picture, items: Sequence[Mapping[str, Any]]) -> Picture:
        """Returns a copy, if small enlarged by a whole factor, with a numbered ring at every position.

        Rings have another colour where the confidence is below 0.9.
        """
        from PIL import Image, ImageDraw, ImageFont

        from igm_cli.plugins.overlays import CONFIDENT, confidence_of

        factor = max(1, min(round(SHORT_SIDE / min(image.size)), LONG_SIDE // max(image.size)))
        canvas = image.convert("RGB").resize(
            (image.width * factor, image.height * factor), Image.Resampling.LANCZOS
        )
        pen = ImageDraw.Draw(canvas)
        radius = max(6, min(canvas.size) // 30)
        font = ImageFont.load_default(size=max(12, int(radius * 1.1)))
        for number, item in enumerate(items, 1):
            x, y = item["x"] * canvas.width, item["y"] * canvas.height
            confidence = confidence_of(item)
            color = COLOR if confidence is None or confidence >= CONFIDENT else DOUBTFUL
            box = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(box, outline=(0, 0, 0), width=max(4, radius // 3))
            pen.ellipse(box, outline=color, width=max(2, radius // 5))
            pen.text(
                (x, y), str(number), fill=color, font=font, anchor="mm", stroke_width=2, stroke_fill=(0, 0, 0)
            )
        return canvas


def _to_frame(pixels: Tensor, frame: Frame) -> Tensor:
    left, top, right, bottom = frame.box
    corner, scale = pixels.new_tensor([left, top]), pixels.new_tensor([right - left, bottom - top])
    return (pixels - corner) / scale
