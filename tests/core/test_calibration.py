"""What is fitted to annotated images."""

from __future__ import annotations

import math

import pytest
import torch

from igm_cli.core.calibration import expected_calibration_error, fitted_penalty, fitted_temperature
from igm_cli.core.inference.posterior import posterior
from igm_cli.core.inference.statistics import PairedDifference
from igm_cli.core.types import KPoint


def rivals(mean: float) -> PairedDifference:
    return PairedDifference(torch.tensor([mean]).double(), torch.zeros(1).double(), 8)


def test_the_temperature_is_that_under_which_answers_are_as_often_right_as_they_are_sure():
    random, tau = torch.Generator().manual_seed(0), 2e-3
    parts = [rivals(float(gap)) for gap in 8e-3 * torch.rand(600, generator=random)]
    sure = torch.tensor([posterior(part, tau) for part in parts])
    right = (torch.rand(600, generator=random) < sure).tolist()
    assert fitted_temperature(parts, right) == pytest.approx(tau, rel=0.3)
    assert fitted_temperature([], []) == 0.0
    low, high = (
        fitted_temperature(parts, [True] * 600),
        fitted_temperature(parts, [i % 2 == 0 for i in range(600)]),
    )
    assert low < tau < high


def test_the_penalty_is_amid_those_under_which_counts_are_exact():
    def curve(
        true: int,
    ) -> list[KPoint]:  # each of the first concepts saves 10, those beyond 1, in units of 1e-4
        return [KPoint(k, 1 - 1e-3 * min(k, true) - 1e-4 * max(0, k - true), 0.0) for k in range(8)]

    counts = [1, 3, 5]
    chosen = fitted_penalty([curve(k) for k in counts], counts, [1.0] * 3)
    assert chosen == pytest.approx(math.sqrt(10), rel=0.2)
    larger = fitted_penalty([curve(k) for k in counts], counts, [4.0] * 3)
    assert larger == pytest.approx(4 * chosen, rel=0.2)


def test_the_calibration_error_is_the_distance_of_confidence_and_accuracy():
    right = torch.tensor([True, True, True, False])
    assert expected_calibration_error(torch.full((4,), 0.75), right) == pytest.approx(0.0)
    assert expected_calibration_error(torch.ones(4), right) == pytest.approx(0.25)
    mixed = torch.tensor([0.95, 0.95, 0.15, 0.15])
    assert expected_calibration_error(mixed, right) == pytest.approx((0.1 + abs(0.3 - 1)) / 4)
    assert math.isnan(expected_calibration_error(torch.zeros(0), torch.zeros(0)))
