"""CLEVR as it is published: the layout of CLEVR_v1.0."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import InputError, need

if TYPE_CHECKING:
    import datasets


def from_folder(root: Path, split: str, limit: int | None, counts: tuple[int, int] | None) -> datasets.Dataset:
    """A split of CLEVR as it is published.

    Args:
        root: The folder.
        split: ``train`` or ``val``.
        limit: At most so many images.
        counts: Least and most objects; None takes all scenes.

    Raises:
        InputError: If the folder does not hold CLEVR, or an annotated image is missing.
    """
    need("train", "datasets")
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
        "objects": [[plain_object(o) for o in s["objects"]] for s in scenes],
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


def plain_object(scene_object: Mapping[str, Any]) -> dict[str, Any]:
    """An object with the same columns and types whoever wrote the file.

    Raises:
        InputError: If it has no place in the image, or nonsense.
    """
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
