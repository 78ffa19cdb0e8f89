"""Concept parser ``objects``: where and what."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from conftest import Igm
from PIL import Image

from igm_cli.commands.show import cell, image_table, items_text
from igm_cli.commands.train_preset import Recipe, read_preset
from igm_cli.errors import InputError, UnknownConceptError, UsageError
from igm_cli.plugins import registry
from igm_cli.plugins.base import Frame
from igm_cli.plugins.clevr.object_attributes import VALUES
from igm_cli.plugins.object_concepts import ObjectConcepts

CLEVR = ObjectConcepts()
CELLS = CLEVR.configured({"factors": "label=red|white,stage=young|old,broken", "distance": 0.2})
WIDE, CUT = Frame.fit((96, 64), 1.5), Frame.fit((100, 50), 1.5)
RED = {"color": "red", "shape": "cube", "size": "small", "material": "metal"}
BLUE = {"color": "blue", "shape": "sphere", "size": "large", "material": "rubber"}
STAGES = [("young" if number % 2 else "old", str(number)) for number in range(30)]


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def thing(x: float, y: float, **about: Any) -> dict[str, Any]:
    return {"pixel_coords": [x, y, 9.0], **about}


def test_objects_are_points_with_values_and_back() -> None:
    objects = [thing(24, 16, **RED), thing(72, 48, **BLUE)]
    concepts = CLEVR.parse({"objects": objects}, WIDE)
    assert concepts.shape == (2, 17) and CLEVR.space.dim == 17
    torch.testing.assert_close(concepts[:, :2], torch.tensor([[0.25, 0.25], [0.75, 0.75]]))
    items = CLEVR.decode(concepts, WIDE)
    assert items[0] == {"x": 0.25, "y": 0.25, "x_px": 24, "y_px": 16, "values": RED}
    torch.testing.assert_close(CLEVR.encode(items, WIDE), concepts)
    flipped = CLEVR.mirror(concepts)
    torch.testing.assert_close(flipped[:, 0], 1 - concepts[:, 0])
    assert torch.equal(flipped[:, 1:], concepts[:, 1:])
    turned = CLEVR.turn(concepts)
    torch.testing.assert_close(turned[:, :2], torch.tensor([[0.25, 0.75], [0.75, 0.25]]))
    assert torch.equal(turned[:, 2:], concepts[:, 2:])
    assert CLEVR.parse({"objects": []}, WIDE).shape == CLEVR.encode([], WIDE).shape == (0, 17)
    assert CLEVR.decode(torch.zeros(0, 17), WIDE) == []


def test_objects_outside_the_frame_are_left_out_with_their_values() -> None:
    concepts = CLEVR.parse({"objects": [thing(2, 25, **RED), thing(50, 25, **BLUE)]}, CUT)
    assert [item["values"] for item in CLEVR.decode(concepts, CUT)] == [BLUE]


def test_annotated_objects_have_labels_and_attributes_and_may_leave_some_open() -> None:
    objects = [
        thing(10, 10, label="white", box=[4, 4], attributes={"stage": "old", "broken": "1"}),
        thing(20, 10, label="red", box=None, attributes={"stage": "", "broken": "no"}),
    ]
    concepts = CELLS.parse({"objects": objects}, WIDE)
    assert concepts[:, 2:].tolist() == [[0, 1, 0, 1, 0, 1], [1, 0, 0.5, 0.5, 1, 0]]
    assert CELLS.decode(concepts[:1], WIDE)[0]["values"] == {"label": "white", "stage": "old", "broken": "yes"}
    named = ObjectConcepts().configured({"factors": "category=red|white"})
    assert named.parse({"objects": objects}, WIDE)[:, 2:].tolist() == [[0, 1], [1, 0]]
    open_item = [{"x": 0.5, "y": 0.5, "values": {"label": "red"}}]
    assert CELLS.encode(open_item, WIDE)[0, 2:].tolist() == [1, 0, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("told", "factors"),
    [
        ([{"label": "red"}, {"label": "white"}, {"label": "red"}], "label=red|white"),
        (
            [{"label": "red", "attributes": {"stage": s, "size": n, "note": f"it is {n}"}} for s, n in STAGES],
            "stage=old|young",
        ),
        ([{"label": "a, b|1"}, {"label": "c=d"}], {"label": ["a, b|1", "c=d"]}),
    ],
)
def test_factors_are_read_from_annotations(told: list[dict[str, Any]], factors: Any) -> None:
    """The last object is in another split than the others."""
    every = [
        datasets.Dataset.from_dict({"objects": [[thing(5, 5, **each)] for each in part]})
        for part in (told[:-1], told[-1:])
    ]
    advice = ObjectConcepts().advise(every, {})
    assert advice.tables == {"concepts": {"factors": factors}}
    parser = ObjectConcepts().configured(advice.tables["concepts"])
    assert all(len(parser.parse(row, WIDE)) == 1 for row in [*every[0], *every[1]])
    assert parser.advise(every, advice.tables["concepts"]).tables == {}


def test_what_factors_leave_out_and_what_they_lack_is_said() -> None:
    told = [
        {"label": label, "attributes": {"size": "3", "site": "left", "note": f"note {number}", "stage": stage}}
        for number, (label, stage) in enumerate(
            [("RED", "old")] * 3 + [("red", "old")] * 20 + [("white", "new")]
        )
    ]
    every = [
        datasets.Dataset.from_dict({"objects": [[thing(5, 5, **each)] for each in part]})
        for part in (told[:-1], told[-1:])
    ]
    assert ObjectConcepts().advise(every, {}).reasons == [
        "concepts.factors = label=RED|red|white,stage=new|old: what is said of objects",
        "concepts.factors leaves out size (one value), site (one value), note (more than 20 values)",
        "RED 3 and red 20 (in all splits) are different values of label; write them alike if they are one",
        "no object for training has label=white, stage=new, which cannot be learned",
    ]
    *_, single = ObjectConcepts().advise([every[1], *every], {}).reasons
    assert single.startswith("a single object for training has label=white, stage=new, which is hardly learned")
    assert "data.labels names" in single and "concepts.factors the values" in single
    options = {"factors": "label=RED|red|pink"}
    advice = ObjectConcepts().configured(options).advise(every, options)
    assert advice.reasons == ["no object for training has label=pink, which cannot be learned"]


def test_yes_and_no_are_seen_however_they_are_written() -> None:
    told = [thing(5, 5, attributes={"broken": "1"}), thing(9, 9, attributes={"broken": "0"})]
    options = {"factors": "broken"}
    data = datasets.Dataset.from_dict({"objects": [told, told]})
    assert not ObjectConcepts().configured(options).advise([data], options).reasons


@pytest.mark.parametrize(
    "told",
    [[{"label": "red"}, {"label": ""}], [{"label": ""}], [{"label": "red", "attributes": {"size": "3"}}]],
)
def test_objects_that_say_nothing(told: list[dict[str, Any]]) -> None:
    data = datasets.Dataset.from_dict({"objects": [[thing(5, 5, **each)] for each in told]})
    with pytest.raises(InputError, match="only places to learn: --concepts pos"):
        ObjectConcepts().advise([data], {})
    options = {"factors": "stage=old|young"}
    with pytest.raises(InputError, match="no object says its 'stage', so that it cannot be learned"):
        ObjectConcepts().configured(options).advise([data], options)


def test_objects_of_clevr_keep_its_factors() -> None:
    one = {"shape": "cube", "size": "large", "color": "red", "material": "metal"}
    data = datasets.Dataset.from_dict({"objects": [[thing(5, 5, **one)], [thing(5, 5, **one)]]})
    assert ObjectConcepts().advise([data], {}).tables == {}


@pytest.mark.parametrize(
    ("example", "sentence"),
    [
        ({"attributes": {}}, "need a column 'objects'"),
        ({"objects": [thing(5, 5, label="red", attributes={"broken": "no"})]}, "says nothing of its 'stage'"),
        (
            {"objects": [thing(5, 5, label="green", attributes={"stage": "old", "broken": "no"})]},
            "label cannot be 'green'.*; add the value to concepts.factors, or leave out objects of other labels",
        ),
        ({"objects": [{"label": "red"}]}, "pixel_coords"),
    ],
)
def test_annotations_that_do_not_fit_are_told(example: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        CELLS.parse(example, WIDE)


def test_items_and_factors_that_are_unknown_are_told() -> None:
    with pytest.raises(InputError, match="no factor 'colour'"):
        CLEVR.encode([{"x": 0.5, "y": 0.5, "values": {"colour": "red"}}], WIDE)
    with pytest.raises(InputError, match="color cannot be 'pink'"):
        CLEVR.encode([{"x": 0.5, "y": 0.5, "values": {"color": "pink"}}], WIDE)
    with pytest.raises(UsageError, match="two different values"):
        CLEVR.configured({"factors": "color=red"})


def test_what_is_asked_for_in_words() -> None:
    (one,) = CLEVR.ask("red cube at pos(0.3,0.5)", chance(), torch.zeros(0, 17))
    torch.testing.assert_close(one[:2], torch.tensor([0.3, 0.5]))
    assert one[3] == one[10] == 1 and one[13:].tolist() == [0.5] * 4
    assert torch.equal(CLEVR.ask("Red CUBE at pos(0.3,0.5)", chance(), torch.zeros(0, 17))[0], one)
    several = CLEVR.ask("size=large at 3 pos", chance(), torch.zeros(0, 17))
    assert several.shape == (3, 17) and bool((several[:, 14] == 1).all())
    assert CLEVR.ask("pos(0.3,0.5)", chance(), torch.zeros(0, 17))[0, 2:10].tolist() == [0.125] * 8
    with pytest.raises(UsageError, match="two values of color"):
        CLEVR.ask("red blue cube at pos(0.3,0.5)", chance(), torch.zeros(0, 17))
    for text in ("pink cube at pos(0.3,0.5)", "red cube"):
        with pytest.raises(UnknownConceptError):
            CLEVR.ask(text, chance(), torch.zeros(0, 17))


def test_scores_count_values_of_perceived_objects() -> None:
    truth = CLEVR.parse({"objects": [thing(24, 16, **RED), thing(72, 48, **BLUE)]}, WIDE)
    right = CLEVR.score(truth.flip(0), truth)
    assert right["perceived_sum"] == right["color_right"] == right["objects_right"] == 2
    assert right["scene_right"] == right["k_exact"] == 1
    other = truth.clone()
    other[0, 2:10] = torch.eye(8)[5]
    score = CLEVR.score(other, truth)
    assert (score["color_right"], score["shape_right"], score["objects_right"], score["scene_right"]) == (
        1,
        2,
        1,
        0,
    )
    away = truth.clone()
    away[0, 0] += 0.1
    score = CLEVR.score(away, truth)
    assert (score["perceived_sum"], score["color_right"], score["objects_right"]) == (1, 1, 1)
    more = CLEVR.score(torch.cat([truth, other[:1]]), truth)
    assert (more["objects_right"], more["scene_right"], more["k_exact"]) == (2, 0, 0)
    for found, true in ((truth[:0], truth), (truth, truth[:0])):
        assert CLEVR.score(found, true)["objects_right"] == CLEVR.score(found, true)["scene_right"] == 0
    assert CLEVR.score(truth[:0], truth[:0])["scene_right"] == 1


def test_drawings_say_what_objects_are() -> None:
    image = Image.new("RGB", (96, 64), (90, 90, 90))
    items = [{"x": 0.5, "y": 0.5, "values": RED, "confidence": 0.99}]
    drawn, labelled = CLEVR.draw(image, items), CLEVR.draw_labels(image, items)
    assert drawn.size == labelled.size != image.size and drawn.tobytes() != labelled.tobytes()


def test_the_preset_of_clevr_has_its_factors() -> None:
    tables = read_preset(registry.dataset("clevr"), "objects")
    parser = registry.configured(registry.concept_parser(tables.pop("parser")), tables["concepts"])
    assert parser.space.what.factors == VALUES  # type: ignore[attr-defined]
    config = Recipe("p", tables, {}).preset().config()
    assert 0 < config.contrast_from < config.steps and config.contrast and config.mixed


TINY = """
parser = "objects"
[concepts]
factors = "color=gray|red|blue|green|brown|purple|cyan|yellow,shape=cube|sphere|cylinder,size=small|large,material=rubber|metal"
[model]
image_size = [32, 32]
channels = [8, 8, 8]
blocks = 1
head_channels = 8
head_layers = 1
window = 3
[train]
steps = 4
batch_size = 4
mixed = 0.2
contrast = 0.03
contrast_from = 2
picture_every = 0
log_every = 1
[inference]
grid = [3, 3]
scan_draws = 1
draws = 2
max_draws = 2
k_max = 2
keep = 8
refine_steps = 1
[[data]]
options = { objects = "1-2", size = 6 }
"""


def test_training_and_inversion_by_the_command_line(igm: Igm, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    model = tmp_path / "model"
    trained = igm("train", "clevr", "--preset", tmp_path / "tiny.toml", "--output", model, "--device", "cpu")
    assert trained.returncode == 0, trained.stderr
    metrics = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    assert (
        metrics[3]["loss"] > metrics[1]["loss"] + 0.1
    )  # the contrast of two in eight, three, two and two values
    Image.new("RGB", (64, 64), (120, 120, 120)).save(tmp_path / "grey.png")
    call = ("invert", tmp_path / "grey.png", "--model", model, "--k", "2", "--device", "cpu", "--json")
    found = igm(*call, "--overlay", tmp_path / "overlay.png", "--labels", "--csv", tmp_path / "found.csv")
    assert found.returncode == 0, found.stderr
    record = json.loads(found.stdout)
    assert record["concepts"] == "objects" and record["k"] == 2 and record["discriminative"] is True
    for item in record["items"]:
        assert {factor: item["values"][factor] in VALUES[factor] for factor in VALUES} == dict.fromkeys(
            VALUES, True
        )
        assert list(item["value_confidence"]) == list(VALUES)
        assert all(0 <= p <= 1 for p in item["value_confidence"].values())
    assert (tmp_path / "overlay.png").is_file()
    (first, *_) = csv.DictReader((tmp_path / "found.csv").read_text().splitlines())
    assert {factor: first[factor] for factor in VALUES} == record["items"][0]["values"]
    assert float(first["value_confidence.color"]) == record["items"][0]["value_confidence"]["color"]


def test_tables_write_values_in_a_row() -> None:
    assert cell("values", {"color": "red", "shape": "cube"}) == "red cube"
    item = {
        "x": 0.25,
        "x_px": 24.0,
        "values": {"color": "red"},
        "confidence": 1.0,
        "value_confidence": {"color": 0.9},
    }
    assert items_text([item]) == "(0.250, red)"
    doubtful = {
        **item,
        "values": {"color": "red", "shape": "cube"},
        "value_confidence": {"color": 0.89, "shape": 0.9},
    }
    columns, rows = image_table({"items": [doubtful]}, "objects")
    assert columns == ["#", "x", "x_px", "values", "confidence"] and rows[0][3] == "red (0.89) cube"
