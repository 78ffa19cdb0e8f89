"""The renderer package igm-clevr-render: rules of the scenes, fitting annotations, and the same pictures always."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from igm_clevr_render.camera import focal_length, project, visible_pixels
from igm_clevr_render.dataset import ClevrRender
from igm_clevr_render.examples import annotate, render_batches, render_examples
from igm_clevr_render.lamps import LIGHTS
from igm_clevr_render.materials import TEXTURES
from igm_clevr_render.options import CLEVR_COLORS, COLORS, SIZES, SceneOptions
from igm_clevr_render.renderer import render
from igm_clevr_render.sampling import MARGIN, MIN_DISTANCE, MIN_VISIBLE, QUEUE, Region, sample_scenes
from igm_clevr_render.scenes import Scene, SceneBatch, SceneObject
from igm_cli.errors import InputError, UsageError
from igm_cli.plugins import registry

OPTIONS = SceneOptions()
CENTER_CAMERA = (7.48, -6.51, 5.34)


def _objects(options: SceneOptions, count: int = 12, seed: int = 0) -> list[list[dict[str, Any]]]:
    return annotate(sample_scenes(options, range(count), seed), options)


def _single(**changes: Any) -> Scene:
    item = SceneObject("sphere", "large", "red", "rubber", 0.0, 0.0, 0.7, 0.0)
    return Scene(0, (replace(item, **changes),), CENTER_CAMERA, ((0.0, 0.0, 0.0),) * 3, 0.5)


def _picture(layout: Scene, **options: Any) -> Tensor:
    return render([layout], SceneOptions(**options))[0]


# Hashes of four scenes of seed 3 as the renderer has drawn them since version 2: images, then annotations.
FROZEN: dict[str, tuple[dict[str, str], str, str]] = {
    "default": ({}, "f952dfb38d108b08", "09f1be3b48cf584c"),
    "crowded": ({"objects": "6-8", "crowd": 1.0}, "5d1abbacb80b9052", "a4d9d7e5ea577e8a"),
    "colors": (
        {"colors": "orange,pink,white,black,olive,navy,lime,magenta"},
        "86d93d2a7230df4c",
        "f238ea92359bb62b",
    ),
    "light": ({"light": "shifted"}, "a7f843236038038c", "09f1be3b48cf584c"),
    "sizes": ({"sizes": "tiny,medium,huge"}, "b3733251ac296d9e", "3961cbd93a4afff0"),
    "cones": ({"shapes": "cone"}, "442409c50157d729", "c5e5e867378e770d"),
    "texture": ({"texture": "checker,stripes,noise"}, "b12f5147a3b78aec", "09f1be3b48cf584c"),
}


@pytest.mark.parametrize("name", FROZEN)
def test_scenes_are_those_of_this_version(name: str) -> None:
    """Where this fails on purpose, raise ``ClevrRender.version``, so that nobody is served cached images."""
    options, images, objects = FROZEN[name]
    examples = list(render_examples(SceneOptions.parse(options), 4, seed=3))
    assert _hash(json.dumps(example["objects"]).encode() for example in examples) == objects
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):  # others round a few pixels differently
        assert _hash(example["image"].tobytes() for example in examples) == images


def _hash(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def test_same_seed_gives_the_same_pictures_and_other_seeds_others() -> None:
    first, again, other = (render(sample_scenes(OPTIONS, range(4), seed), OPTIONS) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "options", [OPTIONS, replace(OPTIONS, objects=(6, 8), crowd=1.0), replace(OPTIONS, textures=("noise",))]
)
def test_a_picture_does_not_depend_on_its_batch(options: SceneOptions) -> None:
    whole = sample_scenes(options, range(9), 3)
    images, described = render(whole, options), annotate(whole, options)
    for index in (0, 4, 8):
        alone = sample_scenes(options, [index], 3)
        assert annotate(alone, options)[0] == described[index]
        assert torch.equal(render(alone, options)[0], images[index])
    assert torch.equal(render(whole, options, chunk=2), images)


def test_examples_are_the_same_whatever_the_batch() -> None:
    one = list(render_examples(OPTIONS, 5, seed=1, batch=2))
    two = list(render_examples(OPTIONS, 5, seed=1, batch=64))
    assert [example["image_index"] for example in one] == [0, 1, 2, 3, 4]
    assert one[0]["image"].shape == (64, 96, 3)
    assert one[0]["image"].dtype == "uint8"
    for early, late in zip(one, two, strict=True):
        assert early["objects"] == late["objects"]
        assert (early["image"] == late["image"]).all()


def test_counts_cover_the_range_asked_for() -> None:
    assert {len(objects) for objects in _objects(replace(OPTIONS, objects=(6, 8)), 24)} == {6, 7, 8}
    assert {len(objects) for objects in _objects(replace(OPTIONS, objects=(4, 4)), 4)} == {4}


def test_only_the_allowed_values_occur() -> None:
    names = {"colors": "orange,black", "shapes": ["cone", "cube"], "sizes": "tiny,huge"}
    objects = list(itertools.chain.from_iterable(_objects(SceneOptions.parse(names), 16)))
    assert {o["color"] for o in objects} == {"orange", "black"}
    assert {o["shape"] for o in objects} == {"cone", "cube"}
    assert {(o["size"], o["3d_coords"][2]) for o in objects} == {("tiny", 0.25), ("huge", 0.95)}
    assert {o["material"] for o in objects} == {"rubber", "metal"}


def test_a_mapping_of_sizes_gives_the_radii() -> None:
    objects = _objects(SceneOptions(sizes={"odd": 0.42}), 2)
    assert all(o["size"] == "odd" and o["3d_coords"][2] == 0.42 for scene in objects for o in scene)


def test_sizes_and_places_are_combined_at_a_share_of_the_places() -> None:
    """Seen: any size in some cells, the largest everywhere. Unseen: all else. A larger share adds cells."""

    def cells(combinations: str, largest: bool) -> set[tuple[int, int]]:
        wanted = {"objects": "1-1", "shapes": "sphere", "sizes": "0.3,0.4,1.2", "combinations": combinations}
        scenes = sample_scenes(SceneOptions.parse(wanted), range(400), 0)
        things = [scene.objects[0] for scene in scenes]
        chosen = [thing for thing in things if (thing.radius == 1.2) == largest]
        return {(int((t.x + 3) / 0.3), int((t.y + 3) / 0.3)) for t in chosen}

    few, more = cells("seen:0.02", False), cells("seen:0.1", False)
    assert 4 <= len(few) <= 8 and few < more and 20 < len(more) <= 40
    assert len(cells("seen:0.02", True)) > 150
    assert not cells("unseen:0.1", True) and not cells("unseen:0.1", False) & more


def test_all_combinations_that_are_seen_are_as_likely() -> None:
    wanted = {"objects": "1-1", "shapes": "sphere", "sizes": "0.3,0.4,1.2", "combinations": "seen:0.25"}
    scenes = sample_scenes(SceneOptions.parse(wanted), range(1200), 0)
    small = [scene.objects[0].radius for scene in scenes].count(0.3)
    assert abs(small / 1200 - 0.25 / 1.5) < 0.04  # of three sizes at a quarter of the places and one elsewhere


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"combinations": "seen"}, "seen:SHARE"),
        ({"combinations": "unseen:2"}, "0 < SHARE < 1"),
        ({"combinations": "some:0.1"}, "unseen:SHARE"),
        ({"sizes": "0.3,1.3"}, "between 0.1 and 1.2"),
        ({"sizes": "0.3,vast"}, "'vast' is unknown"),
    ],
)
def test_wrong_combinations_are_named(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        SceneOptions.parse(changes)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"colors": ("mauve",)}, "mauve"),
        ({"shapes": ("torus",)}, "torus"),
        ({"objects": (5, 3)}, "min"),
        ({"light": "disco"}, "disco"),
        ({"textures": ("wood",)}, "wood"),
        ({"sizes": {"vast": 2.0}}, "vast"),
        ({"crowd": 1.5}, "probability"),
    ],
)
def test_wrong_options_are_named(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        SceneOptions(**changes)


def test_all_stands_for_every_name() -> None:
    options = SceneOptions.parse({"colors": "all", "shapes": "all", "sizes": "all", "texture": "all"})
    assert (options.colors, options.textures) == (tuple(COLORS), tuple(TEXTURES))
    assert options.sizes == SIZES and "cone" in options.shapes
    assert SceneOptions.parse({"texture": "none"}) == OPTIONS


@pytest.mark.parametrize("crowd", [0.0, 1.0])
def test_objects_keep_their_distances(crowd: float) -> None:
    for scene in sample_scenes(replace(OPTIONS, objects=(5, 7), crowd=crowd), range(12), 2):
        x, y = (c / math.hypot(*scene.camera[:2]) for c in scene.camera[:2])
        for a, b in itertools.combinations(scene.objects, 2):
            dx, dy = a.x - b.x, a.y - b.y
            assert math.hypot(dx, dy) - a.radius - b.radius > MIN_DISTANCE
            assert min(abs(dx * x + dy * y), abs(dx * y - dy * x)) >= MARGIN - 1e-9


def test_crowds_are_closer_together() -> None:
    def spread(crowd: float) -> float:
        options = replace(OPTIONS, objects=(4, 4), sizes={"small": 0.35}, crowd=crowd)
        scenes = sample_scenes(options, range(24), 0)
        places = torch.tensor([[(item.x, item.y) for item in scene.objects] for scene in scenes])
        return float(places.std(dim=1).mean())

    assert spread(1.0) < 0.75 * spread(0.0)


def test_crowds_hide_more() -> None:
    def least_seen(crowd: float) -> float:
        options = replace(OPTIONS, objects=(4, 4), sizes={"large": 0.7}, crowd=crowd)
        batch = SceneBatch.of(sample_scenes(options, range(32), 0), options)
        return float(visible_pixels(batch, (96, 64)).min(dim=1).values.mean())

    assert least_seen(1.0) < 0.9 * least_seen(0.0)


def test_a_crowd_stands_along_the_line_of_sight() -> None:
    region = Region((1.0, 1.0), 1.0, QUEUE, camera=(3.0, -3.0))
    assert region.holds(1.9, 0.1) and region.holds(0.1, 1.9)
    assert not region.holds(1.9, 1.9) and not region.holds(0.1, 0.1)
    assert replace(region, width=1.0).holds(1.9, 1.9)


def test_crowds_of_many_fit() -> None:
    assert len(sample_scenes(replace(OPTIONS, objects=(8, 8), crowd=1.0), range(2), 0)) == 2


def test_pixel_coords_are_the_projection_and_inside() -> None:
    scenes = sample_scenes(OPTIONS, range(16), 5)
    for scene, objects in zip(scenes, annotate(scenes, OPTIONS), strict=True):
        places = torch.tensor([item["3d_coords"] for item in objects])[None]
        pixels = project(places, torch.tensor([scene.camera]), (96, 64))[0]
        for place, item in zip(pixels, objects, strict=True):
            assert item["pixel_coords"] == pytest.approx(place.tolist(), abs=4e-3)
            assert 0 < item["pixel_coords"][0] < 96
            assert 0 < item["pixel_coords"][1] < 64


def test_camera_is_that_of_the_blender_set() -> None:
    # Scene 0 of data/clevr_blender, its camera recovered from the annotation by a rigid fit
    camera = torch.tensor([[7.36411, -6.39928, 5.13821]])
    places = torch.tensor([[[2.7514, 0.4374, 0.35], [-2.2572, 2.4439, 0.7], [0.6045, -2.988, 0.7]]])
    expected = torch.tensor([[72.157, 37.934, 9.2796], [50.806, 15.353, 13.6261], [25.204, 38.212, 8.5624]])
    assert (project(places, camera, (96, 64))[0] - expected).abs().max() < 0.01


def test_every_object_is_seen() -> None:
    options = replace(OPTIONS, objects=(6, 8), crowd=1.0)
    scenes = sample_scenes(options, range(16), 4)
    for scene, pixels in zip(scenes, visible_pixels(SceneBatch.of(scenes, options), (96, 64)), strict=True):
        there = len(scene.objects)
        assert pixels[:there].min() >= MIN_VISIBLE * 96 * 64
        assert (pixels[there:] == 0).all()


def test_an_object_hidden_by_another_is_not_seen() -> None:
    front = SceneObject("cube", "large", "red", "rubber", 2.0, -1.75, 0.7, 0.0)
    hidden = SceneObject("sphere", "tiny", "blue", "rubber", 1.3, -1.15, 0.1, 0.0)
    layout = replace(_single(), objects=(front, hidden))
    front_only, both = visible_pixels(SceneBatch.of([layout], OPTIONS), (96, 64))[0].tolist()
    assert front_only > 50
    assert both == 0


@pytest.mark.parametrize(
    ("shape", "low", "high"),
    [("cube", 1.4, 2.2), ("sphere", 0.95, 1.08), ("cylinder", 1.2, 1.6), ("cone", 0.6, 1.1)],
)
def test_visible_area_is_that_of_the_shape(shape: str, low: float, high: float) -> None:
    layout = _single(shape=shape)
    seen = float(visible_pixels(SceneBatch.of([layout], OPTIONS), (96, 64), samples=4)[0, 0])
    center = torch.tensor([[[0.0, 0.0, 0.7]]])
    depth = float(project(center, torch.tensor([CENTER_CAMERA]), (96, 64))[0, 0, 2])
    disc = math.pi * (0.7 * focal_length(96) / depth) ** 2
    assert low < seen / disc < high


@pytest.mark.parametrize("color", list(CLEVR_COLORS))
def test_an_object_has_its_color_at_its_center(color: str) -> None:
    layout = _single(color=color)
    x, y, _ = annotate([layout], OPTIONS)[0][0]["pixel_coords"]
    seen = (_picture(layout)[:, int(y), int(x)].float() / 255) ** 2.2
    names = list(CLEVR_COLORS)
    table = torch.tensor([COLORS[name] for name in names]).float()
    table, seen = table / table.norm(dim=1, keepdim=True), seen / seen.norm()
    assert names[int((table @ seen).argmax())] == color


@pytest.mark.parametrize(
    "changes",
    [*({"textures": (name,)} for name in TEXTURES), *({"light": name} for name in LIGHTS if name != "default")],
)
def test_texture_and_light_change_the_picture_and_nothing_else(changes: dict[str, Any]) -> None:
    other = SceneOptions(**changes)
    plain, changed = (sample_scenes(options, range(4), 6) for options in (OPTIONS, other))
    assert plain == changed
    difference = (render(plain, OPTIONS).float() - render(changed, other).float()).abs().mean(dim=(1, 2, 3))
    assert difference.min() > 2


def test_metal_and_rubber_differ() -> None:
    assert (_picture(_single()).float() - _picture(_single(material="metal")).float()).abs().max() > 25


def test_objects_cast_a_shadow() -> None:
    empty, full = _picture(_single(x=50.0, y=50.0)).float().mean(0), _picture(_single()).float().mean(0)
    y, x = _changed(_single()).nonzero(as_tuple=True)
    below = int(y.max()) + 1, int(x.float().mean())
    assert full[below] - empty[below] < -5


def _changed(layout: Scene) -> Tensor:
    """[H,W] where an object changes the picture much."""
    away = replace(layout, objects=(replace(layout.objects[0], x=50.0, y=50.0),))
    return (_picture(layout).float() - _picture(away).float()).abs().amax(0) > 40


def test_pictures_look_like_the_blender_set() -> None:
    images = render(sample_scenes(OPTIONS, range(48), 0), OPTIONS).float()
    # Means and standard deviations of 600 Blender images: 121.4 120.7 119.0 and 21.3 20.7 21.7
    assert images.mean(dim=(0, 2, 3)).tolist() == pytest.approx([121.4, 120.7, 119.0], abs=4)
    assert images.std(dim=(0, 2, 3)).tolist() == pytest.approx([21.3, 20.7, 21.7], abs=4)
    assert images.std(dim=(1, 2, 3)).min() > 8


def test_image_size_scales_the_picture() -> None:
    scenes = sample_scenes(OPTIONS, range(2), 0)
    small, large = (
        render(scenes, replace(OPTIONS, image_size=size)).float() for size in ((96, 64), (192, 128))
    )
    assert large.shape == (2, 3, 128, 192)
    shrunk = torch.nn.functional.avg_pool2d(large, 2)
    assert (small - shrunk).abs().mean() < 2


def test_too_many_large_objects_are_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot be rendered: .*fewer"):
        sample_scenes(SceneOptions(objects=(12, 12), sizes={"giant": 1.2}), [0], 0)


def test_scenes_sampled_by_processes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a GPU, which renders faster than one process samples; here nothing is rendered."""
    monkeypatch.setattr("igm_clevr_render.examples.SAMPLED_HERE", 2)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("igm_clevr_render.examples.render", lambda scenes, *_, **__: torch.zeros(len(scenes)))
    parts = list(render_batches(OPTIONS, 5, 3, batch=2, device="meta"))
    assert [scene for part in parts for scene in part.scenes] == sample_scenes(OPTIONS, range(5), 3)
    assert [objects for part in parts for objects in part.objects] == _objects(OPTIONS, 5, 3)


def test_what_is_rendered_on_a_device_is_what_is_loaded() -> None:
    told: list[tuple[str, int, int]] = []
    asked = {"limit": 3, "seed": 5, "size": 4, "objects": "3-4"}
    ((images, examples),) = ClevrRender().render(
        "val", device=torch.device("cpu"), progress=lambda *step: told.append(step), **asked
    )
    loaded = ClevrRender().load("val", **asked)
    assert told == [("rendering scenes", 3, 3)]
    assert [e["objects"] for e in examples] == loaded["objects"]
    assert [e["file"] for e in examples] == loaded["file"]
    for image, kept in zip(images, loaded["image"], strict=True):
        assert (image.permute(1, 2, 0).numpy() == kept).all()
    with pytest.raises(UsageError, match="has no option 'colour'"):
        next(ClevrRender().render("val", device=torch.device("cpu"), colour="red"))


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        (OSError(28, "No space left on device"), InputError),
        (UsageError("12 objects do not fit on the plane; allow fewer or smaller ones."), UsageError),
        (RuntimeError("can't allocate memory"), RuntimeError),
    ],
)
def test_renders_that_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: Exception, error: type[Exception]
) -> None:
    def fail(*arguments: Any, **options: Any) -> Iterator[Any]:
        raise cause
        yield

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr("igm_clevr_render.examples.render_examples", fail)
    with pytest.raises(error, match=r"space|fit|memory"):
        ClevrRender().load("val", size=2, seed=99 + len(str(cause)))


def test_the_dataset_attaches_by_an_entry_point() -> None:
    (found,) = [item for item in registry.listings("datasets") if item.name == "clevr-render"]
    assert found.packages == ("igm-clevr-render",)
    adapter = registry.dataset("clevr-render")
    assert "default" in adapter.presets
    with pytest.raises(InputError, match="leave out --data-root"):
        adapter.load("val", data_root=Path())
    with pytest.raises(UsageError, match="no option 'glitter'"):
        adapter.load("val", glitter=1)
