"""How often the place that several images have in common is found among three other objects in each.

    python benchmarks/shared_place.py [--trials 100] [--images 1,3,6] [--seed 22] [--model clevr-pos]

Every image of a trial is a render with its own camera, lamps and colours, three objects anywhere, and one whose centre is
at the same place in all images; its shape, size, colour and material differ.  A place counts as found within 0.063 of
the frame (0..1 along both sides).  One place is requested (K = 1); with K estimated, it must be the only one.  This
follows Figure 11 of Du, Li & Mordatch (2020), where the images contain only the one object.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from igm_clevr_render.camera import focal_length, visible_pixels
from igm_clevr_render.geometry import viewer_axes
from igm_clevr_render.options import MATERIALS, SceneOptions
from igm_clevr_render.renderer import render
from igm_clevr_render.sampling import MIN_DISTANCE, MIN_VISIBLE, PLANE, sample_scenes
from igm_clevr_render.scenes import Scene, SceneBatch, SceneObject
from igm_cli.benchmarks.intervals import Estimate, mean, proportion
from igm_cli.core.inference.shared import invert_shared
from igm_cli.core.types import InversionSettings
from igm_cli.model import Model, open_checkpoint

FOUND = 0.063
OTHERS = 3


class Trial(NamedTuple):
    """The result of one trial: distance of the place found with K = 1, CPU seconds for it, and the estimated K."""

    error: float
    seconds: float
    alone: bool | None


def main() -> None:
    """Runs the trials and prints a row per number of images."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--images", default="1,3,6")
    parser.add_argument("--seed", type=int, default=22)
    parser.add_argument("--others", type=int, default=OTHERS)
    parser.add_argument(
        "--shift", type=float, default=0.0, help="how far places differ between images, at most"
    )
    parser.add_argument("--estimate", action="store_true", help="estimate K, too, which takes as long again")
    parser.add_argument("--model", default="clevr-pos")
    args = parser.parse_args()
    model = open_checkpoint(args.model, None, "cpu")
    print("| images | found (K = 1) | error of those found | alone and found (K estimated) | CPU seconds |")
    print("|---|---|---|---|---|")
    for images in map(int, args.images.split(",")):
        print(row(images, measure(model, images, args)), flush=True)


def row(images: int, trials: Sequence[Trial]) -> str:
    """Returns a row of the table."""
    found = proportion([trial.error < FOUND for trial in trials])
    alone = [trial.alone for trial in trials if trial.alone is not None]
    error = mean([trial.error for trial in trials if trial.error < FOUND]).value
    seconds = sum(trial.seconds for trial in trials) / len(trials)
    told = _percent(proportion(alone)) if alone else ""
    return f"| {images} | {_percent(found)} | {error:.4f} | {told} | {seconds:.1f} |"


def measure(model: Model, images: int, asked: argparse.Namespace) -> list[Trial]:
    """Returns the result of each trial."""
    results = []
    for trial in range(asked.trials):
        seen, place = scenes_with_a_place(images, asked.seed, trial, asked.others, asked.shift)
        started = time.process_time()
        error = _distances(model, seen, place, 1)[0]
        seconds = time.process_time() - started
        every = _distances(model, seen, place, None) if asked.estimate else []
        alone = len(every) == 1 and every[0] < FOUND if asked.estimate else None
        results.append(Trial(error, seconds, alone))
    return results


def scenes_with_a_place(
    images: int, seed: int, trial: int, others: int = OTHERS, shift: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Returns n renders ``[n,3,H,W]`` in -1..1 with an object at a common place, and this place ``[2]``.

    A trial's first images are the same for any number of images.
    """
    options = SceneOptions(objects=(others, others))
    stream = random.Random(f"shared place:{seed}:{trial}")
    while True:
        place = (stream.uniform(0.15, 0.85), stream.uniform(0.25, 0.8))
        try:
            every = [_scene(options, place, seed, trial, number, shift) for number in range(images)]
        except LookupError:  # no such place on the plane
            continue
        pixels = render(every, options)
        return pixels.float() / 127.5 - 1, torch.tensor(place)


def _scene(
    options: SceneOptions, place: tuple[float, float], seed: int, trial: int, number: int, shift: float
) -> Scene:
    stream = random.Random(f"shared place:{seed}:{trial}:{number}:{place}")
    width, height = options.image_size
    for _ in range(60):
        (scene,) = sample_scenes(options, [stream.randrange(2**31)], seed)
        size = stream.choice(sorted(options.sizes))
        radius = options.sizes[size]
        moved = [p + stream.uniform(-shift, shift) for p in place]
        x, y = _on_the_plane(scene, moved[0] * width, moved[1] * height, radius, options)
        shape, color, material = map(stream.choice, (options.shapes, options.colors, MATERIALS))
        item = SceneObject(shape, size, color, material, x, y, radius, stream.uniform(0, 360))
        free = all(math.hypot(x - o.x, y - o.y) >= radius + o.radius + MIN_DISTANCE for o in scene.objects)
        whole = replace(scene, objects=(*scene.objects, item))
        if max(abs(x), abs(y)) <= PLANE + 0.5 and free and _all_visible(whole, options):
            return whole
    raise LookupError


def _on_the_plane(
    scene: Scene, px: float, py: float, height: float, options: SceneOptions
) -> tuple[float, float]:
    """Returns where the ray through a pixel reaches a height above the ground."""
    width, tall = options.image_size
    camera = torch.tensor([scene.camera], dtype=torch.float64)
    right, up, forward = (axis[0] for axis in viewer_axes(camera))
    focal = focal_length(width)
    ray = forward + right * (px - width / 2) / focal - up * (py - tall / 2) / focal
    point = camera[0] + ray * (height - camera[0, 2]) / ray[2]
    return float(point[0]), float(point[1])


def _all_visible(scene: Scene, options: SceneOptions) -> bool:
    width, height = options.image_size
    pixels = visible_pixels(SceneBatch.of([scene], options), options.image_size)
    return bool((pixels >= MIN_VISIBLE * width * height).all())


def _distances(model: Model, seen: Tensor, place: Tensor, k: int | None) -> list[float]:
    settings = InversionSettings.from_dict(model.inference)
    found = invert_shared(model.denoiser, seen, settings, k=k, composition=model.composition)
    return (found.concepts - place).norm(dim=1).tolist() or [math.inf]


def _percent(rate: Estimate) -> str:
    return f"{100 * rate.value:.0f} % [{100 * rate.low:.0f}, {100 * rate.high:.0f}]"


if __name__ == "__main__":
    main()
