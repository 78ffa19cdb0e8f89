"""Rendered and annotated CLEVR scenes: what is to be drawn is said in `SceneOptions`."""

from collections.abc import Callable, Iterator
from typing import Any

from igm_cli.plugins.clevr.annotations import annotations
from igm_cli.plugins.clevr.options import SceneOptions
from igm_cli.plugins.clevr.renderer import render
from igm_cli.plugins.clevr.sampling import sample_scenes

__all__ = ["SceneOptions", "render_examples"]


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
    end = start + count
    for first in range(start, end, batch):
        last = min(first + batch, end)
        scenes = sample_scenes(options, range(first, last), seed)
        images = render(scenes, options.image_size, device=device).permute(0, 2, 3, 1).cpu().numpy()
        for image, scene in zip(images, annotations(scenes), strict=True):
            yield {"image": image, "objects": scene["objects"], "image_index": scene["image_index"]}
        if progress is not None:
            progress(last - start, count)
