"""Lines of text with a bar for the confidence, beside an image: what several concept parsers draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

HEIGHT, LONG_SIDE = 384, 4096
"""Small images are enlarged to this height, so that names can be read, but no side beyond the other."""

LINE = 44
"""Least height of a line; where the image is lower than all of them, there is paper below it."""

PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (150, 150, 150)
SURE, DOUBTFUL = (40, 120, 200), (225, 110, 40)
CONFIDENT = 0.9


@dataclass(frozen=True)
class Line:
    """What is written of one item.

    Attributes:
        text: What was found.
        confidence: 0..1; None where the method has none.
        title: Of what it was found; written small above it.
    """

    text: str
    confidence: float | None = None
    title: str = ""

    @property
    def whole(self) -> str:
        """The text with the confidence."""
        return self.text if self.confidence is None else f"{self.text}  {self.confidence:.0%}"

    @property
    def color(self) -> tuple[int, int, int]:
        """Another one in doubt."""
        return SURE if self.confidence is None or self.confidence >= CONFIDENT else DOUBTFUL


def confidence_of(item: Mapping[str, Any]) -> float | None:
    """The confidence of an item; None where the method has none."""
    confidence = item.get("confidence")
    return None if confidence is None or confidence != confidence else float(confidence)


def draw_lines(image: Image.Image, lines: Sequence[Line]) -> Image.Image:
    """The image, and beside it the lines.

    Args:
        image: As given by the user.
        lines: From top to bottom.

    Returns:
        A picture as high as the image, enlarged if the image is small, or higher where lines need it.
    """
    shown = _readable(image)
    step = max(LINE, shown.height / max(6, len(lines)))
    height = max(shown.height, round(step * len(lines)))
    title, text = ImageFont.load_default(size=step * 0.34), ImageFont.load_default(size=step * 0.40)
    widest = max((max(title.getlength(x.title), text.getlength(x.whole)) for x in lines), default=0)
    margin = step * 0.4
    width = max(widest, 4 * step)
    canvas = Image.new("RGB", (shown.width + round(width + 2 * margin), height), PAPER)
    canvas.paste(shown, (0, 0))
    pen, left = ImageDraw.Draw(canvas), shown.width + margin
    top = (height - step * len(lines)) / 2
    for number, line in enumerate(lines):
        y = top + number * step
        pen.text((left, y + step * 0.06), line.title, fill=FAINT, font=title)
        pen.text((left, y + step * 0.40), line.whole, fill=line.color, font=text)
        if line.confidence is not None:
            bar = (left, y + step * 0.88, left + width, y + step * 0.93)
            pen.rectangle(bar, fill=(230, 230, 230))
            pen.rectangle((*bar[:2], left + width * line.confidence, bar[3]), fill=line.color)
    return canvas


def _readable(image: Image.Image) -> Image.Image:
    """A small image enlarged."""
    scale = max(1.0, min(HEIGHT / image.height, LONG_SIDE / image.width))
    size = round(image.width * scale), round(image.height * scale)
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
