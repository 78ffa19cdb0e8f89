"""Sampling of CLEVR scenes: what lies where, seen from where, lit from where.

The rules are those of clevr-dataset-gen (Johnson et al., CVPR 2017, arXiv:1612.06890,
`image_generation/render_images.py`): objects placed as in `placement`, camera and lamps jittered, every
object visible.

A scene depends on (seed, index) only, never on what else is sampled with it.
"""

import random
from collections.abc import Sequence

from igm_cli.plugins.clevr.camera import CAMERA
from igm_cli.plugins.clevr.layout import Layout, Scenes, stack
from igm_cli.plugins.clevr.options import SceneOptions
from igm_cli.plugins.clevr.placement import place_objects
from igm_cli.plugins.clevr.visibility import visible_pixels

CAMERA_JITTER = 0.5
LIGHT_JITTER = 1.0
MIN_VISIBLE = 200 / (480 * 320)  # least visible share of the picture an object may have
MAX_ATTEMPTS = 300


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
    fine: dict[int, Layout] = {}
    pending = list(indices)
    for attempt in range(MAX_ATTEMPTS):
        drawn = [_sample_layout(options, index, seed, attempt) for index in pending]
        for layout, visible in zip(drawn, _all_visible(stack(drawn, options)), strict=True):
            if visible:
                fine[layout.index] = layout
        pending = [index for index in pending if index not in fine]
        if not pending:
            return stack([fine[index] for index in indices], options)
    raise RuntimeError(
        f"No scene with {options.objects} visible objects found in {MAX_ATTEMPTS} attempts; "
        "allow fewer or smaller objects."
    )


def _all_visible(scenes: Scenes) -> list[bool]:
    width, height = scenes.options.image_size
    pixels = visible_pixels(scenes, scenes.options.image_size)
    enough = pixels >= MIN_VISIBLE * width * height
    return [bool(value) for value in (enough | ~scenes.present).all(dim=1)]


def _sample_layout(options: SceneOptions, index: int, seed: int, attempt: int) -> Layout:
    # A string seed is hashed (SHA-512), the same on every platform
    stream = random.Random(f"igm-clevr:{seed}:{index}:{attempt}")
    x, y, z = (base + stream.uniform(-CAMERA_JITTER, CAMERA_JITTER) for base in CAMERA)
    lights = tuple((_jitter(stream), _jitter(stream), _jitter(stream)) for _ in range(3))
    count = stream.randint(*options.objects)
    objects = place_objects(options, stream, count, (x, y))
    return Layout(index, objects, (x, y, z), lights, stream.random())


def _jitter(stream: random.Random) -> float:
    return stream.uniform(-LIGHT_JITTER, LIGHT_JITTER)
