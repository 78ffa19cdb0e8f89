"""The animals that ``igm`` has drawn: the archive it reads, and the script that wrote it."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
from conftest import ROOT

from igm_cli.plugins.animals.pictograms import ANIMALS, STYLES, Drawings, read_drawings

TOOLS = ROOT / "tools"
needs_tools = pytest.mark.skipif(not TOOLS.is_dir(), reason="the drawing script is not installed with igm")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import draw_animals

    yield draw_animals
    for name in [name for name in sys.modules if name.partition(".")[0] in ("draw_animals", "animal_drawings")]:
        del sys.modules[name]


def test_25_animals_in_four_styles():
    assert len(ANIMALS) == len(set(ANIMALS)) == 25
    assert list(ANIMALS) == sorted(ANIMALS)
    assert STYLES == ("flat", "shaded", "outlined", "crayon")


@pytest.mark.parametrize("style", STYLES)
def test_every_animal_in_every_style(style: str):
    for animal in ANIMALS:
        pictures = read_drawings(style, animal)
        assert len(pictures) >= 24
        assert len({picture.tobytes() for picture in pictures}) == len(pictures), "none comes twice"
        for picture in pictures:
            assert (picture.mode, picture.size) == ("RGBA", (96, 96))
            alpha = np.asarray(picture.getchannel("A"))
            assert (alpha > 128).mean() > 0.15, "there is a body"
            assert alpha[0, 0] == 0, "the ground is transparent"
            rows, columns = np.any(alpha > 32, axis=1).nonzero()[0], np.any(alpha > 32, axis=0).nonzero()[0]
            gaps = (rows[0], columns[0], 95 - rows[-1], 95 - columns[-1])
            assert 1 <= min(gaps) <= 5, "it fills the square up to a margin"
            assert len(picture.getcolors(96 * 96)) > 8, "it is coloured"


def test_chance_chooses_style_and_picture():
    drawings = Drawings(without=["shaded"])
    rng, again = random.Random(3), random.Random(3)
    pictures = [drawings.draw("dog", rng) for _ in range(40)]
    assert [p.tobytes() for p in pictures] == [
        Drawings(without=["shaded"]).draw("dog", again).tobytes() for _ in range(40)
    ]
    seen = {picture.tobytes() for picture in pictures}
    assert len(seen) > 25
    for style in STYLES:
        drawn = {picture.tobytes() for picture in read_drawings(style, "dog")}
        assert bool(drawn & seen) == (style != "shaded")


@needs_tools
@pytest.mark.parametrize(("style", "animal"), [("flat", "dog"), ("shaded", "owl"), ("crayon", "turtle")])
def test_the_archive_is_what_the_script_writes(script, style: str, animal: str):
    drawn = np.asarray(script.column(style, animal), dtype=int)
    kept = np.concatenate([np.asarray(picture) for picture in read_drawings(style, animal)]).astype(int)
    assert drawn.shape == kept.shape
    # Another version of Pillow may round otherwise.
    assert np.abs(drawn - kept).mean() < 0.5


@needs_tools
def test_the_script_knows_what_the_archive_holds(script):
    assert (script.ANIMALS, script.STYLES) == (ANIMALS, STYLES)
    assert all(len(read_drawings("outlined", animal)) == script.variants(animal) for animal in ANIMALS)


@needs_tools
@pytest.mark.parametrize("style", STYLES)
def test_drawing_has_no_other_chance_than_the_one_given(script, style: str):
    for animal in ANIMALS:
        one, two, other = (
            script.draw_animal(animal, random.Random(s), style=style, size=24) for s in (7, 7, 8)
        )
        assert one.tobytes() == two.tobytes() != other.tobytes()
