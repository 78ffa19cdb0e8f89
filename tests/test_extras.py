"""``pip install igm-cli`` alone: what it can do, and what it says where an extra is lacking."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codebook_files import write_problems
from test_cli import one_sentence

from igm_cli.core.decomposition.problems import random_problems
from igm_cli.errors import EXTRAS, MissingError, missing, need

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
IMAGE = str(ROOT / "examples/images/CLEVR_val_000003.png")
LACKING = (
    "accelerate",
    "av",
    "datasets",
    "diffusers",
    "gradio",
    "matplotlib",
    "skimage",
    "tensorboard",
    "transformers",
)
WITHOUT = f"""
import contextlib, io, json, sys

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {LACKING!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Lacking())

from igm_cli import app

for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = app.main(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
"""Runs commands in one process that lacks the libraries of the extras; prints exit code, stdout and stderr of each."""


NEEDING = {
    "igm-cli[train]": ["train", "clevr", "--data-root", "."],
    "igm-cli[text]": ["zero-shot", IMAGE, "--model", "animals-tiny"],
    "igm-cli[plots]": ["estimate-k", IMAGE, "--plot", "curve.png"],
    "igm-cli[video]": ["invert", "film.mp4", "--every", "10"],
    "igm-cli[bench]": ["benchmark", "decomposition", "--out", "bench"],
    "igm-cli[ui]": ["ui"],
}
"""Commands that need an extra."""


def test_the_base_inverts_images_and_vectors_and_names_the_extra_that_it_lacks(tmp_path: Path) -> None:
    problems = random_problems(6, 3, 256, 1, seed=2)
    write_problems(tmp_path / "books.safetensors", problems)
    np.save(tmp_path / "one.npy", problems.vectors[0].numpy())
    places = ["invert", IMAGE, "--k", "5", "--draws", "2", "--overlay", "o.png"]
    traits = ["invert", str(ROOT / "examples/faces/beard-0.png"), "--concepts", "attributes", "--draws", "4"]
    vectors = ["decompose", "one.npy", "--codebooks", "books.safetensors"]
    works = [[*command, "--json"] for command in (places, traits, vectors, ["doctor"])]
    given = "".join(json.dumps(command) + "\n" for command in (*works, *NEEDING.values()))
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT], input=given, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert ran.returncode == 0, ran.stderr
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    done, refused = answers[:4], answers[4:]
    assert [code for code, _, _ in done] == [0, 0, 0, 0], done
    found: list[dict[str, Any]] = [json.loads(out) for _, out, _ in done]
    assert len(found[0]["items"]) == 5 and (tmp_path / "o.png").is_file()
    assert {item["factor"] for item in found[1]["items"]} >= {"Smiling"}
    assert [item["index"] for item in found[2]["items"]] == problems.truth[0].flatten().tolist()
    assert found[3]["ok"] and found[3]["extras"]["train"] == ["accelerate", "datasets", "tensorboard"]
    for extra, (code, out, err) in zip(NEEDING, refused, strict=True):
        assert (code, out) == (4, "") and f"pip install '{extra}'" in one_sentence(err), (extra, err)
    assert {path.name for path in tmp_path.iterdir()} == {"books.safetensors", "o.png", "one.npy"}  # no more


def test_the_extras_are_those_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {"python-avatars": "python_avatars", "resvg-py": "resvg_py", "scikit-image": "skimage"}
    named["protobuf"] = "google.protobuf"
    declared = {
        extra: [name.partition(">")[0] for name in names]
        for extra, names in project["optional-dependencies"].items()
    }
    for extra, (_, libraries) in EXTRAS.items():
        assert sorted(named.get(name, name) for name in declared[extra]) == list(libraries)
    assert not {name.partition(">")[0] for name in project["dependencies"]} & set(LACKING)


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    need("plots")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert missing("matplotlib", "torch") == ["matplotlib"]
    with pytest.raises(MissingError, match=r"^a plot needs matplotlib; pip install 'igm-cli\[plots\]'$"):
        need("plots")
