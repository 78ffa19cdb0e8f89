"""Examples of the dataset: scenes sampled, rendered and annotated."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor

from igm_clevr_render.camera import project
from igm_clevr_render.options import SceneOptions
from igm_clevr_render.renderer import render
from igm_clevr_render.sampling import sample_scenes
from igm_clevr_render.scenes import Scene

RENDERED_AT_ONCE = 512
"""Scenes per batch on a GPU, which take about 2 GB of its memory."""

SAMPLED_HERE = 2000
"""Scenes that one process samples before others would have started."""

_NAMES = ("shape", "size", "color", "material")


def render_examples(options: SceneOptions, count: int, seed: int, batch: int = 64) -> Iterator[dict[str, Any]]:
    """Yields the first scenes of a set as columns of the dataset, rendered on the CPU in batches."""
    for part in render_batches(options, count, seed, batch, "cpu"):
        images = part.images.permute(0, 2, 3, 1).numpy()
        for image, example in zip(images, part.examples(), strict=True):
            yield {"image": image, **example}


class Rendered(NamedTuple):
    """Rendered scenes: their images, bytes [B,3,H,W] on the device that cast the rays, and their annotations."""

    scenes: list[Scene]
    objects: list[list[dict[str, Any]]]
    images: Tensor

    def examples(self) -> list[dict[str, Any]]:
        """Returns the columns of the dataset except the image."""
        return [
            {"image_index": scene.index, "file": f"render_{scene.index:06d}.png", "objects": objects}
            for scene, objects in zip(self.scenes, self.objects, strict=True)
        ]


def render_batches(
    options: SceneOptions, count: int, seed: int, batch: int, device: str | torch.device
) -> Iterator[Rendered]:
    """Yields the first scenes of a set, rendered in batches; scenes do not depend on the device."""
    parts = [range(first, min(first + batch, count)) for first in range(0, count, batch)]
    on_cpu = torch.device(device).type == "cpu"
    chunk = {} if on_cpu else {"chunk": batch}
    with nullcontext(map) if on_cpu or count <= SAMPLED_HERE else _processes(len(parts)) as each:
        for scenes, objects in each(_sample, repeat(options), parts, repeat(seed)):
            yield Rendered(scenes, objects, render(scenes, options, device=device, **chunk))


@contextmanager
def _processes(parts: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yields a ``map`` over several processes: a GPU renders faster than one process samples."""
    workers, context = min(parts, os.cpu_count() or 1), multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _sample(
    options: SceneOptions, indices: Sequence[int], seed: int
) -> tuple[list[Scene], list[list[dict[str, Any]]]]:
    scenes = sample_scenes(options, indices, seed)
    return scenes, annotate(scenes, options)


def annotate(scenes: Sequence[Scene], options: SceneOptions) -> list[list[dict[str, Any]]]:
    """Describes the objects of each scene as CLEVR's scene files do: places in scene units, and in pixels with depth."""
    described = []
    for scene in scenes:
        places = torch.tensor([[(item.x, item.y, item.radius) for item in scene.objects]])
        (pixels,) = project(places, torch.tensor([scene.camera]), options.image_size).tolist()
        objects = [
            {
                **{name: getattr(item, name) for name in _NAMES},
                "rotation": round(item.rotation, 4),
                "3d_coords": [round(item.x, 4), round(item.y, 4), round(item.radius, 4)],
                "pixel_coords": [round(x, 3), round(y, 3), round(depth, 4)],
            }
            for item, (x, y, depth) in zip(scene.objects, pixels, strict=True)
        ]
        described.append(objects)
    return described
