"""What is behind the animals: plain colours, gradients, stripes, dots, hills and soft blotches."""

from __future__ import annotations

import random
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

Color: TypeAlias = tuple[int, int, int]
Field: TypeAlias = Any
"""A numpy array ``[size, size]`` of 0..1."""


def paint_backdrop(rng: random.Random, size: int) -> Image.Image:
    """Returns a square RGB backdrop whose side has so many pixels."""
    paint = rng.choice((_plain, _gradient, _stripes, _dots, _hills, _blotches))
    field = paint(rng, size)  # 0..1: how much of the second colour
    first, second = (np.array(_color(rng), dtype=np.float32) for _ in range(2))
    pixels = first + field[..., None] * (second - first)
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def _color(rng: random.Random) -> Color:
    """Returns a random colour, light and pale more often than dark."""
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
    """Returns noise of a few pixels, enlarged smoothly."""
    cells = rng.randint(3, 8)
    noise = np.array([[rng.randint(0, 255) for _ in range(cells)] for _ in range(cells)], dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32) / 255
