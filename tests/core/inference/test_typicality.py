"""How much an image is like those trained on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from igm_cli.core.inference.typicality import LEVELS, RESERVE, Typical, features, fitted
from igm_cli.errors import InputError


def rows(count: int, seed: int = 0) -> torch.Tensor:
    """Features of images: two that go together, one of its own."""
    random = torch.Generator().manual_seed(seed)
    first, second, third = torch.randn(3, count, generator=random, dtype=torch.float64)
    return torch.stack([first - 3, first + 0.1 * second + 1, 0.5 * third], dim=1)


def test_features_are_logarithms_of_errors_and_margins():
    levels, errors = torch.tensor([0.1, 0.15, 0.3, 0.5]), torch.tensor([0.2, 0.4, 0.1, 0.05])
    seen = features(levels, errors, torch.tensor([0.02, 0.01, 0.04]), 0.1, 0.5, ranges=4)
    expected = [math.log(0.3), math.nan, math.log(0.1), math.log(0.05), math.log(0.01), math.log(0.04)]
    assert seen.tolist() == pytest.approx(expected, nan_ok=True)
    outside = features(levels, errors, torch.zeros(0), 0.6, 0.9)
    assert outside.shape == (LEVELS + 2,) and bool(outside.isnan().all())


def test_images_like_those_fitted_are_typical_and_others_are_not():
    usual = fitted(list(rows(200)), 0.0, 1.0)
    new = [usual.at(row) for row in rows(200, seed=1)]
    assert sum(value > 0.5 for value in new) >= 197
    assert usual.at(torch.tensor([-3.0, 1.0, 0.0])) > 0.999
    assert usual.at(torch.tensor([-2.0, 2.0, 0.0])) > 0.9, "along what goes together"
    assert usual.at(torch.tensor([-2.0, 0.0, 0.0])) < 0.01, "against it"
    for far in (-12.0, 6.0):
        assert usual.at(torch.tensor([far, 1.0, 0.0])) < 1e-6


def test_the_farthest_image_that_was_fitted_is_still_typical():
    seen = rows(60)
    usual = fitted(list(seen), 0.0, 1.0)
    values = [usual.at(row) for row in seen]
    every = torch.ones(3, dtype=torch.bool)
    farthest = max(usual.distance(row, every) for row in seen)
    assert usual.limit == pytest.approx(RESERVE * farthest)
    assert 0.9 < min(values) < 0.97
    assert replace(usual, limit=farthest).at(seen[values.index(min(values))]) == pytest.approx(0.5)


def test_of_a_hundred_images_that_were_fitted_one_may_be_farther():
    """So that a single odd one does not decide what is typical."""
    seen = rows(300)
    odd = torch.tensor([[40.0, -40.0, 3.0], [-60.0, 9.0, 30.0]], dtype=torch.float64)
    usual, with_odd = fitted(list(seen), 0.0, 1.0), fitted([*seen, *odd], 0.0, 1.0)
    every = torch.ones(3, dtype=torch.bool)
    assert with_odd.limit < min(with_odd.distance(row, every) for row in odd)
    assert sum(usual.distance(row, every) * RESERVE > usual.limit for row in seen) == 3
    few = fitted([*seen[:98], odd[0]], 0.0, 1.0)
    assert few.limit == pytest.approx(RESERVE * few.distance(odd[0], every))


def test_what_is_not_known_is_left_out():
    usual = fitted(list(rows(200)), 0.0, 1.0)
    assert usual.at(torch.tensor([-3.0, math.nan, math.nan])) > 0.99
    assert usual.at(torch.tensor([9.0, math.nan, math.nan])) < 1e-6
    assert math.isnan(usual.at(torch.full((3,), math.nan)))


def test_a_feature_of_which_any_value_is_usual_is_left_out_as_one_that_is_not_known():
    usual = fitted(list(rows(200)), 0.0, 1.0)
    for first in (-3.0, 0.3, 9.0):
        unknown = usual.at(torch.tensor([first, math.nan, 0.2]))
        assert usual.whatever(1).at(torch.tensor([first, 40.0, 0.2])) == pytest.approx(unknown)


def test_images_in_which_nothing_is_found_are_typical_where_some_were_fitted():
    """Their errors are far lower, and they have no margins."""
    random = torch.Generator().manual_seed(3)
    several = torch.randn(60, 6, generator=random, dtype=torch.float64)
    several[:, 4:] += several[:, :1]  # what goes together
    empty = 0.3 * torch.randn(20, 6, generator=random, dtype=torch.float64) - 8
    empty[:, 4:] = math.nan
    usual, alone = fitted([*several, *empty], 0.0, 1.0), fitted(list(several), 0.0, 1.0)
    assert min(usual.at(row) for row in (*several, *empty)) > 0.5
    assert max(alone.at(row) for row in empty) < 0.5
    assert usual.at(torch.full((6,), 12.0)) < 0.1
    # What is found is told of by the images that have it.
    assert usual.mean[4:] == pytest.approx(alone.mean[4:])
    variance = [[covariance[i][i] for i in (4, 5)] for covariance in (usual.covariance, alone.covariance)]
    assert variance[0] == pytest.approx(variance[1], rel=0.03)


def test_what_cannot_be_fitted_or_read_is_refused():
    with pytest.raises(InputError, match=r"6 images or more .* not to 5"):
        fitted(list(rows(5)), 0.0, 1.0)
    with pytest.raises(InputError, match="mean and a covariance of as many"):
        Typical(0.0, 1.0, (0.0, 1.0, 2.0), ((1.0, 0.0), (0.0, 1.0)), 3.0)
    with pytest.raises(InputError, match="must be above 0, not -3"):
        Typical(0.0, 1.0, (0.0, 1.0, 2.0), ((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)), -3.0)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"low": 0.5, "high": 0.5}, "levels 0.5..0.5 of the table 'typical' are none"),
        ({"covariance": ((1.0,) * 3,) * 3}, "not positive definite"),
    ],
)
def test_tables_that_nothing_can_be_told_from_are_refused(fields, says):
    with pytest.raises(InputError, match=says):
        replace(fitted(list(rows(200)), 0.0, 1.0), **fields)


def test_what_is_not_known_makes_an_image_neither_nearer_nor_farther() -> None:
    usual = Typical(0.1, 0.5, (0.0,) * 6, tuple(tuple(row) for row in torch.eye(6).tolist()), 1.0)
    ones, known = torch.ones(6, dtype=torch.float64), torch.tensor([True, False, True, False, True, False])
    whole = usual.distance(ones, torch.ones(6, dtype=torch.bool))
    assert usual.distance(ones[known], known) == pytest.approx(whole) == pytest.approx(6**0.5)


@pytest.mark.parametrize("seed", range(4))
def test_correlations_of_few_images_are_believed_by_less_than_half(seed: int) -> None:
    """Of twelve images whose features are unrelated."""
    random = torch.Generator().manual_seed(seed)
    few = torch.randn(12, 6, generator=random, dtype=torch.float64)
    covariance = torch.tensor(fitted(list(few), 0.1, 0.5).covariance)
    scale = covariance.diagonal().sqrt()
    believed = (covariance / scale[:, None] / scale).fill_diagonal_(0.0).abs().max()
    assert believed < 0.5 * torch.corrcoef(few.T).fill_diagonal_(0.0).abs().max()
