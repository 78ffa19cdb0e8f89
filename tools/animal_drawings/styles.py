"""How a sketch becomes an image: four manners of painting the same shapes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import cache

from PIL import Image, ImageChops, ImageDraw

from animal_drawings.palettes import INK, Colour, darker, lighter, mix
from animal_drawings.shapes import Shape, grow, inside
from animal_drawings.sketch import Layer

SUPERSAMPLING = 4

_MARGIN = 3.1
"""Of a page of 100: 3 pixels of 96."""


def _flat(canvas: ImageDraw.ImageDraw, layer: Layer, unit: float, rng: random.Random) -> None:
    _fill(canvas, layer.colour, layer.shapes)


def _shaded(canvas: ImageDraw.ImageDraw, layer: Layer, unit: float, rng: random.Random) -> None:
    _fill(canvas, darker(layer.colour, 0.34) if layer.contour else layer.colour, layer.shapes)
    if not layer.contour:
        return
    steps = ((0.8, 0.2), (1.8, 0.08), (3.0, 0.0), (4.6, -0.1), (6.2, -0.2))
    for depth, shade in steps:
        colour = darker(layer.colour, shade) if shade >= 0 else lighter(layer.colour, -shade)
        _fill(canvas, colour, [s for shape in layer.shapes if (s := _lit(shape, depth * unit))])


def _lit(shape: Shape, depth: float) -> Shape:
    """What light from the upper left reaches of a shape; nothing of one too thin for another step."""
    thin = min(_extent(shape))
    if thin < depth * 4:
        return []
    shrunk = grow(shape, -depth)
    if _folded(shape, shrunk):
        # At a sharp corner the two sides would cross and stick out.
        shrunk = inside(shape, 1 - 2 * depth / thin)
    return [(x - depth * 0.35, y - depth * 0.45) for x, y in shrunk]


def _folded(shape: Shape, shrunk: Shape) -> bool:
    """Whether some edge of a shrunk outline runs backwards."""
    edges = zip(shape, shape[2:] + shape[:2], shrunk, shrunk[2:] + shrunk[:2], strict=True)
    return any(
        (x1 - x0) * (u1 - u0) + (y1 - y0) * (v1 - v0) < 0 for (x0, y0), (x1, y1), (u0, v0), (u1, v1) in edges
    )


def _extent(shape: Shape) -> tuple[float, float]:
    xs, ys = [x for x, _ in shape], [y for _, y in shape]
    return max(xs) - min(xs), max(ys) - min(ys)


def _outlined(canvas: ImageDraw.ImageDraw, layer: Layer, unit: float, rng: random.Random) -> None:
    if layer.contour:
        # A thinner line about a small thing: eyes would wear glasses.
        widths = (min(2.4 * unit, 0.14 * min(_extent(shape))) for shape in layer.shapes)
        _fill(canvas, INK, [grow(shape, width) for shape, width in zip(layer.shapes, widths, strict=True)])
    _fill(canvas, layer.colour, layer.shapes)


def _crayon(canvas: ImageDraw.ImageDraw, layer: Layer, unit: float, rng: random.Random) -> None:
    if layer.contour:
        # The line and the fill wobble apart: the line is thick here, thin there, like one drawn by hand.
        wobble = _wobble(rng, 0.75 * unit, 18 * unit)
        _fill(canvas, darker(layer.colour, 0.6), [wobble(grow(s, 1.5 * unit)) for s in layer.shapes])
    _fill(canvas, _muted(layer.colour), layer.shapes)


def _muted(colour: Colour) -> Colour:
    grey = sum(colour) // 3
    return lighter(mix(colour, (grey, grey, grey), 0.3), 0.3 if grey > 80 else 0.1)


def _wobble(rng: random.Random, reach: float, wave: float) -> Callable[[Shape], Shape]:
    """A bending of the page: the same for all shapes, so that what belongs together stays together."""
    a, b = rng.uniform(0, math.tau), rng.uniform(0, math.tau)
    turn = math.tau / wave

    def bend(shape: Shape) -> Shape:
        return [
            (x + reach * math.sin(y * turn + a), y + reach * math.sin(x * turn * 0.8 + b)) for x, y in shape
        ]

    return bend


_PAINTERS = {
    "flat": (_flat, 0.0),
    "shaded": (_shaded, 0.0),
    "outlined": (_outlined, 2.4),
    "crayon": (_crayon, 2.4),
}
"""What paints a layer, and how far its lines reach beyond the shapes."""

STYLES: tuple[str, ...] = tuple(_PAINTERS)


def render(layers: Sequence[Layer], rng: random.Random, style: str, size: int) -> Image.Image:
    """Paint the layers, scaled to fill a square of ``size`` up to a margin."""
    big = size * SUPERSAMPLING
    paint, reach = _PAINTERS[style]
    fitted, unit = _fitted(layers, big, _MARGIN + reach)
    if style == "crayon":
        bend = _wobble(rng, 0.7 * unit, 31 * unit)
        fitted = [
            Layer(layer.colour, [bend(s) for s in layer.shapes], layer.contour, [bend(s) for s in layer.within])
            for layer in fitted
        ]
    image = Image.new("RGBA", (big, big))
    canvas = ImageDraw.Draw(image)
    for layer in fitted:
        if layer.within:
            colour = _muted(layer.colour) if style == "crayon" else layer.colour
            mask = ImageChops.darker(_mask(layer.shapes, big), _mask(layer.within, big))
            # Pasting costs by the pixel, and most marks are small.
            if box := mask.getbbox():
                image.paste(colour, box, mask.crop(box))
        else:
            paint(canvas, layer, unit, rng)
    # Halved at first, which is twice as fast; with premultiplied alpha, so that no dark rim comes of it.
    half = image.convert("RGBa").reduce(2)
    image = half.resize((size, size), Image.Resampling.LANCZOS).convert("RGBA")
    return _lamplight(image) if style == "shaded" else image


def _fitted(layers: Sequence[Layer], size: int, margin: float) -> tuple[list[Layer], float]:
    """The layers in pixels, and the length of one unit of the page: about the same line for every animal."""
    points = [p for layer in layers if not layer.within for shape in layer.shapes for p in shape]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    top, bottom = min(y for _, y in points), max(y for _, y in points)
    unit = size / 100
    scale = (size - 2 * margin * unit) / max(right - left, bottom - top)
    dx, dy = size / 2 - scale * (left + right) / 2, size / 2 - scale * (top + bottom) / 2

    def fit(shapes: Sequence[Shape]) -> list[Shape]:
        return [[(x * scale + dx, y * scale + dy) for x, y in shape] for shape in shapes]

    return [Layer(la.colour, fit(la.shapes), la.contour, fit(la.within)) for la in layers], unit


def _fill(canvas: ImageDraw.ImageDraw, colour: Colour, shapes: Sequence[Shape]) -> None:
    for shape in shapes:
        canvas.polygon(shape, fill=(*colour, 255))


def _mask(shapes: Sequence[Shape], size: int) -> Image.Image:
    mask = Image.new("L", (size, size))
    canvas = ImageDraw.Draw(mask)
    for shape in shapes:
        canvas.polygon(shape, fill=255)
    return mask


def _lamplight(image: Image.Image) -> Image.Image:
    """Brighter at the upper left, darker at the lower right, over the whole animal."""
    lit = ImageChops.overlay(image.convert("RGB"), _lamp(image.width))
    lit.putalpha(image.getchannel("A"))
    return lit


@cache
def _lamp(size: int) -> Image.Image:
    slope = Image.linear_gradient("L").resize((size, size)).point(lambda v: 160 - v * 62 // 255)
    across = ImageChops.add(slope, slope.transpose(Image.Transpose.TRANSPOSE), scale=2)
    return Image.merge("RGB", (across, across, across))
