"""Estimates and their 95 % intervals."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest

from igm_cli.benchmarks.intervals import clustered_rate, mean, proportion, rate, ratio, ratio_difference
from igm_cli.benchmarks.report import interval, percent


def test_bootstrap_intervals_cover_95_percent() -> None:
    """Of the mean of a hundred coins they are the binomial's quantiles."""
    coins = mean([1, 0] * 50)
    assert list(coins) == [
        0.5,
        pytest.approx(0.5 - 1.96 * 0.05, abs=0.012),
        pytest.approx(0.598, abs=0.012),
    ]


def test_ratios_are_of_sums() -> None:
    estimate = ratio([1, 9], [2, 10])
    assert estimate.value == pytest.approx(10 / 12) and estimate.low <= estimate.value <= estimate.high
    assert ratio([1, 0, 0], [2, 0, 0])[:2] == (0.5, 0.5)  # resamples without the first image say nothing
    assert mean([1, 2, 6]).value == 3


def test_means_of_few_images_have_students_interval() -> None:
    """Of 2, 5 and 12: 6.333 ± 4.3027 · 2.963, where a bootstrap has 2 to 12."""
    assert mean([2, 5, 12]) == pytest.approx((19 / 3, 0.0, 19.081), abs=1e-3)  # none of them is below zero
    assert mean([-2, -5, -12]) == pytest.approx((-19 / 3, -19.081, 6.415), abs=1e-3)
    difference = ratio_difference(([2, 5, 12], [1, 1, 1]), ([1, 1, 1], [1, 1, 1]))
    assert difference == pytest.approx((16 / 3, -7.415, 18.081), abs=1e-3)
    assert rate([1, 3], [4, 6]) == clustered_rate([1, 3], [4, 6])


def test_rates_without_spread_have_wilsons_interval() -> None:
    trials = [4, 6, 5, 5, 4, 6]
    for hits in ([0] * 6, trials):
        expected = binomtest(sum(hits), 30).proportion_ci(0.95, "wilson")
        assert list(rate(hits, trials))[1:] == pytest.approx([expected.low, expected.high], abs=1e-4)
    assert all(proportion([True] * n).high == 1 and proportion([False] * n).low == 0 for n in range(1, 300))
    assert list(proportion([True])) == pytest.approx([1, 0.207, 1], abs=1e-3)
    expected = binomtest(3, 4).proportion_ci(0.95, "wilson")
    several = proportion([True, False, True, True])
    assert list(several) == pytest.approx([0.75, expected.low, expected.high], abs=1e-4)
    assert rate([1, 5, 4, 2, 0, 3], trials) == ratio([1, 5, 4, 2, 0, 3], trials)


def test_single_trials_of_few_images_are_independent() -> None:
    assert rate([1, 0, 1, 1], [1] * 4) == proportion([True, False, True, True])
    assert rate([1] * 5, [1] * 5) == proportion([True] * 5)


def test_one_image_has_no_interval() -> None:
    for one in (rate([3], [4]), rate([3, 0], [4, 0]), clustered_rate([3], [4]), clustered_rate([0, 3], [0, 4])):
        assert one.value == 0.75 and math.isnan(one.low) and math.isnan(one.high)
        assert percent(one) == "75.0 %"
    assert math.isnan(rate([4, 0], [4, 0]).low)  # all right, but all in one image


def test_windows_of_few_images_tell_little() -> None:
    """Of three images, one of which is all wrong, nearly any proportion is possible; of many it is as a bootstrap says."""
    known = clustered_rate([4, 2, 1], [4, 4, 4])
    # Wilson's of 5 (1.96 / 4.3027)² trials: 5 have this variance over images.
    assert known == pytest.approx((7 / 12, 0.075369, 0.960072), abs=1e-5)
    few = clustered_rate([5, 6, 0], [5, 6, 5])
    assert few.value == pytest.approx(11 / 16) and few.low < 0.1 and few.high > 0.95
    best = [clustered_rate(hits, [90, 90, 90]) for hits in ([90, 90, 90], [90, 90, 89])]
    assert best[0].high == 1 and 0.9 < best[1].low < best[0].low  # one mistake does not make it surer
    alike = clustered_rate([2, 2, 2], [4, 4, 4])  # never surer than of as many independent trials
    assert alike.low < rate([1, 0] * 6, [1] * 12).low
    hits, trials = [0, 1, 2, 3, 4] * 20, [4] * 100
    assert clustered_rate(hits, trials) == pytest.approx(ratio(hits, trials), abs=0.01)


def test_a_rate_over_nothing_is_not_zero() -> None:
    for nothing in (
        rate([0, 0], [0, 0]),
        rate([0], [0]),
        clustered_rate([0, 0], [0, 0]),
        rate([], []),
        proportion([]),
        ratio([0, 0], [0, 0]),
    ):
        assert all(map(math.isnan, nothing))
        assert percent(nothing) == interval(nothing, ".2f") == "–"
