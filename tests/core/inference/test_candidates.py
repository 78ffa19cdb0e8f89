"""Candidates whose statistics grow: by more candidates, by more noise, by fewer images."""

from __future__ import annotations

import pytest
import torch
from label_oracle import LabelOracle, letters
from oracle import Oracle, factors, positions, statistics_of

from igm_cli.core.denoiser import InputFeatures
from igm_cli.core.inference import noised_batch
from igm_cli.core.inference.call_counter import CallCounter
from igm_cli.core.inference.candidates import CandidateSet
from igm_cli.core.types import InversionSettings

TRUTH = torch.tensor([[0.2, 0.3], [0.7, 0.25], [0.5, 0.8]])
FIELDS = ("residual", "linear", "gram", "importance")


def same(first, second):
    for name in FIELDS:
        torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("power", [0.0, 2.0])
def test_what_grows_in_parts_is_the_same(power):
    oracle, settings = positions(), InversionSettings(draws=6, power=power)
    images = torch.stack([oracle.image(TRUTH), oracle.image(TRUTH[:1], 1)])
    candidates = torch.rand(7, 2, generator=torch.Generator().manual_seed(1))
    whole = statistics_of(oracle, images, candidates, settings=settings)
    counter = CallCounter(oracle)
    grown = CandidateSet(counter, images, settings, "sum", growing=True)
    for part, draws in zip(candidates.split([3, 1, 3]), (2, 3, 1), strict=True):
        grown.see(draws)
        grown.add(part.expand(2, -1, -1))
    same(grown.statistics(), whole)
    assert grown.draws == 6 and grown.calls.tolist() == [6 + 6 * 7] * 2
    assert counter.used.passes == 2 * 6 and counter.used.contributions == 2 * 6 * 7


def test_selected_candidates_keep_their_statistics():
    """Those of each image by number; -1 fills up where there are fewer."""
    oracle, settings = positions(), InversionSettings(draws=4)
    images = torch.stack([oracle.image(TRUTH), oracle.image(TRUTH[:1], 1)])
    candidates = torch.rand(6, 2, generator=torch.Generator().manual_seed(1))
    some = CandidateSet(oracle, images, settings, "sum", growing=True)
    some.add(candidates.expand(2, -1, -1))
    some.see(3)
    some.select(torch.tensor([[4, 1, 3], [5, 0, -1]]))
    some.see(1)
    assert some.usable.tolist() == [[True] * 3, [True, True, False]]
    for image, index in ((0, [4, 1, 3]), (1, [5, 0])):
        alone = statistics_of(oracle, images[image : image + 1], candidates[index], settings=settings)
        k, statistics = len(index), some.statistics()
        assert torch.equal(some.candidates[image, :k], candidates[index])
        torch.testing.assert_close(statistics.linear[image, :, :k], alone.linear[0], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(statistics.gram[image, :, :k, :k], alone.gram[0], rtol=1e-5, atol=1e-7)
    assert some.calls.tolist() == [4 + 3 * 6 + 3, 4 + 3 * 6 + 2]


def test_images_that_are_decided_see_no_further_noise():
    oracle, settings = factors(), InversionSettings(draws=4)
    rows = oracle.space.candidates()
    images = torch.stack([oracle.image(rows[[0, 2, 5]], seed) for seed in range(3)])
    some = CandidateSet(oracle, images, settings, "sum")
    some.add(rows.expand(3, -1, -1))
    some.see(2)
    some.keep_images(torch.tensor([0, 2]))
    some.see(2)
    same(some.statistics(), statistics_of(oracle, images[[0, 2]], rows, settings=settings))
    assert some.calls.tolist() == [4 * 10] * 2


def test_candidates_given_up_cost_no_calls_and_the_others_stay_the_same():
    oracle, settings = LabelOracle(letters(4)), InversionSettings(draws=6)
    images = torch.stack([oracle.image("ac"), oracle.image("b", 1)])
    whole = statistics_of(oracle, images, oracle.space.candidates(), "mean", settings)
    oracle.calls = 0
    some = CandidateSet(oracle, images, settings, "mean")
    some.add(oracle.space.candidates().expand(2, -1, -1))
    some.see(3)
    some.usable = torch.tensor([[True, False, True, False], [False, True, True, False]])
    some.see(3)
    assert some.calls.tolist() == [3 * 4 + 3 * 2] * 2
    assert oracle.calls == 2 * (3 * 4 + 3 * 3)  # what one image has given up, another has not
    pairs = torch.tensor([[[0, 2]], [[1, 2]]])
    torch.testing.assert_close(some.statistics().errors(pairs), whole.errors(pairs), rtol=1e-4, atol=1e-5)


def test_concepts_that_are_a_whole_pass_each_pass_the_network_a_few_at_a_time(monkeypatch):
    class Passes(Oracle):
        most = 0

        def features(self, x_t, t):
            return InputFeatures(x_t, t)

        def base(self, features):
            return super().base((features.x_t, features.t))

        def contributions(self, features, concepts):
            self.most = max(self.most, concepts.shape[1])
            return super().contributions((features.x_t, features.t), concepts)

    images = positions().image(TRUTH)[None]
    candidates = torch.rand(1, 7, 2, generator=torch.Generator().manual_seed(1))
    found, most = [], []
    for room in (2**40, 2 * 3 * 3 * 24 * 24 * noised_batch.WIDTH):
        monkeypatch.setattr(noised_batch, "floats_at_once", lambda device, room=room: room)
        oracle = Passes(positions().space)
        some = CandidateSet(oracle, images, InversionSettings(draws=3), "sum", growing=True)
        some.see(3)
        some.add(candidates)
        found.append(some.statistics())
        most.append(oracle.most)
    same(*found)
    assert most == [7, 2]


@pytest.mark.parametrize("power", [0.0, 2.0])
def test_what_one_candidate_explains(power):
    """<r,Delta>²/<Delta,Delta>, in expectation; what points the wrong way explains nothing."""
    oracle, settings = positions(), InversionSettings(draws=4, power=power)
    dark = oracle.image(TRUTH) - 2 * oracle.template(TRUTH[:1])[0]  # a spot that is taken away
    images, grid = torch.stack([oracle.image(TRUTH), dark]), oracle.space.grid((12, 12))
    form = statistics_of(oracle, images, grid, settings=settings).expected
    some = CandidateSet(oracle, images, settings, "sum", growing=True)
    some.see(4)
    found = some.explained(grid)
    expected = form.linear.clamp(min=0).square() / form.diagonal.clamp(min=1e-12)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-7)
    assert some.calls.tolist() == [4 * (1 + 144)] * 2
    nearest = [int((grid - spot).norm(dim=1).argmin()) for spot in TRUTH]
    assert set(nearest) <= set(found[0].topk(12).indices.tolist())
    assert float(found[1, nearest[0]]) == 0 < float(found[1, nearest[1]])
