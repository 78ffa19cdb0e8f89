"""Positions drawn on an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

SHORT_SIDE = 480
"""Small images are enlarged to this, so that rings and numbers can be read."""

LONG_SIDE = 4096
"""But no side beyond this."""

COLOR = (255, 214, 0)
DOUBTFUL = (255, 110, 60)
CONFIDENT = 0.9


def draw_positions(image: Image.Image, items: Sequence[Mapping[str, Any]]) -> Image.Image:
    """A numbered ring at every position, in another colour where the confidence is below 0.9.

    Args:
        image: As given by the user.
        items: With ``x`` and ``y`` in 0..1 of it, perhaps ``confidence``.

    Returns:
        A copy, enlarged by a whole factor if the image is small.
    """
    factor = max(1, min(round(SHORT_SIDE / min(image.size)), LONG_SIDE // max(image.size)))
    canvas = image.convert("RGB").resize(
        (image.width * factor, image.height * factor), Image.Resampling.LANCZOS
    )
    pen = ImageDraw.Draw(canvas)
    radius = max(6, min(canvas.size) // 30)
    font = ImageFont.load_default(size=max(12, int(radius * 1.1)))
    for number, item in enumerate(items, 1):
        x, y = item["x"] * canvas.width, item["y"] * canvas.height
        confidence = item.get("confidence")
        sure = confidence is None or confidence != confidence or confidence >= CONFIDENT
        color = COLOR if sure else DOUBTFUL
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, outline=(0, 0, 0), width=max(4, radius // 3))
        pen.ellipse(box, outline=color, width=max(2, radius // 5))
        pen.text((x, y), str(number), fill=color, font=font, anchor="mm", stroke_width=2, stroke_fill=(0, 0, 0))
    return canvas
