"""Pictures of animals on a transparent ground: igm's own drawings, or pictograms in folders ``STYLE/ANIMAL/*.png``.

The drawings are an archive with one column of pictures per style and animal, ``STYLE/ANIMAL.webp``, drawn by
``tools/draw_animals.py`` of the repository.  A folder ``STYLE/nothing`` holds pictograms of other things.
"""

from __future__ import annotations

import functools
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from igm_cli.errors import InputError, UsageError, near_names
from igm_cli.imaging import formats
from igm_cli.plugins.adapters import choice
from igm_cli.plugins.animals.scenes import NOTHING

ARCHIVE = Path(__file__).parent / "assets" / "drawings.zip"

STYLES = ("flat", "shaded", "outlined", "crayon")
with zipfile.ZipFile(ARCHIVE) as _archive:
    ANIMALS = tuple(sorted(Path(name).stem for name in _archive.namelist() if name.startswith(STYLES[0])))


class Drawings:
    """igm's own drawings in the styles named, or in all if none is, except for those left out."""

    animals = ANIMALS

    def __init__(self, styles: Sequence[str] = (), without: Sequence[str] = ()) -> None:
        for style in styles:
            choice("style", style, STYLES)
        self.styles = [style for style in styles or STYLES if style not in without]
        if not self.styles:
            raise UsageError("no style is left to draw in; take one out of the option without")
        self._pictures = functools.cache(read_drawings)

    def draw(self, animal: str, rng: random.Random) -> Image.Image:
        """Returns a random drawing of an animal, every style equally often; an empty one for nothing."""
        if animal == NOTHING:  # no other things were drawn
            return Image.new("RGBA", (8, 8))
        return rng.choice(self._pictures(rng.choice(self.styles), animal))


def read_drawings(style: str, animal: str) -> list[Image.Image]:
    """Returns all drawings of an animal in a style: squares, RGBA."""
    with zipfile.ZipFile(ARCHIVE) as archive, archive.open(f"{style}/{animal}.webp") as file:
        column = Image.open(file).convert("RGBA")
    side = column.width
    return [column.crop((0, top, side, top + side)) for top in range(0, column.height, side)]


class Pictograms:
    """The pictograms in a folder, by animal; styles as in :class:`Drawings`."""

    def __init__(self, root: Path, styles: Sequence[str] = (), without: Sequence[str] = ()) -> None:
        there = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        for style in styles:
            if style not in there:
                raise UsageError(f"{root} has no style {style!r}; {near_names(style, there)}")
        self._pictures: dict[str, list[Image.Image]] = {}
        for style in (name for name in styles or there if name not in without):
            for path in sorted((root / style).glob("*/*.png")):
                self._pictures.setdefault(path.parent.name, []).append(_read(path))
        if not self._pictures.keys() - {NOTHING}:
            raise InputError(f"{root} holds no pictograms STYLE/ANIMAL/*.png; give a folder that does")
        self._pictures.setdefault(NOTHING, [Image.new("RGBA", (8, 8))])
        self.animals = tuple(sorted(self._pictures.keys() - {NOTHING}))

    def draw(self, animal: str, rng: random.Random) -> Image.Image:
        """Returns a random pictogram of an animal, or of other things; an empty one if there are no others."""
        return rng.choice(self._pictures[animal])


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=formats()) as image:
            picture: Image.Image = image.convert("RGBA")
            return picture
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path} cannot be read as an image; replace or remove it") from error
