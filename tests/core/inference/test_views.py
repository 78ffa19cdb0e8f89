"""Views of an image, and which of them a draw looks at."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from igm_cli.core.inference.views import encoded_views, views_of
from igm_cli.core.noise_schedule import van_der_corput, views_of_draws
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError


@pytest.mark.parametrize("count", [1, 2, 4])
def test_views_are_the_image_its_mirror_image_and_both_enlarged(count: int) -> None:
    image = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    views = views_of(image, count)
    assert views.shape == (count, 3, 32, 48)
    assert torch.equal(views[0], image)
    for plain, mirrored in views.split(2) if count > 1 else []:
        assert torch.equal(plain, mirrored.flip(-1))
    if count == 4:
        assert not torch.equal(views[2], image)
        # What lies in the middle stays there, larger: a disc takes 1.12² times the area.
        y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(48) - 23.5, indexing="ij")
        disc = (y.square() + x.square() < 81).float().expand(3, -1, -1)
        assert float(views_of(disc, 4)[2].sum() / disc.sum()) == pytest.approx(1.12**2, rel=0.02)


@given(count=st.sampled_from([1, 2, 4]), block=st.integers(0, 50))
def test_every_view_has_its_turn_in_every_block(count: int, block: int) -> None:
    views = torch.arange(count).float().view(-1, 1, 1, 1)
    turns = views_of_draws(views, block * count, count).flatten().tolist()
    assert sorted(turns) == list(range(count))
    first = views_of_draws(views, block, count + 3).flatten().tolist()
    assert first == [views_of_draws(views, block + i, 1).item() for i in range(count + 3)]


@pytest.mark.parametrize(
    ("count", "turns"),
    [(2, [0, 1, 1, 0, 1, 0, 0, 1]), (4, [0, 1, 2, 3, 1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2, 1])],
)
def test_turns_follow_the_digit_sum_of_the_number(count: int, turns: list[int]) -> None:
    views = torch.arange(count).view(-1, 1, 1, 1)
    assert views_of_draws(views, 0, len(turns)).flatten().tolist() == turns
    assert views_of_draws(views, 3, 2).flatten().tolist() == turns[3:5]


@pytest.mark.parametrize("count", [2, 4])
def test_no_view_has_noise_levels_of_its_own(count: int) -> None:
    """Each sees every stretch of the schedule equally often."""
    turns = views_of_draws(torch.arange(count).view(-1, 1, 1, 1), 0, 64).flatten()
    levels = van_der_corput(0, 64)
    for view in range(count):
        mine = levels[turns == view]
        assert mine.histc(4, 0, 1).tolist() == pytest.approx([16 / count] * 4, abs=1)


def test_a_single_image_is_shown_to_all_draws() -> None:
    image = torch.rand(4, 2, 2)
    assert torch.equal(views_of_draws(image, 5, 3), image.expand(3, -1, -1, -1))
    assert torch.equal(views_of_draws(image[None], 5, 3), image.expand(3, -1, -1, -1))


def test_views_are_encoded_one_by_one() -> None:
    image, sizes = torch.rand(3, 32, 48), []

    def encode(view: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(view.shape))
        return view[:, ::8, ::8]

    latents = encoded_views(encode, image, 4)
    assert torch.equal(latents, views_of(image, 4)[..., ::8, ::8])
    assert sizes == [(3, 32, 48)] * 4


def test_other_numbers_of_views_are_refused() -> None:
    with pytest.raises(UsageError, match="'views' must be 1, 2 or 4, not 3"):
        InversionSettings(views=3)
