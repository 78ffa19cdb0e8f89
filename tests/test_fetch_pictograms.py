"""``benchmarks/fetch_pictograms.py``, with an npm and a renderer of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from igm_cli.core.files import parse_toml

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fetch_pictograms.py"
NPM = "#!{python}\nimport shutil, sys\nassert sys.argv[1:3] == ['pack', '--silent'] and sys.argv[3] in {packages!r}\n"
NPM += "shutil.copy({archive!r}, 'package.tgz')\n"
PACKAGES = ("@iconify-json/fxemoji", "@iconify/json")
GLYPHS = parse_toml(SCRIPT.with_name("glyphs.toml").read_text("utf-8"))
RENDERER = "def svg_to_bytes(svg_string, width):\n    return f'{width} {svg_string}'.encode()\n"


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """An environment in which npm packs two drawings, and drawing writes the SVG down."""
    icons = {"height": 40, "icons": {"catface": {"body": "<a/>"}, "snail": {"body": "<b/>", "width": 20}}}
    package = tmp_path / "package"
    package.mkdir()
    (package / "icons.json").write_text(json.dumps(icons))
    (package / "info.json").write_text(json.dumps({"license": {"title": "Apache 2.0"}}))
    (package / "json").mkdir()
    sets = {name: {"license": {"title": "MIT"}} for name in GLYPHS}
    (package / "collections.json").write_text(json.dumps(sets))
    for name, animals in GLYPHS.items():
        first = next(iter(animals.values()))[0]
        (package / "json" / f"{name}.json").write_text(json.dumps({"icons": {first: {"body": "<c/>"}}}))
    archive = tmp_path / "archive.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(package, "package")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "npm").write_text(NPM.format(python=sys.executable, archive=str(archive), packages=PACKAGES))
    (tools / "npm").chmod(0o755)
    (tools / "resvg_py.py").write_text(RENDERER)
    return {**os.environ, "PATH": str(tools), "PYTHONPATH": str(tools)}


def fetch(out: Path, environment: dict[str, str], style: str = "fxemoji") -> subprocess.CompletedProcess[str]:
    call = [sys.executable, SCRIPT, out, "--styles", style]
    return subprocess.run(call, env=environment, capture_output=True, text=True)


def test_a_style_is_fetched_and_drawn(tmp_path: Path, surroundings: dict[str, str]) -> None:
    snail = tmp_path / "out" / "fxemoji" / "snail" / "snail.png"
    snail.parent.mkdir(parents=True)
    snail.write_bytes(b"mine")
    done = fetch(tmp_path / "out", surroundings)
    assert (done.returncode, done.stdout) == (0, "fxemoji: 2 drawings, Apache 2.0\n"), done.stderr
    assert snail.read_bytes() == b"mine"
    cat = (tmp_path / "out" / "fxemoji" / "cat" / "cat-face.png").read_text()
    assert cat == '96 <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 40" color="#222"><a/></svg>'
    drawn = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.png")}
    assert drawn == {Path("fxemoji/cat/cat-face.png"), Path("fxemoji/snail/snail.png")}


def test_glyphs_of_every_set_are_one_style(tmp_path: Path, surroundings: dict[str, str]) -> None:
    done = fetch(tmp_path, surroundings, "glyphs")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"glyphs, {name}: 1 drawings, MIT" for name in GLYPHS]
    drawn = {path.name for path in (tmp_path / "glyphs").glob("*/*.png")}
    assert drawn == {f"{name}--{next(iter(animals.values()))[0]}.png" for name, animals in GLYPHS.items()}


@pytest.mark.parametrize(
    ("lost", "says"), [("npm", "install Node.js"), ("resvg_py.py", "pip install resvg-py")]
)
def test_what_is_missing_is_named(tmp_path: Path, surroundings: dict[str, str], lost: str, says: str) -> None:
    (Path(surroundings["PATH"]) / lost).unlink()
    if lost == "resvg_py.py":  # one that pip has installed is not to be seen either
        hide = "import sys\nfrom importlib.machinery import PathFinder\nfind = PathFinder.find_spec\n"
        hide += "PathFinder.find_spec = lambda name, *a: None if name == 'resvg_py' else find(name, *a)\n"
        (Path(surroundings["PATH"]) / "sitecustomize.py").write_text(hide)
    done = fetch(tmp_path / "out", surroundings)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "out").exists()
