"""What an inversion asks of a network."""

from __future__ import annotations

import torch
from label_oracle import LabelOracle, letters
from oracle import positions

from igm_cli.core.inference.call_counter import CallCounter
from igm_cli.core.inference.noised_batch import Whole


def test_passes_and_contributions_are_counted():
    counter = CallCounter(positions())
    features = counter.features(torch.zeros(3, 3, 24, 24), torch.tensor([1, 2, 3]))
    counter.base(features)
    counter.contributions(features, torch.rand(1, 5, 2))
    counter.contributions(features, torch.rand(3, 2, 2))
    assert (counter.used.passes, counter.used.contributions, counter.used.whole_calls) == (3, 21, 24)
    assert not isinstance(counter, Whole)


def test_a_counter_offers_what_the_denoiser_does():
    oracle = LabelOracle(letters(3))
    counter = CallCounter(oracle)
    assert isinstance(counter, Whole) and counter.space is oracle.space and counter.schedule is oracle.schedule
    features = counter.features(torch.zeros(2, 4, 8, 8), torch.tensor([1, 2]))
    whole = counter.predictions(features, oracle.space.candidates()[None])
    torch.testing.assert_close(whole, oracle.predictions(features, oracle.space.candidates()[None]))
    assert counter.used.contributions == 6
