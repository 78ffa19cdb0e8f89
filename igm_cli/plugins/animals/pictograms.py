"""Pictograms of animals in folders: ``STYLE/ANIMAL/*.png`` with transparent surroundings."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from igm_cli.errors import InputError, UsageError, near_names


class Pictograms:
    """The pictograms of some styles, by animal.

    Args:
        root: Folder of the styles.
        styles: Names of those taken; empty for all.
        without: Names of those left out.

    Raises:
        InputError: If the folder holds no pictograms in this layout, or one cannot be read.
        UsageError: If a style is not there.
    """

    def __init__(self, root: Path, styles: Sequence[str] = (), without: Sequence[str] = ()) -> None:
        there = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        for style in styles:
            if style not in there:
                raise UsageError(f"{root} has no style {style!r}; {near_names(style, there)}")
        self.pictures: dict[str, list[Image.Image]] = {}
        for style in (name for name in styles or there if name not in without):
            for path in sorted((root / style).glob("*/*.png")):
                self.pictures.setdefault(path.parent.name, []).append(_read(path))
        if not self.pictures:
            raise InputError(f"{root} holds no pictograms STYLE/ANIMAL/*.png; give a folder that does")

    @property
    def animals(self) -> tuple[str, ...]:
        """Those there are, in order."""
        return tuple(sorted(self.pictures))

    def draw(self, animal: str, rng: random.Random) -> Image.Image:
        """One of the pictograms of an animal."""
        return rng.choice(self.pictures[animal])


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            picture: Image.Image = image.convert("RGBA")
            return picture
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path} cannot be read as an image; replace or remove it") from error
