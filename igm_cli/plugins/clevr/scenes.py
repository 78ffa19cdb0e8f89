"""Sampling of CLEVR scenes: what lies where, seen from where, lit from where.

The rules are those of clevr-dataset-gen (Johnson et al., CVPR 2017, arXiv:1612.06890, `image_generation/render_images.py`): objects on
[-3, 3]², surfaces 0.25 apart, centres 0.4 apart along both axes of the picture, camera and lamps jittered, every object visible. The camera is
fitted to renders of CLEVR's own Blender scene: it stands at `CAMERA` plus a jitter, looks at the origin, 35 mm lens on a 32 mm sensor.

A scene depends on (seed, index) only, never on what else is sampled with it.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from igm_cli.plugins.clevr.renderer import (
    LIGHTS,
    SHAPES,
    TEXTURES,
    camera_basis,
    focal_length,
    render,
    visible_pixels,
)

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

CAMERA = (
    7.48113,
    -6.50764,
    5.34367,
)  # the mean of 1 500 cameras recovered from 3d_coords and pixel_coords agrees to 0.01
CAMERA_JITTER = 0.5
LIGHT_JITTER = 1.0
PLANE = 3.0
MIN_DISTANCE = 0.25
MARGIN = 0.4
MIN_VISIBLE = 200 / (320 * 240)  # least visible share of the picture an object may have
MAX_PLACEMENTS = 50  # tries to place one object before the whole scene starts again
MAX_ATTEMPTS = 300


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
        texture: None, or a pattern out of `TEXTURES` on objects and ground.
        crowd: Share of the scenes whose objects share a small part of the plane, so that they hide one another often.
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
        low, high = self.objects
        if not 1 <= low <= high <= 12:
            raise ValueError(f"objects={self.objects}: give (min, max) with 1 <= min <= max <= 12.")
        if not 0.0 <= self.crowd <= 1.0:
            raise ValueError(f"crowd={self.crowd}: give a probability between 0 and 1.")
        if min(self.image_size) < 16:
            raise ValueError(f"image_size={self.image_size}: give (width, height) of at least 16 pixels.")
        for name, values, known in (
            ("colors", self.colors, COLORS),
            ("shapes", self.shapes, SHAPES),
            ("materials", self.materials, CLEVR_MATERIALS),
            ("light", (self.light,), LIGHTS),
            ("texture", () if self.texture is None else (self.texture,), TEXTURES),
        ):
            _check_names(name, values, known)
        if not isinstance(self.sizes, Mapping):
            _check_names("sizes", self.sizes, SIZES)
        if not (self.colors and self.shapes and self.sizes and self.materials):
            raise ValueError("colors, shapes, sizes and materials need at least one value each.")
        if not all(0.1 <= radius <= 1.2 for radius in self.radii.values()):
            raise ValueError(f"sizes={self.sizes}: give radii between 0.1 and 1.2.")

    @property
    def radii(self) -> dict[str, float]:
        """Size name to radius in scene units."""
        return (
            dict(self.sizes) if isinstance(self.sizes, Mapping) else {name: SIZES[name] for name in self.sizes}
        )


def _check_names(what: str, values: Iterable[str], known: Iterable[str]) -> None:
    names = tuple(known)
    for value in values:
        if value not in names:
            raise ValueError(f"{what}: '{value}' is unknown; choose from {', '.join(names)}.")


@dataclass(frozen=True)
class SceneObject:
    """One object; `x`, `y`, `radius` in scene units.

    `rotation` about the vertical is 0..360 as in CLEVR's annotations; CLEVR hands that number to Blender as radians, and so do we.
    """

    shape: str
    size: str
    color: str
    material: str
    x: float
    y: float
    radius: float
    rotation: float


@dataclass(frozen=True)
class Layout:
    """One sampled scene before it becomes tensors; `lights` are the jitters of key, fill and back lamp."""

    index: int
    objects: tuple[SceneObject, ...]
    camera: tuple[float, float, float]
    lights: tuple[tuple[float, float, float], ...]
    texture_seed: float


@dataclass(frozen=True)
class Scenes:
    """A batch of B scenes, padded to K objects.

    Attributes:
        position: [B,K,3] centres in scene units.
        radius: [B,K] scene units.
        rotation: [B,K] radians about the vertical (CLEVR's number as it is, see `SceneObject`).
        shape: [B,K] index into `SHAPES`.
        rgb: [B,K,3] linear base colour in 0..1.
        metal: [B,K] bool.
        present: [B,K] bool, False on padding.
        camera: [B,3] scene units.
        lights: [B,3,3] jitter of key, fill and back lamp in scene units.
        texture_seed: [B] in 0..1, fixes the scene's pattern.
        layouts: The same as Python values, with the names.
        options: What was sampled from.
    """

    position: Tensor
    radius: Tensor
    rotation: Tensor
    shape: Tensor
    rgb: Tensor
    metal: Tensor
    present: Tensor
    camera: Tensor
    lights: Tensor
    texture_seed: Tensor
    layouts: tuple[Layout, ...]
    options: SceneOptions

    def __len__(self) -> int:
        return len(self.layouts)


def sample_scenes(options: SceneOptions, indices: Sequence[int], seed: int) -> Scenes:
    """Samples the scenes with the given indices.

    Scenes with an object hidden too far are drawn again from a further stream of the same (seed, index).

    Args:
        options: What may occur.
        indices: Scene numbers; each scene depends on `seed` and its own number only.
        seed: Set number; different seeds give independent sets.

    Returns:
        B scenes in the order of `indices`.
    """
    layouts: list[Layout | None] = [None] * len(indices)
    pending = list(range(len(indices)))
    for attempt in range(MAX_ATTEMPTS):
        drawn = [_sample_layout(options, indices[i], seed, attempt) for i in pending]
        fine = _all_visible(stack(drawn, options)) if drawn else []
        for i, layout, visible in zip(pending, drawn, fine, strict=True):
            layouts[i] = layout if visible else None
        pending = [i for i in pending if layouts[i] is None]
        if not pending:
            return stack([layout for layout in layouts if layout is not None], options)
    raise RuntimeError(
        f"No scene with {options.objects} visible objects found in {MAX_ATTEMPTS} attempts; allow fewer or smaller objects."
    )


def _all_visible(scenes: Scenes) -> list[bool]:
    width, height = scenes.options.image_size
    pixels = visible_pixels(scenes, scenes.options.image_size)
    enough = pixels >= MIN_VISIBLE * width * height
    return [bool(value) for value in (enough | ~scenes.present).all(dim=1)]


def _sample_layout(options: SceneOptions, index: int, seed: int, attempt: int) -> Layout:
    stream = random.Random(
        f"igm-clevr:{seed}:{index}:{attempt}"
    )  # a string seed is hashed (SHA-512), the same on every platform
    x, y, z = (base + stream.uniform(-CAMERA_JITTER, CAMERA_JITTER) for base in CAMERA)
    lights = tuple((_jitter(stream), _jitter(stream), _jitter(stream)) for _ in range(3))
    count = stream.randint(*options.objects)
    objects = _place_objects(options, stream, count, (x, y))
    return Layout(index, objects, (x, y, z), lights, stream.random())


def _jitter(stream: random.Random) -> float:
    return stream.uniform(-LIGHT_JITTER, LIGHT_JITTER)


def _place_objects(
    options: SceneOptions, stream: random.Random, count: int, camera: tuple[float, float]
) -> tuple[SceneObject, ...]:
    crowded = stream.random() < options.crowd
    half = stream.uniform(0.4, 0.6) * PLANE if crowded else PLANE
    for _ in range(1000):
        center = [stream.uniform(half - PLANE, PLANE - half) for _ in range(2)]
        placed: list[SceneObject] = []
        while (
            len(placed) < count
            and (new := _place_one(options, stream, placed, center, half, camera)) is not None
        ):
            placed.append(new)
        if len(placed) == count:
            return tuple(placed)
        half = min(PLANE, half * 1.05)  # a crowd too dense for its number of objects gets more room
    raise RuntimeError(
        f"{count} objects of sizes {sorted(options.radii.values())} do not fit on the plane; allow fewer or smaller ones."
    )


def _place_one(
    options: SceneOptions,
    stream: random.Random,
    placed: Sequence[SceneObject],
    center: Sequence[float],
    half: float,
    camera: tuple[float, float],
) -> SceneObject | None:
    radii = options.radii
    size = stream.choice(sorted(radii))
    for _ in range(MAX_PLACEMENTS):
        x, y = (c + stream.uniform(-half, half) for c in center)
        if all(_apart(x, y, radii[size], other, camera) for other in placed):
            shape, color = stream.choice(options.shapes), stream.choice(options.colors)
            return SceneObject(
                shape,
                size,
                color,
                stream.choice(options.materials),
                x,
                y,
                radii[size],
                stream.uniform(0.0, 360.0),
            )
    return None


def _apart(x: float, y: float, radius: float, other: SceneObject, camera: tuple[float, float]) -> bool:
    """Whether surfaces lie `MIN_DISTANCE` and centres `MARGIN` apart along the picture's left-right and front-behind directions."""
    dx, dy = x - other.x, y - other.y
    if math.hypot(dx, dy) - radius - other.radius <= MIN_DISTANCE:
        return False
    norm = math.hypot(*camera)
    front, side = (camera[0] / norm, camera[1] / norm), (-camera[1] / norm, camera[0] / norm)
    return min(abs(dx * front[0] + dy * front[1]), abs(dx * side[0] + dy * side[1])) >= MARGIN


def stack(layouts: Sequence[Layout], options: SceneOptions) -> Scenes:
    """Turns layouts into padded tensors (see `Scenes`)."""
    width = max((len(layout.objects) for layout in layouts), default=0)
    rows = [[*layout.objects, *[_PADDING] * (width - len(layout.objects))] for layout in layouts]
    return Scenes(
        position=torch.tensor([[(o.x, o.y, o.radius) for o in row] for row in rows]).view(-1, width, 3),
        radius=torch.tensor([[o.radius for o in row] for row in rows]).view(-1, width),
        rotation=torch.tensor([[o.rotation for o in row] for row in rows]).view(-1, width),
        shape=torch.tensor([[SHAPES.index(o.shape) for o in row] for row in rows]).view(-1, width),
        rgb=torch.tensor([[COLORS[o.color] for o in row] for row in rows], dtype=torch.float32).view(
            -1, width, 3
        )
        / 255,
        metal=torch.tensor([[o.material == "metal" for o in row] for row in rows]).view(-1, width),
        present=torch.tensor([[o is not _PADDING for o in row] for row in rows]).view(-1, width),
        camera=torch.tensor([layout.camera for layout in layouts]).view(-1, 3),
        lights=torch.tensor([layout.lights for layout in layouts]).view(-1, 3, 3),
        texture_seed=torch.tensor([layout.texture_seed for layout in layouts]),
        layouts=tuple(layouts),
        options=options,
    )


_PADDING = SceneObject("sphere", "", "gray", "rubber", 0.0, 0.0, 0.35, 0.0)


def project(points: Tensor, camera: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Projects points into the picture.

    Args:
        points: [B,K,3] scene units.
        camera: [B,3] scene units; it looks at the origin.
        image_size: (width, height) in pixels.

    Returns:
        [B,K,3]: x and y in pixels from the upper left corner, depth along the view axis in scene units.
    """
    width, height = image_size
    right, up, forward = (axis[:, None] for axis in camera_basis(camera.double()))
    offset = points.double() - camera.double()[:, None]
    depth = (offset * forward).sum(-1)
    scale = focal_length(width) / depth
    x = width / 2 + (offset * right).sum(-1) * scale
    y = height / 2 - (offset * up).sum(-1) * scale
    return torch.stack([x, y, depth], dim=-1)


def annotations(scenes: Scenes) -> list[dict[str, Any]]:
    """Describes each scene in the layout of CLEVR's scene files.

    Returns:
        One dict a scene with split, image_index, image_filename, objects (shape, size, color, material, rotation, 3d_coords in scene
        units, pixel_coords [x px, y px, depth]) and directions (unit vectors on the plane).
    """
    pixels = project(scenes.position, scenes.camera, scenes.options.image_size).tolist()
    split = scenes.options.split
    return [
        {
            "split": split,
            "image_index": layout.index,
            "image_filename": f"CLEVR_{split}_{layout.index:06d}.png",
            "objects": [_describe(o, place) for o, place in zip(layout.objects, row, strict=False)],
            "directions": _directions(layout.camera),
        }
        for layout, row in zip(scenes.layouts, pixels, strict=True)
    ]


def _describe(item: SceneObject, pixel: Sequence[float]) -> dict[str, Any]:
    return {
        "shape": item.shape,
        "size": item.size,
        "color": item.color,
        "material": item.material,
        "rotation": round(item.rotation, 4),
        "3d_coords": [round(item.x, 4), round(item.y, 4), round(item.radius, 4)],
        "pixel_coords": [round(pixel[0], 3), round(pixel[1], 3), round(pixel[2], 4)],
    }


def _directions(camera: tuple[float, float, float]) -> dict[str, list[float]]:
    norm = math.hypot(camera[0], camera[1])
    x, y = round(camera[0] / norm, 4), round(camera[1] / norm, 4)
    return {"behind": [-x, -y, 0.0], "front": [x, y, 0.0], "left": [y, -x, 0.0], "right": [-y, x, 0.0]}


def render_examples(
    options: SceneOptions,
    count: int,
    seed: int,
    batch: int = 64,
    device: str = "cpu",
    start: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Renders scenes start .. start + count - 1 of a set.

    Args:
        options: What may occur.
        count: Number of scenes.
        seed: Set number.
        batch: Scenes rendered at a time; does not change the result.
        device: Torch device that casts the rays.
        start: First scene, to go on where a run stopped.
        progress: Called with (done, count) after each batch.

    Yields:
        {"image": uint8 [H,W,3] numpy array, "objects": [...] as in CLEVR's scene files, "image_index": int}.
    """
    for first in range(start, start + count, batch):
        scenes = sample_scenes(options, range(first, min(first + batch, start + count)), seed)
        images = render(scenes, options.image_size, device=device).permute(0, 2, 3, 1).cpu().numpy()
        for image, scene in zip(images, annotations(scenes), strict=True):
            yield {"image": image, "objects": scene["objects"], "image_index": scene["image_index"]}
        if progress is not None:
            progress(min(first + batch, start + count) - start, count)
