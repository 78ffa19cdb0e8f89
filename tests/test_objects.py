"""Folders of annotated images: every format says the same, splits stay, and what is amiss is told in a sentence."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from igm_cli.errors import InputError, MissingError, UsageError
from igm_cli.plugins.base import DatasetAdapter, Frame
from igm_cli.plugins.objects.adapter import Objects
from igm_cli.plugins.objects.annotations import outlined
from igm_cli.plugins.objects.yolo import to_object
from igm_cli.plugins.positions import Positions

ADAPTER: DatasetAdapter = Objects()
Box = tuple[float, float, float, float, str]
"""Left, top, right, bottom, label."""

WIDTH, HEIGHT = 80, 40
BOXES: Mapping[str, Sequence[Box]] = {
    "a": [(10, 10, 30, 20, "red"), (40, 4, 50, 24, "white")],
    "b": [(0, 0, 8, 8, "white")],
    "c.d": [(60, 20, 80, 40, "red"), (10, 20, 20, 30, "red"), (30, 30, 32, 34, "white")],
}
NAMES = ("red", "white")
OPEN = {"shares": "1/0/0"}
"""Everything is for training."""


def image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 90, 90)).save(path)


def write(path: Path, text: str | bytes | object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")


def coco_of(boxes: Mapping[str, Sequence[Box]], folder: str = "") -> dict[str, Any]:
    rows = [(number, box) for number, found in enumerate(boxes.values()) for box in found]
    return {
        "images": [
            {"id": number, "file_name": f"{folder}{stem}.png", "width": WIDTH, "height": HEIGHT}
            for number, stem in enumerate(boxes)
        ],
        "categories": [{"id": 7 + number, "name": name} for number, name in enumerate(NAMES)],
        "annotations": [
            {"id": i, "image_id": n, "category_id": 7 + NAMES.index(name), "bbox": [x, y, u - x, v - y]}
            for i, (n, (x, y, u, v, name)) in enumerate(rows)
        ],
    }


def voc_of(boxes: Sequence[Box], file: str = "") -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{u}</xmax><ymax>{v}</ymax></bndbox>"
        "</object>"
        for x, y, u, v, name in boxes
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    return f"<annotation><filename>{file}</filename>{size}{objects}</annotation>"


def yolo_of(boxes: Sequence[Box]) -> str:
    return "".join(
        f"{NAMES.index(name)} {(x + u) / 2 / WIDTH} {(y + v) / 2 / HEIGHT} {(u - x) / WIDTH} {(v - y) / HEIGHT}\n"
        for x, y, u, v, name in boxes
    )


def outline_of(boxes: Sequence[Box]) -> str:
    return "".join(
        f"{NAMES.index(name)} {x / WIDTH} {y / HEIGHT} {u / WIDTH} {y / HEIGHT} {u / WIDTH} {v / HEIGHT} {x / WIDTH} {v / HEIGHT}\n"
        for x, y, u, v, name in boxes
    )


def points_of(boxes: Sequence[Box], names: bool = True) -> str:
    return "".join(
        f"{(x + u) / 2} {(y + v) / 2} {name if names else NAMES.index(name)}\n" for x, y, u, v, name in boxes
    )


def labelme_of(boxes: Sequence[Box], file: str = "") -> dict[str, Any]:
    shapes = [{"label": n, "shape_type": "rectangle", "points": [[u, y], [x, v]]} for x, y, u, v, n in boxes]
    return {"shapes": shapes, "imagePath": file, "imageWidth": WIDTH, "imageHeight": HEIGHT, "imageData": None}


def coco(root: Path) -> None:
    write(root / "notes.json", coco_of(BOXES, "/elsewhere/data/"))


def voc(root: Path) -> None:
    for stem, boxes in BOXES.items():
        write(root / "Annotations" / f"{stem}.xml", voc_of(boxes, "stale.jpg"))


def yolo(root: Path) -> None:
    write(
        root / "data.yaml",
        f"path: .  # here\ntrain: images\nnames:\n  0: {NAMES[0]}\n  1: '{NAMES[1]}'\nnc: 2\n",
    )
    for stem, boxes in BOXES.items():
        write(root / "labels" / f"{stem}.txt", yolo_of(boxes))


def yolo_outlines(root: Path) -> None:
    write(root / "classes.txt", "red\nwhite\n")
    for stem, boxes in BOXES.items():
        write(root / "labels" / f"{stem}.txt", outline_of(boxes))


def points(root: Path) -> None:
    for stem, boxes in BOXES.items():
        write(root / "Label" / f"{stem}.txt", points_of(boxes))


def numbered_points(root: Path) -> None:
    write(root / "Label" / "classes.txt", "red\nwhite")
    for stem, boxes in BOXES.items():
        write(root / "Label" / f"{stem}.txt", points_of(boxes, names=False).replace(" ", ", "))


def table(root: Path) -> None:
    rows = [(stem, box) for stem, boxes in BOXES.items() for box in boxes]
    lines = "".join(f"{stem}.png\t{(x + u) / 2}\t{(y + v) / 2}\t{n}\n" for stem, (x, y, u, v, n) in rows)
    write(root / "cells.tsv", "File\tX\tY\tLabel\n" + lines)


def lines_of_json(root: Path) -> None:
    rows = [
        {"file_name": f"{stem}.png", "x": (x + u) / 2, "y": (y + v) / 2, "category": name}
        for stem, boxes in BOXES.items()
        for x, y, u, v, name in boxes
    ]
    write(root / "cells.jsonl", "\n".join(map(json.dumps, rows)))


def labelme(root: Path) -> None:
    for stem, boxes in BOXES.items():
        write(root / "images" / f"{stem}.json", labelme_of(boxes, f"..\\images\\{stem}.png"))


LINES_IN_JSON = """{"file": "a.png", "x": 3, "y": 4}
{"file": "a.png", "x": 3, "y": "abc"}
{"file": "a.png", "x": 3,
{"file": "a.png", "x": 5, "y": 6}
{"file": "b.png", "x": "?", "y": 7}
"""

FORMATS: Mapping[str, tuple[Callable[[Path], None], bool]] = {
    "coco": (coco, True), "voc": (voc, True), "yolo": (yolo, True), "yolo-outlines": (yolo_outlines, True),
    "points": (points, False), "points-numbered": (numbered_points, False), "table": (table, False),
    "table-json": (lines_of_json, False), "labelme": (labelme, True),
}  # fmt: skip
"""Writers, and whether the format has boxes."""


def read(root: Path, split: str = "train", **options: Any) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """The objects of every image, and what is told."""
    notes: list[str] = []
    data = ADAPTER.load(split, data_root=root, note=notes.append, **options)  # type: ignore[call-arg]
    assert data.column_names == ["image", "file", "width", "height", "objects", "ignored"]
    return dict(zip(data["file"][:], data["objects"][:], strict=True)), notes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of images alone."""
    for stem in BOXES:
        image(tmp_path / "images" / f"{stem}.png")
    return tmp_path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_the_same(root: Path, name: str) -> None:
    writer, boxes = FORMATS[name]
    writer(root)
    found, notes = read(root, **OPEN)
    assert list(found) == [f"images/{stem}.png" for stem in BOXES] and not notes
    for stem, wanted in BOXES.items():
        for each, (x, y, u, v, label) in zip(found[f"images/{stem}.png"], wanted, strict=True):
            assert each["pixel_coords"] == pytest.approx([(x + u) / 2, (y + v) / 2])
            assert each["label"] == label and each["attributes"] == {}
            assert each["box"] == (pytest.approx([u - x, v - y]) if boxes else None)
    assert read(root, format=name.partition("-")[0], **OPEN)[0] == found
    assert ADAPTER.load("train", data_root=root, limit=2, **OPEN)[1]["image"].size == (WIDTH, HEIGHT)


def test_the_parser_of_positions_takes_them(root: Path) -> None:
    coco(root)
    row = ADAPTER.load("train", data_root=root, **OPEN)[0]
    concepts = Positions().parse(row, Frame.fit(row["image"].size, WIDTH / HEIGHT))
    assert concepts.flatten().tolist() == pytest.approx([0.25, 0.375, 0.5625, 0.35])


SIDE = st.floats(0.01, 0.5)


@given(st.floats(0, 1), st.floats(0, 1), SIDE, SIDE, st.integers(0, 3))
def test_boxes_and_outlines_have_their_centres(
    x: float, y: float, width: float, height: float, turn: int
) -> None:
    found = to_object("", [repr(n) for n in (x, y, width, height)])
    assert (found.x, found.y, *(found.box or ())) == pytest.approx((x, y, width, height))
    left, top = x - width / 2, y - height / 2
    corners = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    corners = corners[turn:] + corners[:turn]
    for shape in (corners, corners[::-1]):
        outline = outlined(shape)
        assert (outline.x, outline.y, *(outline.box or ())) == pytest.approx((x, y, width, height), abs=1e-6)


def test_centres_of_other_shapes(root: Path) -> None:
    shapes = [
        {"label": "p", "shape_type": "point", "points": [[5, 6]]},
        {"label": "c", "shape_type": "circle", "points": [[30, 20], [33, 24]]},
        {"label": "t", "points": [[0, 0], [30, 0], [0, 30]]},
        {"label": "l", "shape_type": "line", "points": [[0, 0], [30, 0]]},
    ]
    write(root / "images/b.json", {"shapes": [shapes[0], {"label": "q", "points": [[0, 0], [30, 0]]}]})
    write(root / "images/a.json", {"shapes": shapes, "imageWidth": WIDTH, "imageHeight": HEIGHT})
    found, notes = read(root, **OPEN)
    places = [(o["label"], *o["pixel_coords"], o["box"]) for o in found["images/a.png"]]
    assert places == [("p", 5, 6, None), ("c", 30, 20, [10, 10]), ("t", 10, 10, [30, 30])]
    assert any("a line is none of point, circle, rectangle, polygon" in note for note in notes)
    says = "images/b.json: a polygon of 2 points has no area, and is left out; it needs three"
    assert says in notes and len(found["images/b.png"]) == 1


@pytest.mark.parametrize(
    ("counts", "size", "place", "box"),
    [
        ("1230N", [3, 3], [1.5, 1.5], [3, 3]),  # column 0 from row 1 on, and column 2 up to row 1
        ([1, 2, 3, 2, 1], [3, 3], [1.5, 1.5], [3, 3]),
        ([4, 5], [3, 3], [2.1, 1.7], [2, 3]),
        ([0, 9.0], [3, 3], [1.5, 1.5], [3, 3]),
        ("T3:n00\\n2", [40, 80], [3, 25], [2, 10]),
        ([9], [3, 3], None, None),
    ],
)
def test_centroids_of_masks(root: Path, counts: Any, size: list[int], place: Any, box: Any) -> None:
    data = coco_of({"a": []})
    data["annotations"] = [{"image_id": 0, "segmentation": {"counts": counts, "size": size}, "bbox": []}]
    write(root / "x.json", data)
    found, notes = read(root, **OPEN)
    (objects,) = found.values()
    if place is None:
        assert not objects and "images/a.png: 1 object of 1 has no area, left out" in notes
    else:
        assert objects[0]["pixel_coords"] == pytest.approx(place) and objects[0]["box"] == box


def test_a_folder_of_crowds_alone_says_so(root: Path) -> None:
    data = coco_of(BOXES)
    for row in data["annotations"]:
        row["iscrowd"] = 1
    write(root / "x.json", data)
    with pytest.raises(InputError, match="regions to ignore and no object; set iscrowd to 0 where"):
        ADAPTER.advise(ADAPTER.load("train", data_root=root, **OPEN), {})  # type: ignore[attr-defined]


def test_ids_of_coco_may_be_text_in_one_place(root: Path) -> None:
    data = coco_of(BOXES)
    for row in data["images"]:
        row["id"] = str(row["id"])
    for row in data["annotations"]:
        row["category_id"] = float(row["category_id"])
    write(root / "x.json", data)
    found, notes = read(root, **OPEN)
    assert [[each["label"] for each in objects] for objects in found.values()] == [
        [label for *_, label in boxes] for boxes in BOXES.values()
    ]
    assert not notes


def test_a_file_of_categories_alone_is_no_annotation(root: Path) -> None:
    """Label Studio writes one beside its annotations in YOLO."""
    yolo_outlines(root)
    write(root / "notes.json", {"categories": [{"id": 0, "name": "red"}], "info": {"year": 2024}})
    assert list(read(root, **OPEN)[0]) == [f"images/{stem}.png" for stem in BOXES]


def test_keypoints_masks_and_crowds(root: Path) -> None:
    data = coco_of({"a": []})
    data["annotations"] = [
        {"image_id": 0, "category_id": 7, "keypoints": [10, 10, 2, 0, 0, 0, 20, 30, 1], "bbox": [0, 0, 9, 9]},
        {"image_id": 0, "category_id": 7, "keypoints": [0, 0, 0], "bbox": [10, 10, 4, 4]},
        {"image_id": 0, "category_id": 8, "segmentation": [[0, 0, 30, 0, 0, 30]]},
        {"image_id": 0, "segmentation": {"counts": "x", "size": [1, 1]}, "bbox": [2, 2, 2, 2]},
        {"image_id": 0, "category_id": 7, "bbox": [0, 0, 60, 30], "iscrowd": 1},
    ]
    data["annotations"][1]["attributes"] = {"round": True}
    write(root / "x.json", data)
    found, notes = read(root, **OPEN)
    (objects,) = found.values()
    assert ADAPTER.load("train", data_root=root, **OPEN)[0]["ignored"] == [[0, 0, 60, 30]]
    assert ADAPTER.load("train", data_root=root, labels="white", **OPEN)[0]["ignored"] == []
    says = "x.json: a crowd in a.png (iscrowd: 1) is a region to ignore, which no crop overlaps"
    assert says in notes and notes[-1].endswith(
        "2 images without annotation, 1 crowd taken as a region to ignore"
    )
    assert [o["pixel_coords"] for o in objects] == [[15, 20], [12, 12], [10, 10], [3, 3]]
    assert [o["label"] for o in objects] == ["red", "red", "white", ""]
    assert [o["attributes"]["round"] for o in objects] == ["", "True", "", ""]


@pytest.mark.parametrize(
    ("writer", "file", "old", "new", "says"),
    [
        (coco, "notes.json", "[10, 10, 20, 10]", "[10, 10, 20]", "a bbox has 4 numbers, not 3"),
        (coco, "notes.json", "[10, 10, 20, 10]", "[]", "it has neither a bbox nor a segmentation"),
        (coco, "notes.json", '"bbox": [10, 10, 20, 10]', '"keypoints": [1, 2]', "2 numbers cannot be keypoints, which have 3 each"),
        (labelme, "images/a.json", "[[30, 10], [10, 20]]", "[]", "a rectangle has 0 points and needs 2"),
        (labelme, "images/a.json", "[[30, 10], [10, 20]]", "[[1]]", "1 coordinate cannot be pairs of x and y"),
        (coco, "notes.json", '"bbox": [10, 10, 20, 10]', '"segmentation": {"size": [2, 2], "counts": [1, 2]}',
         "a mask of 2×2 pixels has 3 pixels in its runs"),
        (coco, "notes.json", '"bbox": [10, 10, 20, 10]', '"segmentation": {"size": [2, 2]}', "it lacks 'counts'"),
        (labelme, "images/a.json", '"shapes"', '"forms"', "it lacks 'shapes'"),
        (labelme, "images/a.json", '"points": [[30, 10], [10, 20]]', '"points": 3', "it is not laid out like this format"),
        (voc, "Annotations/a.xml", "bndbox", "box", "the object 'red' has no xmin in a bndbox"),
        (voc, "Annotations/a.xml", "</object>", "", "damaged XML in line 1: mismatched tag"),
        (voc, "Annotations/a.xml", "", "", "it is empty"),
    ],
)  # fmt: skip
def test_what_a_broken_annotation_lacks_is_said(
    root: Path, writer: Callable[[Path], None], file: str, old: str, new: str, says: str
) -> None:
    writer(root)
    write(root / file, (root / file).read_text().replace(old, new) if old else "")
    found, notes = read(root, **OPEN)
    assert list(found) == ["images/b.png", "images/c.d.png"]
    assert notes[0].startswith(f"{file}: ") and notes[0].endswith(f"({says})")


@pytest.mark.parametrize(
    ("key", "says"), [("categories", "categories 'red' and 'white'"), ("images", "images 'a.png' and 'b.png'")]
)
def test_names_of_one_id_are_refused(root: Path, key: str, says: str) -> None:
    data = coco_of(BOXES)
    for row in data[key]:
        row["id"] = 0
    write(root / "x.json", data)
    with pytest.raises(InputError, match=rf"x.json: .*\(the {says} have the same id 0\)"):
        read(root, **OPEN)


@pytest.mark.parametrize("form", ["coco", "table"])
def test_names_of_other_images_stand_in_for_none_that_is_named_itself(tmp_path: Path, form: str) -> None:
    image(tmp_path / "a.png")
    image(tmp_path / "b.png")
    places = {"a.png": 10, "a.jpg": 20, "sub/a.png": 30, "x/b.jpg": 40}
    if form == "table":
        write(tmp_path / "t.csv", "file,x,y\n" + "".join(f"{name},{x},5\n" for name, x in places.items()))
    else:
        data = coco_of({name: [(x - 2, 3, x + 2, 7, "red")] for name, x in places.items()})
        for row, name in zip(data["images"], places, strict=True):
            row["file_name"] = name
        write(tmp_path / "t.json", data)
    found, notes = read(tmp_path, **OPEN)
    assert {name: [o["pixel_coords"][0] for o in objects] for name, objects in found.items()} == {
        "a.png": [10], "b.png": [40],
    }  # fmt: skip
    assert re.match(r"t.\w+: there is no image a.jpg; .* \(and 1 more like it\)", notes[0]) and len(notes) == 2


def test_keypoints_of_yolo() -> None:
    numbers = ["0.5", "0.5", "0.2", "0.2", "0.4", "0.4", "2", "0", "0", "0", "0.6", "0.5", "1"]
    assert (to_object("", numbers, (3, 3)).x, to_object("", numbers, (3, 3)).y) == pytest.approx((0.5, 0.45))
    hidden = ["0.5", "0.5", "0.2", "0.2", "0", "0", "0"]
    assert to_object("", hidden, (1, 3)).box == pytest.approx((0.2, 0.2))
    assert to_object("", ["0.5", "0.5", "0.2", "0.2", "0.9"]).x == 0.5  # a confidence


@pytest.mark.parametrize(
    "text",
    [
        "names: [red, 'white cell']",
        "names: {0: red, 1: 'white cell'}\nnc: 2",
        "names:\n- red\n- white cell\nnc: 2",
        'names:\n  0: red\n  1: "white cell"  # leukocytes\n',
        "names: ['red',\n  'white cell']\ntrain: x\n",
        "names: # of classes\n- no\n- patient's cell\n",
        "names:\n- men's shoe\n- women's shoe\n- 007",
    ],
)
def test_names_in_yaml(root: Path, text: str) -> None:
    write(root / "data.yaml", f"nc: 2\n{text}")
    write(root / "a.yaml", "path: x\nnc: 2\nnames: nowhere\n")
    write(root / "labels/a.txt", "0 0.5 0.5 0.1 0.1\n1 0.4 0.5 0.1 0.1\n")
    labels = [each["label"] for each in read(root, **OPEN)[0]["images/a.png"]]
    wanted = {"men": ["men's shoe", "women's shoe"], "no\n": ["no", "patient's cell"]}
    assert labels == next((names for start, names in wanted.items() if start in text), ["red", "white cell"])


@pytest.mark.parametrize("text", ["names: [red, 'white]", "names: [[red]]", "names: {0: {}}"])
def test_names_that_cannot_be_read_are_told(root: Path, text: str) -> None:
    write(root / "data.yaml", text)
    write(root / "labels/a.txt", "0 0.5 0.5 0.1 0.1\n")
    found, notes = read(root, **OPEN)
    assert found["images/a.png"][0]["label"] == "0"
    assert notes[0].startswith(
        "data.yaml: cannot be read, its names of classes are left out; correct or remove it"
    )


def test_attributes_of_a_table(root: Path) -> None:
    lines = 'image;x;y;class;stage;radius\na.png;3;4;red;"ring, late";2\na.png;5;6;red;;\nb.png;;;;;\n'
    write(root / "cells.csv", lines)
    found, notes = read(root, **OPEN)
    first, second = found["images/a.png"]
    assert first["attributes"] == {"stage": "ring, late"} and first["box"] == [4, 4]
    assert second["attributes"] == {"stage": ""} and second["box"] is None
    assert found["images/b.png"] == []
    assert "images/b.png: its annotation names no object; it is taken as an image without any" in notes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cells.csv", "file,x,y\na.png,3,4\na.png,3,abc\na.png,3\na.png,5,6\nb.png,,7\n"),
        ("cells.jsonl", LINES_IN_JSON),
    ],
)
def test_a_line_that_cannot_be_read_takes_no_other_with_it(root: Path, name: str, text: str) -> None:
    """But for an image of which no line can be read: it must not be taken as empty."""
    write(root / name, text)
    found, notes = read(root, **OPEN)
    assert list(found) == ["images/a.png"]
    assert [each["pixel_coords"] for each in found["images/a.png"]] == [[3, 4], [5, 6]]
    assert (
        f"{name}: line {2 + name.endswith('csv')} of images/a.png cannot be read ('abc' is not a number); correct it"
        in notes[0]
    )
    assert "3 lines left out of a table" in notes[-1]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (
            " ,Label,Area,Mean,X,Y",
            "has the columns Label, Area, Mean, X, Y, but none called file; name them as in",
        ),
        (
            "index;axis-0;axis-1",
            "has the columns index, axis-0, axis-1, but none called file nor x nor y; name",
        ),
        (
            "filename,region_count,shape",
            "has the columns filename, region_count, shape, but none called x nor y;",
        ),
    ],
)
def test_a_table_lacks_columns_once(root: Path, header: str, says: str) -> None:
    delimiter = ";" if ";" in header else ","
    write(root / "t.csv", f"{header}\n" + f"{delimiter.join('1' * len(header.split(delimiter)))}\n" * 3)
    with pytest.raises(InputError, match=rf"\(t.csv: {says} .*file,x,y,label\); correct"):
        read(root, format="table")


def test_a_table_in_utf_16_is_known_for_one(root: Path) -> None:
    write(root / "cells.csv", "file;x;y\na.png;3;4\n".encode("utf-16"))
    assert list(read(root, **OPEN)[0]) == ["images/a.png"]


def test_splits_by_lists(root: Path) -> None:
    points(root)
    write(root / "train.txt", "a\nb\nnowhere\n")
    write(root / "val.txt", "b\n")
    found, notes = read(root)
    assert list(found) == ["images/a.png"] and list(read(root, "val")[0]) == ["images/b.png"]
    assert "train.txt: it lists 1 image that there is none of, the first nowhere" in notes
    assert "images/c.d.png: it is in no list of a split, and is left out" in notes
    with pytest.raises(InputError, match=r"no usable test image, only train and val; list some in test.txt"):
        read(root, "test")
    every, said = read(root, "all")
    assert len(every) == 3 and not any("left out" in note for note in said)


def test_splits_of_pascal_voc(root: Path) -> None:
    voc(root)
    image(root / "SegmentationClass/a.png")
    for name, text in {
        "Main/trainval": "a\nb",
        "Main/val": "b",
        "Main/a_train": "b 1",
        "Layout/train": "b",
    }.items():
        write(root / f"ImageSets/{name}.txt", text)
    assert list(read(root)[0]) == ["images/a.png"] and list(read(root, "val")[0]) == ["images/b.png"]


@pytest.mark.parametrize(
    ("pictures", "labels"), [("images/{}", "labels/{}"), ("{}/images", "{}/labels"), ("{}", "{}")]
)
def test_splits_by_folders(tmp_path: Path, pictures: str, labels: str) -> None:
    for folder, stem in (("train", "a"), ("valid", "a"), ("test", "b")):  # the same name twice
        image(tmp_path / pictures.format(folder) / f"{stem}.jpg")
        box = (0, 0, 10, 10, "red") if folder == "valid" else (0, 0, 20, 20, "red")
        write(tmp_path / labels.format(folder) / f"{stem}.txt", yolo_of([box]))
    write(tmp_path / "data.yaml", "names: [red, white]")
    boxes = {split: [o["box"] for (o,) in read(tmp_path, split)[0].values()] for split in ADAPTER.splits}
    assert boxes == {"train": [[20, 20]], "val": [[10, 10]], "test": [[20, 20]]}


def test_splits_by_names_of_coco_files(root: Path) -> None:
    write(root / "annotations/instances_train2017.json", coco_of({"a": BOXES["a"], "b": BOXES["b"]}))
    write(root / "annotations/instances_val2017.json", coco_of({"c.d": BOXES["c.d"]}))
    assert list(read(root)[0]) == ["images/a.png", "images/b.png"]
    assert list(read(root, "val")[0]) == ["images/c.d.png"]


def test_images_that_are_added_move_none(tmp_path: Path) -> None:
    def add(numbers: range) -> dict[str, set[str]]:
        for number in numbers:
            image(tmp_path / f"{number}.png", (4, 4))
            write(tmp_path / f"{number}.txt", "1 1\n")
        return {split: set(read(tmp_path, split)[0]) for split in ADAPTER.splits}

    few = add(range(60))
    many = add(range(60, 120))
    assert sum(map(len, many.values())) == 120 and all(few[split] <= many[split] for split in few)
    assert len(many["train"]) > 80 and all(many.values())
    again = {split: set(read(tmp_path, split, split_seed=1)[0]) for split in ADAPTER.splits}
    assert again != many
    assert len(read(tmp_path, shares="0/0/1", split="test")[0]) == 120


def test_only_labels_that_are_asked_for(root: Path) -> None:
    coco(root)
    found, _ = read(root, labels="red", **OPEN)
    assert {o["label"] for objects in found.values() for o in objects} == {"red"} and len(found) == 3
    with pytest.raises(UsageError, match="no object has the label 'whit'; did you mean white"):
        read(root, labels=["whit"], **OPEN)


def test_what_is_amiss_is_told(root: Path) -> None:
    boxes: list[Box] = [
        (10, 10, 30, 20, "red"),
        (10, 10, 30, 20, "red"),
        (5, 5, 5, 9, "red"),
        (90, 0, 99, 9, "red"),
    ]
    data = coco_of({"a": boxes, "gone": [], "b": [], "c.d": [(0, 0, 4, 4, "red")]})
    data["annotations"] += [
        {"image_id": 0, "category_id": 99, "bbox": [1, 1, 2, 2]},
        {"image_id": 77, "bbox": [1, 1, 2, 2]},
        {"image_id": 3, "id": 5, "bbox": [1, "x", 2, 2]},
    ]
    write(root / "x.json", data)
    write(root / "y.json", "")
    image(root / "images/d.png")
    found, notes = read(root, **OPEN)
    assert [len(objects) for objects in found.values()] == [2, 0]
    assert found["images/a.png"][1]["label"] == "99"
    expected = [
        "x.json: annotation 5 of c.d.png cannot be read, which is left out ('x' is not a number)",
        "y.json: cannot be read, its images are left out; correct or remove it (it is empty)",
        "x.json: it has annotations of image 77, which it does not list",
        "x.json: there is no image gone.png; add it or remove its annotation",
        "images/d.png: it has no annotation, and is left out",
        "x.json: category 99 has no name, and its number is the label",
        "images/b.png: its annotation names no object",
        "images/a.png: 1 object of 5 has no area, left out",
        "images/a.png: 1 object of 5 has a centre outside its 80×40 pixels, left out",
        "images/a.png: 1 object of 5 has an equal, left out",
    ]
    assert len(notes) == len(expected) + 2
    for note, wanted in zip(notes, expected, strict=False):
        assert note.startswith(wanted) and "\n" not in note
    amiss = (
        f"amiss in all of {root.name}: 2 annotations that cannot be read, 1 annotation of images that its file does "
        "not list, 1 annotation of images that are not there, 1 image without annotation, 1 object of classes without a name"
    )
    assert notes[-2:] == [
        amiss,
        f"amiss in the split train of {root.name}: 1 image annotated as empty, 1 object without an area, "
        "1 object outside of the image, 1 object annotated more than once",
    ]
    assert amiss in read(root, "val", shares="0/1/0")[1]  # the same, so that a training says it once


def test_the_first_files_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    few = "".join(f"{x} {y} red\n" for x in range(5) for y in range(9))
    for number in range(9):
        image(tmp_path / f"{number}.png", (9, 9))
        write(tmp_path / f"{number}.txt", few + "99 1 red\n" * (number > 0))
    _, notes = read(tmp_path, **OPEN)
    assert [note[:5] for note in notes[:3]] == ["1.png", "2.png", "3.png"]
    assert len(notes) == 4 and notes[3].endswith("8 objects outside of the image")


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (
            "Label/a.txt",
            "3 4\nfive 6\n",
            "Label/a.txt: cannot be read, its image .*line 2: 'five 6' is not \"x y\"",
        ),
        ("Label/a.txt", b"3 4 caf\xe9\n", r"Label/a.txt: line 1 is not in UTF-8; save the file as UTF-8"),
        ("Label/q.txt", "3 4\n", "Label/q.txt: there is no image of its name; add it or remove this file"),
        ("Label/a.txt", "", "images/a.png: its annotation names no object"),
        ("images/a.png", b"no image", "images/a.png: it cannot be opened .*; save it again"),
        ("other/a.png", b"no image", "Label/a.txt: Label/a may be images/a.png or other/a.png; rename"),
        ("classes.txt", "red", "Label/b.txt: class 1 has no name, and its number is the label"),
    ],
)
def test_one_broken_file_spoils_no_other(root: Path, file: str, text: str | bytes, says: str) -> None:
    for stem in BOXES:
        write(root / f"Label/{stem}.txt", points_of(BOXES[stem], names=file != "classes.txt"))
    write(root / file, text)
    found, notes = read(root, **OPEN)
    assert len(found["images/c.d.png"]) == 3 and any(re.match(says, note) for note in notes), notes


def test_broken_lines_of_yolo(root: Path) -> None:
    yolo(root)
    for text, says in {
        "0 0.5 0.5 0.1 0.1\nred 0.5 0.5 0.1 0.1": "line 2: 'red' is not the number of a class",
        "0 0.5 0.5 0.1": "line 1: a box has 4 numbers and an outline 6 or more, not 3",
        "0 0.5 0.5 nan 0.1": "line 1: 'nan' is not a number",
        "0 .1 .1 .2 .2 .3 .3 .4": "line 1: 7 coordinates cannot be pairs of x and y",
    }.items():
        write(root / "labels/a.txt", text)
        found, notes = read(root, **OPEN)
        assert list(found) == ["images/b.png", "images/c.d.png"] and says in notes[0]


def test_xml_with_entities_is_refused(root: Path) -> None:
    voc(root)
    bomb = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]>' + voc_of(BOXES["a"]).replace("red", "&b;")
    for content in (bomb.encode(), bomb.encode("utf-16"), b"<annotation><object>"):
        write(root / "Annotations/a.xml", content)
        found, notes = read(root, format="voc", **OPEN)
        assert "images/a.png" not in found and notes[0].startswith("Annotations/a.xml: cannot be read")
        assert ("DOCTYPE" in notes[0]) == (content != b"<annotation><object>")


def test_an_image_of_another_size_than_annotated(root: Path) -> None:
    coco(root)
    image(root / "images/a.png", (WIDTH * 2, HEIGHT * 2))
    image(root / "images/b.png", (HEIGHT, WIDTH))
    found, notes = read(root, **OPEN)
    assert found["images/a.png"][0]["pixel_coords"] == [40, 30] and found["images/a.png"][0]["box"] == [40, 20]
    assert "images/b.png" not in found
    assert "images/a.png: it is annotated as 80×40 and has 160×80 pixels: its annotations are scaled" in notes


def test_most_objects_outside_hint_at_another_size(root: Path) -> None:
    data = coco_of(BOXES)
    for row in data["annotations"]:
        row["bbox"] = [3 * each for each in row["bbox"]]
    write(root / "x.json", data)
    says = "5 of 6 annotated objects of the split train lie outside of their images; if these were scaled since, let"
    assert read(root, **OPEN)[1][-1].startswith(says)
    for row in data["images"]:
        row |= {"width": 3 * WIDTH, "height": 3 * HEIGHT}
    write(root / "x.json", data)
    found, notes = read(root, **OPEN)
    assert found["images/a.png"][0]["pixel_coords"] == pytest.approx([20, 15])
    assert not any("lie outside" in note for note in notes)


def test_a_size_that_the_user_states_is_of_annotations_without_one(root: Path) -> None:
    data = coco_of(BOXES)
    for key in ("width", "height"):
        del data["images"][1][key]
    write(root / "x.json", data)
    found, _ = read(root, annotated=f"{WIDTH // 2}x{HEIGHT // 2}", **OPEN)
    assert found["images/a.png"][0]["pixel_coords"] == [20, 15]
    assert found["images/b.png"][0]["pixel_coords"] == [8, 8]


def test_files_of_coco_that_place_no_object_take_none_with_them(root: Path) -> None:
    data = coco_of(BOXES)
    write(root / "annotations/instances.json", data)
    data["annotations"] = [{"image_id": n, "id": n, "caption": "red cells"} for n in range(3)]
    write(root / "annotations/captions.json", data)
    found, notes = read(root, **OPEN)
    assert [len(objects) for objects in found.values()] == [2, 1, 3]
    assert "annotations/captions.json: it says of no object where it is, and is left out" in notes


@pytest.mark.parametrize("writer", [coco, labelme])
def test_spaces_around_a_label_are_no_part_of_it(root: Path, writer: Callable[[Path], None]) -> None:
    writer(root)
    for path in root.rglob("*.json"):
        path.write_text(path.read_text().replace('"red"', '" red "'))
    assert read(root, labels="red", **OPEN)[0]["images/a.png"][0]["label"] == "red"


def test_images_turned_by_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 80)).save(tmp_path / "a.jpg", exif=exif)
    write(tmp_path / "a.txt", "0 0.5 0.25 0.5 0.5\n")
    data = ADAPTER.load("train", data_root=tmp_path, **OPEN)
    assert data[0]["image"].size == (data[0]["width"], data[0]["height"]) == (80, 40)
    assert data[0]["objects"][0]["pixel_coords"] == [40, 10]


def test_an_image_in_two_files(root: Path) -> None:
    write(root / "red.json", coco_of({"a": BOXES["a"][:1]}))
    write(root / "white.json", coco_of({"a": BOXES["a"]}))
    found, notes = read(root, **OPEN)
    assert len(found["images/a.png"]) == 2
    assert "images/a.png: it is annotated 2 times, in red.json and white.json; all objects are taken" in notes


def test_several_formats_are_not_mixed(root: Path) -> None:
    voc(root)
    points(root)
    says = r"in several formats, voc \(Annotations/a.xml\) and points \(Label/a.txt\); choose one with --set data.format=voc or --set data.format=points"
    with pytest.raises(InputError, match=says):
        read(root)
    assert read(root, format="points", **OPEN)[0]["images/a.png"][0]["box"] is None


def test_folders_that_hold_nothing_usable(root: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        read(root / "nowhere")
    (root / "none").mkdir()
    with pytest.raises(InputError, match="none holds no image"):
        read(root / "none")
    with pytest.raises(
        InputError, match=r"3 images and no annotation that igm knows \(coco, voc, .*, labelme\); add one$"
    ):
        read(root)
    with pytest.raises(
        InputError, match=r"no annotation that igm knows: Pascal VOC \(.xml for each image\); add one$"
    ):
        read(root, format="voc")
    write(root / "a.json", "")
    says = r"knows: a.json is empty; .*, or name the format with --set data.format=coco or --set data.format=labelme to be"
    with pytest.raises(InputError, match=says):
        read(root)
    write(root / "a.json", [{"id": 0, "data": {}, "annotations": []}])  # Label Studio's own
    with pytest.raises(
        InputError, match=r"\(a.json: it has no images and annotations as COCO .*; export it as COCO\)"
    ):
        read(root)
    write(root / "a.json", {"hello": 1})
    with pytest.raises(
        InputError, match=r"a.json is neither COCO \(.*\) nor LabelMe \(.*\); correct it, or name"
    ):
        read(root)
    write(root / "a.json", '{"imag')
    with pytest.raises(InputError, match=r"a.json is damaged JSON in line 1: Unterminated string.*; save it"):
        read(root)
    (root / "a.json").unlink()
    write(root / "a.csv", "a.png,3,4,red\n")
    with pytest.raises(InputError, match=r"a.csv is not a table \(.* with columns file, x and y\); correct it"):
        read(root)
    with pytest.raises(
        InputError, match=r"a.csv: does not say .*; begin it with a line such as file,x,y,label\)"
    ):
        read(root, format="table")
    (root / "a.csv").unlink()
    write(root / "x.json", '{"images": [], "annotations": [')
    with pytest.raises(
        InputError, match=r"no usable train image \(x.json: cannot be read.*; correct its annotations"
    ):
        read(root)
    write(root / "x.json", "")
    with pytest.raises(InputError, match=r"no usable train image \(x.json: cannot be read"):
        read(root, format="coco")
    (root / "x.json").unlink()
    write(
        root / "annotations.xml",
        '<annotations><version>1.1</version><image id="0" name="a.png"/></annotations>',
    )
    with pytest.raises(
        InputError, match=r"\(annotations.xml: it is in CVAT's own format; export COCO, .* instead\)"
    ):
        read(root)


def test_requests_that_cannot_be(root: Path) -> None:
    with pytest.raises(MissingError, match="--data-root FOLDER"):
        ADAPTER.load("train")
    with pytest.raises(UsageError, match="unknown format 'yollo'; did you mean yolo"):
        read(root, format="yollo")
    for shares in ("80/20", "1/-1/1", "0/0/0", "a/b/c", "inf/1/1"):
        with pytest.raises(UsageError, match="shares must look like 80/10/10"):
            read(root, shares=shares)
    with pytest.raises(UsageError, match="split_seed must be a whole number"):
        read(root, split_seed="x")


def test_training_tells_and_starts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from igm_cli import app

    points(root)
    write(root / "Label/a.txt", "nonsense")
    write(root / "val.txt", "b")
    write(root / "train.txt", "a\nc.d")
    shape = {"channels": "[8,8,8]", "blocks": 1, "head_channels": 8, "head_layers": 1, "window": 3, "patch": 4}
    model = {**shape, "image_size": "[32,32]"}
    sets = [word for key, value in model.items() for word in ("--set", f"model.{key}={value}")]
    size = (
        "--steps",
        "1",
        "--batch-size",
        "1",
        "--device",
        "cpu",
        "--precision",
        "no",
        "--set",
        "calibration=0",
        "--set",
        "picture_every=0",
        "--output",
        str(root / "run"),
    )
    assert app.main(["train", "objects", "--data-root", str(root), *size, *sets]) == 0
    told = capsys.readouterr().err
    assert "concepts.factors" not in told
    assert told.count("Label/a.txt: cannot be read, its image is left out") == 1  # of two splits
    assert "training on 100000 crops of 1 image of objects for 1 step in" in told


def test_a_run_goes_on_with_the_files_it_began_with(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from igm_cli import app

    points(root)
    words = (
        "--batch-size 1 --device cpu --precision no --set calibration=0 --set model.channels=[8,8,8] "
        "--set model.image_size=[32,32] --set picture_every=0"
    )
    command = ["train", "objects", *words.split(), "--output", str(root / "run")]
    assert app.main([*command, "--data-root", str(root), "--steps", "1"]) == 0
    write(root / "train.log", "what igm said")
    write(root / "found.jsonl", '{"schema": "igm.invert/1", "image": "a.png"}\n')
    moved = shutil.copytree(root, root.parent / "moved" / root.name)
    write(moved / "Label/a.txt", (moved / "Label/a.txt").read_text().replace("5", "6"))
    capsys.readouterr()
    assert app.main([*command, "--data-root", str(moved), "--steps", "2"]) != 0
    assert "holds a run of other images or annotations" in capsys.readouterr().err
    assert app.main([*command, "--data-root", str(root), "--steps", "2"]) == 0
    record = json.loads((root / "run" / "run.json").read_text())
    del record["data"]["files"]  # as earlier versions wrote it
    write(root / "run" / "run.json", json.dumps(record))
    assert app.main([*command, "--data-root", str(root), "--steps", "2"]) == 0
    assert "already holds all 2 steps" in capsys.readouterr().err
    ended = json.loads((root / "run" / "igm.json").read_text())
    outcome = ended["info"].pop("outcome")  # as of a run that ended at once after its last step
    write(root / "run" / "igm.json", json.dumps(ended))
    renamed = shutil.copytree(root, root.parent / "renamed")
    (root / "run" / "state.pt").unlink()
    assert app.main([*command, "--data-root", str(renamed), "--steps", "1"]) == 0
    said = capsys.readouterr().err
    assert "already holds 2 steps of this run; use it with" in said and outcome in said
    assert json.loads((root / "run" / "igm.json").read_text())["info"]["outcome"] == outcome
    assert app.main([*command, "--data-root", str(renamed), "--steps", "1"]) == 0
    assert "--steps" not in capsys.readouterr().err


def test_categories_are_learned_as_they_are_annotated(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from igm_cli import app

    rows = ["file,x,y,label,stage", "a.png,10,10,red,old", "a.png,30,20,white,young", "b.png,12,20,red,"]
    write(root / "places.csv", "\n".join(rows))
    words = "--concepts objects --dry-run --device cpu --batch-size 1 --set model.channels=[8,8,8] --set crops.most=2"
    command = ["train", "objects", "--data-root", str(root), *words.split(), "--output", str(root / "run")]
    assert app.main(command) == 0
    shown, told = capsys.readouterr()
    assert "concepts.factors = label=red|white,stage=old|young: what is said of objects" in told
    assert re.search(r"concepts.factors +│ label=red\|white,stage=old\|young +│ the images", shown)
    assert app.main([*command, "--set", "concepts.factors=label=red|white"]) == 0
    shown, told = capsys.readouterr()
    assert "what is said" not in told and re.search(r"label=red\|white +│ command line", shown)
    for changed, says in (
        (
            "architecture=unet",
            "only a factored model can be trained on crops; use model.architecture = factored, not unet",
        ),
        ("coordinates=true", "is not told where it looks; use model.coordinates = false"),
    ):
        assert app.main([*command, "--set", f"model.{changed}"]) == 3
        assert says in capsys.readouterr().err


def test_a_dry_run_says_how_many_images_each_split_has(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from igm_cli import app

    points(root)
    with (root / "Label" / "b.txt").open("a") as file:
        file.write(f"{-WIDTH} {HEIGHT / 2} red\n")
    write(root / "val.txt", "b")
    write(root / "train.txt", "a\nc.d")
    words = "--dry-run --device cpu --batch-size 1 --set model.channels=[8,8,8] --set model.image_size=[32,32]"
    assert (
        app.main(["train", "objects", "--data-root", str(root), *words.split(), "-o", str(root / "run")]) == 0
    )
    said = capsys.readouterr().err
    assert "usable images: 2 in train, 1 in val, 0 in test\n" in said
    assert "amiss in the split val" in said and "amiss in the split train" not in said


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ([1], ["1 image with 1 object", "1 object may be too few to learn from; annotate more"]),
        (
            [2, 2],
            ["2 images with 4 objects, 2 in each", "4 objects may be too few to learn from; annotate more"],
        ),
        ([9, 50], ["2 images with 59 objects, 9 to 50 in each, the median 50"]),
    ],
)
def test_how_many_objects_there_are_is_said(tmp_path: Path, numbers: list[int], says: list[str]) -> None:
    for number, count in enumerate(numbers):
        image(tmp_path / f"{number}.png")
        write(tmp_path / f"{number}.txt", "".join(f"{1 + row} 35\n" for row in range(count)))
    data = ADAPTER.load("train", data_root=tmp_path, **OPEN)
    *first, scale = ADAPTER.advise(data, {}).reasons[: 1 + len(says)]  # type: ignore[attr-defined]
    assert first == says and re.match(
        r"crops.scale = [\d.]+: (neighbours are|a quarter of) .* pixels.*, and the", scale
    )


def test_places_that_are_fractions_are_refused(root: Path) -> None:
    write(root / "places.csv", "file,x,y\na.png,0.1,0.9\nb.png,0.5,0.25\n")
    with pytest.raises(
        InputError, match="lie between 0 and 1, as fractions of the image's sides do, and pixels are meant"
    ):
        read(root)
