"""Dataset ``clevr``: the real CLEVR_v1.0 layout, or our own CLEVR-style renders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import InputError, UsageError
from igm_cli.plugins.base import Progress

if TYPE_CHECKING:
    import datasets

    from igm_cli.plugins.clevr.scenes import SceneOptions

# Scenes of one split never meet those of another: each split renders from its own seed.
_SPLIT_SEEDS = {"train": 0, "val": 1_000_003}

_OPTIONS = {
    "objects": "least and most objects in an image, e.g. 3-5",
    "colors": "colours of rendered objects, comma-separated (rendered only)",
    "shapes": "shapes of rendered objects, comma-separated (rendered only)",
    "sizes": "sizes of rendered objects, comma-separated (rendered only)",
    "light": "default or shifted (rendered only)",
    "texture": "none, or the surface texture of objects and ground (rendered only)",
    "crowd": "share of scenes placed closely, 0..1 (rendered only)",
    "size": "how many images to render (rendered only)",
}
_DEFAULT_RENDERS = {"train": 8000, "val": 200}


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
    rendered_options: frozenset[str] = frozenset(_OPTIONS) - {"objects"}

    @property
    def presets(self) -> Mapping[str, Path]:
        """The TOML files beside this module."""
        folder = Path(str(resources.files(__package__))) / "presets"
        return {path.stem: path for path in sorted(folder.glob("*.toml"))}

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
        if split not in self.splits:
            raise UsageError(f"clevr has no split {split!r}; choose {' or '.join(self.splits)}")
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise UsageError(f"clevr has no option {unknown[0]!r}; it has {', '.join(_OPTIONS)}")
        if data_root is None:
            return _rendered(split, limit, seed, progress, options)
        rendered_only = sorted(set(options) & self.rendered_options)
        if rendered_only:
            raise UsageError(f"option {rendered_only[0]!r} works on rendered scenes only, not on {data_root}")
        return _from_folder(data_root, split, limit, object_range(options.get("objects")))


def object_range(text: Any) -> tuple[int, int] | None:
    """``"3-5"``, ``4``, ``[3, 5]`` or None to (least, most).

    Raises:
        UsageError: If it is none of these.
    """
    if text is None:
        return None
    try:
        parts = str(text).split("-") if isinstance(text, str | int) else [str(part) for part in text]
        low, high = int(parts[0]), int(parts[-1])
    except (TypeError, ValueError, IndexError) as error:
        raise UsageError(f"objects must look like 3-5, not {text!r}") from error
    if not 1 <= low <= high or len(parts) > 2:
        raise UsageError(f"objects must look like 3-5, not {text!r}")
    return low, high


def _count(text: Any) -> int:
    try:
        count = int(text)
    except (TypeError, ValueError) as error:
        raise UsageError(f"size must be a number of images, not {text!r}") from error
    if count < 1:
        raise UsageError(f"size must be at least 1, not {count}")
    return count


def _from_folder(root: Path, split: str, limit: int | None, counts: tuple[int, int] | None) -> datasets.Dataset:
    import datasets

    scenes = _read_scenes(_scenes_file(root, split))
    images = root / "images" / split
    if not images.is_dir():
        raise InputError(f"{root} has no folder images/{split}; give a folder in the layout of CLEVR_v1.0")
    if counts:
        scenes = [s for s in scenes if counts[0] <= len(s["objects"]) <= counts[1]]
    scenes = scenes[:limit]
    if not scenes:
        raise InputError(f"{root} holds no {split} scene with so many objects; widen objects or the limit")
    columns: dict[str, list[Any]] = {
        "image": [str(_existing(images / s["image_filename"])) for s in scenes],
        "image_index": [int(s["image_index"]) for s in scenes],
        "file": [s["image_filename"] for s in scenes],
        "objects": [[_plain(o) for o in s["objects"]] for s in scenes],
    }
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def _scenes_file(root: Path, split: str) -> Path:
    """The annotation file: in ``scenes/`` as published, or at the root as the paper's code has it."""
    name = f"CLEVR_{split}_scenes.json"
    if not root.is_dir():
        raise InputError(f"data root {root} is not a folder; give a folder in the layout of CLEVR_v1.0")
    for path in (root / "scenes" / name, root / name):
        if path.is_file():
            return path
    raise InputError(f"{root} has neither scenes/{name} nor {name}; give a folder in the layout of CLEVR_v1.0")


def _read_scenes(path: Path) -> list[dict[str, Any]]:
    try:
        scenes: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["scenes"]
        for scene in scenes:
            if not isinstance(scene["image_filename"], str):
                raise TypeError(f"image_filename {scene['image_filename']!r} is no text")
            if not isinstance(scene["image_index"], int):
                raise TypeError(f"image_index {scene['image_index']!r} is no whole number")
            if not isinstance(scene["objects"], list):
                raise TypeError("objects is no list")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a CLEVR scene file: {error!r}; fetch it again") from error
    return scenes


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path} is annotated but missing; fetch the images again")
    return path


def _plain(scene_object: Mapping[str, Any]) -> dict[str, Any]:
    """An object with the same columns and types whoever wrote the file."""
    try:
        return {
            "shape": str(scene_object.get("shape", "")),
            "size": str(scene_object.get("size", "")),
            "color": str(scene_object.get("color", "")),
            "material": str(scene_object.get("material", "")),
            "rotation": float(scene_object.get("rotation", 0.0)),
            "3d_coords": [float(v) for v in scene_object.get("3d_coords", ())],
            "pixel_coords": _place(scene_object["pixel_coords"]),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"a CLEVR object lacks usable pixel_coords: {error!r}; fetch the scenes again"
        ) from error


def _place(values: Any) -> list[float]:
    place = [float(v) for v in values]
    if len(place) < 2:
        raise ValueError(f"{place} has no x and y")
    return place


def _rendered(
    split: str, limit: int | None, seed: int, progress: Progress | None, options: Mapping[str, Any]
) -> datasets.Dataset:
    import datasets

    options = dict(options)
    size = _count(options.pop("size", _DEFAULT_RENDERS[split]))
    count = min(size, limit) if limit else size
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "image_index": datasets.Value("int64"),
            "file": datasets.Value("string"),
            "objects": datasets.List(
                {
                    "shape": datasets.Value("string"),
                    "size": datasets.Value("string"),
                    "color": datasets.Value("string"),
                    "material": datasets.Value("string"),
                    "rotation": datasets.Value("float64"),
                    "3d_coords": datasets.List(datasets.Value("float64")),
                    "pixel_coords": datasets.List(datasets.Value("float64")),
                }
            ),
        }
    )
    # Everything that shapes the images is in gen_kwargs, whose hash names the cache.
    kwargs = {
        "options": json.dumps(options, sort_keys=True),
        "count": count,
        "seed": seed + _SPLIT_SEEDS[split],
        "version": RENDERER_VERSION,
    }
    scene_options(options)  # a mistake is reported before anything is rendered
    try:
        with _quiet_datasets():
            dataset: datasets.Dataset = datasets.Dataset.from_generator(
                _Renders(progress), features=features, gen_kwargs=kwargs
            )
    except datasets.exceptions.DatasetGenerationError as error:
        cause = error.__cause__
        if isinstance(cause, RuntimeError) and "allow fewer" in str(cause):
            raise UsageError(f"these scenes cannot be rendered: {str(cause).rstrip('.')}") from error
        if isinstance(cause, OSError):
            reason = (cause.strerror or str(cause)).lower()
            raise InputError(f"rendered images cannot be kept ({reason}); free space or set HF_HOME") from error
        if cause is not None:
            raise cause from None
        raise
    return dataset


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Keeps the bars of ``datasets`` off the terminal: progress is reported by callback."""
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def scene_options(options: Mapping[str, Any]) -> SceneOptions:
    """Options as given on a command line or in a preset to those of the renderer.

    Raises:
        UsageError: If a value is none that the renderer knows.
    """
    from igm_cli.plugins.clevr.scenes import SceneOptions

    values: dict[str, Any] = {}
    for name, value in options.items():
        if name == "objects":
            values[name] = object_range(value)
        elif name in ("colors", "shapes", "sizes"):
            values[name] = _names(name, value)
        elif name == "texture":
            values[name] = None if value in (None, "none") else str(value)
        elif name == "crowd":
            values[name] = _share(value)
        else:
            values[name] = value
    try:
        return SceneOptions(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"these scenes cannot be rendered: {error}") from error


def _names(option: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split(","))
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise UsageError(f"{option} must be names with commas between them, not {value!r}")


def _share(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"crowd must be a number from 0 to 1, not {value!r}") from error


RENDERER_VERSION = 2
"""Raise it whenever the renderer's images change, so that caches are rendered anew."""


class _Renders:
    """A generator function of a stable hash: ``datasets`` caches by it."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress

    def __call__(self, options: str, count: int, seed: int, version: int) -> Iterator[dict[str, Any]]:
        from igm_cli.plugins.clevr.scenes import render_examples

        def report(done: int, total: int) -> None:
            if self.progress:
                self.progress("rendering scenes", done, total)

        for example in render_examples(scene_options(json.loads(options)), count, seed, progress=report):
            yield {**example, "file": f"render_{example['image_index']:06d}.png"}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a progress bar is not part of the data

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.progress = None
