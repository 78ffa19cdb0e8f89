"""Draws the faces beside this file; needs the extra faces: pip install 'igm-cli[faces]'.

Four of the training domain (long hair), two of the shifted one (short hair, beards), two with outlines;
their seed is none of a split's.
"""

from pathlib import Path

from igm_cli.plugins.celeba.avatars import render_face
from igm_cli.plugins.celeba.recipe import balanced_face

FACES = {
    "long-0": (5, False, "flat"),
    "long-1": (2, False, "flat"),
    "long-2": (4, False, "flat"),
    "long-3": (3, False, "flat"),
    "beard-0": (7, True, "flat"),
    "beard-1": (12, True, "flat"),
    "outlined-0": (6, False, "outlined"),
    "outlined-1": (1, True, "outlined"),
}

for name, (number, male, style) in FACES.items():
    picture = render_face(balanced_face(number, seed=77, male=male), 192, style)
    picture.save(Path(__file__).parent / f"{name}.png", optimize=True)
