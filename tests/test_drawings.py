"""The animals that ``igm`` draws itself."""

from __future__ import annotations

import random

import pytest
from PIL import ImageChops

from igm_cli.errors import UsageError
from igm_cli.plugins.animals.drawings import ANIMALS, STYLES, draw_animal


def test_25_animals_sorted():
    assert len(ANIMALS) == len(set(ANIMALS)) == 25
    assert list(ANIMALS) == sorted(ANIMALS)
    assert STYLES == ("flat", "shaded", "outlined", "crayon")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("animal", ANIMALS)
def test_every_animal_in_every_style(animal: str, style: str):
    for seed in range(2):
        image = draw_animal(animal, random.Random(seed), style=style, size=40)
        assert (image.mode, image.size) == ("RGBA", (40, 40))
        alpha = image.getchannel("A")
        solid = alpha.point(lambda a: 255 if a > 128 else 0)
        left, top, right, bottom = solid.getbbox()
        assert max(right - left, bottom - top) > 31, "it fills the square"
        assert solid.histogram()[255] > 40 * 40 * 0.15, "there is a body"
        assert alpha.getpixel((0, 0)) == 0, "the ground is transparent"
        assert len(image.getcolors(40 * 40)) > 8, "it is coloured"


@pytest.mark.parametrize("style", STYLES)
def test_it_leaves_a_margin(style: str):
    for animal in ANIMALS:
        alpha = draw_animal(animal, random.Random(5), style=style).getchannel("A")
        # Without the faint ring that the resampling leaves about an edge.
        left, top, right, bottom = alpha.point(lambda a: 255 if a > 16 else 0).getbbox()
        assert 1 <= min(left, top, 96 - right, 96 - bottom) <= 5


@pytest.mark.parametrize("style", STYLES)
def test_same_state_same_picture(style: str):
    for animal in ANIMALS:
        one, two = (draw_animal(animal, random.Random(7), style=style, size=40) for _ in range(2))
        assert ImageChops.difference(one, two).getbbox(alpha_only=False) is None


@pytest.mark.parametrize("animal", ANIMALS)
def test_other_states_other_pictures(animal: str):
    rng = random.Random(0)
    assert len({draw_animal(animal, rng, style="flat", size=40).tobytes() for _ in range(8)}) == 8


def test_styles_differ():
    pictures = {draw_animal("dog", random.Random(3), style=style).tobytes() for style in STYLES}
    assert len(pictures) == len(STYLES)


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="unknown animal 'elefant'; did you mean elephant"):
        draw_animal("elefant", random.Random(0), style="flat")
    with pytest.raises(UsageError, match="unknown style 'cryon'; did you mean crayon"):
        draw_animal("cat", random.Random(0), style="cryon")
