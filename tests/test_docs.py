"""Pages: the tutorial's code is the example's, Python runs and prints what it says, and commands can be given."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Igm

EXAMPLE = ROOT / "examples" / "igm-dots"
TUTORIAL = ROOT / "docs" / "plugins.md"
TEXT = TUTORIAL.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines() if "igm " in line]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = [
    command.replace("\\\n", " ")
    for page in PAGES
    for command in re.findall(
        r"^    ((?:accelerate .*)?igm (?:\\\n|.)*)", page.read_text("utf-8"), re.MULTILINE
    )
]


def igm_arguments(line: str) -> list[str]:
    """What follows ``igm`` and any variables before it."""
    words = shlex.split(line, comments=True)
    return words[words.index("igm") + 1 :]


def _bare(code: str) -> str:
    """Without indentation and blank lines, which formatters change when methods stand alone."""
    return "".join(f"{line.strip()}\n" for line in code.splitlines() if line.strip())


def test_code_is_the_examples() -> None:
    assert {kind for kind, _ in BLOCKS} == {"python", "toml", "sh"}
    files = [_bare(p.read_text(encoding="utf-8")) for p in EXAMPLE.rglob("*") if p.suffix in (".py", ".toml")]
    for kind, block in BLOCKS:
        if kind != "sh":
            assert any(_bare(block) in file for file in files), block


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(
        r"`((?:examples|igm_cli|packages|benchmarks|tools|docs)/[\w./-]+)`(?! of commit)", text
    ):
        assert (ROOT / path).exists() or (ROOT / "igm_cli" / path).exists(), path


def test_the_map_of_the_code_is_right() -> None:
    """Every file of the table in CONTRIBUTING.md is there, and so are the names it gives."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Where is")[1].split("## ")[0]
    files = set()
    for _, place in re.findall(r"^\| (.*?) \| (.*) \|$", text, re.MULTILINE)[1:]:
        for file, names in re.findall(r"`([\w./-]+)`(?: \(([^)]*)\))?", place):
            assert (path := next(filter(Path.exists, (ROOT / "igm_cli" / file, ROOT / file)), None)), file
            for name in re.findall(r"`?([A-Za-z_]\w+)`?", names or ""):
                assert re.search(rf"\b{name}\b", path.read_text(encoding="utf-8")), (file, name)
            files.add(file)
    assert len(files) >= 25


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_python_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Python of a page, from top to bottom; what it prints is what the comment after each print says."""
    examples = {"photo": "images/CLEVR_val_000003", "face": "faces/long-0", "scene": "animals/lion-koala"}
    for name, source in examples.items():
        shutil.copy(ROOT / f"examples/{source}.png", tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    said = [line.split("  # ", 1)[1] for line in "".join(blocks).splitlines() if "print(" in line]
    assert said and capsys.readouterr().out.splitlines() == said
    assert (tmp_path / "found.png").exists()


@pytest.mark.parametrize("line", [*COMMANDS, *dict.fromkeys(SHOWN)])
def test_commands_parse(line: str) -> None:
    """Names, types and choices of every option are right, and each word arrives; nothing is run."""
    import typer.main

    from igm_cli.app import command_line

    group = typer.main.get_command(command_line())
    name, *arguments = igm_arguments(line)
    command = group.commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, arguments)
    arrived = set()
    for parameter in command.params:
        if context.get_parameter_source(parameter.name).name == "COMMANDLINE":
            value = context.params[parameter.name]
            arrived |= {*parameter.opts, *map(str, value if isinstance(value, list) else [value])}
    assert set(arguments) <= arrived


@pytest.mark.slow
def test_without_packaging(igm: Igm, tmp_path: Path) -> None:
    """The commands of that section as they are, but small."""
    from PIL import Image

    Image.new("RGB", (40, 30), (6, 8, 24)).save(tmp_path / "sky.png")
    train, invert = (igm_arguments(line) for line in COMMANDS if line.startswith("PYTHONPATH=. "))
    site = {"PYTHONPATH": os.pathsep.join([str(EXAMPLE), str(ROOT)])}
    small = ("--steps", 2, "--limit", 4, "--batch-size", 2, "--device", "cpu")
    trained = igm(*train, *small, env=site, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    done = igm(*invert, "--k", 1, "--draws", 2, "--device", "cpu", "--json", env=site, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["concepts"] == "stars"
