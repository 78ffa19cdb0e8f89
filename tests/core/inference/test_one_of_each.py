"""One value of every factor: exact searches against brute force, alternatives, and how sure each value is."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle, best_of, factors, random_form, statistics_of

from igm_cli.core.concepts import Categorical
from igm_cli.core.inference import one_of_each
from igm_cli.core.inference.engine import invert_batch
from igm_cli.core.inference.one_of_each import (
    EXHAUSTIVE_LIMIT,
    OneOfEach,
    Pairwise,
    best_configurations,
    branch_and_bound,
    exhaustive,
)
from igm_cli.core.inference.posterior import posterior
from igm_cli.core.inference.statistics import PairedDifference, QuadraticForm
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError


def groups_of(sizes):
    starts = [sum(sizes[:f]) for f in range(len(sizes))]
    return [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 4), min_size=1, max_size=6),
    seed=st.integers(0, 10**6),
    composition=st.sampled_from(["sum", "mean"]),
)
def test_both_searches_find_the_best_configuration(sizes, seed, composition):
    form, groups = random_form(sum(sizes), seed, composition, images=2), groups_of(sizes)
    members, errors = best_configurations(form, groups)
    for image in range(2):
        expected, error = best_of(form, itertools.product(*groups), image)
        assert tuple(members[image].tolist()) == expected
        assert float(errors[image]) == pytest.approx(error, abs=1e-9)
        for search in (exhaustive, branch_and_bound):
            found, error_found = search(Pairwise.of(form, image, groups))
            assert tuple(found) == expected
            assert error_found == pytest.approx(error, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), coupling=st.floats(0.0, 5.0))
def test_branch_and_bound_is_exact_however_strong_the_coupling(seed, coupling):
    form, groups = random_form(18, seed, coupling=coupling), groups_of([2] * 9)
    found, _ = branch_and_bound(Pairwise.of(form, 0, groups))
    assert tuple(found) == best_of(form, itertools.product(*groups))[0]


def test_branch_and_bound_finds_what_descent_does_not():
    """Of values that have much in common: changing one factor after another ends in the wrong place."""
    for seed in range(16):
        form, groups = random_form(16, seed, coupling=24, rank=5, scale=2.0), groups_of([2] * 8)
        found, error = branch_and_bound(Pairwise.of(form, 0, groups))
        assert error == pytest.approx(exhaustive(Pairwise.of(form, 0, groups))[1], abs=1e-9)
        assert float(form.error(torch.tensor([[found]]))[0, 0]) == pytest.approx(error, abs=1e-9)


def test_branch_and_bound_enters_no_more_at_once_than_there_is_room_for(monkeypatch):
    """In parts of any size the answer is the same, and hopeless branches are not entered."""
    form, groups = random_form(30, 4, coupling=0.3), groups_of([3] * 10)
    expected = exhaustive(Pairwise.of(form, 0, groups))
    entered = []
    extended = Pairwise.extended

    def counted(self, errors, chosen):
        entered.append(len(errors))
        return extended(self, errors, chosen)

    monkeypatch.setattr(Pairwise, "extended", counted)
    for room in (1, 7, 2**16):
        monkeypatch.setattr(one_of_each, "FRONTIER", room)
        entered.clear()
        found, error = branch_and_bound(Pairwise.of(form, 0, groups))
        assert (found, error) == (expected[0], pytest.approx(expected[1]))
        assert max(entered) <= room
        assert sum(entered) < 3**9 / 4


def test_beyond_a_million_configurations_the_answer_is_still_exact():
    """24 binary factors in two halves that do not touch: the best whole is the best of both halves."""
    halves = [random_form(24, seed, coupling=0.5) for seed in (1, 2)]
    gram = torch.block_diag(*(form.gram[0] for form in halves))[None]
    linear, usable = (torch.cat([getattr(form, name) for form in halves], 1) for name in ("linear", "usable"))
    whole = QuadraticForm(halves[0].constant, linear, gram, usable, "sum")
    groups = groups_of([2] * 24)
    assert math.prod(map(len, groups)) > EXHAUSTIVE_LIMIT
    first, second = (exhaustive(Pairwise.of(form, 0, groups_of([2] * 12)))[0] for form in halves)
    found, errors = best_configurations(whole, groups)
    assert found[0].tolist() == [*first, *(24 + v for v in second)]
    assert float(errors[0]) == pytest.approx(float(whole.error(found[:, None])[0, 0]))


def test_errors_that_are_no_numbers_end_the_search():
    form = random_form(44, 1, coupling=0.5)
    form.linear[0, 3] = math.nan
    found, errors = best_configurations(form, groups_of([2] * 22))
    assert found.shape == (1, 22) and not math.isfinite(float(errors[0]))


@pytest.mark.parametrize("composition", ["sum", "mean"])
def test_alternatives_exchange_one_value_each(composition):
    oracle = factors()
    rows, settings_ = oracle.space.candidates(), InversionSettings(draws=6, power=1.0)
    images = torch.stack([oracle.image(rows[[0, 2, 5]]), oracle.image(rows[[1, 4, 8]], 1)])
    statistics = statistics_of(oracle, images, rows, composition, settings_)
    constraint = OneOfEach(oracle.space, settings_, None)
    form = statistics.expected
    solution = constraint.solve(form)
    found = constraint.alternatives(statistics, solution, torch.arange(2))
    for image in range(2):
        best = solution.members(image)
        assert tuple(best) == best_of(form, itertools.product(*oracle.space.groups()), image)[0]
        for factor, group in enumerate(oracle.space.groups()):
            for value in group:
                assert bool(found.exists[image, value]) == (value not in best)
                other = [*best[:factor], value, *best[factor + 1 :]]
                one = statistics.images(torch.tensor([image]))
                errors = one.errors(torch.tensor([[other, best]]))[0]
                expected = PairedDifference.of(errors[0], errors[1], statistics.importance)
                mean, stderr = (float(getattr(found.difference, n)[image, value]) for n in ("mean", "stderr"))
                assert mean == pytest.approx(float(expected.mean), rel=1e-5, abs=1e-6)
                assert stderr == pytest.approx(float(expected.stderr), rel=1e-4, abs=1e-6)


def test_confidence_is_the_posterior_over_the_values_of_a_factor():
    oracle = Oracle(Categorical({"a": ("0", "1"), "b": ("0", "1", "2")}), spread=2.0)
    rows, settings_ = oracle.space.candidates(), InversionSettings(draws=6, temperature=0.01)
    images = oracle.image(rows[[1, 3]])[None]
    statistics = statistics_of(oracle, images, rows, settings=settings_)

    def answer(given):
        constraint = OneOfEach(oracle.space, given, None)
        solution = constraint.solve(statistics.expected)
        found = constraint.alternatives(statistics, solution, torch.arange(1))
        said = constraint.answers(found, rows[None], [0])[0]
        return said, solution, found

    said, solution, found = answer(settings_)
    members = solution.members(0)
    rivals = [[value for value in group if value not in members] for group in oracle.space.groups()]
    assert said.concepts.equal(rows[members]) and said.chance.tolist() == pytest.approx([1 / 2, 1 / 3])
    for known, others in zip(said.rivals, rivals, strict=True):
        assert known.mean.tolist() == found.difference.mean[0, others].tolist()
    (told,) = invert_batch(oracle, images, settings_)
    expected = [posterior(each, 0.01) for each in said.rivals]
    assert told.confidence.tolist() == pytest.approx(expected) and 0.5 < min(expected) < 0.999


def test_another_number_of_factors_is_refused():
    space = factors().space
    assert (
        OneOfEach(space, InversionSettings(), 3).largest
        == 3
        == OneOfEach(space, InversionSettings(), None).largest
    )
    with pytest.raises(UsageError, match="3 factors, so k cannot be 2"):
        OneOfEach(space, InversionSettings(), 2)
