"""Attributes on the command line: real processes, streams and exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from conftest import ROOT, Here, Igm
from PIL import Image
from test_cli import lines, one_sentence, schema, untimed

from igm_cli.plugins.celeba.recipe import balanced_face
from igm_cli.plugins.overlays import LEGEND

FACTORS = ("Black_Hair", "Eyeglasses", "Smiling")
CPU = ("--device", "cpu")
TINY = (
    "--set", "model.channels=[8,8,8]", "--set", "model.head_channels=8", "--set", "model.blocks=1",
    "--set", "data.size=8", "--batch-size", "4", "--precision", "no", *CPU,
)  # fmt: skip


def test_every_factor_gets_a_value(igm: Igm, tiny_attributes: Path, pictures: Path, tmp_path: Path) -> None:
    call = ("invert", pictures, "--model", tiny_attributes, "--concepts", "attributes", *CPU)
    done = igm(*call, "--json", "--overlay", tmp_path / "drawn")
    assert done.returncode == 0, done.stderr
    found = lines(done.stdout)
    assert len(found) == 3
    for line in found:
        jsonschema.validate(line, schema("igm.invert-1"), jsonschema.Draft202012Validator)
        assert [item["factor"] for item in line["items"]] == ["Smiling", "hair"]
        assert line["items"][1]["value"] in ("black", "blond", "grey")
        assert line["k"] == 2 and line["k_source"] == "given"
        # The model is calibrated never to have seen such an image: its values are at chance, and it says so.
        assert line["typicality"] < 0.01
        assert [round(item["confidence"], 2) for item in line["items"]] == [0.5, 0.33]
        with Image.open(tmp_path / "drawn" / f"{Path(line['image']).stem}.png") as drawn:
            assert drawn.width > drawn.height * line["size"][0] / line["size"][1]
            assert drawn.getpixel((1, drawn.height - 2)) == LEGEND, (
                "the picture does not say that it is a guess"
            )
    assert done.stderr.count("is unlike what tiny-attributes was trained on") == 3
    assert untimed(igm(*call, "--json").stdout) == untimed(done.stdout)
    shown = igm(*call)
    assert "Smiling" in shown.stdout and "hair" in shown.stdout and "K =" not in shown.stdout


def test_of_many_warnings_the_later_ones_are_counted(
    here: Here, tiny_attributes: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igm_cli.commands.runner.DETAILED", 1)
    first, last = here("invert", pictures, "--model", tiny_attributes, "--draws", 2, *CPU).err.splitlines()
    assert "0.png is unlike what tiny-attributes was trained on" in first
    assert last.startswith("igm: 2 more of 3 images have such a warning; --json says of which")


@pytest.mark.parametrize("method", ["relax", "enumerate", "eliminate"])
def test_the_papers_methods(igm: Igm, tiny_attributes: Path, pictures: Path, method: str) -> None:
    steps = ("--steps", 3) if method == "relax" else ()
    done = igm(
        "invert", pictures / "0.png", "--model", tiny_attributes, "--json", "--method", method, *steps, *CPU
    )
    assert done.returncode == 0, done.stderr
    (line,) = lines(done.stdout)
    assert [item["confidence"] for item in line["items"]] == [None, None]
    calls = {"relax": 3 * 4 * 3, "enumerate": 4 * (1 + 6 * 2)}
    assert line["network_calls"] == calls.get(method, line["network_calls"])


def test_steps_of_a_model_whose_own_method_is_relax(
    igm: Igm, tiny_attributes: Path, pictures: Path, tmp_path: Path
) -> None:
    model = tmp_path / "relaxed"
    shutil.copytree(tiny_attributes, model)
    spec = json.loads((model / "igm.json").read_text())
    spec["inference"]["method"] = "relax"
    (model / "igm.json").write_text(json.dumps(spec))
    done = igm("invert", pictures / "0.png", "--model", model, "--json", "--steps", 3, *CPU)
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout)[0]["network_calls"] == 3 * 4 * 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("invert", "--k", "3"), "has 2 factors"),
        (("invert", "--k-max", "3"), "leave out --k-max"),
        (("invert", "--method", "sgd"), "does not support factors"),
        (("invert", "--steps", "5"), "--steps belongs to --method sgd or relax"),
        (("estimate-k",), "nothing to count"),
    ],
)
def test_what_attributes_have_no_use_for(
    here: Here, tiny_attributes: Path, pictures: Path, arguments: tuple[str, ...], says: str
) -> None:
    command, *rest = arguments
    done = here(command, pictures / "0.png", "--model", tiny_attributes, *rest, *CPU)
    assert done.code == 2, done.err
    assert says in one_sentence(done.err)
    assert done.out == ""


def test_positions_have_no_configurations(igm: Igm, tiny_model: Path, pictures: Path) -> None:
    done = igm("invert", pictures / "0.png", "--model", tiny_model, "--method", "enumerate", *CPU)
    assert done.returncode == 2
    assert "does not support continuous concepts" in one_sentence(done.stderr)


@pytest.mark.parametrize(
    ("setting", "code", "says"),
    [
        ("concepts.factors=Smilling", 3, "did you mean Smiling"),
        ("concepts.factors=Smiling=yes", 2, "at least two different values"),
        ("concepts.factor=Smiling", 2, "did you mean factors"),
        ("data.domain=woman", 2, "unknown domain 'woman'"),
        ("data.style=oil", 2, "unknown style 'oil'"),
    ],
)
def test_wrong_settings_of_a_training(here: Here, tmp_path: Path, setting: str, code: int, says: str) -> None:
    pytest.importorskip("python_avatars")
    pytest.importorskip("resvg_py")
    done = here("train", "celeba", *TINY, "--steps", "1", "--set", setting, "--output", tmp_path / "run")
    assert done.code == code, done.err
    assert says in done.err and "Traceback" not in done.err


@pytest.mark.slow
def test_training_on_drawn_faces(igm: Igm, tmp_path: Path) -> None:
    pytest.importorskip("python_avatars")
    pytest.importorskip("resvg_py")
    run, chosen = tmp_path / "run", ("--set", "concepts.factors=Smiling,Eyeglasses")
    done = igm("train", "celeba", *TINY, *chosen, "--steps", "2", "--output", run)
    assert done.returncode == 0, done.stderr
    spec = json.loads((run / "igm.json").read_text())
    assert spec["space"]["factors"] == {"Smiling": ["no", "yes"], "Eyeglasses": ["no", "yes"]}
    assert spec["concept_options"] == {"factors": "Smiling,Eyeglasses"}
    again = igm("train", "celeba", *TINY, *chosen, "--steps", "2", "--output", run)
    assert "already holds all 2 steps" in again.stderr
    face = tmp_path / "face.png"
    Image.new("RGB", (178, 218), (200, 150, 120)).save(face)
    found = igm("invert", face, "--model", run, "--json", "--draws", "2", *CPU)
    assert found.returncode == 0, found.stderr
    assert [item["factor"] for item in lines(found.stdout)[0]["items"]] == ["Smiling", "Eyeglasses"]


def test_a_folder_that_is_no_celeba(igm: Igm, tmp_path: Path) -> None:
    (tmp_path / "img_align_celeba").mkdir()
    done = igm("train", "celeba", "--data-root", tmp_path, "--steps", "1", "--output", tmp_path / "run", *CPU)
    assert done.returncode == 3
    assert "list_attr_celeba" in one_sentence(done.stderr) or "no image" in done.stderr


@pytest.mark.usefixtures("bundled_models")
def test_the_bundled_model_reads_the_example_faces(igm: Igm) -> None:
    """As the demo does; the names of the faces are those of ``examples/faces/make.py``."""
    numbers = {"long-0": 5, "long-1": 2, "long-2": 4, "long-3": 3, "beard-0": 7, "beard-1": 12, "outlined-0": 6}
    files = [ROOT / "examples" / "faces" / f"{name}.png" for name in numbers]
    done = igm("invert", *files, "--concepts", "attributes", "--json", *CPU)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for line, number in zip(lines(done.stdout), numbers.values(), strict=True):
        truth = balanced_face(number, seed=77, male=False).attributes
        assert {i["factor"]: i["value"] == "yes" for i in line["items"]} == {k: truth[k] for k in FACTORS}
        assert line["model"] == "celeba-attributes" and line["typicality"] > 0.9


@pytest.mark.usefixtures("bundled_models")
def test_what_is_no_face_is_told_so(igm: Igm) -> None:
    scene = ROOT / "examples" / "images" / "CLEVR_val_000003.png"
    done = igm("invert", scene, "--concepts", "attributes", "--json", *CPU)
    assert "is unlike what celeba-attributes was trained on" in one_sentence(done.stderr)
    (line,) = lines(done.stdout)
    assert line["typicality"] < 0.5 and max(item["confidence"] for item in line["items"]) < 0.75
