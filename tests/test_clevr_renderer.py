"""The built-in CLEVR renderer: rules of the scenes, fitting annotations, and the same pictures always."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from igm_cli.plugins.clevr.annotations import annotations
from igm_cli.plugins.clevr.camera import focal_length, project
from igm_cli.plugins.clevr.choices import scene_options
from igm_cli.plugins.clevr.lamps import LIGHTS
from igm_cli.plugins.clevr.layout import Layout, SceneObject, stack
from igm_cli.plugins.clevr.options import CLEVR_COLORS, COLORS, SceneOptions
from igm_cli.plugins.clevr.placement import MARGIN, MIN_DISTANCE, QUEUE, Region
from igm_cli.plugins.clevr.renderer import render
from igm_cli.plugins.clevr.sampling import MIN_VISIBLE, sample_scenes
from igm_cli.plugins.clevr.scenes import render_examples
from igm_cli.plugins.clevr.textures import TEXTURES
from igm_cli.plugins.clevr.visibility import visible_pixels

OPTIONS = SceneOptions()
CENTER_CAMERA = (7.48, -6.51, 5.34)


def _objects(options: SceneOptions, count: int = 12, seed: int = 0) -> list[list[dict[str, Any]]]:
    return [scene["objects"] for scene in annotations(sample_scenes(options, range(count), seed))]


def _single(**changes: Any) -> Layout:
    item = SceneObject("sphere", "large", "red", "rubber", 0.0, 0.0, 0.7, 0.0)
    return Layout(0, (replace(item, **changes),), CENTER_CAMERA, ((0.0, 0.0, 0.0),) * 3, 0.5)


def _picture(layout: Layout, **options: Any) -> Tensor:
    return render(stack([layout], SceneOptions(**options)))[0]


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
    examples = list(render_examples(scene_options(options), 4, seed=3))
    assert _hash(json.dumps(example["objects"]).encode() for example in examples) == objects
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):  # others round a few pixels differently
        assert _hash(example["image"].tobytes() for example in examples) == images


def _hash(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def test_same_seed_gives_the_same_pictures_and_other_seeds_others() -> None:
    first, again, other = (render(sample_scenes(OPTIONS, range(4), seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "options", [OPTIONS, replace(OPTIONS, objects=(6, 8), crowd=1.0), replace(OPTIONS, texture="noise")]
)
def test_a_picture_does_not_depend_on_its_batch(options: SceneOptions) -> None:
    whole = sample_scenes(options, range(9), 3)
    images, described = render(whole), annotations(whole)
    for index in (0, 4, 8):
        alone = sample_scenes(options, [index], 3)
        assert annotations(alone)[0] == described[index]
        assert torch.equal(render(alone)[0], images[index])
    assert torch.equal(render(whole, chunk=2), images)


def test_examples_are_the_same_whatever_the_batch_and_the_start() -> None:
    seen: list[tuple[int, int]] = []
    one = list(render_examples(OPTIONS, 5, seed=1, batch=2, progress=lambda *step: seen.append(step)))
    two = list(render_examples(OPTIONS, 2, seed=1, batch=64, start=3))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert [example["image_index"] for example in one] == [0, 1, 2, 3, 4]
    assert one[0]["image"].shape == (64, 96, 3)
    assert one[0]["image"].dtype == "uint8"
    for early, late in zip(one[3:], two, strict=True):
        assert early["objects"] == late["objects"]
        assert (early["image"] == late["image"]).all()


def test_counts_cover_the_range_asked_for() -> None:
    assert {len(objects) for objects in _objects(replace(OPTIONS, objects=(6, 8)), 24)} == {6, 7, 8}
    assert {len(objects) for objects in _objects(replace(OPTIONS, objects=(4, 4)), 4)} == {4}


def test_only_the_allowed_values_occur() -> None:
    names = {"colors": ("orange", "black"), "shapes": ("cone", "cube"), "sizes": ("tiny", "huge")}
    options = SceneOptions(**names, materials=("metal",))
    objects = list(itertools.chain.from_iterable(_objects(options, 16)))
    assert {o["color"] for o in objects} == {"orange", "black"}
    assert {o["shape"] for o in objects} == {"cone", "cube"}
    assert {(o["size"], o["3d_coords"][2]) for o in objects} == {("tiny", 0.25), ("huge", 0.95)}
    assert {o["material"] for o in objects} == {"metal"}


def test_a_mapping_of_sizes_gives_the_radii() -> None:
    objects = _objects(SceneOptions(sizes={"odd": 0.42}), 2)
    assert all(o["size"] == "odd" and o["3d_coords"][2] == 0.42 for scene in objects for o in scene)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"colors": ("mauve",)}, "mauve"),
        ({"shapes": ("torus",)}, "torus"),
        ({"objects": (5, 3)}, "min"),
        ({"light": "disco"}, "disco"),
        ({"texture": "wood"}, "wood"),
        ({"sizes": ("vast",)}, "vast"),
        ({"crowd": 1.5}, "probability"),
    ],
)
def test_wrong_options_are_named(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        SceneOptions(**changes)


@pytest.mark.parametrize("crowd", [0.0, 1.0])
def test_objects_keep_their_distances(crowd: float) -> None:
    for scene in annotations(sample_scenes(replace(OPTIONS, objects=(5, 7), crowd=crowd), range(12), 2)):
        for a, b in itertools.combinations(scene["objects"], 2):
            dx, dy = (a["3d_coords"][i] - b["3d_coords"][i] for i in range(2))
            assert math.hypot(dx, dy) - a["3d_coords"][2] - b["3d_coords"][2] > MIN_DISTANCE - 1e-3
            for name in ("left", "behind"):
                direction = scene["directions"][name]
                assert abs(dx * direction[0] + dy * direction[1]) >= MARGIN - 2e-3


def test_crowds_are_closer_together() -> None:
    def spread(crowd: float) -> float:
        scenes = sample_scenes(replace(OPTIONS, objects=(4, 4), sizes=("small",), crowd=crowd), range(24), 0)
        return float(scenes.position[..., :2].std(dim=1).mean())

    assert spread(1.0) < 0.75 * spread(0.0)


def test_crowds_hide_more() -> None:
    def least_seen(crowd: float) -> float:
        scenes = sample_scenes(replace(OPTIONS, objects=(4, 4), sizes=("large",), crowd=crowd), range(32), 0)
        return float(visible_pixels(scenes, (96, 64)).min(dim=1).values.mean())

    assert least_seen(1.0) < 0.9 * least_seen(0.0)


def test_a_crowd_stands_along_the_line_of_sight() -> None:
    region, camera = Region((1.0, 1.0), 1.0, QUEUE), (3.0, -3.0)
    assert region.holds(1.9, 0.1, camera) and region.holds(0.1, 1.9, camera)
    assert not region.holds(1.9, 1.9, camera) and not region.holds(0.1, 0.1, camera)
    assert replace(region, width=1.0).holds(1.9, 1.9, camera)


def test_crowds_of_many_fit() -> None:
    assert len(sample_scenes(replace(OPTIONS, objects=(8, 8), crowd=1.0), range(2), 0)) == 2


def test_pixel_coords_are_the_projection_and_inside() -> None:
    scenes = sample_scenes(OPTIONS, range(16), 5)
    pixels = project(scenes.position, scenes.camera, (96, 64))
    for row, scene in zip(pixels, annotations(scenes), strict=True):
        for place, item in zip(row, scene["objects"], strict=False):
            assert item["pixel_coords"] == pytest.approx(place.tolist(), abs=2e-3)
            assert 0 < item["pixel_coords"][0] < 96
            assert 0 < item["pixel_coords"][1] < 64


def test_camera_is_that_of_the_blender_set() -> None:
    # Scene 0 of data/clevr_blender, its camera recovered from the annotation by a rigid fit
    camera = torch.tensor([[7.36411, -6.39928, 5.13821]])
    places = torch.tensor([[[2.7514, 0.4374, 0.35], [-2.2572, 2.4439, 0.7], [0.6045, -2.988, 0.7]]])
    expected = torch.tensor([[72.157, 37.934, 9.2796], [50.806, 15.353, 13.6261], [25.204, 38.212, 8.5624]])
    assert (project(places, camera, (96, 64))[0] - expected).abs().max() < 0.01


def test_every_object_is_seen() -> None:
    scenes = sample_scenes(replace(OPTIONS, objects=(6, 8), crowd=1.0), range(16), 4)
    pixels = visible_pixels(scenes, (96, 64))
    assert pixels[scenes.present].min() >= MIN_VISIBLE * 96 * 64
    assert (pixels[~scenes.present] == 0).all()


def test_an_object_hidden_by_another_is_not_seen() -> None:
    front = SceneObject("cube", "large", "red", "rubber", 2.0, -1.75, 0.7, 0.0)
    hidden = SceneObject("sphere", "tiny", "blue", "rubber", 1.3, -1.15, 0.1, 0.0)
    layout = replace(_single(), objects=(front, hidden))
    front_only, both = visible_pixels(stack([layout], OPTIONS), (96, 64))[0].tolist()
    assert front_only > 50
    assert both == 0


@pytest.mark.parametrize(
    ("shape", "low", "high"),
    [("cube", 1.4, 2.2), ("sphere", 0.95, 1.08), ("cylinder", 1.2, 1.6), ("cone", 0.6, 1.1)],
)
def test_visible_area_is_that_of_the_shape(shape: str, low: float, high: float) -> None:
    layout = _single(shape=shape)
    seen = float(visible_pixels(stack([layout], OPTIONS), (96, 64), samples=4)[0, 0])
    center = torch.tensor([[[0.0, 0.0, 0.7]]])
    depth = float(project(center, torch.tensor([CENTER_CAMERA]), (96, 64))[0, 0, 2])
    disc = math.pi * (0.7 * focal_length(96) / depth) ** 2
    assert low < seen / disc < high


@pytest.mark.parametrize("color", list(CLEVR_COLORS))
def test_an_object_has_its_color_at_its_center(color: str) -> None:
    layout = _single(color=color)
    x, y, _ = annotations(stack([layout], OPTIONS))[0]["objects"][0]["pixel_coords"]
    seen = (_picture(layout)[:, int(y), int(x)].float() / 255) ** 2.2
    names = list(CLEVR_COLORS)
    table = torch.tensor([COLORS[name] for name in names]).float()
    table, seen = table / table.norm(dim=1, keepdim=True), seen / seen.norm()
    assert names[int((table @ seen).argmax())] == color


@pytest.mark.parametrize(
    "changes",
    [*({"texture": name} for name in TEXTURES), *({"light": name} for name in LIGHTS if name != "default")],
)
def test_texture_and_light_change_the_picture_and_nothing_else(changes: dict[str, Any]) -> None:
    plain, changed = (sample_scenes(options, range(4), 6) for options in (OPTIONS, SceneOptions(**changes)))
    assert annotations(plain) == annotations(changed)
    difference = (render(plain).float() - render(changed).float()).abs().mean(dim=(1, 2, 3))
    assert difference.min() > 2


def test_metal_and_rubber_differ() -> None:
    assert (_picture(_single()).float() - _picture(_single(material="metal")).float()).abs().max() > 25


def test_objects_cast_a_shadow() -> None:
    empty, full = _picture(_single(x=50.0, y=50.0)).float().mean(0), _picture(_single()).float().mean(0)
    y, x = _changed(_single()).nonzero(as_tuple=True)
    below = int(y.max()) + 1, int(x.float().mean())
    assert full[below] - empty[below] < -5


def _changed(layout: Layout) -> Tensor:
    """[H,W] where an object changes the picture much."""
    away = replace(layout, objects=(replace(layout.objects[0], x=50.0, y=50.0),))
    return (_picture(layout).float() - _picture(away).float()).abs().amax(0) > 40


def test_pictures_look_like_the_blender_set() -> None:
    images = render(sample_scenes(OPTIONS, range(48), 0)).float()
    # Means and standard deviations of 600 Blender images: 121.4 120.7 119.0 and 21.3 20.7 21.7
    assert images.mean(dim=(0, 2, 3)).tolist() == pytest.approx([121.4, 120.7, 119.0], abs=4)
    assert images.std(dim=(0, 2, 3)).tolist() == pytest.approx([21.3, 20.7, 21.7], abs=4)
    assert images.std(dim=(1, 2, 3)).min() > 8


def test_image_size_scales_the_picture() -> None:
    scenes = sample_scenes(OPTIONS, range(2), 0)
    small, large = render(scenes, (96, 64)).float(), render(scenes, (192, 128)).float()
    assert large.shape == (2, 3, 128, 192)
    shrunk = torch.nn.functional.avg_pool2d(large, 2)
    assert (small - shrunk).abs().mean() < 2


def test_too_many_large_objects_are_refused() -> None:
    with pytest.raises(RuntimeError, match="fewer"):
        sample_scenes(SceneOptions(objects=(12, 12), sizes={"giant": 1.2}), [0], 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees_with_cpu() -> None:
    scenes = sample_scenes(OPTIONS, range(8), 0)
    assert (render(scenes).int() - render(scenes, device="cuda").cpu().int()).abs().float().mean() < 0.1
