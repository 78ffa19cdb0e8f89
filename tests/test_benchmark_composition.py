"""``igm benchmark composition``: judges on images whose truth is known, and samples that no batch changes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_cases import Run, records_of
from torch import nn

from igm_cli.benchmarks.baselines.judges import KindJudge, LabelJudge, MeasureJudge, PlaceJudge, all_right, near
from igm_cli.benchmarks.suite import PictureGrid
from igm_cli.benchmarks.suites.composition import metrics
from igm_cli.benchmarks.suites.composition_judges import together
from igm_cli.errors import InputError, MissingError


class Told(nn.Module):
    """A network that answers what it is told."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.answer


def test_peaks_are_places() -> None:
    """A cell (x, y) of a 24 x 16 map with an offset in it is the place (cell + offset) / size; low peaks are none."""
    heat = torch.full((1, 3, 16, 24), -9.0)
    heat[0, :, 4, 6] = torch.tensor([5.0, 0.5, 0.25])
    heat[0, :, 10, 20] = torch.tensor([1.0, 0.0, 0.0])
    heat[0, 0, 10, 21] = 0.5  # beside a higher one
    heat[0, 0, 1, 1] = -1.0  # below the threshold
    (places,) = PlaceJudge().places(Told(heat), torch.zeros(1, 3, 32, 48))
    expected = torch.tensor([[6.5 / 24, 4.25 / 16], [20 / 24, 10 / 16]])
    assert torch.allclose(places, expected)


def test_the_truth_has_the_least_loss() -> None:
    judge, truth = PlaceJudge(), torch.tensor([[[6.5 / 24, 4.25 / 16], [0.0, 0.0]]])
    present = torch.tensor([[True, False]])

    def loss(x: int, y: int, offset: tuple[float, float]) -> float:
        heat = torch.full((1, 3, 16, 24), -9.0)
        heat[0, :, y, x] = torch.tensor([9.0, *offset])
        random = torch.Generator().manual_seed(0)
        return float(judge.loss(Told(heat), torch.zeros(1, 3, 32, 48), truth, present, random))

    right = loss(6, 4, (0.5, 0.25))
    assert right < 0.01
    assert loss(6, 4, (0.0, 0.25)) == pytest.approx(right + 0.5, abs=1e-3)
    assert loss(15, 9, (0.5, 0.25)) > 5


def test_crops_are_centred() -> None:
    images = torch.zeros(2, 3, 32, 48)
    images[1, :, 8:12, 30:34] = 1.0
    judge = KindJudge(values=(2,), crop=4)
    places = torch.tensor([[32 / 48, 10 / 32], [0.0, 0.0]])
    crops = judge.crops(images, torch.tensor([1, 0]), places)
    assert crops.shape == (2, 3, 4, 4)
    assert crops[0, 0, 1:3, 1:3].min() > 0.99 and crops[1].max() == 0
    for turned in (crops[0].flip(1), crops[0].flip(2), crops[0].mT):
        assert torch.allclose(crops[0], turned, atol=1e-4)


def test_places_too_far_or_too_many_are_wrong() -> None:
    truth = torch.tensor([[0.2, 0.2], [0.8, 0.8]])
    assert all_right(truth.flip(0) + 0.04, truth)
    assert near(truth + 0.05, truth) == 0  # 0.07 away
    assert not all_right(torch.cat([truth, truth[:1]]), truth)
    assert not all_right(truth[:1], truth) and near(truth[:1], truth) == 1
    assert not all_right(torch.zeros(0, 2), truth)


def test_rates_count_what_they_say() -> None:
    one = {"truth": [[0.2, 0.2], [0.8, 0.8]], "found": [[0.2, 0.2], [0.5, 0.5]], "which": [0]}
    two = {"truth": [[0.2, 0.2]], "found": [[0.2, 0.2]], "which": [0]}
    told = [{"shape_told": 0, "shape_sure": 1}, {"shape_told": 1, "shape_sure": 1}]
    kinds = {f"material_{how}": 1 for how in ("told", "sure")}
    rows = [{**row, **kinds, **more} for row, more in zip((one, two), told, strict=True)]
    found = {name: estimate.value for name, estimate in metrics(rows).items()}
    assert found["all_right"] == 0.5 and found["count"] == 1
    assert found["recall"] == found["precision"] == pytest.approx(2 / 3)
    assert (found["shape_told"], found["shape_sure"]) == (0.5, 1)
    assert "seconds" not in found and "own_recall" not in found


def test_samples_do_not_depend_on_what_is_drawn_beside_them(run: Run) -> None:
    for split in ("and-3", "continual-3"):
        alone, together = (
            run.opened(split, options={**run.request.options, "batch": batch}).parts[split].drawn
            for batch in (1, 2)
        )
        for name in ("igm", "ddim", "ula") if split == "and-3" else ("igm", "particles", "conditional"):
            assert (alone(name, 1).image - together(name, 1).image).abs().max() < 0.02
        assert (together("igm", 1).image - together("ula", 1).image).abs().max() > 0.1
        assert (together("igm", 1).image - together("igm", 1, other=True).image).abs().max() > 0.1


def test_a_model_draws_with_its_own_guidance_unless_a_method_says_otherwise(run: Run) -> None:
    parts = run.opened().parts

    def same(split: str, one: str, other: str) -> bool:
        return torch.equal(parts[split].drawn(one, 0).image, parts[split].drawn(other, 0).image)

    assert same("and-3", "igm", "unguided") and not same("faces", "igm", "unguided")
    assert same("faces", "igm", "ancestral") and not same("faces", "igm", "ddim")


def test_every_seed_draws_expressions(run: Run) -> None:
    part = run.opened("pos-and-not-color", seed=2**32 - 1).parts["pos-and-not-color"]
    drawn = [part.drawn("igm", 0, other=other).image for other in (False, True)]
    assert (drawn[0] - drawn[1]).abs().max() > 0.1


def test_calls_and_what_only_some_rows_hold(run: Run) -> None:
    rows = {(r["method"], r["split"], r["item"]): r["rows"][0] for r in records_of(run.out) if r["rows"]}
    first, second = sorted({item for _, split, item in rows if split == "and-3"})
    assert len(rows["real", "and-3", first]["truth"]) == 3
    assert "seconds" not in rows["real", "and-3", first] and "shape_right" in rows["real", "and-3", first]
    assert rows["igm", "and-3", first]["calls"] == 3 * 4  # a pass and three concepts at each of three levels
    assert rows["ula", "and-3", first]["calls"] == (3 + 2) * 4  # and a Langevin step at all but the last
    assert {"own", "diversity"} <= set(rows["ddim", "and-1", first])
    assert not {"own", "diversity"} & set(rows["ddim", "and-1", second])


def test_pictures_stand_beside_renders(run: Run) -> None:
    report = run.opened().report(records_of(run.out), {})
    (grid,) = [figure for figure in report.figures if isinstance(figure, PictureGrid)]
    assert grid.columns == list(run.case.methods) and len(grid.rows) == 8
    empty = {split for split, pictures in grid.rows if pictures[-1] is None}
    assert empty == {"and-1", "and-3", "or-of-ands", "pos-and-not-color", "faces", "animal"}


def test_expressions_are_filled_in_with_what_renders_show(run: Run) -> None:
    parts = run.opened().parts
    for number, row in enumerate(parts["or-of-ands"].scenes.data):
        (thing,), asked = row["objects"], parts["or-of-ands"].expression(number)
        x, y = thing["pixel_coords"][0] / 96, thing["pixel_coords"][1] / 64
        first, _, second = asked.partition(" OR ")
        assert first == f"(pos({x:.4f},{y:.4f}) AND color={thing['color']})"
        assert thing["color"] not in second and asked.count("pos(") == 2
    (thing,) = parts["continual-3"].scenes.data[0]["objects"]
    assert parts["continual-3"].expression(0).endswith(f"AND shape={thing['shape']} AND color={thing['color']}")
    assert thing["shape"] != "cylinder"
    held = parts["faces"].scenes.data[0]["attributes"]["Smiling"]
    assert parts["faces"].expression(0).endswith(f"Smiling={'yes' if held else 'no'}")
    assert [parts["animal"].expression(0)] == parts["animal"].scenes.data[0]["labels"]


def test_a_drawing_shows_all_labels_asked_for_and_no_other(run: Run) -> None:
    part = run.opened().parts["animal"]
    for held, right in (([part.expression(0)], True), ([], False), ([part.expression(0), "zebra"], False)):
        assert part.judged([{"labels": together(held)}], 0)["branches"] == [right]


def test_a_judge_of_labels_learns_which_are_there() -> None:
    """Two labels, each a bright half of the image: none, either or both are there."""
    both = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]).repeat(8, 1)
    images = -torch.ones(32, 3, 16, 16)
    for half, there in enumerate(both.T):
        images[there == 1, :, 8 * half : 8 * half + 8] = 1.0
    concepts, present = torch.eye(2).expand(32, 2, 2) * both[..., None], both == 1
    judge, generator = LabelJudge(values=(2, 2), channels=8), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = judge.build()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        judge.loss(model, images, concepts, present, generator).backward()
        optimizer.step()
    model.eval()
    assert judge.validate(model, images, concepts, present) == 0
    assert torch.equal(judge.named(model, images), both)


def test_a_branch_holds_if_all_that_it_asks_for_does(run: Run) -> None:
    """One object, at the place and of the color; a second object, or the excluded color, spoils it."""
    either, without = (run.opened().parts[name] for name in ("or-of-ands", "pos-and-not-color"))
    ours = either.values[0]
    right = {"place": list(ours["at"]), "color": ours["color"]}
    other = {"place": list(ours["at2"]), "color": ours["color2"]}
    assert either.judged([right], 0)["branches"] == [True, False]
    assert either.judged([other], 0)["branches"] == [False, True]
    assert either.judged([{**right, "color": ours["color2"]}], 0)["branches"] == [False, False]
    assert either.judged([right, other], 0)["branches"] == [False, False]
    assert either.judged([], 0)["branches"] == [False, False]
    at, color = without.values[0]["at"], without.values[0]["color2"]
    assert without.judged([{"place": list(at), "color": color}], 0)["branches"] == [False]
    fine = without.judged([{"place": [at[0] + 0.05, at[1]], "color": "none"}], 0)
    assert fine["branches"] == [True] and fine["shown"] == {"place": True}
    assert not without.judged([{"place": [at[0] + 0.07, at[1]], "color": "none"}], 0)["shown"]["place"]


def test_places_and_sizes_are_measured(run: Run) -> None:
    """Only sizes and places that were never together are asked for; a place is off by the mean of both coordinates."""
    part = run.opened().parts["crossed-5"]
    (thing,) = part.scenes.data[0]["objects"]
    assert part.expression(0).endswith(f") AND size={thing['size']}") and thing["size"] != "1.20"
    x, y = part.values[0]["at"]
    row = part.judged([{"place": [x + 0.02, y - 0.04], "size": float(thing["size"]) + 0.1}], 0)
    assert row["off"] == pytest.approx([0.03, 0.1])
    found = {name: estimate.value for name, estimate in metrics([row, {"off": [0.01, 0.3]}]).items()}
    assert found == {"place_off": pytest.approx(0.02), "size_off": pytest.approx(0.2)}


def test_rates_of_expressions() -> None:
    def row(first: bool, second: bool) -> dict[str, Any]:
        return {"branches": [first, second], "shown": {}, "excluded": []}

    rows = [row(True, False), row(True, False), row(False, True), row(False, False)]
    found = {name: estimate.value for name, estimate in metrics(rows).items()}
    assert found == {"as_asked": 0.75, "first": 0.5, "second": 0.25, "share": pytest.approx(2 / 3)}
    one = [{"branches": [hit], "shown": {"place": True}, "excluded": [not hit]} for hit in (True, False)]
    found = {name: estimate.value for name, estimate in metrics(one).items()}
    assert found == {"as_asked": 0.5, "place": 1, "excluded": 0.5}


def test_a_missing_model_is_told_with_the_command_that_trains_it(run: Run, tmp_path: Path) -> None:
    options = {"models": str(tmp_path)}
    with pytest.raises(MissingError, match="igm train clevr --preset object-position --output"):
        run.opened("or-of-ands", options=options)
    (tmp_path / "continual").mkdir()
    shutil.copytree(run.out.parent / "models" / "continual" / "position", tmp_path / "continual" / "position")
    with pytest.raises(MissingError, match=r"--preset continual-shape --with \S+continual/position --output"):
        run.opened("continual-2", options=options)


def test_a_data_root_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave out --data-root"):
        run.opened(data_root=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("judge", [PlaceJudge(channels=8), MeasureJudge(channels=8)])
def test_a_judge_learns_to_see_places(judge: PlaceJudge | MeasureJudge) -> None:
    """Bright squares on a dark ground are found after some dozens of steps, and told from larger ones."""
    torch.manual_seed(0)
    model, random = judge.build(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)

    def batch(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        images, places = torch.full((size, 3, 32, 48), -0.8), torch.zeros(size, 1, 3)
        for row in range(size):
            x, y = (int(torch.randint(5, side - 5, (), generator=random)) for side in (48, 32))
            half = int(torch.randint(2, 6, (), generator=random))
            images[row, :, y - half : y + half, x - half : x + half] = 0.8
            places[row, 0] = torch.tensor([x / 48, y / 32, half / 5])
        return images, places, torch.ones(size, 1, dtype=torch.bool)

    for _ in range(150):
        optimizer.zero_grad()
        judge.loss(model, *batch(16), random).backward()
        optimizer.step()
    assert judge.validate(model.eval(), *batch(32)) < 0.2
