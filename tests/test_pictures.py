"""The adapter of people's own pictures: every layout, and what is wrong in them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import Here
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from igm_cli.errors import InputError, MissingError, UsageError
from igm_cli.plugins.base import DatasetAdapter
from igm_cli.plugins.pictures.adapter import Pictures
from igm_cli.plugins.pictures.words import Vocabulary

ADAPTER: DatasetAdapter = Pictures()


def touch(root: Path, *files: str) -> Path:
    """Files that are not images: nothing may be decoded while a folder is listed."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def table(root: Path, name: str, content: str | bytes, *files: str) -> Path:
    """A folder with a table and images."""
    touch(root, *(files or ("a.jpg", "b.jpg")))
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def read(root: Path, split: str = "all", **options: object) -> dict[str, list[str]]:
    data = ADAPTER.load(split, data_root=root, **options)
    assert data.column_names == ["image", "file", "labels"]
    return dict(zip(data["file"][:], data["labels"][:], strict=True))


AB = {"a.jpg": ["cat", "dog"], "b.jpg": ["rabbit"]}


def test_images_are_decoded_when_asked_for(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), (200, 0, 0)).save(tmp_path / "cat_dog_1.PNG")
    touch(tmp_path, "dog_2.jpg")
    data = ADAPTER.load("all", data_root=tmp_path)
    assert data[0]["image"].size == (20, 10) and data[0]["labels"] == ["cat", "dog"]
    assert len(ADAPTER.load("all", data_root=tmp_path, limit=1)) == 1


def test_a_folder_without_splits_is_divided_and_it_is_said(tmp_path: Path) -> None:
    touch(tmp_path / "mine", *(f"{label}/{number}.jpg" for label in ("cat", "dog") for number in range(20)))
    notes: list[str] = []
    every = {name: read(tmp_path / "mine", name, note=notes.append) for name in ("train", "val", "test", "all")}
    parts = [set(every[name]) for name in ("train", "val", "test")]
    assert all(parts) and len(parts[0]) > 25 and sum(map(len, parts)) == 40 == len(every["all"])
    assert set.union(*parts) == set(every["all"])
    counts = ", ".join(f"{len(every[name])} {name}" for name in ("train", "val", "test"))
    assert len(notes) == 3 and len(set(notes)) == 1
    assert f"divides its 40 images: {counts}; the split all takes every one" in notes[0]
    touch(tmp_path / "mine", "cat/new.jpg")
    assert every["val"].items() <= read(tmp_path / "mine", "val").items()  # new images move none of the others
    assert len(read(tmp_path / "mine", "val", shares="0/1/0", note=notes.append)) == 41 and len(notes) == 3
    with pytest.raises(UsageError, match="shares must look like 80/10/10"):
        read(tmp_path / "mine", shares="80")


@pytest.mark.parametrize(
    "lines",
    [
        '{"file_name": "b.jpg", "labels": ["Rabbit "]}\n{"file_name": "a.jpg", "labels": ["cat", "dog", "cat"]}',
        '\ufeff{"file_name": "a.jpg", "text": "a cat, and a dog"}\r\n\r\n{"file_name": "b.jpg", "text": "rabbit"}\r\n',
        '{"file_name": "./a.jpg", "labels": "CAT; dog"}\n{"file": "b.jpg", "label": "rabbit"}\n',
    ],
)
def test_lines_of_json(tmp_path: Path, lines: str) -> None:
    table(tmp_path, "metadata.jsonl", lines)
    assert read(tmp_path) == AB
    assert list(read(tmp_path)) == list(AB)  # in the order of their paths


@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv", "Mine.CSV"])
@pytest.mark.parametrize(
    "text",
    [
        'file,labels\na.jpg,"cat,dog"\nb.jpg,rabbit\n',
        "\ufeffFile;Label\r\na.jpg;cat|dog\r\n\r\nb.jpg;rabbit\r\n",
        "image, labels\na.jpg, cat and dog\nb.jpg, rabbit",
        "filename,labels\na.jpg,cat;dog\nb.jpg,rabbit\n",
        "filename\tlabels\ra.jpg\tcat and dog\rb.jpg\trabbit\r",
        "file_name,labels\na.jpg,\"['cat', 'dog']\"\nb.jpg,['rabbit']\n",
        '"file";"labels"\n"a.jpg";"cat;dog"\n"b.jpg";"rabbit"\n',
        "file,cat,Dog,rabbit\na.jpg,1,1,0\nb.jpg,0,0,1\n",
        ",file,cat,dog,rabbit\n0,a.jpg,True,True,False\n1,b.jpg,False,False,True\n",
        "file,cat,dog,rabbit\na.jpg,1.0,1.0,0.0\nb.jpg,0.0,0.0,1.0\n",
    ],
)
def test_tables(tmp_path: Path, name: str, text: str) -> None:
    table(tmp_path, name, text)
    assert read(tmp_path) == read(tmp_path, layout="csv") == AB


def test_a_table_in_utf_16(tmp_path: Path) -> None:
    table(tmp_path, "labels.csv", "file,labels\na.jpg,cat;dog\nb.jpg,rabbit\n".encode("utf-16"))
    assert read(tmp_path) == AB


@pytest.mark.parametrize(
    "columns",
    [
        {"file_name": ["b.jpg", "a.jpg"], "labels": [["rabbit"], ["Cat", "dog"]]},
        {"image": ["a.jpg", "b.jpg"], "cat": [1, 0], "dog": [True, False], "rabbit": [0.0, 1.0]},
    ],
)
def test_a_table_in_parquet(tmp_path: Path, columns: dict[str, list[object]]) -> None:
    touch(tmp_path, *AB)
    Dataset.from_dict(columns).to_parquet(str(tmp_path / "metadata.parquet"))
    assert read(tmp_path) == read(tmp_path, layout="parquet") == AB
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"metadata.parquet cannot be read \(.*\); check it"):
        read(tmp_path)


def test_pictures_inside_a_table_in_parquet_are_not_read(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": b"...", "path": "1.png"}], "label": [0]}
    for file, more in (("train-0.parquet", ()), ("metadata.parquet", ("a.jpg",)), ("data/train-0.parquet", ())):
        root = touch(tmp_path / file.replace("/", "-"), file, *more)
        Dataset.from_dict(rows).to_parquet(str(root / file))
        with pytest.raises(
            InputError, match=f"{file} holds pictures, which .*; write each to a file of its own"
        ):
            read(root)


def test_errors_without_a_number_have_a_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: Path) -> bytes:
        raise OSError("the share is gone")

    table(tmp_path, "labels.csv", "file,labels\na.jpg,cat\n", "a.jpg")
    monkeypatch.setattr(Path, "read_bytes", gone)
    with pytest.raises(InputError, match=r"labels.csv cannot be read \(the share is gone\); check it"):
        read(tmp_path)
    monkeypatch.setattr(Path, "iterdir", gone)
    with pytest.raises(InputError, match=r"may not be read \(the share is gone\); change its permissions"):
        read(tmp_path)


def test_ways_to_write_a_path(tmp_path: Path) -> None:
    text = "file,labels\nin\\a.jpg,cat\nB.jpg,dog\ncafe\u0301.png,cat\n"
    table(tmp_path, "labels.csv", text, "in/a.jpg", "in/b.JPG", "in/deep/caf\u00e9.png", "unlisted.jpg")
    assert read(tmp_path) == {"in/a.jpg": ["cat"], "in/b.JPG": ["dog"], "in/deep/caf\u00e9.png": ["cat"]}
    touch(tmp_path, "other/b.jpg")
    with pytest.raises(
        InputError, match=r"line 3: B.jpg may be in/b.JPG or other/b.jpg; write it with its folder"
    ):
        read(tmp_path)


def test_names_of_files(tmp_path: Path) -> None:
    expected = {
        "IMG_003_cat-dog.jpg": ["cat", "dog"],
        "a cat and dog 7.jpeg": ["cat", "dog"],
        "cat+dog.webp": ["cat", "dog"],
        "cat_dog_003.JPG": ["cat", "dog"],
        "deep/er/Rabbit.Dog.tiff": ["rabbit", "dog"],
        "dog-rabbit (2).png": ["dog", "rabbit"],
        "écureuil2cat.bmp": ["écureuil", "cat"],
    }
    touch(tmp_path, *expected, ".hidden.jpg", "__MACOSX/._cat.jpg", ".git/cat.png", "notes.txt")
    assert read(tmp_path) == expected and list(read(tmp_path)) == list(expected)


def test_only_labels_that_are_named_count(tmp_path: Path) -> None:
    touch(tmp_path, "a_cat_img_1.jpg", "my_traffic-light2 mug2.png")
    assert read(tmp_path, labels="A, IMG, traffic light,mug2") == {
        "a_cat_img_1.jpg": ["a", "img"],
        "my_traffic-light2 mug2.png": ["traffic light", "mug2"],
    }
    with pytest.raises(InputError, match=r"none of cat in the names of 1 of 2 images, the first my_traffic"):
        read(tmp_path, labels=["cat"])
    table(tmp_path, "labels.csv", "file,width,cat\na.jpg,640,1\n", "a.jpg")
    assert read(tmp_path, labels="cat") == {"a.jpg": ["cat"]}
    with pytest.raises(
        InputError, match=r"labels.csv line 2: width is '640', neither 0 nor 1; .* option labels"
    ):
        read(tmp_path)
    table(tmp_path, "labels.csv", "file,labels\na.jpg,traffic light; cat dog\n", "a.jpg")
    assert read(tmp_path, labels="dog,traffic light") == {"a.jpg": ["traffic light", "dog"]}


def test_names_of_folders(tmp_path: Path) -> None:
    expected = {"Cat_Dog/001.jpg": ["cat", "dog"], "rabbit/b/home.PNG": ["b"], "rabbit/c1.png": ["rabbit"]}
    touch(tmp_path, *expected)
    assert read(tmp_path) == read(tmp_path, layout="folders") == expected
    assert read(tmp_path, labels="cat,rabbit")["rabbit/b/home.PNG"] == ["rabbit"]
    with pytest.raises(
        InputError, match=r"in the names of 1 of 3 images, the first Cat_Dog/001.jpg; name images"
    ):
        read(tmp_path, layout="names")


def test_one_folder_of_all_images(tmp_path: Path) -> None:
    touch(tmp_path / "x", "stuff/cat_1.jpg", "stuff/dog_1.jpg")
    assert read(tmp_path / "x") == {"stuff/cat_1.jpg": ["cat"], "stuff/dog_1.jpg": ["dog"]}
    touch(tmp_path / "y", "cat_dog/1.jpg", "cat_dog/IMG_2.jpg")
    assert set(map(tuple, read(tmp_path / "y").values())) == {("cat", "dog")}


SMALL = """extends = "default"
[model]
image_size = [16, 16]
channels = [16, 16]
autoencoder_channels = [16, 16]
groups = 4
head_dim = 8
text_dim = 16
latent_channels = 2
[train]
steps = 3
autoencoder_steps = 1
reading_steps = 1
batch_size = 8
precision = "no"
"""


def test_a_folder_is_trained_on_by_its_labels_and_silently(tmp_path: Path, here: Here) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    for label, color in (("circle", "red"), ("square", "blue")):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for number in range(9):
            Image.new("RGB", (16, 16), color).save(tmp_path / "mine" / label / f"{number}.png")
    words = (
        "train",
        "pictures",
        "--data-root",
        "mine",
        "--preset",
        "small.toml",
        "-o",
        "run",
        "--device",
        "cpu",
    )
    code, _, said = here(*words, cwd=tmp_path)
    assert code == 0, said
    sentences = said.splitlines()
    assert "divides its 18 images" in sentences[0] and "with 1 label in each" in sentences[1]
    assert sentences[2] == "concepts.labels are those of the images: circle 9, square 9"
    assert "neither validated nor calibrated" in sentences[3]
    assert "igm evaluate --model run --calibrate" in sentences[3]
    assert sentences[4].endswith("for 3 steps in run, a model for igm zero-shot IMAGE --model run")
    assert sentences[-1] == "done; use it with: igm zero-shot IMAGE --model run"
    assert len([line for line in sentences if not line.startswith("training ")]) == 7, (
        said
    )  # no library's words
    spec = json.loads((tmp_path / "run" / "igm.json").read_text())
    assert spec["space"]["labels"] == ["circle", "square"] and spec["composition"] == "mean"
    given = here(*words, "--set", "concepts.labels=square,circle,star", "--dry-run", "-o", "other")
    assert given.code == 0 and "square,circle,star" in given.out and "concepts.labels are" not in given.err
    assert "gives a model for igm zero-shot IMAGE --model other" in given.err


def test_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat_1.jpg", "train/dog_1.jpg", "test/cat_dog/1.jpg", "test/dog/1.jpg")
    assert read(tmp_path, "train") == {"train/cat_1.jpg": ["cat"], "train/dog_1.jpg": ["dog"]}
    assert len(read(tmp_path, "all")) == 4
    assert read(tmp_path, "test") == {"test/cat_dog/1.jpg": ["cat", "dog"], "test/dog/1.jpg": ["dog"]}
    with pytest.raises(InputError, match="test and train but no folder val; add it"):
        read(tmp_path, "val")
    table(tmp_path / "Validation", "labels.csv", "file,labels\na.jpg,cat\n", "a.jpg")
    assert read(tmp_path, "val") == {"Validation/a.jpg": ["cat"]}
    table(tmp_path, "labels.csv", "file,labels\ntrain/dog_1.jpg,fish\n", "train/dog_1.jpg")
    assert read(tmp_path, "train") == {"train/dog_1.jpg": ["fish"]}
    assert read(tmp_path, "val") == {"Validation/a.jpg": ["cat"]}  # its own table comes first
    with pytest.raises(InputError, match="no test image; add some"):
        read(tmp_path, "test")


def test_folders_named_training_and_testing_are_splits(tmp_path: Path) -> None:
    touch(tmp_path, "training/cat/1.jpg", "testing/dog/1.jpg")
    assert read(tmp_path, "train") == {"training/cat/1.jpg": ["cat"]}
    assert read(tmp_path, "test") == {"testing/dog/1.jpg": ["dog"]}


def test_a_train_may_be_a_thing(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "car_train/1.jpg")
    assert read(tmp_path, labels="car,train") == {"car_train/1.jpg": ["car", "train"], "train/1.jpg": ["train"]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "metadata.jsonl",
            '{"file_name": "a.jpg", "labels": ["cat"]}\n{oops',
            "line 2 is not JSON: .*; correct it",
        ),
        ("metadata.jsonl", '{"file_name": "a.jpg", "labels": ["\\ud800"]}', "line 1 is not JSON: .*surrogates"),
        ("metadata.jsonl", '["a.jpg"]', "line 1 is not an object; write it as"),
        ("metadata.jsonl", '{"labels": ["cat"]}', "line 1: it has no file_name; add the path"),
        ("metadata.jsonl", '{"file_name": 3, "labels": ["cat"]}', "line 1: file_name is 3; write"),
        ("metadata.jsonl", '{"file_name": "a.jpg"}', "line 1: it has no labels; add a list"),
        (
            "metadata.jsonl",
            '{"file_name": "a.jpg", "label": 3}',
            "line 1: label is the number 3, and classes have no names; list them",
        ),
        ("metadata.jsonl", '{"file_name": "a.jpg", "labels": []}', "line 1: the image has no label; add one"),
        ("metadata.jsonl", "\n\n", "metadata.jsonl lists no image"),
        ("labels.csv", "", "does not say what its columns hold; begin it with a line such as file,labels"),
        ("labels.csv", "a.jpg,cat\nb.jpg,dog\n", "does not say what its columns hold"),
        ("labels.csv", "file\na.jpg\n", "does not say what its columns hold"),
        ("labels.csv", "x" * 200_000, "does not say what its columns hold"),
        ("labels.csv", "file,labels\n", "labels.csv lists no image"),
        (
            "labels.csv",
            "file,labels\na.jpg,cat\nc.jpg,cat\n",
            "line 3: there is no image c.jpg in .*; write its path",
        ),
        ("labels.csv", "file,labels\n,cat\n", "line 2: file is ''; write the path"),
        ("labels.csv", "file,labels\na.jpg,cat\nb.jpg,\n", "line 3: the image has no label; add one"),
        ("labels.csv", "file,cat,dog\na.jpg,0,0\n", "line 2: the image has no label"),
        ("labels.csv", "file,cat,dog\na.jpg,1,yes\n", "line 2: dog is 'yes', neither 0 nor 1"),
        ("labels.csv", "file,cat,Cat\na.jpg,1,1\n", "line 1 names the column cat twice"),
        ("labels.csv", "file,labels\na.jpg,cat,dog\n", "line 2 has 3 values for 2 columns; .*quotes"),
        (
            "labels.csv",
            'file,labels\nb.jpg,dog\na.jpg,"cat\nb.jpg,dog\n',
            "line 3 is not a line of a table: .*; correct",
        ),
        (
            "labels.csv",
            "file,labels\na.jpg,cat\nb.jpg,cat\nA.jpg,dog\n",
            "line 4: a.jpg is in line 2 already; keep",
        ),
        ("labels.csv", "file,labels\na.jpg,écureuil\n".encode("latin-1"), "line 2 is not in UTF-8; save"),
        ("labels.csv", "file,labels\na.jpg,cat\n".encode("utf-16-le"), "labels.csv is not in UTF-8; save"),
        ("x.csv", "file,labels\na.jpg,cat\n", "holds w.csv and x.csv; call the one with the labels labels.csv"),
    ],
)
def test_damaged_tables(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    table(tmp_path, name, content)
    if name == "x.csv":
        touch(tmp_path, "w.csv")
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no image; give a folder"):
        read(tmp_path)
    touch(tmp_path, "IMG_001.jpg", "cat_2.jpg", "results.jsonl")
    with pytest.raises(
        InputError, match=r"no label in the names of 1 of 2 images, the first IMG_001.jpg; name"
    ):
        read(tmp_path)
    with pytest.raises(InputError, match="in the folders' names of 2 of 2 images"):
        read(tmp_path, layout="folders")
    with pytest.raises(InputError, match=r"has no labels.csv; add it or choose another layout"):
        read(tmp_path, layout="csv")
    with pytest.raises(InputError, match=r"results.jsonl lists no image"):
        read(tmp_path, layout="jsonl")


def test_tables_that_igm_wrote_hold_no_labels(tmp_path: Path) -> None:
    """They are known by their mark: a table of somebody else's may have the same columns."""
    touch(tmp_path, "a.jpg", "b.jpg")
    table(tmp_path, "found.csv", "image,label,confidence,written_by\na.jpg,dog,0.9,1f\nb.jpg,dog,0.9,1f\n")
    table(tmp_path, "own.csv", "image,label,confidence\na.jpg,cat,0.9\nb.jpg,fox,0.8\n")
    assert read(tmp_path) == {"a.jpg": ["cat"], "b.jpg": ["fox"]}


def test_tables_in_hidden_folders_are_not_read(tmp_path: Path) -> None:
    touch(tmp_path, "cat_1.png", "dog_2.png")
    table(tmp_path / ".cache", "labels.csv", "file,label\nx.png,fox\n", "y.txt")
    assert read(tmp_path) == {"cat_1.png": ["cat"], "dog_2.png": ["dog"]}


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "away/1.jpg", "data/dog/1.jpg")
    try:
        (tmp_path / "data/cat_dog").symlink_to(tmp_path / "away", target_is_directory=True)
        (tmp_path / "data/dog/loop").symlink_to(tmp_path / "data", target_is_directory=True)
    except OSError:
        pytest.skip("no links here")
    assert read(tmp_path / "data") == {"cat_dog/1.jpg": ["cat", "dog"], "dog/1.jpg": ["dog"]}


def test_requests_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="--data-root FOLDER"):
        ADAPTER.load("train")
    with pytest.raises(UsageError, match="unknown layout 'csvs'; did you mean csv"):
        ADAPTER.load("train", data_root=tmp_path, layout="csvs")
    with pytest.raises(UsageError, match="no option 'label'"):
        ADAPTER.load("train", label="cat")
    with pytest.raises(UsageError, match="no split 'dev'"):
        ADAPTER.load("dev")
    for labels in ("", " , ", {"cat": 3}, ["cat", None], "cat,+"):
        with pytest.raises(UsageError, match="labels must be names with commas between them"):
            ADAPTER.load("train", data_root=tmp_path, labels=labels)


WORDS = st.sampled_from(["cat", "dog", "rabbit", "écureuil", "猫", "parrotfish", "x", "ähre"])
SETS = st.lists(WORDS, min_size=1, max_size=3, unique=True)
STEMS = st.text("0123456789 -()", max_size=6).map(lambda text: f"{text.strip()}0")


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(STEMS, SETS, min_size=1, max_size=6), st.booleans())
def test_every_layout_gives_back_what_was_written(pictures: dict[str, list[str]], named: bool) -> None:
    known = sorted({word for labels in pictures.values() for word in labels})
    options = {"labels": known} if named else {}
    with TemporaryDirectory() as name:
        root = Path(name)
        tabled = {f"in/{stem}.jpg": labels for stem, labels in pictures.items()}
        touch(root / "jsonl", *tabled)
        (root / "jsonl/metadata.jsonl").write_text(
            "\n".join(json.dumps({"file_name": file, "labels": labels}) for file, labels in tabled.items())
        )
        assert read(root / "jsonl", **options) == tabled
        touch(root / "csv", *tabled)
        cells = [[file, ", ".join(labels)] for file, labels in tabled.items()]
        write_csv(root / "csv/labels.csv", [["file", "labels"], *cells])
        assert read(root / "csv", **options) == tabled
        marks = [[file, *(int(word in labels) for word in known)] for file, labels in tabled.items()]
        write_csv(root / "csv/labels.csv", [["file", *known], *marks])
        assert read(root / "csv", **options) == {file: sorted(labels) for file, labels in tabled.items()}
        names = {f"{stem} {'_'.join(labels)}.jpg": labels for stem, labels in pictures.items()}
        assert read(touch(root / "names", *names), **options) == names
        folders = {f"{'_'.join(labels)}/{stem}.jpg": labels for stem, labels in pictures.items()}
        assert read(touch(root / "folders", *folders), **options) == folders


def write_csv(path: Path, rows: list[list[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30), st.sampled_from([Vocabulary(), Vocabulary.of("cat,traffic light,a")]))
def test_any_text_gives_distinct_labels_in_lower_case(text: str, vocabulary: Vocabulary) -> None:
    for labels in (vocabulary.in_name(text), vocabulary.in_cell(text, one=True), vocabulary.among([text])):
        assert len(set(labels)) == len(labels) and all(labels)
        assert not vocabulary.known or set(labels) <= set(vocabulary.known)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["metadata.jsonl", "labels.csv"]))
def test_any_table_is_read_or_refused(content: bytes, name: str) -> None:
    with TemporaryDirectory() as folder:
        table(Path(folder), name, b"file,labels\n" + content if name == "labels.csv" else content)
        try:
            read(Path(folder))
        except InputError as error:
            assert name in str(error)
