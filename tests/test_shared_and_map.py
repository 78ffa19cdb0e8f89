"""``--shared`` and ``--map``: real renders, faces and drawings, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Here
from jsonschema import validate
from PIL import Image
from test_cli import one_sentence, schema

import igm_cli
from igm_cli.model import Model
from igm_cli.plugins import registry

FACES, ANIMALS = ROOT / "examples" / "faces", ROOT / "examples" / "animals"
QUICK = ("--draws", 2, "--device", "cpu")


@pytest.fixture(scope="module")
def renders(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], tuple[float, float]]:
    """Three renders that have an object at one place in common, and the place; the second one has a border."""
    import sys

    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from shared_place import scenes_with_a_place
    finally:
        sys.path.pop(0)
    seen, place = scenes_with_a_place(3, seed=3, trial=1, others=1)
    folder, paths = tmp_path_factory.mktemp("renders"), []
    for number, image in enumerate(seen):
        pixels = ((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        picture = Image.fromarray(pixels)
        if number == 1:  # which the frame of the model cuts off
            wide = Image.new("RGB", (116, 64))
            wide.paste(picture, (10, 0))
            picture = wide
        paths.append(folder / f"{number}.png")
        picture.save(paths[-1])
    return paths, (float(place[0]), float(place[1]))


@pytest.mark.usefixtures("bundled_models")
def test_images_unlike_those_trained_on_have_nothing_surely_in_common(tmp_path: Path, here: Here) -> None:
    random = np.random.default_rng(0)
    noise = [tmp_path / f"{number}.png" for number in range(2)]
    for path in noise:
        Image.fromarray(random.integers(256, size=(64, 96, 3), dtype=np.uint8)).save(path)
    code, out, err = here("invert", *noise, "--shared", "--k", 1, "--json", *QUICK)
    assert code == 0
    record = json.loads(out)
    assert record["items"][0]["confidence"] < 0.1 and all(each["typicality"] < 0.1 for each in record["images"])
    assert err.count("is unlike what clevr-pos was trained on (typicality 0.0") == 2


@pytest.fixture(scope="module")
def model(bundled_models: str) -> Model:
    return igm_cli.load("clevr-pos", device="cpu")


@pytest.mark.usefixtures("bundled_models")
def test_a_place_in_common(
    renders: tuple[list[Path], tuple[float, float]],
    tmp_path: Path,
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line, kept and gone on with; drawn on every image, on each where it is in that one."""
    paths, (x, y) = renders
    monkeypatch.chdir(paths[0].parent)
    command = ("invert", *(path.name for path in paths), "--shared", "--json", "--device", "cpu", "--draws", 2)
    command = (*command, "-o", tmp_path / "r.jsonl", "--overlay", tmp_path / "found")
    done = here(*command)
    assert done.code == 0
    (line,) = done.out.splitlines()
    record = json.loads(line)
    validate(record, schema("igm.invert-shared-1"))
    assert record["k"] == 1 and record["k_source"] == "estimated"
    first, second, _ = (image["items"][0] for image in record["images"])
    assert math.hypot(first["x"] - x, first["y"] - y) < 0.02
    assert second["x_px"] == pytest.approx(first["x_px"] + 10, abs=0.01)  # in its own pixels
    assert all(image["typicality"] > 0.9 for image in record["images"])
    product = math.prod(image["items"][0]["confidence"] for image in record["images"])
    assert record["items"][0]["confidence"] == pytest.approx(product, abs=1e-3) and product > 0.5
    assert [path.name for path in sorted((tmp_path / "found").iterdir())] == ["0.png", "1.png", "2.png"]
    (tmp_path / "found" / "1.png").unlink()
    done = here(*command)
    assert done.code == 0
    assert json.loads(done.out) == record  # its seconds included: it was kept
    assert (tmp_path / "found" / "1.png").exists()


@pytest.mark.usefixtures("bundled_models")
def test_in_the_library(renders: tuple[list[Path], tuple[float, float]], model: Model) -> None:
    paths, (x, y) = renders
    result = model.invert_shared(paths[::2], k=1, draws=2)
    assert result.k_source == "given"
    assert math.hypot(result.items[0]["x"] - x, result.items[0]["y"] - y) < 0.02
    assert [image.size for image in result.overlays()] == [(768, 512)] * 2


@pytest.mark.usefixtures("bundled_models")
def test_factors_in_common(here: Here) -> None:
    """Two faces that share two of three attributes; of what they do not share nothing is said, unless asked for."""
    faces = [FACES / "long-1.png", FACES / "long-3.png"]
    command = ("invert", *faces, "--concepts", "attributes", "--shared", "--device", "cpu", "--json")
    done = here(*command)
    assert done.code == 0
    items = json.loads(done.out)["items"]
    assert [(item["factor"], item["value"]) for item in items] == [("Eyeglasses", "yes"), ("Smiling", "no")]
    assert all(item["confidence"] > 0.9 for item in items)
    done = here(*command, "--k", 3)
    assert done.code == 0
    hair, *others = json.loads(done.out)["items"]
    assert hair["confidence"] < 0.1 and [item["value"] for item in others] == ["yes", "no"]
    sure = [item["confidence"] for item in items]
    assert [item["confidence"] for item in others] == pytest.approx(sure, abs=1e-3)
    done = here(*command, "--k", 4)
    assert done.code == 2 and "1 to 3 factors in common, not 4" in one_sentence(done.err)


@pytest.mark.usefixtures("bundled_models")
def test_labels_in_common(here: Here, tmp_path: Path) -> None:
    scene = registry.dataset("animals").load("test", size=1, animals="koala,owl", count="2")[0]["image"]
    scene.save(tmp_path / "koala-owl.png")
    pictures = [ANIMALS / "lion-koala.png", tmp_path / "koala-owl.png"]
    command = ("zero-shot", *pictures, "--labels", "koala,lion,owl", "--shared", "--device", "cpu")
    done = here(*command, "--draws", 8, "--overlay", tmp_path / "o")
    assert done.code == 0
    out = done.out
    assert "2 images: K = 1 in common (estimated)" in out and "│ koala " in out and "│ owl " not in out
    assert len(list((tmp_path / "o").iterdir())) == 2


@pytest.mark.usefixtures("bundled_models")
def test_nothing_in_common(tmp_path: Path, here: Here) -> None:
    """It is said, and so is where the pictures are."""
    for name in "ab":
        Image.new("RGB", (96, 64), (120, 120, 120)).save(tmp_path / f"{name}.png")
    command = ("invert", tmp_path / "a.png", tmp_path / "b.png", "--shared", "--k-max", 1, *QUICK)
    said = here(*command, "--json")
    assert said.code == 0
    record = json.loads(said.out)
    validate(record, schema("igm.invert-shared-1"))
    assert record["k"] == 0 and "no concept is in all of the images; --k 1 asks for" in one_sentence(said.err)
    said = here(*command, "--overlay", tmp_path / "o", "--output", tmp_path / "r.jsonl")
    assert said.code == 0
    assert "2 images: K = 0" in said.out and "no concept is in all" in one_sentence(said.err)
    assert f"drawn: {tmp_path / 'o'}\n" in said.out and f"kept: {tmp_path / 'r.jsonl'}, 1 result\n" in said.out


def test_shared_refused(pictures: Path, tiny_model: Path, tmp_path: Path, here: Here) -> None:
    model = ("--model", tiny_model, "--shared", *QUICK)
    one, two = pictures / "0.png", pictures / "1.png"
    for command, words in (
        ((one, *model), "needs two images or more"),
        ((one, two, *model, "--map", tmp_path / "m"), "--map is about single images"),
        ((one, two, *model, "--method", "sgd"), "'sgd' does not find what images have in common"),
        ((one, two, *model, "--k", 1001), "in common, not 1001"),
        ((one, two, *model, "--overlay", tmp_path / "o.png"), "name a folder"),
    ):
        done = here("invert", *command)
        assert done.code == 2 and words in one_sentence(done.err)
    (tmp_path / "bad.png").write_bytes(b"no image")
    done = here("invert", one, tmp_path / "bad.png", *model)
    assert done.code == 3 and "bad.png" in one_sentence(done.err)
    with pytest.raises(igm_cli.IgmError, match="give two or more"):
        igm_cli.load(tiny_model, device="cpu").invert_shared([one])


@pytest.mark.usefixtures("bundled_models")
def test_a_map_of_positions(
    renders: tuple[list[Path], tuple[float, float]],
    tmp_path: Path,
    model: Model,
    here: Here,
) -> None:
    """Its highest cell is at an object, in the frame of a wide image, too; the array beside the picture is the values."""
    paths, (x, y) = renders
    assert here("invert", *paths[:2], "--map", tmp_path / "maps", "--device", "cpu", "--draws", 2).code == 0
    for path, draws in zip(paths[:2], (2, 1), strict=True):
        found, values = model.energy_map(path, draws=draws), np.load(tmp_path / "maps" / f"{path.stem}.npy")
        assert draws == 1 or np.array_equal(values, found.values)
        assert values.shape == (32, 48) and list(found.axes) == ["y", "x"]
        assert len(found.axes["y"]) == 32 and len(found.axes["x"]) == 48
        near = (abs(np.array(found.axes["y"]) - y)[:, None] < 0.03) & (
            abs(np.array(found.axes["x"]) - x) < 0.03
        )
        assert values[near].max() > 5 * abs(np.median(values))
        drawn = np.asarray(Image.open(tmp_path / "maps" / f"{path.stem}.png").convert("HSV"))
        left, _, right, _ = found.frame.box
        column = (left + x * (right - left)) / found.image.width * drawn.shape[1]
        assert drawn[int(y * drawn.shape[0]), int(column), 1] > 100  # colour where the object is
    assert found.frame.box[0] == pytest.approx(10)


@pytest.mark.usefixtures("bundled_models")
def test_maps_of_values_and_labels(tmp_path: Path, here: Here) -> None:
    face, drawing = FACES / "long-0.png", ANIMALS / "owl-fox.png"
    concepts = ("--concepts", "attributes", "--device", "cpu", "--draws", 4)
    assert here("invert", face, *concepts, "--map", tmp_path / "face.png").code == 0
    assert np.load(tmp_path / "face.npy").shape == (6,)
    labels = ("--labels", "dog,owl,whale", "--device", "cpu", "--draws", 4)
    assert here("zero-shot", drawing, *labels, "--map", tmp_path / "label.png").code == 0
    assert np.load(tmp_path / "label.npy").argmax() == 1
    found = igm_cli.load(concepts="attributes", device="cpu").energy_map(face, draws=4)
    assert found.axes["factors"][0] == {"factor": "Black_Hair", "value": "no"}


def test_no_array_of_a_user_is_written_over(
    pictures: Path, tiny_model: Path, tmp_path: Path, here: Here
) -> None:
    target, array = tmp_path / "m.png", tmp_path / "m.npy"
    command = ("invert", pictures / "0.png", "--model", tiny_model, *QUICK, "--map", target)
    array.write_bytes(b"mine")
    done = here(*command)
    assert done.code == 2 and "which igm did not write" in one_sentence(done.err)
    assert array.read_bytes() == b"mine" and not target.exists()
    array.unlink()
    assert here(*command).code == 0
    before = array.read_bytes()
    assert here(*command).code == 0 and array.read_bytes() == before
    array.write_bytes(b"mine")
    assert here(*command).code == 2 and array.read_bytes() == b"mine"
    done = here(*command[:-1], tmp_path / "n.png", "--overlay", tmp_path / "n.png")
    assert done.code == 2 and "would write the same file" in one_sentence(done.err)
