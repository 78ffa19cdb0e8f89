"""What may occur in a scene: the names of colours, shapes, sizes and materials, and the choice among them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from igm_cli.plugins.clevr.lamps import LIGHTS
from igm_cli.plugins.clevr.shapes import SHAPES
from igm_cli.plugins.clevr.textures import TEXTURES

CLEVR_COLORS: dict[str, tuple[int, int, int]] = {
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
UNSEEN_COLORS: dict[str, tuple[int, int, int]] = {
    "orange": (255, 120, 10),
    "pink": (255, 130, 180),
    "white": (240, 240, 240),
    "black": (12, 12, 12),
    "olive": (95, 110, 10),
    "navy": (10, 15, 80),
    "lime": (120, 240, 20),
    "magenta": (220, 15, 150),
}
COLORS = CLEVR_COLORS | UNSEEN_COLORS
CLEVR_SHAPES = ("cube", "sphere", "cylinder")
CLEVR_MATERIALS = ("rubber", "metal")
SIZES: dict[str, float] = {"large": 0.7, "small": 0.35, "tiny": 0.25, "medium": 0.5, "huge": 0.95}
CLEVR_SIZES: dict[str, float] = {name: SIZES[name] for name in ("large", "small")}


@dataclass(frozen=True)
class SceneOptions:
    """What may occur in a scene; the defaults are CLEVR's, other values make sets a model has never seen.

    Attributes:
        objects: Least and greatest number of objects, both included.
        colors: Names out of `COLORS`.
        shapes: Names out of `SHAPES`: cube, sphere, cylinder, and the unseen cone.
        sizes: Name to radius in scene units; a tuple of names looks the radii up in `SIZES`.
        materials: Names out of rubber and metal.
        light: `default` or `shifted` (other lamp places, colours and strengths).
        texture: None, or patterns out of `TEXTURES` with commas between them; the ground and every object wear
            one of them each.
        crowd: Share of the scenes whose objects share a small part of the plane, so that they hide one
            another often.
        image_size: (width, height) in pixels; annotations and the visibility rule refer to it.
        split: Name written into the annotations.
    """

    objects: tuple[int, int] = (3, 5)
    colors: tuple[str, ...] = tuple(CLEVR_COLORS)
    shapes: tuple[str, ...] = CLEVR_SHAPES
    sizes: Mapping[str, float] | tuple[str, ...] = field(default_factory=lambda: dict(CLEVR_SIZES))
    materials: tuple[str, ...] = CLEVR_MATERIALS
    light: str = "default"
    texture: str | None = None
    crowd: float = 0.0
    image_size: tuple[int, int] = (96, 64)
    split: str = "train"

    def __post_init__(self) -> None:
        self._check_numbers()
        _check_names("colors", self.colors, COLORS)
        _check_names("shapes", self.shapes, SHAPES)
        _check_names("materials", self.materials, CLEVR_MATERIALS)
        _check_names("light", (self.light,), LIGHTS)
        if self.texture is not None:
            _check_names("texture", self.textures, TEXTURES)
        self._check_sizes()

    def _check_numbers(self) -> None:
        low, high = self.objects
        if not 1 <= low <= high <= 12:
            raise ValueError(f"objects={self.objects}: give (min, max) with 1 <= min <= max <= 12.")
        if not 0.0 <= self.crowd <= 1.0:
            raise ValueError(f"crowd={self.crowd}: give a probability between 0 and 1.")
        if min(self.image_size) < 16:
            raise ValueError(f"image_size={self.image_size}: give (width, height) of at least 16 pixels.")

    def _check_sizes(self) -> None:
        if not isinstance(self.sizes, Mapping):
            _check_names("sizes", self.sizes, SIZES)
        if not (self.colors and self.shapes and self.sizes and self.materials):
            raise ValueError("colors, shapes, sizes and materials need at least one value each.")
        if not all(0.1 <= radius <= 1.2 for radius in self.radii.values()):
            raise ValueError(f"sizes={self.sizes}: give radii between 0.1 and 1.2.")

    @property
    def textures(self) -> tuple[str, ...]:
        """Names of the patterns; none where surfaces are plain."""
        return () if self.texture is None else tuple(self.texture.split(","))

    @property
    def radii(self) -> dict[str, float]:
        """Size name to radius in scene units."""
        if isinstance(self.sizes, Mapping):
            return dict(self.sizes)
        return {name: SIZES[name] for name in self.sizes}


def _check_names(what: str, values: Iterable[str], known: Iterable[str]) -> None:
    names = tuple(known)
    for value in values:
        if value not in names:
            raise ValueError(f"{what}: '{value}' is unknown; choose from {', '.join(names)}.")
