"""Dataset ``clevr``: the real CLEVR_v1.0 layout, or our own CLEVR-style renders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import UsageError
from igm_cli.plugins.base import Progress
from igm_cli.plugins.choices import check_request, image_count, preset_files
from igm_cli.plugins.clevr.choices import object_range, scene_options
from igm_cli.plugins.clevr.folder import from_folder
from igm_cli.plugins.generated import Generator, generated

if TYPE_CHECKING:
    import datasets

# Scenes of one split never meet those of another: each split renders from its own seed.
_SPLIT_SEEDS = {"train": 0, "val": 1_000_003, "test": 2_000_003}

OBJECTS = {"objects": "least and most objects in an image, e.g. 3-5"}
RENDERED = {
    "colors": "colours of rendered objects, comma-separated (rendered only)",
    "shapes": "shapes of rendered objects, comma-separated (rendered only)",
    "sizes": "sizes of rendered objects, comma-separated (rendered only)",
    "light": "default or shifted (rendered only)",
    "texture": "none, or surface textures of objects and ground, comma-separated (rendered only)",
    "crowd": "share of scenes placed closely, 0..1 (rendered only)",
    "size": "how many images to render (rendered only)",
}
"""Options of scenes that the dataset renders itself, with one line of help each."""
_OPTIONS = OBJECTS | RENDERED
_DEFAULT_RENDERS = {"train": 8000, "val": 200, "test": 200}


class Clevr:
    """CLEVR (Johnson et al. 2017): simple objects on a plane."""

    name = "clevr"
    summary = "CLEVR scenes: cubes, spheres and cylinders on a plane"
    licence = "CLEVR_v1.0: CC BY 4.0; rendered images: as this project (MIT)"
    source = "download CLEVR_v1.0 from https://cs.stanford.edu/people/jcjohns/clevr/ and give its folder"
    splits = ("train", "val")
    image_size = (96, 64)
    concepts = "pos"
    options: Mapping[str, str] = _OPTIONS
    version = 2
    """Raise it whenever the renderer's images change, so that caches are rendered anew."""
    rendered_options: frozenset[str] = frozenset(RENDERED)

    @property
    def presets(self) -> Mapping[str, Path]:
        """The TOML files beside this module."""
        return preset_files(Path(__file__).parent)

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
        """A split with columns ``image``, ``image_index``, ``file`` and ``objects``.

        Args:
            split: ``train`` or ``val``.
            data_root: A folder in CLEVR's layout; None renders.
            limit: At most so many images.
            seed: Of the rendering.
            progress: Called while images are rendered.
            **options: See ``options``.

        Raises:
            UsageError: If the split or an option is unknown.
            InputError: If the folder does not hold CLEVR, or an annotated image is missing.
        """
        check_request(self.name, split, self.splits, options, _OPTIONS)
        if data_root is None:
            return rendered(split, limit, seed, progress, options)
        rendered_only = sorted(set(options) & self.rendered_options)
        if rendered_only:
            raise UsageError(f"option {rendered_only[0]!r} works on rendered scenes only, not on {data_root}")
        return from_folder(data_root, split, limit, object_range(options.get("objects")))


def rendered(
    split: str, limit: int | None, seed: int, progress: Progress | None, options: Mapping[str, Any]
) -> datasets.Dataset:
    """A split of our own renders, made once and kept by ``datasets``.

    Args:
        split: ``train``, ``val`` or ``test``; no scene is in two of them.
        limit: At most so many images.
        seed: Of the rendering.
        progress: Called while images are rendered.
        options: See ``OBJECTS`` and ``RENDERED``.

    Raises:
        UsageError: If such scenes cannot be rendered.
        InputError: If the images cannot be kept.
    """
    options = dict(options)
    size = image_count(options.pop("size", _DEFAULT_RENDERS[split]))
    scene_options(options)  # a mistake is reported before anything is rendered
    # Everything that shapes the images is in here: its hash names the cache.
    kwargs = {
        "options": json.dumps(options, sort_keys=True),
        "count": min(size, limit) if limit else size,
        "seed": seed + _SPLIT_SEEDS[split],
        "version": Clevr.version,
    }
    try:
        return generated(_Renders(progress), _features(), kwargs)
    except RuntimeError as error:
        if "allow fewer" in str(error):
            raise UsageError(f"these scenes cannot be rendered: {str(error).rstrip('.')}") from error
        raise


def _features() -> datasets.Features:
    """Columns and types of a rendered split."""
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
        from igm_cli.plugins.clevr.scenes import render_examples

        def report(done: int, total: int) -> None:
            if self.progress:
                self.progress("rendering scenes", done, total)

        for example in render_examples(scene_options(json.loads(options)), count, seed, progress=report):
            yield {**example, "file": f"render_{example['image_index']:06d}.png"}
