"""Composition, evidence, search, refinement, counting: against the closed-form oracle."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from igm_cli.core.inference.evidence import paired
from igm_cli.core.inference.pool import Pool, gather
from igm_cli.core.inference.refine import refine
from igm_cli.core.inference.search import pursuit
from igm_cli.core.inference.subsets import minima
from oracle import factors, positions

from igm_cli.core.composition import compose
from igm_cli.core.inference.configurations import exhaustive_configurations
from igm_cli.core.inference.inversion import InversionSettings, invert
from igm_cli.core.inference.look import look, single_products
from igm_cli.core.metrics import match
from igm_cli.core.noise_schedule import draw
from igm_cli.core.sampling import sample
from igm_cli.errors import UsageError

TRUTH = torch.tensor([[0.2, 0.3], [0.7, 0.25], [0.5, 0.8]])
SHAPE = (3, 24, 24)


def seen_by(oracle, concepts, draws=6, low=0.05, high=0.6):
    image = oracle.image(concepts)
    taken = draw(oracle.schedule, SHAPE, draws, low=low, high=high, seed=3)
    return look(oracle, image, taken), image, taken


@pytest.mark.parametrize("composition", ["sum", "mean"])
def test_evidence_error_is_the_direct_error_for_every_subset(composition):
    oracle = positions()
    candidates = torch.cat([TRUTH, torch.rand(3, 2, generator=torch.Generator().manual_seed(0))])
    seen, image, taken = seen_by(oracle, TRUTH)
    evidence = gather(oracle, seen, candidates, composition)
    form = evidence.expected()
    x_t = oracle.schedule.add_noise(image[None], taken.noise, taken.t)
    features = oracle.features(x_t, taken.t)
    for size in range(len(candidates) + 1):
        for subset in itertools.combinations(range(len(candidates)), size):
            chosen = candidates[list(subset)]
            delta = oracle.contributions(features, chosen[None])
            prediction = compose(oracle.base(features), delta, composition)
            direct = (taken.noise - prediction).square().mean((1, 2, 3))
            torch.testing.assert_close(evidence.errors(subset), direct, rtol=1e-4, atol=1e-5)
            index = torch.tensor(subset, dtype=torch.long)
            torch.testing.assert_close(form.error(index).float(), direct.mean(), rtol=1e-4, atol=1e-5)


def test_compose_is_sum_and_mean_and_ignores_padding():
    base, delta = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 3, 4, 4)
    present = torch.tensor([[True, True, False], [True, True, True]])
    total = compose(base, delta, "sum", present)
    torch.testing.assert_close(total[0], base[0] + delta[0, 0] + delta[0, 1])
    torch.testing.assert_close(total[1], base[1] + delta[1].sum(0))
    mean = compose(base, delta, "mean", present)
    conditional = base[:, None] + delta  # the released code: the mean of conditional predictions
    torch.testing.assert_close(mean[0], conditional[0, :2].mean(0))
    torch.testing.assert_close(mean[1], conditional[1].mean(0))


def test_pool_grows_to_the_same_evidence():
    oracle = positions()
    seen, _, _ = seen_by(oracle, TRUTH)
    candidates = torch.rand(7, 2, generator=torch.Generator().manual_seed(1))
    whole = gather(oracle, seen, candidates, "sum")
    pool = Pool(oracle, seen, "sum", chunk=2)
    for part in candidates.split([3, 1, 3]):
        pool.add(part)
    torch.testing.assert_close(pool.evidence().gram, whole.gram)
    torch.testing.assert_close(pool.evidence().linear, whole.linear)
    linear, square = single_products(oracle, seen, candidates)
    torch.testing.assert_close(linear, whole.expected().linear.float())
    torch.testing.assert_close(square, whole.expected().gram.diagonal().float())


@pytest.mark.parametrize("composition", ["sum", "mean"])
def test_exact_search_is_brute_force(composition):
    oracle = factors()
    groups = oracle.space.groups()
    candidates = oracle.space.candidates()
    seen, _, _ = seen_by(oracle, candidates[[1, 4, 7]])
    form = gather(oracle, seen, candidates, composition).expected()
    best = min(itertools.product(*groups), key=lambda s: float(form.error(torch.tensor(s))))
    assert exhaustive_configurations(form, groups).subset == best
    pairs = min(itertools.combinations(range(9), 3), key=lambda s: float(form.error(torch.tensor(s))))
    assert minima(form, 3).best.subset == pairs


def test_pursuit_finds_what_exhaustive_search_finds():
    oracle = positions()
    grid = oracle.space.grid((7, 7))
    truth = grid[[9, 16, 38]]
    seen, _, _ = seen_by(oracle, truth)
    form = gather(oracle, seen, grid, "sum").expected()
    path = pursuit(form, 4)
    assert set(path[3].subset) == {9, 16, 38} == set(minima(form, 3).best.subset)
    assert [len(found.subset) for found in path] == [0, 1, 2, 3, 4]
    assert all(a.error > b.error for a, b in itertools.pairwise(path[:4]))
    for found in path:
        torch.testing.assert_close(
            torch.tensor(found.error).double(), form.error(torch.tensor(found.subset, dtype=torch.long))
        )


def test_refinement_reaches_the_truth_between_grid_points():
    oracle = positions()
    seen, _, _ = seen_by(oracle, TRUTH)
    starts = torch.stack([TRUTH + 0.02, TRUTH - 0.015, TRUTH])
    result = refine(oracle, seen, starts, 1.0, steps=10)
    assert float((result.concepts - TRUTH).norm(dim=2).max()) < 0.004
    assert result.calls > 0
    alone = refine(oracle, seen, starts[:1], 1.0, steps=10)  # hypotheses do not disturb one another
    torch.testing.assert_close(alone.concepts[0], result.concepts[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [0, 1, 3, 6])
def test_inversion_recovers_concepts_and_their_number(count):
    oracle = positions()
    spots = torch.tensor([[0.2, 0.2], [0.8, 0.25], [0.5, 0.5], [0.2, 0.8], [0.75, 0.8], [0.45, 0.12]])
    truth = spots[:count]
    image = oracle.image(truth) if count else oracle.image(spots[:1]) - oracle.template(spots[:1])[0]
    result = invert(oracle, image, InversionSettings(grid=(12, 12), k_max=8, penalty=0.5))
    assert (result.k, result.k_source) == (count, "estimated")
    assert match(result.concepts, truth).perceived("sum").all()
    assert len(result.concepts) == len(result.confidence) == count
    assert (result.confidence > 0.95).all()
    assert min(result.k_curve, key=lambda p: p.error + 0.5e-4 * p.k).k == count
    assert [p.k for p in result.k_curve] == list(range(9))


def test_known_number_is_respected_and_the_result_repeats():
    oracle = positions()
    image = oracle.image(TRUTH)
    first = invert(oracle, image, InversionSettings(grid=(12, 12)), k=3)
    again = invert(oracle, image, InversionSettings(grid=(12, 12)), k=3)
    assert first.k == 3 and first.k_source == "given"
    assert torch.equal(first.concepts, again.concepts)
    assert match(first.concepts, TRUTH).squared.sum(1).max() < 1e-4


def test_least_and_greatest_number_bound_the_estimate():
    oracle = positions()
    image = oracle.image(TRUTH)
    assert invert(oracle, image, InversionSettings(grid=(12, 12), k_max=2)).k == 2
    assert invert(oracle, image, InversionSettings(grid=(12, 12), k_min=4)).k >= 4
    with pytest.raises(UsageError):
        InversionSettings(k_min=5, k_max=4)


def test_unsettled_decisions_draw_more_noise_up_to_the_limit():
    oracle = positions()
    image = oracle.image(TRUTH)
    calm = invert(oracle, image, InversionSettings(grid=(12, 12), draws=6, max_draws=24, settled=0.0))
    never = invert(oracle, image, InversionSettings(grid=(12, 12), draws=6, max_draws=24, settled=1e9))
    assert (calm.draws, never.draws) == (6, 24)


def test_sgd_recovers_concepts_by_the_papers_algorithm():
    oracle = positions()
    truth = TRUTH[:2]
    settings_ = InversionSettings(
        method="sgd", restarts=6, steps=150, learning_rate=2e-2, score_draws=8, k_max=3
    )
    result = invert(oracle, oracle.image(truth), settings_, k=2)
    assert match(result.concepts, truth).perceived("sum").all()
    assert result.network_calls == 150 * 6 * 3 + 8 * 6 * 3


def test_factors_are_read_exactly():
    oracle = factors()
    chosen = oracle.space.candidates()[[1, 2, 8]]
    result = invert(oracle, oracle.image(chosen), InversionSettings(draws=8, max_draws=8))
    assert torch.equal(result.concepts, chosen)
    assert (result.confidence > 0.95).all()
    assert result.network_calls == 8 * (1 + 9)


def test_samples_of_the_oracle_are_its_templates():
    oracle = positions()
    images = sample(oracle, TRUTH[None], SHAPE, steps=40)
    expected = oracle.template(TRUTH).sum(0).clamp(-1, 1)
    assert float((images[0] - expected).abs().mean()) < 3 * oracle.spread


@settings(max_examples=25, deadline=None)
@given(st.permutations(list(range(5))), st.integers(0, 4))
def test_errors_do_not_depend_on_the_order_of_candidates(order, size):
    oracle = positions()
    candidates = torch.rand(5, 2, generator=torch.Generator().manual_seed(2))
    seen, _, _ = seen_by(oracle, TRUTH, draws=2)
    form = gather(oracle, seen, candidates, "sum").expected()
    shuffled = gather(oracle, seen, candidates[list(order)], "sum").expected()
    subset = list(range(size))
    places = [list(order).index(i) for i in subset]
    torch.testing.assert_close(
        form.error(torch.tensor(subset, dtype=torch.long)),
        shuffled.error(torch.tensor(places, dtype=torch.long)),
    )


def test_paired_errors_of_shared_draws_are_smaller_than_unpaired():
    oracle = positions()
    seen, _, _ = seen_by(oracle, TRUTH, draws=12)
    evidence = gather(oracle, seen, torch.cat([TRUTH, TRUTH[:1] + 0.05]), "sum")
    good, worse = evidence.errors([0, 1, 2]), evidence.errors([3, 1, 2])
    gap = paired(worse, good, evidence.importance)
    unpaired = float((good.var() + worse.var()).sqrt() / len(good) ** 0.5)
    assert gap.mean > 2 * gap.stderr and gap.stderr < unpaired and gap.probability() > 0.95


def test_weighted_differences_have_the_error_of_a_ratio():
    w = torch.tensor([1.0, 4.0, 2.0, 3.0])
    constant = paired(torch.ones(4), torch.zeros(4), w)
    assert (constant.mean, constant.stderr) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-12))
    even = paired(torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.zeros(4), torch.ones(4))
    assert even.mean == pytest.approx(3.0)
    assert even.stderr == pytest.approx(float(torch.tensor([1.0, 2, 3, 6]).std() / 2))
    assert paired(torch.ones(1), torch.zeros(1), torch.ones(1)).stderr == float("inf")
