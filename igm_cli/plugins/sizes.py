"""Detects annotations made for images of another size, by where their points lie."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from igm_cli.errors import InputError, UsageError

Points: TypeAlias = "Iterable[tuple[float, float]]"

OUTSIDE = 0.05
"""Proportion of points outside their images above which the annotations belong to other images."""

REACHED = 0.8
"""Proportion of the width and of the height that points reach; if they reach less of both, images were enlarged."""

ENOUGH = 50
"""Least number of different points for which their reach is checked."""

HELP = "width and height that annotations were made at if they do not say it, e.g. 480x320, where images were scaled since"


def parse_size(text: Any) -> tuple[int, int] | None:
    """Returns ``480x320`` as (width, height); None stays None."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([1-9]\d{0,5})\s*[x×]\s*([1-9]\d{0,5})\s*", str(text), re.ASCII)
    if not match:
        raise UsageError(f"annotated takes a width and a height such as 480x320, not {str(text)[:40]!r}")
    return int(match[1]), int(match[2])


def refuse_other_size(root: Path, images: Iterable[tuple[tuple[int, int], Points]]) -> None:
    """Refuses points that do not belong to their images.

    Args:
        root: The folder, for messages.
        images: Width and height of images, with the points in each, in pixels.

    Raises:
        InputError: If many lie outside, or all lie in one corner.
    """
    count, outside, across, down = 0, 0, 0.0, 0.0
    different: set[tuple[float, float]] = set()
    for (width, height), points in images:
        for x, y in points:
            count += 1
            if len(different) < ENOUGH:
                different.add((x, y))
            outside += not (0 <= x <= width and 0 <= y <= height)
            across, down = max(across, x / width), max(down, y / height)
    way_out = "; if images were scaled since, say so by --set data.annotated=WIDTHxHEIGHT, and if they were cut, correct them"
    if outside > 1 and outside > OUTSIDE * count:
        raise InputError(
            f"{outside} of {count} annotated points of {root} lie outside of their images{way_out}"
        )
    if len(different) >= ENOUGH and 0 < across < REACHED and 0 < down < REACHED:
        raise InputError(
            f"all {count} annotated points of {root} lie in the upper left {100 * across:.0f} % × {100 * down:.0f} % of "
            f"their images{way_out}"
        )


def refuse_fractions(root: Path, places: Sequence[tuple[float, float]]) -> None:
    """Raises an InputError if all places ``(x, y)`` are fractions of the image's sides instead of pixels."""
    whole = all(number in (0, 1) for place in places for number in place)
    if len(places) > 1 and not whole and all(0 <= x <= 1 and 0 <= y <= 1 for x, y in places):
        raise InputError(
            f"all places in the annotations of {root} lie between 0 and 1, as fractions of the image's sides do, and pixels are "
            "meant; multiply x by the width of the image and y by its height"
        )
