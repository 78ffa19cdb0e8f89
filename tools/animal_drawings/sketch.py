"""The page an animal is drawn on: a list of coloured shapes, which a style turns into an image."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from animal_drawings.palettes import Coat, Colour
from animal_drawings.shapes import Shape

T = TypeVar("T")


@dataclass(frozen=True)
class Layer:
    """Shapes of one colour, painted together.

    Attributes:
        colour: Their colour.
        shapes: Their outlines; where they overlap they are one piece, without a contour between them.
        contour: Whether a style with contours draws one around them.
        within: Shapes that the layer does not leave, such as the body that spots lie on; ``()`` is everywhere.
    """

    colour: Colour
    shapes: Sequence[Shape]
    contour: bool
    within: Sequence[Shape] = ()


class Sketch:
    """A growing list of layers, with the chance and the colours that animals are drawn from."""

    def __init__(self, rng: random.Random, coat: Coat) -> None:
        self.rng = rng
        self.coat = coat
        self.gaze = rng.choice(("dot", "shine", "shine", "white"))
        self.eye_size = self.vary(1.0)
        self.layers: list[Layer] = []
        self._frame = (1.0, 0.0, 0.0)

    def vary(self, value: float, by: float = 0.15) -> float:
        """The value, up to a share ``by`` larger or smaller."""
        return value * self.rng.uniform(1 - by, 1 + by)

    def pick(self, *options: T) -> T:
        """One of the options."""
        return self.rng.choice(options)

    def part(self, colour: Colour, *shapes: Shape) -> None:
        """Paint a part of the body, which has a contour; overlapping shapes become one piece."""
        self.layers.append(Layer(colour, self._framed(shapes), contour=True))

    def mark(self, colour: Colour, *shapes: Shape, within: Sequence[Shape] = ()) -> None:
        """Paint something on the body, without a contour: a stripe, an eye, a mouth."""
        self.layers.append(Layer(colour, self._framed(shapes), contour=False, within=self._framed(within)))

    @contextmanager
    def placed(self, scale: float, x: float, y: float) -> Iterator[None]:
        """Draw smaller, with the middle of the page at (x, y): a face on top of a body."""
        before = self._frame
        self._frame = (scale, x - scale * 50, y - scale * 50)
        yield
        self._frame = before

    def _framed(self, shapes: Sequence[Shape]) -> list[Shape]:
        scale, dx, dy = self._frame
        return [[(x * scale + dx, y * scale + dy) for x, y in shape] for shape in shapes]
