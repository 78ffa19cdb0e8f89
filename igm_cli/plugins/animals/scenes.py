"""Scenes of up to three animals: draws their places, sizes, angles, order and background."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageEnhance

from igm_cli.plugins.animals.backdrops import paint_backdrop
from igm_cli.plugins.animals.variation import vary

MAX_ANIMALS = 3
NOTHING = "nothing"
"""The label of scenes without animals, and the name for pictures of other things."""

VISIBLE = 0.55
"""The least visible proportion of every animal."""

SCALES = {1: (0.42, 0.72), 2: (0.38, 0.58), 3: (0.34, 0.48)}
"""Side of an animal over the side of the image, by the number of animals."""

Pictogram: TypeAlias = Image.Image
"""A picture of an animal with transparent surroundings, RGBA."""


def compose_scene(
    labels: Sequence[str],
    draw: Callable[[str, random.Random], Pictogram],
    rng: random.Random,
    *,
    size: int,
    jitter: bool = False,
) -> Image.Image:
    """Returns a random scene of given animals; the same state of ``rng`` gives the same scene.

    Args:
        labels: Animals from the back to the front; empty for a scene of nothing, which may show other things and is
            like a photograph half of the time.
        draw: Returns a pictogram of an animal.
        rng: Source of every choice.
        size: Side of the image in pixels.
        jitter: Whether to change pictograms and colours at random, for training.
    """
    shown = list(labels) or [NOTHING] * rng.choice((0, 0, 1, 1, 2, 3))
    sprites = [make_sprite(draw(label, rng), rng, size, len(shown), jitter) for label in shown]
    places = find_places(sprites, rng, size)
    canvas = paint_backdrop(rng, size, 0.5 if not labels else 0.15 * jitter)
    for sprite, place in zip(sprites, places, strict=True):
        canvas.paste(sprite, place, sprite)
    return _recolored(canvas, rng) if jitter else canvas


def make_sprite(picture: Pictogram, rng: random.Random, size: int, count: int, jitter: bool) -> Pictogram:
    """Returns a pictogram at a random size and angle, mirrored half of the time."""
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if jitter:
        picture = vary(picture, rng)
    side = rng.uniform(*SCALES[count]) * size
    stretch = math.exp(rng.uniform(-0.12, 0.12))
    angle = rng.gauss(0, 12)
    turned = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    scale = side / max(picture.size)
    width, height = round(turned.width * scale * stretch), round(turned.height * scale / stretch)
    return turned.resize((max(4, width), max(4, height)), Image.Resampling.LANCZOS)


def find_places(sprites: Sequence[Pictogram], rng: random.Random, size: int) -> list[tuple[int, int]]:
    """Returns upper left corners at which every animal is visible; the best of many draws if none fits."""
    best: tuple[float, list[tuple[int, int]]] = (-1.0, [])
    for _ in range(40):
        places = [(_along(s.width, rng, size), _along(s.height, rng, size)) for s in sprites]
        seen = least_visible(sprites, places, size)
        if seen >= VISIBLE:
            return places
        best = max(best, (seen, places), key=lambda pair: pair[0])
    return best[1]


def _along(length: int, rng: random.Random, size: int) -> int:
    """Returns the start of a sprite of that length; up to a tenth of it may stick out."""
    out = round(0.1 * length)
    return rng.randint(-out, max(-out, size - length + out))


def least_visible(sprites: Sequence[Pictogram], places: Sequence[tuple[int, int]], size: int) -> float:
    """Returns the visible proportion of the most hidden animal, 0..1."""
    covered: np.ndarray = np.zeros((size, size), dtype=bool)
    least = 1.0
    for sprite, place in reversed(list(zip(sprites, places, strict=True))):
        solid = sprite.getchannel("A").point(lambda alpha: 255 * (alpha > 127))
        whole = np.count_nonzero(np.asarray(solid))
        mask = Image.new("L", (size, size))
        mask.paste(solid, place)
        body = np.asarray(mask) > 0
        least = min(least, float(np.count_nonzero(body & ~covered)) / max(1.0, float(whole)))
        covered |= body
    return least


def _recolored(image: Image.Image, rng: random.Random) -> Image.Image:
    """Returns the whole scene with another brightness and contrast."""
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.8, 1.15))
    return ImageEnhance.Contrast(image).enhance(rng.uniform(0.8, 1.15))
