"""What training shows of itself: inversions of a few validation images, as figures and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets
    from PIL.Image import Image
    from torch import nn

    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.plugins.base import ConceptParser

COUNT = 8


class Validation:
    """A few images with known concepts.

    Args:
        examples: At most :data:`COUNT` of them are used.
        parser: Reads their annotations.
        spec: Of the model in training.
        folder: Where pictures go.
    """

    def __init__(
        self, examples: datasets.Dataset, parser: ConceptParser, spec: ModelSpec, folder: Path
    ) -> None:
        from igm_cli.imaging import to_model, to_rgb
        from igm_cli.plugins.base import Frame

        self.parser, self.spec, self.folder = parser, spec, folder
        self.rows = []
        width, height = spec.image_size
        for example in examples.select(range(min(COUNT, len(examples)))):
            image = to_rgb(example["image"])
            frame = Frame.fit(image.size, width / height)
            x0 = to_model(image, frame, spec.image_size)
            self.rows.append((image, frame, x0, parser.parse(example, frame)))

    def __call__(self, step: int, denoiser: nn.Module) -> Mapping[str, float]:
        """Inverts the images with K given; returns mean scores and writes the picture."""
        from igm_cli.core.inversion import InversionSettings, invert

        settings = InversionSettings.from_dict(self.spec.inference)
        device = next(denoiser.parameters()).device
        scores: dict[str, float] = {}
        drawn = []
        training = denoiser.training
        denoiser.eval()
        for image, frame, x0, truth in self.rows:
            given: Any = denoiser  # an nn.Module that follows the protocol
            k = len(truth)
            found = invert(given, x0.to(device), settings, k=k, composition=self.spec.composition)
            for name, value in self.parser.score(found.concepts, truth).items():
                scores[name] = scores.get(name, 0.0) + value / len(self.rows)
            items = [
                {**item, "confidence": confidence}
                for item, confidence in zip(
                    self.parser.decode(found.concepts, frame), found.confidence.tolist(), strict=True
                )
            ]
            drawn.append(self.parser.draw(image, items))
        denoiser.train(training)
        self._save(step, drawn)
        return {f"validation/{name}": value for name, value in scores.items()}

    def _save(self, step: int, drawn: Sequence[Image]) -> None:
        from igm_cli.commands.results import save_picture

        save_picture(sheet(drawn), self.folder / "pictures" / f"inversion-{step:07d}.png")


def sheet(pictures: Sequence[Image], width: int = 240) -> Image:
    """Pictures side by side, four in a row, each scaled to one width."""
    from PIL import Image

    columns = min(4, len(pictures))
    scaled = [p.resize((width, max(1, round(p.height * width / p.width)))) for p in pictures]
    height = max(p.height for p in scaled)
    page = Image.new("RGB", (columns * width, math.ceil(len(scaled) / columns) * height))
    for number, picture in enumerate(scaled):
        page.paste(picture, (number % columns * width, number // columns * height))
    return page
