"""What tests share.  One thread, so that results do not depend on the machine."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

if TYPE_CHECKING:
    from benchmark_cases import Run

    from igm_cli.core.concepts import ConceptSpace

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
Igm = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def igm(tmp_path_factory: pytest.TempPathFactory) -> Igm:
    """Runs ``igm`` as a process of its own, far from a terminal."""
    cache = tmp_path_factory.mktemp("cache")
    base = os.environ | {"HF_HOME": str(cache), "COLUMNS": "120", "NO_COLOR": "1"}

    def run(
        *arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "igm_cli", *map(str, arguments)],
            env=base | (env or {}),
            cwd=cwd or cache,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture(scope="session")
def gpu() -> str:
    """The device of a test that needs a GPU; with DEVICE=cpu in the environment it runs without one."""
    device = os.environ.get("DEVICE", "cuda")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return device


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Runs every method of a benchmark suite on a few items of some splits, once per session."""
    from benchmark_cases import CASES, Run, work

    @functools.cache
    def run(name: str) -> Run:
        folder = tmp_path_factory.mktemp(name)
        request, out = CASES[name].request(folder), folder / "run"
        return Run(name, request, out, work(name, request, out))

    return run


def launch_two(*what: object, cwd: Path | None = None) -> str:
    """What a script, or ``-m`` and a module, prints in two processes that work together on the CPU."""
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", "0", *map(str, what),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small random model that sees 32x32 pixels and speaks of ``pos``."""
    from igm_cli.core.concepts import Continuous

    space = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True)
    inference = {"grid": [4, 4], "draws": 4, "max_draws": 4, "k_max": 3, "keep": 8, "refine_steps": 1}
    return _tiny(tmp_path_factory.mktemp("models") / "tiny-pos", space, "pos", {}, inference)


@pytest.fixture(scope="session")
def tiny_attributes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for ``attributes``: two factors, one of them of three values."""
    from igm_cli.core.concepts import Categorical

    space = Categorical({"Smiling": ("no", "yes"), "hair": ("black", "blond", "grey")})
    options = {"factors": "Smiling,hair=black|blond|grey"}
    inference = {"draws": 4, "max_draws": 8, "temperature": 1e-4, "typical": [1e-6, 0.1]}
    folder = tmp_path_factory.mktemp("models") / "tiny-attributes"
    return _tiny(folder, space, "attributes", options, inference)


def _tiny(
    folder: Path, space: ConceptSpace, concepts: str, options: dict[str, str], inference: dict[str, Any]
) -> Path:
    """A small random model in a folder."""
    from igm_cli.core.checkpoint import ModelSpec, save_checkpoint
    from igm_cli.core.concepts import space_to_dict
    from igm_cli.core.noise_schedule import ScheduleConfig

    shape = {"channels": [8, 8, 8], "blocks": 1, "head_channels": 8, "head_layers": 1, "window": 3}
    spec = ModelSpec(
        architecture="factored",
        options={"image_size": [32, 32], "patch": 4, **shape},
        space=space_to_dict(space),
        schedule=ScheduleConfig().to_dict(),
        composition="sum",
        image_size=(32, 32),
        concepts=concepts,
        concept_options=options,
        inference=inference,
    )
    torch.manual_seed(0)
    model = spec.build()
    with torch.no_grad():  # zero-initialised outputs would make every hypothesis equal
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_checkpoint(folder, spec, model.state_dict())
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three images of different sizes."""
    from PIL import Image, ImageDraw

    folder = tmp_path_factory.mktemp("pictures")
    for number, size in enumerate([(32, 32), (64, 40), (30, 50)]):
        image = Image.new("RGB", size, (90, 90, 90))
        ImageDraw.Draw(image).ellipse((8, 8, 20 + number, 20), fill=(200, 30, 30))
        image.save(folder / f"{number}.png")
    return folder
