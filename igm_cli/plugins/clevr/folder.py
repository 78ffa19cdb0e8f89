"""CLEVR as it is published: the layout of CLEVR_v1.0."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igm_cli.errors import InputError
from igm_cli.plugins.adapters import Dataset, image_dataset

_TYPES = (("image_filename", str, "text"), ("image_index", int, "whole number"), ("objects", list, "list"))


def from_folder(root: Path, split: str, limit: int | None, counts: tuple[int, int] | None) -> Dataset:
    """Returns a split of CLEVR as it is published.

    Args:
        root: The folder.
        split: ``train`` or ``val``.
        limit: Largest number of images.
        counts: Least and most objects; None takes all scenes.
    """
    scenes = _read_scenes(_scenes_file(root, split))
    images = root / "images" / split
    if not images.is_dir():
        raise InputError(f"{root} has no folder images/{split}; give a folder in the layout of CLEVR_v1.0")
    if counts:
        scenes = [s for s in scenes if counts[0] <= len(s["objects"]) <= counts[1]]
    scenes = scenes[:limit]
    if not scenes:
        raise InputError(f"{root} holds no {split} scene with so many objects; widen objects or the limit")
    return image_dataset(
        {
            "image": [str(_existing(images / s["image_filename"])) for s in scenes],
            "image_index": [int(s["image_index"]) for s in scenes],
            "file": [s["image_filename"] for s in scenes],
            "objects": [[plain_object(o) for o in s["objects"]] for s in scenes],
        }
    )


def _scenes_file(root: Path, split: str) -> Path:
    """Returns the annotation file: in ``scenes/`` as published, or at the root as the paper's code has it."""
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
            for name, kind, words in _TYPES:
                if not isinstance(scene[name], kind):
                    raise TypeError(f"{name} {str(scene[name])[:40]!r} is no {words}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a CLEVR scene file: {error!r}; fetch it again") from error
    return scenes


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path} is annotated but missing; fetch the images again")
    return path


def plain_object(scene_object: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an object with the same columns and types whoever wrote the file."""
    try:
        place = [float(v) for v in scene_object["pixel_coords"]]
        if len(place) < 2:
            raise ValueError(f"{place} has no x and y")
        return {
            **{name: str(scene_object.get(name, "")) for name in ("shape", "size", "color", "material")},
            "rotation": float(scene_object.get("rotation", 0.0)),
            "3d_coords": [float(v) for v in scene_object.get("3d_coords", ())],
            "pixel_coords": place,
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"a CLEVR object lacks usable pixel_coords: {error!r}; fetch the scenes again"
        ) from error
