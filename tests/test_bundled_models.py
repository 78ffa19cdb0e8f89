"""The bundled models on images whose answer is known; how many may be wrong leaves room for other weights."""

from __future__ import annotations

import PIL.Image
import pytest
import torch
from conftest import ROOT
from PIL.Image import Image
from torch import Tensor

import igm_cli as igm
from igm_cli.bundled import resolve_model
from igm_cli.core.metrics import match
from igm_cli.imaging import to_rgb
from igm_cli.plugins import registry
from igm_cli.plugins.base import Frame

EXAMPLES = ROOT / "examples"
BLENDER = {
    "CLEVR_val_000003": [(11.1, 26.8), (61.4, 20.8), (36.2, 17.7), (51.0, 14.5), (43.3, 49.8)],
    "CLEVR_val_000007": [(56.1, 31.3), (79.5, 32.4), (50.8, 19.9)],
    "CLEVR_val_001002": [(63.3, 20.1), (42.1, 27.8), (24.4, 31.4), (47.7, 33.8), (18.4, 22.8), (54.9, 18.6)],
    "CLEVR_val_001040": [(61.2, 26.3), (44.3, 32.2), (53.6, 17.2), (34.4, 23.4), (11.4, 29.1), (64.0, 21.8)],
}  # fmt: skip
"""Centres of the objects of example images, in pixels of 96x64, as they are annotated."""


@pytest.fixture(scope="module")
def scenes() -> tuple[list[Image], list[Tensor]]:
    """Example images and four renders of three to eight objects, with the positions in 0..1 that are true."""
    pytest.importorskip("igm_clevr_render")
    data = registry.dataset("clevr").load("val", seed=14, size=4, objects="3-8")
    parser = registry.concept_parser("pos")
    images = [to_rgb(PIL.Image.open(EXAMPLES / "images" / f"{name}.png")) for name in BLENDER]
    truths = [torch.tensor(places) / torch.tensor([96.0, 64.0]) for places in BLENDER.values()]
    for example in data:
        images.append(to_rgb(example["image"]))
        truths.append(parser.parse(example, Frame.fit(images[-1].size, 96 / 64)))
    return images, truths


@pytest.mark.parametrize("first", [4, pytest.param(0, marks=pytest.mark.slow)])
def test_objects_are_found_and_counted(scenes: tuple[list[Image], list[Tensor]], first: int) -> None:
    """In the renders; in the example images, whose answers test_golden.py and the pages hold, among the slow tests."""
    images, truths = (each[first:] for each in scenes)
    results = igm.load("clevr-pos", device="cpu").invert(images, draws=2, max_draws=2)
    found = [torch.tensor([[item["x"], item["y"]] for item in result.items]) for result in results]
    over = [len(f) - len(t) for f, t in zip(found, truths, strict=True)]
    assert over.count(0) >= 0.75 * len(images) and max(map(abs, over)) <= 1, over
    perceived = sum(int(match(f, t).perceived("sum").sum()) for f, t in zip(found, truths, strict=True))
    assert perceived >= 0.9 * sum(map(len, truths)) and perceived >= 0.9 * sum(map(len, found))


VALUES = {
    "large red rubber cylinder", "large green rubber cylinder", "large blue metal sphere", "large yellow metal sphere",
    "large yellow rubber sphere",
}  # fmt: skip
"""What the objects of the first of them are."""


def test_objects_are_described() -> None:
    image = to_rgb(PIL.Image.open(EXAMPLES / "images" / "CLEVR_val_000003.png"))
    result = igm.load("clevr-objects", device="cpu").invert(image, draws=3, max_draws=3)
    said = {" ".join(item["values"].values()) for item in result.items}
    assert result.k == 5 and len(said & VALUES) >= 4, said


CELLS = {
    "5": ((90, 60, 282, 252), [
        (166, 175), (39, 17), (60, 69), (66, 127), (109, 55), (104, 180), (142, 149), (20, 142), (175, 76), (140, 25),
    ]),
    "97": ((300, 200, 492, 392), [
        (156, 130), (39, 92), (40, 144), (167, 166), (72, 53), (186, 95), (14, 37), (65, 125), (117, 59), (101, 21), (180, 3),
        (126, 113),
    ]),
}  # fmt: skip
"""Windows of photographs, and where the cells in them are annotated, in pixels of the window."""


@pytest.mark.parametrize("name", CELLS)
def test_cells_are_found_in_windows_of_photographs(name: str) -> None:
    window, cells = CELLS[name]
    photograph = to_rgb(PIL.Image.open(EXAMPLES / "cells" / f"{name}.jpg"))
    found = igm.load("blood-cells", device="cpu").invert(photograph.crop(window), max_draws=6)
    assert abs(found.k - len(cells)) <= 1
    points = torch.tensor([[item["x_px"], item["y_px"]] for item in found.items])
    nearest = torch.cdist(torch.tensor(cells).float(), points).amin(1)
    assert (nearest < 14).sum() >= len(cells) - 1  # of 40 across


@pytest.mark.parametrize("size", [(150, 150), (300, 240)])
def test_how_typical_cells_are_does_not_depend_on_the_size_of_the_photograph(size: tuple[int, int]) -> None:
    photograph = to_rgb(PIL.Image.open(EXAMPLES / "cells" / "5.jpg")).crop((0, 0, *size))
    found = igm.load("blood-cells", device="cpu").invert(photograph, max_draws=6)
    assert found.typicality is not None and found.typicality > 0.9


def test_a_model_for_one_kind_of_picture_is_no_default() -> None:
    assert resolve_model(None, "pos").name == "clevr-pos"


@pytest.mark.slow
def test_animals_are_named_in_drawn_scenes() -> None:
    """The files are named after the animals that ``examples/animals/make.py`` put into them."""
    files = sorted((EXAMPLES / "animals").glob("*.png"))
    truths = [set(file.stem.split("-")) for file in files]
    model = igm.load("animals-tiny", labels=sorted(set.union(*truths)), device="cpu")
    found = [{item["label"] for item in r.items} for r in model.invert(files, draws=3, max_draws=3)]
    assert sum(f == t for f, t in zip(found, truths, strict=True)) >= 5
    named = sum(len(f & t) for f, t in zip(found, truths, strict=True))
    assert named >= 0.8 * sum(map(len, truths)) and named >= 0.8 * sum(map(len, found))


@pytest.mark.parametrize(
    "name", sorted(path.parent.name for path in (ROOT / "igm_cli/checkpoints").glob("*/igm.json"))
)
def test_they_say_what_they_were_trained_on(name: str) -> None:
    assert registry.dataset(igm.load(name).dataset).splits


def test_the_model_that_draws_faces_knows_what_is_none() -> None:
    """By where the errors stand: on average, it denoises a scene of CLEVR as well as a face."""
    pictures = [EXAMPLES / "faces" / "long-0.png", EXAMPLES / "images" / "CLEVR_val_000007.png"]
    face, scene = igm.load("celeba-faces", device="cpu").invert(pictures, draws=4, max_draws=4)
    assert face.typicality > 0.9 and min(face.confidence) > 0.8
    assert scene.typicality < 0.5 and max(scene.confidence) < 0.75


def test_another_penalty_makes_no_image_unlike_those_trained_on(bundled_models: str) -> None:
    sure, penalty = (0.8, 40.0) if bundled_models == "quick" else (0.9, 100.0)
    model = igm.load("clevr-pos")
    for settings in ({"penalty": penalty}, {"k_min": 7, "k_max": 8}):
        result = model.invert(EXAMPLES / "images" / "CLEVR_val_000003.png", **settings)
        assert result.k != 5 and result.typicality > 0.9 and max(result.confidence) > sure
    assert (
        model.invert(
            torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0)), penalty=100.0
        ).typicality
        < 0.1
    )
