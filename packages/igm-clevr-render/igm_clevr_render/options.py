"""The possible content of scenes: names of colours, shapes, sizes and materials, and the choice among them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from igm_clevr_render.geometry import SHAPES
from igm_clevr_render.lamps import LIGHTS
from igm_clevr_render.materials import TEXTURES
from igm_cli.errors import UsageError
from igm_cli.plugins.adapters import names_option, number_option, number_range

CLEVR_COLORS: dict[str, tuple[int, int, int]] = {
    "gray": (87, 87, 87), "red": (173, 35, 35), "blue": (42, 75, 215), "green": (29, 105, 20),
    "brown": (129, 74, 25), "purple": (129, 38, 192), "cyan": (41, 208, 208), "yellow": (255, 238, 51),
}  # fmt: skip
UNSEEN_COLORS: dict[str, tuple[int, int, int]] = {
    "orange": (255, 120, 10), "pink": (255, 130, 180), "white": (240, 240, 240), "black": (12, 12, 12),
    "olive": (95, 110, 10), "navy": (10, 15, 80), "lime": (120, 240, 20), "magenta": (220, 15, 150),
}  # fmt: skip
COLORS = CLEVR_COLORS | UNSEEN_COLORS
MATERIALS = ("rubber", "metal")
SIZES: dict[str, float] = {"large": 0.7, "small": 0.35, "tiny": 0.25, "medium": 0.5, "huge": 0.95}
PLANE = 3.0  # centres of objects are within this many scene units of the middle, along both axes
CELLS = 20  # of the plane, along each axis: sizes and places may be combined cell by cell
_KNOWN: dict[str, Iterable[str]] = {
    "colors": COLORS, "shapes": SHAPES, "sizes": SIZES, "light": LIGHTS, "texture": TEXTURES,
}  # fmt: skip


@dataclass(frozen=True)
class Combinations:
    """Which sizes occur at which places (Du, Li & Mordatch 2020, section 4.5).

    Some cells of the plane are chosen at random, the same for all scenes; a larger share includes those of a smaller one.

    Attributes:
        share: Share of the cells where objects have any size; elsewhere they have the largest.
        seen: Whether scenes show these combinations, or all others.
    """

    share: float = 1.0
    seen: bool = True

    @classmethod
    def parse(cls, text: Any) -> Combinations:
        """Reads ``all``, ``seen:0.05`` or ``unseen:0.05``."""
        which, _, share = str(text).partition(":")
        if text == "all":
            return cls()
        try:
            found = cls(float(share), {"seen": True, "unseen": False}[which])
        except (KeyError, ValueError):
            found = cls(-1.0)
        if not 0.0 < found.share < 1.0:
            raise ValueError(
                f"combinations: give all, seen:SHARE or unseen:SHARE, 0 < SHARE < 1, not {text!r}."
            )
        return found

    def include(self, largest: bool, x: float, y: float) -> bool:
        """Returns whether an object of the largest size, or of another, may be at a point of the plane."""
        if self.share == 1.0:
            return True
        column, row = (min(CELLS - 1, int((p + PLANE) / (2 * PLANE) * CELLS)) for p in (x, y))
        free = _lot()[row * CELLS + column] < round(self.share * CELLS**2)
        return (largest or free) == self.seen


@cache
def _lot() -> tuple[int, ...]:
    """Returns the numbers of all cells in the order in which they are chosen."""
    numbers = list(range(CELLS**2))
    random.Random("igm-clevr:cells").shuffle(numbers)
    return tuple(numbers)


@dataclass(frozen=True)
class SceneOptions:
    """The possible content of a scene; the defaults are CLEVR's, other values make sets a model has never seen."""

    objects: tuple[int, int] = (3, 5)  # least and greatest number of objects, both included
    colors: tuple[str, ...] = tuple(CLEVR_COLORS)  # names out of `COLORS`
    # names out of `SHAPES`: cube, sphere, cylinder, and the unseen cone
    shapes: tuple[str, ...] = ("cube", "sphere", "cylinder")
    # name to radius in scene units
    sizes: Mapping[str, float] = field(
        default_factory=lambda: {name: SIZES[name] for name in ("large", "small")}
    )
    combinations: Combinations = Combinations()  # of sizes and places
    light: str = "default"  # `default` or `shifted` (other lamp places, colours and strengths)
    # names out of `TEXTURES`, one for the ground and each object; empty for plain surfaces
    textures: tuple[str, ...] = ()
    # proportion of scenes whose objects share a small part of the plane and so often hide one another
    crowd: float = 0.0
    # (width, height) in pixels; annotations and the visibility rule refer to it
    image_size: tuple[int, int] = (96, 64)

    def __post_init__(self) -> None:
        low, high = self.objects
        if not 1 <= low <= high <= 12:
            raise ValueError(f"objects={self.objects}: give (min, max) with 1 <= min <= max <= 12.")
        if not 0.0 <= self.crowd <= 1.0:
            raise ValueError(f"crowd={self.crowd}: give a probability between 0 and 1.")
        if min(self.image_size) < 16:
            raise ValueError(f"image_size={self.image_size}: give (width, height) of at least 16 pixels.")
        given = {"colors": self.colors, "shapes": self.shapes}
        for option, names in {**given, "light": (self.light,), "texture": self.textures}.items():
            _check_names(option, names)
        if not (self.colors and self.shapes and self.sizes):
            raise ValueError("colors, shapes and sizes need at least one value each.")
        if not all(0.1 <= radius <= 1.2 for radius in self.sizes.values()):
            raise ValueError(f"sizes={self.sizes}: give radii between 0.1 and 1.2.")

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> SceneOptions:
        """Reads options as given on a command line or in a preset; ``all`` stands for all known names."""
        values: dict[str, Any] = dict(options)
        if "objects" in values:
            values["objects"] = number_range("objects", values["objects"])
        if "crowd" in values:
            values["crowd"] = number_option("crowd", values["crowd"], 0, whole=False)
        for option in values.keys() & {"colors", "shapes", "sizes", "texture"}:
            values[option] = _names(option, values[option])
        try:
            if "texture" in values:
                values["textures"] = values.pop("texture")
            if "sizes" in values:
                values["sizes"] = {name: _radius(name) for name in values["sizes"]}
            if "combinations" in values:
                values["combinations"] = Combinations.parse(values["combinations"])
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise UsageError(f"these scenes cannot be rendered: {error}") from error


def _check_names(option: str, values: Iterable[str]) -> None:
    for value in values:
        if value not in _KNOWN[option]:
            raise ValueError(f"{option}: '{value}' is unknown; choose from {', '.join(_KNOWN[option])}.")


def _radius(size: str) -> float:
    """Returns the radius of a size, in scene units, by its name or as a number."""
    if size not in SIZES and size.replace(".", "", 1).isdecimal():
        return float(size)
    _check_names("sizes", [size])
    return SIZES[size]


def _names(option: str, value: Any) -> tuple[str, ...]:
    if option == "texture" and value in (None, "none"):
        return ()
    return tuple(_KNOWN[option]) if value == "all" else names_option(option, value)
