"""What images have in common: against brute force over sums of errors, and where single images cannot tell."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from label_oracle import LabelOracle, letters, names
from oracle import Oracle, factors, positions, products, random_form, statistics_of
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.inference.any_set import AnySet
from igm_cli.core.inference.call_counter import CallCounter
from igm_cli.core.inference.one_of_each import OneOfEach
from igm_cli.core.inference.shared import invert_shared
from igm_cli.core.inference.sparse_subset import SparseSubset
from igm_cli.core.inference.statistics import QuadraticForm
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError

PLACE = torch.tensor([0.4, 0.6])
SETTINGS = InversionSettings(penalty=1.0, k_max=5, grid=(12, 12), keep=32)


def scenes(oracle: Oracle, images: int, seed: int, shared: Sequence[Sequence[float]] = ((0.4, 0.6),)) -> Tensor:
    """Images of places in common and two others of their own."""
    generator = torch.Generator().manual_seed(seed)
    own = 0.1 + 0.8 * torch.rand(images, 2, 2, generator=generator)
    common = torch.tensor(shared)
    return torch.stack([oracle.image(torch.cat([common, others]), i) for i, others in enumerate(own)])


def least(form: QuadraticForm, sets: Sequence[Sequence[int]], held: Sequence[int], cost: float) -> Tensor:
    """The least error ``[B]`` of those of some sets that hold candidates, by trying all."""
    kept = [s for s in sets if set(held) <= set(s)]
    errors = [
        form.error(torch.tensor(s, dtype=torch.long).expand(len(form.linear), 1, -1))[:, 0] + cost * len(s)
        for s in kept
    ]
    return torch.stack(errors).amin(0) if errors else torch.full_like(form.constant, torch.inf)


def subsets(count: int, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    return [s for size in sizes for s in itertools.combinations(range(count), size)]


@pytest.mark.parametrize("composition", ["sum", "mean"])
@pytest.mark.parametrize("held", [[], [2], [1, 4]])
def test_any_set_against_all_sets(composition: Composition, held: list[int]) -> None:
    space = LabelOracle(letters(7)).space
    constraint = AnySet(space, InversionSettings(k_max=4, penalty=500.0), None)
    form, sets = random_form(7, 3, composition, images=3), subsets(7, (1, 2, 3, 4))
    with_each = constraint.least_with(form, held)
    for label in range(7):
        if label not in held:
            torch.testing.assert_close(with_each[:, label], least(form, sets, [*held, label], constraint.cost))
    if held:
        found = constraint.containing(form, held)
        assert all(set(held) <= set(found.members(image)) for image in range(3))
        sizes = (found.best >= 0).sum(1)
        torch.testing.assert_close(
            form.error(found.best[:, None])[:, 0] + constraint.cost * sizes,
            least(form, sets, held, constraint.cost),
        )


@pytest.mark.parametrize("composition", ["sum", "mean"])
@pytest.mark.parametrize("held", [[], [2], [1, 4]])
def test_sparse_subset_against_all_sets(composition: Composition, held: list[int]) -> None:
    constraint = SparseSubset(positions().space, InversionSettings(k_max=8, penalty=500.0), None)
    form, sets = random_form(8, 5, composition, images=4, coupling=0.5), subsets(8, range(9))
    found = constraint.containing(form, held)
    sizes = (found.best >= 0).sum(1)
    assert all(set(held) <= set(found.members(image)) for image in range(4))
    torch.testing.assert_close(
        form.error(found.best[:, None])[:, 0] + constraint.cost * sizes,
        least(form, sets, held, constraint.cost),
    )
    with_each = constraint.least_with(form, held)
    assert with_each[:, held].isinf().all()
    exact = torch.stack([least(form, sets, [*held, each], constraint.cost) for each in range(8)], dim=1)
    others = sorted(set(range(8)) - set(held))
    assert (with_each[:, others] > exact[:, others] - 1e-9).all()  # of some candidates a good set, not the best
    best = others[int(exact[:, others].sum(0).argmin())]
    assert int(with_each.sum(0).argmin()) == best
    torch.testing.assert_close(with_each[:, best], exact[:, best])


def test_one_of_each_against_all_configurations() -> None:
    oracle = factors()
    constraint = OneOfEach(oracle.space, InversionSettings(), None)
    form, sets = random_form(9, 2, images=3), list(itertools.product(*constraint.groups))
    for held in ([], [3], [0, 7]):
        with_each = constraint.least_with(form, held)
        tried = with_each.isfinite().all(0).nonzero()[:, 0].tolist()
        assert len(tried) == 3 - len(held)
        for value in tried:
            torch.testing.assert_close(with_each[:, value], least(form, sets, [*held, value], 0.0))


@pytest.mark.parametrize("seed", range(4))
def test_all_factors_minimise_the_sum_of_the_errors(seed: int) -> None:
    oracle = factors()
    oracle.spread = 3.0  # images that do not tell their values
    generator = torch.Generator().manual_seed(seed)
    rows = torch.eye(9)[torch.tensor([[0, 3, 6]]).expand(3, -1) + torch.randint(2, (3, 3), generator=generator)]
    images = torch.stack([oracle.image(row, seed=i) for i, row in enumerate(rows)])
    settings = InversionSettings(draws=6, max_draws=6)
    found = invert_shared(oracle, images, settings, k=3)
    form = statistics_of(oracle, images, torch.eye(9), settings=settings).expected
    sets = torch.tensor(list(itertools.product((0, 1), (2, 3, 4), (5, 6, 7, 8))))
    assert (
        found.concepts.argmax(1).tolist() == sets[form.error(sets.expand(3, -1, -1)).sum(0).argmin()].tolist()
    )


@pytest.mark.parametrize("seed", range(3))
def test_labels_minimise_the_sum_of_the_errors(seed: int) -> None:
    oracle = LabelOracle(letters(7), spread=2.0)
    shown = [["a", "b", "c"], ["a", "b", "d"], ["b", "e", "f"]]
    images = torch.stack([oracle.image(labels, 10 * seed + i) for i, labels in enumerate(shown)])
    settings = InversionSettings(draws=6, max_draws=6, k_max=3)
    found = invert_shared(oracle, images, settings, k=2, composition="mean")
    form = statistics_of(oracle, images, torch.eye(7), "mean", settings).expected
    sets = subsets(7, (1, 2, 3))
    best = min(itertools.combinations(range(7), 2), key=lambda pair: float(least(form, sets, pair, 0.0).sum()))
    assert found.concepts.argmax(1).tolist() == list(best)


def test_what_all_images_hold_and_nothing_else() -> None:
    """Each of the factors, and each of the labels, in which images differ is left out."""
    oracle, rows = factors(), torch.eye(9)
    images = torch.stack([oracle.image(rows[[i % 2, 3, 5 + i]], seed=i) for i in range(3)])
    found = invert_shared(oracle, images, InversionSettings(draws=6))
    assert found.concepts.argmax(1).tolist() == [3] and found.k_source == "estimated"
    assert float(found.confidence) > 0.9
    every = invert_shared(oracle, images, InversionSettings(draws=6), k=3)
    assert (
        every.confidence[1] > 0.99 and every.confidence[[0, 2]].max() < 0.01
    )  # no image speaks for the others
    typical = InversionSettings(draws=6, temperature=1e-3)
    calibrated = invert_shared(oracle, images, typical)
    assert calibrated.concepts.argmax(1).tolist() == [3]
    speaks = LabelOracle(letters(6))
    shown = [["a", "b"], ["b", "c"], ["b", "d", "e"]]
    images = torch.stack([speaks.image(labels, i) for i, labels in enumerate(shown)])
    settings = InversionSettings(draws=6, k_max=3)
    found = invert_shared(speaks, images, settings, composition="mean")
    assert names(speaks, found.concepts) == {"b"}
    assert names(speaks, invert_shared(speaks, images[1:2], settings, composition="mean").concepts) == {
        "b",
        "c",
    }
    images = torch.stack([speaks.image(labels, i) for i, labels in enumerate([["a", "b"], ["c", "d"]])])
    assert len(invert_shared(speaks, images, settings, composition="mean").concepts) == 0


def test_a_place_among_others() -> None:
    """Found with K given and estimated, and more precisely than by one image; a single image cannot say which it is."""
    oracle = positions()
    images = scenes(oracle, 4, seed=5)
    told: list[Any] = []
    found = invert_shared(oracle, images, SETTINGS, progress=lambda done, most: told.append((done, most)))
    assert found.concepts.shape == (1, 2) and found.k_source == "estimated"
    torch.testing.assert_close(found.concepts[0], PLACE, atol=0.003, rtol=0)
    assert found.support.shape == (4, 1) and float(found.confidence) > 0.9
    assert told[-1] == (12, 12) and found.network_calls > 0
    counted = CallCounter(oracle)
    given = invert_shared(counted, images, SETTINGS, k=1)
    assert given.k_source == "given" and given.network_calls == counted.used.whole_calls
    torch.testing.assert_close(given.concepts, found.concepts)
    assert len(invert_shared(oracle, images[:1], SETTINGS).concepts) == 3


def test_two_places_and_none() -> None:
    oracle = positions()
    images = scenes(oracle, 3, seed=7, shared=((0.25, 0.3), (0.7, 0.75)))
    found = invert_shared(oracle, images, SETTINGS)
    expected = torch.tensor([[0.25, 0.3], [0.7, 0.75]])
    torch.testing.assert_close(found.concepts[found.concepts[:, 0].argsort()], expected, atol=0.005, rtol=0)
    apart = torch.stack([oracle.image(torch.tensor([[x, x]]), i) for i, x in enumerate((0.2, 0.5, 0.8))])
    assert len(invert_shared(oracle, apart, SETTINGS).concepts) == 0
    forced = invert_shared(oracle, apart, SETTINGS, k=1)
    assert len(forced.concepts) == 1 and float(forced.confidence) < 0.01


def test_places_that_differ_a_little() -> None:
    """The place in between is found, which no image proposes."""
    oracle = positions()
    images = torch.stack(
        [
            oracle.image(torch.tensor([[0.4 + shift, 0.6], [0.8, x]]), i)
            for i, (shift, x) in enumerate([(-0.02, 0.2), (0.02, 0.8)])
        ]
    )
    found = invert_shared(oracle, images, SETTINGS, k=1)
    torch.testing.assert_close(found.concepts[0], PLACE, atol=0.006, rtol=0)


def test_points_with_values() -> None:
    """Where something is and what: the point in common has the values in common."""
    oracle = products()
    thing = torch.tensor([[0.4, 0.6, 0, 1, 0, 1, 0]])
    others = torch.tensor([[[0.8, 0.2, 1, 0, 0, 1, 0]], [[0.15, 0.2, 0, 0, 1, 0, 1]]])
    images = torch.stack([oracle.image(torch.cat([thing, other]), i) for i, other in enumerate(others)])
    found = invert_shared(oracle, images, SETTINGS)
    assert found.concepts.shape == (1, 7)
    torch.testing.assert_close(found.concepts, thing, atol=0.01, rtol=0)


def test_refused() -> None:
    oracle = factors()
    images = torch.stack([oracle.image(torch.eye(9)[[0, 2, 5]], i) for i in range(2)])
    with pytest.raises(UsageError, match="1 to 3 factors in common, not 4"):
        invert_shared(oracle, images, k=4)
    with pytest.raises(UsageError, match="'relax' does not find what images have in common"):
        invert_shared(oracle, images, InversionSettings(method="relax"))
