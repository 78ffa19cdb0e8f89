"""What was found, written beside an image, line by line, with a bar for the confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from torch import Tensor

HEIGHT, LONG_SIDE = 384, 4096
"""Small images are enlarged to this height, so that names can be read, but no side beyond the other."""

LINE = 44
"""Least height of a line; where the image is lower than all of them, there is paper below it."""

PAPER, TRACK, FAINT = (255, 255, 255), (230, 230, 230), (150, 150, 150)
SURE, DOUBTFUL = (40, 120, 200), (225, 110, 40)
COOL, HOT = (120, 20, 60), (255, 225, 60)
"""Colours of a map, from where it is low to where it is high."""

CONFIDENT = 0.9
"""Below this confidence an item has another colour."""


def draw_items(
    image: Image.Image, items: Sequence[Mapping[str, Any]], text: str, title: str | None = None
) -> Image.Image:
    """Returns the image, enlarged if it is small, and beside it a line per item, with paper below where lines need it.

    Args:
        image: The image as given by the user.
        items: Items from top to bottom; they may have a ``confidence``.
        text: The key of what was found, which is written large.
        title: The key of what it is about, which is written small above it; None writes nothing.
    """
    shown = _readable(image)
    step = max(LINE, shown.height / max(6, len(items)))
    height = max(shown.height, round(step * len(items)))
    small, large = ImageFont.load_default(size=step * 0.34), ImageFont.load_default(size=step * 0.40)
    sure = [confidence_of(item) for item in items]
    titles = [str(item[title]).replace("_", " ") if title else "" for item in items]
    texts = [str(item[text]) + ("" if p is None else f"  {p:.0%}") for item, p in zip(items, sure, strict=True)]
    width = max(4 * step, *map(small.getlength, titles), *map(large.getlength, texts), 0)
    margin = step * 0.4
    canvas = Image.new("RGB", (shown.width + round(width + 2 * margin), height), PAPER)
    canvas.paste(shown, (0, 0))
    pen, left = ImageDraw.Draw(canvas), shown.width + margin
    for number, (above, below, confidence) in enumerate(zip(titles, texts, sure, strict=True)):
        y = (height - step * len(items)) / 2 + number * step
        color = SURE if confidence is None or confidence >= CONFIDENT else DOUBTFUL
        pen.text((left, y + step * 0.06), above, fill=FAINT, font=small)
        pen.text((left, y + step * 0.40), below, fill=color, font=large)
        if confidence is not None:
            top, bottom = y + step * 0.88, y + step * 0.93
            pen.rectangle((left, top, left + width, bottom), fill=TRACK)
            pen.rectangle((left, top, left + width * confidence, bottom), fill=color)
    return canvas


def draw_heat(image: Image.Image, values: Tensor, box: tuple[float, float, float, float]) -> Image.Image:
    """Returns the image in grey with a map of values in colour over a part of it; what is not above zero stays grey.

    Colours follow the square root of a value, so that what explains little beside the most is seen.

    Args:
        image: The image as given by the user; it is enlarged if it is small.
        values: ``[rows,columns]``.
        box: (left, top, right, bottom) of the map in pixels of the image as given.
    """
    canvas = _readable(image)
    scale = canvas.width / image.width
    left, top, right, bottom = (round(edge * scale) for edge in box)
    share = (values.clamp(min=0) / values.max().clamp(min=1e-12)).sqrt().float()
    heat = Image.fromarray((255 * share).round().byte().numpy())
    heat = heat.resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.BICUBIC)
    strength = Image.new("L", canvas.size)
    strength.paste(heat, (left, top))
    tables = ([round(a + (b - a) * v / 255) for v in range(256)] for a, b in zip(COOL, HOT, strict=True))
    color = Image.merge("RGB", [strength.point(table) for table in tables])
    grey = canvas.convert("L").point([round(0.75 * v) for v in range(256)]).convert("RGB")
    return Image.composite(color, grey, strength.point([min(255, round(1.6 * v)) for v in range(256)]))


def draw_bars(image: Image.Image, names: Sequence[str], values: Tensor) -> Image.Image:
    """Returns the image, enlarged if it is small, and beside it every value with a bar: by how much it is above the least.

    Args:
        image: The image as given by the user.
        names: What the values are of.
        values: ``[M]``, in the order of the names.
    """
    shown, numbers = _readable(image), [f"{value:+.5f}" for value in values.tolist()]
    step = max(LINE / 2, shown.height / max(12, len(names)))
    height = max(shown.height, round(step * len(names)))
    font, margin = ImageFont.load_default(size=step * 0.5), step * 0.5
    text, number, bar = max(map(font.getlength, names)), max(map(font.getlength, numbers)), 6 * step
    canvas = Image.new("RGB", (shown.width + round(text + bar + number + 4 * margin), height), PAPER)
    canvas.paste(shown, (0, 0))
    pen, left = ImageDraw.Draw(canvas), shown.width + 2 * margin + text
    shares = ((values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)).tolist()
    for line, (name, share, written) in enumerate(zip(names, shares, numbers, strict=True)):
        y = (height - step * len(names)) / 2 + (line + 0.5) * step
        pen.text((left - margin, y), name, fill=FAINT, font=font, anchor="rm")
        pen.rectangle((left, y - step * 0.3, left + bar, y + step * 0.3), fill=TRACK)
        pen.rectangle((left, y - step * 0.3, left + share * bar, y + step * 0.3), fill=SURE)
        pen.text((left + bar + margin, y), written, fill=FAINT, font=font, anchor="lm")
    return canvas


def confidence_of(item: Mapping[str, Any]) -> float | None:
    """Returns the confidence of an item; None where the method has none."""
    confidence = item.get("confidence")
    return None if confidence is None or confidence != confidence else float(confidence)


def _readable(image: Image.Image) -> Image.Image:
    """Returns an image, enlarged if it is small."""
    scale = max(1.0, min(HEIGHT / image.height, LONG_SIDE / image.width))
    size = round(image.width * scale), round(image.height * scale)
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
