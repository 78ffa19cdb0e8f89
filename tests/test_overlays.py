"""Pictures of objects: rings that scale, texts that cover nothing, and a legend where there are many."""

from __future__ import annotations

import math
import random
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw

from igm_cli.plugins.overlays import DOUBTFUL_RING, LEGEND, RING, Mark, draw_marks

WORDS = ("red cell", "white cell", "platelet", "")


def scattered(count: int, distance: float, size: tuple[int, int], seed: int = 0) -> list[Mark]:
    """Marks at random places, in pixels at least a distance apart."""
    rng, places = random.Random(seed), list[tuple[float, float]]()
    while len(places) < count:
        place = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        if all(math.dist(place, other) >= distance for other in places):
            places.append(place)
    return [Mark(x / size[0], y / size[1], rng.choice((0.99, 0.5, None)), rng.choice(WORDS)) for x, y in places]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Boxes of rings and texts, and what the texts are, as they are drawn."""
    found: dict[str, list[Any]] = {"rings": [], "texts": [], "words": []}
    ellipse, text = ImageDraw.ImageDraw.ellipse, ImageDraw.ImageDraw.text

    def of_ring(pen: Any, box: Any, **how: Any) -> None:
        if how["outline"] != (0, 0, 0):
            found["rings"].append(box)
        ellipse(pen, box, **how)

    def of_text(pen: Any, at: Any, words: str, **how: Any) -> None:
        asked = {name: how[name] for name in ("font", "anchor", "stroke_width") if name in how}
        if "stroke_fill" in how:  # not of the legend
            found["texts"].append(pen.textbbox(at, words, **asked))
            found["words"].append(words)
        text(pen, at, words, **how)

    monkeypatch.setattr(ImageDraw.ImageDraw, "ellipse", of_ring)
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", of_text)
    return found


@pytest.mark.parametrize(
    ("count", "distance", "size"),
    [
        (110, 36, (640, 480)),
        (130, 20, (640, 480)),
        (100, 200, (4000, 3000)),
        (30, 2, (20, 20)),
        (60, 4, (96, 64)),
    ],
)
def test_rings_do_not_meet_and_texts_cover_nothing(
    count: int, distance: float, size: tuple[int, int], drawn: dict[str, list[Any]]
) -> None:
    marks = scattered(count, distance, size)
    picture = draw_marks(Image.new("RGB", size, "white"), marks)
    factor = picture.width // size[0]
    rings, texts = np.array(drawn["rings"][:count]), np.array(drawn["texts"])
    centres, radii = (rings[:, :2] + rings[:, 2:]) / 2, (rings[:, 2] - rings[:, 0]) / 2
    assert centres == pytest.approx(np.array([(m.x, m.y) for m in marks]) * size * factor)
    apart = np.hypot(*(centres[:, None] - centres).transpose(2, 0, 1)) + 1e9 * np.eye(count)
    assert (apart > radii + radii[:, None]).all() and radii.min() >= 4
    meet = ((texts[:, None, :2] < texts[:, 2:]) & (texts[:, None, 2:] > texts[:, :2])).all(axis=2)
    assert not (meet & ~np.eye(len(texts), dtype=bool)).any()
    assert texts[:, :2].min() >= 0 and (texts[:, 2:] <= (size[0] * factor, size[1] * factor)).all()
    covered = ((texts[:, None, :2] < centres + 2) & (texts[:, None, 2:] > centres - 2)).all(axis=2)
    assert all(drawn["words"][text] == str(mark + 1) for text, mark in np.argwhere(covered))
    numbers = [word for word in drawn["words"] if word.isdecimal()]
    assert len(set(numbers)) == len(numbers) > 0.9 * count
    assert len(drawn["words"]) - len(numbers) > 0.7 * sum(bool(mark.text) for mark in marks)


def test_no_room_at_all(drawn: dict[str, list[Any]]) -> None:
    """Marks at one place have small rings and fewer numbers, and a picture has a greatest size."""
    same = [Mark(0.5, 0.5, 0.9, "here")] * 12
    draw_marks(Image.new("RGB", (64, 64)), same)
    assert len(drawn["rings"]) == 12 and 1 <= len(drawn["words"]) < 24
    crowd = [Mark((i % 25) / 25, i / 500, None) for i in range(500)]
    assert max(draw_marks(Image.new("RGB", (320, 240)), crowd).size) <= 4096 + 300


def test_few_marks_are_numbered_rings_and_nothing_else(drawn: dict[str, list[Any]]) -> None:
    marks = [Mark((i + 0.5) / 10, 0.5, 0.5 + i / 20) for i in range(10)]
    picture = draw_marks(Image.new("RGB", (96, 64)), marks)
    assert picture.size == (768, 512)
    assert drawn["words"] == [str(number) for number in range(1, 11)]
    assert {box[2] - box[0] for box in drawn["rings"]} == {2 * 17}  # a thirtieth of the height
    colors = {color for _, color in picture.getcolors(1 << 20)}
    assert {RING, DOUBTFUL_RING} <= colors and LEGEND not in colors
    without = draw_marks(Image.new("RGB", (96, 64)), [])
    assert without.size == picture.size and without.getextrema() == ((0, 0),) * 3


def test_a_close_pair_has_its_numbers_beside(drawn: dict[str, list[Any]]) -> None:
    draw_marks(Image.new("RGB", (480, 480)), [Mark(0.5, 0.5), Mark(0.52, 0.5), Mark(0.1, 0.1), Mark(0.0, 0.9)])
    assert sorted(drawn["words"]) == ["1", "2", "3", "4"]  # that of a mark on the border is not cut off
    left, right = sorted(box for box in drawn["rings"] if box[2] - box[0] < 12)
    assert left[2] < right[0]


def test_texts_keep_off_small_rings(drawn: dict[str, list[Any]]) -> None:
    """A text goes to the other side of its mark rather than onto rings too small for a number."""
    pair = [Mark(0.6, 0.5), Mark(0.62, 0.5)]
    draw_marks(Image.new("RGB", (480, 480)), [Mark(0.5, 0.5, text="something long"), *pair])
    (box,) = (box for box, word in zip(drawn["texts"], drawn["words"], strict=True) if word == "something long")
    assert box[2] < 0.5 * 480


def test_the_legend_counts_and_explains_two_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    text = ImageDraw.ImageDraw.text

    def listen(pen: Any, at: Any, words: str, **how: Any) -> None:
        said.append(words)
        text(pen, at, words, **how)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", listen)
    image = Image.new("RGB", (640, 480), "white")
    sure = [Mark((i + 0.5) / 11, 0.5, 0.95) for i in range(11)]
    picture = draw_marks(image, sure)
    assert picture.width == 640 and picture.height > 480
    assert said[11:] == ["11 objects"]
    said.clear()
    draw_marks(image, [*sure, Mark(0.5, 0.1, 0.89)])
    assert said[12:] == ["12 objects", "11 confident", "1 doubtful (below 0.9)"]
    narrow = draw_marks(Image.new("RGB", (3, 4000), "white"), [Mark(0.5, i / 12) for i in range(12)])
    assert narrow.size == (3, 4000)  # no legend would fit
    assert ImageChops.difference(image, Image.new("RGB", (640, 480), "white")).getbbox() is None


def test_an_object_far_from_the_others_has_a_ring_as_they_have(drawn: dict[str, list[Any]]) -> None:
    places = [(400 + 40 * i, 400 + 40 * j) for i in range(10) for j in range(10)] + [(2800, 2000)]
    draw_marks(Image.new("RGB", (3000, 2400), "white"), [Mark(x / 3000, y / 2400, 0.99) for x, y in places])
    widths = [right - left for left, _, right, _ in drawn["rings"][: len(places)]]
    assert max(widths) < 2.5 * min(widths)
    assert {str(number + 1) for number in range(len(places))} <= set(drawn["words"])


@pytest.mark.slow
def test_as_many_objects_as_a_scanned_slide_holds_are_drawn_in_seconds(drawn: dict[str, list[Any]]) -> None:
    rng = random.Random(0)
    marks = [Mark(rng.random(), rng.random(), rng.random()) for _ in range(20_000)]
    begun = time.process_time()
    draw_marks(Image.new("RGB", (9000, 6750), "white"), marks)
    assert time.process_time() - begun < 60  # not minutes, as where every mark asks every other
    assert len(drawn["rings"]) >= 20_000 and len(drawn["words"]) > 10_000
