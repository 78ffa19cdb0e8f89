"""The CLEVRTex adapter: the published layout, and textured renders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from igm_clevr_render.examples import render_examples
from igm_clevr_render.options import SceneOptions
from igm_cli.errors import InputError, UsageError
from igm_cli.plugins import registry
from igm_cli.plugins.base import Frame
from igm_cli.plugins.clevrtex.adapter import ClevrTex
from igm_cli.plugins.positions import Positions
from igm_cli.plugins.samples import DatasetSamples

POS = Positions()


def write_clevrtex(folder: Path, variant: str = "full", count: int = 20, chunk: int = 8) -> Path:
    """As clevrtex-generation leaves it (in chunks of 1000), image number i of 3 + i % 8 objects."""
    for i in range(count):
        parent = folder / str(i // chunk) if chunk else folder
        parent.mkdir(parents=True, exist_ok=True)
        stem = f"CLEVRTEX_{variant}_{i:06d}"
        Image.new("RGBA", (320, 240), (i, 20, 30, 255)).save(parent / f"{stem}.png")
        Image.new("P", (320, 240)).save(parent / f"{stem}_flat.png")
        Image.new("L", (320, 240)).save(parent / f"{stem}_depth_0001.png")
        objects = [
            {
                "shape": "monkey",
                "rotation": 20.5,
                "size": "medium",
                "3d_coords": [0.1, -2.0, 0.6],
                "pixel_coords": [32 * (k + 1), 120, 11.2],
                "index": k + 1,
                "color": "red",
                "material": "poliigonmarble062",
            }
            for k in range(3 + i % 8)
        ]
        scene = {
            "num_objects": len(objects),
            "split": variant,
            "image_index": i,
            "image_filename": f"{stem}.png",
            "ground_material": "poliigonplaster07",
            "directions": {"left": [-0.7, -0.7, 0.0]},
            "objects": objects,
            "relationships": {"left": [[]]},
            "mask_filename": f"{stem}_flat.png",
        }
        (parent / f"{stem}.json").write_text(json.dumps(scene))
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds two variants; tests leave it alone."""
    root = tmp_path_factory.mktemp("clevrtex")
    write_clevrtex(root / "clevrtex_full")
    write_clevrtex(root / "clevrtex_outd", "outd", count=3)
    return root


def numbers(root: Path, split: str, **options: object) -> list[int]:
    return ClevrTex().load(split, data_root=root, **options)["image_index"][:]


def test_the_splits_are_the_official_ones(both: Path) -> None:
    root = both / "clevrtex_full"
    assert numbers(root, "test") == [0, 1]
    assert numbers(root, "val") == [2, 3]
    assert numbers(root, "train") == list(range(4, 20))


def test_positions_are_read(both: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    data = ClevrTex().load("val", data_root=both, progress=lambda *a: calls.append(a))
    assert calls == [("reading scenes", 1, 2), ("reading scenes", 2, 2)]
    row = data[0]
    assert row["image"].size == (320, 240) and row["file"] == "CLEVRTEX_full_000002.png"
    assert row["objects"][0]["material"] == "poliigonmarble062"
    assert row["objects"][0]["color"] == ""  # not that of the picture
    concepts = POS.parse(row, Frame.fit((320, 240), 1.5))
    torch.testing.assert_close(concepts, torch.tensor([[0.1 * k, 0.5] for k in range(1, 6)]))
    images, _, present = DatasetSamples(data, POS, (96, 64)).batch([0, 1], [False, True])
    assert images.shape == (2, 3, 64, 96) and present.sum(dim=1).tolist() == [5, 6]


def test_folders_of_any_depth(tmp_path: Path, both: Path) -> None:
    assert numbers(both, "test") == [0, 1]  # full is taken where it is
    flat = write_clevrtex(tmp_path / "flat", count=10, chunk=0)
    assert numbers(flat, "val") == [1]
    deep = write_clevrtex(tmp_path / "deep" / "clevrtex_camo" / "clevrtex_camo", "camo", count=10, chunk=1)
    for root in (deep, deep.parent, deep.parent.parent, tmp_path / "deep"):
        assert numbers(root, "val", variant="camo") == numbers(root, "val") == [1]


def test_annotations_of_another_size_are_scaled(tmp_path: Path) -> None:
    root = write_clevrtex(tmp_path, count=10, chunk=0)
    (row,) = ClevrTex().load("test", data_root=root, annotated="640x480")
    assert row["objects"][0]["pixel_coords"] == pytest.approx([16, 60, 11.2])
    for path in root.glob("*.png"):
        Image.new("RGB", (32, 24)).save(path)
    with pytest.raises(InputError, match=r"lie outside of their images; .*data\.annotated=WIDTHxHEIGHT"):
        ClevrTex().load("test", data_root=root)


def test_variants(tmp_path: Path, both: Path) -> None:
    assert numbers(both, "test", variant="outd") == [0, 1, 2]  # outd has no splits
    with pytest.raises(UsageError, match="for testing only; choose split test"):
        numbers(both, "train", variant="outd")
    with pytest.raises(UsageError, match="no variant 'camo' of clevrtex; it holds full, outd"):
        numbers(both, "train", variant="camo")
    for variant in ("vbg", "pbg"):
        write_clevrtex(tmp_path, variant, count=5, chunk=0)
    with pytest.raises(UsageError, match="several variants; choose one with variant: pbg, vbg"):
        numbers(tmp_path, "train")
    (row, *_) = ClevrTex().load("train", data_root=tmp_path, variant="vbg")
    assert row["objects"][0]["color"] == "red"


def test_scenes_are_chosen_by_their_number_of_objects(both: Path) -> None:
    assert numbers(both, "train", objects="3-5") == [8, 9, 10, 16, 17, 18]
    assert numbers(both, "train", objects="3-5", limit=2) == [8, 9]
    with pytest.raises(InputError, match="no train scene with so many objects"):
        numbers(both, "train", objects="11-12")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        numbers(tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match="layout of CLEVRTex"):
        numbers(tmp_path, "train")
    root = write_clevrtex(tmp_path / "clevrtex_full", count=5)
    with pytest.raises(InputError, match=r"too few images \(5\) for a test split"):
        numbers(root, "test")
    annotation = root / "0" / "CLEVRTEX_full_000002.json"
    text = annotation.read_text()
    annotation.unlink()
    with pytest.raises(InputError, match=r"lacks CLEVRTEX_full_000002\.json"):
        numbers(root, "train")
    annotation.write_text(text)
    for name in ("000004", "000003"):
        (root / "0" / f"CLEVRTEX_full_{name}.png").unlink()
        with pytest.raises(InputError, match=rf"lacks CLEVRTEX_full_{name}\.png.*extract all"):
            numbers(root, "train")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not a CLEVRTex annotation: JSONDecodeError"),
        ("{}", "is not a CLEVRTex annotation: KeyError"),
        ('{"objects": 3}', "objects is no list"),
        ('{"objects": [{"shape": "cube"}]}', r"000001\.json: .*pixel_coords"),
        ('{"objects": [7]}', r"000001\.json: '7' is not an object with fields"),
    ],
)
def test_damaged_annotations(tmp_path: Path, text: str, says: str) -> None:
    root = write_clevrtex(tmp_path, count=5, chunk=0)
    (root / "CLEVRTEX_full_000001.json").write_text(text)
    with pytest.raises(InputError, match=says):
        numbers(root, "train")


def test_two_copies(tmp_path: Path) -> None:
    for copy in ("a", "b"):
        write_clevrtex(tmp_path / copy, count=1)
    with pytest.raises(InputError, match="same name; keep one"):
        numbers(tmp_path, "train")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"split": "extra"}, "no split 'extra'; choose train or val or test"),
        ({"glitter": 1}, "no option 'glitter'"),
        ({"variant": "camo"}, "is about images in a folder"),
        ({"annotated": "12x12"}, "is about images in a folder"),
        ({"texture": "checker,wool"}, "wool"),
        ({"data_root": Path(), "texture": "checker"}, "rendered scenes only"),
    ],
)
def test_wrong_options_are_usage_errors(wrong: dict[str, object], says: str) -> None:
    options: dict[str, object] = {"split": "val", **wrong}
    with pytest.raises(UsageError, match=says):
        ClevrTex().load(str(options.pop("split")), **options)


def test_textured_scenes_are_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    data = registry.dataset("clevrtex").load("test", size=2, objects="3-4")
    assert len(data) == 2
    for row in data:
        assert row["image"].size == (96, 64) and 3 <= len(row["objects"]) <= 4
        assert len(POS.parse(row, Frame.fit((96, 64), 1.5))) == len(row["objects"])
    plain = registry.dataset("clevrtex").load("test", size=2, objects="3-4", texture="none")
    assert plain[0]["objects"] == data[0]["objects"]  # textures change nothing else
    assert plain[0]["image"].tobytes() != data[0]["image"].tobytes()


def test_textures_are_mixed_within_a_scene() -> None:
    def picture(texture: str) -> torch.Tensor:
        (scene,) = render_examples(SceneOptions.parse({"texture": texture, "objects": 5}), 1, seed=2)
        return torch.from_numpy(scene["image"])

    single = picture("stripes")
    torch.testing.assert_close(picture("stripes,stripes"), single, rtol=0, atol=0)
    mixed = picture("stripes,noise")
    assert not mixed.equal(single) and not mixed.equal(picture("noise"))


def test_the_preset_is_there() -> None:
    assert "[[data]]" in ClevrTex().presets["default"].read_text()
