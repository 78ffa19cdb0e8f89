"""Draws every animal in every style and writes the archive from which the dataset ``animals`` composes scenes.

    python tools/draw_animals.py

The drawings are rules (``tools/animal_drawings``); igm ships only the pictures, as one column per style and
animal, ``STYLE/ANIMAL.webp`` in a zip. After a change of the rules, run this, commit the archive, and
raise ``Animals.version``. It takes some seconds.
"""

from __future__ import annotations

import io
import random
import sys
import zipfile
from pathlib import Path

from animal_drawings import ANIMALS, STYLES, VIEWS, draw_animal
from PIL import Image

ARCHIVE = Path(__file__).parent.parent / "igm_cli" / "plugins" / "animals" / "assets" / "drawings.zip"

SIDE = 96
COLOURS = 256
"""Colours per column; they reduce the archive to a third, and a value is off by 1.6 of 255 on average."""


def variants(animal: str) -> int:
    """Returns the number of pictures of an animal in each style: 8 per view, at least 24."""
    return max(24, 8 * len(VIEWS[animal]))


def column(style: str, animal: str) -> Image.Image:
    """Returns the pictures of an animal in a style, stacked vertically."""
    number = variants(animal)
    pictures = Image.new("RGBA", (SIDE, SIDE * number))
    for index in range(number):
        rng = random.Random(f"{style} {animal} {index}")
        pictures.paste(draw_animal(animal, rng, style=style, size=SIDE), (0, SIDE * index))
    return pictures.quantize(COLOURS, method=Image.Quantize.FASTOCTREE).convert("RGBA")


def main() -> None:
    """Writes the archive."""
    ARCHIVE.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(ARCHIVE, "w") as archive:
        for style in STYLES:
            for animal in ANIMALS:
                encoded = io.BytesIO()
                column(style, animal).save(encoded, "WEBP", lossless=True, method=4, quality=100)
                # A fixed date, so that the same rules give the same archive.
                archive.writestr(zipfile.ZipInfo(f"{style}/{animal}.webp"), encoded.getvalue())
                print(f"{style} {animal}: {len(encoded.getvalue())} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
