"""Presets of ``igm train`` that extend others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from igm_cli.commands.train_preset import read_preset
from igm_cli.errors import IgmError, InputError, MissingError, UsageError

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
