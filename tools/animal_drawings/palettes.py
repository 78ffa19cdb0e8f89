"""Colours: what the coats of each animal may look like, and how to lighten and darken a colour."""

from __future__ import annotations

import random
from typing import NamedTuple

from PIL import ImageColor

Colour = tuple[int, int, int]

INK: Colour = (44, 34, 38)
WHITE: Colour = (255, 255, 255)
PINK: Colour = (244, 160, 170)
TONGUE: Colour = (232, 92, 112)
ORANGE: Colour = (246, 152, 40)


class Coat(NamedTuple):
    """The colours of one animal: most of it, its light parts, its dark parts, and what is marked on it."""

    main: Colour
    pale: Colour
    dark: Colour
    marking: str = "plain"


_COATS = {
    "bear": ("8a5a36 d9b58c 5c3a22", "a06a3c e8c69c 6f4526", "6b4a38 c8a27e 452e22"),
    "cat": (
        "f2a33c fff0d8 c9731c stripes", "f5b95c ffffff cf7f2a plain", "4a4650 8a8692 2c2a30 plain",
        "9aa0aa e8ebef 6a707c stripes", "f3e3c4 fffaf0 b08a62 plain", "b08a62 f0dfc4 6e5238 stripes",
        "ffc52e fff0c0 e09a1e plain", "5c5080 a090c4 3a3058 plain", "5e6470 b8bec8 3c4048 plain",
        "f0b088 fbe4d0 c8824e stripes", "ffffff fff6f0 c9a07a plain",
    ),
    "chicken": ("ffffff f4efe6 d8cfc0", "c9793a eac08c 8e4c1e", "f0d9a8 fff6e0 c49a56"),
    "cow": (
        "ffffff f6b8b4 4a4248 patches", "ffffff f6b8b4 8a5632 patches", "b5713c f2cfa8 7c4a24 plain",
        "8a5a3c e6bc9c 5e3a24 patches",
    ),
    "dog": (
        "c68642 f7e3c4 7a4a22 plain", "e3bd85 fff4e0 a87338 plain", "ffffff fbf3ea 8e5a34 patches",
        "9a9aa2 eeeeF2 5e5e68 plain", "7a4e30 d9b48c 4c2f1c plain", "ffffff f5f0ea 4c464c patches",
        "ffc04a fff0d0 c8862a plain", "b4b8c4 eceef4 7c8090 plain", "f0c8a8 fff2e6 b8684a patches",
        "ececec ffffff b0b0b4 plain", "4e4a50 b89870 302c30 plain",
    ),
    "duck": ("ffd84a ffe98e e8b11e", "ffffff f5f1e6 d5cfc0", "a58a6c efe6d4 2f8a5c mallard"),
    "elephant": ("93a3b3 f0b8bc 6f7f90", "a8a8b0 e8b8bc 80808c", "8c9ea0 dcb4b4 687a7c"),
    "fish": (
        "3fa0e0 bfe4fa 1f6cb0 plain", "ff9a2e fff0c8 d85a1a stripes", "ffd23c fff2b0 2f5aa8 stripes",
        "5cbf9a d8f5e6 2e8a6e plain", "8e7ad0 ded4fa 5a48a0 stripes", "f0685c ffd8c8 b83a38 plain",
    ),
    "fox": ("f0782a fff4e6 4a3430", "d9642a fdeedd 3c2c2c", "f28c3c ffffff 5a3a2c"),
    "frog": ("6cbf4a d4f0a8 3f8a2c", "86c83c eaf6b0 549224", "4cae68 c8efc0 2c7c48"),
    "horse": ("a5673a d8a878 4a2c1c", "c98a50 efcfa0 f2e2bc", "7a4c34 b48a6c 2e2220", "e8e2d8 fffdf8 9a8e84"),
    "koala": ("9aa4ae e8ecef 6a747e", "a8a4a4 f2eeea 747070", "8894a4 dce2ea 5c6878"),
    "lion": ("f4bc54 fff0cc a85f22", "eeb04a fce6c0 8c4a20", "f6c878 fff4dc c47a2c"),
    "monkey": ("8a5634 f0c8a0 5c3820", "6e4630 e8bc94 482c1e", "a5703c f6d8ae 6e4620"),
    "mouse": ("a4a8b0 f4b0ba 747880", "c4b8ac f4b8b4 948678", "ffffff f6b4be c8c4c4", "8c8894 eeb0bc 625e6a"),
    "octopus": ("e8604c f8b0a0 b83c30", "b06cc8 e4c0f0 7c3e98", "f08aa0 fcd0d8 c05870", "f0883c fccc9c c05c1c"),
    "owl": ("8c623e ecd0a4 5e3e24", "a8784a f4dfb8 6e4a28", "90806e e8dcc8 5e5244"),
    "panda": ("ffffff f6f2ee 2c2a30", "fbf8f2 f0ebe4 3c3638"),
    "penguin": ("3a4454 ffffff 262e3a", "2e2e36 ffffff 1e1e26", "4c6488 ffffff 34486a"),
    "pig": ("f8a8b4 f07f92 d8697e", "fbbcc0 ee8c98 d47684", "f4a59a e67e74 c86058"),
    "rabbit": (
        "ffffff f8b8c4 d0c8c8", "b4b4bc f6b8c2 84848e", "b58a62 f4c0b4 80583a", "c4b4d4 f6bccc 9080a8",
        "e8cfa8 f6bcb4 b89468", "8c94a4 f6b8c2 5c6474", "f4e8e0 f4a8b4 c8b0a4", "7a5c46 e8b4a8 523a2a",
    ),
    "snail": ("f0c890 c8783c 8c4c24", "d8d090 e08a4c 9c5428", "c8b4a0 a86a8c 6e4060", "e8d0a8 7aa860 4c7838"),
    "tiger": ("f79a2e fff6e8 3a2c2a", "f2a848 ffffff 4a3428", "ee8420 fff0dc 2e2424"),
    "turtle": ("8cc85c 4f8a3c 2f6428", "a8c868 a8743c 6e4824", "6cb87c 3f7c6c 245448"),
    "whale": ("4a94d8 d4ecfc 2c68a8", "5c78a8 d8e4f4 3c5480", "52b4d8 e4f8fc 2c84a8", "6c7c8c dce4ec 465462"),
}  # fmt: skip


def coat(animal: str, rng: random.Random) -> Coat:
    """One of the natural coats of an animal, a little lighter, darker or warmer than written here."""
    main, pale, dark, *marking = rng.choice(_COATS[animal]).split()
    light = rng.uniform(0.94, 1.06)
    tint = [rng.uniform(-5, 5) for _ in range(3)]
    colours = (ImageColor.getrgb(f"#{text}") for text in (main, pale, dark))
    shifted = [tuple(_byte(c * light + t) for c, t in zip(rgb, tint, strict=False)) for rgb in colours]
    return Coat(shifted[0], shifted[1], shifted[2], *marking)  # type: ignore[arg-type]


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """``a`` with a share of ``b``."""
    return tuple(_byte(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def darker(colour: Colour, share: float = 0.15) -> Colour:
    """A colour in the shade: towards the ink rather than black, which would look dirty."""
    return mix(colour, INK, share)


def lighter(colour: Colour, share: float = 0.3) -> Colour:
    """A colour in the light."""
    return mix(colour, WHITE, share)


def _byte(value: float) -> int:
    return max(0, min(255, round(value)))
