"""Dataset ``clevr-render``: scenes in CLEVR's style, rendered on request and annotated like CLEVR's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.plugins import registry
from igm_cli.plugins.adapters import Adapter, Dataset, Generator, SplitRequest, generated
from igm_cli.plugins.base import Progress, RenderedBatches

if TYPE_CHECKING:
    import torch

_COLUMNS = {
    "image": "image",
    "image_index": "int64",
    "file": "string",
    "objects": [
        {
            **dict.fromkeys(("shape", "size", "color", "material"), "string"),
            "rotation": "float64",
            "3d_coords": ["float64"],
            "pixel_coords": ["float64"],
        }
    ],
}


class ClevrRender(Adapter):
    """Scenes in the style of CLEVR (Johnson et al. 2017), from a ray caster.

    The columns of a split are ``image``, ``image_index``, ``file`` and ``objects``; no scene is in two splits.
    """

    name = "clevr-render"
    summary = "CLEVR-style scenes from a ray caster; clevr and clevrtex use them where no data are given"
    licence = "rendered images: as igm (MIT)"
    source = "rendered by the plugin itself"
    image_size = (96, 64)
    concepts = "pos"
    options: Mapping[str, str] = {
        "objects": "least and most objects in an image, e.g. 3-5",
        "colors": "colours of rendered objects, comma-separated, or all",
        "shapes": "shapes of rendered objects, comma-separated, or all",
        "sizes": "sizes of rendered objects, names or radii from 0.1 to 1.2, comma-separated, or all",
        "combinations": "all; seen:SHARE: all sizes at that share of the places, elsewhere the largest; or "
        "unseen:SHARE, the others",
        "light": "default or shifted",
        "texture": "none, or surface textures of objects and ground, comma-separated, or all",
        "crowd": "share of scenes placed closely, 0..1",
        "size": "how many images to render",
    }
    sizes: Mapping[str, int] = {"train": 8000, "val": 200, "test": 200}
    version = 2

    @property
    def presets(self) -> Mapping[str, Path]:
        """The training presets of ``clevr``."""
        return registry.dataset("clevr").presets

    def make(self, request: SplitRequest) -> Dataset:
        """Returns rendered scenes."""
        return generated(_Renders(request.progress), _COLUMNS, self.requested(request))

    def render(
        self,
        split: str,
        *,
        device: torch.device,
        limit: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> RenderedBatches:
        """Yields what :meth:`make` makes, rendered on a device and not cached."""
        from igm_clevr_render.examples import RENDERED_AT_ONCE, render_batches
        from igm_clevr_render.options import SceneOptions

        self.check(split, None, options)
        requested = self.requested(SplitRequest(split, limit, seed, options))
        scene_options, count = SceneOptions.parse(json.loads(requested["options"])), requested["count"]
        for part in render_batches(scene_options, count, requested["seed"], RENDERED_AT_ONCE, device):
            if progress is not None:
                progress("rendering scenes", part.scenes[-1].index + 1, count)
            yield part.images, part.examples()

    def requested(self, request: SplitRequest) -> dict[str, Any]:
        """Returns everything that determines the scenes to render, after checking that such scenes exist."""
        from igm_clevr_render.options import SceneOptions

        scenes = {name: value for name, value in request.options.items() if name != "size"}
        SceneOptions.parse(scenes)  # a mistake is reported before anything is rendered
        return {"options": json.dumps(scenes, sort_keys=True), **super().requested(request)}


class _Renders(Generator):
    def __call__(self, options: str, count: int, seed: int, version: int) -> Iterator[dict[str, Any]]:
        from igm_clevr_render.examples import render_examples
        from igm_clevr_render.options import SceneOptions

        scenes = render_examples(SceneOptions.parse(json.loads(options)), count, seed)
        for index, example in enumerate(scenes):
            self.report("rendering scenes", index, count)
            yield example
