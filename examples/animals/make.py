"""The scenes in this folder: python make.py.  Our own drawings, one to three animals a scene."""

import random
import sys
from pathlib import Path

from igm_cli.plugins.animals.scenes import compose_scene

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from animal_drawings import STYLES, draw_animal

SCENES = (
    ("dog", "cat"),
    ("rabbit", "dog"),
    ("cat", "rabbit"),
    ("elephant",),
    ("owl", "fox"),
    ("penguin", "whale", "fish"),
    ("frog", "snail", "turtle"),
    ("lion", "koala"),
)

for number, labels in enumerate(SCENES):
    rng = random.Random(f"picture {number}")
    style = STYLES[number % len(STYLES)]
    scene = compose_scene(
        labels, lambda animal, rng, style=style: draw_animal(animal, rng, style=style, size=192), rng, size=256
    )
    scene.save(Path(__file__).parent / f"{'-'.join(labels)}.png")
