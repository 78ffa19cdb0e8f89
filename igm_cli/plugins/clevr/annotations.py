"""Annotations of scenes in the layout of CLEVR's scene files."""

import math
from collections.abc import Sequence
from typing import Any

from igm_cli.plugins.clevr.camera import project
from igm_cli.plugins.clevr.layout import SceneObject, Scenes


def annotations(scenes: Scenes) -> list[dict[str, Any]]:
    """Describes each scene in the layout of CLEVR's scene files.

    Returns:
        One dict a scene with split, image_index, image_filename, objects (shape, size, color, material,
        rotation, 3d_coords in scene units, pixel_coords [x px, y px, depth]) and directions (unit vectors on
        the plane).
    """
    pixels = project(scenes.position, scenes.camera, scenes.options.image_size).tolist()
    split = scenes.options.split
    return [
        {
            "split": split,
            "image_index": layout.index,
            "image_filename": f"CLEVR_{split}_{layout.index:06d}.png",
            "objects": [_describe(item, place) for item, place in zip(layout.objects, row, strict=False)],
            "directions": _directions(layout.camera),
        }
        for layout, row in zip(scenes.layouts, pixels, strict=True)
    ]


def _describe(item: SceneObject, pixel: Sequence[float]) -> dict[str, Any]:
    return {
        "shape": item.shape,
        "size": item.size,
        "color": item.color,
        "material": item.material,
        "rotation": round(item.rotation, 4),
        "3d_coords": [round(item.x, 4), round(item.y, 4), round(item.radius, 4)],
        "pixel_coords": [round(pixel[0], 3), round(pixel[1], 3), round(pixel[2], 4)],
    }


def _directions(camera: tuple[float, float, float]) -> dict[str, list[float]]:
    norm = math.hypot(camera[0], camera[1])
    x, y = round(camera[0] / norm, 4), round(camera[1] / norm, 4)
    return {"behind": [-x, -y, 0.0], "front": [x, y, 0.0], "left": [y, -x, 0.0], "right": [-y, x, 0.0]}
