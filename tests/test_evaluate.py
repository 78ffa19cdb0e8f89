"""``igm evaluate``: figures of annotated images, and what is fitted to them."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import jsonschema
import pytest
import torch
from benchmark_cases import write_discs, write_positions
from conftest import Here
from PIL import Image, ImageDraw
from test_cli import one_sentence, schema

from igm_cli import load, output
from igm_cli.commands.evaluate import figures_of, show
from igm_cli.commands.model_card import card
from igm_cli.core.inference import typicality
from igm_cli.core.types import Inversion, KPoint
from igm_cli.evaluation import Evaluation, Judged, found_right
from igm_cli.plugins.labels.parser import Labels
from igm_cli.plugins.object_concepts import ObjectConcepts
from igm_cli.plugins.positions import Positions
from igm_cli.session import ImageSession

CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images of one disc each, with a table of where it is."""
    return discs(tmp_path_factory.mktemp("discs"), 20)


def discs(folder: Path, count: int) -> Path:
    """Draws images of one disc each, with a table of where it is."""
    rows, random = ["file,x,y"], torch.Generator().manual_seed(0)
    for number in range(count):
        x, y = (torch.rand(2, generator=random) * 20 + 6).tolist()
        image = Image.new("RGB", (32, 32), (90, 90, 90))
        ImageDraw.Draw(image).ellipse((x - 4, y - 4, x + 4, y + 4), fill=(200, 30, 30))
        image.save(folder / f"{number}.png")
        rows.append(f"{number}.png,{x:.2f},{y:.2f}")
    (folder / "points.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_a_model_is_calibrated_on_what_it_is_evaluated_on(
    tiny_model: Path, annotated: Path, tmp_path: Path, here: Here
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    data = ("--dataset", "objects", "--data-root", annotated, "--split", "train", "--set", "shares=90/10/0")
    done = here("evaluate", *CPU, "--model", model, *data, "--limit", 2, "--json")
    assert done.code == 0
    before = json.loads(done.out)
    jsonschema.validate(before, schema("igm.evaluate-1"), jsonschema.Draft202012Validator)
    assert "typical" not in before["figures"] and before["images"] == 2
    weights = (model / "model.safetensors").read_bytes()
    told = json.loads((model / "igm.json").read_text())
    (model / "igm.json").write_text(json.dumps(told | {"inference": told["inference"] | {"penalty": 3}}))
    files = ("--worst", tmp_path / "worst.png", "--csv", tmp_path / "e.csv")
    own = ("draws=5", "max_draws=5", "grid=[4,4]", "scan_draws=1", "keep=4", "refine_steps=1")
    more = ("--seed", 7, "--penalty", 7, *(word for each in own for word in ("--set", f"inference.{each}")))
    done = here(
        "evaluate", *CPU, "--model", model, *data, "--limit", 16, "--calibrate", "--json", *more, *files
    )
    assert done.code == 0
    assert "is calibrated on " in done.err
    assert "penalty 7 (3 before), temperature" in done.err
    after = json.loads(done.out)
    jsonschema.validate(after, schema("igm.evaluate-1"), jsonschema.Draft202012Validator)
    assert after["figures"]["typical"]["value"] == 1.0
    known = json.loads((model / "igm.json").read_text())
    assert known["info"]["calibrated"] == {"images": 16, "dataset": "objects", "split": "train"}
    assert after["fitted"] == {key: known["inference"][key] for key in ("penalty", "temperature")}
    assert known["inference"]["temperature"] > 0 and known["inference"]["grid"] == [4, 4]
    assert (model / "model.safetensors").read_bytes() == weights
    assert "draws 5" in done.err and "seed" not in known["inference"]
    assert known["inference"]["draws"] == 5 and known["inference"]["penalty"] == 7.0
    done = here("invert", *CPU, annotated / "0.png", "--model", model, "--seed", 7, "--json")
    assert done.code == 0
    assert json.loads(done.out)["typicality"] > 0.5 and "calibrated" not in done.err
    assert Image.open(tmp_path / "worst.png").width > 200
    rows = list(csv.DictReader((tmp_path / "e.csv").open()))
    assert len(rows) == 16 and {row["annotated"] for row in rows} == {"1"}
    for row in rows:
        assert int(row["mistakes"]) == 1 - int(row["right"]) + int(row["found"]) - int(row["right"])
    assert [row["mistakes"] for row in rows] == sorted((row["mistakes"] for row in rows), reverse=True)


@pytest.mark.slow
def test_a_model_that_is_calibrated_on_many_images_takes_a_closer_look(
    tiny_model: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typicality, "LOOKS", (0.5,))
    monkeypatch.setattr(typicality, "MANY", 32)
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (tmp_path / "discs").mkdir()
    data = ("--dataset", "objects", "--data-root", discs(tmp_path / "discs", 40), "--split", "train")
    own = ("draws=5", "max_draws=5", "grid=[4,4]", "scan_draws=1", "keep=4", "refine_steps=1", "k_min=1")
    more = ("--penalty", 7, *(word for each in own for word in ("--set", f"inference.{each}")))
    for limit, looks in ((31, []), (32, [0.5])):
        call = ("evaluate", *CPU, "--model", model, *data, "--set", "shares=90/10/0", "--limit", limit)
        done = here(*call, "--calibrate", *more)
        assert done.code == 0, done.err
        known = json.loads((model / "igm.json").read_text())["inference"]["typical"]
        assert known["looks"] == looks and len(known["mean"]) == 6 + len(looks) * known["regions"] ** 2


def test_a_log_says_how_far_an_evaluation_is(
    tiny_model: Path, annotated: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "FIRST", 0.0)
    monkeypatch.setattr(output, "EVERY", 0.0)
    data = ("--dataset", "objects", "--data-root", annotated, "--split", "train", "--limit", 3)
    done = here("evaluate", *CPU, "--model", tiny_model, *data)
    assert done.code == 0
    said = done.err.splitlines()
    assert "evaluating 1 of 3" in said and any(line.startswith("evaluating 2 of 3, ") for line in said)


def test_an_interruption_promises_nothing_that_is_kept(
    tiny_model: Path, annotated: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageSession, "inverted", lambda *_: signal.raise_signal(signal.SIGTERM))
    data = ("--dataset", "objects", "--data-root", annotated, "--split", "train")
    done = here("evaluate", *CPU, "--model", tiny_model, *data)
    assert done.code == 143
    says = "igm: interrupted; nothing of the evaluation is kept, except a calibration"
    assert one_sentence(done.err).startswith(says)
    monkeypatch.setattr(
        "igm_cli.commands.train_run.measure", lambda *_, **__: signal.raise_signal(signal.SIGTERM)
    )
    done = here("train", "objects", *CPU, "--data-root", annotated, "--dry-run")
    assert done.code == 143 and done.err.endswith("a dry run keeps nothing; the same command starts anew\n")


TINY = """
[model]
channels = [8, 8, 8]
blocks = 1
head_channels = 8
head_layers = 1
image_size = [16, 16]
window = 3
coordinates = false

[crops]
scale = 0.5

[inference]
grid = [3, 3]
draws = 4
max_draws = 4
scan_draws = 1
keep = 4
refine_steps = 1
k_min = 1
k_max = 2
"""


def test_a_training_ends_with_the_calibration_of_its_model(
    tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    discs(tmp_path / "mine", 40)
    (tmp_path / "tiny.toml").write_text(TINY)
    settings = ("batch_size=2", "picture_every=2", "calibration=16", "data.shares=50/50/0")
    how = ("--steps", 2, *(word for each in settings for word in ("--set", each)))
    call = ("train", "objects", "--data-root", "mine", "--preset", "tiny.toml", "-o", "clevr-pos", *how)
    done = here(*call, *CPU)
    assert done.code == 0
    said = done.err.splitlines()
    # the model here, not the bundled one of that name
    assert said[-1] == "done; use it with: igm invert IMAGE --model ./clevr-pos"
    known = json.loads((tmp_path / "clevr-pos" / "igm.json").read_text())
    images = known["info"]["calibrated"].pop("images")
    assert known["info"]["calibrated"] == {"windows": 16, "dataset": "objects", "split": "val"}
    assert f"calibrated on 16 windows of {images} images of objects, val: penalty" in said[-4]
    assert known["info"]["outcome"] == said[-3] and "200 steps of warm-up" in known["info"]["not_learned"]
    assert known["info"]["outcome"].endswith(
        "in 8 crops of validation images are found when their number is given"
    )
    assert known["inference"]["typical"]["limit"] > 0
    del known["info"]["calibrated"]  # as an interruption leaves it
    (tmp_path / "clevr-pos" / "igm.json").write_text(json.dumps(known))
    done = here(*call, *CPU)
    assert done.code == 0
    said = done.err.splitlines()
    assert "already holds all 2 steps" in said[-2] and "calibrated on 16 windows of " in said[-1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "clevr-pos", "--calibrate"], "name a folder of yours"),
        (["--split", "nosuch"], "nosuch"),
        (["--set", "nosuch=1"], "nosuch"),
        (["--set", "inference.drows=3"], "unknown setting 'drows'; did you mean draws"),
        (["--limit", "4", "--calibrate"], "16 images or more, not 4"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    tiny_model: Path,
    annotated: Path,
    tmp_path: Path,
    here: Here,
    words: list[str],
    says: str,
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    given = ("--dataset", "objects", "--data-root", annotated, "--split", "train", "--model", model)
    done = here("evaluate", *CPU, *given, *words)
    assert done.code in (2, 3)
    assert says in one_sentence(done.err)
    assert "calibrated" not in json.loads((model / "igm.json").read_text())["info"]


def test_a_models_description_names_no_code(tiny_model: Path, tmp_path: Path, here: Here) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    known = json.loads((model / "igm.json").read_text())
    known["info"]["dataset"] = "this:s"
    (model / "igm.json").write_text(json.dumps(known))
    done = here("evaluate", *CPU, "--model", model)
    assert done.code == 5 and "a file must not name code to run" in done.err


def test_a_model_of_latents_has_pictures_of_its_images(tiny_model: Path) -> None:
    model, found = (
        load(tiny_model, device="cpu"),
        SimpleNamespace(concepts=torch.rand(1, 2), confidence=torch.ones(1)),
    )
    model.encode = lambda image, views: torch.zeros(views, 4, 8, 8)
    data: Any = [{"image": Image.new("RGB", (32, 32), (90, 9, 9)), "objects": []}]
    judged: Any = Judged(0, found, 0, torch.ones(1, 1), 1.0, 0)  # type: ignore[arg-type]
    annotated, answered = Evaluation(model, data).pictures(judged)
    assert annotated.convert("RGB").getpixel((3, 3)) == pytest.approx((90, 9, 9), abs=2)
    assert annotated.size == answered.size and annotated.tobytes() != answered.tobytes()


def test_what_is_cut_off_is_said_once(tiny_model: Path) -> None:
    data: Any = [{"image": Image.new("RGB", (90, 30)), "file": f"{n}.png", "objects": []} for n in range(2)]
    said: list[str] = []
    evaluation = Evaluation(load(tiny_model, device="cpu"), data, note=said.append)
    for _ in range(2):
        evaluation.judge({"draws": 2, "k_max": 1})
    (note,) = said
    assert note.startswith("0.png: only its middle is used, 33 % of it") and note.endswith("32×32")


def test_a_method_without_confidence_has_no_calibration_error() -> None:
    found: Any = SimpleNamespace(confidence=torch.tensor([math.nan]), typicality=math.nan, values=None)
    judged = Judged(0, found, 1, torch.ones(1, 1, dtype=torch.bool), 1.0, 0)
    figures, errors = figures_of([judged], Positions().space)
    assert errors == {} and figures["all right"].value == 1


def judged_windows(*images: int, typicality: float = 0.9) -> list[Judged]:
    """Returns a window of each of the images, with two concepts; those of image 0 are wrong."""
    found: Any = SimpleNamespace(confidence=torch.ones(2), typicality=typicality, values=None, seconds=1.0)
    return [
        Judged(row, found, 2, torch.full((2, 1), image > 0), 1.0, image) for row, image in enumerate(images)
    ]


def test_intervals_are_over_images() -> None:
    space = Positions().space
    alone, cut = (
        figures_of(judged_windows(*images), space)[0] for images in ([0, *range(1, 16)], [0, 1, 2] * 5)
    )
    few = {name: e.high - e.low for name, e in cut.items()}
    assert list(few) == ["true of those found", "found of those true", "all right", "number exact", "typical"]
    assert all(width > 0.5 > alone[name].high - alone[name].low for name, width in few.items())
    assert cut["all right"].value == pytest.approx(2 / 3)
    one = figures_of(judged_windows(1, 1, 1), space)[0]
    assert all(e.value == 1 and math.isnan(e.low) for e in one.values())


def test_images_that_are_all_unlike_the_training_ones_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    model = SimpleNamespace(name="clevr-pos", parser=Positions())
    evaluation: Any = SimpleNamespace(model=model, of="3 images", counts={"images": 3})
    about = {"dataset": "objects", "split": "val"}
    for others, says in ((0.9, ""), (0.02, "every image is unlike what clevr-pos was trained on")):
        judged = [*judged_windows(1, typicality=0.04), *judged_windows(2, 3, typicality=others)]
        show(judged, evaluation, about, {}, output.Output())
        said = capsys.readouterr().err
        assert said.startswith(f"igm: {says}" if says else says) and ("(typicality 0.04)" in said) == bool(says)


@pytest.mark.parametrize("count", [4, 5])
def test_confidence_of_few_images_is_not_called_calibrated(tmp_path: Path, count: int) -> None:
    folder = write_positions(tmp_path / "model", (32, 32), 0.5)
    image = Image.new("RGB", (64, 64))
    data: Any = datasets.Dataset.from_dict(
        {"image": [image] * count, "objects": [[]] * count},
        datasets.Features(
            {"image": datasets.Image(), "objects": [{"pixel_coords": [datasets.Value("float32")]}]}
        ),
    )
    evaluation = Evaluation(load(folder, device="cpu"), data, 64)
    for _ in range(2):  # the second replaces the first
        told = evaluation.keep(folder, {"penalty": 2.0}, "objects", "val")
    known = json.loads((folder / "igm.json").read_text())
    info, text = known["info"], card(folder, "mine")
    assert known["inference"]["penalty"] == 2.0 and f"64 windows of {count} images" in told
    if count < 5:
        assert "calibrated" not in info and info["not_calibrated"] == told
        assert "It was not calibrated" in text and told in text
    else:
        assert info["calibrated"] == {"windows": 64, "images": 5, "dataset": "objects", "split": "val"}
        assert re.search(r"\| windows +\| +64 +\|\n\| images +\| +5 +\|", text)


def test_one_image_is_one_image_and_one_split_that_of_training(
    tiny_model: Path, annotated: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igm_cli.plugins.objects.adapter.Objects.splits", ("train",))
    data = ("--dataset", "objects", "--data-root", annotated, "--limit", 1)
    done = here("evaluate", *CPU, "--model", tiny_model, *data)
    assert done.code == 0
    assert " on 1 image of objects, train" in done.out and "objects of one image give none" in done.out
    assert "igm: objects has no split but train, which is for training; " in done.err


def test_another_dataset_that_reads_the_folder_is_named(annotated: Path, tmp_path: Path, here: Here) -> None:
    done = here("evaluate", *CPU, "--model", "clevr-pos", "--data-root", annotated)
    assert done.code == 3
    says = "in the layout of CLEVR_v1.0, or --dataset objects, which reads this folder"
    assert says in one_sentence(done.err)
    done = here("evaluate", *CPU, "--model", "clevr-pos", "--data-root", tmp_path)
    assert done.code == 3 and "--dataset" not in one_sentence(done.err)


def test_what_is_right() -> None:
    truth = torch.tensor([[0.2, 0.2], [0.8, 0.5]])
    found = torch.tensor([[0.21, 0.2], [0.5, 0.5], [0.8, 0.52]])
    assert Positions().right(found, truth)[:, 0].tolist() == [True, False, True]
    assert Positions().right(found[:0], truth).shape == (0, 1)
    labels = Labels(("cat", "dog", "fox"))
    rows = torch.eye(3)
    assert labels.right(rows[[0, 2]], rows[[2, 1]])[:, 0].tolist() == [False, True]
    objects = ObjectConcepts().configured({"factors": "color=red|blue,size=small|large"})
    red, blue = [1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]
    known = torch.tensor([[0.2, 0.2, *red], [0.8, 0.5, 0.5, 0.5, 1.0, 0.0]])
    told = torch.tensor([[0.8, 0.5, *blue], [0.2, 0.21, *blue], [0.5, 0.9, *red]])
    expected = [[True, True, False], [True, False, True], [False] * 3]
    assert objects.right(told, known).tolist() == expected
    assert math.isclose(objects.score(told, known)["objects_right"], 0.0)


def test_the_worst_are_drawn_without_what_lies_beyond_their_border(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Here
) -> None:
    model, data, drawn = write_positions(tmp_path / "model", (32, 32), 0.5), tmp_path / "data", []
    known = json.loads((model / "igm.json").read_text())
    (model / "igm.json").write_text(json.dumps({**known, "margin": 8}))
    write_discs(data)
    draw = Positions.draw

    def listen(self: Positions, image: Image.Image, items: Sequence[Mapping[str, Any]]) -> Image.Image:
        drawn.append(items)
        return draw(self, image, items)

    monkeypatch.setattr(Positions, "draw", listen)
    words = ("--dataset", "objects", "--data-root", data, "--split", "val")
    words = (*words, "--limit", 3)  # the last has six beyond its border
    files = ("--worst", tmp_path / "worst.png", "--csv", tmp_path / "e.csv")
    done = here("evaluate", *CPU, "--model", model, *words, *files)
    assert done.code == 0
    said = done.out
    assert all(f"wrote {path}" in said for path in files[1::2])
    rows = list(csv.DictReader((tmp_path / "e.csv").open()))
    counts = [int(row["annotated"]) for row in rows]
    assert all(re.fullmatch(r"\S+\.png at \d+,\d+", row["image"]) for row in rows)
    assert [len(items) for items in drawn[::2]] == counts and sum(counts) > 4
    assert all(0 <= item[axis] <= 1 for items in drawn for item in items for axis in "xy")


def test_what_matches_an_annotation_beyond_the_border_is_neither_right_nor_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_positions(tmp_path / "model", (32, 32), 0.5)
    known = json.loads((folder / "igm.json").read_text())
    (folder / "igm.json").write_text(json.dumps({**known, "margin": 8}))
    model = load(folder, device="cpu")
    places = [[-1.0, 32.0], [1.0, 8.0], [32.0, 32.0]]  # the first lies beyond the border
    rows = {"image": [Image.new("RGB", (64, 64))], "objects": [[{"pixel_coords": each} for each in places]]}
    data: Any = datasets.Dataset.from_dict(
        rows,
        datasets.Features(
            {"image": datasets.Image(), "objects": [{"pixel_coords": [datasets.Value("float32")]}]}
        ),
    )
    found: list[list[list[float]]] = []

    def answer(*_: object) -> list[Inversion]:
        curve = tuple(KPoint(k, 1.0, 0.0) for k in range(5))
        concepts = torch.tensor(found.pop(0))
        return [
            Inversion(concepts, torch.ones(len(concepts)), len(concepts), "estimated", 0.1, curve, 1, 0.1, 4)
        ]

    monkeypatch.setattr(ImageSession, "inverted", answer)
    every = [[0.0, 0.5], [0.0, 0.125], [0.5, 0.5]]
    for answered, counts in (
        (every, (2, 2, 0)),
        ([every[0], every[2]], (1, 1, 1)),
        ([*every, [0.9, 0.9]], (3, 2, 1)),
    ):
        found[:] = [answered]
        (judged,) = Evaluation(model, data, 1).judge({})
        assert judged.count == 2 and (len(judged.right), judged.hits, judged.mistakes) == counts
        assert [len(judged.found.concepts), judged.found.k_curve[-1].k] == [counts[0], 3]
        figures, _ = figures_of([judged], Positions().space)
        assert figures["found of those true"].value == counts[1] / 2
        assert figures["all right"].value == (not judged.mistakes)


@pytest.mark.parametrize(
    ("file", "code", "says"),
    [
        ("worst.xyz", 2, "cannot write .xyz files"),
        ("", 2, "is a folder"),
        ("a.txt/worst.png", 3, "cannot write"),
    ],
)
def test_where_the_worst_cannot_be_drawn_is_said_at_once(
    file: str, code: int, says: str, tiny_model: Path, annotated: Path, tmp_path: Path, here: Here,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(ImageSession, "inverted", lambda *_: pytest.fail("it was evaluated"))
    (tmp_path / "a.txt").write_text("")
    data = ("--dataset", "objects", "--data-root", annotated, "--split", "train", "--limit", 2)
    done = here("evaluate", *CPU, "--model", tiny_model, *data, "--worst", tmp_path / file)
    assert done.code == code and says in one_sentence(done.err)


def test_a_model_that_cannot_be_written_is_not_calibrated_in_vain(
    tiny_model: Path, annotated: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(**_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "mkstemp", deny)
    monkeypatch.setattr(ImageSession, "inverted", lambda *_: pytest.fail("it was evaluated"))
    data = ("--dataset", "objects", "--data-root", annotated, "--split", "train", "--set", "shares=90/10/0")
    done = here("evaluate", *CPU, "--model", tiny_model, *data, "--calibrate")
    assert done.code == 3 and f"cannot write {tiny_model / 'igm.json'}" in one_sentence(done.err)


def test_places_in_a_window_of_any_size_must_be_as_near_in_pixels() -> None:
    truth, near = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.56, 0.5]])
    assert not found_right(Positions(), near, truth)[0, 0]  # of the papers' images
    assert found_right(Positions(), near, truth, (48, 48))[0, 0]  # 2.9 pixels
    assert not found_right(Positions(), near, truth, (48, 96))[0, 0]  # 5.8 pixels
    assert found_right(Positions(), near.flip(1), truth, (48, 96))[0, 0]
