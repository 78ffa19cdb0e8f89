"""Predictions are matched to truths, and some of them are perceived."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from igm_cli.core.metrics import match


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 100))
def test_matching_is_the_cheapest_and_symmetric(k, n, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.rand(k, 2, generator=generator), torch.rand(n, 2, generator=generator)
    for power in (1, 2):  # of the distance, whose sum is made least
        result, reverse = (match(*pair, squared=power == 2) for pair in ((a, b), (b, a)))
        cost = result.squared.sum(1).pow(power / 2).sum()
        assert len(result.squared) == min(k, n)
        torch.testing.assert_close(reverse.squared.sum(1).pow(power / 2).sum(), cost)
        torch.testing.assert_close(
            result.squared, (a.double()[result.predicted] - b.double()[result.truth]) ** 2
        )
        if 0 < k <= n:
            costs = [
                float((a.double() - b.double()[list(p)]).norm(dim=1).pow(power).sum())
                for p in itertools.permutations(range(n), k)
            ]
            assert float(cost) == pytest.approx(min(costs), abs=1e-9)


def test_an_outlier_does_not_unmatch_what_is_found():
    truth = torch.tensor([[0.1, 0.5], [0.3, 0.5], [0.5, 0.5], [0.9, 0.5]])
    found = torch.tensor([[0.1, 0.5], [0.3, 0.5], [0.5, 0.5], [0.0, 0.5]])  # nothing at 0.9
    assert match(found, truth).perceived("sum").sum() == 3
    assert match(found, truth, squared=True).perceived("sum").sum() == 0  # the chain has shifted


def test_perceived_is_a_squared_error_below_the_papers_threshold():
    """0.002, of the sum over coordinates or of their mean."""
    for squared, by_sum, by_mean in ((0.0019, True, True), (0.0021, False, True), (0.0039, False, True),
                                     (0.0041, False, False)):  # fmt: skip
        result = match(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5 + squared**0.5, 0.5]]))
        assert (bool(result.perceived()), bool(result.perceived("sum")), bool(result.perceived("mean"))) == (
            by_sum, by_sum, by_mean,
        )  # fmt: skip
