"""Inversion on a device that computes while the host goes on, which the CPU pretends to be."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import forks
import pytest
import torch
import torch.distributed as dist
from conftest import ROOT
from torch import Tensor

from igm_cli.core.concepts import Continuous
from igm_cli.core.inference.engine import invert_batch
from igm_cli.core.models.factored import FactoredConfig, FactoredDenoiser
from igm_cli.core.noise_schedule import Schedule
from igm_cli.core.types import InversionSettings

SETTINGS = InversionSettings(draws=4, max_draws=8, scan_draws=2, grid=(6, 4), keep=8, k_max=2, refine_steps=2)


@pytest.fixture(scope="module")
def pretended() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import pretended_device

    return pretended_device


@pytest.fixture(scope="module")
def denoiser() -> FactoredDenoiser:
    """A network of random weights: what it says means nothing, but is the same everywhere."""
    torch.manual_seed(0)
    config = FactoredConfig(
        image_size=(48, 32), channels=(8, 8, 8), blocks=1, head_channels=16, head_layers=1, window=4
    )
    space = Continuous(names=("x", "y"), low=(0.0, 0.0), high=(1.0, 1.0), local=True)
    made = FactoredDenoiser(config, space, Schedule())
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(4, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


def counted(
    pretended: Any, denoiser: FactoredDenoiser, images: Tensor, float64: bool = True
) -> tuple[list[Any], int, int]:
    """Answers, kernels and waits of an inversion on the pretended device."""
    with pretended.Pretended(float64=float64) as seen:
        there, moved = denoiser.to(pretended.DEVICE), images.to(pretended.DEVICE)
        seen.kernels.clear()
        seen.waits.clear()
        found = invert_batch(there, moved, SETTINGS, k=2)
        kernels, waits = seen.kernels.total(), seen.waits.total()
        denoiser.to("cpu")
    return found, kernels, waits


@pytest.fixture(scope="module")
def seen(pretended: Any, denoiser: FactoredDenoiser, images: Tensor) -> tuple[list[Any], int, int]:
    """Answers, kernels and waits of all images on the pretended device."""
    return counted(pretended, denoiser, images)


@pytest.mark.parametrize("float64", [True, False])
def test_a_device_finds_what_the_cpu_finds(
    pretended: Any,
    denoiser: FactoredDenoiser,
    images: Tensor,
    seen: Any,
    monkeypatch: pytest.MonkeyPatch,
    float64: bool,
) -> None:
    """Also a device that has no float64, as MPS: what needs it is worked out on the CPU."""
    if not float64:
        for module in ("candidates", "gauss_newton"):
            place = f"igm_cli.core.inference.{module}.search_device"
            monkeypatch.setattr(place, lambda device: torch.device("cpu"))
    monkeypatch.setattr("igm_cli.core.device.has_bf16", lambda device: False)
    expected = invert_batch(denoiser, images, SETTINGS, k=2)
    found, _, _ = seen if float64 else counted(pretended, denoiser, images, float64=False)
    assert {one.k for one in expected} == {2}
    for one, other in zip(found, expected, strict=True):
        assert (one.k, one.draws, one.network_calls) == (other.k, other.draws, other.network_calls)
        torch.testing.assert_close(one.concepts, other.concepts, atol=2e-3, rtol=0)
        torch.testing.assert_close(one.confidence, other.confidence, atol=1e-2, rtol=0)
        assert one.denoising_error == pytest.approx(other.denoising_error, rel=1e-3)


def test_kernels_and_waits_do_not_grow_with_the_batch(
    pretended: Any, denoiser: FactoredDenoiser, images: Tensor, seen: Any
) -> None:
    _, kernels, waits = seen
    _, more_kernels, more_waits = counted(pretended, denoiser, images.repeat(4, 1, 1, 1))
    assert more_kernels < kernels + 50
    assert more_waits <= waits


def test_two_processes_find_what_one_finds(
    pretended: Any, denoiser: FactoredDenoiser, images: Tensor, seen: Any, tmp_path: Path
) -> None:
    def half() -> None:
        rank = int(os.environ["RANK"])
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=rank, world_size=2)
        found, _, _ = counted(pretended, denoiser, images.chunk(2)[rank])
        every: list[Any] = [None, None]
        dist.all_gather_object(every, [one.concepts.tolist() for one in found])
        print("found", every[0] + every[1])
        with contextlib.suppress(RuntimeError):  # the other process may be gone already
            dist.barrier()

    said, _ = forks.together(half)
    two = torch.tensor(json.loads(said.split("found")[1].splitlines()[0]))
    torch.testing.assert_close(two, torch.stack([each.concepts for each in seen[0]]), atol=1e-3, rtol=0)
