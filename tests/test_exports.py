"""``igm invert --csv`` and ``--coco``: what is in the files, that they are never somebody else's, and ``--labels``."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codebook_files import write_problems
from conftest import ROOT, Here
from PIL import Image
from test_cli import one_sentence

from igm_cli.commands.exports import coco_text, is_own_coco, is_own_table, items_csv
from igm_cli.core.decomposition.problems import random_problems
from igm_cli.interrupts import Interrupted
from igm_cli.plugins import registry
from igm_cli.plugins.overlays import Mark, draw_marks
from igm_cli.plugins.positions import Positions
from igm_cli.session import ImageSession

QUICK = ("--draws", "2", "--device", "cpu")
PLACE = ["x_px", "y_px", "x", "y", "confidence"]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def record(image: str, *items: dict[str, Any], size: Sequence[int] = (64, 48)) -> dict[str, Any]:
    return {"image": image, "size": list(size), "items": list(items)}


def item(x: float, y: float, confidence: float | None = 0.75, **more: Any) -> dict[str, Any]:
    return {"x": x / 64, "y": y / 48, "x_px": x, "y_px": y, "confidence": confidence, **more}


RED = item(12.5, 7.25, values={"color": "red", "shape": "cube"})
BLUE = item(60, 3, None, values={"color": "blue", "shape": "cube"})


@pytest.fixture
def photos(pictures: Path, tmp_path: Path) -> Path:
    """Images of one name in two folders, and a third."""
    for name, number in (("photos/a/1.png", 0), ("photos/b/1.png", 1), ("photos/2.png", 2)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / f"{number}.png", tmp_path / name)
    return tmp_path / "photos"


def test_a_row_for_every_object() -> None:
    text = items_csv([record('a, "b".png', RED, BLUE), record("empty.png"), record("c.png", RED)], ["image"])
    rows = rows_of(text)
    assert list(rows[0]) == ["image", "number", *PLACE, "color", "shape", "written_by"]
    assert [(row["image"], row["number"], row["color"]) for row in rows] == [
        ('a, "b".png', "1", "red"),
        ('a, "b".png', "2", "blue"),
        ("c.png", "1", "red"),
    ]
    assert (rows[0]["x_px"], rows[0]["y_px"], rows[0]["confidence"]) == ("12.5", "7.25", "0.75")
    assert rows[1]["confidence"] == ""
    header = items_csv([record("empty.png")], ["image"], {"x": 0.5, "y": 0.5, "x_px": 1, "y_px": 1})
    assert header == f"image,number,{','.join(PLACE)},written_by\n"
    assert is_own_table(text) and is_own_table(header)


def test_fields_of_other_items() -> None:
    odd = {"x": 1, "seen": [1, 2], "values": {"x": "left", "size": "small"}}
    (row,) = rows_of(items_csv([record("a.png", odd)], ["image"]))
    assert (row["x"], row["seen"], row["values.x"], row["size"]) == ("1", "[1, 2]", "left", "small")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("12.5", "12.6", 1),
        lambda text: text.replace("number", "judged", 1),
        lambda text: "".join(text.splitlines(keepends=True)[:-1]),
        lambda text: text + "remember,the,milk\n",
        lambda text: "\n".join(f"{line},mine" for line in text.splitlines()),
        lambda text: "a,number,written_by\n1,2,igm-0000000000000000\n",
        lambda text: '"',
        lambda text: "\n",
    ],
)
def test_a_changed_table_is_nobodys_but_the_users(change: Any) -> None:
    text = items_csv([record("a.png", RED, BLUE)], ["image"])
    assert is_own_table(text) and not is_own_table(change(text))


def test_coco_is_what_tools_read() -> None:
    data = json.loads(coco_text([record("p/a/1.png", RED, BLUE), record("p/b/1.png", size=(9, 5))]))
    assert data["images"] == [
        {"id": 1, "file_name": "a/1.png", "width": 64, "height": 48},
        {"id": 2, "file_name": "b/1.png", "width": 9, "height": 5},
    ]
    (category,) = data["categories"]
    assert (category["name"], category["keypoints"], category["skeleton"]) == ("object", ["centre"], [])
    first, second = data["annotations"]
    assert first == {
        "id": 1, "image_id": 1, "category_id": 1, "keypoints": [12.5, 7.25, 2], "num_keypoints": 1, "iscrowd": 0,
        "attributes": {"color": "red", "shape": "cube"}, "score": 0.75,
    }  # fmt: skip
    assert second["id"] == 2 and "score" not in second
    assert coco_text([]) and json.loads(coco_text([record("a.png")]))["categories"]


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        (({"label": "dog"}, {"label": "cat"}), ["dog", "cat"]),
        (({"values": {"kind": "rbc"}}, {"values": {"kind": "platelet"}}), ["rbc", "platelet"]),
        (({"values": {"size": "big", "label": "wbc"}}, {}), ["wbc", "object"]),
    ],
)
def test_categories(said: Sequence[dict[str, Any]], kinds: list[str]) -> None:
    data = json.loads(coco_text([record("a.png", *(item(1, 1, **each) for each in said))]))
    names = {each["id"]: each["name"] for each in data["categories"]}
    assert list(names) == [1, 2] and list(names.values()) == sorted(kinds)
    assert [names[each["category_id"]] for each in data["annotations"]] == kinds


def test_a_changed_coco_file_is_nobodys_but_the_users() -> None:
    text = coco_text([record("a.png", RED)])
    assert is_own_coco(text) and is_own_coco(json.dumps(json.loads(text), indent=2))
    assert not is_own_coco(text.replace("12.5", "12.75"))
    assert not any(map(is_own_coco, ("[]", "{}", "{", '{"info": 3}', '{"info": {"written_by": "igm"}}')))


def test_both_are_read_back_to_the_same_points(here: Here, tiny_model: Path, photos: Path) -> None:
    """Write with the command, read with the dataset of annotated images."""
    pytest.importorskip("datasets")
    table, coco = photos / "found.csv", photos / "found.json"
    call = ("invert", photos, "--model", tiny_model, "--k", 2, *QUICK, "-o", photos.parent / "r.jsonl")
    assert here(*call, "--csv", table, "--coco", coco).code == 0
    records = [json.loads(line) for line in (photos.parent / "r.jsonl").read_text().splitlines()]
    wanted = {
        str(Path(line["image"]).relative_to(photos)): [[i["x_px"], i["y_px"]] for i in line["items"]]
        for line in records
    }
    assert sorted(wanted) == ["2.png", "a/1.png", "b/1.png"]
    for layout in ("coco", "table"):
        notes: list[str] = []
        read = registry.dataset("objects").load(
            "train", data_root=photos, note=notes.append, format=layout, shares="100/0/0"
        )
        found = {row["file"]: [each["pixel_coords"] for each in row["objects"]] for row in read}
        assert found == wanted and notes == []
    labels = {each["label"] for row in read for each in row["objects"]}
    assert labels == {""}


def test_files_are_right_when_a_run_goes_on(here: Here, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    call = ("invert", photos, "--model", tiny_model, "--k", 1, *QUICK, "-o", tmp_path / "r.jsonl")
    assert here(*call).code == 0
    whole = (tmp_path / "r.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "r.jsonl").write_text(whole[1])  # the second image is finished
    for _ in range(2):  # what igm wrote is written anew
        assert here(*call, "--csv", tmp_path / "f.csv", "--coco", tmp_path / "f.json").code == 0
        rows = rows_of((tmp_path / "f.csv").read_text())
        order = [json.loads(line)["image"] for line in whole]
        assert [row["image"] for row in rows] == order
        points = [json.loads(line)["items"][0] for line in whole]
        assert [(float(row["x_px"]), float(row["y_px"])) for row in rows] == [
            (p["x_px"], p["y_px"]) for p in points
        ]
        data = json.loads((tmp_path / "f.json").read_text())
        assert [each["file_name"] for each in data["images"]] == ["2.png", "a/1.png", "b/1.png"]
        assert [each["keypoints"][0] for each in data["annotations"]] == [p["x_px"] for p in points]
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_bad_image_is_left_out(here: Here, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "0.png").write_bytes(b"no image")
    assert here("invert", photos, "--model", tiny_model, *QUICK, "--coco", tmp_path / "f.json").code == 3
    data = json.loads((tmp_path / "f.json").read_text())
    assert [each["file_name"] for each in data["images"]] == ["2.png", "a/1.png", "b/1.png"]


@pytest.mark.parametrize(
    ("name", "option", "content"),
    [
        ("notes.csv", "--csv", b"image,number,x_px\n1,2,3\n"),
        ("notes.csv", "--csv", b"\x89PNG\r\n\x1a\n\x00"),
        ("annotations.json", "--coco", b'{"images": [], "annotations": [], "categories": []}'),
    ],
)
def test_a_foreign_file_is_left_alone(
    name: str,
    option: str,
    content: bytes,
    tiny_model: Path,
    photos: Path,
    tmp_path: Path,
    here: Here,
) -> None:
    (kept := tmp_path / name).write_bytes(content)
    done = here("invert", photos, "--model", tiny_model, *QUICK, option, kept)
    assert done.code == 2 and f"{option} would overwrite {kept}, which igm did not write" in one_sentence(
        done.err
    )
    assert kept.read_bytes() == content


def test_refused(tiny_model: Path, photos: Path, tmp_path: Path, here: Here) -> None:
    image, model = photos / "2.png", ("--model", tiny_model, *QUICK)
    (blocked := tmp_path / "file").write_text("in the way")
    same = tmp_path / "same"
    before = image.read_bytes()
    for options, code, words in (
        (("--csv", image), 2, "--csv would overwrite"),
        (("--csv", photos), 3, "is a folder; name a file in it"),
        (("--coco", blocked / "f.json"), 3, "cannot write"),
        (("--csv", same, "--coco", same), 2, "--csv and --coco would write the same file"),
        (("--csv", same, "-o", tmp_path / "." / "same"), 2, "--csv and --output would write the same file"),
        (("--overlay", same / "o.png", "--csv", same / "o.png"), 2, "would write the same file"),
        (("--labels",), 2, "--labels is about the picture of --overlay"),
        (("--csv", "-"), 2, "--csv writes a file, and - is none"),
        (("--labels", "--overlay", same), 2, "concepts pos have nothing to write beside objects"),
    ):
        done = here("invert", image, *model, *options)
        assert done.code == code and words in one_sentence(done.err)
    assert image.read_bytes() == before and not same.is_file()


def test_what_cannot_be_written_is_said_before_anything_is_computed(
    tiny_model: Path, photos: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(**_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "mkstemp", deny)
    monkeypatch.setattr(ImageSession, "inverted", lambda *_: pytest.fail("it was computed"))
    for option in ("--csv", "--coco", "--overlay", "--map"):
        file = tmp_path / "new" / "f.png"
        done = here("invert", photos / "2.png", "--model", tiny_model, *QUICK, option, file)
        assert done.code == 3 and not file.parent.exists()
        assert one_sentence(done.err) == f"igm: cannot write {file} (permission denied); choose another path"


def test_attributes(tiny_attributes: Path, pictures: Path, tmp_path: Path, here: Here) -> None:
    call = ("invert", pictures, "--model", tiny_attributes, "--device", "cpu")
    assert here(*call, "--csv", tmp_path / "f.csv").code == 0
    rows = rows_of((tmp_path / "f.csv").read_text())
    assert list(rows[0]) == ["image", "number", "factor", "value", "confidence", "written_by"]
    assert [row["factor"] for row in rows] == 3 * ["Smiling", "hair"]
    done = here(*call, "--coco", tmp_path / "f.json")
    assert done.code == 2
    assert (
        "--coco needs items with x_px and y_px, and those of the concepts attributes have none"
        in one_sentence(done.err)
    )


def test_vectors(tmp_path: Path, here: Here) -> None:
    books, vectors = tmp_path / "books.safetensors", tmp_path / "v.npy"
    problems = random_problems(4, 2, 64, 2, seed=0)
    write_problems(books, problems)
    np.save(vectors, problems.vectors.numpy())
    call = ("decompose", vectors, "--codebooks", books, "--device", "cpu")
    assert here(*call, "--csv", tmp_path / "f.csv").code == 0
    rows = rows_of((tmp_path / "f.csv").read_text())
    count = len(problems.vectors)
    assert [(row["vector"], row["factor"]) for row in rows] == [
        (str(v), f) for v in range(count) for f in ("0", "1")
    ]
    assert {row["input"] for row in rows} == {str(vectors)}


def test_what_images_share(here: Here, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    call = ("invert", photos, "--model", tiny_model, "--shared", "--k", 1, *QUICK)
    assert here(*call, "--csv", tmp_path / "f.csv", "--coco", tmp_path / "f.json").code == 0
    rows = rows_of((tmp_path / "f.csv").read_text())
    assert [(Path(row["image"]).name, row["number"]) for row in rows] == [
        (n, "1") for n in ("2.png", "1.png", "1.png")
    ]
    assert len(json.loads((tmp_path / "f.json").read_text())["annotations"]) == 3


def test_labels_are_written_beside_objects(
    here: Here, tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parser that has more to say of objects says it with --labels, also where pictures are there without."""

    class Named(Positions):
        def decode(self, concepts: torch.Tensor, frame: Any) -> list[dict[str, Any]]:
            return [{**found, "values": {"color": "red"}} for found in super().decode(concepts, frame)]

        def draw_labels(self, image: Image.Image, items: Sequence[Any]) -> Image.Image:
            return draw_marks(
                image, [Mark(i["x"], i["y"], None, " ".join(i["values"].values())) for i in items]
            )

    monkeypatch.setattr("igm_cli.plugins.registry.concept_parser", lambda name, **how: Named())
    call = ("invert", photos, "--model", tiny_model, "--k", 1, *QUICK)
    kept = ("-o", tmp_path / "r.jsonl", "--overlay", tmp_path / "drawn", "--csv", tmp_path / "f.csv")
    assert here(*call, *kept).code == 0
    before = (tmp_path / "drawn" / "2.png").read_bytes()
    assert here(*call, *kept, "--labels").code == 0
    after = (tmp_path / "drawn" / "2.png").read_bytes()
    assert after != before
    assert here(*call, "--overlay", tmp_path / "anew", "--labels").code == 0
    assert (tmp_path / "anew" / "2.png").read_bytes() == after
    assert {row["color"] for row in rows_of((tmp_path / "f.csv").read_text())} == {"red"}


def test_the_bundled_model_of_places_has_an_example(tmp_path: Path) -> None:
    """Columns are there even if nothing is found."""
    from igm_cli.model import open_checkpoint
    from igm_cli.session import ImageSession

    opened = open_checkpoint(str(ROOT / "igm_cli" / "checkpoints" / "clevr-pos"), None, "cpu")
    session = ImageSession(opened, k=None, fit="crop", batch_size=None, given={})
    assert list(session.example()) == ["x", "y", "x_px", "y_px"]


def test_an_interruption_says_when_the_tables_come(
    tiny_model: Path, photos: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(ImageSession, "invert", interrupted)
    call = ("invert", photos, "--model", tiny_model, *QUICK, "--csv", tmp_path / "a.csv")
    for more, goes_on in (
        ((), "with --output the same command continues where it stopped"),
        (("-o", tmp_path / "a.jsonl"), "the same command continues with the images that are not done"),
    ):
        done = here(*call, *more)
        says = f"igm: interrupted; tables are written when all is done; {goes_on}\n"
        assert (done.code, done.err) == (130, says)


def test_an_interruption_says_where_the_same_command_continues(
    tiny_model: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr("igm_cli.commands.benchmark_run._run", interrupted)
    monkeypatch.setattr("igm_cli.generation.Generation.images", interrupted)
    for words, folder in (
        (("benchmark", "decomposition"), Path("runs/benchmark-decomposition")),
        (("generate", "pos(0.3,0.5)", "--model", tiny_model, "--device", "cpu"), Path("generated")),
    ):
        done = here(*words, cwd=tmp_path)
        assert (done.code, done.err) == (143, f"igm: interrupted; the same command continues in {folder}\n")
    monkeypatch.setattr("igm_cli.commands.plugins.plugins", lambda: interrupted())
    assert here("plugins").err == "igm: interrupted; the same command starts again\n"
