"""Metrics of the papers and their intervals."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from igm_cli.core import metrics
from igm_cli.core.metrics import bootstrap_interval, match, mcnemar, rate, ratio, share, wilson_interval


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


def test_intervals_hold_the_ratio_and_repeat():
    hits, objects = torch.tensor([3.0, 4, 2, 5, 5] * 20), torch.tensor([3.0, 4, 4, 5, 6] * 20)
    low, high = bootstrap_interval(hits, objects)
    assert low < float(hits.sum() / objects.sum()) < high and high - low < 0.15
    assert (low, high) == bootstrap_interval(hits, objects) != bootstrap_interval(hits, objects, seed=1)


def test_bootstrap_intervals_cover_what_they_say():
    """Of the mean of a hundred coins they are the binomial's quantiles."""
    hits, trials = torch.tensor([1.0, 0.0] * 50), torch.ones(100)
    for level, z in ((0.95, 1.96), (0.5, 0.674)):
        low, high = bootstrap_interval(hits, trials, level=level)
        assert (low, high) == (
            pytest.approx(0.5 - z * 0.05, abs=0.012),
            pytest.approx(0.5 + z * 0.05, abs=0.012),
        )


def test_ratios_are_of_sums():
    estimate = ratio(torch.tensor([1.0, 9.0]), torch.tensor([2.0, 10.0]))
    assert estimate.value == pytest.approx(10 / 12) and estimate.low <= estimate.value <= estimate.high
    assert estimate.to_list() == [estimate.value, estimate.low, estimate.high]
    one = ratio(torch.tensor([1.0]), torch.tensor([2.0]))
    assert one.value == 0.5 and math.isnan(one.low) and math.isnan(one.high)
    assert ratio(torch.zeros(2), torch.zeros(2)).value == 0


def test_rates_without_spread_have_wilsons_interval():
    trials = torch.tensor([4.0, 6.0])
    for hits in (torch.zeros(2), trials):
        assert rate(hits, trials).to_list()[1:] == list(wilson_interval(float(hits.sum()), 10))
    assert rate(torch.tensor([3.0]), trials[:1]).to_list() == [0.75, *wilson_interval(3, 4)]
    mixed = torch.tensor([1.0, 5.0])
    assert rate(mixed, trials).to_list() == ratio(mixed, trials).to_list()
    assert share(torch.tensor([True, False, True, True])).to_list() == [0.75, *wilson_interval(3, 4)]
    assert share(torch.zeros(0)).value == 0


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (10, 10), (3, 17), (97, 100)])
def test_wilsons_interval(hits, trials):
    expected = binomtest(hits, trials).proportion_ci(0.95, "wilson")
    assert wilson_interval(hits, trials) == (
        pytest.approx(expected.low, abs=1e-4), pytest.approx(expected.high, abs=1e-4),
    )  # fmt: skip
    assert wilson_interval(0, 0) == wilson_interval(0, 1)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (2, 9), (9, 2), (0, 12)])
def test_mcnemar_is_the_binomial_test_of_discordant_pairs(first, second):
    n = first + second
    expected = binomtest(first, n).pvalue if n else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)


def test_the_threshold_is_the_papers():
    assert metrics.PERCEPTION_THRESHOLD == 0.002
