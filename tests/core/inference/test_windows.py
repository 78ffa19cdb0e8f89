"""Contributions in windows: the same numbers as over whole images, on images of any size."""

from __future__ import annotations

import pytest
import torch

from igm_cli.core.concepts import Continuous
from igm_cli.core.inference import pursuit as searching
from igm_cli.core.inference import windows
from igm_cli.core.inference.engine import invert
from igm_cli.core.inference.pursuit import pursuit
from igm_cli.core.inference.statistics import QuadraticForm
from igm_cli.core.inference.windows import Windows
from igm_cli.core.models import build_denoiser
from igm_cli.core.noise_schedule import Schedule
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError

GRID = (30, 20)
PLANE = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True)
SMALL = {
    "image_size": [48, 32], "channels": [8, 8, 8], "blocks": 1, "head_channels": 8, "head_layers": 1, "window": 2,
}  # fmt: skip
QUICK = InversionSettings(draws=2, max_draws=2, scan_draws=2, grid=(6, 4), keep=12, k_max=4, refine_steps=1)


def some(count: int, seed: int) -> Windows:
    """Squares of 4 x 4 cells at random places, some of them over the border, for two images and three noise samples."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(-3, 30, (2, count, 1, 2), generator=generator)
    square = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    x, y = (corner + square).unbind(-1)
    inside = (x >= 0) & (x < GRID[0]) & (y >= 0) & (y < GRID[1])
    cells = torch.where(inside, y * GRID[0] + x, GRID[0] * GRID[1])
    values = torch.randn(3, 2, count, 16, 5, generator=generator) * inside[None, ..., None]
    return Windows(values, cells, GRID)


def test_inner_products_are_those_of_whole_images(monkeypatch: pytest.MonkeyPatch) -> None:
    some_, others = some(12, 0), some(9, 1)
    image = torch.randn(3, 2, GRID[0] * GRID[1], 5, generator=torch.Generator().manual_seed(2))
    whole = some_.canvas()
    expected = whole @ others.canvas().mT
    for most in (10**6, 0):  # all at once, and tile by tile
        monkeypatch.setattr(windows, "DENSE_CELLS", most)
        torch.testing.assert_close(some_.gram(others), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(some_.gram(some_), whole @ whole.mT, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        some_.pull(image), (whole @ image.flatten(2)[..., None])[..., 0], atol=1e-4, rtol=1e-4
    )
    weight = torch.randn(2, 12, generator=torch.Generator().manual_seed(3))
    added = some_.added_to(image, weight).flatten(2)
    torch.testing.assert_close(
        added, image.flatten(2) + (weight[None, :, None] @ whole)[:, :, 0], atol=1e-4, rtol=1e-4
    )


def test_parts_and_selections_keep_their_places() -> None:
    first, second = some(5, 0), some(4, 1)
    both = Windows.joined([first, second])
    torch.testing.assert_close(both.canvas(), torch.cat([first.canvas(), second.canvas()], dim=2))
    index = torch.tensor([[7, 0, 3], [1, 8, 8]])
    picked = both.select(index).canvas()
    for image in range(2):
        torch.testing.assert_close(picked[:, image], both.canvas()[:, image, index[image]])


@pytest.mark.parametrize("seed", range(12))
def test_exchanges_among_neighbours_find_what_all_exchanges_find(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Spots along a line, two and two so close that one between them is taken for both at first."""
    generator = torch.Generator().manual_seed(seed)
    axis, places = torch.arange(0, 60, 0.1).double(), torch.arange(0, 60, 0.3).double()
    middle = 60 * torch.rand(5, generator=generator)
    truth = torch.cat([middle - 0.5, middle + 0.5]).double()

    def spots(at: torch.Tensor) -> torch.Tensor:
        return (1 - ((axis - at[:, None]).abs() / 3).square()).clamp(min=0)

    delta, image = spots(places), spots(truth).sum(0)
    form = QuadraticForm(
        image.square().sum()[None], (delta @ image)[None], (delta @ delta.T)[None],
        torch.ones(1, len(places), dtype=torch.bool), "sum",
    )  # fmt: skip
    every = pursuit(form, 10).errors
    monkeypatch.setattr(searching, "PAIRS_IN_ALL", 0)
    torch.testing.assert_close(pursuit(form, 10).errors, every, atol=1e-9, rtol=1e-6)


def test_a_model_without_coordinates_inverts_images_of_any_size() -> None:
    image = torch.randn(3, 64, 96, generator=torch.Generator().manual_seed(0))
    told = build_denoiser("factored", SMALL, PLANE, Schedule()).eval().requires_grad_(False)
    with pytest.raises(UsageError, match="trained on images of 48x32 pixels"):
        invert(told, image, QUICK, k=2)
    free = build_denoiser("factored", {**SMALL, "coordinates": False}, PLANE, Schedule()).eval()
    free.requires_grad_(False)
    for parameter in free.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    small = invert(free, image[:, :32, :48].contiguous(), QUICK, k=2)
    large = invert(free, image, QUICK, k=2)
    assert small.k == large.k == 2 and len(large.concepts) == 2
    # Four times the area has four times the candidates; each costs the same.
    assert 3 < large.network_calls / small.network_calls < 4.5
