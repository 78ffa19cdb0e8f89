"""Cartoon animals drawn by rule; ``tools/draw_animals.py`` writes them into the archive that igm reads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

from PIL import Image

from animal_drawings import birds, bodies, faces, others
from animal_drawings.features import View, sitter
from animal_drawings.palettes import coat, lighter
from animal_drawings.shapes import Shape, mirror, smooth, tube
from animal_drawings.sketch import Layer, Sketch
from animal_drawings.styles import STYLES, render

__all__ = ["ANIMALS", "STYLES", "VIEWS", "draw_animal"]


def _sitting(face: View, tail: Shape | None = None) -> View:
    return partial(sitter, face=face, tail=tail)


def _panda_sitting(s: Sketch) -> None:
    sitter(s, faces.panda, limbs=s.coat.dark, belly=s.coat.main)


def _rabbit_sitting(s: Sketch) -> None:
    # The pale colour of a rabbit is that of its ears inside.
    sitter(s, faces.rabbit, belly=lighter(s.coat.main, 0.55))


def _looking(face: View, crouched: bool = False) -> View:
    return partial(bodies.onlooker, face=face, crouched=crouched)


_SHORT = tube([(62, 88), (76, 84), (82, 72)], 9, 6)
_CURLED = tube([(60, 90), (78, 88), (84, 74), (78, 62), (86, 54)], 7, 7, 6)
_BUSHY = smooth((60, 92), (62, 80), (74, 68), (80, 54), (90, 62), (92, 78), (82, 92))


VIEWS: dict[str, tuple[View, ...]] = {
    "bear": (faces.bear, _sitting(faces.bear), bodies.bear),
    "cat": (faces.cat, _sitting(faces.cat, _CURLED), bodies.cat, _looking(faces.cat)),
    "chicken": (birds.chicken_face, birds.chicken),
    "cow": (faces.cow, bodies.cow),
    "dog": (
        *(faces.dog, faces.dog, _sitting(faces.dog, _SHORT)),
        *(bodies.dog, bodies.dog, bodies.poodle, _looking(faces.dog)),
    ),
    "duck": (birds.duck, birds.duck, birds.duck, birds.duck_face),
    "elephant": (faces.elephant, bodies.elephant),
    "fish": (others.fish, others.angelfish),
    "fox": (faces.fox, _sitting(faces.fox, _BUSHY), bodies.fox),
    "frog": (others.frog_face, others.frog),
    "horse": (faces.horse, bodies.horse_head, bodies.horse),
    "koala": (faces.koala, _sitting(faces.koala)),
    "lion": (faces.lion, bodies.lion),
    "monkey": (faces.monkey, _sitting(faces.monkey, _CURLED), bodies.monkey),
    "mouse": (faces.mouse, bodies.mouse),
    "octopus": (others.octopus,),
    "owl": (birds.owl,),
    "panda": (faces.panda, _panda_sitting),
    "penguin": (birds.penguin, birds.penguin_side),
    "pig": (faces.pig, bodies.pig),
    "rabbit": (faces.rabbit, _rabbit_sitting, bodies.rabbit, _looking(faces.rabbit, crouched=True)),
    "snail": (others.snail,),
    "tiger": (faces.tiger, bodies.tiger),
    "turtle": (others.turtle, others.turtle_top),
    "whale": (others.whale, others.sperm_whale),
}

ANIMALS: tuple[str, ...] = tuple(VIEWS)


def draw_animal(animal: str, rng: random.Random, *, style: str, size: int = 96) -> Image.Image:
    """Draw one animal; its view, its proportions and its colours are drawn from ``rng``.

    Args:
        animal: One of ``ANIMALS``.
        rng: Where all chance comes from: the same state gives the same picture.
        style: One of ``STYLES``.
        size: Side of the picture in pixels.

    Returns:
        An RGBA image on a transparent ground, which the animal fills up to a small margin.
    """
    sketch = Sketch(rng, coat(animal, rng))
    rng.choice(VIEWS[animal])(sketch)
    # A little wider or taller as a whole, and a third of them the other way round.
    stretch = sketch.vary(1.0, 0.06)
    turned = rng.random() < 0.35
    layers = [
        Layer(la.colour, _bent(la.shapes, stretch, turned), la.contour, _bent(la.within, stretch, turned))
        for la in sketch.layers
    ]
    return render(layers, rng, style, size)


def _bent(shapes: Sequence[Shape], stretch: float, turned: bool) -> list[Shape]:
    bent = [[(x * stretch, y) for x, y in shape] for shape in shapes]
    return [mirror(shape) for shape in bent] if turned else bent
