"""``igm zero-shot`` as a user meets it.

What needs no process of its own runs in this one: diffusers takes seconds to import.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tiny_pipelines
import tiny_videos
from conftest import Done, Here, Igm, launch_two
from PIL import Image
from test_cli import lines, one_sentence, schema, untimed

from igm_cli import bundled
from igm_cli.commands import zero_shot
from igm_cli.commands.options import number_or_auto
from igm_cli.commands.zero_shot import parse_timesteps, read_labels, read_templates
from igm_cli.core.models.pipeline_files import PUBLISHED, pipeline_fingerprint, quiet, read_description
from igm_cli.errors import InputError, UsageError
from igm_cli.label_models import check_labels
from igm_cli.output import span

OWN = {
    "concepts": "labels",
    "space": {"kind": "text", "labels": ["dog", "cat", "rabbit"], "templates": ["{label}"]},
    "composition": "mean",
    "inference": {"draws": 4, "max_draws": 8, "low": 0.1, "high": 0.6, "k_min": 1, "k_max": 2, "penalty": 1.0},
}
PETS = ("--labels", "dog,cat,rabbit")
QUICK = ("--draws", "4", "--max-draws", "8", "--dtype", "float32", "--device", "cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Stable Diffusion 1.x pipeline of 16 x 16 pixels, which says nothing of labels."""
    with quiet():
        return tiny_pipelines.build(tmp_path_factory.mktemp("zero-shot") / "tiny", "sd1")


@pytest.fixture(scope="module")
def own(tiny: Path) -> Path:
    """The same with an igm.json."""
    folder = tiny.with_name("own")
    shutil.copytree(tiny, folder)
    (folder / "igm.json").write_text(json.dumps(OWN))
    return folder


def only(done: Done) -> dict[str, Any]:
    """The one result of a call that went well."""
    assert done.code == 0, done.err
    (line,) = lines(done.out)
    jsonschema.validate(line, schema("igm.zero-shot-1"), jsonschema.Draft202012Validator)
    return line


def test_a_folder_of_images(igm: Igm, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    given = (
        *PETS,
        "--model",
        tiny,
        "--json",
        "--overlay",
        tmp_path / "drawn",
        "--output",
        tmp_path / "r.jsonl",
    )
    done = igm("zero-shot", pictures, *given, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "tiny was not calibrated: confidence is rough, and images unlike" in one_sentence(done.stderr)
    assert "--calibrate" not in done.stderr  # which keeps its figures with a model of igm's
    found = lines(done.stdout)
    assert [Path(line["image"]).name for line in found] == ["0.png", "1.png", "2.png"]
    for line in found:
        jsonschema.validate(line, schema("igm.zero-shot-1"), jsonschema.Draft202012Validator)
        assert (line["model"], line["k_source"]) == ("tiny", "estimated")
        assert line["k"] == len(line["items"]) and [p["k"] for p in line["k_curve"]] == [1, 2, 3]
        probable = {x["label"]: x["probability"] for x in line["labels"]}
        assert list(probable.values()) == sorted(probable.values(), reverse=True)
        assert set(probable) == {"dog", "cat", "rabbit"}
        assert all(item["confidence"] == probable[item["label"]] for item in line["items"])
        assert line["draws"] <= 8 and line["network_calls"] <= 3 * 8
        with Image.open(tmp_path / "drawn" / f"{Path(line['image']).stem}.png") as drawn:
            assert drawn.width > drawn.height * line["size"][0] / line["size"][1]
    assert (tmp_path / "r.jsonl").read_text() == done.stdout


def test_a_folder_run_goes_on(here: Here, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    given = (pictures, "--model", tiny, "--json", "--output", results, *QUICK)
    whole = here("zero-shot", *given, *PETS)
    text = results.read_text()
    assert whole.code == 0 and text == whole.out
    first, second = text.splitlines(keepends=True)[:2]
    results.write_text(first + second[: len(second) // 2])
    again = here("zero-shot", *given, *PETS)
    assert again.code == 0, again.err
    assert results.read_text().splitlines(keepends=True)[0] == first
    assert untimed(again.out) == untimed(whole.out)
    for other in (
        ("--labels", "dog,cat"),
        (*PETS, "--template", "{label}"),
        (*PETS, "--k", "2"),
        (*PETS, "--size", "32"),
        (*PETS, "--fit", "squash"),
        (*PETS, "--weighting", "1"),
        (*PETS, "--views", "2"),
        (*PETS, "--seed", "3"),
    ):
        refused = here("zero-shot", *given, *other)
        assert refused.code == 3 and "other options" in one_sentence(refused.err), other
        named = {
            ("--labels", "dog,cat"): "(--labels was cat, dog, rabbit and is cat, dog)",
            ("--k", "2"): "(--k was estimated and is 2)",
        }
        assert named.get(other[-2:], "") in refused.err
    same = here("zero-shot", *given, *PETS, "--attention", "sliced")  # changes no result
    assert same.code == 0 and same.out == results.read_text()


def test_views_cost_no_call(here: Here, tiny: Path, pictures: Path) -> None:
    """They change what is seen, not how often the network is asked."""
    given = (pictures / "0.png", "--model", tiny, *PETS, *QUICK, "--k", "1", "--json")
    lines = [only(here("zero-shot", *given, "--views", views)) for views in ("1", "2", "4")]
    assert len({line["network_calls"] for line in lines}) == 1
    assert len({line["denoising_error"] for line in lines}) == 3


def test_the_models_own_labels_and_settings(here: Here, own: Path, pictures: Path) -> None:
    image = pictures / "1.png"
    line = only(here("zero-shot", image, "--model", own, "--json"))
    assert {x["label"] for x in line["labels"]} == {"dog", "cat", "rabbit"}
    assert line["k_penalty"] == pytest.approx(1e-4)
    assert line["draws"] <= 8 and [p["k"] for p in line["k_curve"]] == [1, 2]
    shown = here("zero-shot", image, "--model", own, "--labels", "Dog, zebra,yak", "--k", "1")
    assert shown.code == 0
    unknown, rough = shown.err.splitlines()
    assert "own was not trained on 'zebra', 'yak'" in unknown
    assert "own was not calibrated" in rough and rough.endswith("; igm evaluate --calibrate mends that")
    assert "K = 1 (given)" in shown.out and "zebra" in shown.out and "Dog" in shown.out


def test_a_model_that_knows_nothing_is_asked_for_it(
    here: Here, own: Path, pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "knows"
    shutil.copytree(own, folder)
    space = {**OWN["space"], "labels": ["dog", "cat", "rabbit", "void"], "nothing": "void"}
    (folder / "igm.json").write_text(json.dumps({**OWN, "space": space}))
    for given, labels in (((), {"dog", "cat", "rabbit"}), (("--labels", "dog,yak"), {"dog", "yak"})):
        line = only(here("zero-shot", pictures / "1.png", "--model", folder, "--json", *QUICK, *given))
        assert {x["label"] for x in line["labels"]} == labels
        assert {x["label"] for x in line["items"]} <= labels
        assert 0 <= line["typicality"] <= 1
        assert line["network_calls"] == line["draws"] * (len(labels) + 1)
    told = here("zero-shot", pictures / "1.png", "--model", folder, "--k", "3", *QUICK).err
    assert "--k 3 is the number of labels, so all are taken and nothing is decided" in told
    assert (
        "knows was not calibrated: confidence is rough; igm evaluate" in told
    )  # its prompt for nothing notices


def test_templates_are_averaged_and_counted(here: Here, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("# pets\ndog\n\n cat # a comment\nRabbit\n", encoding="utf-8-sig")
    (tmp_path / "templates.txt").write_text("a photo of a {label}\n{label}\n")
    files = ("--labels-file", tmp_path / "labels.txt", "--templates-file", tmp_path / "templates.txt")
    draws = ("--draws", "2", "--max-draws", "2", "--device", "cpu")
    line = only(here("zero-shot", pictures / "0.png", "--model", tiny, *files, *draws, "--k", "2", "--json"))
    assert {x["label"] for x in line["labels"]} == {"dog", "cat", "Rabbit"}
    assert line["network_calls"] == 3 * 2 * 2 and line["draws"] == 2 and line["k_source"] == "given"


def test_many_images_and_many_labels_for_people(here: Here, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    many = ",".join(f"{a}{b}" for a in "abc" for b in "abcd")
    one = here("zero-shot", pictures / "0.png", "--model", tiny, "--labels", many, "--k", "1", *QUICK)
    assert one.code == 0 and one.out.count("│ ") == 3  # one row: the other eleven labels are in JSON
    for number in range(5):
        shutil.copy(pictures / "0.png", tmp_path / f"{number}.png")
    (tmp_path / "5.png").write_bytes(b"no image")
    table = here("zero-shot", tmp_path, "--model", tiny, *PETS, *QUICK)
    assert table.code == 3 and "1 of 6 images" in table.err and "5.png" in table.err
    assert table.out.count(".png") == 5 and "found" in table.out


def test_a_single_file(here: Here, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    with quiet():
        file = tiny_pipelines.single_file(tiny, tmp_path / "one.safetensors")
    given = (pictures / "0.png", *PETS, *QUICK, "--json", "--prediction", "v_prediction")
    line = only(here("zero-shot", *given, "--model", file, "--config", tiny))
    assert line["model"] == "one"
    assert line["labels"] == only(here("zero-shot", *given, "--model", tiny))["labels"]


def test_a_hub_id_in_the_cache(
    here: Here, tiny: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    tiny_pipelines.into_hub_cache(tiny, tmp_path / "hub", "tiny/model")
    given = (pictures / "0.png", *PETS, *QUICK, "--json")
    one, other = (only(here("zero-shot", *given, "--model", model)) for model in (tiny, "tiny/model"))
    assert other["model"] == "tiny/model"
    assert (one["run"], one["labels"]) == (other["run"], other["labels"])


def test_a_model_composed_as_a_sum(here: Here, own: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(own, tmp_path / "sum")
    description = OWN | {"composition": "sum", "inference": {"draws": 4, "max_draws": 4}}
    (tmp_path / "sum" / "igm.json").write_text(json.dumps(description))
    line = only(here("zero-shot", pictures / "0.png", "--model", tmp_path / "sum", "--json"))
    assert line["network_calls"] == 4 * (3 + 1)  # the prediction without a label, too


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "names no labels of its own"),
        (["--labels", "dog"], 2, "give two labels or more"),
        (["--labels", "dog,,cat"], 2, "empty label"),
        (["--labels", ""], 2, "the value of --labels is empty"),
        (["--labels", "polar bear,cat,Polar  Bear"], 2, "which are the same"),
        (["--labels", "a,b,c", "--k", "4"], 2, "4 of 3 labels"),
        (["--labels", ",".join(f"{i}" for i in range(700))], 2, "give fewer labels"),
        (["--labels", "a,b", "--labels-file", "x"], 2, "exclude each other"),
        (["--labels-file", "{tmp}/no.txt"], 3, "does not exist"),
        (["--labels-file", "{tmp}/points.csv"], 3, "looks like a table; a file of labels holds one per line"),
        (["--labels-file", "{tmp}"], 3, "is a folder, not a file"),
        (["--labels", "a,b", "--template", "{{}}"], 2, "has no {label}"),
        (["--labels", "a,b", "--k", "0"], 2, "--k"),
        (["--labels", "a,b", "--k", "abc"], 2, "'abc'"),
        (["--labels", "a,b", "--k", "2", "--k-max", "2"], 2, "leave out"),
        (["--labels", "a,b", "--k-max", "0"], 2, "--k-max"),
        (["--labels", "a,b", "--draws", "0"], 2, "--draws"),
        (["--labels", "a,b", "--draws", "9", "--max-draws", "3"], 2, "--max-draws 3"),
        (["--labels", "a,b", "--timesteps", "0.7-0.2"], 2, "LOW-HIGH"),
        (["--labels", "a,b", "--weighting", "nan"], 2, "--weighting"),
        (["--labels", "a,b", "--views", "3"], 2, "must be 1, 2 or 4, not 3"),
        (["--labels", "a,b", "--dtype", "int8"], 2, "int8"),
        (["--labels", "a,b", "--size", "9"], 2, "multiple of 2"),
        (["--labels", "a,b", "--size", "8192"], 2, "is more than 8 times that of"),
        (["--labels", "a,b", "--template", "{{label}} or {{label}}"], 2, "has {label} twice; only one"),
        (["--labels", "nothing,dog", "--model", "animals-tiny"], 2, "stands for none of the labels"),
        (["--labels", "a,b", "--device", "tpu"], 2, "tpu"),
        (["--labels", "a,b", "--device", "cpu", "--offload"], 2, "leave out --offload"),
        (["--labels", "a,b", "--variant", "fp16"], 3, "no fp16 weights"),
        (["--labels", "a," + "very " * 30 + "long"], 3, "shorter label"),
        (["--labels", "a,b", "--model", "owner/name"], 4, "give a folder, or hf:owner/name"),
        (["--labels", "a,b", "--model", "no-such"], 4, "no-such"),
        (["--labels", "a,b", "--model", "no-such.safetensors"], 4, "does not exist"),
        (["--labels", "a,b", "--model", "{tmp}"], 3, "not a diffusers pipeline"),
        (["--labels", "a,b", "--model", "{pictures}/0.png"], 3, "is not a model"),
        (["--labels", "a,b", "--model", "clevr-pos"], 2, "use igm invert"),
        (["--labels", "a,b", "--model", "{position}"], 2, "use igm invert"),
        (["--labels", "a,b", "{tmp}/no.png"], 3, "could not be used"),
    ],
)
def test_mistakes(
    here: Here,
    tiny: Path,
    tiny_model: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "points.csv").write_text("image,x,y\n0.png,3,4\n")
    given = [a.format(tmp=tmp_path, pictures=pictures, position=tiny_model) for a in arguments]
    model = () if "--model" in given else ("--model", tiny)
    done = here(
        "zero-shot",
        pictures / "0.png",
        *model,
        "--json",
        *given,
        *(() if "--draws" in given else ("--draws", "2")),
    )
    assert done.code == code, done.err
    if code == 3 and "could not" in says:  # one of two images: the other is done
        assert says in done.err and len(lines(done.out)) == 1
    else:
        assert says in one_sentence(done.err)
        assert done.out == ""


def test_a_pipeline_without_an_autoencoder(here: Here, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "vae")
    done = here("zero-shot", pictures / "0.png", "--model", tmp_path / "half", *PETS)
    assert done.code == 3 and "has no vae" in one_sentence(done.err)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    one = here("zero-shot", bad, "--model", tiny, *PETS)
    assert one.code == 3 and "not an image" in one_sentence(one.err)


def test_xformers_must_be_there(
    here: Here, tiny: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xformers", None)
    done = here("zero-shot", pictures / "0.png", "--model", tiny, *PETS, "--attention", "xformers")
    assert done.code == 4 and "igm-cli[xformers]" in one_sentence(done.err)


def test_other_commands_point_here(here: Here, tiny: Path, pictures: Path) -> None:
    for command in ("invert", "estimate-k"):
        done = here(command, pictures / "0.png", "--model", tiny)
        assert done.code == 2 and "use igm zero-shot" in one_sentence(done.err)


def test_a_bundled_pipeline_is_found(
    here: Here, own: Path, tiny_model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(own, tmp_path / "animals")
    shutil.copytree(tiny_model, tmp_path / "boxes")
    monkeypatch.setattr(bundled, "BUNDLED", tmp_path)
    assert only(here("zero-shot", pictures / "0.png", "--json"))["model"] == "animals"
    assert only(here("zero-shot", pictures / "0.png", "--json", "--model", "animals"))["model"] == "animals"
    says = json.loads((tmp_path / "animals" / "igm.json").read_text())
    (tmp_path / "animals" / "igm.json").write_text(json.dumps({**says, "info": {"knows": "pets"}}))
    told = "no --model is given: animals answers, which knows pets"
    assert told in here("zero-shot", pictures / "0.png").err
    assert told not in here("zero-shot", pictures / "0.png", "--model", "animals").err
    assert "did you mean animals" in here("zero-shot", pictures / "0.png", "--model", "animal").err
    elsewhere = here("invert", pictures / "0.png", "--model", "nope").err
    assert "bundled are animals, boxes" in elsewhere
    assert "use igm zero-shot" in here("invert", pictures / "0.png", "--concepts", "labels").err

    def checkpoints() -> list[dict[str, str]]:
        return list(json.loads(here("doctor", "--json").out)["checkpoints"])

    assert [(c["name"], c["concepts"], c["problem"]) for c in checkpoints()] == [
        ("animals", "labels", ""),
        ("boxes", "pos", ""),
    ]
    (tmp_path / "animals" / "unet" / "config.json").write_text("{")
    assert [bool(c["problem"]) for c in checkpoints()] == [True, False]


def test_long_runs_are_announced(
    here: Here, tiny: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zero_shot, "seconds_per_call", lambda denoiser, most: 2.0)
    given = (pictures, "--model", tiny, "--json", *PETS, *QUICK, "--output", tmp_path / "r.jsonl")
    first = here("zero-shot", *given)
    said = first.err
    assert "about 1.2 to 2.4 minutes for 3 images, 3 labels and 4 to 8 draws on cpu; fewer --labels" in said
    assert "GPU" in said
    (tmp_path / "r.jsonl").write_text("".join(first.out.splitlines(keepends=True)[:2]))
    assert "about 24 to 48 seconds for 1 image, 3 labels" in here("zero-shot", *given).err
    assert "about" not in here("zero-shot", *given).err  # nothing is left to do


def test_what_images_take_is_estimated(
    here: Here, tiny: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zero_shot, "seconds_per_call", lambda denoiser, most: 2.0)
    given = (pictures, "--model", tiny, *PETS, *QUICK, "--estimate", "--output", tmp_path / "r.jsonl")
    told = json.loads(here("zero-shot", *given, "--json").out)
    jsonschema.validate(told, schema("igm.zero-shot-estimate-1"), jsonschema.Draft202012Validator)
    assert (told["images"], told["labels"], told["calls_per_draw"]) == (3, 3, 3)
    assert (told["least_seconds"], told["most_seconds"]) == (2 * 3 * 3 * 4, 2 * 3 * 3 * 8)
    shown = here("zero-shot", *given).out
    assert "12 to 24" in shown and "1.2 to 2.4 minutes" in shown and "nothing was tuned" in shown
    assert not (tmp_path / "r.jsonl").exists()
    film = tiny_videos.write(tmp_path / "film.mp4")
    told = json.loads(here("zero-shot", film, *given[1:-2], "--every", 4, "--json").out)
    assert (told["images"], told["least_seconds"]) == (3, 2 * 3 * 3 * 4)


def test_a_coarse_start_asks_for_few_labels(here: Here, tiny: Path, pictures: Path) -> None:
    """Twelve labels under two draws, eight of them at most under the six others."""
    labels = ("--labels", ",".join(f"thing {n}" for n in range(12)), "--k", "2")
    draws = ("--draws", "8", "--max-draws", "8", "--device", "cpu", "--json", "--coarse", "2")
    line = only(here("zero-shot", pictures / "0.png", "--model", tiny, *labels, *draws))
    assert 12 * 2 + 3 * 6 <= line["network_calls"] <= 12 * 2 + 8 * 6
    assert len(line["labels"]) == 12 and line["draws"] == 8
    refused = here("zero-shot", pictures / "0.png", "--model", tiny, *labels, *draws[:-1], "1")
    assert refused.code == 2 and "coarse takes 2 noise samples or more" in one_sentence(refused.err)
    refused = here("zero-shot", pictures / "0.png", "--model", tiny, *labels, *draws, "--shared")
    assert refused.code == 2 and "--coarse is about single images" in one_sentence(refused.err)


def test_the_pace_is_measured(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from igm_cli.core.concepts import Text
    from igm_cli.core.models.pipelines import load_pipeline
    from igm_cli.core.models.text_to_image import TextToImageDenoiser

    denoiser = TextToImageDenoiser(load_pipeline(str(tiny), torch.device("cpu")), Text(("dog", "cat")))
    rows, call = [], denoiser._call
    monkeypatch.setattr(denoiser, "_call", lambda x_t, *rest: rows.extend(x_t) or call(x_t, *rest))
    assert 0 < zero_shot.seconds_per_call(denoiser, 4) < 1
    assert len(rows) == 8  # twice a batch of no more than there is to do


@pytest.mark.parametrize(
    ("least", "most", "text"),
    [
        (7.1, 57, "7.1 to 57 seconds"),
        (40, 80, "40 to 80 seconds"),
        (720, 2700, "12 to 45 minutes"),
        (2700, 2700, "45 minutes"),
        (60, 40000, "11 hours at most"),
        (86400, 172800, "1 to 2 days"),
        (0.2, 0.9, "0.2 to 0.9 seconds"),
        (1, 1, "1 second"),
        (0.01, 1, "1 second at most"),
    ],
)
def test_spans(least: float, most: float, text: str) -> None:
    assert span(least, most) == text


def test_options_are_read() -> None:
    assert number_or_auto("--k", "auto") is None and number_or_auto("--k", " 3 ") == 3
    assert parse_timesteps(None) == (None, None)
    assert parse_timesteps("0-1") == (0.0, 1.0) and parse_timesteps(".05 - 0.95") == (0.05, 0.95)
    assert parse_timesteps("50-950") == (0.05, 0.95)
    for text in ("", "0.5", "0.5-0.5", "-1-1", "0-1001", "0.5-1.5", "a-b", "1-0"):
        with pytest.raises(UsageError, match="LOW-HIGH"):
            parse_timesteps(text)
    for text in ("", "-1", "1.5", "²"):
        with pytest.raises(UsageError, match="--k takes"):
            number_or_auto("--k", text)


def test_label_files(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeff# of the zoo\r\n Polar bear \r\n\r\nÉléphant\r\nc#\r\n".encode())
    assert read_labels(None, file) == ("Polar bear", "Éléphant", "c#")
    assert read_labels(None, None) == () and read_templates([], None) == ()
    for content, says in (
        (b"# nothing\n", "holds no labels"),
        (b"caf\xe9\nx", "not UTF-8"),
        (b"dog\n", "two labels"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=says):
            read_labels(None, file)
    file.write_text("a dog\n")
    with pytest.raises(InputError, match=r"has no \{label\}"):
        read_templates([], file)
    with pytest.raises(UsageError, match="exclude each other"):
        read_templates(["{label}"], file)
    with pytest.raises(UsageError, match="'dog' twice"):
        check_labels(["dog", "dog"], "--labels", UsageError)


@pytest.mark.parametrize(
    "change",
    [
        {"space": {"kind": "categorical", "factors": {"a": ["no", "yes"]}}},
        {"space": {"kind": "text"}},
        {"space": None},
        {"composition": "product"},
        {"inference": 3},
    ],
)
def test_bad_descriptions(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "igm.json").write_text(json.dumps(OWN | change))
    with pytest.raises(InputError, match="does not describe"):
        read_description(tmp_path)


def test_descriptions(own: Path, tiny: Path) -> None:
    assert read_description(tiny).inference == PUBLISHED and read_description(tiny).space is None
    described = read_description(own)
    assert described.inference == {**PUBLISHED, **OWN["inference"]}  # type: ignore[dict-item]
    assert described.space is not None and described.space.templates == ("{label}",)


def test_what_a_card_calls_discriminative_answers_do(
    here: Here, own: Path, pictures: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(own, tmp_path / "model"))
    (model / "igm.json").write_text(json.dumps(OWN | {"info": {"contrast": 0.1}}))
    words = ("zero-shot", next(pictures.iterdir()), "--model", model, "--draws", 1, "--max-draws", 1, "--json")
    code, out, err = here(*words)
    assert code == 0 and json.loads(out)["discriminative"] is True, err


def test_fingerprints(tiny: Path, own: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    before = pipeline_fingerprint(tiny, None)
    (copy / "README.md").write_text("something else")
    (copy / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not loaded")
    assert pipeline_fingerprint(copy, None) == pipeline_fingerprint(own, None) == before
    with pytest.raises(InputError, match="fp32"):
        pipeline_fingerprint(copy, "fp32")
    scheduler = copy / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text() + " ")
    assert pipeline_fingerprint(copy, None) != before
    shutil.copy(tiny / "scheduler" / "scheduler_config.json", scheduler)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert pipeline_fingerprint(copy, None) != before
    assert pipeline_fingerprint(weights, None) != before
    large = tmp_path / "large.safetensors"
    data = bytearray(3 << 20)
    large.write_bytes(data)
    one = pipeline_fingerprint(large, None)
    data[len(data) // 2] = 1  # far from both ends
    large.write_bytes(data)
    assert pipeline_fingerprint(large, None) != one


@pytest.mark.slow
def test_two_processes_give_what_one_does(igm: Igm, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    call = ["zero-shot", str(pictures), "--model", str(tiny), "--json", *PETS, *QUICK]
    one = igm(*call)
    assert one.returncode == 0, one.stderr
    results = tmp_path / "results.jsonl"
    two = launch_two("-m", "igm_cli", *call, "--output", results, cwd=tmp_path)
    assert untimed(two) == untimed(one.stdout)
    assert results.read_text() == two


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from igm_cli.output import Output

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Output().progress() as report:
        report("images", 0, 2)
        for image in ("a", "b"):
            for done in range(4):
                report(f"network calls: {image}", done, 3)
    shown = capsys.readouterr().err
    assert "network calls: b" in shown and "3/3" in shown


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny pipelines of other families."""
    root = tmp_path_factory.mktemp("other")

    def built(kind: str) -> Path:
        with quiet():
            return tiny_pipelines.build(root / kind, kind) if not (root / kind).exists() else root / kind

    return built


def test_classes_are_labels(here: Here, other: Callable[[str], Path], pictures: Path, tmp_path: Path) -> None:
    image, model = sorted(pictures.iterdir())[0], ("--model", other("dit"), *QUICK, "--json")
    found = only(here("zero-shot", image, "--labels", "Domestic  Dog,cat,hare", *model))
    assert {row["label"] for row in found["labels"]} == {"Domestic  Dog", "cat", "hare"}
    assert found["draws"] <= 8 and "guidance_told" not in found
    (tmp_path / "labels.txt").write_text("crane, bird\ncrane, machine\n")
    assert only(here("zero-shot", image, "--labels-file", tmp_path / "labels.txt", *model))["k"] in (1, 2)
    for labels, sentence in (
        ("dogs,cat", "the model has no class 'dogs'; did you mean dog"),
        ("zzzz,cat", "the model has no class 'zzzz'; it has 1000, such as"),
        ("dog,domestic dog", "'dog' and 'domestic dog' are one class of the model; leave one out"),
        ("crane,cat", "'crane' names two classes of the model, 'crane, bird' and 'crane, machine'"),
    ):
        refused = here("zero-shot", image, "--labels", labels, *model)
        assert refused.code == 2 and sentence in one_sentence(refused.err)
    refused = here("zero-shot", image, "--labels", "dog,cat", "--template", "a {label}", *model)
    assert refused.code == 2 and "stand in no template; leave out --template" in one_sentence(refused.err)


def test_a_distilled_flow_says_what_guidance_it_is_told(
    here: Here, other: Callable[[str], Path], pictures: Path
) -> None:
    image = sorted(pictures.iterdir())[0]
    found = only(here("zero-shot", image, *PETS, "--model", other("flux"), "--size", 16, *QUICK, "--json"))
    assert found["guidance_told"] == 3.5 and found["denoising_error"] > 0
