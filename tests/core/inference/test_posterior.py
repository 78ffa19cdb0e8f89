"""How sure an answer is."""

from __future__ import annotations

import math

import pytest
import torch

from igm_cli.core.inference.posterior import posterior, posteriors, shrink_to_chance
from igm_cli.core.inference.statistics import PairedDifference


def sure(*rivals, temperature=1.0, draws=16):
    """Probability against rivals that are (mean, stderr) worse."""
    mean, stderr = torch.tensor(rivals, dtype=torch.float64).reshape(-1, 2).unbind(1)
    return posterior(PairedDifference(mean, stderr, draws), temperature)


def test_the_probability_is_a_softmax_of_errors():
    assert sure((0.0, 0.0)) == pytest.approx(0.5)
    assert sure((2.0, 0.0)) == pytest.approx(1 / (1 + math.exp(-2.0)))
    assert sure((2e-4, 0.0), temperature=1e-4) == pytest.approx(sure((2.0, 0.0)))
    assert sure((0.0, 0.0), (0.0, 0.0)) == pytest.approx(1 / 3)
    assert sure((1.0, 0.0), (3.0, 0.0)) == pytest.approx(1 / (1 + math.exp(-1) + math.exp(-3)))
    assert sure() == 1.0 == sure(temperature=0.0)


def test_what_the_draws_leave_open_shrinks_it():
    """MacKay 1992: the mean is divided by sqrt(1 + pi/8 std²), both in units of the temperature."""
    assert 0.5 < sure((2.0, 4.0)) < sure((2.0, 1.0)) < sure((2.0, 0.0)) < sure((4.0, 0.0))
    shrunk = 2.0 / math.sqrt(1 + math.pi / 8 * 9)
    assert sure((2.0, 3.0)) == pytest.approx(1 / (1 + math.exp(-shrunk)))
    assert sure((0.0, 1.0), temperature=0.1) == pytest.approx(0.5)
    assert sure((1e9, math.inf), temperature=1e-9) >= 0.5  # a single noise sample
    assert sure((-1e9, 0.0)) == pytest.approx(0.0, abs=1e-9)


def test_without_a_temperature_it_is_that_of_the_nearest_rival():
    nearest = PairedDifference(torch.tensor(1.0).double(), torch.tensor(1.0).double(), 16).probability()
    assert sure((5.0, 1.0), (1.0, 1.0), (3.0, 0.5), temperature=0.0) == pytest.approx(float(nearest))


def test_only_the_rivals_and_the_image_named_count():
    mean = torch.tensor([[1.0, 0.0, 9.0], [2.0, 0.0, 9.0]]).double()
    difference = PairedDifference(mean, torch.zeros(2, 3).double(), 8)
    assert posterior(difference.among(1, [0, 2]), 1.0) == pytest.approx(1 / (1 + math.exp(-2) + math.exp(-9)))


def test_values_of_an_untypical_image_are_shrunk_to_chance():
    chance, certain = torch.tensor([1 / 2, 1 / 3]), torch.tensor([1.0, 1.0])
    assert torch.allclose(shrink_to_chance(certain, chance, 0.0), chance)
    assert torch.equal(shrink_to_chance(certain, chance, 1.0), certain)
    assert torch.allclose(shrink_to_chance(certain, chance, 0.25), torch.tensor([0.625, 0.5]))
    assert torch.equal(shrink_to_chance(certain, chance, math.nan), certain)


def test_every_part_of_an_answer_has_its_own_rivals():
    one = PairedDifference(torch.tensor([2.0]).double(), torch.zeros(1).double(), 8)
    two = PairedDifference(torch.tensor([0.0, 0.0]).double(), torch.zeros(2).double(), 8)
    expected = [1 / (1 + math.exp(-2)), 1 / 3]
    assert posteriors([one, two], 1.0).tolist() == pytest.approx(expected)
    assert posteriors([], 1.0).shape == (0,)
