"""Draws answers: as lines next to an image with a bar for the confidence, or as marks at their places."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from igm_cli.errors import percentage

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Pixels: TypeAlias = NDArray[Any]
    Color: TypeAlias = tuple[int, int, int]

HEIGHT, LONG_SIDE = 384, 4096
"""Small images are enlarged to this height, so that names can be read, but no side beyond this length."""

LINE = 44
"""Least height of a line; an image lower than all lines together gets paper below it."""

PAPER, TRACK, FAINT = (255, 255, 255), (230, 230, 230), (150, 150, 150)
SURE, DOUBTFUL = (40, 120, 200), (225, 110, 40)
COOL, HOT = (120, 20, 60), (255, 225, 60)
"""Colours of a map's low and high values."""

CONFIDENT = 0.9
"""Items below this confidence have another colour, and values below it show theirs in tables."""

SHORT_SIDE = 480
"""Small images with marks are enlarged to this by an integer factor, so that rings and numbers can be read."""

RING, DOUBTFUL_RING, LEGEND = (255, 214, 0), (255, 110, 60), (30, 30, 30)

FEW = 10
"""Up to this many marks need no legend; more get one, and if they are crowded, the picture is enlarged."""

READABLE, LEAST_RADIUS, LEAST_TEXT = 11, 4, 9
"""In pixels: radius of rings for which a picture is enlarged if possible, least radius, and least text size."""


@dataclass(frozen=True)
class Mark:
    """A place in an image.

    Attributes:
        x: 0..1 of the width.
        y: 0..1 of the height.
        confidence: Of the item; None if the method has none.
        text: Written next to it, if there is room.
    """

    x: float
    y: float
    confidence: float | None = None
    text: str = ""


def draw_items(
    image: Image.Image, items: Sequence[Mapping[str, Any]], text: str, title: str | None = None
) -> Image.Image:
    """Returns the image, enlarged if small, with a line per item next to it, and paper below it if lines need that.

    Args:
        image: The image as given by the user.
        items: Items from top to bottom; they may have a ``confidence``.
        text: The key of the answer, which is written large.
        title: The key of its subject, which is written small above it; None writes nothing.
    """
    shown = _readable(image)
    step = max(LINE, shown.height / max(6, len(items)))
    height = max(shown.height, round(step * len(items)))
    small, large = ImageFont.load_default(size=step * 0.34), ImageFont.load_default(size=step * 0.40)
    sure = [confidence_of(item) for item in items]
    titles = [str(item[title]).replace("_", " ") if title else "" for item in items]
    texts = [
        str(item[text]) + ("" if p is None else f"  {percentage(p, 0)}")
        for item, p in zip(items, sure, strict=True)
    ]
    width = max(4 * step, *map(small.getlength, titles), *map(large.getlength, texts), 0)
    margin = step * 0.4
    canvas = Image.new("RGB", (shown.width + round(width + 2 * margin), height), PAPER)
    canvas.paste(shown, (0, 0))
    pen, left = ImageDraw.Draw(canvas), shown.width + margin
    for number, (above, below, confidence) in enumerate(zip(titles, texts, sure, strict=True)):
        y = (height - step * len(items)) / 2 + number * step
        color = DOUBTFUL if _doubtful(confidence) else SURE
        pen.text((left, y + step * 0.06), above, fill=FAINT, font=small)
        pen.text((left, y + step * 0.40), below, fill=color, font=large)
        if confidence is not None:
            top, bottom = y + step * 0.88, y + step * 0.93
            pen.rectangle((left, top, left + width, bottom), fill=TRACK)
            pen.rectangle((left, top, left + width * confidence, bottom), fill=color)
    return canvas


def draw_marks(image: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """Returns a copy with a numbered ring at every mark, enlarged by an integer factor if small; many get a legend below.

    Rings do not touch unless they would be too small to see.  A number is in its ring or, like the text of a mark, next
    to it: within the picture, and not over another number, text or mark's centre.  If no such place is free, it is left
    out.  Rings of doubtful items have another colour.
    """
    places = np.array([(mark.x, mark.y) for mark in marks], dtype=float).reshape(-1, 2)
    factor = _enlargement(image.size, nearest_of(places * image.size))
    size = image.width * factor, image.height * factor
    canvas = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    centres = places * size
    nearest = nearest_of(centres)
    # An object far from all others has no larger ring than the rest.
    largest = max(6, int(min(min(size) // 30, np.median(nearest) if len(marks) > FEW else math.inf)))
    radii = np.clip(nearest / 2 - 1, LEAST_RADIUS, largest)
    colors = [DOUBTFUL_RING if _doubtful(mark.confidence) else RING for mark in marks]
    pen = ImageDraw.Draw(canvas)
    for centre, radius, color in zip(centres.tolist(), radii.tolist(), colors, strict=True):
        _draw_ring(pen, centre, radius, color)
    writing = _Writing(pen, size, centres, radii, [mark.text for mark in marks])
    outside = [
        "" if writing.inside(index, str(index + 1), color) else str(index + 1)
        for index, color in enumerate(colors)
    ]
    for texts in ([mark.text for mark in marks], outside):
        for index, (text, color) in enumerate(zip(texts, colors, strict=True)):
            writing.beside(index, text, color)
    return _with_legend(canvas, marks, largest) if len(marks) > FEW else canvas


def marked_as_guess(picture: Image.Image) -> Image.Image:
    """Returns a drawn answer with a strip below it that calls it a guess, as the image is unlike those of the training."""
    size = max(LEAST_TEXT, min(18, picture.width // 16))
    page = Image.new("RGB", (picture.width, picture.height + 2 * size), LEGEND)
    page.paste(picture, (0, 0))
    font = _font(size)
    texts = ("a guess: unlike the training images", "a guess")
    text = next((each for each in texts if font.getlength(each) < picture.width - size), texts[-1])
    place = (size / 2, picture.height + size)
    ImageDraw.Draw(page).text(place, text, fill=DOUBTFUL_RING, font=font, anchor="lm")
    return page


def draw_heat(image: Image.Image, values: Tensor, box: tuple[float, float, float, float]) -> Image.Image:
    """Returns the image in grey with a map of values in colour over a part of it; values up to zero stay grey.

    Colours follow the square root of a value ``[rows,columns]``, so that small values remain visible.  The box of the map,
    (left, top, right, bottom), is in pixels of the image as given, which is enlarged if it is small.
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
    """Returns the image, enlarged if small, and next to it each of M values with a bar for its excess over the least one."""
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
    """Returns the confidence of an item; None if the method has none."""
    confidence = item.get("confidence")
    return None if confidence is None or confidence != confidence else float(confidence)


def _readable(image: Image.Image) -> Image.Image:
    """Returns an image, enlarged if it is small."""
    scale = max(1.0, min(HEIGHT / image.height, LONG_SIDE / image.width))
    size = round(image.width * scale), round(image.height * scale)
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _doubtful(confidence: float | None) -> bool:
    return confidence is not None and confidence < CONFIDENT


def nearest_of(points: Pixels | Sequence[Sequence[float]]) -> Pixels:
    """Returns the distance of every point ``[N,2]`` from its nearest neighbour ``[N]``, infinite if it has none."""
    if len(points) < 2:
        return np.full(len(points), np.inf)
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(points).query(points, k=2)[0][:, 1])


def _enlargement(size: tuple[int, int], nearest: Pixels) -> int:
    """Returns the factor by which a picture is enlarged; ``nearest`` are its marks' distances to their neighbours."""
    wanted = round(SHORT_SIDE / min(size))
    if len(nearest) > FEW:
        close = max(float(np.quantile(nearest, 0.25)), 1e-3)
        wanted = max(wanted, math.ceil(2 * (READABLE + 1) / close))
    return max(1, min(wanted, LONG_SIDE // max(size)))


def _draw_ring(pen: ImageDraw.ImageDraw, centre: Sequence[float], radius: float, color: Color) -> None:
    (x, y), whole = centre, int(radius)
    box = (x - radius, y - radius, x + radius, y + radius)
    pen.ellipse(box, outline=(0, 0, 0), width=max(whole // 3, min(4, whole // 2)))
    pen.ellipse(box, outline=color, width=max(whole // 5, min(2, whole // 4)))


class _Writing:
    """Text in and next to rings, never over other text or the centre of another ring.

    Args:
        pen: Draws the text.
        size: (width, height) of the picture in pixels.
        centres: Those of the rings, ``[N,2]`` in pixels.
        radii: Those of the rings, ``[N]``.
        texts: What will be written next to each, besides its number.
    """

    def __init__(
        self,
        pen: ImageDraw.ImageDraw,
        size: tuple[int, int],
        centres: Pixels,
        radii: Pixels,
        texts: Sequence[str],
    ) -> None:
        from scipy.spatial import cKDTree

        self.pen, self.centres, self.radii, (self.width, self.height) = pen, centres, radii, size
        self.size = max(LEAST_TEXT + 2, int(0.8 * np.median(radii))) if len(radii) else LEAST_TEXT
        self.tree = cKDTree(centres)
        # Left, top, right and bottom of texts, at most two per mark; NaN for none.
        self.texts = np.full((len(radii), 2, 4), np.nan)
        longest = max([str(len(texts)), *dict.fromkeys(texts)], key=len)
        self.longest = self._reach(longest) if len(radii) else 0.0

    def _reach(self, text: str) -> float:
        """Returns how far from a centre a text next to its ring may reach, or touch another ring."""
        return float(_font(self.size).getlength(text) + 2 * (self.size + self.radii.max()))

    def inside(self, index: int, text: str, color: Color) -> bool:
        """Writes a text into a ring; returns whether it fits, and is within the picture."""
        (x, y), radius = self.centres[index].tolist(), float(self.radii[index])
        size = int(1.1 * radius)
        if size >= LEAST_TEXT:
            size = min(size, int(size * 1.6 * radius / _font(size).getlength(text)))
        return size >= LEAST_TEXT and self._write(index, (x, y), "mm", text, size, color, lambda box: True)

    def beside(self, index: int, text: str, color: Color) -> None:
        """Writes a text next to a ring if any place is free, preferably over no other ring."""
        if not text:
            return
        (x, y), away = self.centres[index].tolist(), float(self.radii[index]) + 2
        near = 0.7 * away
        places = (
            ((x + away, y), "lm"), ((x - away, y), "rm"), ((x, y - away), "md"), ((x, y + away), "ma"),
            ((x + near, y - near), "ld"), ((x + near, y + near), "la"),
            ((x - near, y - near), "rd"), ((x - near, y + near), "ra"),
        )  # fmt: skip
        reach = self._reach(text)
        near = np.array(self.tree.query_ball_point((x, y), reach + self.longest, p=np.inf, return_sorted=True))
        texts = self.texts[near].reshape(-1, 4)
        texts = texts[
            ((texts[:, :2] < (x + reach, y + reach)) & (texts[:, 2:] > (x - reach, y - reach))).all(1)
        ]
        around = near[(np.abs(self.centres[near] - (x, y)).max(axis=1) < reach) & (near != index)]
        centres, radii = self.centres[around], self.radii[around]
        for off in (radii, np.maximum(radii / 3, 3)):
            free = functools.partial(_free, texts=texts, centres=centres, off=off)
            for at, anchor in places:
                if self._write(index, at, anchor, text, self.size, color, free):
                    return

    def _write(
        self,
        index: int,
        at: tuple[float, float],
        anchor: str,
        text: str,
        size: int,
        color: Color,
        free: Callable[[Sequence[float]], bool],
    ) -> bool:
        """Writes a text if its box lies within the picture and is ``free``; returns whether it did."""
        how: dict[str, Any] = {"font": _font(size), "anchor": anchor, "stroke_width": max(2, size // 10)}
        left, top, right, bottom = box = self.pen.textbbox(at, text, **how)
        if left < 0 or top < 0 or right > self.width or bottom > self.height or not free(box):
            return False
        self.pen.text(at, text, fill=color, stroke_fill=(0, 0, 0), **how)
        self.texts[index, int(not np.isnan(self.texts[index, 0, 0]))] = box
        return True


def _free(box: Sequence[float], texts: Pixels, centres: Pixels, off: Pixels) -> bool:
    """Returns whether a box overlaps no text ``[M,4]`` and is ``off`` ``[N]`` from centres ``[N,2]``."""
    corner, end = box[:2], box[2:]
    if ((texts[:, :2] < end) & (texts[:, 2:] > corner)).all(axis=1).any():
        return False
    gaps = np.maximum(np.maximum(corner - centres, centres - end), 0)
    return not (np.hypot(*gaps.T) < off).any()


@functools.cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)


def _with_legend(canvas: Image.Image, marks: Sequence[Mark], radius: int) -> Image.Image:
    """Returns a picture with a strip below it: the number of marks and, if some are doubtful, the colours' meaning."""
    parts: list[tuple[Color | None, str]] = [(None, f"{len(marks)} objects")]
    if doubtful := sum(_doubtful(mark.confidence) for mark in marks):
        parts += [
            (RING, f"{len(marks) - doubtful} confident"),
            (DOUBTFUL_RING, f"{doubtful} doubtful (below {CONFIDENT})"),
        ]
    size, width = max(12, radius), math.inf
    while size >= LEAST_TEXT and width > canvas.width:
        size -= 1
        font, ring = _font(size), size / 2
        widths = [(3 * ring if color else 0) + font.getlength(text) + 2 * size for color, text in parts]
        width = sum(widths)
    if width > canvas.width:
        return canvas
    page = Image.new("RGB", (canvas.width, canvas.height + 2 * size), LEGEND)
    page.paste(canvas, (0, 0))
    pen, left, y = ImageDraw.Draw(page), float(size), canvas.height + size
    for (color, text), step in zip(parts, widths, strict=True):
        if color:
            _draw_ring(pen, (left + ring, y), ring, color)
        pen.text((left + (3 * ring if color else 0), y), text, fill=TRACK, font=font, anchor="lm")
        left += step
    return page
