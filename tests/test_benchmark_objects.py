"""``igm benchmark objects``: windows of photographs, what is right in them, methods that learn from crops, and the report."""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_cases import Run, records_of
from PIL import Image, ImageDraw
from test_crops import dotted, samples, scattered
from torch import Tensor

from igm_cli.benchmarks.baselines.fit import Budget, TrainingData, fit
from igm_cli.benchmarks.baselines.maps import DENSITY_UNIT, CentrePoints, DensityMap
from igm_cli.benchmarks.baselines.set_prediction import SetPredictor
from igm_cli.benchmarks.baselines.watershed import Watershed, chosen
from igm_cli.benchmarks.intervals import ratio_difference
from igm_cli.benchmarks.points import Hits, best, beyond, border, hits
from igm_cli.benchmarks.scores import ScoredSplits
from igm_cli.benchmarks.suites.objects import HELD_CROPS, Inside
from igm_cli.benchmarks.suites.objects_report import comparisons, metrics
from igm_cli.benchmarks.suites.objects_windows import SLICES, Bands, Sight, cut, regions
from igm_cli.core.metrics import match_within
from igm_cli.errors import InputError, UsageError

NOWHERE = torch.zeros(0, 4)
SIGHT = Sight(0.5, 16, (48, 48))


def points(*pairs: tuple[float, float]) -> Tensor:
    return torch.tensor(pairs).reshape(-1, 2)


# What is right


def test_as_many_pairs_as_there_can_be() -> None:
    """Matched by the least sum of distances, the first answer would take the only object that the second one can have."""
    found = match_within(points((0, 0), (6, 0)), points((2, 0), (-5, 0)), radius=5)
    assert dict(zip(found.predicted.tolist(), found.truth.tolist(), strict=True)) == {0: 1, 1: 0}
    assert found.squared.sum(1).tolist() == [25, 16]
    assert len(match_within(points((0, 0)), points((6, 0)), radius=5).truth) == 0
    assert len(match_within(points(), points((6, 0)), radius=5).truth) == 0


def test_of_equally_many_pairs_the_nearest() -> None:
    found = match_within(points((0, 0), (1, 0)), points((1, 0), (0, 0)), radius=5)
    assert found.truth.tolist() == [1, 0]
    one = match_within(points((3, 0), (1, 0)), points((0, 0)), radius=5)
    assert one.predicted.tolist() == [1]


def test_an_object_that_may_be_missed_takes_what_is_left_over() -> None:
    spared = torch.tensor([True, False])
    found = match_within(points((0, 0)), points((0, 0), (4, 0)), 5, spared)
    assert found.truth.tolist() == [1]
    assert match_within(points((0, 0), (1, 0)), points((0, 0), (4, 0)), 5, spared).truth.tolist() == [0, 1]


def test_hits_by_hand() -> None:
    truth = points((10, 10), (30, 10), (50, 10))
    answers = points((11, 10), (12, 10), (35, 10), (90, 90))
    assert hits(answers, truth, NOWHERE, 5) == Hits(right=2, answers=4, objects=3)
    assert hits(answers, truth, NOWHERE, 4.9) == Hits(1, 4, 3)
    assert hits(points(), truth, NOWHERE, 5) == Hits(0, 0, 3)
    assert hits(answers, points(), NOWHERE, 5) == Hits(0, 4, 0)
    kinds = torch.tensor([0.0, 1, 1, 0]), torch.tensor([0.0, 0, 0])
    same = torch.zeros(4), torch.zeros(3)
    assert hits(answers, truth, NOWHERE, 5, same) == Hits(2, 4, 3)
    assert hits(answers, truth, NOWHERE, 5, kinds).right < 2
    assert Hits(2, 4, 3).f1 == pytest.approx(4 / 7)
    assert Hits(0, 0, 0).f1 == 1


def test_nothing_counts_in_a_region_to_ignore() -> None:
    box = torch.tensor([[0.0, 0.0, 20.0, 100.0]])
    truth = points((10, 10), (18, 50), (22, 80), (60, 10))
    assert hits(points((3, 3)), truth, box, 5) == Hits(0, 0, 2)
    assert hits(points((22, 50)), truth, box, 5) == Hits(0, 0, 2)  # of the object at (18, 50)
    assert hits(points((19, 80)), truth, box, 5) == Hits(1, 1, 2)  # an answer in the region, an object outside
    assert hits(points((28, 80), (40, 50), (60, 10)), truth, box, 5) == Hits(1, 3, 2)


def test_the_best_setting_is_the_middle_of_the_best() -> None:
    found = {0.1: Hits(1, 9, 2), 0.2: Hits(2, 2, 2), 0.3: Hits(2, 2, 2), 0.4: Hits(2, 2, 2), 0.5: Hits(0, 0, 2)}
    assert best(found, lambda level: [found[level], Hits(0, 0, 0)]) == (0.3, 1.0)


# Windows


def counted(box: tuple[int, int, int, int], centres: Tensor, size: tuple[int, int], radius: float) -> int:
    left, top, right, bottom = box
    low = [left + radius * (left > 0), top + radius * (top > 0)]
    high = [right - radius * (right < size[0]), bottom - radius * (bottom < size[1])]
    return int(((centres >= torch.tensor(low)) & (centres <= torch.tensor(high))).all(1).sum())


@pytest.mark.parametrize("counts", [SLICES[name] for name in ("1-6", "7-20", "21-60", "61-140", "whole")])
def test_windows_hold_as_many_objects_as_they_should(counts: tuple[int, int]) -> None:
    size, radius = (640, 480), 7.5
    chance = random.Random(3)
    centres = torch.tensor([[chance.uniform(0, 640), chance.uniform(0, 480)] for _ in range(100)])
    boxes = cut(size, centres, (), counts, SIGHT, Bands(radius), random.Random(0))
    if counts[1] >= 100:
        assert boxes == [(0, 0, 640, 480)]
        return
    assert 1 <= len(boxes) <= 4
    area = torch.zeros(480, 640)
    for box in boxes:
        left, top, right, bottom = box
        assert left >= 0 and top >= 0 and right <= 640 and bottom <= 480
        assert (right - left) % 32 == 0 and right - left >= 96 and bottom - top >= 96
        assert counts[0] <= counted(box, centres, size, radius) <= counts[1]
        area[top:bottom, left:right] += 1
    assert area.max() == 1
    assert boxes == cut(size, centres, (), counts, SIGHT, Bands(radius), random.Random(0))


def test_a_photograph_of_fewer_objects_gives_no_window() -> None:
    assert cut((640, 480), points((50, 50)), (), (7, 20), SIGHT, Bands(5), random.Random(0)) == []
    assert cut((640, 480), points((50, 50)), (), (1, 6), SIGHT, Bands(5), random.Random(0)) == [
        (0, 0, 640, 480)
    ]
    assert (
        cut((640, 480), points((50, 50)), [(40, 40, 60, 60)], (1, 6), SIGHT, Bands(5), random.Random(0)) == []
    )


def test_images_are_seen_at_the_scale_of_the_model() -> None:
    assert SIGHT.size((640, 480)) == (320, 240)
    assert SIGHT.size((100, 30)) == (48, 16)
    assert SIGHT.size((5, 5)) == (16, 16)
    with pytest.raises(InputError, match="would have 40000×30000 pixels"):
        SIGHT.size((80_000, 60_000))
    assert border((10.0, 8.0), [2, 0, 0, 3]).tolist() == [[0, 0, 2, 8], [0, 5, 10, 8]]
    assert border((10.0, 8.0), [0] * 4).shape == (0, 4)
    inside, outside = points((5, 4), (9.9, 7.9), (0.1, 0.1)), points((-1, 4), (5, -1), (11, 4), (5, 9))
    assert [hits(each, each, beyond((10, 8)), 1.0).objects for each in (inside, outside)] == [3, 0]


def test_bands_within_cuts_and_within_the_photographs_own_sides() -> None:
    where = regions((0, 100, 50, 480), (640, 480), [(10, 110, 20, 120)], Bands(7, 3))
    assert where.tolist() == [
        [10, 10, 20, 20],
        [0, 0, 3, 380],
        [0, 0, 50, 7],
        [43, 0, 50, 380],
        [0, 377, 50, 380],
    ]


# Baselines


class Grid(SetPredictor):
    """Finds every white pixel of a tile."""

    def predict(self, model: Any, images: Tensor, k: Any) -> list[Tensor]:
        size = torch.tensor([images.shape[-1], images.shape[-2]])
        return [((image[0] > 0).nonzero().flip(1) + 0.5) / size for image in images]


@pytest.mark.parametrize("size", [(100, 75), (32, 24), (20, 60), (33, 24)])
def test_tiles_count_every_object_once(size: tuple[int, int]) -> None:
    image = torch.full((3, size[1], size[0]), -1.0)
    places = [(x, y) for x in range(3, size[0] - 2, 7) for y in range(2, size[1] - 1, 5)]
    for x, y in places:
        image[:, y, x] = 1
    found = Grid((32, 24)).predict_tiled(torch.nn.Identity(), image, same=3.0)
    told = sorted((round(x - 0.5), round(y - 0.5)) for x, y in found.tolist())
    assert told == sorted(places)


def test_crops_without_what_lies_beyond_them() -> None:
    cut = samples([dotted(scattered(80))], most=12, margin=8)
    whole, inside = cut.batch([0, 1, 2], [False] * 3), Inside(cut).batch([0, 1, 2], [False] * 3)
    assert inside[2].sum() < whole[2].sum()
    kept = inside[1][inside[2]]
    assert ((kept >= 0) & (kept <= 1)).all()


def objects() -> tuple[Tensor, Tensor]:
    """Concepts and presence of two crops of 32 pixels, one object each inside, and one beyond the border of the first."""
    concepts = torch.tensor([[[0.5, 0.25], [-0.1, 0.5]], [[0.71, 0.33], [0.0, 0.0]]])
    return concepts, torch.tensor([[True, True], [True, False]])


def test_a_perfect_density_counts_and_finds() -> None:
    baseline = DensityMap((32, 32), radius=5.0)
    concepts, present = objects()
    distance = (torch.cartesian_prod(torch.arange(1, 32, 2), torch.arange(1, 32, 2)).flip(1)[:, None]).float()
    truth = concepts[1, :1] * 32
    bump = (
        torch.exp(-(distance - truth).square().sum(2) / (2 * 2.5**2)).view(16, 16) * 4 / (2 * math.pi * 2.5**2)
    )
    assert float(bump.sum()) == pytest.approx(1, abs=0.02)
    maps = DENSITY_UNIT * bump[None, None]
    assert float(baseline.error(maps, concepts[1:], present[1:])) < 1e-6
    assert float(baseline.error(0 * maps, concepts[1:], present[1:])) > 1
    peaks = baseline.read(maps[0])
    strongest = peaks.scores.argmax()
    assert peaks.density is not None and float(peaks.density.sum()) == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(peaks.points[strongest], truth[0], atol=0.5, rtol=0)
    assert 0.8 < float(peaks.scores[strongest]) <= 1


def test_a_perfect_centre_point_is_found_where_it_is() -> None:
    baseline = CentrePoints((32, 32), radius=5.0)
    concepts, present = objects()
    maps = torch.full((2, 3, 16, 16), -12.0)
    for row, x, y in ((0, 16.0, 8.0), (1, 0.71 * 32, 0.33 * 32)):
        cell = int(x // 2), int(y // 2)
        maps[row, 0, cell[1], cell[0]] = 12.0
        maps[row, 1:, cell[1], cell[0]] = torch.tensor([x / 2 - cell[0], y / 2 - cell[1]])
    assert float(baseline.error(maps, concepts, present)) < 1e-3
    shifted = maps.roll(1, dims=3)
    assert float(baseline.error(shifted, concepts, present)) > 5
    for row in range(2):
        peaks = baseline.read(maps[row])
        sure = peaks.scores > 0.5
        torch.testing.assert_close(peaks.points[sure], concepts[row, :1] * 32)


def test_the_focal_loss_is_the_papers() -> None:
    """Of one object and one cell beside it, equation 1 of Zhou et al. by hand."""
    baseline = CentrePoints((8, 8), radius=6.0, patch=2)
    maps = torch.zeros(1, 3, 1, 2)  # every probability a half, every offset 0
    told = float(baseline.error(maps, torch.tensor([[[0.125, 0.125]]]), torch.tensor([[True]])))
    near = math.exp(-1 / 2)  # a cell off, a spread of one cell
    by_hand = 0.5**2 * math.log(2) + (1 - near) ** 4 * 0.5**2 * math.log(2) + 0.5 + 0.5
    assert told == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("kind", [DensityMap, CentrePoints])
def test_maps_learn_from_crops_and_see_images_of_any_size(kind: Any, tmp_path: Path) -> None:
    rows = [{**discs((96, 64), [(x, y) for x in range(10, 96, 24) for y in range(10, 64, 24)])}]
    cut = samples(rows, image_size=(32, 32), most=9, margin=4)
    data = TrainingData({}, lambda: (cut, samples(rows, image_size=(32, 32), most=9, margin=4, count=8)))
    baseline = kind((32, 32), 3.0, channels=(8, 8, 8), blocks=1, learning_rates=(1e-2,), batch_size=8, ema=0.9)
    untrained = fit(baseline, data, Budget(steps=1), tmp_path / "one", device=torch.device("cpu"))
    trained = fit(baseline, data, Budget(steps=50), tmp_path / "two", device=torch.device("cpu"))
    assert trained.validation < 0.6 * untrained.validation
    (peaks,) = baseline.find(trained.model, torch.zeros(1, 3, 45, 71))
    assert peaks.density is None or peaks.density.shape == (23, 36)
    assert (peaks.points <= torch.tensor([72, 46])).all()


def discs(
    size: tuple[int, int], places: list[tuple[int, int]], radius: int = 7, light: bool = True
) -> dict[str, Any]:
    image = Image.new("RGB", size, (40, 40, 40) if light else (200, 200, 200))
    pen = ImageDraw.Draw(image)
    for x, y in places:
        pen.ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=(200, 40, 60) if light else (60, 20, 60)
        )
    things = [
        {"pixel_coords": [x + 0.5, y + 0.5], "label": "", "box": None, "attributes": {}} for x, y in places
    ]
    return {"image": image, "width": size[0], "height": size[1], "objects": things}


@pytest.mark.parametrize("light", [True, False])
def test_watershed_parts_discs_that_touch(light: bool) -> None:
    places = [(20, 20), (33, 20), (60, 40), (80, 15)]
    picture = discs((100, 64), places, light=light)["image"]
    image = (
        torch.tensor(list(picture.get_flattened_data()), dtype=torch.float32).view(64, 100, 3).permute(2, 0, 1)
        / 127.5
        - 1
    )
    truth = points(*((x + 0.5, y + 0.5) for x, y in places))
    found, f1 = chosen([image], [truth], [NOWHERE], 3.5)
    assert (found.dark, f1) == (not light, 1.0)
    assert hits(found.find(image), truth, NOWHERE, 2.0) == Hits(4, 4, 4)
    assert len(Watershed(True, 1.0, 3.5).find(torch.zeros(3, 20, 20))) == 0


# Figures


def row(photograph: str, right: int, answers: int, objects: int, count: float | None = None) -> dict[str, Any]:
    counted = answers if count is None else count
    found = {"right": right, "answers": answers, "objects": objects, "count": counted}
    return {"label": "any", "photograph": photograph, "seconds": 2.0, "predicted": [], **found}


def test_figures_of_known_rows() -> None:
    e = metrics([row("a", 8, 10, 10), row("b", 9, 10, 20), row("b", 1, 2, 2, 4.0)])
    assert e["precision"].value == pytest.approx(18 / 22)
    assert e["recall"].value == pytest.approx(18 / 32)
    assert e["f1"].value == pytest.approx(36 / 54)
    assert e["mae"].value == pytest.approx((0 + 10 + 2) / 3)
    assert e["bias"].value == pytest.approx((0 - 10 + 2) / 3)
    assert e["rmse"].value == pytest.approx(math.sqrt((100 + 4) / 3))
    assert e["mape"].value == pytest.approx((0 + 0.5 + 1) / 3)
    assert e["seconds"].value == 2
    assert e["f1"].low < 0.1 and e["f1"].high > 0.95  # two photographs tell hardly anything
    assert math.isnan(metrics([row("a", 8, 10, 10), row("a", 9, 9, 9)])["f1"].low)  # and one nothing
    alike = metrics([row(name, right, 10, 10) for name, right in zip("abcdef", (8, 9) * 3, strict=True)])
    assert alike["f1"].low > 0.8  # a bootstrap over photographs


def test_a_difference_is_resampled_in_pairs() -> None:
    """Two methods that differ by the same everywhere differ by just that, however much photographs do."""
    shares = [0.1, 0.9, 0.4, 0.6]
    e = ratio_difference((shares, [1] * 4), ([share - 0.05 for share in shares], [1] * 4))
    assert e == pytest.approx((0.05, 0.05, 0.05))


@pytest.mark.parametrize("photographs", ["abcdef", "abcde"])
def test_where_igm_loses_is_said(photographs: str) -> None:
    def records(label: str, right: dict[str, int], count: float) -> list[dict[str, Any]]:
        return [
            {
                "method": label,
                "split": split,
                "item": name,
                "rows": [{**row(name, n, 10, 10, count), "label": label}],
            }
            for split, n in right.items()
            for name in photographs
        ]

    given = [*records("igm", {"1-6": 5, "7-20": 9}, 13), *records("x", {"1-6": 8, "7-20": 4}, 6),
             *records("y", {"1-6": 7, "7-20": 5}, 12)]  # fmt: skip
    rows, sentences, found = comparisons(ScoredSplits(given, ("1-6", "7-20", "whole"), metrics))
    if len(photographs) < 6:
        assert sentences[0] == (
            "On 1-6 igm cannot be told from x in F1 (-30.0 [-30.0, -30.0] points) and cannot be told from y in counting "
            "(1.00 [1.00, 1.00]); 5 photographs cannot tell methods apart."
        )
        assert {verdict["igm"] for split in found.values() for verdict in split.values()} == {"neither"}
        return
    assert sentences[0] == (
        "On 1-6 igm LOSES to x in F1 (-30.0 [-30.0, -30.0] points) and LOSES to y in counting (1.00 [1.00, 1.00])."
    )
    assert sentences[1].startswith("On 7-20 igm is better than y in F1 (+40.0")
    assert found["1-6"]["f1"]["igm"] == "loses" and found["7-20"]["mae"]["best"] == "y"
    assert [cells[:3] for cells in rows][:2] == [["1-6", "F1", "x"], ["1-6", "count off by", "y"]]


# The suite


def test_records_hold_points_in_pixels_of_their_window(run: Run) -> None:
    bench = run.opened()
    for record in records_of(run.out):
        scene = bench.scenes[record["split"]].scene(record["item"])
        (found,) = record["rows"]
        width, height = scene.picture.image.size
        assert all(-20 <= x <= width + 20 and -20 <= y <= height + 20 for x, y in found["predicted"])
        assert found["objects"] == hits(scene.points, scene.points, scene.ignored, bench.radius).right
        least, most = SLICES[record["split"]]
        assert least <= found["objects"] <= most
        if record["method"] == "watershed":  # discs on a plain ground are no difficulty
            assert found["right"] == found["answers"] == found["objects"]


def test_the_radius_is_a_quarter_of_the_distance_of_neighbours(run: Run) -> None:
    assert run.summary["radius"] == pytest.approx(20 / 4)
    page = (run.out / "report.md").read_text()
    assert "Right: within 5 pixels" in page and "On 1-6 igm" in page


def test_a_radius_is_a_number_of_pixels(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (math.inf, math.nan, 0, True, "near"):
        with pytest.raises(UsageError, match=r"--set radius takes a number of pixels above 0, not"):
            run.opened(options={**run.request.options, "radius": wrong})
    monkeypatch.setattr("igm_cli.benchmarks.suites.objects.typical_radius", None)  # not needed then
    assert run.opened(options={**run.request.options, "radius": 7}).radius == 7


def test_objects_at_one_place_give_no_radius(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for radius in (0.0, math.nan):
        monkeypatch.setattr("igm_cli.benchmarks.suites.objects.typical_radius", lambda data, r=radius: r)
        with pytest.raises(InputError, match=r"how near is right; use --set radius=PIXELS"):
            run.opened()


def test_baselines_are_trained_on_crops_as_igm_is(run: Run) -> None:
    bench = run.opened()
    assert bench.crops.scale == 0.5 and bench.crops.turns and bench.crops.most == 16
    kept, held = bench._parts
    assert not set(kept["file"]) & set(held["file"]) and len(held) == 1
    inside, beyond = bench.trained_on(True), bench.trained_on(False)
    assert inside.about != beyond.about and len(inside.parts[1]) == HELD_CROPS


def test_photographs_are_read_by_the_range_and_known_by_their_content(run: Run, tmp_path: Path) -> None:
    bench, dark = run.opened(), run.opened(pixel_range=(0.0, 1000.0))
    images = [np.asarray(each.photographs[0]["image"].convert("L")).mean() for each in (bench, dark)]
    assert images[1] < images[0] / 2 and bench.identity != dark.identity
    moved = shutil.copytree(run.request.data_root, tmp_path / run.request.data_root.name)
    (moved / "runs" / "first").mkdir(parents=True)  # the benchmark's own folder may lie in the data
    (moved / "runs" / "first" / "benchmark.json").write_text("{}")
    assert run.opened(data_root=moved).identity == bench.identity
    table = next(
        path for path in sorted(moved.rglob("*")) if path.is_file() and path.suffix in (".txt", ".csv", ".json")
    )
    table.write_text(table.read_text().replace(".5", ".6"))
    assert run.opened(data_root=moved).identity != bench.identity
    assert run.opened(data_root=moved).trained_on(True).about != bench.trained_on(True).about


def test_what_cannot_be_measured_is_refused(run: Run, tiny_model: Path) -> None:
    with pytest.raises(InputError, match="trained on crops of photographs"):
        run.opened(model=tiny_model)
    with pytest.raises(InputError, match="needs --data-root"):
        run.opened(data_root=None)
    with pytest.raises(UsageError, match="a number of pixels above 0"):
        run.opened(options={"radius": 0})
    with pytest.raises(UsageError, match="part takes train or val or test"):
        run.opened(options={"part": "rest"})
    with pytest.raises(InputError, match="as many objects as 61-140"):
        run.opened("61-140")
