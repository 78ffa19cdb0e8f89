"""Any number of many candidates: the choice of K, and how sure each member is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracle import positions, products, random_form, statistics_of

from igm_cli.core.inference.posterior import posteriors
from igm_cli.core.inference.sparse_subset import MOST_CONCEPTS, SparseSubset
from igm_cli.core.inference.statistics import PairedDifference
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError

TRUTH = torch.tensor([[0.2, 0.3], [0.7, 0.25], [0.5, 0.8]])


def test_the_size_is_chosen_at_its_cost():
    errors, sizes = torch.tensor([[9.0, 5.0, 3.0, 2.5], [9.0, 8.5, 8.2, 8.0]]), torch.arange(4)
    free, costly = (SparseSubset(positions().space, InversionSettings(penalty=by), None) for by in (0.0, 1e4))
    assert free.cheapest(errors, sizes).tolist() == [3, 3]
    assert costly.cheapest(errors, sizes).tolist() == [2, 0]
    impossible = errors.masked_fill(sizes < 1, torch.inf)
    assert costly.cheapest(impossible, sizes).tolist() == [2, 1]


def decided(settings_, k, truth=TRUTH, candidates=None, seed=0):
    oracle = positions()
    candidates = torch.cat([TRUTH, TRUTH + 0.04, TRUTH[:1] - 0.06]) if candidates is None else candidates
    images = torch.stack([oracle.image(truth, seed), oracle.image(truth[:1], seed + 1)])
    statistics = statistics_of(oracle, images, candidates, settings=settings_)
    constraint, form = SparseSubset(oracle.space, settings_, k), statistics.expected
    solution = constraint.solve(form)
    return (
        constraint,
        statistics,
        form,
        solution,
        constraint.alternatives(statistics, solution, torch.arange(2)),
    )


@pytest.mark.parametrize("penalty", [0.0, 30.0, 300.0])
def test_alternatives_are_the_other_numbers_of_concepts(penalty):
    settings_ = InversionSettings(draws=6, k_max=5, k_min=1, penalty=penalty, power=1.0)
    _, statistics, _, solution, found = decided(settings_, None)
    cost = penalty * 1e-4
    for image in range(2):
        total = solution.errors[image] + cost * torch.arange(6)
        chosen = int(total[1:].argmin()) + 1
        assert int(solution.chosen[image]) == chosen
        assert found.exists[image].tolist() == [False, *(k != chosen for k in range(1, 6))]
        one, image_sets = statistics.images(torch.tensor([image])), solution.sets[image : image + 1]
        errors = one.errors(image_sets)[0] + cost * torch.arange(6)[:, None]
        expected = PairedDifference.of(errors, errors[chosen], statistics.importance)
        torch.testing.assert_close(found.difference.mean[image], expected.mean)
        torch.testing.assert_close(found.difference.stderr[image], expected.stderr)


def test_a_given_number_has_no_alternatives():
    settings_ = InversionSettings(draws=6, k_max=5)
    for k in (0, 2, 5):
        _, _, _, solution, found = decided(settings_, k)
        assert solution.chosen.tolist() == [k, k] and not found.exists.any()
        assert bool(found.ruled_out(1e9).all())
    _, _, _, solution, _ = decided(replace(settings_, k_max=1), 3)
    assert solution.chosen.tolist() == [3, 3]


def test_undecided_numbers_take_always_as_many_noise_samples_more():
    constraint = SparseSubset(positions().space, InversionSettings(draws=6), None)
    assert [constraint.more_draws(seen) for seen in (6, 12, 18)] == [6, 6, 6]


def test_more_concepts_than_candidates_are_as_many_as_there_are():
    _, _, _, solution, _ = decided(InversionSettings(draws=6, k_max=5), 4, candidates=TRUTH)
    assert solution.chosen.tolist() == [3, 3]
    _, _, _, solution, _ = decided(InversionSettings(draws=6, k_min=4, k_max=5), None, candidates=TRUTH)
    assert solution.chosen.tolist() == [3, 3]


def test_an_image_with_few_candidates_does_not_lower_the_least_number_of_others():
    form = random_form(6, 2, images=2)
    form.usable[0, 1:] = False
    constraint = SparseSubset(positions().space, InversionSettings(k_min=4, k_max=5, penalty=1e6), None)
    assert constraint.solve(form).chosen.tolist() == [1, 4]


def test_the_least_number_holds_beside_held_candidates():
    """Sizes are those of whole sets, the held candidates included, and so are those of the alternatives."""
    settings_ = InversionSettings(draws=6, k_min=3, k_max=5, penalty=1e6)
    constraint, statistics, form, *_ = decided(settings_, None)
    solution = constraint.containing(form, [0, 1])
    assert (solution.best >= 0).sum(1).tolist() == [3, 3]
    assert (
        constraint.alternatives(statistics, solution, torch.arange(2)).exists.tolist()
        == [[False, False, True, True]] * 2
    )


def test_members_are_as_sure_as_the_error_rises_without_them():
    """By more than the cost of a concept."""
    faint = InversionSettings(draws=6, k_max=5, penalty=40.0)
    constraint, statistics, _, solution, found = decided(faint, 4)
    said = constraint.answers(found, torch.arange(7.0)[:, None].expand(2, -1, -1), [0])[0]
    members = solution.members(0)
    assert said.concepts[:, 0].tolist() == members and len(members) == 4 and said.value_rivals is None
    told, one = posteriors(said.rivals, 0.0), statistics.images(torch.tensor([0]))
    whole = one.errors(torch.tensor([[members]]))[0, 0]
    for place in range(4):
        rest = one.errors(torch.tensor([[members[:place] + members[place + 1 :]]]))[0, 0]
        sure = PairedDifference.of(rest - 40e-4, whole, statistics.importance).probability()
        assert float(told[place]) == pytest.approx(float(sure), abs=1e-6)
    assert float(told.min()) < 0.5 < 0.95 < float(told.max()) and said.chance.tolist() == [0.0] * 4


def test_how_sure_an_answer_is_does_not_depend_on_how_much_empty_ground_surrounds_it():
    """Errors are means over pixels: differences are told as on an image of the size trained on."""
    oracle, settings_ = products(), InversionSettings(draws=6, k_max=2)
    candidates = oracle.space.grid((2, 2))  # of 6 combinations of values each
    statistics = statistics_of(oracle, oracle.image(candidates[[0, 20]])[None], candidates, settings=settings_)

    def told(area):
        constraint = SparseSubset(oracle.space, settings_, None)
        constraint.fit_to(area)
        found = constraint.alternatives(statistics, constraint.solve(statistics.expected), torch.arange(1))
        return constraint.answers(found, candidates[None], [0])[0]

    small, large = told(1.0), told(4.0)
    pairs = [(small.rivals, large.rivals), *zip(small.value_rivals, large.value_rivals, strict=True)]
    assert [len(one) for one, _ in pairs] == [2, 2, 2]
    for one, other in (pair for every in pairs for pair in zip(*every, strict=True)):
        torch.testing.assert_close(other.mean, 4 * one.mean)
        torch.testing.assert_close(other.stderr, 4 * one.stderr)


def test_no_members_are_no_members():
    constraint, _, _, _, found = decided(InversionSettings(draws=6, k_max=5), 0)
    said = constraint.answers(found, torch.arange(7.0)[:, None].expand(2, -1, -1), [0])[0]
    assert said.concepts.shape == (0, 1) and not said.rivals


@pytest.mark.parametrize("k", [-1, MOST_CONCEPTS + 1])
def test_numbers_out_of_range_are_refused(k):
    with pytest.raises(UsageError, match=f"k must lie between 0 and {MOST_CONCEPTS}, not {k}"):
        SparseSubset(positions().space, InversionSettings(), k)
