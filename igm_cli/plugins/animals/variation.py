"""Other drawings of the same animal: a pictogram with its shape, its strokes and its colours changed at random.

For training only.  Few pictograms of an animal are at hand, and what is learned of them should hold for
drawings by others.
"""

from __future__ import annotations

import math
import random
from itertools import product

from PIL import Image, ImageChops, ImageFilter

CELLS = 3
"""The grid whose corners are moved has so many cells along each side."""


def vary(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Returns another drawing of an RGBA pictogram, half of the time only another colouring; what is redrawn is cropped."""
    if rng.random() < 0.5:
        return _shifted_colors(picture, rng)
    picture = _warped(_with_margin(picture), rng)
    picture = _shifted_colors(_redrawn(picture, rng), rng)
    return picture.crop(picture.getbbox())


def _with_margin(picture: Image.Image) -> Image.Image:
    """Returns a picture a tenth wider on every side, so that what is warped outwards is not cut off."""
    width, height = picture.size
    canvas = Image.new("RGBA", (round(1.2 * width), round(1.2 * height)))
    canvas.paste(picture, (round(0.1 * width), round(0.1 * height)))
    return canvas


def _warped(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Returns a picture sheared, and the corners of a grid moved."""
    strength, shear = abs(rng.gauss(0, 0.035)), rng.gauss(0, 0.1)
    width, height = picture.size
    corners = {}
    for row, column in product(range(CELLS + 1), repeat=2):
        x, y = column / CELLS, row / CELLS
        moved = x + shear * (y - 0.5) + rng.gauss(0, strength), y + rng.gauss(0, strength)
        corners[row, column] = moved[0] * width, moved[1] * height
    xs, ys = ([round(i * side / CELLS) for i in range(CELLS + 1)] for side in (width, height))
    mesh = []
    for row, column in product(range(CELLS), repeat=2):
        around = ((row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1))
        box = (xs[column], ys[row], xs[column + 1], ys[row + 1])
        mesh.append((box, tuple(value for corner in around for value in corners[corner])))
    return picture.transform(picture.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _redrawn(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Returns a picture as it is half of the time, else in fewer colours, with softer details, or with a contour."""
    kind = rng.random()
    if kind < 0.5:
        return picture
    alpha = picture.getchannel("A")
    if kind < 0.7:
        drawn = picture.convert("RGB").quantize(rng.randint(4, 8)).convert("RGB")
    elif kind < 0.85:
        drawn = picture.convert("RGB").filter(ImageFilter.MedianFilter(rng.choice((3, 5, 7))))
    else:
        return _outlined(picture, rng)
    drawn.putalpha(alpha)
    return drawn


def _outlined(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Returns a picture with a contour, dark more often than white."""
    alpha = picture.getchannel("A")
    wide = alpha.filter(ImageFilter.MaxFilter(rng.choice((3, 5))))
    shade = 245 if rng.random() < 0.25 else rng.randint(10, 90)
    contour = Image.new("RGBA", picture.size, (shade, shade, shade, 255))
    contour.putalpha(ImageChops.lighter(wide, alpha))
    contour.alpha_composite(picture)
    return contour


def _shifted_colors(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Returns another colouring of the same drawing: mostly a near one, sometimes any, sometimes grey."""
    kind = rng.random()
    alpha = picture.getchannel("A")
    hue, saturation, value = picture.convert("RGB").convert("HSV").split()
    turn = rng.randint(0, 255) if kind < 0.15 else round(rng.gauss(0, 8))
    vivid = rng.uniform(0.0, 0.2) if kind > 0.85 else rng.uniform(0.5, 1.3)
    bright, contrast, bend = rng.uniform(-25, 25), rng.uniform(0.7, 1.2), math.exp(rng.gauss(0, 0.15))
    hue = hue.point(lambda h: (h + turn) % 256)
    saturation = saturation.point(lambda s: round(min(255, s * vivid)))
    value = value.point(
        lambda v: round(min(255, max(0, 128 + contrast * (255 * (v / 255) ** bend - 128) + bright)))
    )
    colored = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    colored.putalpha(alpha)
    return colored
