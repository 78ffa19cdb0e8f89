"""Other drawings of the same animal: random changes of a pictogram's shape, strokes and colours.

For training only.  There are few pictograms of an animal, and what is learned from them should hold for drawings by
others: in other colours, in few colours, as filled lines, as a silhouette.
"""

from __future__ import annotations

import colorsys
import math
import random
from itertools import product

import numpy as np
from PIL import Image, ImageChops, ImageFilter
from scipy.ndimage import binary_fill_holes

CELLS = 3
"""Cells along each side of the grid whose corners are moved."""

MONOCHROME = 0.9
"""Least proportion of one colour for which a pictogram is a silhouette or lines, to be coloured in."""

GAP = 3
"""Width of the window, in pixels at half size, that closes gaps between the lines of a figure before it is filled."""

Color = tuple[int, int, int]


def vary(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Returns another drawing of an RGBA pictogram, cropped, or a third of the time only another colouring.

    A pictogram in one colour is always coloured in.
    """
    alone = _is_monochrome(picture)
    if not alone and rng.random() < 1 / 3:
        return _shifted_colors(picture, rng)
    picture = _warped(_with_margin(picture), rng)
    picture = _colored_in(picture, rng) if alone else _shifted_colors(_redrawn(picture, rng), rng)
    return picture.crop(picture.getbbox())


def _is_monochrome(picture: Image.Image) -> bool:
    pixels = np.asarray(picture)
    solid = pixels[pixels[..., 3] > 200][:, :3].astype(np.int16)
    if not len(solid):
        return True
    return bool((np.abs(solid - np.median(solid, axis=0)).max(1) < 24).mean() > MONOCHROME)


def _with_margin(picture: Image.Image) -> Image.Image:
    """Returns a picture with a tenth more on every side, so that warping does not cut it off."""
    width, height = picture.size
    canvas = Image.new("RGBA", (round(1.2 * width), round(1.2 * height)))
    canvas.paste(picture, (round(0.1 * width), round(0.1 * height)))
    return canvas


def _warped(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Returns a picture sheared, with the corners of a grid moved."""
    strength, shear = abs(rng.gauss(0, 0.045)), rng.gauss(0, 0.12)
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
    """Returns a picture unchanged, in fewer or other colours, with softer details, with a contour, or as filled lines."""
    kind = rng.random()
    if kind < 0.3:
        return picture
    alpha = picture.getchannel("A")
    if kind < 0.45:
        drawn = picture.convert("RGB").quantize(rng.randint(4, 8)).convert("RGB")
    elif kind < 0.55:
        drawn = picture.convert("RGB").filter(ImageFilter.MedianFilter(rng.choice((3, 5, 7))))
    elif kind < 0.7:
        drawn = _in_other_colors(picture, rng)
    elif kind < 0.8:
        return _outlined(picture, rng)
    else:
        return _inked(picture, rng)
    drawn.putalpha(alpha)
    return drawn


def _outlined(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Returns a picture with a contour, more often dark than white."""
    alpha = picture.getchannel("A")
    wide = alpha.filter(ImageFilter.MaxFilter(rng.choice((3, 5))))
    shade = 245 if rng.random() < 0.25 else rng.randint(10, 90)
    contour = Image.new("RGBA", picture.size, (shade, shade, shade, 255))
    contour.putalpha(ImageChops.lighter(wide, alpha))
    contour.alpha_composite(picture)
    return contour


def _inked(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Returns the contours of a picture and its parts as dark lines, filled with one or a few of its colours."""
    alpha = picture.getchannel("A")
    over = Image.new("RGB", picture.size, (255, 255, 255))
    over.paste(picture, (0, 0), alpha)
    grey = over.convert("L").filter(ImageFilter.MedianFilter(3))
    edges = ImageChops.subtract(grey.filter(ImageFilter.MaxFilter(3)), grey.filter(ImageFilter.MinFilter(3)))
    least = rng.randint(25, 60)
    lines = edges.point(lambda step: min(255, max(0, 4 * (step - least))))
    border = ImageChops.subtract(alpha.filter(ImageFilter.MaxFilter(rng.choice((3, 5)))), alpha)
    lines = ImageChops.lighter(ImageChops.darker(lines, alpha), border)
    kind = rng.random()
    if kind < 0.5:
        fill = over.quantize(rng.randint(3, 6)).convert("RGB")
    else:
        fill = Image.new("RGB", picture.size, (250, 250, 250) if kind < 0.7 else _fur(rng))
    ink = rng.randint(0, 70)
    fill.paste((ink, ink, ink), (0, 0, *picture.size), lines)
    fill.putalpha(ImageChops.lighter(alpha, border))
    return fill


def _in_other_colors(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Returns a picture in few colours, RGB, each replaced by another; light ones mostly stay light."""
    few = picture.convert("RGB").quantize(rng.randint(3, 6))
    colors = np.array((few.getpalette() or [])[: 3 * 6], dtype=np.uint8).reshape(-1, 3)
    new = np.array([_fur(rng) if rng.random() < 0.6 else _any_color(rng) for _ in colors])
    if rng.random() < 0.75:
        new = new[new.sum(1).argsort()][colors.sum(1, dtype=np.int64).argsort().argsort()]
    return Image.fromarray(new.astype(np.uint8)[np.asarray(few)])


def _colored_in(figure: Image.Image, rng: random.Random) -> Image.Image:
    """Returns a figure of one colour in another one, mostly with its inside filled with a second."""
    ink = figure.getchannel("A")
    body = _filled(ink)
    lines = sum(ink.histogram()[128:]) < 0.6 * sum(body.histogram()[128:])
    dark, light = rng.randint(0, 70), rng.randint(225, 255)
    if lines:
        color = (dark,) * 3 if rng.random() < 0.7 else _any_color(rng)
        second = _fur(rng) if rng.random() < 0.7 else (light,) * 3
    else:
        color = _fur(rng) if rng.random() < 0.7 else (dark,) * 3
        second = (light,) * 3 if sum(color) < 300 or rng.random() < 0.6 else (dark,) * 3
    drawn = Image.new("RGBA", figure.size)
    if rng.random() < 0.85:
        drawn.paste((*second, 255), (0, 0, *figure.size), body)
    over = Image.new("RGBA", figure.size, (*color, 255))
    over.putalpha(ink)
    drawn.alpha_composite(over)
    if not lines and rng.random() < 0.4:
        return _outlined(drawn, rng)
    return drawn


def _filled(ink: Image.Image) -> Image.Image:
    """Returns a figure ``L`` with its inside filled and small gaps between its lines closed."""
    width, height = (-(-side // 2) for side in ink.size)  # at half the size, a quarter of the time
    walls = Image.new("L", (width + 2 * GAP, height + 2 * GAP))
    walls.paste(ink.resize((width, height)).point(lambda a: 255 * (a > 80)), (GAP, GAP))
    walls = walls.filter(ImageFilter.MaxFilter(GAP))
    inside = binary_fill_holes(np.asarray(walls)).astype(np.uint8)
    solid = Image.fromarray(255 * inside).filter(ImageFilter.MinFilter(GAP))
    return ImageChops.lighter(ink, solid.crop((GAP, GAP, GAP + width, GAP + height)).resize(ink.size))


def _fur(rng: random.Random) -> Color:
    """Returns a typical colour of drawn animals: brown to yellow half of the time, grey, or any pale one."""
    kind = rng.random()
    if kind < 0.55:
        hue, saturation, value = rng.uniform(0.02, 0.14), rng.uniform(0.25, 0.95), rng.uniform(0.4, 1.0)
    elif kind < 0.85:
        hue, saturation, value = rng.random(), rng.uniform(0.0, 0.12), rng.uniform(0.35, 1.0)
    else:
        hue, saturation, value = rng.random(), rng.uniform(0.1, 0.5), rng.uniform(0.7, 1.0)
    return _of_hsv(hue, saturation, value)


def _any_color(rng: random.Random) -> Color:
    return _of_hsv(rng.random(), rng.random(), rng.uniform(0.1, 1.0))


def _of_hsv(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def _shifted_colors(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Returns another colouring of the same drawing: mostly a similar one, sometimes any, sometimes grey."""
    kind = rng.random()
    alpha = picture.getchannel("A")
    hue, saturation, value = picture.convert("RGB").convert("HSV").split()
    turn = rng.randint(0, 255) if kind < 0.2 else round(rng.gauss(0, 8))
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
