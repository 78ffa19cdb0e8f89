"""Presets of ``igm train`` that extend others."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT, Here

from igm_cli.commands.options import parse_settings
from igm_cli.commands.train_preset import Recipe, data_parts, model_spec, read_preset
from igm_cli.core.concepts import Categorical
from igm_cli.errors import IgmError, InputError, MissingError, UsageError
from igm_cli.plugins import registry

BASE = """
[train]
steps = 100
batch_size = 8

[[data]]
data_root = "given"

[[data]]
data_root = "builtin"
"""
LONGER = """
extends = "default"

[train]
steps = 500

[inference]
draws = 4
"""


def dataset(folder: Path, **presets: str) -> SimpleNamespace:
    paths = {name: folder / f"{name}.toml" for name in presets}
    for name, text in presets.items():
        paths[name].write_text(text)
    return SimpleNamespace(name="stars", presets=paths)


def test_extending_changes_keys_and_keeps_the_rest(tmp_path: Path) -> None:
    stars = dataset(tmp_path, default=BASE, longer=LONGER)
    assert read_preset(stars, "longer") == {
        "train": {"steps": 500, "batch_size": 8},
        "data": [{"data_root": "given"}, {"data_root": "builtin"}],
        "inference": {"draws": 4},
    }
    assert read_preset(stars, "default")["train"]["steps"] == 100


def test_data_is_taken_whole_and_files_extend_presets(tmp_path: Path) -> None:
    stars = dataset(tmp_path, default=BASE, longer=LONGER)
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "longer"\n[train]\nbatch_size = 2\n[[data]]\ndata_root = "builtin"\nseed = 3\n')
    preset = read_preset(stars, str(mine))
    assert preset["train"] == {"steps": 500, "batch_size": 2}
    assert preset["data"] == [{"data_root": "builtin", "seed": 3}]


def test_options_of_another_architecture_are_not_inherited(tmp_path: Path, here: Here) -> None:
    """A preset of two lines said: unknown model option 'patch', which stands in the one that it extends."""
    text = re.search(r"^  ```toml\n(.*?)^  ```", (ROOT / "docs/plugins.md").read_text(), re.M | re.S)
    assert text
    (tmp_path / "unet.toml").write_text(text[1])
    stars = dataset(tmp_path, default="[model]\npatch = 2\n[inference]\ndraws = 4\n")
    tables = read_preset(stars, str(tmp_path / "unet.toml"))
    assert tables["inference"] == {"grid": [8, 8, 4], "draws": 4}
    Recipe("unet", tables).preset().check()
    (tmp_path / "same.toml").write_text(
        'extends = "default"\nmodel = {architecture = "factored", blocks = 1}\n'
    )
    kept = read_preset(stars, str(tmp_path / "same.toml"))["model"]
    assert kept == {"architecture": "factored", "patch": 2, "blocks": 1}
    given = ("model.architecture=unet", "model.channels=[16,32]", "data.size=1")
    words = [word for each in given for word in ("--set", each)]
    code, _, err = here("train", "clevr", "--dry-run", "-o", tmp_path / "run", *words)
    says = "channels (16, 32) must be divisible by head_dim (32) and groups (32)"
    assert code == 3 and says in err and "patch" not in err


@pytest.mark.parametrize(
    ("extends", "error", "words"),
    [
        ('"longer"', InputError, "leads back"),
        ("7", InputError, "extends 7"),
        ('"nope"', UsageError, "no preset 'nope'"),
        ('""', UsageError, "no preset ''"),
        ('"nope.toml"', MissingError, "nope.toml"),
    ],
)
def test_what_cannot_be_extended_is_refused(
    tmp_path: Path, extends: str, error: type[IgmError], words: str
) -> None:
    stars = dataset(tmp_path, default=f"extends = {extends}\n", longer=LONGER)
    with pytest.raises(error, match=words):
        read_preset(stars, "longer")


def test_options_of_rendered_images_leave_given_ones_alone(tmp_path: Path) -> None:
    tables = [{"data_root": "given", "options": {"objects": "3-5"}}, {"data_root": "builtin"}]
    changes = {"data.size": 500, "data.objects": "2-3", "seed": 7}
    own = frozenset({"size"})
    parts = data_parts(Recipe("p", {"data": tables}, changes).preset(), tmp_path, None, own, builtin=True)
    assert [p.options for p in parts] == [{"objects": "2-3"}, {"size": 500, "objects": "2-3"}]
    described = [part.describe(tmp_path) for part in parts]
    assert [(d["source"], d["root"], d["seed"]) for d in described] == [
        ("given", tmp_path.name, 7),
        ("builtin", None, 7),
    ]
    (alone,) = data_parts(Recipe("p", {"data": tables}).preset(), tmp_path, None, own)
    assert (alone.data_root, alone.options) == ("given", {"objects": "3-5"})
    made = [{"data_root": "builtin", "options": {"objects": "3-5", "size": 9}}]
    (instead,) = data_parts(Recipe("p", {"data": made}).preset(), tmp_path, None, own)
    assert (instead.data_root, instead.options) == ("given", {"objects": "3-5"})
    given = Recipe("p", {"data": tables[:1]}, {"data.size": 500}).preset()
    assert data_parts(given, tmp_path, None, own)[0].options["size"] == 500  # the dataset refuses it


def test_options_of_folders_leave_rendered_images_alone(tmp_path: Path) -> None:
    tables = [{"data_root": "given"}, {"data_root": "builtin"}]
    preset, folders = Recipe("p", {"data": tables}, {"data.variant": "pbg"}).preset(), frozenset({"variant"})
    parts = data_parts(preset, tmp_path, None, of_folders=folders, builtin=True)
    assert [part.options for part in parts] == [{"variant": "pbg"}, {}]
    (made,) = data_parts(preset, None, None, of_folders=folders)
    assert made.options == {"variant": "pbg"}  # the dataset refuses it


def test_parts_without_given_images_are_made(tmp_path: Path) -> None:
    tables = [{"data_root": "given", "split": "a", "limit": 9}, {"split": "b", "seed": 3, "limit": 5}]
    preset = Recipe("p", {"data": tables}, {}).preset()
    (made,) = data_parts(preset, None, None)
    assert (made.split, made.data_root, made.limit, made.seed) == ("b", "builtin", 5, 3)
    (made,) = data_parts(Recipe("p", {"data": tables[:1]}, {}).preset(), None, 4)
    assert (made.split, made.data_root, made.limit) == ("a", "builtin", 4)
    both = data_parts(preset, tmp_path, 7)
    assert [(p.split, p.data_root, p.limit) for p in both] == [("a", "given", 7), ("b", "given", 5)]


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"modle": {}}, "'modle'; did you mean model"),
        ({"train": 3}, "'train' must be a table, not 3"),
        ({"data": {"split": "train"}}, "'data' must be a list"),
        ({"train": {"steps": 2.5}}, "'steps' must be a whole number, not 2.5"),
        ({"train": {"timestep_power": float("nan")}}, "'timestep_power' must be a finite number, not nan"),
        ({"train": {"learning_rat": 1e-3}}, "did you mean learning_rate"),
        ({"data": [{"spilt": "train"}]}, "'spilt'; did you mean split"),
        ({"data": [{"data_root": "/mine"}]}, "must be 'given' or 'builtin', not '/mine'"),
        ({"schedule": {"beta_strat": 1.0}}, "did you mean beta_start"),
        ({"schedule": {"beta_start": "low"}}, "'beta_start' must be a number, not 'low'"),
        ({"model": {"image_size": 64}}, "'image_size' must be a list, not 64"),
        ({"model": {"image_size": [64, 0]}}, "must be at least 1, not 0"),
        ({"model": {"composition": "product"}}, "must be 'sum' or 'mean', not 'product'"),
        ({"inference": {"drawz": 3}}, "drawz"),
        ({"generation": {"sampler": "euler"}}, "sampler"),
    ],
)
def test_what_a_preset_cannot_say(tables: dict[str, object], words: str) -> None:
    adapter = SimpleNamespace(name="stars", image_size=(32, 32), licence="none")
    parser = SimpleNamespace(name="any", space=Categorical({"a": ("no", "yes")}))
    with pytest.raises(InputError) as caught:
        preset = Recipe("p", tables, {}).preset()
        preset.check()
        model_spec(adapter, parser, preset, data_parts(preset, None, None))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_names_the_licences_of_the_images_it_was_trained_on(tmp_path: Path) -> None:
    preset = Recipe("p", {"data": [{"data_root": "given"}, {"data_root": "builtin"}]}, {}).preset()
    parser = SimpleNamespace(name="any", space=Categorical({"a": ("no", "yes")}))
    for adapter, expected in (
        (registry.dataset("celeba"), ["drawn", "CelebA", "CelebA drawn"]),
        (SimpleNamespace(name="stars", image_size=(32, 32), licence="CelebA"), ["CelebA"] * 3),
    ):
        roots = ((None, False), (tmp_path, False), (tmp_path, True))
        parts = [data_parts(preset, root, None, builtin=builtin) for root, builtin in roots]
        said = [model_spec(adapter, parser, preset, each).info["licence"] for each in parts]
        assert [" ".join(re.findall("CelebA|drawn", text)) for text in said] == expected


def test_who_says_an_option_of_the_data():
    recipe = Recipe("mine", {"data": [{"options": {"sizes": "tiny"}}]}, {"data.shapes": "cube"})
    said = [recipe.origin("data", option) for option in ("sizes", "shapes", "colors")]
    assert said == ["preset mine", "command line", "default"]


def test_dates_are_text_or_refused(tmp_path: Path) -> None:
    assert parse_settings(["info.made=2025-03-01", "n=3"]) == {"info.made": "2025-03-01", "n": 3}
    (path := tmp_path / "p.toml").write_text("[info]\nmade = 2025-03-01\n")
    with pytest.raises(InputError, match="it holds a date or a time; put it in quotation marks"):
        read_preset(SimpleNamespace(name="mine", presets={}), str(path))
