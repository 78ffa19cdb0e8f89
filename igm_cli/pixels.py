"""Which pixel values are black and white: one rule, by the type of the values and what the file says about them.

===========================  ======================================================================================
values                       black and white
===========================  ======================================================================================
1 to 8 bits                  0 and the largest value of this many bits, without a message, as this is usual
9 to 16 bits, unsigned       0 and the largest value of this many bits (TIFF: BitsPerSample), or MaxSampleValue if it is
                             the largest value of some number of bits, such as 4095
floating-point               0 and 1; or SMinSampleValue and SMaxSampleValue of a TIFF, if it has both
32 bits, or signed           SMinSampleValue and SMaxSampleValue of a TIFF; without them such images are refused
===========================  ======================================================================================

A TIFF whose smallest value is white (PhotometricInterpretation 0) is inverted.  sBIT of a PNG has no effect, because the PNG
specification wants fewer bits scaled up to all of them.  The pixels themselves never decide.  Values that are not finite are
refused.  So are values beyond black and white, unless the user gives these two: then they are clipped.  Floating-point
values may overshoot by a tenth, as they do in resized images; they are clipped too.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

OVERSHOOT = 0.1
"""How far beyond 0 and 1 floating-point values may lie, as a share of the range."""

_PACKAGE = str(Path(__file__).parent)
_BLOCK = 1 << 22  # values scaled at once
_BITS, _PHOTOMETRIC, _MAX, _FORMAT, _SMIN, _SMAX = 258, 262, 281, 339, 340, 341  # tags of TIFF
_UNSIGNED = 1

_WAY_OUT = "give the values of black and white with --range LOW,HIGH (pixel_range in Python)"


def warn(text: str) -> None:
    """Warns the library's user, at the line of theirs that called igm."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


@dataclass(frozen=True)
class Limits:
    """The values of black and of white."""

    low: float  # the smaller
    high: float  # the larger
    inverted: bool = False  # whether the smaller is white
    # how far values may lie beyond them, as a share of the range; they are clipped
    overshoot: float = 0.0


@dataclass
class Scaling:
    """Turns pixel values into bytes, and reports once per kind what it took for black and white, or left out."""

    given: tuple[float, float] | None = None  # black and white as the user gave them; None follows the rule
    note: Callable[[str], None] = warn  # receives what was assumed
    _said: set[Any] = field(default_factory=set, init=False)

    def __getstate__(self) -> dict[str, Any]:  # the function that reports belongs to the process
        return {"given": self.given, "note": warn, "_said": set()}

    def __deepcopy__(self, memo: dict[int, Any]) -> Scaling:  # a copied dataset reports nothing twice
        return self

    def grey(self, image: Image, name: str) -> Image:
        """Returns an image of 16-bit, 32-bit or floating-point values as one of bytes (mode L).

        Raises:
            InputError: If its values cannot be scaled.
        """
        import numpy as np
        from PIL import Image as images

        tags: Any = getattr(image, "tag_v2", None) or {}
        values = np.asarray(image)
        if image.mode == "I" and _first(tags, _BITS, 16) == 32 and _first(tags, _FORMAT, 1) == _UNSIGNED:
            values = values.view(np.uint32)  # Pillow reads them as signed
        inverted = tags.get(_PHOTOMETRIC) == 0
        if self.given:
            pixels = to_bytes(values, Limits(*self.given, inverted), name, cut=True)
        else:
            limits = replace(_limits(image, tags, name), inverted=inverted)
            pixels = to_bytes(values, limits, name)
            self._say_limits(name, limits, f"they lie within {_span(values)}")
        clear = image.info.get("transparency")
        if isinstance(clear, int):  # in a 16-bit PNG: the one value that is transparent
            pixels[values == clear] = 255
        return images.fromarray(pixels)

    def colours(self, image: Image, name: str, deep: bool) -> Image:
        """Returns an 8-bit image with its colours scaled, if black and white are given.

        ``deep`` says that the file has 16 bits per colour, of which Pillow reads the upper 8.
        """
        if deep and self.given:
            raise InputError(
                f"{name} has 16 bits per colour, of which 8 are read, so it cannot be scaled by --range; save it with 8"
            )
        if deep:
            self._say_limits(name, Limits(0, 65535), f"the largest is about {_brightest(image) * 257}")
        if not self.given:
            return image
        low, high = self.given
        table = [round(min(1.0, max(0.0, (value - low) / (high - low))) * 255) for value in range(256)]
        alpha = image.mode in ("LA", "RGBA")
        if image.mode not in ("L", "LA", "RGB", "RGBA"):
            image = image.convert("RGB")
        bands = len(image.getbands())
        return image.point(table * (bands - 1) + list(range(256)) if alpha else table * bands)

    def say_of_frames(self, name: str) -> None:
        """Reports once that only the first of an image's frames or pages is read."""
        only_first = "of which only the first is read; save the others as images of their own"
        self._say("frames", f"{name} has several frames or pages, {only_first}")

    def _say_limits(self, name: str, limits: Limits, found: str) -> None:
        black, white = (limits.high, limits.low) if limits.inverted else (limits.low, limits.high)
        taken = f"{black:g} is taken for black and {white:g} for white"
        otherwise = "--range LOW,HIGH (pixel_range in Python) says otherwise"
        self._say((black, white), f"{name}: {taken} ({found}); {otherwise}")

    def _say(self, kind: Any, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self.note(text)


def check_range(given: Any) -> tuple[float, float] | None:
    """Returns the values of black and white of ``"0,4095"``, ``(0, 4095)`` or None.

    Raises:
        UsageError: If they are not two numbers, the smaller first.
    """
    if given is None:
        return None
    try:
        low, high = (float(part) for part in (given.split(",") if isinstance(given, str) else given))
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise UsageError(
            f"a range takes the values of black and of white, the lower one first, such as 0,4095, not {str(given)[:60]!r}"
        )
    return low, high


def to_bytes(values: Any, limits: Limits, name: str, *, cut: bool = False) -> Any:
    """Returns values ``[H,W]`` or ``[H,W,C]`` as bytes, 0 at black and 255 at white.

    ``cut`` clips values beyond them, however far.

    Raises:
        InputError: If values are not finite, or lie beyond black and white.
    """
    import numpy as np

    pixels = np.empty(values.shape, np.uint8)
    width = limits.high - limits.low
    rows = max(1, _BLOCK // max(1, values[:1].size))
    for top in range(0, len(values), rows):
        part = (values[top : top + rows].astype(np.float64) - limits.low) / width
        if not np.isfinite(part).all():
            raise InputError(f"{name} holds values that are not finite (NaN or infinity); fill them in")
        least, most = part.min(initial=0.0), part.max(initial=1.0)
        if not cut and (least < -limits.overshoot or most > 1 + limits.overshoot):
            raise InputError(
                f"{name} has values beyond {limits.low:g}..{limits.high:g} (they lie within {_span(values)}); {_WAY_OUT}"
            )
        part = part.clip(0, 1)
        pixels[top : top + rows] = ((1 - part if limits.inverted else part) * 255).round()
    return pixels


def _limits(image: Image, tags: Any, name: str) -> Limits:
    """Returns the values of black and white in an image with more than 8 bits per channel."""
    said = [_first(tags, tag, None) for tag in (_SMIN, _SMAX)]
    told = None not in said and all(map(math.isfinite, said)) and said[0] < said[1]
    if image.mode == "F":
        low, high = said if told else (0, 1)
        return Limits(low, high, overshoot=OVERSHOOT)
    if image.mode == "I" and tags:
        if told:
            return Limits(*said)
        import numpy as np

        raise InputError(
            f"{name} does not say what is black and white in values of its kind (they lie within "
            f"{_span(np.asarray(image))}); {_WAY_OUT}"
        )
    bits = _first(tags, _BITS, 16)
    most = _first(tags, _MAX, 0)
    if 0 < most < 2**bits and most & (most + 1) == 0:
        return Limits(0, most)
    return Limits(0, 2**bits - 1)


def _first(tags: Any, tag: int, default: Any) -> Any:
    """Returns the first value of a TIFF tag."""
    value = tags.get(tag, default)
    return value[0] if isinstance(value, Sequence) and value else value


def _span(values: Any) -> str:
    return f"{values.min():g}..{values.max():g}"


def _brightest(image: Image) -> int:
    extrema: Any = image.getextrema()
    colours = [extrema] if isinstance(extrema[0], int) else extrema[:3]
    return int(max(most for _, most in colours))
