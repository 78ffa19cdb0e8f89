"""Inversion over factors: the evidence against enumeration, elimination and relaxation, and how sure it is."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from igm_cli.core.inference.confidence import UNTYPICAL, Rivals, familiarity, legibility, tempered
from igm_cli.core.inference.evidence import Gap, Quadratic

from igm_cli.core.concepts import Categorical
from igm_cli.core.inference.configurations import (
    EXHAUSTIVE_LIMIT,
    best_configuration,
    branch_and_bound,
    exhaustive_configurations,
)
from igm_cli.core.inference.enumeration import configurations
from igm_cli.core.inference.inversion import InversionSettings, invert
from igm_cli.core.inference.tally import Tally
from igm_cli.core.objective import composed_loss
from igm_cli.core.training.contrast import contrastive_loss, errors_of_values
from igm_cli.errors import UsageError
from tests.oracle import Oracle, factors

QUICK = InversionSettings(draws=8, max_draws=8, low=0.1, high=0.8)


def random_form(sizes, seed, coupling=1.0, composition="sum"):
    """A quadratic form over the values of factors, as evidence gives one: its Gram matrix is one."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(sizes)
    rows = torch.randn(total, 4 * total, generator=generator, dtype=torch.float64)
    gram = coupling * rows @ rows.T / (4 * total)
    linear = torch.randn(total, generator=generator, dtype=torch.float64)
    starts = [sum(sizes[:f]) for f in range(len(sizes))]
    groups = [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]
    return Quadratic(torch.tensor(3.0, dtype=torch.float64), linear, gram, composition), groups


def brute_force(form, groups):
    every = list(itertools.product(*groups))
    errors = form.error(torch.tensor(every))
    return every[int(errors.argmin())], float(errors.min())


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 4), min_size=1, max_size=6),
    seed=st.integers(0, 10**6),
    composition=st.sampled_from(["sum", "mean"]),
)
def test_both_searches_find_the_best_configuration(sizes, seed, composition):
    form, groups = random_form(sizes, seed, composition=composition)
    subset, error = brute_force(form, groups)
    for search in (exhaustive_configurations, branch_and_bound, best_configuration):
        found = search(form, groups)
        assert found.subset == subset
        assert found.error == pytest.approx(error, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), coupling=st.floats(0.0, 5.0))
def test_branch_and_bound_is_exact_however_strong_the_coupling(seed, coupling):
    form, groups = random_form([2] * 9, seed, coupling)
    assert branch_and_bound(form, groups).subset == brute_force(form, groups)[0]


def test_beyond_a_million_configurations_the_answer_is_still_exact():
    """24 binary factors in two halves that do not touch: the best whole is the best of both halves."""
    halves = [random_form([2] * 12, seed, 0.5) for seed in (1, 2)]
    gram = torch.block_diag(*(form.gram for form, _ in halves))
    whole = Quadratic(halves[0][0].constant, torch.cat([f.linear for f, _ in halves]), gram, "sum")
    groups = [[2 * f, 2 * f + 1] for f in range(24)]
    assert math.prod(map(len, groups)) > EXHAUSTIVE_LIMIT
    first, second = (exhaustive_configurations(form, g).subset for form, g in halves)
    assert best_configuration(whole, groups).subset == (*first, *(24 + v for v in second))


@pytest.mark.parametrize("composition", ["sum", "mean"])
def test_every_configuration_of_the_oracle_is_found(composition):
    oracle = factors()
    for index, concepts in enumerate(configurations(oracle.space)[::5]):
        image = oracle.image(concepts, seed=index)
        found = invert(oracle, image, QUICK, composition="sum")
        assert torch.equal(found.concepts, concepts)
        assert float(found.confidence.min()) > 0.9 and found.k == 3
        # The mean of conditional predictions is another model; both roads must still agree on it.
        evidence = invert(oracle, image, QUICK, composition=composition)
        enumerated = invert(oracle, image, replace(QUICK, method="enumerate"), composition=composition)
        assert torch.equal(evidence.concepts, enumerated.concepts)
        assert evidence.denoising_error == pytest.approx(enumerated.denoising_error, rel=1e-3)


def test_the_methods_agree_and_cost_what_they_say():
    oracle = Tally(factors())
    truth = configurations(oracle.space)[13]
    image = oracle.denoiser.image(truth)
    costs = {}
    for method in ("evidence", "enumerate", "eliminate", "relax"):
        found = invert(oracle, image, replace(QUICK, method=method, relax_steps=60, max_draws=16))
        assert torch.equal(found.concepts, truth), method
        costs[method] = (found.network_calls, found.draws)
    assert costs["evidence"] == (8 * (1 + 9), 8)  # the sum of 2, 3 and 4 values
    assert costs["enumerate"] == (8 * (1 + 3 * 24), 8)  # three factors of 2 * 3 * 4 configurations
    assert costs["eliminate"][0] < 16 * (1 + 3 * 24) and costs["eliminate"][1] == 16


def test_noise_is_drawn_until_every_value_is_settled():
    oracle = Oracle(Categorical({"a": ("0", "1"), "b": ("0", "1")}), spread=0.5)
    oracle.patterns *= 0.02  # hardly to be seen
    image = oracle.image(configurations(oracle.space)[2])
    few = replace(QUICK, draws=4, max_draws=64, settled=4.0)
    faint = invert(oracle, image, few)
    assert faint.draws > 4
    oracle.patterns *= 100
    clear = invert(oracle, oracle.image(configurations(oracle.space)[2]), few)
    assert clear.draws == 4 and clear.network_calls == 4 * 5


@pytest.mark.parametrize("method", ["evidence", "enumerate", "eliminate", "relax"])
def test_the_same_seed_gives_the_same_answer(method):
    oracle = factors()
    image = torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(3))
    once, again = (invert(oracle, image, replace(QUICK, method=method, relax_steps=5)) for _ in range(2))
    assert torch.equal(once.concepts, again.concepts)
    assert once.denoising_error == again.denoising_error


def test_what_does_not_fit_is_refused():
    oracle, image = factors(), torch.zeros(3, 24, 24)
    with pytest.raises(UsageError, match="3 factors, so k cannot be 2"):
        invert(oracle, image, QUICK, k=2)
    with pytest.raises(UsageError, match="none of factors"):
        invert(oracle, image, replace(QUICK, method="sgd"))
    with pytest.raises(UsageError, match="unknown method"):
        replace(QUICK, method="guess")
    many = Categorical({f"f{i}": ("no", "yes") for i in range(17)})
    with pytest.raises(UsageError, match="131072 configurations"):
        configurations(many)


def test_probability_follows_the_gap_and_what_the_draws_leave_open():
    def sure(mean, stderr, temperature=1.0):
        return float(Rivals([[Gap(mean, stderr, 16)]]).probability(temperature)[0])

    assert sure(0.0, 0.0) == pytest.approx(0.5)
    assert sure(2.0, 0.0) == pytest.approx(1 / (1 + math.exp(-2.0)))
    assert 0.5 < sure(2.0, 4.0) < sure(2.0, 1.0) < sure(2.0, 0.0) < sure(4.0, 0.0)
    assert sure(2e-4, 0.0, 1e-4) == pytest.approx(sure(2.0, 0.0))
    three = Rivals([[Gap(0.0, 0.0, 16), Gap(0.0, 0.0, 16)]]).probability(1.0)
    assert float(three[0]) == pytest.approx(1 / 3)


def test_an_unfamiliar_image_leaves_every_value_at_chance():
    assert math.isnan(familiarity(0.1, ()))
    assert familiarity(0.05, (0.05, 0.1)) > 0.999 > 0.5 > familiarity(0.1, (0.05, 0.1))
    half = math.exp(UNTYPICAL * 0.1)
    for edge in (0.05 * half, 0.05 / half):  # what is denoised too well is no more familiar
        assert familiarity(edge, (0.05, 0.1)) == pytest.approx(0.5)
    assert familiarity(1.0, (0.05, 0.1)) < 1e-6 and familiarity(0.0, (0.05, 0.1)) < 1e-6
    groups, certain = [[0, 1], [2, 3, 4]], torch.tensor([1.0, 1.0])
    assert torch.allclose(tempered(certain, groups, 0.0), torch.tensor([1 / 2, 1 / 3]))
    assert torch.equal(tempered(certain, groups, math.nan), certain)
    assert legibility(torch.tensor([0.95, 0.9]), groups) == 1.0
    assert legibility(torch.tensor([0.99, 1 / 3]), groups) == pytest.approx(0.0, abs=1e-6)
    assert legibility(torch.tensor([0.7, 0.99]), groups) == pytest.approx(0.5)
    oracle = factors()
    familiar = replace(QUICK, temperature=1e-4, typical=(0.05, 0.5))
    face = invert(oracle, oracle.image(configurations(oracle.space)[7]), familiar)
    noise = invert(oracle, 30 * torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(0)), familiar)
    assert face.familiarity > 0.9 and float(face.confidence.min()) > 0.9
    assert noise.familiarity < 0.01 and float(noise.confidence.max()) < 0.51


def test_errors_with_one_value_exchanged_are_those_of_whole_configurations():
    space = factors().space
    generator = torch.Generator().manual_seed(0)
    residual = torch.randn(2, 50, generator=generator)
    delta = torch.randn(2, 9, 50, generator=generator)
    true = torch.tensor([[0, 3, 8], [1, 4, 5]])
    for composition, w in (("sum", 1.0), ("mean", 1 / 3)):
        errors = errors_of_values(residual, delta, true, space.groups(), composition)
        for b, (f, group) in itertools.product(range(2), enumerate(space.groups())):
            for value in group:
                chosen = true[b].tolist()
                chosen[f] = value
                expected = (residual[b] - w * delta[b, chosen].sum(0)).square().mean()
                torch.testing.assert_close(errors[b, value], expected)


def test_the_contrast_is_the_likelihood_of_the_noise():
    oracle = factors()
    x0 = torch.stack([oracle.image(configurations(oracle.space)[i]) for i in (3, 20)])
    concepts = configurations(oracle.space)[[3, 20]]
    t, noise = torch.tensor([300, 800]), torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))

    def model(x_t, t, concepts, read=False):
        features = oracle.features(x_t, t)
        delta = oracle.contributions(features, concepts).expand(2, -1, -1, -1, -1)
        seen = (50 * configurations(oracle.space)[[3, 20]].sum(1),) if read else ()  # the read-out is right
        return oracle.base(features), delta, *seen

    def loss(contrast, truth=concepts):
        return contrastive_loss(model, oracle.schedule, "sum", oracle.space, x0, truth, t, noise, contrast)

    present = torch.ones(2, 3, dtype=torch.bool)
    plain = composed_loss(model, oracle.schedule, "sum", x0, concepts, present, t, noise)
    torch.testing.assert_close(loss(0.0), plain)
    # The oracle's true values are beyond doubt, and its predictions of others far from them.
    assert float(loss(1.0) - plain) == pytest.approx(0.0, abs=1e-3)
    wrong = configurations(oracle.space)[[4, 20]]
    assert float(loss(1.0, wrong) - loss(0.0, wrong)) > 1.0
