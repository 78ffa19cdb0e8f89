"""On a GPU igm says what it says on the CPU.  DEVICE=cpu runs the same tests without one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import igm_cli
from igm_clevr_render.materials import TEXTURES
from igm_clevr_render.options import SceneOptions
from igm_clevr_render.renderer import render
from igm_clevr_render.sampling import sample_scenes
from igm_cli.core.decomposition.problems import random_problems

DEVICE = os.environ.get("DEVICE", "cuda")
ROOT = Path(__file__).parents[2]
FEW: dict[str, Any] = {} if DEVICE != "cpu" else {"draws": 2, "max_draws": 2}

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("gpu")]


@pytest.fixture(scope="module")
def scenes() -> list[Any]:
    """Rendered scenes as arrays."""
    options = SceneOptions(objects=(3, 5))
    return list(render(sample_scenes(options, range(4), 7), options).permute(0, 2, 3, 1).numpy())


def places(result: Any) -> torch.Tensor:
    """The positions of a result ``[K,2]``, from left to right."""
    return torch.tensor(sorted((item["x"], item["y"]) for item in result.items)).view(-1, 2)


def test_positions_are_those_of_the_cpu(scenes: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *how, **more: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    there, here = (igm_cli.load("clevr-pos", device=device).invert(scenes, **FEW) for device in ("cpu", DEVICE))
    assert [one.k for one in here] == [one.k for one in there]
    for one, other in zip(here, there, strict=True):
        torch.testing.assert_close(places(one), places(other), atol=1e-3, rtol=0)


def test_an_answer_does_not_depend_on_the_batch(scenes: list[Any]) -> None:
    model = igm_cli.load("clevr-pos", device=DEVICE)
    together = model.invert(scenes, batch_size=4, **FEW)
    for scene, one in zip(scenes, together, strict=True):
        alone = model.invert(scene, **FEW)
        assert alone.k == one.k
        torch.testing.assert_close(places(alone), places(one), atol=1e-3, rtol=0)


def test_training_goes_on(igm: Any, tmp_path: Path) -> None:
    small = (
        "model.channels=[16,16,16]",
        "model.blocks=1",
        "model.window=3",
        "picture_every=0",
        "log_every=1",
        "calibration=0",
    )
    settings = [word for pair in small for word in ("--set", pair)]
    for steps in (3, 5):
        done = igm(
            "train", "clevr", "--limit", 8, "--batch-size", 4, "--steps", steps, "--device", DEVICE,
            "-o", tmp_path / "run", *settings,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert list(losses) == [1, 2, 3, 4, 5]
    assert all(0 < loss < 10 for loss in losses.values())


@pytest.mark.parametrize("method", ["auto", "coupled", "resonator", "factorizer", "exhaustive"])
def test_codewords_are_those_of_the_cpu(method: str) -> None:
    problems = random_problems(16, 3, 600, 8, seed=1)
    found = igm_cli.decompose(problems.vectors, problems.codebooks, method=method, device=DEVICE)
    assert [[item["index"] for item in one.items] for one in found] == problems.truth.tolist()


def test_products_of_a_sum_are_found() -> None:
    problems = random_problems(12, 3, 1200, 2, superposed=2, seed=1)
    found = igm_cli.decompose(problems.vectors, problems.codebooks, k=2, device=DEVICE)
    for one, truth in zip(found, problems.truth, strict=True):
        assert sorted(item["index"] for item in one.items) == sorted(truth.flatten().tolist())


@pytest.mark.parametrize(("model", "folder"), [("animals-tiny", "animals"), ("celeba-attributes", "faces")])
def test_labels_and_attributes_are_those_of_the_cpu(model: str, folder: str) -> None:
    files = sorted((ROOT / "examples" / folder).glob("*.png"))[:2]
    here, there = (igm_cli.load(model, device=device).invert(files, **FEW) for device in (DEVICE, "cpu"))
    for one, other in zip(here, there, strict=True):
        said = [
            [sorted(str(v) for v in item.values() if isinstance(v, str)) for item in x.items]
            for x in (one, other)
        ]
        assert sorted(said[0]) == sorted(said[1])


@pytest.mark.parametrize("more", [{}, {"textures": tuple(TEXTURES)}, {"crowd": 1.0}])
def test_scenes_look_as_on_the_cpu(more: dict[str, Any]) -> None:
    options = SceneOptions(objects=(3, 10), **more)
    scenes = sample_scenes(options, range(16), 0)
    on_device = render(scenes, options, device=DEVICE, chunk=32).cpu()
    apart = (render(scenes, options).int() - on_device.int()).abs()
    assert apart.float().mean() < 0.01
    assert (apart > 1).float().mean() < 1e-4  # a ray at an edge may meet something else


def test_doctor_names_the_gpu(igm: Any) -> None:
    report = json.loads(igm("doctor", "--json").stdout)
    assert [gpu["device"] for gpu in report["gpus"]] == [name for name in report["devices"] if "cuda" in name]
    for gpu in report["gpus"]:
        assert gpu["name"] in igm("doctor").stdout.replace("\n", "")
        assert not gpu["problem"]
        assert 0 < gpu["free_gb"] <= gpu["memory_gb"]


def test_a_gpu_that_is_not_there_is_refused(igm: Any) -> None:
    done = igm("invert", ROOT / "examples" / "images", "--device", f"cuda:{torch.cuda.device_count() + 7}")
    assert done.returncode == 3
    assert "is not here; this machine has " in done.stderr
    assert len(done.stderr.splitlines()) == 1
