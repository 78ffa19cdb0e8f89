"""Chooses a scale, the size of training crops and the reach of a concept for a folder, by its objects' distances."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from igm_cli.errors import InputError, counted, some
from igm_cli.plugins.base import Advice
from igm_cli.plugins.overlays import nearest_of

if TYPE_CHECKING:
    import datasets

DISTANCE = 20.0
"""Target distance in model pixels between typical neighbours, or across a typical object if that is larger."""

CELL = 4
"""Side in pixels of the cells that measure the reach of a concept, if a preset does not say it."""

STEP = 6
"""Pixels between candidates: two or three fall within a typical object, and the best are refined."""

SIDES = (32, 48, 64, 96, 128)
"""Sides of crops to try."""

ENOUGH = 0.6
"""Proportion of random crops that must hold few enough objects."""

FEW = 50
"""Fewer objects than this are reported as few."""

_CROPS = 2000
_LISTED = 20  # labels named at most


def advise(data: datasets.Dataset, most: int, cell: int = CELL) -> Advice:
    """Returns training options that suit a split of the dataset ``objects``, and why.

    A crop holds at most ``most`` objects; ``cell`` is the side of the model's cells in pixels, ``model.patch``.

    Raises:
        InputError: If no image has an object.
    """
    rows = [
        ((row["width"], row["height"]), [thing["pixel_coords"] for thing in row["objects"]])
        for row in data.remove_columns("image")
    ]
    boxes = [max(thing["box"]) for things in data["objects"] for thing in things if thing["box"]]
    count = sum(len(centres) for _, centres in rows)
    if not count and any(row.get("ignored") for row in data.remove_columns("image")):
        raise InputError(
            "the training images have regions to ignore and no object; set iscrowd to 0 where an annotation is of a single "
            "object, or leave labels of objects out of data.ignore"
        )
    if not count:
        raise InputError("no training image has an object; annotate some, or choose other labels")
    nearest = [distance for _, centres in rows if len(centres) > 1 for distance in nearest_of(centres).tolist()]
    near = statistics.median(nearest) if nearest else math.inf
    size = statistics.median(boxes) if boxes else 0.0
    typical = max(near, size) if math.isfinite(near) else size
    if not typical:
        typical = min(min(shape) for shape, _ in rows) / 4
    scale = float(f"{min(1.0, DISTANCE / typical):.2g}")
    seen = scale * (size or typical)  # across an object
    margin = round(0.4 * seen)
    side, share = _side(rows, scale, margin, most, 4 * cell)
    window = math.ceil(0.5 * seen / cell) + 2
    grid = round(side / STEP)
    measured = [f"objects measure {size:.0f} pixels (the median)"] if size else []
    measured += [f"neighbours are {near:.0f} pixels apart"] if nearest else []
    measured = measured or [f"a quarter of the smallest image is {typical:.0f} pixels"]
    reasons = (
        _how_many([len(centres) for _, centres in rows]),
        *([f"{counted(count, 'object')} may be too few to learn from; annotate more"] if count < FEW else []),
        f"crops.scale = {scale:g}: {', '.join(measured)}, and the model sees {scale * typical:.0f}",
        f"model.image_size = [{side}, {side}]: {100 * share:.0f} % of random crops of {side / scale:.0f} pixels of "
        f"the images hold {counted(most, 'object')} or fewer (crops.most)",
        f"crops.margin = {margin}: so many pixels beyond a crop, objects whose border shows in it are known, too",
        f"model.window = {window}: a concept reaches {window * cell} pixels of a crop, {window * cell / scale:.0f} of the images",
        f"inference.grid = [{grid}, {grid}]: candidates are {side / grid:.2g} pixels of a crop apart",
        *_about_labels(thing.get("label", "") for things in data["objects"] for thing in things),
    )
    tables: dict[str, dict[str, Any]] = {
        "model": {"image_size": [side, side], "window": window},
        "crops": {"scale": scale, "margin": margin},
        "inference": {"grid": [grid, grid], "k_max": most},
    }
    return Advice(tables, reasons)


def _how_many(counts: list[int]) -> str:
    """Describes the numbers of images and objects."""
    said = f"{counted(len(counts), 'image')} with {counted(sum(counts), 'object')}"
    if len(counts) == 1:
        return said
    least, median, most = min(counts), sorted(counts)[len(counts) // 2], max(counts)
    return (
        f"{said}, {least} in each"
        if least == most
        else f"{said}, {least} to {most} in each, the median {median}"
    )


def _about_labels(labels: Iterable[str]) -> list[str]:
    """Returns a line about the labels of objects, and how to learn them; none unless there are several."""
    counts = Counter(label for label in labels if label)
    if len(counts) < 2:
        return []
    said = some([f"{label} {count}" for label, count in counts.most_common()], _LISTED)
    return [f"labels: {said}; concepts objects learn them, concepts pos only where objects are"]


def _side(
    rows: Sequence[tuple[tuple[int, int], Sequence[Sequence[float]]]],
    scale: float,
    margin: int,
    most: int,
    unit: int,
) -> tuple[int, float]:
    """Returns the largest crop side, a multiple of ``unit``, at which enough crops hold few objects, and their proportion."""
    sides = [side for side in SIDES if side % unit == 0] or [unit]
    shares = ((side, _few(rows, side / scale, margin / scale, most)) for side in sides)
    return [next(shares), *takewhile(lambda each: each[1] >= ENOUGH, shares)][-1]


def _few(
    rows: Sequence[tuple[tuple[int, int], Sequence[Sequence[float]]]], side: float, margin: float, most: int
) -> float:
    """Returns the proportion of random squares with at most ``most`` objects in or near them; 0 if no image is so large."""
    chance, few, tried = random.Random(0), 0, 0
    large = [row for row in rows if min(row[0]) >= side]
    for _ in range(_CROPS if large else 0):
        (width, height), centres = chance.choice(large)
        left, top = chance.uniform(0, width - side), chance.uniform(0, height - side)
        inside = sum(
            left - margin <= x <= left + side + margin and top - margin <= y <= top + side + margin
            for x, y in centres
        )
        few, tried = few + (inside <= most), tried + 1
    return few / max(1, tried)
