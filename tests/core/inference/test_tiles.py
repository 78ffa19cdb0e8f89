"""Images of any size by a denoiser in closed form whose spots have a width in pixels."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from igm_cli.core.inference import continuous, tiles
from igm_cli.core.inference.engine import by_statistics
from igm_cli.core.inference.tiles import invert_any_size
from igm_cli.core.inference.typicality import Typical, features
from igm_cli.core.types import Inversion, InversionSettings
from igm_cli.errors import UsageError
from tests.oracle import SQUARE, Oracle

SETTINGS = InversionSettings(k_max=3, draws=4, max_draws=8, grid=(8, 8), scan_draws=3, keep=24, penalty=20.0)


class Unbounded(Oracle):
    """An oracle for images of any size, trained on 24×24 pixels."""

    image_size, any_size, multiple = (24, 24), True, 4
    PIXELS = 1.8

    def spots(self, points: Tensor, height: int, width: int) -> Tensor:
        """Spots ``[...,3,H,W]`` at points ``[...,2]`` in pixels."""
        dx = torch.arange(width) + 0.5 - points[..., 0:1]
        dy = torch.arange(height) + 0.5 - points[..., 1:2]
        square = dx[..., None, :] ** 2 + dy[..., :, None] ** 2
        spot = torch.exp(-square / (2 * self.PIXELS**2))[..., None, :, :]
        return spot.expand(*spot.shape[:-3], 3, -1, -1)

    def contributions(self, features: tuple[Tensor, Tensor], concepts: Tensor) -> Tensor:
        x_t, t = features
        height, width = x_t.shape[-2:]
        scale = (self._gain(t) * self.schedule.alpha(t)[:, None, None, None])[:, None]
        return -scale * self.spots(concepts * torch.tensor([width, height]), height, width)


def picture(points: Tensor, width: int, height: int) -> tuple[Unbounded, Tensor]:
    oracle = Unbounded(SQUARE)
    noise = oracle.spread * torch.randn(3, height, width, generator=torch.Generator().manual_seed(0))
    return oracle, oracle.spots(points, height, width).sum(0) + noise


def apart(found: Tensor, points: Tensor, width: int, height: int) -> Tensor:
    """Distances in pixels of every point from the nearest one found."""
    return torch.cdist(points, found.float() * torch.tensor([width, height])).amin(1)


def test_every_object_of_an_image_in_tiles_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", 48)
    monkeypatch.setattr(tiles, "OVERLAP", 20)
    width, height = 120, 44
    # Some lie where tiles meet: their common borders are at 36, 60 and 84 pixels.
    points = torch.tensor(
        [[6.0, 9], [36, 12], [35.4, 30], [60.3, 10], [59.7, 33], [84.2, 22], [100, 12], [113, 38]]
    )
    oracle, image = picture(points, width, height)
    told: list[tuple[int, int]] = []
    (found,) = invert_any_size(oracle, image[None], SETTINGS, progress=lambda *done: told.append(done))
    assert found.k == len(found.concepts) == len(found.confidence) == len(points)
    assert apart(found.concepts, points, width, height).max() < 0.3
    assert told[0][1] == told[-1][0] == 4
    for settings, given in (SETTINGS, {"k": 8}), (SETTINGS, {"k_max": 8}), (replace(SETTINGS, k_min=2), {}):
        with pytest.raises(UsageError, match="can be given for an image that is inverted in tiles"):
            invert_any_size(oracle, image[None], settings, **given)


def test_on_a_large_image_only_what_may_be_worth_its_cost_is_refined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what a set leaves over; where the number is given, everything may be needed."""
    points, width, height = torch.tensor([[12.0, 9], [55, 44], [33, 26], [64, 10]]), 72, 56
    oracle, image = picture(points, width, height)
    crowd = torch.cartesian_prod(torch.arange(9.0, width, 18), torch.tensor([10.0, 44]))
    crowded = picture(crowd, width, height)[1]  # more than are looked for
    settings = replace(SETTINGS, k_max=5, draws=3, max_draws=3, scan_draws=2, grid=(6, 6), keep=16)

    def found(share: float, images: Tensor, k: int | None = None) -> list[Inversion]:
        monkeypatch.setattr(continuous, "WORTHWHILE", share)
        return by_statistics(oracle, images, settings, k, "sum")

    few, every = found(0.25, image[None])[0], found(0.0, image[None])[0]
    assert few.network_calls < 0.8 * every.network_calls
    for answer in (few, every):
        assert answer.k == len(points) and apart(answer.concepts, points, width, height).max() < 0.3
    given = [found(share, image[None], k=5)[0].network_calls for share in (0.25, 0.0)]
    assert given[0] == given[1]
    # Another image with more to refine changes nothing.
    alone = [few, found(0.25, crowded[None])[0]]
    for one, beside in zip(alone, found(0.25, torch.stack([image, crowded])), strict=True):
        assert one.network_calls == beside.network_calls
        torch.testing.assert_close(one.concepts, beside.concepts, atol=1e-4, rtol=0)
    assert alone[0].network_calls < alone[1].network_calls


def test_an_image_is_as_typical_as_its_tiles_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile of noise makes a picture of three less typical, and what is found there alone less certain."""
    monkeypatch.setattr(tiles, "TILE", 48)
    monkeypatch.setattr(tiles, "OVERLAP", 0)
    points = torch.tensor([[12.0, 20], [30, 30], [60, 12], [84, 34], [110, 20], [130, 30]])
    oracle, image = picture(points, 144, 48)
    levels = torch.linspace(SETTINGS.low, SETTINGS.high, 5)
    usual = features(levels, torch.ones(5), torch.ones(2), SETTINGS.low, SETTINGS.high)
    usual[:4] = torch.tensor(oracle.spread).square().log()
    wide = torch.eye(6, dtype=torch.float64) * 4.0
    typical = Typical(SETTINGS.low, SETTINGS.high, tuple(usual.tolist()), tuple(map(tuple, wide.tolist())), 4.0)
    settings = replace(SETTINGS, typical=typical)
    (clean,) = invert_any_size(oracle, image[None], settings)
    image[..., 96:] = torch.randn(3, 48, 48, generator=torch.Generator().manual_seed(1))
    (spoilt,) = invert_any_size(oracle, image[None], settings)
    assert clean.typicality > 0.9
    assert spoilt.typicality == pytest.approx(2 / 3, abs=0.1)


def test_of_near_points_of_different_tiles_the_most_certain_one_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    points, certainty = (torch.rand(*shape, generator=generator) for shape in ((300, 2), (300,)))
    tile = torch.randint(4, (300,), generator=generator)
    near = (torch.cdist(points, points) < 0.05) & (tile[:, None] != tile)
    expected = torch.ones(300, dtype=torch.bool)
    for i in certainty.argsort(descending=True).tolist():
        if expected[i]:
            expected &= ~near[i]
    assert torch.equal(tiles.once(points, certainty, tile, 0.05), expected)
    assert 50 < int(expected.sum()) < 250


def test_points_of_many_tiles_are_joined_without_comparing_all_with_all() -> None:
    """Fifty thousand of them, as of a scanned slide, whose distances would fill ten gigabytes."""
    x, y = torch.meshgrid(torch.arange(250.0), torch.arange(200.0), indexing="xy")
    grid = 20 * torch.stack([x, y], dim=-1).flatten(0, 1)
    points, certainty = torch.cat([grid, grid[:500] + 1]), torch.cat([torch.ones(50_000), torch.zeros(500)])
    stays = tiles.once(points, certainty, torch.arange(50_500) // 50_000)
    assert stays[:50_000].all() and not stays[50_000:].any()
    assert tiles.once(points[:0], certainty[:0], torch.zeros(0)).shape == (0,)


def test_more_concepts_are_looked_for_in_larger_images() -> None:
    points = torch.tensor([[x, y] for x in (6.0, 20, 34) for y in (6.0, 20, 34)])
    oracle, image = picture(points, 40, 40)
    (found,) = invert_any_size(oracle, image[None], SETTINGS)
    assert found.k == 9 > SETTINGS.k_max
    assert apart(found.concepts, points, 40, 40).max() < 0.3
    (fewer,) = invert_any_size(oracle, image[None], SETTINGS, k_max=5)
    assert fewer.k == 5


@pytest.mark.parametrize(
    ("length", "tile"), [(320, 320), (336, 192), (496, 272), (656, 256), (1200, 288), (6000, 320)]
)
def test_tiles_cover_a_side_and_overlap(length: int, tile: int) -> None:
    assert tiles.even_tile(length, 16) == tile
    spans = tiles.spans(length, 16, tile, tiles.OVERLAP)
    assert spans[0].start == 0 and spans[-1].stop == length
    assert all(span.stop - span.start == tile and span.start % 16 == 0 for span in spans)
    for one, two in itertools.pairwise(spans):
        assert one.stop - two.start >= tiles.OVERLAP - 16
        assert one.high == two.low
        assert two.start + 16 < one.high < one.stop - 16


def test_what_lies_beyond_the_border_is_explained_and_not_reported() -> None:
    points = torch.tensor([[-0.8, 20.0], [20, 12], [22, 30]])
    oracle, image = picture(points, 40, 40)
    (found,) = invert_any_size(oracle, image[None], SETTINGS, margin=4)
    assert found.k == len(found.concepts) == len(found.confidence) == 2
    assert apart(found.concepts, points[1:], 40, 40).max() < 0.3
    cost = SETTINGS.cost / (40 * 40 / 24**2)
    assert min(found.k_curve, key=lambda p: p.error + cost * p.k).k == 2
    (more,) = invert_any_size(oracle, image[None], replace(SETTINGS, k_min=3), margin=4)
    assert more.k >= 3
    (clamped,) = invert_any_size(oracle, image[None], SETTINGS)
    assert clamped.k > 2  # without a margin it is taken for something at the border
