"""The registry: lazy, isolated, and clear about what is wrong."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from igm_cli.commands.plugins import plugin_states
from igm_cli.errors import InputError, PluginError, UsageError
from igm_cli.interrupts import Interrupted
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


def test_an_interruption_is_no_fault_of_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that was ended in the last call of its dataset said that igm-cli is to be uninstalled, and was done."""

    def ended(*_: Any, **__: Any) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr("igm_cli.plugins.clevr.adapter.Clevr.load", ended)
    with pytest.raises(Interrupted):
        registry.dataset("clevr").load("val")


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
    for number, target in enumerate(("falls_over", "", ":P")):
        install(site, f"unsaid-{number}", "igm_cli.concepts", {f"unsaid{number}": target})
        with pytest.raises(
            PluginError, match=rf"unsaid-{number} is said to be at '{target}'; write package.module:attr"
        ):
            registry.load("concepts", f"unsaid{number}")
    (fall,) = [state for state in plugin_states() if state["name"] == "fall"]
    assert not fall["ok"] and "falls-over" in fall["problem"]
    assert registry.concept_parser("pos")


def test_two_of_one_name(site: Path) -> None:
    install(site, "first-pack", "igm_cli.datasets", {"twice": "a:A"})
    install(site, "second-pack", "igm_cli.datasets", {"twice": "b:B"})
    with pytest.raises(PluginError, match="is offered by several packages, first-pack and second-pack;"):
        registry.load("datasets", "twice")
    (listing,) = [item for item in registry.listings("datasets") if item.name == "twice"]
    assert listing.packages == ("first-pack", "second-pack")


SUITE = "class Suite:\n    summary = ''\n    methods = splits = options = {}\n    concepts = default_splits = open = None\n"


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
        ("benchmarks", "bench_module:", "'bench_module:'; write package.module:attribute"),
    ],
)
def test_what_cannot_be_loaded_is_explained(kind: registry.Kind, target: str, says: str) -> None:
    with pytest.raises(PluginError, match=says):
        registry.load(kind, target, typed=True)


def test_what_a_plugin_prints_stays_off_stdout(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "talks.py").write_text(f"print('hello')\n{SUITE}    name = 'talks'\n")
    registry.load("benchmarks", "talks:Suite", typed=True)
    assert capsys.readouterr().out == ""


PARSER = """
import torch
from igm_cli.core.concepts import Categorical, Continuous, Product
class Good:
    name = summary = 'good'
    space = Product(Continuous(('x', 'y'), (0.0, 0.0), (1.0, 1.0)), Categorical({'color': ('red', 'blue')}))
    def parse(self, example, frame): return torch.tensor([[0.2, 0.5, 1.0, 0.0]])
    def encode(self, items, frame): return torch.tensor([[i['x'], i['y'], i['red'], 1 - i['red']] for i in items])
    def decode(self, c, frame): return [{'x': x, 'y': y, 'red': red} for x, y, red, _ in c.tolist()]
    def ask(self, text, random, beside): return torch.tensor([[0.9, 0.5, 0.0, 0.0]])
    def mirror(self, c): return torch.cat([1 - c[..., :1], c[..., 1:]], -1)
    def score(self, predicted, truth): return {}
    def right(self, predicted, truth): return torch.ones(len(predicted), 2, dtype=torch.bool)
    def draw(self, image, items): return image
class Data:
    name = licence = source = summary = 'data'
    concepts, splits, image_size = 'good', ('train', 'val'), (8, 8)
    options = {'most': 'how many'}
    def load(self, split, *, data_root=None, limit=None, seed=0, progress=None, most=3):
        import datasets
        from PIL import Image
        rows = [{'image': Image.new('RGB', (8, 8))}]
        return datasets.Dataset.from_list(rows).cast_column('image', datasets.Image())
"""


@pytest.mark.parametrize(
    ("change", "use", "says"),
    [
        ("def space(self): return 0", lambda p: p.space, "its space is method, not a concept space"),
        ("def parse(self, e, f): return super().parse(e, f)[:, :3]", lambda p: p.parse({}, None),
         r"its parse returned a tensor \[1, 3\], not a tensor \[K, 4\]"),
        ("def parse(self, e, f): return torch.tensor([])", lambda p: p.parse({}, None),
         r"returned a tensor \[0\], not a tensor \[0, 4\]"),
        ("def parse(self, e, f): return super().parse(e, f).int()", lambda p: p.parse({}, None),
         "returned numbers of the type int32, not float32"),
        ("def ask(self, text, random, beside): return super().ask(text, random, beside) * 2",
         lambda p: p.ask("there", None, None), "ask returned a concept outside its space: 1.8 is not within its bounds"),
        ("def mirror(self, c): return c[:, :2]", lambda p: p.mirror(p.parse({}, None)),
         r"returned a tensor \[1, 2\], not a tensor \[1, 4\]"),
        ("def right(self, p, t): return super().right(p, t)[:, :1]",
         lambda p: p.right(p.parse({}, None), p.parse({}, None)), r"a tensor \[1, 1\], not a tensor \[1, 2\]: whether each"),
        ("def score(self, p, t): return {'k_exact': torch.tensor(1.0)}", lambda p: p.score(None, None),
         r"its score returned a tensor \[\] as 'k_exact', not a number"),
        ("def score(self, p, t): return {'good': None, 'k_exact': 'yes'}", lambda p: p.score(None, None),
         "its score returned str yes as 'k_exact', not a number"),
        ("def decode(self, c, f): return [{'x': c[9]}]", lambda p: p.decode(p.parse({}, None), None),
         r"fails in decode \(IndexError: .*, in line \d+ of mistaken_\w+.py\)"),
    ],
)  # fmt: skip
def test_mistakes_of_parsers_are_told_by_what_came_and_what_is_meant(
    site: Path, change: str, use: Callable[[Any], Any], says: str
) -> None:
    module = f"mistaken_{abs(hash(change))}"
    (site / f"{module}.py").write_text(f"{PARSER}class Bad(Good):\n    {change}\n")
    use(registry.load("concepts", f"{module}:Good", typed=True))
    with pytest.raises(PluginError, match=says):
        use(registry.load("concepts", f"{module}:Bad", typed=True))


def test_mistakes_of_datasets_are_told_and_those_of_users_are_theirs(site: Path) -> None:
    (site / "data_module.py").write_text(
        f"{PARSER}"
        "class Unnamed(Data):\n"
        "    def load(self, *a, **k): return super().load(*a, **k).rename_column('image', 'picture')\n"
        "class Undecoded(Data):\n"
        "    def load(self, *a, **k):\n"
        "        import datasets\n"
        "        return super().load(*a, **k).cast_column('image', datasets.Image(decode=False))\n"
        "class Paths(Data):\n"
        "    def load(self, *a, **k):\n"
        "        import datasets\n"
        "        return datasets.Dataset.from_list([{'image': 'a.png'}])\n"
        "class Deep(Data):\n"
        "    image_size = (8, 8, 3)\n"
        "class Low(Good):\n"
        "    def encode(self, i, f): return Continuous(('x', 'y'), (0.0, 1.0), (1.0, 1.0))\n"
    )

    def load(kind: registry.Kind, name: str) -> Any:
        return registry.load(kind, f"data_module:{name}", typed=True)

    assert len(load("datasets", "Data").load("train", limit=1, most=2)) == 1
    with pytest.raises(UsageError, match="data has no option 'mots'; did you mean most"):
        load("datasets", "Data").load("train", mots=2)
    with pytest.raises(PluginError, match="a dataset without a column 'image'; it has picture"):
        load("datasets", "Unnamed").load("train")
    for name, kind in (("Undecoded", "dict"), ("Paths", "str")):
        with pytest.raises(
            PluginError, match=rf"images that are not decoded \({kind}\); cast .* datasets.Image\(\)"
        ):
            load("datasets", name).load("train")
    with pytest.raises(PluginError, match=r"image_size is tuple \(8, 8, 3\), not \(width, height\)"):
        assert load("datasets", "Deep").image_size
    with pytest.raises(
        PluginError,
        match=r"\(ValidationError: every low must be below its high, in line \d+ of data_module.py\)",
    ):
        load("concepts", "Low").encode([], None)


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


def test_a_generator_of_a_plugin_fails_as_its_methods_do(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site / "yields.py").write_text(
        "class Data:\n"
        "    name = licence = source = splits = image_size = concepts = load = None\n"
        "    def render(self):\n"
        "        print('noise')\n"
        "        yield 1\n"
        "        raise KeyError('rows')\n"
    )
    found = registry.load("datasets", "yields:Data", typed=True).render()
    assert next(found) == 1 and capsys.readouterr().out == ""
    with pytest.raises(PluginError, match=r"fails in render \(KeyError: 'rows', in line 6 of yields.py\)"):
        next(found)


def test_a_suite_without_a_summary_is_none(site: Path) -> None:
    (site / "speechless.py").write_text(f"{SUITE.replace('summary', 'about')}    name = 'suite'\n")
    with pytest.raises(PluginError, match="is not a benchmark: it has no summary"):
        registry.load("benchmarks", "speechless:Suite", typed=True)
