"""Pages: the tutorial's code is the example's, Python runs and prints what it says, and commands can be given."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from conftest import ROOT, Here
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from PIL import Image, ImageChops, ImageStat

from igm_cli.evaluation import Evaluation

EXAMPLE = ROOT / "examples" / "igm-dots"
IMAGES = ROOT / "docs" / "images"
TUTORIAL = ROOT / "docs" / "plugins.md"
TEXT = TUTORIAL.read_text(encoding="utf-8")
FILES = dict(re.findall(r'^```\w+ title="igm-dots/([^"]+)"\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL))
STEPS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
COMMANDS = [line for line in STEPS if "igm " in line]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = [
    command.replace("\\\n", " ")
    for page in PAGES
    for command in re.findall(
        r"^    ((?:accelerate .*|srun )?igm (?:\\\n|.)*)", page.read_text("utf-8"), re.MULTILINE
    )
]


def igm_arguments(line: str) -> list[str]:
    """What follows ``igm`` and any variables before it."""
    words = shlex.split(line, comments=True)
    return words[words.index("igm") + 1 :]


def test_the_tutorials_files_are_the_examples() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "."], cwd=EXAMPLE, capture_output=True, text=True
    ).stdout.split()
    if listed:  # a checkout
        assert {*FILES} == {name for name in listed if not name.endswith(("__init__.py", "README.md"))}
    for name, text in FILES.items():
        assert (EXAMPLE / name).read_text(encoding="utf-8") == text, name


@pytest.mark.slow
def test_the_tutorial_followed_to_the_letter(tmp_path: Path) -> None:
    """In an empty folder, by its files and commands alone, it gives what it says, pictures included."""
    for name, text in FILES.items():
        path = tmp_path / "igm-dots" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "igm-dots/igm_dots/__init__.py").touch()
    words, site = tmp_path / "words", tmp_path / "site"
    words.mkdir()
    pip = f"-m pip install --quiet --no-deps --no-build-isolation --no-index --target {site}"
    for word, runs in {"igm": '-m igm_cli "$@"', "python": '"$@"', "pip": f'{pip} "$2"'}.items():
        (words / word).write_text(f'#!/bin/sh\nexec "{sys.executable}" {runs}\n')
        (words / word).chmod(0o755)
    environment = os.environ | {"PATH": f"{words}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}
    environment["PYTHONPATH"] = os.pathsep.join([str(site), str(ROOT)])
    said = {}
    for line in STEPS:
        if not line.startswith("PYTHONPATH="):  # test_without_packaging
            done = subprocess.run(
                ["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, (line, done.stderr)
            said[line] = done.stdout
    told = "\n".join(said.values())
    assert "bright stars on a dark sky" in told and "K = 3 (estimated)" in told and "sky.png: K = 3, " in told
    score = re.search(r"igm +│ +(\d+) %", told)
    assert score and int(score[1]) >= 60, told
    for name in ("found", "curve"):
        made, shown = (
            Image.open(p).convert("RGB") for p in (tmp_path / f"{name}.png", IMAGES / f"stars-{name}.png")
        )
        assert made.size == shown.size
        difference = ImageStat.Stat(ImageChops.difference(made, shown)).mean
        assert max(difference) < 12, (name, difference)
    assert len(list((tmp_path / "generated").glob("3-stars-*.png"))) == 4
    assert (tmp_path / "runs/stars/curves.png").is_file()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(
        r"`((?:examples|igm_cli|packages|benchmarks|tools|docs)/[\w./-]+)`(?! of commit)", text
    ):
        assert (ROOT / path).exists() or (ROOT / "igm_cli" / path).exists(), path


def test_the_page_of_the_package_index_has_no_dead_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Links into the repository lead nowhere there; what they say stays."""
    monkeypatch.delenv("IGM_PUBLIC_URL", raising=False)
    metadata = ProjectMetadata(str(ROOT), PluginManager())
    page = metadata.core.readme
    assert not [target for target in re.findall(r"\]\(([^)]+)\)", page) if not target.startswith("http")]
    assert (
        "![" not in page and "docs/method.md has the mathematics" in page and "    igm invert image.png" in page
    )
    assert not re.search(r"^\*[A-Z]", page, re.MULTILINE)  # a caption without its picture
    assert not metadata.core.urls


def test_the_page_of_the_package_index_leads_to_a_public_address(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "https://example.org/owner/igm"
    monkeypatch.setenv("IGM_PUBLIC_URL", address + "/")
    metadata = ProjectMetadata(str(ROOT), PluginManager())
    page, urls = metadata.core.readme, metadata.core.urls
    targets = [*re.findall(r"\]\(([^)#]+)[^)]*\)", page), *urls.values()]
    assert all(target.startswith("https://") for target in targets) and urls["Homepage"] == address
    ours = [target.removeprefix(address + "/") for target in targets if target.startswith(address + "/")]
    paths = [re.fullmatch(r"(blob|raw)/main/(.+)", target) for target in ours]
    assert all(path and (ROOT / path[2]).exists() for path in paths)
    pictures = {path[2] for path in paths if path and path[1] == "raw"}
    assert pictures == set(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text("utf-8")))


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_or_a_dead_link(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-3000:]
    pages = {
        page: page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html") if page.name != "404.html"
    }
    assert {page.stem for page in pages} >= {page.stem for page in (ROOT / "docs").glob("*.md")} | {"index"}
    anchors = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in pages.items()}
    for page, text in pages.items():
        for target in re.findall(r'<(?:a|img|link|script)\b[^>]*?\b(?:href|src)="([^"]*)"', text):
            if target.startswith(("https://", "http://")) and not re.search(
                rf'<a\b[^>]*href="{re.escape(target)}"', text
            ):
                pytest.fail(f"{page.name} loads {target}")
            if re.match(r"\w+:", target) or not target:
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), (page.name, target)
            assert not anchor or file not in anchors or unquote(anchor) in anchors[file], (page.name, target)


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


@pytest.mark.usefixtures("bundled_models")
@pytest.mark.parametrize("page", ["README.md", "docs/api.md", "docs/notebooks.md"])
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
    assert (tmp_path / "found.png").exists() or ".save(" not in "".join(blocks)


def test_the_vectors_to_try_are_taken_apart(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/decomposition.md").read_text("utf-8")
    exec(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0], {})
    done = here("decompose", "bound.npy", "--codebooks", "books.safetensors", "--json")
    assert done.code == 0 and [item["index"] for item in json.loads(done.out)["items"]] == [3, 7]


@pytest.mark.parametrize("line", [*COMMANDS, *dict.fromkeys(SHOWN)])
def test_commands_parse(line: str) -> None:
    """Names, types and choices of every option are right, and each word arrives; nothing is run."""
    import typer.main

    from igm_cli.app import command_line

    name, *arguments = igm_arguments(line)
    group = typer.main.get_command(command_line(name))
    command = group.commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, arguments)
    arrived = set()
    for parameter in command.params:
        if context.get_parameter_source(parameter.name).name == "COMMANDLINE":
            value = context.params[parameter.name]
            arrived |= {*parameter.opts, *map(str, value if isinstance(value, list) else [value])}
    assert set(arguments) <= arrived


def test_the_slurm_script_queues_a_job_again_that_was_ended(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "slurm.md").read_text(encoding="utf-8")
    script = re.search(r"^    #!/bin/bash\n(?:    .*\n|\n)*", text, re.MULTILINE)
    assert script
    (tmp_path / "job.sh").write_text(script[0].replace("\n    ", "\n"))
    for word, does in {
        "srun": '"$@"',
        "igm": "echo $* >> calls; test -e again && exit 0; touch again; exit 143",
        "scontrol": "echo $* >> queue",
    }.items():
        (tmp_path / word).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / word).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    for _ in range(2):
        subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "queue").read_text() == "requeue 7\n"
    assert len(set((tmp_path / "calls").read_text().splitlines())) == 1


def test_without_packaging(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of that section, but small; the model is calibrated by the parser named, and what is advised works."""
    monkeypatch.syspath_prepend(EXAMPLE)
    Image.new("RGB", (40, 30), (6, 8, 24)).save(tmp_path / "sky.png")
    train, invert = (igm_arguments(line) for line in COMMANDS if line.startswith("PYTHONPATH="))
    tiny = ("--set", "picture_every=0", "--set", "model.channels=[8,8,8]", "--device", "cpu")
    small = ("--steps", 1, "--limit", 2, "--batch-size", 2, *tiny)
    few = here(*train, *small, "--set", "calibration=2", cwd=tmp_path)
    assert few.err.endswith(f"use it with: igm {' '.join(invert).replace('sky.png', 'IMAGE')}\n"), few.err
    way_out = re.search(r"not calibrated \(.* on 16 images or more, not 2; .*\); igm (.*) does it", few.err)
    monkeypatch.setattr(Evaluation, "calibrated", lambda *_: {"penalty": 0.1})
    quick = ("--limit", 2, "--draws", 1, "--device", "cpu")
    assert way_out and "is calibrated on 2 images" in here(*way_out[1].split(), *quick).err
    done = here(*invert, "--k", 1, "--draws", 1, "--device", "cpu", "--json")
    assert done.code == 0 and json.loads(done.out)["concepts"] == "stars", done.err
