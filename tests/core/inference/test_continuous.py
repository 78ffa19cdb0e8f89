"""Concepts of a continuous space, and points with values: from an image to concepts, their number, and how sure it is."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from oracle import SQUARE, Oracle, positions, products, statistics_of

from igm_cli.core.concepts import Categorical, Continuous, Product
from igm_cli.core.inference.any_set import minima
from igm_cli.core.inference.call_counter import CallCounter
from igm_cli.core.inference.engine import invert
from igm_cli.core.inference.statistics import PairedDifference
from igm_cli.core.metrics import match
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError

TRUTH = torch.tensor([[0.2, 0.3], [0.7, 0.25], [0.5, 0.8]])
GRID = InversionSettings(grid=(12, 12))


@pytest.mark.parametrize("count", [0, 1, 3, 6])
def test_concepts_and_their_number_are_recovered(count):
    oracle = positions()
    spots = torch.tensor([[0.2, 0.2], [0.8, 0.25], [0.5, 0.5], [0.2, 0.8], [0.75, 0.8], [0.45, 0.12]])
    truth = spots[:count]
    image = oracle.image(truth) if count else oracle.image(spots[:1]) - oracle.template(spots[:1])[0]
    result = invert(oracle, image, replace(GRID, k_max=8, penalty=0.5))
    assert (result.k, result.k_source) == (count, "estimated")
    assert match(result.concepts, truth).perceived("sum").all()
    assert len(result.concepts) == len(result.confidence) == count
    assert (result.confidence > 0.95).all()
    assert min(result.k_curve, key=lambda p: p.error + 0.5e-4 * p.k).k == count
    assert [p.k for p in result.k_curve] == list(range(9))
    assert result.k_curve[count].error == result.denoising_error and result.k_curve[count].stderr == 0
    assert result.values is None and result.marginals is None


def test_a_known_number_is_respected_and_the_result_repeats():
    oracle = positions()
    image = oracle.image(TRUTH)
    first, again = (invert(oracle, image, GRID, k=3) for _ in range(2))
    assert first.k == 3 and first.k_source == "given"
    assert torch.equal(first.concepts, again.concepts)
    assert match(first.concepts, TRUTH).squared.sum(1).max() < 1e-4
    other = invert(oracle, image, replace(GRID, seed=1, draws=4), k=3)
    assert not torch.equal(first.concepts, other.concepts)
    more = invert(oracle, image, replace(GRID, k_max=2), k=5)  # more than is asked for where K is estimated
    assert more.k == 5 and len(more.k_curve) == 6
    assert invert(oracle, image, replace(GRID, k_max=2), k=0).concepts.shape == (0, 2)


def test_least_and_greatest_number_bound_the_estimate():
    oracle = positions()
    image = oracle.image(TRUTH)
    assert invert(oracle, image, replace(GRID, k_max=2)).k == 2
    assert invert(oracle, image, replace(GRID, k_min=4, penalty=0.5)).k == 4


def test_a_concept_is_counted_where_the_error_falls_by_more_than_its_cost():
    oracle = positions()
    image = oracle.image(TRUTH)
    curve = [point.error for point in invert(oracle, image, replace(GRID, k_max=4)).k_curve]
    falls = [1e4 * (a - b) for a, b in itertools.pairwise(curve[:4])]
    assert min(falls) > 100
    for penalty, k in ((0.9 * min(falls), 3), (1.1 * max(falls), 0)):
        assert invert(oracle, image, replace(GRID, k_max=4, penalty=penalty)).k == k


def test_undecided_numbers_draw_more_noise_up_to_the_limit():
    oracle = positions()
    image = oracle.image(TRUTH)
    settings = replace(GRID, draws=6, max_draws=20)
    draws = [invert(oracle, image, replace(settings, settled=settled)).draws for settled in (0.0, 1e9)]
    assert draws == [6, 20]
    assert invert(oracle, image, replace(settings, settled=1e9), k=3).draws == 6  # nothing is left to decide


def test_concepts_stay_on_the_grid_without_refinement():
    oracle = positions()
    found = invert(oracle, oracle.image(TRUTH), replace(GRID, refine_steps=0), k=3).concepts
    points = torch.cat([oracle.space.grid((12, 12)), oracle.space.between((12, 12))])
    assert bool((found[:, None] == points).all(2).any(1).all())
    assert float(match(found, TRUTH).squared.sum(1).max()) < 2 * (1 / 24) ** 2 + 1e-6


def test_the_grid_is_even_where_its_size_is_not_given():
    """384 candidates are about 20 by 20."""
    oracle = positions()
    image, quick = oracle.image(TRUTH[:1]), InversionSettings(draws=2, scan_draws=2, k_max=2)
    one, other = invert(oracle, image, quick), invert(oracle, image, replace(quick, grid=(20, 20)))
    assert torch.equal(one.concepts, other.concepts) and one.network_calls == other.network_calls


def test_a_grid_too_coarse_is_refused():
    oracle = positions()
    with pytest.raises(UsageError, match="9 concepts cannot be told apart on a grid of 8"):
        invert(oracle, oracle.image(TRUTH), replace(GRID, grid=(4, 2), k_max=9))


def test_few_candidates_kept_are_enough_for_the_number_asked_for():
    oracle = positions()
    found = invert(oracle, oracle.image(TRUTH), replace(GRID, keep=1, k_max=3))
    assert match(found.concepts, TRUTH).squared.sum(1).max() < 1e-3 and found.k == 3
    many = replace(GRID, keep=1, refine_steps=0, draws=2, scan_draws=2, k_max=1)
    assert invert(oracle, oracle.image(TRUTH), many, k=20).k == 20


def test_what_stands_close_together_is_told_apart():
    oracle = positions()
    pairs = torch.tensor([[0.42, 0.5], [0.56, 0.5], [0.2, 0.2], [0.2, 0.35]])
    found = invert(oracle, oracle.image(pairs), replace(GRID, penalty=1.0, k_max=6))
    assert found.k == 4 and match(found.concepts, pairs).squared.sum(1).max() < 1e-3


class Sized(Oracle):
    """Spots of a size of their own."""

    def template(self, concepts):
        axis = (torch.arange(self.size) + 0.5) / self.size
        dx, dy = axis - concepts[..., 0:1], axis - concepts[..., 1:2]
        square = dx[..., None, :] ** 2 + dy[..., :, None] ** 2
        spot = torch.exp(-square / (2 * concepts[..., 2:3, None] ** 2))
        return spot[..., None, :, :].expand(*spot.shape[:-2], 3, -1, -1)


def test_what_something_larger_hides_is_found_once_that_is_explained():
    """Of few candidates that are kept, all belong to the larger spot; a scan of what it leaves shows the others.

    Of 12 scenes 9 are understood, without that scan, or with less of it, at most 6.
    """
    oracle = Sized(Continuous(("x", "y", "size"), (0.0, 0.0, 0.04), (1.0, 1.0, 0.24)))
    settings = InversionSettings(
        grid=(6, 6, 4), k_max=4, penalty=2.0, draws=4, max_draws=4, scan_draws=2, keep=8
    )
    understood = 0
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        x, y = (0.35 + 0.3 * torch.rand(1, generator=generator).item() for _ in range(2))
        angles = 6.28 * torch.rand(2, generator=generator)[: 1 + seed % 2]
        small = torch.stack(
            [x + 0.22 * angles.cos(), y + 0.22 * angles.sin(), torch.full_like(angles, 0.06)], 1
        )
        truth = torch.cat([torch.tensor([[x, y, 0.2]]), small])
        found = invert(oracle, oracle.image(truth, seed), settings)
        understood += found.k == len(truth) and bool(match(found.concepts, truth).squared.sum(1).max() < 1e-3)
    assert understood >= 8


@pytest.mark.parametrize("composition", ["sum", "mean"])
def test_network_calls_are_those_that_are_made(composition):
    counter = CallCounter(positions())
    settings = replace(GRID, draws=4, max_draws=8, settled=1e9, k_max=4)
    found = invert(counter, counter.denoiser.image(TRUTH), settings, composition=composition)
    used = counter.used
    assert used.passes == 8 and found.network_calls == used.whole_calls


# Products: where and what.


def scene(oracle, seed, count):
    """Some points of a grid with values, and an image of them."""
    generator = torch.Generator().manual_seed(seed)
    grid = oracle.space.grid((5, 5)).view(25, -1, oracle.space.dim)
    where = torch.randperm(25, generator=generator)[:count]
    what = torch.randint(grid.shape[1], (count,), generator=generator)
    truth = grid[where, what]
    return truth, oracle.image(truth, seed)


def rows(concepts):
    return sorted(map(tuple, concepts.tolist()))


ON_GRID = InversionSettings(grid=(5, 5), refine_steps=0, draws=4, max_draws=4, k_max=4)


@pytest.mark.parametrize("composition", ["sum", "mean"])
@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_where_and_what_are_those_of_all_sets_of_points_with_values(noise, composition):
    """Brute force over all sets of 25 points x 6 combinations of values; also where the image is hardly to be seen."""
    oracle = products()
    for seed, count in enumerate((1, 2)):
        truth, image = scene(oracle, seed, count)
        image = image + noise * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
        found = invert(oracle, image, ON_GRID, k=count, composition=composition)
        every = torch.cat([oracle.space.grid((5, 5)), oracle.space.between((5, 5))])
        form = statistics_of(oracle, image[None], every, composition, ON_GRID).expected
        best, error = minima(form, count).best
        assert found.denoising_error == pytest.approx(float(error[0]), rel=1e-5)
        assert rows(found.concepts) == rows(every[best[0]])
        if composition == "sum" and not noise:
            assert rows(found.concepts) == rows(truth)


@pytest.mark.parametrize("shape", [(3, 2), (6, 3)])  # all combinations are scanned, or each value by itself
@pytest.mark.parametrize("given_k", [True, False])
def test_where_and_what_are_found_between_the_points_of_the_grid(shape, given_k):
    oracle = products(*shape)
    settings = InversionSettings(grid=(8, 8), k_max=4, penalty=0.5, draws=4, max_draws=8)
    values = oracle.space.what.candidates()
    for seed, count in enumerate((0, 1, 3)):
        generator = torch.Generator().manual_seed(seed)
        what = torch.stack(
            [torch.randint(len(g), (3,), generator=generator) + g[0] for g in oracle.space.what.groups()], 1
        )
        truth = torch.cat([TRUTH + 0.05 * torch.rand(3, 2, generator=generator), values[what].sum(1)], 1)[
            :count
        ]
        image = oracle.image(truth, seed) if count else 0.1 * torch.randn(3, 24, 24, generator=generator)
        found = invert(oracle, image, settings, k=count if given_k else None)
        assert (found.k, found.k_source) == (count, "given" if given_k else "estimated")
        assert found.concepts.shape == (count, oracle.space.dim)
        assert found.values is not None and found.values.shape == (count, 2)
        pairs = match(found.concepts[:, :2], truth[:, :2])
        assert pairs.squared.sum(1).max() < 2e-4 if count else True
        assert torch.equal(found.concepts[pairs.predicted, 2:], truth[pairs.truth, 2:])
        assert bool((found.values > 0.9).all()) and bool((found.confidence > 0.9).all())


def test_how_sure_a_value_is():
    """Over the other values of its factor, all else held: here with one that looks much like the true one."""
    oracle = products()
    oracle.colours[1] = oracle.colours[0] + 0.02
    truth, image = scene(oracle, 2, 2)
    truth[:, 2:5] = torch.tensor([1.0, 0.0, 0.0])
    image, settings = oracle.image(truth, 5), replace(ON_GRID, value_temperature=1e-3)
    found = invert(oracle, image, settings, k=2)
    assert rows(found.concepts[:, :2]) == rows(truth[:, :2])
    colour, stripes = found.values.unbind(1)
    assert bool((colour < 0.8).all()) and bool((colour > 0.3).all()) and bool((stripes > 0.95).all())
    variants = [found.concepts, *(found.concepts.clone() for _ in range(2))]
    for shift in (1, 2):
        variants[shift][0, 2:5] = found.concepts[0, 2:5].roll(shift)
    statistics = statistics_of(
        oracle, image[None], torch.cat([v[:1] for v in variants] + [found.concepts[1:]]), settings=settings
    )
    errors = statistics.errors(torch.tensor([[[0, 3], [1, 3], [2, 3]]]))[0]
    worse = PairedDifference.of(errors[1:], errors[0], statistics.importance)
    total = sum(
        torch.exp(-m / 1e-3 / (1 + torch.pi / 8 * (s / 1e-3) ** 2) ** 0.5)
        for m, s in zip(worse.mean, worse.stderr, strict=True)
    )
    assert float(found.values[0, 0]) == pytest.approx(float(1 / (1 + total)), abs=1e-3)


@pytest.mark.parametrize("shape", [(3, 2), (6, 3)])
def test_values_are_whole_however_little_is_certain(shape):
    """Noise, and ever more of it drawn: members change, but each has one value of each factor, and a probability."""
    oracle = products(*shape)
    oracle.spread = 0.4
    settings = InversionSettings(grid=(4, 4), k_max=3, draws=2, max_draws=16, settled=1e9, penalty=2.0)
    for seed in range(3):
        image = 0.6 * torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(seed))
        found = invert(oracle, image, settings)
        assert found.draws == 16
        for concept, values in zip(found.concepts, found.values, strict=True):
            one_hot = [concept[2:][group] for group in oracle.space.what.groups()]
            assert all(sorted(row.tolist()) == [0.0] * (len(row) - 1) + [1.0] for row in one_hot)
            assert bool(((values >= 0) & (values <= 1)).all())


def test_network_calls_of_products_are_those_that_are_made():
    counter = CallCounter(products(6, 3))
    settings = InversionSettings(grid=(5, 5), k_max=3, draws=4, max_draws=8, settled=1e9)
    found = invert(counter, counter.denoiser.image(scene(counter.denoiser, 0, 2)[0]), settings)
    assert found.network_calls == counter.used.whole_calls


class Leaning(Oracle):
    """Spots that lean to one side or the other: a wrong one, beside the true place, is much like the right one."""

    def __post_init__(self):
        pass

    def template(self, concepts):
        axis = (torch.arange(self.size) + 0.5) / self.size
        dx, dy = axis - concepts[..., 0:1], axis - concepts[..., 1:2]
        spot = torch.exp(-(dx[..., None, :] ** 2 + dy[..., :, None] ** 2) / (2 * self.width**2))
        side = (concepts[..., 2] - concepts[..., 3])[..., None, None]
        leaning = spot * (1 + 0.3 * side * torch.tanh(dx / self.width)[..., None, :])
        return leaning[..., None, :, :].expand(*spot.shape[:-2], 3, -1, -1)


def test_a_value_is_compared_where_each_explains_best():
    """At the place of the wrong value the right one is worse: it is found if it is moved to its own."""
    oracle = Leaning(Product(SQUARE, Categorical({"leans": ("left", "right")})), spread=0.05)
    settings = InversionSettings(grid=(6, 6), draws=6, max_draws=6)
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        points = torch.tensor([[0.3, 0.35], [0.7, 0.6]]) + 0.1 * torch.rand(2, 2, generator=generator)
        truth = torch.cat([points, torch.eye(2)[torch.randint(2, (2,), generator=generator)]], 1)
        found = invert(oracle, oracle.image(truth, seed), settings, k=2).concepts
        pairs = match(found[:, :2], points)
        assert torch.equal(found[pairs.predicted, 2:], truth[pairs.truth, 2:])
