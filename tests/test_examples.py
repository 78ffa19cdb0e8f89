"""The example plugins, installed as users install them and run as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Igm
from PIL import Image

from igm_cli.commands.model_card import card

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Both example packages, as pip installs them, for every process that is started here."""
    target = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    packages = [str(EXAMPLES / "igm-dots"), str(EXAMPLES / "igm-broken")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *packages], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(target)
        yield


def test_plugins_are_listed_and_broken_ones_harm_nothing(igm: Igm, tmp_path: Path) -> None:
    listed = igm("plugins", "--json", cwd=tmp_path)
    assert listed.returncode == igm("--help", cwd=tmp_path).returncode == 0, listed.stderr
    found = {line["name"]: line for line in map(json.loads, listed.stdout.splitlines())}
    assert all(found[name]["ok"] for name in ("clevr", "pos", "night-sky", "stars"))
    assert found["night-sky"]["packages"] == ["igm-dots"]
    reasons = {
        "cannot-import": "ImportError: needs libfancy 3",
        "leaves": "SystemExit: goodbye",
        "no-module": "ModuleNotFoundError",
        "no-attribute": "AttributeError",
        "no-parser": "it has no space",
    }
    for name, reason in reasons.items():
        assert not found[name]["ok"]
        assert reason in found[name]["problem"]
        assert "igm-broken" in found[name]["problem"]
    used = igm("train", "cannot-import", cwd=tmp_path)
    assert (used.returncode, used.stdout) == (5, "") and "uninstall igm-broken" in used.stderr
    assert "Traceback" not in used.stderr


def test_the_example_trains_and_inverts(igm: Igm, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (6, 8, 24)).save(tmp_path / "sky.png")
    small = "--set model.channels=[8,8,8] --set model.head_channels=8 --set inference.draws=2 --set inference.max_draws=2"
    train = (
        f"train night-sky --limit 8 --steps 3 --batch-size 4 --device cpu --set calibration=0 {small}".split()
    )
    colors = [*train, *["-o", "colors", "--set", "picture_every=3", "--concepts", "star-colors"]]
    tried = [*train, *["--concepts", "star-colors", "--dry-run", "-o", "dry"]]
    train += ["-o", "run", "--set", "picture_every=0"]
    call = ["invert", "sky.png", "--model", "run", "--k", 2, "--draws", 2, "--json", "--overlay", "out.png"]
    measure = ["benchmark", "star-count", "--model", "run", "--limit", 2]
    told = ["invert", "sky.png", "--model", "colors", "--k", 2, "--draws", 2, "--json", "--csv", "found.csv"]
    judged = ["evaluate", "--model", "colors", "--limit", 2, "--draws", 2, "--json"]
    wrong = ["train", "night-sky", "--set", "data.stars=many", "-o", "none/run"]
    commands = [train, call, measure, [*call, "--concepts", "pos"], colors, tried, told, judged, wrong]
    done = [igm(*command, cwd=tmp_path) for command in commands]
    assert [each.returncode for each in done] == [0, 0, 0, 3, 0, 0, 0, 0, 2], done
    description = json.loads((tmp_path / "run/igm.json").read_text())
    assert description["concepts"] == "stars"
    assert description["info"]["plugins"] == {"concepts": "igm-dots", "datasets": "igm-dots"}
    assert "pip install igm-cli igm-dots\n" in card(tmp_path / "run", "hf:me/stars")
    line = json.loads(done[1].stdout)
    assert line["concepts"] == "stars"
    assert {*line["items"][0]} == {"x", "y", "confidence"}
    assert (tmp_path / "out.png").exists()
    assert "specks" in (tmp_path / "runs/benchmark-star-count/report.md").read_text()
    assert "--concepts stars" in done[3].stderr
    assert "that it is given" not in done[5].stderr and "does not give" not in done[5].stderr, (
        "nothing to doubt"
    )
    item = json.loads(done[6].stdout)["items"][0]
    assert item["values"]["color"] in ("white", "yellow") and 0 < item["value_confidence"]["color"] <= 1
    assert "color" in (tmp_path / "found.csv").read_text().splitlines()[0]
    figures = json.loads(done[7].stdout)["figures"]
    placed = figures["place_right_of_those_found"]["value"] > 0
    assert ("color_right_of_those_in_place" in figures) == placed  # a proportion of nothing is left out
    assert "stars must be a whole number" in done[8].stderr and not (tmp_path / "none").exists()


@pytest.mark.usefixtures("bundled_models")
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code cells, one after the other, as a notebook runs them."""
    monkeypatch.chdir(EXAMPLES)
    notebook = json.loads((EXAMPLES / "library.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["result"].k == 5 and len(names["results"]) == 2
    assert [item["index"] for item in names["found"].items] == [3, 7, 11]


@pytest.mark.slow
def test_the_notebook_for_colab_runs_in_a_kernel(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / "igm.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = ["".join(map(str, cell.outputs)) for cell in notebook.cells if cell.cell_type == "code"]
    assert "data:image/png" in shown[1] and "K = 3" in shown[2]
    assert "Eyeglasses: yes" in shown[4] and "Eyeglasses: no" in shown[4]
    assert all(f"<td>{index}</td>" in shown[5] for index in (3, 7, 11))


def test_pictures_hold_no_metadata() -> None:
    """Such as the folder, the date and the program of the machine that rendered them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.png", "*.jpg"], cwd=ROOT, capture_output=True, text=True
    )
    names = [name for name in listed.stdout.split("\0") if name]
    assert names or not (ROOT / ".git").exists()
    for name in names:
        with Image.open(ROOT / name) as picture:
            picture.load()
            said = {key for key in picture.info if not key.startswith("jfif")} - {"transparency"}
            assert not said and not picture.getexif(), name
