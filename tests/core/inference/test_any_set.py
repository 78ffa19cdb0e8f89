"""Any set of candidates: the search over all sets, what must be ruled out, and labels that are given up."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from label_oracle import LabelOracle, letters
from oracle import best_of, random_form, statistics_of

from igm_cli.core.composition import Composition
from igm_cli.core.inference import any_set
from igm_cli.core.inference.any_set import FEWEST, AnySet, check_number, minima, sizes_of
from igm_cli.core.inference.constraints import Alternatives, Solution
from igm_cli.core.inference.posterior import posterior, posteriors
from igm_cli.core.inference.statistics import PairedDifference
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError

PLAIN = InversionSettings(draws=8, max_draws=32, k_min=1, k_max=3)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(1, 5),
    st.integers(0, 10_000),
    st.sampled_from(["mean", "sum"]),
    st.sampled_from([0.0, 1.0, 30.0]),
)
def test_minima_are_those_of_all_sets(
    m: int, k: int, seed: int, composition: Composition, scale: float
) -> None:
    k = min(k, m)
    form = random_form(m, seed, composition, images=2, scale=scale, coupling=m)
    ruled_out = seed % m
    for given_form in (form, form.without(torch.tensor([ruled_out, -1]))):
        found = minima(given_form, k)
        members, errors = found.best
        for image in range(2):
            usable = given_form.usable[image].nonzero()[:, 0].tolist()
            every = list(itertools.combinations(usable, k))
            if not every:
                assert errors[image] == math.inf
                continue
            expected, error = best_of(form, every, image)
            assert float(errors[image]) == pytest.approx(error, rel=1e-9, abs=1e-9)
            assert scale == 0 or tuple(members[image].tolist()) == expected
            for held in usable:
                subset = found.sets[image, held].tolist()
                assert held in subset and subset == sorted(set(subset)) and set(subset) <= set(usable)
                _, error = best_of(form, [chosen for chosen in every if held in chosen], image)
                assert float(found.errors[image, held]) == pytest.approx(error, rel=1e-9, abs=1e-9)
                alone = form.error(found.sets[:, held][:, None])[image, 0]
                assert float(found.errors[image, held]) == pytest.approx(float(alone), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_heads_may_be_tried_in_parts(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    form = random_form(9, k, images=2)
    whole = minima(form, k)
    monkeypatch.setattr(any_set, "ENTRIES", 1)
    parts = minima(form, k)
    torch.testing.assert_close(parts.errors, whole.errors)
    assert torch.equal(parts.sets, whole.sets)


def test_too_many_sets_are_refused() -> None:
    check_number(300, [1, 2, 3])
    for labels, sizes in ((1000, [4]), (25, range(1, 26))):  # one size, and all of them together
        with pytest.raises(UsageError, match="too many to try"):
            check_number(labels, sizes)
    with pytest.raises(UsageError, match="too many to try"):
        minima(random_form(400, 0, rank=2), 4)


def test_sizes_considered() -> None:
    assert sizes_of(5, 2, PLAIN) == [2]
    assert sizes_of(5, None, PLAIN) == [1, 2, 3] == sizes_of(3, None, replace(PLAIN, k_min=0, k_max=9))
    assert sizes_of(9, None, replace(PLAIN, k_min=2, k_max=4)) == [2, 3, 4]
    assert sizes_of(3, 3, PLAIN) == [3]
    for labels, k in ((3, 0), (3, 4)):
        with pytest.raises(UsageError, match=f"{k} of 3 labels cannot be chosen"):
            sizes_of(labels, k, PLAIN)
    with pytest.raises(UsageError, match="3 or more of 2 labels cannot be chosen"):
        sizes_of(2, None, replace(PLAIN, k_min=3))
    with pytest.raises(UsageError, match="too many to try"):
        sizes_of(1000, 4, PLAIN)


@pytest.mark.parametrize("penalty", [0.0, 200.0, 2000.0])
@pytest.mark.parametrize("k", [2, None])
@pytest.mark.parametrize("composition", ["mean", "sum"])
def test_alternatives_are_the_best_on_the_other_side_of_every_label(
    composition: Composition, k: int | None, penalty: float
) -> None:
    """With labels not chosen, without those chosen; of any size, each label at its cost."""
    oracle, settings_ = LabelOracle(letters(6), spread=1.5), replace(PLAIN, penalty=penalty)
    images = torch.stack([oracle.image("ae", 0), oracle.image("c", 1), oracle.image("bdf", 2)])
    rows, cost = oracle.space.candidates(), penalty * 1e-4
    statistics = statistics_of(oracle, images, rows, composition, settings_)
    constraint, form = AnySet(oracle.space, settings_, k), statistics.expected
    solution = constraint.solve(form)
    found = constraint.alternatives(statistics, solution, torch.arange(3))
    sizes = [k] if k else [1, 2, 3]
    for image in range(3):
        totals = {}
        for place, size in enumerate(sizes):
            every = list(itertools.combinations(range(6), size))
            errors = form.error(torch.tensor(every).expand(3, -1, -1))[image]
            totals |= {chosen: float(e) + cost * size for chosen, e in zip(every, errors, strict=True)}
            assert float(solution.errors[image, place]) == pytest.approx(float(errors.min()))
        best = min(totals, key=totals.__getitem__)
        assert tuple(solution.members(image)) == best
        for label in range(6):
            other = min((s for s in totals if (label in s) != (label in best)), key=totals.__getitem__)
            assert bool(found.exists[image, label])
            gap = float(found.difference.mean[image, label])
            assert gap == pytest.approx(totals[other] - totals[best], rel=1e-3, abs=1e-5)
        said = constraint.answers(found, rows.expand(3, -1, -1), [image])[0]
        assert sorted(said.concepts.argmax(1).tolist()) == list(best) and said.marginals is not None
        for label in range(6):
            sure = posterior(found.difference.among(image, [label]), settings_.temperature)
            assert float(said.marginals[label]) == pytest.approx(sure if label in best else 1 - sure, abs=1e-6)
        sure = posteriors(said.rivals, settings_.temperature).tolist()
        assert sure == pytest.approx(sorted(said.marginals[list(best)].tolist(), reverse=True))


def given_up(
    means: list[float],
    members: list[int],
    sizes: int = 1,
    draws: int = 8,
    usable: list[bool] | None = None,
    exists: list[bool] | None = None,
) -> list[bool]:
    """Which labels stay where alternatives are so many standard errors worse."""
    m = len(means)
    oracle = LabelOracle(letters(m))
    statistics = statistics_of(
        oracle, oracle.image("a")[None], oracle.space.candidates(), "mean", replace(PLAIN, draws=draws)
    )
    if usable:
        statistics = replace(statistics, usable=torch.tensor([usable]))
    chosen = torch.tensor([[members]])
    solution = Solution(chosen, torch.zeros(1, 1).double(), torch.zeros(1, dtype=torch.long))
    difference = PairedDifference(torch.tensor([means]).double(), torch.ones(1, m).double(), draws)
    there = torch.tensor([exists or [True] * m])
    alternatives = Alternatives(statistics, solution, torch.arange(1), difference, there)
    return AnySet(oracle.space, PLAIN, sizes).still_possible(alternatives)[0].tolist()


def test_labels_four_standard_errors_worse_are_given_up() -> None:
    assert given_up([9.0, 3.9, 4.1, 1.5, 8.0, 2.0], [0]) == [True, True, False, True, False, True]


@pytest.mark.parametrize(
    ("labels", "given", "first", "least"),
    [
        (12, {}, FEWEST, 12 * 4 + 3 * 4),
        (12, {"coarse": 2}, 2, 12 * 2 + 3 * 6),
        (12, {"coarse": 2, "give_up": False}, 8, 12 * 8),
        (12, {"draws": 3}, 3, 12 * 3),
        (3, {"coarse": 2}, 8, 3 * 8),  # as many as stay in any case
    ],
)
def test_the_first_look_and_the_least_calls(labels: int, given: dict[str, int], first: int, least: int) -> None:
    constraint = AnySet(LabelOracle(letters(labels)).space, replace(PLAIN, **given), 2)
    assert (constraint.first_draws, constraint.least_calls) == (first, least)


def test_no_label_is_given_up_after_few_noise_samples() -> None:
    assert given_up([9.0] * 5, [0], draws=FEWEST - 1) == [True] * 5
    assert given_up([9.0] * 5, [0], draws=FEWEST) == [True, True, False, False, False]


def test_as_many_labels_stay_as_a_set_needs_and_one_more() -> None:
    """Members first, then those least worse; what was given up before does not come back."""
    assert given_up([50.0, 20.0, 9.0, 8.0, 7.0], [0, 1], sizes=2) == [True, True, False, False, True]
    assert given_up([50.0, 9.0, 8.0, 7.0], [0], usable=[True, True, True, False]) == [True, False, True, False]
    assert given_up([50.0, 9.0], [0]) == [True, True]


def test_labels_without_an_alternative_stay() -> None:
    """Those of which no set on the other side of the fence can be made."""
    exists = [True, True, False, False, True]
    assert given_up([9.0] * 5, [0], exists=exists) == [True, False, True, True, False]
