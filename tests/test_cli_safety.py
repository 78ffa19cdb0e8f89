"""Nothing that is not igm's own is written over, and nothing found on disk chooses code to run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from codebook_files import write_problems
from PIL import Image
from test_cli import one_sentence

from igm_cli import app
from igm_cli.commands.drawings import picture_targets
from igm_cli.commands.results import open_results
from igm_cli.core.decomposition.problems import random_problems
from igm_cli.core.files import exclusive
from igm_cli.errors import UsageError
from igm_cli.folders import Source

QUICK = ("--draws", "2", "--device", "cpu")


def igm(*arguments: object) -> int:
    """Runs igm in this process."""
    return app.main([str(argument) for argument in arguments])


@pytest.fixture
def image(pictures: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(pictures / "0.png", tmp_path / "a.png"))


@pytest.mark.parametrize("name", ["a.png", "./a.png", "link.png"])
def test_an_input_is_no_output(
    tiny_model: Path,
    image: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    before = image.read_bytes()
    monkeypatch.chdir(image.parent)
    Path("link.png").symlink_to("a.png")
    assert igm("invert", image, "--model", tiny_model, "-o", name, *QUICK) == 2
    assert "--output would overwrite" in one_sentence(capsys.readouterr().err)
    assert image.read_bytes() == before


def test_vectors_and_codebooks_are_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    books, vectors = tmp_path / "books.safetensors", tmp_path / "v.npy"
    problems = random_problems(4, 2, 64, 2, seed=0)
    write_problems(books, problems)
    np.save(vectors, problems.vectors.numpy())
    for target in (books, vectors):
        before = target.read_bytes()
        assert igm("decompose", vectors, "--codebooks", books, "-o", target, "--device", "cpu") == 2
        assert "would overwrite" in one_sentence(capsys.readouterr().err)
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
    tiny_model: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_bytes(content)
    assert igm("invert", image, "--model", tiny_model, "-o", kept, *QUICK) == 3
    assert "not results of igm" in one_sentence(capsys.readouterr().err)
    assert kept.read_bytes() == content


def test_a_foreign_tail_is_left_alone(
    tiny_model: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "r.jsonl"
    assert igm("invert", image, "--model", tiny_model, "-o", kept, *QUICK) == 0
    whole = kept.read_text()
    kept.write_text(whole + "remember the milk")
    assert igm("invert", image, "--model", tiny_model, "-o", kept, *QUICK) == 3
    assert kept.read_text() == whole + "remember the milk"
    kept.write_text(whole + whole[:40])  # a line of ours that was cut short
    assert igm("invert", image, "--model", tiny_model, "-o", kept, *QUICK) == 0
    assert kept.read_text() == whole
    (empty := tmp_path / "empty.jsonl").touch()
    assert igm("invert", image, "--model", tiny_model, "-o", empty, *QUICK) == 0


def test_a_picture_that_igm_did_not_draw_is_left_alone(
    tiny_model: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ("invert", image, "--model", tiny_model, *QUICK, "--overlay")
    for name in ("own.png", "own.jpg", "own.webp", "own.tif"):
        for _ in range(2):  # what igm drew is drawn anew
            assert igm(*call, tmp_path / name) == 0, name
    capsys.readouterr()
    for name in ("own.bmp", "own.gif"):  # which cannot say that igm drew them
        assert igm(*call, tmp_path / name) == 2
        assert f"cannot write {name[3:]} files; use .png" in one_sentence(capsys.readouterr().err)
    holiday = tmp_path / "holiday.png"
    Image.new("RGB", (50, 50), (9, 9, 9)).save(holiday)
    before = holiday.read_bytes()
    capsys.readouterr()
    assert igm(*call, holiday) == 2
    assert "holiday.png, which igm did not draw" in one_sentence(capsys.readouterr().err)
    (tmp_path / "drawn").mkdir()
    holiday.rename(tmp_path / "drawn" / "a.png")
    assert igm(*call, tmp_path / "drawn") == 2
    assert (tmp_path / "drawn" / "a.png").read_bytes() == before
    (tmp_path / "own.jsonl").write_text("mine")
    capsys.readouterr()
    for images in ([image], [image, tmp_path / "own.png"]):
        assert igm("invert", *images, "--model", tiny_model, *QUICK, "--overlay", tmp_path / "own.jsonl") == 2
        assert "own.jsonl is a file that is no picture; name a folder" in one_sentence(capsys.readouterr().err)
    assert igm("invert", image, "--model", tiny_model, *QUICK, "--output", tmp_path / "found.csv") == 2
    assert "found.csv is named as a table; name a .jsonl file" in one_sentence(capsys.readouterr().err)


def test_results_of_other_inputs_in_the_file_are_counted(
    tiny_model: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, kept = shutil.copy(image, tmp_path / "other.png"), tmp_path / "kept.jsonl"
    call = ("--model", tiny_model, "--device", "cpu", "--draws", 2, "--output", kept)
    assert igm("invert", image, other, *call) == 0
    assert f"kept: {kept}, 2 results\n" in capsys.readouterr().out.replace("\n ", " ")
    assert igm("invert", other, *call) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"kept: {kept}, 2 results, 1 of inputs that this call did not name" in said


def test_a_picture_of_another_result_is_drawn_anew(
    tiny_model: Path, tiny_attributes: Path, image: Path, tmp_path: Path
) -> None:
    drawn = []
    for model in (tiny_model, tiny_attributes, tiny_model):
        kept = ("-o", tmp_path / f"{model.name}.jsonl", "--overlay", tmp_path / "found.png")
        assert igm("invert", image, "--model", model, *QUICK, *kept) == 0
        drawn.append((tmp_path / "found.png").read_bytes())
    assert drawn[0] == drawn[2] != drawn[1]


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
    tiny_model: Path, image: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "r.jsonl"
    other = Path(shutil.copy(pictures / "2.png", tmp_path / "b.png"))
    call = ("invert", image, other, "--model", tiny_model, "--json", "-o", kept, *QUICK)
    assert igm(*call) == 0
    first, second = kept.read_text().splitlines()
    capsys.readouterr()
    shutil.copy(pictures / "1.png", image)
    assert igm(*call) == 0
    said = capsys.readouterr()
    assert "a.png has changed since its result was kept; it is done again" in said.err.splitlines()[0]
    anew, same = kept.read_text().splitlines()
    assert said.out.splitlines() == [anew, same] and same == second
    assert json.loads(anew)["size"] == [64, 40] != json.loads(first)["size"]
    image.touch()  # the same content: nothing is done again
    assert igm(*call) == 0
    assert capsys.readouterr().out.splitlines() == [anew, same]


def test_one_run_writes_to_a_results_file(
    tiny_model: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "r.jsonl"
    with exclusive(kept):
        assert igm("invert", image, "--model", tiny_model, "-o", kept, *QUICK) == 3
    assert "another igm is writing to" in one_sentence(capsys.readouterr().err)
    assert igm("invert", image, "--model", tiny_model, "-o", kept, *QUICK) == 0
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
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "payload.py").write_text("raise SystemExit('ran')\n")
    description = json.loads((model / "igm.json").read_text())
    description["concepts"] = "payload:P"
    (model / "igm.json").write_text(json.dumps(description))
    monkeypatch.syspath_prepend(str(model))
    assert igm("invert", image, "--model", model, *QUICK) == 5
    assert "'payload:P' is not the name of an installed concept parser" in one_sentence(capsys.readouterr().err)
    assert "payload" not in sys.modules


def test_what_is_cut_off_is_said(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the first image of which little is looked at; nothing where all is."""
    paths = [tmp_path / "wide.png", tmp_path / "wider.png"]
    for path, width in zip(paths, (800, 900), strict=True):
        Image.new("RGB", (width, 10), (90, 90, 90)).save(path)
    assert igm("invert", *paths, "--model", tiny_model, *QUICK) == 0
    told = capsys.readouterr().err
    assert told.count("only its middle is used") == 1 and "wide.png: only its middle" in told
    assert igm("invert", *paths, "--model", tiny_model, "--fit", "squash", *QUICK) == 0
    assert "only its middle" not in capsys.readouterr().err


def test_an_image_is_decoded_once(
    tiny_model: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from igm_cli import inputs

    decoded: list[str] = []
    real = inputs.decode_image

    def count(data: bytes, name: str, *how: object) -> Image.Image:
        decoded.append(name)
        return real(data, name, *how)

    monkeypatch.setattr(inputs, "decode_image", count)
    assert igm("invert", image, "--model", tiny_model, "--overlay", tmp_path / "o.png", *QUICK) == 0
    assert decoded == [str(image)]
