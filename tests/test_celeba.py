"""The CelebA adapter: the published layouts, drawn faces, and the concept parser ``attributes``."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from igm_cli.errors import InputError, MissingError, UsageError
from igm_cli.plugins import registry
from igm_cli.plugins.attributes import NO_YES, Attributes, parse_factors
from igm_cli.plugins.base import Frame
from igm_cli.plugins.celeba import recipe
from igm_cli.plugins.celeba.adapter import Celeba
from igm_cli.plugins.overlays import HEIGHT, LINE, LONG_SIDE
from igm_cli.plugins.samples import DatasetSamples

NAMES = ("Black_Hair", "Eyeglasses", "Male", "Smiling")
FRAME = Frame.fit((96, 96), 1.0)

# The real CelebA


def marks(number: int) -> list[int]:
    """The attributes of an image: the bits of its number."""
    return [1 if number >> bit & 1 else -1 for bit in range(len(NAMES))]


def jpg(number: int) -> str:
    return f"{number:06d}.jpg"


def write_images(folder: Path, numbers: Sequence[int], suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.new("RGB", (18, 22), (number % 256, 90, 90)).save(folder / f"{number:06d}{suffix}")


def write_attributes(path: Path, numbers: Sequence[int]) -> None:
    """As published, or as Kaggle has it, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        rows = [f"{jpg(n)},{','.join(map(str, marks(n)))}" for n in numbers]
        path.write_text("\n".join([f"image_id,{','.join(NAMES)}", *rows]) + "\n")
    else:
        rows = [f"{jpg(n)} {' '.join(f'{mark:2d}' for mark in marks(n))}" for n in numbers]
        path.write_text("\n".join([str(len(numbers)), f"{' '.join(NAMES)} ", *rows]) + "\n")


def write_partition(path: Path, parts: dict[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    comma = path.suffix == ".csv"
    rows = [f"{jpg(n)}{',' if comma else ' '}{part}" for n, part in parts.items()]
    path.write_text("\n".join(["image_id,partition"] * comma + rows) + "\n")


def write_celeba(root: Path, numbers: Sequence[int] = range(1, 11)) -> Path:
    write_images(root / "img_align_celeba", numbers)
    write_attributes(root / "list_attr_celeba.txt", numbers)
    return root


def files(root: Path, split: str, **options: object) -> list[int]:
    """Numbers of the images of a split."""
    return [int(Path(name).stem) for name in Celeba().load(split, data_root=root, **options)["file"]]


OFFICIAL = {number: {4: 1, 7: 1, 2: 2, 9: 2}.get(number, 0) for number in range(1, 11)}


@pytest.mark.parametrize(
    ("images", "attributes", "partition"),
    [
        ("img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"),
        ("img_align_celeba/img_align_celeba", "list_attr_celeba.csv", "list_eval_partition.csv"),
        ("Img/img_align_celeba", "Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt"),
        ("img_align_celeba_png", "Anno/list_attr_celeba.txt", "Anno/list_eval_partition.csv"),
        ("Img/img_align_celeba_png", "Anno/list_attr_celeba.csv", "Eval/list_eval_partition.csv"),
        ("", "list_attr_celeba.txt", "list_eval_partition.txt"),
    ],
)
def test_every_published_layout_is_read(tmp_path: Path, images: str, attributes: str, partition: str) -> None:
    suffix = ".png" if images.endswith("png") else ".jpg"
    write_images(tmp_path / images, range(1, 11), suffix)
    write_attributes(tmp_path / attributes, range(1, 11))
    write_partition(tmp_path / partition, OFFICIAL)
    given = [tmp_path, tmp_path / images] if images else [tmp_path]
    for root in given:  # the folder of images alone will do
        data = Celeba().load("val", data_root=root)
        assert data.column_names == ["image", "file", "attributes"]
        assert data["file"][:] == [f"000004{suffix}", f"000007{suffix}"]
        for row, number in zip(data, (4, 7), strict=True):
            assert row["attributes"] == {
                name: mark == 1 for name, mark in zip(NAMES, marks(number), strict=True)
            }
            assert row["image"].size == (18, 22) and abs(row["image"].getpixel((9, 11))[0] - number) < 4
        assert files(root, "test") == [2, 9] and files(root, "train") == [1, 3, 5, 6, 8, 10]


def test_the_folder_that_has_images_is_taken(tmp_path: Path) -> None:
    (tmp_path / "img_align_celeba").mkdir()
    write_images(tmp_path / "img_align_celeba_png", range(1, 11), ".png")
    write_attributes(tmp_path / "list_attr_celeba.csv", range(1, 11))
    assert files(tmp_path, "test") == [10]
    write_images(tmp_path / "img_align_celeba", range(1, 11))
    assert Celeba().load("test", data_root=tmp_path)["file"][:] == ["000010.jpg"]


def test_without_a_partition_numbers_tell_the_split(tmp_path: Path) -> None:
    root = write_celeba(tmp_path, (202_599, 1, 162_770, 162_771, 182_637, 182_638))
    assert files(root, "train") == [1, 162_770]
    assert files(root, "val") == [162_771, 182_637]
    assert files(root, "test") == [202_599, 182_638]


def test_a_part_of_celeba_is_split_by_position(tmp_path: Path) -> None:
    early = write_celeba(tmp_path / "early", range(20, 0, -1))  # all of them are of the official train split
    assert files(early, "train") == list(range(20, 4, -1))
    assert files(early, "val") == [4, 3] and files(early, "test") == [2, 1]
    some = write_celeba(tmp_path / "some", range(162_762, 162_782))  # of train and val, none of test
    parts = [files(some, split) for split in Celeba.splits]
    assert parts[1:] == [[162_778, 162_779], [162_780, 162_781]]
    assert sorted(chain(*parts)) == list(range(162_762, 162_782))


def test_names_that_are_no_numbers_are_split_by_position(tmp_path: Path) -> None:
    write_images(tmp_path / "img_align_celeba", (1, 170_000, 190_000))
    names = [*(jpg(n) for n in (1, 170_000, 190_000)), *(f"face{n}.jpg" for n in range(7))]
    for name in names[3:]:
        Image.new("RGB", (4, 4)).save(tmp_path / "img_align_celeba" / name)
    rows = "".join(f"{name} 1 0\n" for name in names)
    (tmp_path / "list_attr_celeba.txt").write_text(f"10\nSmiling Male\n{rows}")
    load = Celeba().load
    assert load("train", data_root=tmp_path)["file"][:] == names[:8]
    assert load("val", data_root=tmp_path)["file"][:] == ["face5.jpg"]
    (row,) = load("test", data_root=tmp_path)
    assert row["file"] == "face6.jpg" and row["attributes"] == {"Smiling": True, "Male": False}


def test_the_domain_is_the_attribute_male(tmp_path: Path) -> None:
    root = write_celeba(tmp_path, range(1, 21))
    male = [n for n in range(1, 17) if n >> 2 & 1]
    assert files(root, "train", domain="male") == male
    assert files(root, "train", domain="female") == [n for n in range(1, 17) if n not in male]
    assert files(root, "train", domain="all") == files(root, "train") == list(range(1, 17))
    assert files(root, "train", domain="male", limit=3) == male[:3]


def test_no_male_is_refused_only_if_a_domain_is_asked_for(tmp_path: Path) -> None:
    write_images(tmp_path / "img_align_celeba", range(1, 11))
    rows = "".join(f"{jpg(n)} {n % 2}\n" for n in range(1, 11))
    (tmp_path / "list_attr_celeba.txt").write_text(f"10\nSmiling\n{rows}")
    assert len(files(tmp_path, "train")) == 8
    with pytest.raises(InputError, match=r"celeba\.txt has no attribute Male .*choose the domain all"):
        files(tmp_path, "train", domain="male")


def test_only_images_asked_for_must_be_there(tmp_path: Path) -> None:
    root = write_celeba(tmp_path, range(1, 21))
    for number in (5, 7, 8):
        (root / "img_align_celeba" / jpg(number)).unlink()
    with pytest.raises(InputError, match=r"lacks 3 of 16 annotated images, the first 000005\.jpg; extract all"):
        files(root, "train")
    assert files(root, "train", limit=4) == [1, 2, 3, 4]
    assert files(root, "val") == [17, 18]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere is not a folder; give a folder in the layout of CelebA"):
        files(tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match="no folder img_align_celeba with images in it; give"):
        files(tmp_path, "train")
    write_images(tmp_path / "img_align_celeba", range(1, 10))
    with pytest.raises(InputError, match=r"no list_attr_celeba\.txt or \.csv.* nor in its folder Anno; give"):
        files(tmp_path, "train")
    write_attributes(tmp_path / "list_attr_celeba.txt", range(1, 4))
    with pytest.raises(InputError, match="has no val image; choose another split"):
        files(tmp_path, "val")
    with pytest.raises(InputError, match="has no train image with Male 1; choose another split or domain"):
        files(tmp_path, "train", domain="male")
    write_attributes(tmp_path / "list_attr_celeba.txt", ())
    with pytest.raises(InputError, match="has no train image; choose"):
        files(tmp_path, "train")


ROWS = "000001.jpg -1 1\n000002.jpg 1 1\n"
HEAD = "image_id,Male,Smiling\n"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("txt", "", r"line 1 must be the number of images, not ''"),
        ("txt", "Male Smiling\n", r"line 1 must be the number of images, not 'Male Smiling'"),
        ("txt", "2\n", r"line 1 names no attribute"),
        ("csv", "", r"line 1 names no attribute"),
        ("csv", "image_id\n", r"line 1 names no attribute"),
        ("txt", f"3\nMale Smiling\n{ROWS}", r"line 1 says 3 images, and there are 2; .* correct line 1"),
        ("txt", f"1\nMale Smiling\n{ROWS}", r"line 1 says 1 image, and there are 2"),
        ("txt", f"2\nMale Smiling\n{ROWS}000003.jpg 1\n", r"line 5 has 1 value for 2 attributes; fetch"),
        ("txt", f"3\n\nMale Smiling\n{ROWS}\n000003.jpg 1 1 1\n", r"line 7 has 3 values for 2 attributes"),
        ("csv", f"{HEAD}000001.jpg,1,1\n000002.jpg,1\n", r"line 3 has 1 value for 2 attributes"),
        ("txt", "1\nMale Smiling\n000001.jpg -1 2\n", r"line 3: Smiling is '2', neither 1 nor -1; fetch"),
        ("csv", f"{HEAD}000001.jpg,yes,1\n", r"line 2: Male is 'yes', neither 1 nor -1"),
        ("csv", f"{HEAD}000001.jpg,,1\n", r"line 2: Male is '', neither 1 nor -1"),
        ("txt", "2\nMale Bald Male\n", r"line 2 names the attribute Male twice"),
        ("csv", "image_id,Bald,Male,Bald\n", r"line 1 names the attribute Bald twice"),
        ("txt", f"3\nMale Smiling\n{ROWS}000001.jpg 1 1\n", r"line 5: 000001\.jpg is in line 3 already; keep"),
        ("csv", f"{HEAD}a.jpg,1,1\nb.jpg,1,1\na.jpg,1,1\n", r"line 4: a\.jpg is in line 2 already"),
        ("txt", b"\xff\xfe\x00", r"cannot be read: 'utf-8'"),
        ("csv", f'{HEAD}"{"a" * 200_000}",1,1\n', r"cannot be read: field larger than field limit"),
    ],
)
def test_damaged_attributes_are_named_by_line(tmp_path: Path, name: str, text: str | bytes, says: str) -> None:
    write_images(tmp_path / "img_align_celeba", (1, 2))
    path = tmp_path / f"list_attr_celeba.{name}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=says) as refused:
        files(tmp_path, "train")
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("txt", "000001.jpg 3\n", r"line 1: the split is '3', neither 0 nor 1 nor 2; fetch it again"),
        ("txt", "000001.jpg 0\n000002.jpg\n", r"line 2: the split is '', neither"),
        ("csv", "image_id,partition\n000001.jpg,0,1\n", r"line 2: the split is '0 1'"),
        ("txt", "000001.jpg 0\n000001.jpg 1\n", r"line 2: 000001\.jpg is in line 1 already"),
        ("txt", "000003.jpg 0\n", r"lacks 9 images of list_attr_celeba\.txt, the first 000001\.jpg; fetch"),
        ("csv", "000001.jpg,0\n", r"lacks 10 images"),  # no names of columns
    ],
)
def test_damaged_partitions_are_named_by_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    root = write_celeba(tmp_path)
    path = root / f"list_eval_partition.{name}"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as refused:
        files(root, "train")
    assert str(path) in str(refused.value)


def test_what_spreadsheets_do_to_files_is_understood(tmp_path: Path) -> None:
    write_images(tmp_path / "img_align_celeba", (1,))
    text = '\ufeffimage_id, Male,"Smiling"\r\n"000001.jpg", 0, 1\r\n\r\n,,\r\n'
    (tmp_path / "list_attr_celeba.csv").write_bytes(text.encode())
    write_partition(tmp_path / "list_eval_partition.txt", {1: 2, 2: 0})  # more than is annotated
    (row,) = Celeba().load("test", data_root=tmp_path)
    assert row["attributes"] == {"Male": False, "Smiling": True}


def test_real_faces_become_samples(tmp_path: Path) -> None:
    root = write_celeba(tmp_path, range(1, 21))
    samples = DatasetSamples(Celeba().load("val", data_root=root), Attributes(), (16, 16))
    images, concepts, present = samples.batch([0, 1], [False, True])
    assert images.shape == (2, 3, 16, 16) and present.all()
    # 17 is black-haired and no more, 18 has glasses and no more
    expected = [[[0, 1], [1, 0], [1, 0]], [[1, 0], [0, 1], [1, 0]]]
    for rows, each in zip(concepts, expected, strict=True):
        torch.testing.assert_close(rows, torch.block_diag(*torch.tensor(each, dtype=torch.float32)[:, None]))


# Options


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"split": "extra"}, "no split 'extra'; choose train or val or test"),
        ({"glitter": 1}, "no option 'glitter'"),
        ({"domain": "mal"}, r"unknown domain 'mal'; did you mean (male|female)"),
        ({"domain": "robots"}, "unknown domain 'robots'; known are female, male, all"),
        ({"style": "outline"}, r"unknown style 'outline'; did you mean outlined\?"),
        ({"size": 0}, "size must be a whole number of at least 1"),
        ({"data_root": Path(), "style": "flat"}, "'style' works on drawn faces only"),
        ({"data_root": Path(), "size": 3}, "'size' works on drawn faces only"),
    ],
)
def test_wrong_options_are_usage_errors(wrong: dict[str, object], says: str) -> None:
    options: dict[str, object] = {"split": "val", **wrong}
    with pytest.raises(UsageError, match=says):
        Celeba().load(str(options.pop("split")), **options)


# The recipe of drawn faces


def face(seed: int, **changed: bool) -> recipe.Face:
    given = {"black_hair": False, "eyeglasses": False, "smiling": False, "male": False} | changed
    return recipe.draw_face(random.Random(seed), **given)


@pytest.mark.parametrize("male", [False, True, None])
def test_every_configuration_is_as_frequent_as_any_other(male: bool | None) -> None:
    faces = [recipe.balanced_face(index, 5, male) for index in range(64)]
    counts = Counter(tuple(f.attributes[name] for name in recipe.ATTRIBUTES) for f in faces)
    assert set(counts.values()) == {64 // len(counts)}
    assert len(counts) == (16 if male is None else 8)
    assert {f.attributes["Male"] for f in faces} == ({False, True} if male is None else {male})


def test_a_seed_gives_one_face() -> None:
    assert recipe.balanced_face(11, 3, None) == recipe.balanced_face(11, 3, None)
    others = [recipe.balanced_face(11, 4, None), recipe.balanced_face(27, 3, None)]
    assert all(other != recipe.balanced_face(11, 3, None) for other in others)
    assert len({repr(recipe.balanced_face(i, 0, None)) for i in range(300)}) == 300


@pytest.mark.parametrize(
    ("attribute", "depends"),
    [
        ("black_hair", {"hair_color"}),
        ("eyeglasses", {"glasses"}),
        ("smiling", {"mouth"}),
        ("male", {"hair", "facial_hair"}),
    ],
)
def test_an_attribute_changes_only_what_depends_on_it(attribute: str, depends: set[str]) -> None:
    for seed in range(100):
        before, after = face(seed), face(seed, **{attribute: True})
        fields = [f.name for f in dataclasses.fields(recipe.Face)]
        changed = {name for name in fields if getattr(before, name) != getattr(after, name)}
        assert changed == depends | {"attributes"}
        name = {a.lower(): a for a in recipe.ATTRIBUTES}[attribute]
        assert after.attributes == before.attributes | {name: True}


def test_parts_are_of_their_domain_and_attributes() -> None:
    faces = [recipe.balanced_face(index, 0, None) for index in range(2000)]
    seen: dict[tuple[bool, str], set[str]] = {}
    for f in faces:
        for part, attribute in (("hair", "Male"), ("facial_hair", "Male"), ("glasses", "Eyeglasses")):
            seen.setdefault((f.attributes[attribute], part), set()).add(getattr(f, part))
        seen.setdefault((f.attributes["Smiling"], "mouth"), set()).add(f.mouth)
    assert seen == {
        (False, "hair"): set(recipe.LONG_HAIR),
        (True, "hair"): set(recipe.SHORT_HAIR),
        (False, "facial_hair"): {"NONE"},
        (True, "facial_hair"): set(recipe.FACIAL_HAIR),
        (False, "glasses"): {"NONE"},
        (True, "glasses"): set(recipe.GLASSES),
        (False, "mouth"): set(recipe.OTHER_MOUTHS),
        (True, "mouth"): set(recipe.SMILES),
    }
    for one, other in ((recipe.LONG_HAIR, recipe.SHORT_HAIR), (recipe.SMILES, recipe.OTHER_MOUTHS)):
        assert not set(one) & set(other)


def test_a_beard_tells_nothing_of_the_hair() -> None:
    for seed in range(200):
        black, other = face(seed, male=True, black_hair=True), face(seed, male=True)
        assert black.beard_color == other.beard_color
        assert max(black.hair_color) < 60 < max(other.hair_color)
        assert all(0 <= value <= 255 for value in (*black.beard_color, *other.hair_color, *black.skin))


# Faces drawn


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, object]]]:
    """Draws faces into a cache of the test's own."""
    pytest.importorskip("python_avatars")
    pytest.importorskip("resvg_py")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))

    def load(split: str, **options: object) -> list[dict[str, object]]:
        return list(registry.dataset("celeba").load(split, **options))

    return load


def pixels(rows: list[dict[str, object]]) -> list[bytes]:
    return [row["image"].tobytes() for row in rows]


def test_faces_are_drawn(draw: Callable[..., list[dict[str, object]]]) -> None:
    calls: list[tuple[str, int, int]] = []
    rows = draw("val", size=16, domain="all", progress=lambda *a: calls.append(a))
    assert calls[-1] == ("drawing faces", 16, 16)
    assert {(row["image"].size, row["image"].mode) for row in rows} == {((96, 96), "RGB")}
    assert [row["file"] for row in rows[:2]] == ["face_000000.png", "face_000001.png"]
    assert len({tuple(row["attributes"].values()) for row in rows}) == len(set(pixels(rows))) == 16
    first = len(calls)
    assert pixels(draw("val", size=16, domain="all", progress=lambda *a: calls.append(a))) == pixels(rows)
    assert len(calls) == first  # from the cache


def test_each_split_domain_seed_and_style_has_faces_of_its_own(
    draw: Callable[..., list[dict[str, object]]],
) -> None:
    kinds = [
        draw("train", size=4, domain="female"),
        draw("val", size=4, domain="female"),
        draw("test", limit=4, domain="female"),
        draw("val", size=4, domain="male"),
        draw("val", size=4, domain="female", seed=1),
        draw("val", size=4, domain="female", style="outlined"),
    ]
    assert [len(rows) for rows in kinds] == [4] * 6
    assert len({picture for rows in kinds for picture in pixels(rows)}) == 24
    assert [{row["attributes"]["Male"] for row in rows} for rows in kinds[2:4]] == [{False}, {True}]
    assert [row["attributes"] for row in kinds[1]] == [row["attributes"] for row in kinds[5]]


def test_the_same_seed_draws_the_same_pixels() -> None:
    pytest.importorskip("python_avatars")
    pytest.importorskip("resvg_py")
    from igm_cli.plugins.celeba.avatars import render_face, scene_svg

    one = face(3, smiling=True)
    assert render_face(one).tobytes() == render_face(face(3, smiling=True)).tobytes()
    assert render_face(one, size=40).size == (40, 40)
    assert scene_svg(one) != scene_svg(face(3))
    for kind in recipe.BACKDROPS:
        backdrop = recipe.Backdrop(kind, ((255, 0, 0), (0, 0, 255)), 30.0, 20.0)
        colors = render_face(dataclasses.replace(one, backdrop=backdrop)).getcolors(96 * 96)
        blues = sum(count for count, color in colors if color == (0, 0, 255))
        assert (blues > 50) == (kind in ("stripes", "dots"))


def test_every_part_is_known_to_the_library() -> None:
    library = pytest.importorskip("python_avatars")
    for kind, names in {
        "HairType": recipe.LONG_HAIR + recipe.SHORT_HAIR,
        "FacialHairType": (*recipe.FACIAL_HAIR, "NONE"),
        "AccessoryType": (*recipe.GLASSES, "NONE"),
        "MouthType": recipe.SMILES + recipe.OTHER_MOUTHS,
        "EyeType": recipe.EYES,
        "EyebrowType": recipe.BROWS,
        "NoseType": recipe.NOSES,
        "ClothingType": recipe.CLOTHES,
    }.items():
        assert not set(names) - set(getattr(library, kind).__members__), kind


@pytest.mark.parametrize("library", ["python_avatars", "resvg_py"])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    if library == "resvg_py":
        pytest.importorskip("python_avatars")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingError, match=rf"--data-root.*{library}.*pip install 'igm-cli\[faces\]'"):
        Celeba().load("val", size=1)


# The concept parser


WORDS = st.text("abcdefgh_", min_size=1, max_size=6)
SPACES = st.dictionaries(
    WORDS, st.lists(WORDS, min_size=2, max_size=5, unique=True).map(tuple), min_size=1, max_size=6
)


@settings(deadline=None, max_examples=60)
@given(SPACES, st.randoms(use_true_random=False))
def test_encode_and_decode_are_inverse(factors: dict[str, tuple[str, ...]], rng: random.Random) -> None:
    parser = Attributes(factors)
    items = [{"factor": factor, "value": rng.choice(values)} for factor, values in factors.items()]
    concepts = parser.encode(items, FRAME)
    assert concepts.shape == (len(factors), sum(map(len, factors.values())))
    assert set(concepts.flatten().tolist()) == {0.0, 1.0} and concepts.sum(dim=1).eq(1).all()
    assert parser.decode(concepts, FRAME) == items
    assert parser.encode(items[::-1], FRAME).equal(concepts.flip(0))
    annotation = {item["factor"]: item["value"] for item in items[::-1]}
    assert parser.parse({"attributes": annotation}, FRAME).equal(concepts)  # in the order of the space
    assert parser.mirror(concepts).equal(concepts)
    text = ",".join(f"{factor}={'|'.join(values)}" for factor, values in factors.items())
    assert parser.configured({"factors": text}).space == parser.space


def test_nothing_encodes_to_nothing() -> None:
    parser = Attributes()
    assert parser.space.factors == dict.fromkeys(("Black_Hair", "Eyeglasses", "Smiling"), NO_YES)
    assert parser.encode([], FRAME).shape == (0, 6)
    assert parser.decode(torch.zeros(0, 6), FRAME) == []


@pytest.mark.parametrize(
    ("value", "name"),
    [
        *((value, "yes") for value in (True, 1, 1.0, "1", "True", "yes")),
        *((value, "no") for value in (False, 0, -1, -1.0, "0", "-1", "False", "no")),
    ],
)
def test_ways_to_annotate(value: object, name: str) -> None:
    example = {"attributes": {"Smiling": value, "Male": None}}
    parser = Attributes(parse_factors("Smiling"))
    assert parser.decode(parser.parse(example, FRAME), FRAME) == [{"factor": "Smiling", "value": name}]


def test_annotations_that_do_not_fit_are_named() -> None:
    parser = Attributes(parse_factors("Smiling,hair=black|blond|grey"))
    full = {"Smiling": True, "hair": "grey", "Male": True}
    assert parser.parse({"attributes": full}, FRAME).argmax(dim=1).tolist() == [1, 4]
    for example in ({}, {"attributes": None}, {"attributes": ["Smiling"]}):
        with pytest.raises(InputError, match="need a column 'attributes'"):
            parser.parse(example, FRAME)
    for attributes, says in (
        ({"smiling": True}, r"no attribute 'Smiling'; did you mean smiling\?"),
        ({"Smiling": None, "Bald": True}, "no attribute 'Smiling'; known are Bald"),
        ({"Smiling": 2, "hair": "grey"}, "Smiling cannot be '2'; known are no, yes"),
        ({"Smiling": 1, "hair": "blonde"}, r"hair cannot be 'blonde'; did you mean blond\?"),
        ({"Smiling": 1, "hair": True}, "hair cannot be 'True'"),
    ):
        with pytest.raises(InputError, match=says):
            parser.parse({"attributes": attributes}, FRAME)
    with pytest.raises(InputError, match=r"knows no attribute 'Hair'; did you mean hair\?"):
        parser.encode([{"factor": "Hair", "value": "black"}], FRAME)
    with pytest.raises(InputError, match=r"hair cannot be 'gray'; did you mean grey\?"):
        parser.encode([{"factor": "hair", "value": "gray"}], FRAME)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hair=black", r"'hair' needs at least two different values, such as hair=no\|yes"),
        ("hair=", "'hair' needs at least two"),
        ("hair=black|black", "'hair' needs at least two different"),
        ("hair=black|blond|black", "'hair' needs at least two different"),
        ("hair=a|b,hair=c|d", "each its own"),
        ("", "names with commas between them"),
        ("=no|yes", "a name each"),
    ],
)
def test_factors_that_cannot_be(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Attributes().configured({"factors": text})


def test_factors_as_a_list_and_with_spaces() -> None:
    expected = {"Smiling": NO_YES, "hair": ("black", "dark blond")}
    assert parse_factors(" Smiling , hair = black | dark blond") == expected
    assert parse_factors(["Smiling", "hair=black|dark blond"]) == expected
    assert Attributes().configured({}).space == Attributes().space


def test_scores() -> None:
    parser = Attributes()
    truth = parser.parse({"attributes": dict.fromkeys(parser.space.factors, True)}, FRAME)
    near = parser.parse({"attributes": {"Black_Hair": 1, "Eyeglasses": -1, "Smiling": 1}}, FRAME)
    assert set(parser.score(truth, truth).values()) == {1.0}
    expected = {"all_right": 0.0, "Black_Hair": 1.0, "Eyeglasses": 0.0, "Smiling": 1.0}
    assert parser.score(near, truth) == expected


# The picture of attributes


def listed(count: int, confidence: float | None = 0.97) -> list[dict[str, object]]:
    return [{"factor": f"Factor_{k}", "value": NO_YES[k % 2], "confidence": confidence} for k in range(count)]


@pytest.mark.parametrize("size", [(1, 1), (18, 22), (300, 100), (900, 1200)])
@pytest.mark.parametrize(("count", "confidence"), [(0, None), (1, float("nan")), (3, 0.0), (3, 0.5), (40, 1.0)])
def test_attributes_are_written_beside_the_image(
    size: tuple[int, int], count: int, confidence: float | None
) -> None:
    image = Image.new("RGB", size, (200, 0, 0))
    before = image.tobytes()
    drawn = Attributes().draw(image, listed(count, confidence))
    assert image.tobytes() == before
    shown = max(HEIGHT, size[1])
    assert drawn.mode == "RGB" and drawn.height == max(shown, LINE * count)
    width = round(size[0] * shown / size[1])  # the image, in its aspect
    assert drawn.width > width
    assert drawn.crop((0, 0, width, shown)).getcolors() == [(width * shown, (200, 0, 0))]
    beside = drawn.crop((width, 0, *drawn.size)).getcolors(drawn.width * drawn.height)
    assert (len(beside) > 1) == (count > 0)


def test_no_side_of_a_long_image_explodes() -> None:
    drawn = Attributes().draw(Image.new("RGB", (4000, 2)), listed(3))
    assert drawn.width < LONG_SIDE + 1000 and drawn.height == 3 * LINE


def test_doubt_is_another_colour() -> None:
    def colors(confidence: float | None) -> set[tuple[int, ...]]:
        drawn = Attributes().draw(Image.new("L", (64, 64)), listed(3, confidence))
        return {color for count, color in drawn.getcolors(drawn.width * drawn.height) if count > 40}

    blue, orange = (40, 120, 200), (225, 110, 40)
    assert blue in colors(0.95) and orange not in colors(0.95)
    assert orange in colors(0.6) and blue not in colors(0.6)
    assert blue in colors(None) and orange not in colors(None)
    without = [{"factor": "Smiling", "value": "yes"}]
    assert Attributes().draw(Image.new("RGBA", (64, 64)), without).mode == "RGB"


def test_the_plugins_are_there() -> None:
    adapter = registry.dataset("celeba")
    assert "[[data]]" in adapter.presets["default"].read_text()
    assert registry.concept_parser(adapter.concepts).name == "attributes"
