"""Backgrounds of animals: plain colours, gradients, stripes, dots, hills and soft blotches; seldom like photographs.

Networks learn to see from fields with the spectrum of photographs, and from leaves that hide one another, almost as well as
from photographs (Baradad et al. 2021, "Learning to see by looking at noise").
"""

from __future__ import annotations

import random
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

Color: TypeAlias = tuple[int, int, int]
Field: TypeAlias = Any
"""A numpy array ``[size, size]`` of 0..1."""


def paint_backdrop(rng: random.Random, size: int, rough: float = 0.0) -> Image.Image:
    """Returns a square RGB backdrop; ``rough`` is the probability that it is like a photograph, or noise."""
    if rough and rng.random() < rough:
        return rng.choice((_grain, _spectrum, _spectrum, _leaves, _leaves))(rng, size)
    paint = rng.choice((_plain, _gradient, _stripes, _dots, _hills, _blotches))
    field = paint(rng, size)  # 0..1: how much of the second colour
    first, second = (np.array(_color(rng), dtype=np.float32) for _ in range(2))
    pixels = first + field[..., None] * (second - first)
    return _image(pixels)


def _image(pixels: Field) -> Image.Image:
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def _color(rng: random.Random) -> Color:
    """Returns a random colour, more often light and pale than dark."""
    light = rng.uniform(90, 255)
    red, green, blue = (round(min(255, max(0, light + rng.gauss(0, 45)))) for _ in range(3))
    return red, green, blue


def _grid(size: int) -> tuple[Field, Field]:
    """Returns coordinates x and y of the pixels, 0..1."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    across: Field = axis[None].repeat(size, 0)
    return across, across.T


def _along(rng: random.Random, size: int) -> Field:
    """Returns distances along a random direction."""
    x, y = _grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    return np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)


def _plain(rng: random.Random, size: int) -> Field:
    return np.zeros((size, size), dtype=np.float32)


def _gradient(rng: random.Random, size: int) -> Field:
    return np.clip(_along(rng, size) + 0.5, 0, 1)


def _stripes(rng: random.Random, size: int) -> Field:
    waves = np.sin(2 * np.pi * rng.uniform(2, 7) * _along(rng, size))
    return np.clip(0.5 + 3 * waves, 0, 1)


def _dots(rng: random.Random, size: int) -> Field:
    x, y = _grid(size)
    number = rng.uniform(3, 7)
    distance = np.hypot((x * number) % 1 - 0.5, (y * number) % 1 - 0.5)
    return np.clip((rng.uniform(0.15, 0.35) - distance) * size / number + 0.5, 0, 1)


def _hills(rng: random.Random, size: int) -> Field:
    x, y = _grid(size)
    line = rng.uniform(0.35, 0.75) + 0.08 * np.sin(2 * np.pi * (rng.uniform(0.5, 2) * x + rng.random()))
    return np.clip((y - line) * size + 0.5, 0, 1)


def _blotches(rng: random.Random, size: int) -> Field:
    """Returns smoothly enlarged noise of a few pixels."""
    cells = rng.randint(3, 8)
    noise = np.array([[rng.randint(0, 255) for _ in range(cells)] for _ in range(cells)], dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32) / 255


def _grain(rng: random.Random, size: int) -> Image.Image:
    """Returns a backdrop with grey or coloured noise on it, or noise alone."""
    noise = np.random.default_rng(rng.getrandbits(32))
    under = np.asarray(paint_backdrop(rng, size), dtype=np.float32)
    grains = noise.normal(size=(size, size, rng.choice((1, 3)))) * rng.uniform(8, 70)
    if rng.random() < 0.2:
        return _image(noise.uniform(0, 256, size=(size, size, 3)))
    return _image(under + grains)


def _spectrum(rng: random.Random, size: int) -> Image.Image:
    """Returns random colours whose amplitudes fall with a power of the frequency, mostly shared by all channels."""
    noise = np.random.default_rng(rng.getrandbits(32))
    radius = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    radius[0, 0] = np.inf
    shape = radius ** -rng.uniform(0.6, 2.0)
    fields = []
    for _ in range(3):
        waves = noise.normal(size=(2, *shape.shape))
        field = np.fft.irfft2((waves[0] + 1j * waves[1]) * shape, s=(size, size))
        fields.append((field - field.mean()) / (field.std() + 1e-9))
    own = rng.uniform(0, 0.6)
    light = fields[0][..., None] + own * np.stack(fields, axis=-1)
    return _image(np.array(_color(rng)) + rng.uniform(15, 65) * light)


def _leaves(rng: random.Random, size: int) -> Image.Image:
    """Returns shapes of many sizes that hide one another, each of its own colour and light (Lee, Mumford & Huang 2001)."""
    side = 2 * size  # drawn twice as large, for smooth borders
    canvas = paint_backdrop(rng, side)
    for _ in range(rng.choice((4, 12, 40, 120))):
        radius = side * min(0.5, 0.03 / rng.random() ** 0.7)
        x, y = rng.uniform(0, side), rng.uniform(0, side)
        count, turn, long = rng.choice((3, 4, 5, 40, 40)), rng.uniform(0, 7), rng.uniform(0.4, 1.0)
        angles = [turn + 2 * np.pi * k / count for k in range(count)]
        outline = [(x + radius * np.cos(a), y + long * radius * np.sin(a)) for a in angles]
        mask = Image.new("L", (side, side))
        ImageDraw.Draw(mask).polygon(outline, fill=255)
        leaf = paint_backdrop(rng, side) if rng.random() < 0.2 else Image.new("RGB", (side, side), _color(rng))
        canvas.paste(leaf, (0, 0), mask)
    image = canvas.resize((size, size), Image.Resampling.LANCZOS)
    if rng.random() < 0.5:  # light from one side
        light = 0.6 + 0.8 * np.clip(_along(rng, size) + 0.5, 0, 1)[..., None]
        image = _image(np.asarray(image, dtype=np.float32) * light)
    return image
