"""Dataset ``clevr-render``: scenes in CLEVR's style, rendered when they are asked for and annotated as CLEVR's are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import InputError, UsageError, need
from igm_cli.plugins import registry
from igm_cli.plugins.base import Progress
from igm_cli.plugins.choices import check_request, image_count
from igm_cli.plugins.generated import Generator, generated

if TYPE_CHECKING:
    import datasets
    import torch
    from torch import Tensor

# Scenes of one split never meet those of another: each split renders from its own seed.
_SPLIT_SEEDS = {"train": 0, "val": 1_000_003, "test": 2_000_003}
_DEFAULT_SIZES = {"train": 8000, "val": 200, "test": 200}


class ClevrRender:
    """Scenes in the style of CLEVR (Johnson et al. 2017), from a ray caster."""

    name = "clevr-render"
    summary = "CLEVR-style scenes from a ray caster; clevr and clevrtex use them where no data are given"
    licence = "rendered images: as igm (MIT)"
    source = "rendered by the plugin itself"
    splits = ("train", "val", "test")
    image_size = (96, 64)
    concepts = "pos"
    options: Mapping[str, str] = {
        "objects": "least and most objects in an image, e.g. 3-5",
        "colors": "colours of rendered objects, comma-separated, or all (rendered only)",
        "shapes": "shapes of rendered objects, comma-separated, or all (rendered only)",
        "sizes": "sizes of rendered objects, comma-separated, or all (rendered only)",
        "light": "default or shifted (rendered only)",
        "texture": "none, or surface textures of objects and ground, comma-separated, or all (rendered only)",
        "crowd": "share of scenes placed closely, 0..1 (rendered only)",
        "size": "how many images to render (rendered only)",
    }
    version = 2
    """Raise it whenever rendered images change, so that caches are rendered anew."""

    @property
    def presets(self) -> Mapping[str, Path]:
        """The training presets of ``clevr``."""
        return registry.dataset("clevr").presets

    def load(
        self,
        split: str,
        *,
        data_root: Path | None = None,
        limit: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> datasets.Dataset:
        """Returns a split with columns ``image``, ``image_index``, ``file`` and ``objects``.

        It is rendered once and kept by ``datasets``.

        Args:
            split: ``train``, ``val`` or ``test``; no scene is in two of them.
            data_root: None, as there is nothing to read.
            limit: Renders at most so many images.
            seed: Other seeds give other scenes.
            progress: Called while images are rendered.
            **options: See ``options``.

        Raises:
            UsageError: If the split or an option is unknown, or such scenes cannot be rendered.
            InputError: If a data root is given, or the images cannot be kept.
        """
        if data_root is not None:
            raise InputError(f"{self.name} renders its own images; leave out --data-root, or use clevr")
        # Everything that shapes the images is in here: its hash names the cache.
        kwargs = {**self._asked(split, limit, seed, options), "version": self.version}
        with _impossible_scenes():
            return generated(_Renders(progress), _features(), kwargs)

    def render(
        self,
        split: str,
        *,
        device: torch.device,
        limit: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> Iterator[tuple[Tensor, list[dict[str, Any]]]]:
        """Yields what :meth:`load` loads, rendered on a device and not kept: images ``[B,3,H,W]`` as bytes, examples."""
        from igm_clevr_render.examples import RENDERED_AT_ONCE, render_batches
        from igm_clevr_render.options import SceneOptions

        asked = self._asked(split, limit, seed, options)
        scene_options, count = SceneOptions.parse(json.loads(asked["options"])), asked["count"]
        with _impossible_scenes():
            for part in render_batches(scene_options, count, asked["seed"], RENDERED_AT_ONCE, device):
                if progress is not None:
                    progress("rendering scenes", part.scenes[-1].index + 1, count)
                yield part.images, part.examples()

    def _asked(self, split: str, limit: int | None, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns which scenes are asked for, if there are such."""
        from igm_clevr_render.options import SceneOptions

        check_request(self.name, split, self.splits, options, self.options)
        options = dict(options)
        size = image_count(options.pop("size", _DEFAULT_SIZES[split]))
        SceneOptions.parse(options)  # a mistake is reported before anything is rendered
        return {
            "options": json.dumps(options, sort_keys=True),
            "count": min(size, limit) if limit else size,
            "seed": seed + _SPLIT_SEEDS[split],
        }


@contextmanager
def _impossible_scenes() -> Iterator[None]:
    """Says in a sentence if there are no scenes as they are asked for."""
    try:
        yield
    except RuntimeError as error:
        if "allow fewer" in str(error):
            raise UsageError(f"these scenes cannot be rendered: {str(error).rstrip('.')}") from error
        raise


def _features() -> datasets.Features:
    """Returns the columns and their types."""
    need("train", "datasets")
    import datasets

    names = {name: datasets.Value("string") for name in ("shape", "size", "color", "material")}
    places = {name: datasets.List(datasets.Value("float64")) for name in ("3d_coords", "pixel_coords")}
    return datasets.Features(
        {
            "image": datasets.Image(),
            "image_index": datasets.Value("int64"),
            "file": datasets.Value("string"),
            "objects": datasets.List({**names, "rotation": datasets.Value("float64"), **places}),
        }
    )


class _Renders(Generator):
    """Renders scenes."""

    def __call__(self, options: str, count: int, seed: int, version: int) -> Iterator[dict[str, Any]]:
        from igm_clevr_render.examples import render_examples
        from igm_clevr_render.options import SceneOptions

        def report(done: int, total: int) -> None:
            if self.progress:
                self.progress("rendering scenes", done, total)

        yield from render_examples(SceneOptions.parse(json.loads(options)), count, seed, progress=report)
