"""What tests share.  One thread, so that results do not depend on the machine."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import forks
import pytest
import tiny_models
import torch

from igm_cli import app, bundled, output
from igm_cli.core.training import run as training

if TYPE_CHECKING:
    from benchmark_cases import Run

torch.set_num_threads(1)
output.FIRST = 3600.0  # a slow machine adds no lines of progress
training.MEASURED = 0.0  # a dry run times three steps

ROOT = Path(__file__).resolve().parent.parent
PRETENDING = (
    "core/training/test_device_training.py",
    "core/inference/test_device.py",
    "core/decomposition/test_device.py",
)
"""Tests after which torch believes in a device that is not there, and refuses to train in a fork; the first of them trains."""
Igm = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves the tests that pretend to the end."""
    ends = ("", *PRETENDING)
    items.sort(key=lambda item: max(n for n, end in enumerate(ends) if item.path.as_posix().endswith(end)))


@pytest.fixture(scope="session")
def igm(tmp_path_factory: pytest.TempPathFactory) -> Igm:
    """Runs ``igm`` as a process of its own, far from a terminal: a fork of this one, unless its environment is another."""
    cache = tmp_path_factory.mktemp("cache")
    base = os.environ | {"HF_HOME": str(cache), "COLUMNS": "120", "NO_COLOR": "1"}

    def run(
        *arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        if env is None:
            return forks.run(words, base, cwd or cache, timeout)
        return subprocess.run(
            [sys.executable, "-m", "igm_cli", *words],
            env=base | env,
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
    """Runs every method of a benchmark suite on a few items of some splits, once for all processes of a session."""
    from benchmark_cases import CASES, Run, summary_of, work
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    @functools.cache
    def run(name: str) -> Run:
        folder = shared / f"suite-{name}"
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "lock"):
            request, out = CASES[name].request(folder), folder / "run"
            if not (folder / "done").exists():
                work(name, request, out)
                (folder / "done").touch()
        return Run(name, request, out, summary_of(out))

    return run


@pytest.fixture
def run(request: pytest.FixtureRequest, finished: Callable[[str], Run]) -> Run:
    """The finished run of the suite that a test file is named after: test_benchmark_SUITE.py."""
    return finished(request.path.stem.removeprefix("test_benchmark_").replace("_", "-"))


def in_two(*what: object) -> list[str]:
    """The command that runs a script, or ``-m`` and a module, in two processes that work together on the CPU.

    With ``--cpu``, ``accelerate launch`` starts one process, whatever number it is given.
    """
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return [*launch, *map(str, what)]


def launch_two(*what: object, cwd: Path | None = None) -> str:
    """What a script, or ``-m`` and a module, prints in two processes that work together on the CPU."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(in_two(*what), env=environment, cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small random model that sees 32x32 pixels and speaks of ``pos``."""
    return tiny_models.positions(tmp_path_factory.mktemp("models") / "tiny-pos")


@pytest.fixture(scope="session")
def tiny_attributes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for ``attributes``: two factors, one of them of three values."""
    return tiny_models.attributes(tmp_path_factory.mktemp("models") / "tiny-attributes")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three images of different sizes."""
    return tiny_models.pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module", params=["quick", pytest.param("as shipped", marks=pytest.mark.slow)])
def bundled_models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bundled models with few draws, for tests of what is made of their answers; the slow tests have them as shipped."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "quick":
            root = tmp_path_factory.mktemp("bundled")
            for name, source in bundled.bundled().items():
                (root / name).mkdir()
                for path in source.iterdir():
                    if path.name != "igm.json":
                        (root / name / path.name).symlink_to(path)
                told = json.loads((source / "igm.json").read_text(encoding="utf-8"))
                draws = {"pos": 2, "objects": 3}.get(told["concepts"], 8)
                told["inference"] |= {"draws": draws, "max_draws": draws}
                (root / name / "igm.json").write_text(json.dumps(told), encoding="utf-8")
            patch.setattr(bundled, "BUNDLED", root)
        yield request.param


class Done(NamedTuple):
    """How a command ended: its exit code, and what it said on stdout and on stderr."""

    code: int
    out: str
    err: str


Here = Callable[..., Done]


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs igm in this process, in a folder if one is given."""

    def run(*words: object, cwd: Path | None = None) -> Done:
        if cwd:
            monkeypatch.chdir(cwd)
        capsys.readouterr()  # what was said before
        return Done(app.main([str(word) for word in words]), *capsys.readouterr())

    return run
