"""Labels written beside an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from igm_cli.plugins.overlays import Line, confidence_of, draw_lines

if TYPE_CHECKING:
    from PIL.Image import Image


def draw_labels(image: Image, items: Sequence[Mapping[str, Any]]) -> Image:
    """The image, and beside it a line a label with a bar for the confidence.

    Args:
        image: As given by the user.
        items: With ``label``, perhaps ``confidence``.
    """
    return draw_lines(image, [Line(str(item["label"]), confidence_of(item)) for item in items])
