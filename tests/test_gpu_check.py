"""The check of what needs a GPU, end to end on a CPU in tiny sizes, so that it does not rot."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent
STEPS = (
    "versions", "same_as_cpu", "speed_invert", "train", "stable_diffusion", "gpu_tests", "launch", "repeat",
    "renderer", "zero_shot", "attributes", "decomposition",
)  # fmt: skip


def failures(found: Any, where: str = "") -> list[str]:
    """What failed in a part of a step."""
    if not isinstance(found, dict):
        return []
    inner = [each for key, value in found.items() for each in failures(value, f"{where}/{key}")]
    return inner + ([f"{where}: {found['failed']}"] if found.get("failed") else [])


def test_the_architecture_of_stable_diffusion_is_inverted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part that an interface of core broke once, at a tenth of the width."""
    pytest.importorskip("diffusers")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import stable_diffusion

    from igm_cli.core.concepts import Text
    from igm_cli.core.models.text_to_image import TextToImageDenoiser

    parts = stable_diffusion.random_parts(torch.device("cpu"), 64, torch.float32, 10)
    denoiser = TextToImageDenoiser(parts, Text(stable_diffusion.LABELS[:3]))
    latent = denoiser.encode(torch.zeros(3, 64, 64))
    assert stable_diffusion.enumerated(denoiser, latent, 1, 1)[1:] == (3, 3)


@pytest.mark.slow
def test_the_whole_check_on_a_cpu(tmp_path: Path) -> None:
    environment = {**os.environ, "DEVICE": "cpu", "OUT": str(tmp_path), "PYTHON": sys.executable, "STEPS": ""}
    call = ["bash", "benchmarks/gpu_check.sh"]
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500)
    results = json.loads((tmp_path / "results.json").read_text())
    steps = results["steps"]
    assert tuple(steps) == STEPS
    assert {name: step["status"] for name, step in steps.items()} == dict.fromkeys(STEPS, "done")
    assert failures(steps) == []
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) < 10_000
    assert done.stdout.index("decomposition: {") < done.stdout.index("versions: {")

    assert steps["versions"]["ok"]
    for kind in ("float32", "by default"):
        assert steps["same_as_cpu"][kind]["same_k"] == "3 of 3"
        assert steps["same_as_cpu"][kind]["largest_distance"] < 1e-6
    assert steps["speed_invert"]["batch 2"]["per_second"] > 0
    assert steps["speed_invert"]["batch 1, profile"]["kernels_per_image"] > 100
    assert len(steps["train"]["igm train, resumed"]["loss"]) > len(steps["train"]["igm train"]["loss"])
    (sd,) = [value for key, value in steps["stable_diffusion"].items() if key.startswith("64 x 64")]
    assert sd["calls"] == 3
    assert sd["share_of_unet_speed"] > 0
    assert steps["launch"]["resumed and in one go"]["same_bits"]
    assert steps["launch"]["torch.distributed, resumed"] == [3, 6]
    assert steps["repeat"]["inversion, twice"] is steps["repeat"]["inversion, one by one"] is True
    assert steps["repeat"]["training, twice"]["same_bits"]
    assert "passed" in steps["gpu_tests"]["pytest"]
    assert all("test_kernels" in line for line in steps["gpu_tests"]["skipped"])  # they need Triton
    assert "ms per image" in steps["renderer"]["cpu, 4 at a time"][0]
    assert steps["zero_shot"]["same"] == steps["attributes"]["same"] == "1 of 1"
    assert steps["decomposition"]["auto n100, cpu"]["right"] == 1


def test_steps_that_are_not_known_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEPS", "train,trian")
    mine = tmp_path / "mine.json"
    mine.write_text("mine")
    for arguments, says in (
        ([], "'trian'"),
        (["step", "trian", mine], "no arguments"),
        (["a", "b", mine], "no arguments"),
    ):
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", *map(str, arguments)])
        with pytest.raises(SystemExit, match="2"):
            runpy.run_path(str(ROOT / "benchmarks" / "gpu_check.py"), run_name="__main__")
        assert says in capsys.readouterr().err and mine.read_text() == "mine"
