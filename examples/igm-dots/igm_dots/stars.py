"""The concept parser: a star is a point of the image."""

from __future__ import annotations

import torch

from igm_cli.core.concepts import Continuous
from igm_cli.core.metrics import match
from igm_cli.errors import UnknownConceptError


class Stars:
    name = "stars"
    summary = "where the stars are (example plugin)"
    space = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True)

    def parse(self, example, frame):
        return self.encode(example["stars"], frame)

    def encode(self, items, frame):
        (w, h), (left, top, right, bottom) = frame.size, frame.box
        points = [
            [(item["x"] * w - left) / (right - left), (item["y"] * h - top) / (bottom - top)] for item in items
        ]
        return torch.tensor(points, dtype=torch.float32).reshape(-1, 2)

    def decode(self, concepts, frame):
        (w, h), (left, top, right, bottom) = frame.size, frame.box
        return [
            {"x": (left + x * (right - left)) / w, "y": (top + y * (bottom - top)) / h}
            for x, y in concepts.tolist()
        ]

    def mirror(self, concepts):
        return torch.stack([1 - concepts[..., 0], concepts[..., 1]], dim=-1)

    def score(self, predicted, truth):
        return {"k_exact": float(len(predicted) == len(truth))}

    def right(self, predicted, truth):
        matched, right = match(predicted, truth), torch.zeros(len(predicted), 1, dtype=torch.bool)
        right[matched.predicted, 0] = matched.perceived("sum")
        return right

    def draw(self, image, items):
        from PIL import Image, ImageDraw

        times = max(1, 256 // max(image.size))
        picture = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
        pen = ImageDraw.Draw(picture)
        for item in items:
            x, y = item["x"] * picture.width, item["y"] * picture.height
            pen.ellipse((x - 12, y - 12, x + 12, y + 12), outline=(255, 80, 80), width=2)
        return picture

    def ask(self, text, random, beside):
        number, _, noun = text.partition(" ")
        if not number.isdecimal() or noun not in ("star", "stars"):
            raise UnknownConceptError(f"{text!r} is no number of stars; write 3 stars")
        return torch.rand(int(number), 2, generator=random)
