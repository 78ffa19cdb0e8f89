"""Kernels of our own compute what the functions of torch do that they stand for.

Without a GPU the search's runs in Triton's interpreter, where Triton is installed: DEVICE=cpu TRITON_INTERPRET=1.
"""

from __future__ import annotations

import pytest
import torch

from igm_cli.core.composition import Composition
from igm_cli.core.device import has_triton
from igm_cli.core.inference.pursuit import BEYOND, EXCHANGES, SWAPS, pursuit
from igm_cli.core.inference.statistics import QuadraticForm
from igm_cli.core.models.local_head import HeadView, LocalHead

pytestmark = pytest.mark.gpu
K = 6


@pytest.mark.parametrize("composition", ["sum", "mean"])
@pytest.mark.parametrize("crowded", [False, True])
def test_the_search_of_sets(gpu: str, composition: Composition, crowded: bool) -> None:
    triton = pytest.importorskip("triton")
    if gpu == "cpu" and not triton.knobs.runtime.interpret:
        pytest.skip("without a GPU it needs TRITON_INTERPRET=1")
    from igm_cli.core.inference import pursuit_triton

    g = torch.Generator().manual_seed(3)
    images, m, d = (32, 60, 40) if gpu != "cpu" else (3, 20, 12)
    delta = torch.randn(images, m, d, generator=g).double()
    delta = delta.abs() if crowded else delta
    residual = delta[:, :5].sum(1) + 0.3 * torch.randn(images, d, generator=g).double()
    usable = torch.ones(images, m, dtype=torch.bool)
    usable[1, 15:], usable[2, 3:] = False, False  # fewer candidates than others have, and than are looked for
    linear = (delta @ residual[..., None])[..., 0]
    form = QuadraticForm(residual.square().sum(1), linear, delta @ delta.mT, usable, composition)
    there = form.to(torch.device(gpu))
    sets, found = pursuit_triton.search(there, K, K + BEYOND, swaps=SWAPS, exchanges=EXCHANGES)
    expected = pursuit(form, K)
    assert torch.equal(found.cpu(), expected.errors.isfinite())
    errors = there.error(sets).cpu().masked_fill(~found.cpu(), torch.inf)
    torch.testing.assert_close(errors, expected.errors, rtol=1e-9, atol=1e-9)
    assert torch.equal(sets.cpu().sort(-1).values, expected.sets.sort(-1).values)


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("images", [1, 3])
def test_the_local_head(gpu: str, layers: int, images: int) -> None:
    """With gradients, for which there is no kernel, the head goes by torch's functions."""
    if not has_triton(torch.device(gpu)):
        pytest.skip("needs Triton on a GPU")
    torch.manual_seed(0)
    grid, samples, m = (24, 16), 2, 7
    head = LocalHead(32, 96, layers, window=6, patch=4).to(gpu, torch.bfloat16)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    features = torch.randn(samples * images, 32, grid[1], grid[0], device=gpu, dtype=torch.bfloat16)
    position = torch.rand(images, m, 2, device=gpu)
    position[0, 0] = torch.tensor([0.01, 0.99])  # a window that the border cuts
    gain = torch.rand(samples * images, device=gpu)
    with torch.no_grad():
        view: HeadView = head.project(features)
        for around in (None, position + 0.004):
            assert head.kernels_fit(position)
            values, cells = head.windows(view, position, gain, around)
            with torch.enable_grad():
                expected, where = head.windows(view, position, gain, around)
            assert torch.equal(cells, where)
            apart = (values - expected.detach()).norm() / expected.norm()
            assert float(apart) < 0.02  # both round to bfloat16 at every step
