"""Another concept parser: a star is a point of the image, with one of two colors."""

from __future__ import annotations

import torch

from igm_cli.core.concepts import Categorical, Product
from igm_cli.core.metrics import match
from igm_dots.stars import Stars

COLORS = ("white", "yellow")


class ColoredStars:
    name = "star-colors"
    summary = "where the stars are, and the color of each (example plugin)"
    stars = Stars()
    space = Product(Stars.space, Categorical({"color": COLORS}))

    def parse(self, example, frame):
        items = [{**star, "values": {"color": star["color"]}} for star in example["stars"]]
        return self.encode(items, frame)

    def encode(self, items, frame):
        rows = [[float(item["values"]["color"] == color) for color in COLORS] for item in items]
        values = torch.tensor(rows).reshape(-1, len(COLORS))
        return torch.cat([self.stars.encode(items, frame), values], dim=1)

    def decode(self, concepts, frame):
        colors = [COLORS[index] for index in concepts[:, 2:].argmax(1).tolist()]
        items = self.stars.decode(concepts[:, :2], frame)
        return [{**item, "values": {"color": color}} for item, color in zip(items, colors, strict=True)]

    def mirror(self, concepts):
        return torch.cat([self.stars.mirror(concepts[..., :2]), concepts[..., 2:]], dim=-1)

    def score(self, predicted, truth):
        return self.stars.score(predicted, truth)

    def right(self, predicted, truth):
        matched = match(predicted[:, :2], truth[:, :2])
        right = torch.zeros(len(predicted), 2, dtype=torch.bool)
        right[matched.predicted, 0] = matched.perceived("sum")
        same = predicted[matched.predicted, 2:].argmax(1) == truth[matched.truth, 2:].argmax(1)
        right[matched.predicted, 1] = same & right[matched.predicted, 0]
        return right

    def draw(self, image, items):
        return self.stars.draw(image, items)
