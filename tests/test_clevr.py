"""The CLEVR adapter and the position parser."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from igm_cli.errors import InputError, MissingError, PluginError, UsageError
from igm_cli.plugins import registry
from igm_cli.plugins.adapters import number_range
from igm_cli.plugins.base import Frame
from igm_cli.plugins.clevr.adapter import RENDERER, Clevr
from igm_cli.plugins.positions import Positions
from igm_cli.plugins.samples import DatasetSamples, JoinedSamples, RenderedSamples

POS = Positions()
unit = st.floats(0, 1, allow_nan=False, width=32)


def write_clevr(root, scenes_at_root=False, count=4):
    (root / "images" / "val").mkdir(parents=True)
    scenes = []
    for i in range(count):
        name = f"CLEVR_val_{i:06d}.png"
        Image.new("RGB", (480, 320), (i, 20, 30)).save(root / "images" / "val" / name)
        objects = [{"pixel_coords": [48.0 * (k + 1), 32.0, 9.0], "shape": "cube"} for k in range(i + 1)]
        scenes.append({"image_index": i, "image_filename": name, "objects": objects})
    folder = root if scenes_at_root else root / "scenes"
    folder.mkdir(exist_ok=True)
    (folder / "CLEVR_val_scenes.json").write_text(json.dumps({"info": {}, "scenes": scenes}))
    return root


@pytest.mark.parametrize("at_root", [False, True])
def test_the_published_layout_is_read(tmp_path, at_root):
    data = Clevr().load("val", data_root=write_clevr(tmp_path, at_root))
    assert [len(row["objects"]) for row in data] == [1, 2, 3, 4]
    assert data[2]["image"].size == (480, 320) and data[2]["file"] == "CLEVR_val_000002.png"
    concepts = POS.parse(data[1], Frame.fit((480, 320), 1.5))
    torch.testing.assert_close(concepts, torch.tensor([[0.1, 0.1], [0.2, 0.1]]))


def test_scenes_are_chosen_by_their_number_of_objects(tmp_path):
    root = write_clevr(tmp_path)
    assert len(Clevr().load("val", data_root=root, objects="2-3")) == 2
    assert len(Clevr().load("val", data_root=root, limit=1)) == 1
    with pytest.raises(InputError, match="so many objects"):
        Clevr().load("val", data_root=root, objects="9-10")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        Clevr().load("val", data_root=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"CLEVR_val_scenes\.json"):
        Clevr().load("val", data_root=tmp_path)
    root = write_clevr(tmp_path)
    (root / "images" / "val" / "CLEVR_val_000001.png").unlink()
    with pytest.raises(InputError, match=r"000001\.png is annotated but missing"):
        Clevr().load("val", data_root=root)
    (root / "scenes" / "CLEVR_val_scenes.json").write_text('{"scenes": [{}]}')
    with pytest.raises(InputError, match="not a CLEVR scene file"):
        Clevr().load("val", data_root=root)


@pytest.mark.parametrize(
    "wrong",
    [
        {"split": "test"},
        {"glitter": 1},
        {"objects": "5-3"},
        {"objects": "many"},
        {"colors": "mauve"},
        {"size": "x"},
        {"objects": 3.5},
        {"objects": [3.5, 4]},
        {"crowd": "abc"},
        {"colors": 5},
        {"colors": [5]},
        {"objects": "12-12", "sizes": "huge", "size": 1},
    ],
)
def test_wrong_options_are_usage_errors(wrong):
    options = {"split": "val", **wrong}
    with pytest.raises(UsageError):
        Clevr().load(options.pop("split"), **options)


def test_number_ranges():
    assert [number_range("objects", each) for each in ("3-5", 4, [6, 8])] == [(3, 5), (4, 4), (6, 8)]


def offer_as_renderer(monkeypatch, target):
    """Has package metadata name another renderer, or none."""
    known = registry.entry_points

    def entry_points(group):
        others = [point for point in known(group=group) if point.name != RENDERER]
        wanted = target and group == "igm_cli.datasets"
        return [*others, *([EntryPoint(RENDERER, target, group)] if wanted else [])]

    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_real_images_need_no_renderer(tmp_path, monkeypatch):
    offer_as_renderer(monkeypatch, None)
    clevr = registry.dataset("clevr")
    assert (list(clevr.options), clevr.rendered_options, clevr.version) == (
        ["objects", "annotated"],
        frozenset(),
        0,
    )
    assert len(clevr.load("val", data_root=write_clevr(tmp_path), objects="2-3")) == 2
    for name in ("clevr", "clevrtex"):
        with pytest.raises(MissingError, match=rf"renders {name} .*'igm-cli\[render\]'.*--data-root") as error:
            registry.dataset(name).load("val", size=2)
        assert error.value.exit_code == 4


def test_a_broken_renderer_breaks_rendered_images_only(tmp_path, monkeypatch):
    offer_as_renderer(monkeypatch, "no_such_module:Renderer")
    clevr = registry.dataset("clevr")
    assert len(clevr.load("val", data_root=write_clevr(tmp_path))) == 4
    with pytest.raises(PluginError, match=r"no_such_module.*ModuleNotFoundError"):
        clevr.load("val")


def test_renders_are_cached_and_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    calls = []
    first = Clevr().load("val", size=3, objects="3-4", progress=lambda *a: calls.append(a))
    assert calls == [("rendering scenes", done, 3) for done in (1, 2, 3)]
    rendered = len(calls)
    again = Clevr().load("val", size=3, objects="3-4", progress=lambda *a: calls.append(a))
    assert len(calls) == rendered  # from the cache
    assert first[1]["image"].tobytes() == again[1]["image"].tobytes()
    other = Clevr().load("val", size=3, objects="3-4", seed=1)
    assert first[0]["image"].tobytes() != other[0]["image"].tobytes()
    assert all(3 <= len(row["objects"]) <= 4 for row in first)


frames = st.builds(
    Frame.fit,
    st.tuples(st.integers(32, 2000), st.integers(32, 2000)),
    st.floats(0.5, 2.0),
    st.sampled_from(["crop", "squash"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(unit, unit), max_size=6), frames)
def test_encode_inverts_decode(points, frame):
    concepts = torch.tensor(points, dtype=torch.float32).reshape(-1, 2)
    items = POS.decode(concepts, frame)
    torch.testing.assert_close(POS.encode(items, frame), concepts, atol=1e-5, rtol=1e-5)
    for item in items:
        assert item["x_px"] == pytest.approx(item["x"] * frame.size[0])
        assert -1e-6 <= item["x"] <= 1 + 1e-6 and -1e-6 <= item["y"] <= 1 + 1e-6
    torch.testing.assert_close(POS.mirror(POS.mirror(concepts)), concepts)


def test_a_cropped_image_keeps_its_own_coordinates():
    frame = Frame.fit((320, 240), 1.5)  # CLEVR's 3:2 out of 4:3
    assert frame.box == pytest.approx((0, 13.333, 320, 226.667), abs=1e-3)
    (item,) = POS.decode(torch.tensor([[0.5, 0.0]]), frame)
    assert (item["x_px"], item["y_px"]) == pytest.approx((160, 13.333), abs=1e-3)


def test_objects_outside_the_frame_are_left_out():
    example = {"objects": [{"pixel_coords": [160, 5, 9]}, {"pixel_coords": [160, 120, 9]}]}
    assert len(POS.parse(example, Frame.fit((320, 240), 1.5))) == 1
    with pytest.raises(InputError, match="pixel_coords"):
        POS.parse({"objects": [{"shape": "cube"}]}, Frame.fit((320, 240), 1.5))


def test_scenes_of_images_of_another_size():
    frame = Frame.fit((96, 64), 1.5)
    near = {"objects": [{"pixel_coords": [-3, 66, 9]}]}
    assert len(POS.parse(near, frame)) == 0  # its centre is slightly off: no mistake
    with pytest.raises(InputError, match=r"\(300, 200\) lie outside their 96×64 image"):
        POS.parse({"objects": [{"pixel_coords": [300, 200, 9]}]}, frame)
    with pytest.raises(InputError, match="outside"):
        POS.parse({"objects": [{"pixel_coords": [float("nan"), 20, 9]}]}, frame)
    with pytest.raises(InputError, match="x and y"):
        POS.parse({"objects": [{"pixel_coords": [30]}]}, frame)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image_index": "one"}, "image_index"),
        ({"image_filename": 3}, "image_filename"),
        ({"objects": "none"}, "objects"),
        ({"objects": [{"pixel_coords": [3]}]}, "pixel_coords"),
    ],
)
def test_damaged_scene_files(tmp_path, changes, says):
    file = write_clevr(tmp_path) / "scenes" / "CLEVR_val_scenes.json"
    content = json.loads(file.read_text())
    content["scenes"][1] |= changes
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=says):
        Clevr().load("val", data_root=tmp_path)


def test_scores_count_perceived_objects():
    truth = torch.tensor([[0.2, 0.2], [0.8, 0.8]])
    score = POS.score(torch.tensor([[0.8, 0.8], [0.25, 0.2]]), truth)
    assert (score["perceived_sum"], score["perceived_mean"], score["objects"]) == (1.0, 2.0, 2.0)
    assert score["k_exact"] == 1.0


def test_drawings_leave_the_image_alone():
    image = Image.new("RGB", (96, 64), (9, 9, 9))
    drawn = POS.draw(
        image, [{"x": 0.5, "y": 0.5, "confidence": 0.99}, {"x": 0.1, "y": 0.9, "confidence": None}]
    )
    assert image.getpixel((48, 32)) == (9, 9, 9)
    assert drawn.width / drawn.height == pytest.approx(1.5) and drawn.getextrema() != image.getextrema()


def test_drawings_of_long_images_stay_small():
    drawn = POS.draw(Image.new("RGB", (3000, 4)), [{"x": 0.5, "y": 0.5}])
    assert max(drawn.size) <= 4096
    assert POS.draw(Image.new("RGB", (5000, 10)), []).size == (5000, 10)


@pytest.mark.parametrize("name", ["clevr", "clevrtex"])
def test_what_a_device_renders_is_trained_on_as_what_is_loaded(name: str) -> None:
    adapter, asked = registry.dataset(name), {"limit": 3, "seed": 4, "objects": "3-4", "size": 9}
    loaded = DatasetSamples(adapter.load("val", **asked), POS, (96, 64))
    rendered = RenderedSamples(
        adapter.render("val", device=torch.device("cpu"), progress=lambda *step: None, **asked), POS
    )
    assert len(rendered) == len(loaded) == 3
    for one, other in zip(
        rendered.batch([2, 0], [True, False]), loaded.batch([2, 0], [True, False]), strict=True
    ):
        assert torch.equal(one, other)
    with pytest.raises(UsageError, match="no option 'colour'"):
        adapter.render("val", device=torch.device("cpu"), colour="red", **asked | {"progress": print})


def test_samples_flip_images_and_positions_together():
    data = Clevr().load("val", size=3, objects="3-4")
    samples = JoinedSamples([DatasetSamples(data, POS, (96, 64)), DatasetSamples(data, POS, (96, 64))])
    assert len(samples) == 6
    images, concepts, present = samples.batch([0, 3, 4], [False, True, False])
    torch.testing.assert_close(images[1], images[0].flip(-1))
    torch.testing.assert_close(concepts[1, :, 0][present[1]], 1 - concepts[0, :, 0][present[0]])
    assert images.dtype == torch.uint8 and images.shape == (3, 3, 64, 96)
