"""The search for sets: against brute force, and of images as if each were alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import best_of, positions, random_form, statistics_of

from igm_cli.core.inference import pursuit as searching
from igm_cli.core.inference.pursuit import pursuit
from igm_cli.core.inference.statistics import QuadraticForm


def test_pursuit_finds_what_exhaustive_search_finds():
    oracle = positions()
    grid = oracle.space.grid((7, 7))
    form = statistics_of(oracle, oracle.image(grid[[9, 16, 38]])[None], grid).expected
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
        torch.testing.assert_close(form.error(found.sets[:, k : k + 1, :k])[:, 0], found.errors[:, k])
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
    form = statistics_of(oracle, oracle.image(line[truth])[None], line).expected
    alone = form.error(torch.arange(13)[None, :, None])[0]
    assert int(alone.argmin()) == 6
    assert sorted(pursuit(form, 2).sets[0, 2].tolist()) == [5, 7]


@pytest.mark.parametrize("beyond", [0, 4])
def test_no_candidates_and_few(beyond, monkeypatch):
    monkeypatch.setattr(searching, "BEYOND", beyond)
    form = random_form(2, 0, images=2)
    path = pursuit(form, 4)
    assert path.errors.isfinite().sum(1).tolist() == [3, 3]
    assert path.sets.shape == (2, 5, 4) and path.sets[:, 0].unique().tolist() == [-1]
    none = pursuit(
        QuadraticForm(form.constant, form.linear[:, :0], form.gram[:, :0, :0], form.usable[:, :0], "sum"), 3
    )
    assert none.errors.isfinite().sum(1).tolist() == [1, 1] and none.sets.shape == (2, 4, 3)


def test_sets_far_too_large_to_be_chosen_are_given_up(monkeypatch):
    monkeypatch.setattr(searching, "PATIENCE", 6)
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
