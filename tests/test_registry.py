"""The registry: lazy, isolated, and clear about what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from igm_cli.commands.plugins import plugin_states
from igm_cli.errors import InputError, PluginError
from igm_cli.plugins import registry


def install(folder: Path, package: str, group: str, entries: dict[str, str]) -> None:
    """What a wheel leaves behind, as far as entry points go."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "\n".join(f"{name} = {target}" for name, target in entries.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_built_in_plugins_load() -> None:
    assert registry.dataset("clevr").name == "clevr"
    parser = registry.concept_parser("pos")
    assert parser.name == "pos"
    assert registry.concept_parser("igm_cli.plugins.positions:Positions", typed=True).name == "pos"


def test_code_is_named_by_users_alone(site: Path) -> None:
    (site / "payload.py").write_text("raise RuntimeError('imported')\n")
    for kind in registry.KINDS:
        with pytest.raises(PluginError, match="must not name code"):
            registry.load(kind, "payload:P")
    assert "payload" not in sys.modules


def test_listing_imports_nothing(site: Path) -> None:
    (site / "listed_only.py").write_text("raise RuntimeError('imported')\n")
    install(site, "listed-only", "igm_cli.datasets", {"lazy": "listed_only:Data"})
    (found,) = [item for item in registry.listings("datasets") if item.name == "lazy"]
    assert found.packages == ("listed-only",)
    assert "listed_only" not in sys.modules


def test_a_broken_plugin_names_its_package(site: Path) -> None:
    (site / "falls_over.py").write_text("import sys\nprint('noise')\nsys.exit(3)\n")
    install(site, "falls-over", "igm_cli.concepts", {"fall": "falls_over:P"})
    with pytest.raises(PluginError, match=r"falls-over.*SystemExit: 3.*uninstall falls-over"):
        registry.load("concepts", "fall")
    (fall,) = [state for state in plugin_states() if state["name"] == "fall"]
    assert not fall["ok"] and "falls-over" in fall["problem"]
    assert registry.concept_parser("pos")


def test_two_of_one_name(site: Path) -> None:
    install(site, "first-pack", "igm_cli.datasets", {"twice": "a:A"})
    install(site, "second-pack", "igm_cli.datasets", {"twice": "b:B"})
    with pytest.raises(PluginError, match="first-pack and second-pack"):
        registry.load("datasets", "twice")
    (listing,) = [item for item in registry.listings("datasets") if item.name == "twice"]
    assert listing.packages == ("first-pack", "second-pack")


SUITE = "class Suite:\n    methods = splits = options = {}\n    concepts = default_splits = open = None\n"


@pytest.fixture
def bench_module(site: Path) -> None:
    (site / "bench_module.py").write_text(
        f"{SUITE}    name = 'suite'\ninstance = Suite()\nclass Holder:\n    Inner = Suite\n"
    )


@pytest.mark.usefixtures("bench_module")
@pytest.mark.parametrize("attribute", ["Suite", "instance", "Holder.Inner"])
def test_targets_by_module(attribute: str) -> None:
    assert registry.load("benchmarks", f"bench_module:{attribute}", typed=True).name == "suite"


@pytest.mark.usefixtures("bench_module")
@pytest.mark.parametrize(
    ("kind", "target", "says"),
    [
        ("datasets", "clevrr", "did you mean clevr"),
        ("datasets", "something-else-entirely", "known are"),
        ("benchmarks", "costs", "did you mean cost"),
        ("benchmarks", "no_such_module:Suite", "ModuleNotFoundError"),
        ("benchmarks", "bench_module:Nothing", "AttributeError"),
        ("datasets", "bench_module:Suite", "it has no"),
    ],
)
def test_what_cannot_be_loaded_is_explained(kind: registry.Kind, target: str, says: str) -> None:
    with pytest.raises(PluginError, match=says):
        registry.load(kind, target, typed=True)


def test_what_a_plugin_prints_stays_off_stdout(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "talks.py").write_text(f"print('hello')\n{SUITE}    name = 'talks'\n")
    registry.load("benchmarks", "talks:Suite", typed=True)
    assert capsys.readouterr().out == ""


def test_a_plugin_that_fails_in_use_is_named(site: Path) -> None:
    (site / "half_done.py").write_text(
        "from igm_cli.errors import InputError\n"
        "class Data:\n"
        "    name = licence = source = concepts = 'half'\n"
        "    splits = ('train',)\n"
        "    image_size = (8, 8)\n"
        "    def load(self, split, **options):\n"
        "        if split == 'train':\n"
        "            raise KeyError('rows')\n"
        "        raise InputError('its own words')\n"
    )
    install(site, "half-done", "igm_cli.datasets", {"half": "half_done:Data"})
    data = registry.dataset("half")
    assert data.splits == ("train",)
    assert not hasattr(data, "presets")
    with pytest.raises(
        PluginError,
        match=r"half-done fails in load \(KeyError: 'rows', in line 8 of half_done.py\); .*half-done",
    ):
        data.load("train")
    with pytest.raises(InputError, match="its own words"):
        data.load("val")
