"""Sampling of scenes: objects and their places, camera and lamps.

The rules are those of clevr-dataset-gen (Johnson et al., CVPR 2017, arXiv:1612.06890,
`image_generation/render_images.py`): centres lie in [-3, 3]², surfaces 0.25 apart, and centres 0.4 apart along both
axes of the image; camera and lamps are jittered; every object is visible. A scene depends on (seed, index) only,
never on what else is sampled with it.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

from igm_clevr_render.camera import CAMERA, visible_pixels
from igm_clevr_render.options import MATERIALS, PLANE, SceneOptions
from igm_clevr_render.scenes import Scene, SceneBatch, SceneObject
from igm_cli.errors import UsageError

CAMERA_JITTER = 0.5
LIGHT_JITTER = 1.0
MIN_VISIBLE = 200 / (480 * 320)  # least visible share of the image an object may have
MAX_ATTEMPTS = 300

MIN_DISTANCE = 0.25
MARGIN = 0.4
QUEUE = 0.5  # how narrow a crowd is as seen from the camera: objects in a row hide one another
MAX_PLACEMENTS = 50  # tries to place one object before the whole scene starts again
MAX_REGIONS = 1000  # parts of the plane tried for one scene
MAX_QUEUES = 100  # narrow ones of these tried before a crowd may be as wide as it is long


def sample_scenes(options: SceneOptions, indices: Sequence[int], seed: int) -> list[Scene]:
    """Returns the scenes with the given indices of a set; another seed gives another, independent set.

    Scenes with an object that is too hidden are redrawn from a further stream of the same (seed, index).
    """
    fine: dict[int, Scene] = {}
    pending = list(indices)
    for attempt in range(MAX_ATTEMPTS):
        drawn = [_sample_scene(options, index, seed, attempt) for index in pending]
        fine |= {scene.index: scene for scene in compress(drawn, _all_visible(drawn, options))}
        pending = [index for index in pending if index not in fine]
        if not pending:
            return [fine[index] for index in indices]
    raise UsageError(
        f"these scenes cannot be rendered: No scene with {options.objects} visible objects found in "
        f"{MAX_ATTEMPTS} attempts; allow fewer or smaller objects"
    )


def _all_visible(scenes: Sequence[Scene], options: SceneOptions) -> list[bool]:
    batch, (width, height) = SceneBatch.of(scenes, options), options.image_size
    enough = visible_pixels(batch, options.image_size) >= MIN_VISIBLE * width * height
    seen: list[bool] = (enough | (batch.bound.view(len(batch), -1) == 0)).all(dim=1).tolist()
    return seen


def _sample_scene(options: SceneOptions, index: int, seed: int, attempt: int) -> Scene:
    # A string seed is hashed (SHA-512), the same on every platform
    stream = random.Random(f"igm-clevr:{seed}:{index}:{attempt}")

    def jitter() -> float:
        return stream.uniform(-LIGHT_JITTER, LIGHT_JITTER)

    x, y, z = (base + stream.uniform(-CAMERA_JITTER, CAMERA_JITTER) for base in CAMERA)
    lights = tuple((jitter(), jitter(), jitter()) for _ in range(3))
    objects = _place_objects(options, stream, stream.randint(*options.objects), (x, y))
    return Scene(index, objects, (x, y, z), lights, stream.random())


def _place_objects(
    options: SceneOptions, stream: random.Random, count: int, camera: tuple[float, float]
) -> tuple[SceneObject, ...]:
    """Draws `count` objects of one scene."""
    crowded = stream.random() < options.crowd
    half = stream.uniform(0.25, 0.6) * PLANE if crowded else PLANE
    for number in range(MAX_REGIONS):
        center = (stream.uniform(half - PLANE, PLANE - half), stream.uniform(half - PLANE, PLANE - half))
        region = Region(center, half, QUEUE if crowded and number < MAX_QUEUES else 1.0, camera)
        placed: list[SceneObject] = []
        while len(placed) < count and (item := _place_one(region, options, stream, placed)):
            placed.append(item)
        if len(placed) == count:
            return tuple(placed)
        half = min(PLANE, half * 1.05)  # a crowd too dense for its number of objects gets more room
    raise UsageError(
        f"these scenes cannot be rendered: {count} objects of sizes {sorted(options.sizes.values())} do not fit on "
        "the plane; allow fewer or smaller ones"
    )


@dataclass(frozen=True)
class Region:
    """The part of the plane that a scene's objects share."""

    center: tuple[float, float]  # its middle in scene units
    half: float  # half its side in scene units
    width: float  # its extent across the line of sight as a share of that along it
    camera: tuple[float, float]  # x and y of the camera in scene units

    def holds(self, x: float, y: float) -> bool:
        """Returns whether a point of the square is close enough to the line of sight through the middle."""
        across = abs((x - self.center[0]) * -self.camera[1] + (y - self.center[1]) * self.camera[0])
        return self.width >= 1 or across <= self.width * self.half * math.hypot(*self.camera)


def _place_one(
    region: Region, options: SceneOptions, stream: random.Random, placed: Sequence[SceneObject]
) -> SceneObject | None:
    """Returns one more object, or None if there is no place for it."""
    size, largest = stream.choice(sorted(options.sizes)), max(options.sizes.values())
    for _ in range(MAX_PLACEMENTS):
        x, y = (c + stream.uniform(-region.half, region.half) for c in region.center)
        radius = options.sizes[size]
        if not options.combinations.include(radius == largest, x, y):
            size = stream.choice(sorted(options.sizes))  # both anew: all combinations are equally likely
            continue
        if region.holds(x, y) and all(_apart(x, y, radius, other, region.camera) for other in placed):
            shape, color = stream.choice(options.shapes), stream.choice(options.colors)
            material, rotation = stream.choice(MATERIALS), stream.uniform(0.0, 360.0)
            return SceneObject(shape, size, color, material, x, y, radius, rotation)
    return None


def _apart(x: float, y: float, radius: float, other: SceneObject, camera: tuple[float, float]) -> bool:
    """Returns whether an object at (x, y) keeps its distances.

    Surfaces must be `MIN_DISTANCE` apart, and centres `MARGIN` along the image's left-right and front-behind
    directions.
    """
    dx, dy = x - other.x, y - other.y
    if math.hypot(dx, dy) - radius - other.radius <= MIN_DISTANCE:
        return False
    norm = math.hypot(*camera)
    front, side = (camera[0] / norm, camera[1] / norm), (-camera[1] / norm, camera[0] / norm)
    return min(abs(dx * front[0] + dy * front[1]), abs(dx * side[0] + dy * side[1])) >= MARGIN
