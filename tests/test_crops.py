"""Crops of large images: where they lie, what they hold, and that concepts stay where the objects are."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
import torch
from PIL import Image

from igm_cli.errors import InputError
from igm_cli.plugins.crops import Crops, CropSamples
from igm_cli.plugins.objects.advice import advise
from igm_cli.plugins.positions import Positions

SIZE = (200, 160)


def dotted(points: list[tuple[int, int]], size: tuple[int, int] = SIZE, **more: Any) -> dict[str, Any]:
    """A black image with a white pixel at the middle of every point's pixel."""
    image = Image.new("RGB", size)
    for x, y in points:
        image.putpixel((x, y), (255, 255, 255))
    objects = [{"pixel_coords": [x + 0.5, y + 0.5], "box": [20.0, 10.0]} for x, y in points]
    return {"image": image, "width": size[0], "height": size[1], "objects": objects, **more}


def scattered(count: int, step: int = 20) -> list[tuple[int, int]]:
    return [(x, y) for y in range(10, SIZE[1], step) for x in range(10, SIZE[0], step)][:count]


def samples(rows: list[dict[str, Any]], **options: Any) -> CropSamples:
    image_size = options.pop("image_size", (48, 32))
    return CropSamples(datasets.Dataset.from_list(rows), Positions(), image_size, Crops(**options), seed=3)


@pytest.mark.parametrize("turns", [False, True])
def test_concepts_lie_where_the_objects_show(turns: bool) -> None:
    cut = samples([dotted(scattered(80))], most=12, turns=turns)
    flips = [bool(i % 2) for i in range(40)]
    images, concepts, present = cut.batch(list(range(40)), flips)
    assert images.shape == (40, 3, 32, 48)
    for image, some, there in zip(images, concepts, present, strict=True):
        y, x = (image[0] == 255).nonzero().T
        shown = sorted(zip((x + 0.5).tolist(), (y + 0.5).tolist(), strict=True))
        told = sorted((round(48 * u, 2), round(32 * v, 2)) for u, v in some[there].tolist())
        assert told == shown


def test_a_crop_is_the_same_whenever_it_is_asked_for() -> None:
    rows = [dotted(scattered(40)), dotted(scattered(20, 30))]
    first, again = samples(rows, brightness=0.2, turns=True), samples(rows, brightness=0.2, turns=True)
    one, two = first.batch([7, 5], [False, True]), again.batch([5, 7], [True, False])
    assert torch.equal(one[0], two[0].flip(0))
    assert torch.equal(one[1][0][one[2][0]], two[1][1][two[2][1]])
    assert len({first.crop(i) for i in range(50)}) == 50


def test_no_crop_shows_more_than_it_may() -> None:
    points = scattered(40, 30)
    cut = samples([dotted(points)], most=3, margin=6)
    counts = []
    for i in range(60):
        left, top, right, bottom = cut.crop(i).box
        _, concepts = cut.cut(cut.crop(i))
        near = [
            (x, y) for x, y in points if left - 6 <= x + 0.5 <= right + 6 and top - 6 <= y + 0.5 <= bottom + 6
        ]
        assert len(concepts) == len(near) <= 3
        counts.append(len(near))
    free = samples([dotted(points)], most=9, margin=6)
    assert max(len(free.cut(free.crop(i))[1]) for i in range(60)) > max(counts)
    with pytest.raises(InputError, match="hardly any crop of 48×32 pixels holds 1 object or"):
        samples([dotted([(x, y) for x in range(0, 200, 8) for y in range(0, 160, 8)])], most=1).crop(0)


def test_objects_beyond_the_border_are_known_within_the_margin() -> None:
    cut = samples([dotted([(100, 80)])], margin=8)
    outside = 0
    for i in range(300):
        left, top, *_ = cut.crop(i).box
        _, concepts = cut.cut(cut.crop(i))
        if len(concepts):
            x, y = concepts[0].tolist()
            assert (left + 48 * x, top + 32 * y) == pytest.approx((100.5, 80.5), abs=1e-3)
            outside += not (0 <= x <= 1 and 0 <= y <= 1)
    assert outside > 5


def test_crops_keep_off_regions_to_ignore_and_scale_images() -> None:
    cut = samples([dotted([(50, 40)], ignored=[[0.0, 0.0, 100.0, 160.0]])], scale=0.5)
    for i in range(40):
        left, _, _, _ = cut.crop(i).box
        assert left >= 50  # of 100 pixels that the image has at this scale
    with pytest.raises(InputError, match="pixels beside the regions to ignore holds"):
        samples([dotted([(50, 40)], ignored=[[0.0, 0.0, 200.0, 160.0]])]).crop(0)


def test_brightness_changes_values_by_no_more_than_asked() -> None:
    row = {**dotted([]), "image": Image.new("RGB", SIZE, (120, 130, 140))}
    cut = samples([row], brightness=0.1)
    images, _, present = cut.batch(list(range(30)), [False] * 30)
    middle = images[:, :, 0, 0].float().mean(1)
    assert not present.any()
    assert middle.std() > 3
    assert ((middle - 130).abs() <= 26 + 1).all()


def test_images_smaller_than_a_crop_are_left_out_and_told() -> None:
    notes: list[str] = []
    rows = datasets.Dataset.from_list([dotted([(5, 5)], (30, 30)), dotted([(50, 50)])])
    cut = CropSamples(rows, Positions(), (48, 32), Crops(), 0, note=notes.append)
    assert len(cut.images) == 1
    assert notes == ["1 of 2 images is smaller than a crop of 48×32 pixels, and is left out"]
    with pytest.raises(InputError, match=r"raise crops\.scale"):
        samples([dotted([(5, 5)], (30, 30))])


def test_images_that_a_scale_would_make_too_large_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("igm_cli.imaging.MAX_BYTES", 8 * SIZE[0] * SIZE[1])
    assert samples([dotted([(50, 40)])]).images
    with pytest.raises(InputError, match=r"image 0 would have .* use a smaller crops\.scale"):
        samples([dotted([(50, 40)])], scale=2.0)


def test_advice_follows_the_distance_of_neighbours() -> None:
    def of(step: int) -> Any:
        points = [(x, y) for y in range(10, 1200, step) for x in range(10, 1600, step)]
        rows = [{**dotted([], (16, 16)), "width": 1600, "height": 1200}]
        rows[0]["objects"] = [{"pixel_coords": list(p), "box": None} for p in points]
        return advise(datasets.Dataset.from_list(rows), 6)

    near, far = of(40), of(80)
    assert near.tables["crops"]["scale"] == 0.5
    assert far.tables["crops"]["scale"] == 0.25
    assert near.tables["model"] == far.tables["model"]
    assert any("neighbours are 40 pixels apart" in reason for reason in near.reasons)
    rows = datasets.Dataset.from_list([{**dotted([]), "objects": []}])
    with pytest.raises(InputError, match="no training image has an object"):
        advise(rows, 6)


def test_advice_takes_the_smallest_crops_where_none_suit() -> None:
    row = dotted([(10, 10)], (20, 20))
    crowd = dotted([(x, y) for x in range(0, 300, 20) for y in range(0, 300, 20)], (300, 300))
    for each, most in ((row, 6), (crowd, 1)):
        assert advise(datasets.Dataset.from_list([each]), most).tables["model"]["image_size"] == [32, 32]


def test_advice_names_the_labels_where_there_are_several() -> None:
    row = dotted(scattered(20))
    for place, thing in enumerate(row["objects"]):
        thing["label"] = "blue" if place % 4 else "red"
    *_, said = advise(datasets.Dataset.from_list([row]), 6).reasons
    assert said.startswith("labels: blue 15, red 5; concepts objects learn them")
    for thing in row["objects"]:
        thing["label"] = "red"
    assert not any("labels" in reason for reason in advise(datasets.Dataset.from_list([row]), 6).reasons)


def test_advice_counts_in_the_cells_of_the_model() -> None:
    points = [(x, y) for y in range(10, 1200, 40) for x in range(10, 1600, 40)]
    row = {**dotted([], (16, 16)), "width": 1600, "height": 1200}
    row["objects"] = [{"pixel_coords": list(p), "box": None} for p in points]
    data = datasets.Dataset.from_list([row])
    fine, coarse = (advise(data, 6, cell).tables["model"] for cell in (2, 8))
    assert fine["window"] > coarse["window"]
    assert coarse["image_size"][0] % 32 == fine["image_size"][0] % 8 == 0
