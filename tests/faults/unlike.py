"""Noise, plain colours and photographs given to each bundled model: it says that it does not know such images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from faults.case import Case, Outcome
from faults.kit import CPU, Kit

PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png",
    "color.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "page.png",
    "retina.jpg", "rocket.jpg", "text.png", "horse.png", "moon.png", "chessboard_RGB.png",
)  # fmt: skip
"""Those that scikit-image brings."""

COLOURS = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "the grey of CLEVR": (110, 110, 112),
    "red": (200, 30, 30),
    "skin": (230, 190, 170),
}
SURE = 0.9
LARGEST = 320
"""Longest side: models of images of any size take time for more."""


def cases(kit: Kit) -> Iterator[Case]:
    """Yields an image each for a model."""
    images: dict[str, Callable[[Path], object]] = {
        f"plain {name}": partial(_save, Image.new("RGB", (320, 240), colour))
        for name, colour in COLOURS.items()
    }
    random = np.random.default_rng(0)
    for width, height in ((96, 64), (320, 240)):
        coloured = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        grey = np.clip(random.normal(128, 40, (height, width)), 0, 255).astype(np.uint8)
        images[f"noise {width}"] = partial(_save, Image.fromarray(coloured))
        images[f"grey noise {width}"] = partial(_save, Image.fromarray(grey))
    smooth = Image.fromarray(random.integers(0, 256, (8, 12, 3), dtype=np.uint8))
    images["smooth noise"] = partial(_save, smooth.resize((320, 213), Image.Resampling.BICUBIC))
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    images |= {name: partial(_photograph, folder / name) for name in PHOTOGRAPHS}
    for model in (
        "clevr-pos",
        "clevr-objects",
        "blood-cells",
        "celeba-attributes",
        "celeba-faces",
        "animals-tiny",
    ):
        command = "zero-shot" if model == "animals-tiny" else "invert"
        for name, image in images.items():
            yield Case(
                model,
                name,
                (command, "a.png", "--model", model, "--json", *CPU),
                {"a.png": image},
                expect="answered",
                says="is unlike what",
                check=not_sure,
                seconds=120,
            )


def not_sure(outcome: Outcome) -> str | None:
    """Returns what is surer of the image than it may be."""
    (line,) = outcome.json()
    surest = max((item["confidence"] for item in line["items"]), default=0.0)
    return f"confidence {surest}" if surest > SURE else None


def _save(image: Image.Image, path: Path) -> None:
    image.convert("RGB").save(path)


def _photograph(source: Path, path: Path) -> None:
    with Image.open(source) as image:
        image.thumbnail((LARGEST, LARGEST))
        _save(image, path)
