"""CLEVR as it is published: the layout of CLEVR_v1.0."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igm_cli.errors import InputError
from igm_cli.folders import inside
from igm_cli.plugins.adapters import Dataset, SplitRequest, image_dataset, number_range
from igm_cli.plugins.objects.checks import image_size
from igm_cli.plugins.sizes import parse_size, refuse_other_size

_TYPES = (("image_filename", str, "text"), ("image_index", int, "whole number"), ("objects", list, "list"))


def from_folder(root: Path, request: SplitRequest) -> Dataset:
    """Returns a split of CLEVR as it is published."""
    split, options = request.split, request.options
    counts = number_range("objects", options.get("objects"))
    scenes = _read_scenes(_scenes_file(root, split))
    images = root / "images" / split
    if not images.is_dir():
        raise InputError(f"{root} has no folder images/{split}; give a folder in the layout of CLEVR_v1.0")
    if counts:
        scenes = [s for s in scenes if counts[0] <= len(s["objects"]) <= counts[1]]
    scenes = scenes[: request.limit]
    if not scenes:
        raise InputError(f"{root} holds no {split} scene with so many objects; widen objects or the limit")
    columns: dict[str, list[Any]] = {
        "image": [str(_existing(inside(images, s["image_filename"], f"{split} scenes"))) for s in scenes],
        "image_index": [int(s["image_index"]) for s in scenes],
        "file": [s["image_filename"] for s in scenes],
        "objects": [_objects(s) for s in scenes],
    }
    fit(root, columns, parse_size(options.get("annotated")))
    return image_dataset(columns)


LOOKED_AT = 200
"""Number of images whose size is compared with the positions of their objects."""


def fit(root: Path, columns: Mapping[str, list[Any]], annotated: tuple[int, int] | None) -> None:
    """Scales objects from a stated size to their images; without one, refuses objects of other images."""
    scenes = list(zip(columns["image"], columns["objects"], strict=True))
    if annotated:
        for image, objects in scenes:
            width, height = _size_of(image)
            for each in objects:
                x, y, *more = each["pixel_coords"]
                each["pixel_coords"] = [x * width / annotated[0], y * height / annotated[1], *more]
        return
    some = scenes[:: max(1, len(scenes) // LOOKED_AT)]
    refuse_other_size(
        root, ((_size_of(i), [(o["pixel_coords"][0], o["pixel_coords"][1]) for o in os]) for i, os in some)
    )


def _size_of(image: str) -> tuple[int, int]:
    try:
        return image_size(Path(image))
    except Exception as error:  # Pillow's readers raise anything
        raise InputError(f"{image} is not an image that can be read; fetch it again") from error


def _scenes_file(root: Path, split: str) -> Path:
    """Returns the annotation file: in ``scenes/`` as published, or at the root as in the paper's code."""
    name = f"CLEVR_{split}_scenes.json"
    if not root.is_dir():
        raise InputError(f"data root {root} is not a folder; give a folder in the layout of CLEVR_v1.0")
    for path in (root / "scenes" / name, root / name):
        if path.is_file():
            return path
    raise InputError(f"{root} has neither scenes/{name} nor {name}; give a folder in the layout of CLEVR_v1.0")


def _read_scenes(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text)
        scenes: Any = content.get("scenes") if isinstance(content, dict) else None
        if not isinstance(scenes, list):
            raise TypeError("it is not a table with a list of scenes")
        for number, scene in enumerate(scenes):
            if not isinstance(scene, dict):
                raise TypeError(f"scene {number} is {str(scene)[:40]!r}, no table")
            for name, kind, words in _TYPES:
                if not isinstance(scene[name], kind):
                    raise TypeError(f"{name} of scene {number} is {str(scene[name])[:40]!r}, no {words}")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON that can be read ({str(error)[:100]}); fetch it again") from error
    except (KeyError, TypeError) as error:
        says = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{path} is not a CLEVR scene file: {says}; fetch it again") from error
    return scenes


def _existing(path: Path) -> Path:
    if not os.path.isfile(path):  # noqa: PTH113  whatever its name
        raise InputError(f"{path} is annotated but missing; fetch the images again")
    return path


def _objects(scene: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the objects of a scene."""
    objects = []
    for number, scene_object in enumerate(scene["objects"]):
        try:
            objects.append(plain_object(scene_object))
        except InputError as error:
            raise InputError(f"{scene['image_filename']}, object {number}: {error}") from error
    return objects


def plain_object(scene_object: Any) -> dict[str, Any]:
    """Returns an object with fixed columns and types, whoever wrote the file.

    Raises:
        InputError: If a field has a wrong type.
    """
    if not isinstance(scene_object, Mapping):
        raise InputError(f"{str(scene_object)[:40]!r} is not an object with fields; fetch the scenes again")
    rotation = scene_object.get("rotation", 0.0)
    place, around = (_numbers(scene_object, name) for name in ("pixel_coords", "3d_coords"))
    if len(place) < 2:
        raise InputError("pixel_coords must be x and y; fetch the scenes again")
    if not _is_number(rotation):
        raise InputError(f"rotation is {str(rotation)[:40]!r}, no number; correct it or take it out")
    return {
        **{name: str(scene_object.get(name, "")) for name in ("shape", "size", "color", "material")},
        "rotation": float(rotation),
        "3d_coords": around,
        "pixel_coords": place,
    }


def _numbers(scene_object: Mapping[str, Any], name: str) -> list[float]:
    """Returns a list of numbers, empty if there is none."""
    values = scene_object.get(name, [])
    if not isinstance(values, list) or not all(map(_is_number, values)):
        raise InputError(f"{name} is {str(values)[:60]!r}, no list of numbers; fetch the scenes again")
    return [float(value) for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
