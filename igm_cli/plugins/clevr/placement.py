"""Placing of objects on the plane by CLEVR's rules.

Centres lie on [-3, 3]², surfaces 0.25 apart, and centres 0.4 apart along both axes of the picture.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from igm_cli.plugins.clevr.layout import SceneObject
from igm_cli.plugins.clevr.options import SceneOptions

PLANE = 3.0
MIN_DISTANCE = 0.25
MARGIN = 0.4
QUEUE = 0.5  # how narrow a crowd is as seen from the camera: things in a row hide one another
MAX_PLACEMENTS = 50  # tries to place one object before the whole scene starts again
MAX_REGIONS = 1000  # parts of the plane tried for one scene
MAX_QUEUES = 100  # of these, narrow ones tried before a crowd may be as wide as it is long


@dataclass(frozen=True)
class Region:
    """The part of the plane that a scene's objects share.

    Attributes:
        center: Its middle in scene units.
        half: Half its side in scene units.
        width: Its extent across the line of sight as a share of that along it.
    """

    center: tuple[float, float]
    half: float
    width: float

    def holds(self, x: float, y: float, camera: tuple[float, float]) -> bool:
        """Whether a point of the square lies near enough to the line of sight through the middle."""
        across = abs((x - self.center[0]) * -camera[1] + (y - self.center[1]) * camera[0])
        return self.width >= 1 or across <= self.width * self.half * math.hypot(*camera)


def place_objects(
    options: SceneOptions, stream: random.Random, count: int, camera: tuple[float, float]
) -> tuple[SceneObject, ...]:
    """Draws the objects of one scene.

    Args:
        options: What may occur.
        stream: Source of randomness.
        count: Number of objects.
        camera: x and y of the camera in scene units.

    Raises:
        RuntimeError: If they do not fit.
    """
    crowded = stream.random() < options.crowd
    half = stream.uniform(0.25, 0.6) * PLANE if crowded else PLANE
    for number in range(MAX_REGIONS):
        center = (stream.uniform(half - PLANE, PLANE - half), stream.uniform(half - PLANE, PLANE - half))
        region = Region(center, half, QUEUE if crowded and number < MAX_QUEUES else 1.0)
        placed = _fill(region, options, stream, count, camera)
        if len(placed) == count:
            return tuple(placed)
        half = min(PLANE, half * 1.05)  # a crowd too dense for its number of objects gets more room
    raise RuntimeError(
        f"{count} objects of sizes {sorted(options.radii.values())} do not fit on the plane; "
        "allow fewer or smaller ones."
    )


def _fill(
    region: Region, options: SceneOptions, stream: random.Random, count: int, camera: tuple[float, float]
) -> list[SceneObject]:
    """Places objects until there are `count`, or one finds no place."""
    placed: list[SceneObject] = []
    while len(placed) < count:
        item = _place_one(region, options, stream, placed, camera)
        if item is None:
            break
        placed.append(item)
    return placed


def _place_one(
    region: Region,
    options: SceneOptions,
    stream: random.Random,
    placed: Sequence[SceneObject],
    camera: tuple[float, float],
) -> SceneObject | None:
    size = stream.choice(sorted(options.radii))
    radius = options.radii[size]
    for _ in range(MAX_PLACEMENTS):
        x, y = (c + stream.uniform(-region.half, region.half) for c in region.center)
        if region.holds(x, y, camera) and all(_apart(x, y, radius, other, camera) for other in placed):
            shape, color = stream.choice(options.shapes), stream.choice(options.colors)
            material, rotation = stream.choice(options.materials), stream.uniform(0.0, 360.0)
            return SceneObject(shape, size, color, material, x, y, radius, rotation)
    return None


def _apart(x: float, y: float, radius: float, other: SceneObject, camera: tuple[float, float]) -> bool:
    """Whether an object at (x, y) keeps its distances.

    Surfaces must lie `MIN_DISTANCE` apart, and centres `MARGIN` along the picture's left-right and
    front-behind directions.
    """
    dx, dy = x - other.x, y - other.y
    if math.hypot(dx, dy) - radius - other.radius <= MIN_DISTANCE:
        return False
    norm = math.hypot(*camera)
    front, side = (camera[0] / norm, camera[1] / norm), (-camera[1] / norm, camera[0] / norm)
    return min(abs(dx * front[0] + dy * front[1]), abs(dx * side[0] + dy * side[1])) >= MARGIN
