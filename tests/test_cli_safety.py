"""Nothing that is not igm's own is written over, and nothing found on disk chooses code to run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from codebook_files import write_problems
from conftest import Here
from PIL import Image
from test_cli import one_sentence

from igm_cli.commands.drawings import picture_targets, save_picture
from igm_cli.commands.results import open_results
from igm_cli.core.decomposition.problems import random_problems
from igm_cli.core.files import exclusive
from igm_cli.errors import UsageError
from igm_cli.folders import Source, expand_inputs
from igm_cli.imaging import PICTURES

QUICK = ("--draws", "2", "--device", "cpu")


@pytest.fixture
def image(pictures: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(pictures / "0.png", tmp_path / "a.png"))


@pytest.mark.parametrize("name", ["a.png", "./a.png", "link.png"])
def test_an_input_is_no_output(
    tiny_model: Path,
    image: Path,
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    before = image.read_bytes()
    monkeypatch.chdir(image.parent)
    Path("link.png").symlink_to("a.png")
    done = here("invert", image, "--model", tiny_model, "-o", name, *QUICK)
    assert done.code == 2 and "--output would overwrite" in one_sentence(done.err)
    assert image.read_bytes() == before


def test_vectors_and_codebooks_are_no_output(tmp_path: Path, here: Here) -> None:
    books, vectors = tmp_path / "books.safetensors", tmp_path / "v.npy"
    problems = random_problems(4, 2, 64, 2, seed=0)
    write_problems(books, problems)
    np.save(vectors, problems.vectors.numpy())
    for target in (books, vectors):
        before = target.read_bytes()
        done = here("decompose", vectors, "--codebooks", books, "-o", target, "--device", "cpu")
        assert done.code == 2 and "would overwrite" in one_sentence(done.err)
        assert target.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        b"a note without a newline",
        b"a note\nand another",
        b'{"my": "json"}\n',
        b'{"my": "json"',
        b"\x89PNG\r\n\x1a\nrest",
    ],
)
def test_a_foreign_file_is_left_alone(
    tiny_model: Path, image: Path, tmp_path: Path, here: Here, content: bytes
) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_bytes(content)
    done = here("invert", image, "--model", tiny_model, "-o", kept, *QUICK)
    assert done.code == 3 and "not results of igm" in one_sentence(done.err)
    assert kept.read_bytes() == content


def test_a_foreign_tail_is_left_alone(tiny_model: Path, image: Path, tmp_path: Path, here: Here) -> None:
    kept = tmp_path / "r.jsonl"
    assert here("invert", image, "--model", tiny_model, "-o", kept, *QUICK).code == 0
    whole = kept.read_text()
    kept.write_text(whole + "remember the milk")
    assert here("invert", image, "--model", tiny_model, "-o", kept, *QUICK).code == 3
    assert kept.read_text() == whole + "remember the milk"
    kept.write_text(whole + whole[:40])  # a line of ours that was cut short
    assert here("invert", image, "--model", tiny_model, "-o", kept, *QUICK).code == 0
    assert kept.read_text() == whole
    (empty := tmp_path / "empty.jsonl").touch()
    assert here("invert", image, "--model", tiny_model, "-o", empty, *QUICK).code == 0


def test_a_picture_that_igm_did_not_draw_is_left_alone(
    tiny_model: Path, image: Path, tmp_path: Path, here: Here
) -> None:
    call = ("invert", image, "--model", tiny_model, *QUICK, "--overlay")
    for name in ("own.png", "own.jpg", "own.webp", "own.tif"):
        for _ in range(2):  # what igm drew is drawn anew
            assert here(*call, tmp_path / name).code == 0, name
    for name in ("own.bmp", "own.gif"):  # which cannot say that igm drew them
        done = here(*call, tmp_path / name)
        assert done.code == 2 and f"cannot write {name[3:]} files; use .png" in one_sentence(done.err)
    holiday = tmp_path / "holiday.png"
    Image.new("RGB", (50, 50), (9, 9, 9)).save(holiday)
    before = holiday.read_bytes()
    done = here(*call, holiday)
    assert done.code == 2 and "holiday.png, which igm did not draw" in one_sentence(done.err)
    (tmp_path / "drawn").mkdir()
    holiday.rename(tmp_path / "drawn" / "a.png")
    assert here(*call, tmp_path / "drawn").code == 2
    assert (tmp_path / "drawn" / "a.png").read_bytes() == before
    (tmp_path / "own.jsonl").write_text("mine")
    for images in ([image], [image, tmp_path / "own.png"]):
        done = here("invert", *images, "--model", tiny_model, *QUICK, "--overlay", tmp_path / "own.jsonl")
        assert done.code == 2 and "own.jsonl is a file that is no picture; name a folder" in one_sentence(
            done.err
        )
    done = here("invert", image, "--model", tiny_model, *QUICK, "--output", tmp_path / "found.csv")
    assert done.code == 2 and "found.csv is named as a table; name a .jsonl file" in one_sentence(done.err)


def test_results_of_other_inputs_in_the_file_are_counted(
    tiny_model: Path, image: Path, tmp_path: Path, here: Here
) -> None:
    other, kept = shutil.copy(image, tmp_path / "other.png"), tmp_path / "kept.jsonl"
    call = ("--model", tiny_model, "--device", "cpu", "--draws", 2, "--output", kept)
    done = here("invert", image, other, *call)
    assert done.code == 0
    assert f"kept: {kept}, 2 results\n" in done.out.replace("\n ", " ")
    done = here("invert", other, *call)
    assert done.code == 0
    said = " ".join(done.out.split())
    assert f"kept: {kept}, 2 results, 1 of inputs that this call did not name" in said


def test_a_picture_of_another_result_is_drawn_anew(
    here: Here, tiny_model: Path, tiny_attributes: Path, image: Path, tmp_path: Path
) -> None:
    drawn = []
    for model in (tiny_model, tiny_attributes, tiny_model):
        kept = ("-o", tmp_path / f"{model.name}.jsonl", "--overlay", tmp_path / "found.png")
        assert here("invert", image, "--model", model, *QUICK, *kept).code == 0
        drawn.append((tmp_path / "found.png").read_bytes())
    assert drawn[0] == drawn[2] != drawn[1]


def test_what_igm_drew_in_a_folder_is_not_read_as_its_images(tmp_path: Path) -> None:
    noise = Image.effect_noise((50, 50), 30).convert("RGB")
    noise.save(tmp_path / "photo.png")
    save_picture(noise, tmp_path / "generated.png", {"expression": "pos(0.5,0.5)"})
    for suffix in PICTURES:
        save_picture(noise, tmp_path / f"found/photo{suffix}")
    said: list[str] = []
    found = expand_inputs([str(tmp_path), str(tmp_path / "found/photo.png")], note=said.append)
    assert [Path(each.name).name for each in found] == ["generated.png", "photo.png", "photo.png"]
    assert said == [f"left out of {tmp_path}: {len(PICTURES)} overlays, maps or sheets of igm"]


def test_a_picture_too_large_to_open_is_not_one_that_igm_drew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("1", (50, 50)).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UsageError, match="which igm did not draw"):
        picture_targets([Source.of(Path("a.png"))], tmp_path / "big.png", "--overlay")


@pytest.mark.parametrize(
    ("images", "drawn"),
    [
        ("a/X.png b/x.png", "a-X.png b-x.png"),
        ("dup.jpg dup.png other.png", "dup.jpg.png dup.png.png other.png"),
        ("a/x.png b/x.png b/x.jpg", "a-x.png b-x.png x.jpg.png"),
        ("p/a/x.png q/a/x.png x.png", "p-a-x.png q-a-x.png x.png.png"),
        ("p-a/x.png p/a-x.png p/x.png a-x.png", "p-a-x.png p-a-x-2.png p-x.png a-x.png.png"),
    ],
)
def test_pictures_of_images_of_the_same_name_say_whose_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: str, drawn: str
) -> None:
    monkeypatch.chdir(tmp_path)
    targets = picture_targets([Source.of(Path(name)) for name in images.split()], Path("out"), "--overlay")
    assert [path.name for path in targets.values()] == drawn.split()


def test_an_image_replaced_under_its_name_is_worked_out_anew(
    tiny_model: Path, image: Path, pictures: Path, tmp_path: Path, here: Here
) -> None:
    kept = tmp_path / "r.jsonl"
    other = Path(shutil.copy(pictures / "2.png", tmp_path / "b.png"))
    call = ("invert", image, other, "--model", tiny_model, "--json", "-o", kept, *QUICK)
    assert here(*call).code == 0
    first, second = kept.read_text().splitlines()
    shutil.copy(pictures / "1.png", image)
    said = here(*call)
    assert said.code == 0
    assert "a.png has changed since its result was kept; it is done again" in said.err.splitlines()[0]
    anew, same = kept.read_text().splitlines()
    assert said.out.splitlines() == [anew, same] and same == second
    assert json.loads(anew)["size"] == [64, 40] != json.loads(first)["size"]
    image.touch()  # the same content: nothing is done again
    done = here(*call)
    assert done.code == 0
    assert done.out.splitlines() == [anew, same]


def test_one_run_writes_to_a_results_file(tiny_model: Path, image: Path, tmp_path: Path, here: Here) -> None:
    kept = tmp_path / "r.jsonl"
    with exclusive(kept):
        done = here("invert", image, "--model", tiny_model, "-o", kept, *QUICK)
        assert done.code == 3
    assert "another igm is writing to" in one_sentence(done.err)
    assert here("invert", image, "--model", tiny_model, "-o", kept, *QUICK).code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "r.jsonl"]


def test_a_results_file_is_closed_at_its_end(tmp_path: Path) -> None:
    with open_results(tmp_path / "r.jsonl", "igm.invert/1", "0" * 16, ("image",), ()) as store:
        assert store
    with pytest.raises(OSError, match="descriptor"):
        store.add({"image": "a.png"})


def test_a_checkpoint_names_no_code(
    tiny_model: Path,
    image: Path,
    tmp_path: Path,
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "payload.py").write_text("raise SystemExit('ran')\n")
    description = json.loads((model / "igm.json").read_text())
    description["concepts"] = "payload:P"
    (model / "igm.json").write_text(json.dumps(description))
    monkeypatch.syspath_prepend(str(model))
    done = here("invert", image, "--model", model, *QUICK)
    assert done.code == 5 and "'payload:P' is not the name of an installed concept parser" in one_sentence(
        done.err
    )
    assert "payload" not in sys.modules


def test_what_is_cut_off_is_said(tiny_model: Path, tmp_path: Path, here: Here) -> None:
    """Of the first image of which little is looked at; nothing where all is."""
    paths = [tmp_path / "wide.png", tmp_path / "wider.png"]
    for path, width in zip(paths, (800, 900), strict=True):
        Image.new("RGB", (width, 10), (90, 90, 90)).save(path)
    done = here("invert", *paths, "--model", tiny_model, *QUICK)
    assert done.code == 0
    told = done.err
    assert told.count("only its middle is used") == 1 and "wide.png: only its middle" in told
    done = here("invert", *paths, "--model", tiny_model, "--fit", "squash", *QUICK)
    assert done.code == 0
    assert "only its middle" not in done.err


def test_an_image_is_decoded_once(
    here: Here, tiny_model: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from igm_cli import inputs

    decoded: list[str] = []
    real = inputs.decode_image

    def count(data: bytes, name: str, *how: object) -> Image.Image:
        decoded.append(name)
        return real(data, name, *how)

    monkeypatch.setattr(inputs, "decode_image", count)
    assert here("invert", image, "--model", tiny_model, "--overlay", tmp_path / "o.png", *QUICK).code == 0
    assert decoded == [str(image)]
