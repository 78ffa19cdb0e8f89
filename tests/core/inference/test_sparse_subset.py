"""Any number of many candidates: the search against brute force, the choice of K, and how sure each member is."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import best_of, positions, random_form, statistics_of

from igm_cli.core.inference import sparse_subset
from igm_cli.core.inference.counting import choose_size
from igm_cli.core.inference.posterior import posteriors
from igm_cli.core.inference.sparse_subset import MOST_CONCEPTS, SparseSubset, pursuit
from igm_cli.core.inference.statistics import PairedDifference, QuadraticForm
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError

TRUTH = torch.tensor([[0.2, 0.3], [0.7, 0.25], [0.5, 0.8]])


def test_pursuit_finds_what_exhaustive_search_finds():
    oracle = positions()
    grid = oracle.space.grid((7, 7))
    form = statistics_of(oracle, oracle.image(grid[[9, 16, 38]])[None], grid).expected()
    path = pursuit(form, 4)
    best, _ = best_of(form, itertools.combinations(range(49), 3))
    assert set(path.sets[0, 3].tolist()) == {-1, 9, 16, 38} == {-1, *best}
    assert [int((s >= 0).sum()) for s in path.sets[0]] == [0, 1, 2, 3, 4]
    assert all(a > b for a, b in itertools.pairwise(path.errors[0, :4].tolist()))
    torch.testing.assert_close(path.errors, form.error(path.sets))


def misses(found, form, k_max):
    """How many of the sets of size 1..k_max are not the best of all."""
    candidates, missed = range(form.linear.shape[1]), 0
    for k in range(1, k_max + 1):
        every = torch.tensor(list(itertools.combinations(candidates, k)))
        errors = form.error(every.expand(len(form.linear), -1, -1))
        missed += int((found.errors[:, k] > errors.amin(1) + 1e-9).sum())
        torch.testing.assert_close(form.error(found.sets[:, k, :k]), found.errors[:, k])
    return missed


@pytest.mark.parametrize(
    ("candidates", "rank", "k_max", "most"), [(10, 5, 4, 0), (12, 6, 4, 0), (12, 24, 4, 1)]
)
def test_pursuit_hardly_ever_misses_the_best_set(candidates, rank, k_max, most):
    """Of candidates that have much in common, as neighbours on a grid do; of 400 sets and more."""
    missed = 0
    for composition in ("sum", "mean"):
        form = random_form(candidates, 1, composition, images=50, rank=rank, coupling=candidates, scale=2.0)
        missed += misses(pursuit(form, k_max), form, k_max)
    assert missed <= most  # greedy alone: 5 and more in each


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), composition=st.sampled_from(["sum", "mean"]))
def test_images_are_searched_as_if_each_were_alone(seed, composition):
    form = random_form(11, seed, composition, images=5, rank=6, coupling=11, scale=2.0)
    form.usable[1, [0, 3, 7]] = False
    form.usable[2, 2:] = False  # fewer candidates than are looked for
    form.usable[3] = False
    whole = pursuit(form, 4)
    for image in range(5):
        one = [getattr(form, name)[image : image + 1] for name in ("constant", "linear", "gram", "usable")]
        alone = pursuit(QuadraticForm(*one, composition), 4)
        assert torch.equal(whole.sets[image], alone.sets[0])
        assert torch.equal(whole.errors[image], alone.errors[0])
        kept = whole.sets[image][whole.sets[image] >= 0]
        assert bool(form.usable[image, kept].all())
    assert whole.errors.isfinite().sum(1).tolist() == [5, 5, 3, 1, 5]


def test_two_close_together_are_not_mistaken_for_one_between_them():
    """Greedy search takes the middle first; only an exchange of two members mends it."""
    oracle = positions()
    line = torch.stack([torch.linspace(0.2, 0.8, 13), torch.full((13,), 0.5)], 1)
    truth = torch.tensor([5, 7])
    form = statistics_of(oracle, oracle.image(line[truth])[None], line).expected()
    alone = form.error(torch.arange(13)[None, :, None])[0]
    assert int(alone.argmin()) == 6
    assert sorted(pursuit(form, 2).sets[0, 2].tolist()) == [5, 7]


@pytest.mark.parametrize("beyond", [0, 4])
def test_no_candidates_and_few(beyond):
    form = random_form(2, 0, images=2)
    path = pursuit(form, 4, beyond)
    assert path.errors.isfinite().sum(1).tolist() == [3, 3]
    assert path.sets.shape == (2, 5, 4) and path.sets[:, 0].unique().tolist() == [-1]
    none = pursuit(
        QuadraticForm(form.constant, form.linear[:, :0], form.gram[:, :0, :0], form.usable[:, :0], "sum"), 3
    )
    assert none.errors.isfinite().sum(1).tolist() == [1, 1] and none.sets.shape == (2, 4, 3)


def test_sets_far_too_large_to_be_chosen_are_given_up(monkeypatch):
    monkeypatch.setattr(sparse_subset, "PATIENCE", 6)
    form = random_form(40, 3, rank=60, coupling=2, scale=2.0)
    every = pursuit(form, 30)
    cost = float((every.errors[0, 7] - every.errors[0, 8]).abs())  # so that about eight are worth it
    some = pursuit(form, 30, cost=cost, least=0)
    sizes = torch.arange(31)
    best = int((every.errors + cost * sizes).argmin())
    assert int((some.errors + cost * sizes).argmin()) == best
    assert bool(some.errors[0, : best + 6].isfinite().all()) and not bool(
        some.errors[0, best + 8 :].isfinite().any()
    )
    torch.testing.assert_close(some.errors[0, : best + 1], every.errors[0, : best + 1])
    assert torch.equal(pursuit(form, 30, cost=cost, least=30).errors, every.errors)


def test_the_size_is_chosen_at_its_cost():
    errors, sizes = torch.tensor([[9.0, 5.0, 3.0, 2.5], [9.0, 8.5, 8.2, 8.0]]), torch.arange(4)
    assert choose_size(errors.clone(), sizes, 0.0).tolist() == [3, 3]
    assert choose_size(errors.clone(), sizes, 1.0).tolist() == [2, 0]
    impossible = errors.masked_fill(sizes < 1, torch.inf)
    assert choose_size(impossible, sizes, 1.0).tolist() == [2, 1]


def decided(settings_, k, truth=TRUTH, candidates=None, seed=0):
    oracle = positions()
    candidates = torch.cat([TRUTH, TRUTH + 0.04, TRUTH[:1] - 0.06]) if candidates is None else candidates
    images = torch.stack([oracle.image(truth, seed), oracle.image(truth[:1], seed + 1)])
    statistics = statistics_of(oracle, images, candidates, settings=settings_)
    constraint, form = SparseSubset(oracle.space, settings_, k, 2), statistics.expected()
    solution = constraint.solve(form)
    return (
        constraint,
        statistics,
        form,
        solution,
        constraint.alternatives(statistics, form, solution, torch.arange(2)),
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
    constraint = SparseSubset(positions().space, InversionSettings(draws=6), None, 1)
    assert [constraint.more_draws(seen) for seen in (6, 12, 18)] == [6, 6, 6]


def test_more_concepts_than_candidates_are_as_many_as_there_are():
    _, _, _, solution, _ = decided(InversionSettings(draws=6, k_max=5), 4, candidates=TRUTH)
    assert solution.chosen.tolist() == [3, 3]
    _, _, _, solution, _ = decided(InversionSettings(draws=6, k_min=4, k_max=5), None, candidates=TRUTH)
    assert solution.chosen.tolist() == [3, 3]


def test_members_are_as_sure_as_the_error_rises_without_them():
    """By more than the cost of a concept."""
    faint = InversionSettings(draws=6, k_max=5, penalty=40.0)
    constraint, statistics, _, solution, found = decided(faint, 4)
    said = constraint.answers(
        statistics,
        solution,
        found,
        torch.arange(7.0)[:, None].expand(len(solution.chosen), -1, -1),
        [0],
        torch.arange(1),
    )[0]
    members = solution.members(0)
    assert said.concepts[:, 0].tolist() == members and len(members) == 4 and said.value_rivals is None
    told, one = posteriors(said.rivals, 0.0), statistics.images(torch.tensor([0]))
    whole = one.errors(torch.tensor([[members]]))[0, 0]
    for place in range(4):
        rest = one.errors(torch.tensor([[members[:place] + members[place + 1 :]]]))[0, 0]
        sure = PairedDifference.of(rest - 40e-4, whole, statistics.importance).probability()
        assert float(told[place]) == pytest.approx(float(sure), abs=1e-6)
    assert float(told.min()) < 0.5 < 0.95 < float(told.max()) and said.chance.tolist() == [0.0] * 4


def test_no_members_are_no_members():
    constraint, statistics, _, solution, found = decided(InversionSettings(draws=6, k_max=5), 0)
    said = constraint.answers(
        statistics,
        solution,
        found,
        torch.arange(7.0)[:, None].expand(len(solution.chosen), -1, -1),
        [0],
        torch.arange(1),
    )[0]
    assert said.concepts.shape == (0, 1) and not said.rivals


@pytest.mark.parametrize("k", [-1, MOST_CONCEPTS + 1])
def test_numbers_out_of_range_are_refused(k):
    with pytest.raises(UsageError, match=f"k must lie between 0 and {MOST_CONCEPTS}, not {k}"):
        SparseSubset(positions().space, InversionSettings(), k, 1)
