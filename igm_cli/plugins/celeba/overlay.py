"""Attributes written beside an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from igm_cli.plugins.overlays import Line, confidence_of, draw_lines

if TYPE_CHECKING:
    from PIL.Image import Image


def draw_attributes(image: Image, items: Sequence[Mapping[str, Any]]) -> Image:
    """The image, and beside it a line an attribute: its name, its value, and a bar for the confidence.

    Args:
        image: As given by the user.
        items: With ``factor`` and ``value``, perhaps ``confidence``.
    """
    lines = [Line(str(i["value"]), confidence_of(i), str(i["factor"]).replace("_", " ")) for i in items]
    return draw_lines(image, lines)
