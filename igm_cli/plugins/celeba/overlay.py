"""Attributes written beside an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

HEIGHT, LONG_SIDE = 384, 4096
"""Small images are enlarged to this height, so that names can be read, but no side beyond the other."""

LINE = 44
"""Least height of an attribute's line; where the image is lower than all of them, there is paper below it."""

PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (150, 150, 150)
SURE, DOUBTFUL = (40, 120, 200), (225, 110, 40)
CONFIDENT = 0.9


def draw_attributes(image: Image.Image, items: Sequence[Mapping[str, Any]]) -> Image.Image:
    """The image, and beside it a line an attribute: its name, its value, and a bar for the confidence.

    Args:
        image: As given by the user.
        items: With ``factor`` and ``value``, perhaps ``confidence``.

    Returns:
        A picture as high as the image, enlarged if the image is small, or higher where lines need it.
    """
    scale = max(1.0, min(HEIGHT / image.height, LONG_SIDE / image.width))
    shown = image.convert("RGB").resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS
    )
    line = max(LINE, shown.height / max(6, len(items)))
    height = max(shown.height, round(line * len(items)))
    name = ImageFont.load_default(size=line * 0.34)
    value = ImageFont.load_default(size=line * 0.40)
    widest = max((max(name.getlength(_title(i)), value.getlength(_value(i))) for i in items), default=0)
    margin = line * 0.4
    panel = round(max(widest, 4 * line) + 2 * margin)
    canvas = Image.new("RGB", (shown.width + panel, height), PAPER)
    canvas.paste(shown, (0, 0))
    pen, left = ImageDraw.Draw(canvas), shown.width + margin
    top = (height - line * len(items)) / 2
    for number, item in enumerate(items):
        y = top + number * line
        confidence = _confidence(item)
        color = SURE if confidence is None or confidence >= CONFIDENT else DOUBTFUL
        pen.text((left, y + line * 0.06), _title(item), fill=FAINT, font=name)
        pen.text((left, y + line * 0.40), _value(item), fill=color, font=value)
        if confidence is not None:
            width = panel - 2 * margin
            bar = (left, y + line * 0.88, left + width, y + line * 0.93)
            pen.rectangle(bar, fill=(230, 230, 230))
            pen.rectangle((*bar[:2], left + width * confidence, bar[3]), fill=color)
    return canvas


def _title(item: Mapping[str, Any]) -> str:
    return str(item["factor"]).replace("_", " ")


def _value(item: Mapping[str, Any]) -> str:
    confidence = _confidence(item)
    return str(item["value"]) if confidence is None else f"{item['value']}  {confidence:.0%}"


def _confidence(item: Mapping[str, Any]) -> float | None:
    """None where the method has none."""
    confidence = item.get("confidence")
    return None if confidence is None or confidence != confidence else float(confidence)
