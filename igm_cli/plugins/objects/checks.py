"""Selects the usable annotations of one image: its objects in its pixels, without impossible ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from igm_cli.errors import counted
from igm_cli.imaging import formats
from igm_cli.plugins.objects.annotations import Annotation, Findings, Object

Usable: TypeAlias = tuple[tuple[int, int], list[Object], list[tuple[float, float]]]
"""Size of an image, its objects in its pixels, and the places, even outside it, of those without a stated size."""

_TOLERANCE = 0.02  # by which an image's aspect ratio may differ from the one annotated
_DECIMALS = 6  # of pixels, to which two objects must agree to be the same


def usable(
    path: Path,
    image: str,
    annotations: Sequence[Annotation],
    findings: Findings,
    stated: tuple[int, int] | None = None,
) -> Usable | None:
    """Returns the usable annotations of an image; None if there are none.

    ``stated`` is the user's size for annotations that give none; they are scaled from it to the image's.
    """
    if any(each.objects is None for each in annotations):
        return None
    try:
        size = image_size(path)
    except Exception as error:  # Pillow's readers raise anything
        why = str(error).replace(str(path), image)
        findings.add("broken", image, f"it cannot be opened ({why}), and is left out; save it again")
        return None
    every: list[Object] = []
    places: list[tuple[float, float]] = []
    for annotation in annotations:
        scales = (size[0] / stated[0], size[1] / stated[1]) if stated and annotation.size is None else None
        scales = scales or _scales(annotation, size, image, findings)
        if scales is None:
            return None
        scaled = [_scaled(each, *scales) for each in annotation.objects or ()]
        every += scaled
        places += [(each.x, each.y) for each in scaled if annotation.size is None]
    solid = [each for each in every if each.box is None or min(each.box) > 0]
    inside = [each for each in solid if 0 <= each.x <= size[0] and 0 <= each.y <= size[1]]
    distinct = list({_identity(each): each for each in reversed(inside)}.values())[::-1]
    for kind, what, more, fewer in (
        ("flat", "no area", every, solid),
        ("outside", f"a centre outside its {size[0]}×{size[1]} pixels", solid, inside),
        ("identical", "an equal", inside, distinct),
    ):
        if count := len(more) - len(fewer):
            verb = "has" if count == 1 else "have"
            says = f"{counted(count, 'object')} of {len(every)} {verb} {what}, left out"
            findings.add(kind, image, says, count)
    if not every:
        findings.add("empty", image, "its annotation names no object; it is taken as an image without any")
    return size, distinct, places


def _scales(
    annotation: Annotation, size: tuple[int, int], image: str, findings: Findings
) -> tuple[float, float] | None:
    """Returns the pixels per unit of an annotation in x and y; None if the image has another aspect ratio."""
    wide, high = annotation.size or size
    across, down = size[0] / wide, size[1] / high
    if annotation.size not in (None, size, (1.0, 1.0)):
        says = f"it is annotated as {wide:g}×{high:g} and has {size[0]}×{size[1]} pixels"
        alike = abs(across / down - 1) <= _TOLERANCE
        what = "its annotations are scaled" if alike else "it is left out; annotate it again"
        findings.add("resized", image, f"{says}: {what}")
        if not alike:
            return None
    return across, down


def _scaled(thing: Object, across: float, down: float) -> Object:
    box = thing.box and (thing.box[0] * across, thing.box[1] * down)
    return replace(thing, x=thing.x * across, y=thing.y * down, box=box)


def _identity(thing: Object) -> tuple[Any, ...]:
    numbers = (thing.x, thing.y, *(thing.box or ()))
    return (
        thing.label,
        thing.crowd,
        *(round(each, _DECIMALS) for each in numbers),
        *sorted(thing.attributes.items()),
    )


def image_size(path: Path) -> tuple[int, int]:
    """Returns width and height of an image, turned as its EXIF says; its pixels are not decoded."""
    from PIL import ExifTags, Image

    with Image.open(path, formats=formats()) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (image.height, image.width) if turned else (image.width, image.height)
