"""The published algorithms: they find what is plain, and do what their papers say."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from oracle import factors, positions

from igm_cli.core.concepts import Categorical, Continuous
from igm_cli.core.inference import reference
from igm_cli.core.inference.call_counter import CallCounter
from igm_cli.core.inference.direct import hypothesis_errors
from igm_cli.core.inference.engine import invert
from igm_cli.core.inference.reference import configurations, descend, relaxed, score
from igm_cli.core.metrics import match
from igm_cli.core.noise_schedule import Schedule, draw
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError

TRUTH = torch.tensor([[0.2, 0.3], [0.7, 0.25], [0.5, 0.8]])
QUICK = InversionSettings(draws=8, max_draws=8, low=0.1, high=0.8)
SGD = InversionSettings(method="sgd", restarts=6, steps=100, learning_rate=2e-2, score_draws=8, k_max=3)


class Linear:
    """Contributions that are linear in a concept, of a slope of one's own: the gradient is known.

    eps_u = eps exactly, so that the error under one concept c is slope² c² / 2 for two channels, one of them still.
    """

    def __init__(self, slope=1.0, centre=0.0):
        self.space, self.schedule = Continuous(("z",), (-1.0,), (1.0,)), Schedule()
        self.slope, self.centre, self.times, self.concepts = slope, centre, [], []

    def features(self, x_t, t):
        self.times.extend(t.tolist())
        return x_t, t

    def base(self, features):
        x_t, t = features
        return x_t / self.schedule.sigma(t)[:, None, None, None]  # eps, of an image of zeros

    def contributions(self, features, concepts):
        self.concepts.append(concepts.detach().clone())
        wave = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1, 1).expand(len(features[1]), 1, -1, 2, 2)
        return self.slope * (concepts - self.centre)[..., None, None] * wave


def test_sgd_recovers_concepts_by_the_papers_algorithm():
    oracle = CallCounter(positions())
    truth = TRUTH[:2]
    result = invert(oracle, oracle.denoiser.image(truth), SGD, k=2)
    assert match(result.concepts, truth).perceived("sum").all()
    assert result.network_calls == 100 * 6 * 3 + 8 * 6 * 3
    assert (result.k, result.k_source, result.draws) == (2, "given", 8)
    assert result.confidence.isnan().all()


def test_sgd_tries_every_number_each_concept_at_its_cost():
    oracle, image = positions(), positions().image(TRUTH[:2])
    free = invert(oracle, image, replace(SGD, steps=40))
    assert [point.k for point in free.k_curve] == [1, 2, 3]
    assert (free.k, free.k_source) == (2, "estimated")
    assert free.k_curve[1].stderr == 0 < free.k_curve[0].stderr
    assert free.k_curve[1].error == pytest.approx(free.denoising_error)
    fall = free.k_curve[0].error - free.k_curve[1].error
    for share, expected in ((0.9, 2), (1.1, 1)):
        assert invert(oracle, image, replace(SGD, steps=40, penalty=share * fall * 1e4)).k == expected
    assert [p.k for p in invert(oracle, image, replace(SGD, steps=2, k_min=2)).k_curve] == [2, 3]
    with pytest.raises(UsageError, match="at least one concept"):
        invert(oracle, image, SGD, k=0)


def test_sgd_starts_and_noise_follow_the_seed():
    oracle, image = positions(), positions().image(TRUTH[:1])
    once, again, other = (
        descend(oracle, image, replace(SGD, steps=3, seed=seed), 1, "sum")[0] for seed in (0, 0, 1)
    )
    assert torch.equal(once, again) and not torch.equal(once, other)
    starts = descend(Linear(0.0), torch.zeros(2, 2, 2), replace(SGD, steps=1, restarts=2000), 1, "sum")[0]
    # N(0.5, 0.13²) of the range from -1 to 1, weight decay aside
    assert float(starts.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(starts.std()) == pytest.approx(2 * 0.13, rel=0.05)


def test_sgd_timesteps_lie_below_a_fraction_of_the_schedule():
    oracle, image = Linear(0.1), torch.zeros(2, 2, 2)
    descend(oracle, image, replace(SGD, steps=400, restarts=1, sgd_high=0.3), 1, "sum")
    assert 0 <= min(oracle.times) < 20 and 280 < max(oracle.times) < 300
    oracle.times.clear()
    score(oracle, image, torch.zeros(1, 1, 1), replace(SGD, score_draws=64, sgd_high=0.3), "sum")
    assert min(oracle.times) < 20 and 280 < max(oracle.times) <= 300


def test_sgd_clips_every_start_by_itself():
    """A clipped gradient is 1 at every step, for AdamW a step of exactly the learning rate, besides its decay."""
    image, settings = torch.zeros(2, 2, 2), replace(SGD, restarts=4, learning_rate=0.05)
    starts = descend(Linear(0.0), image, replace(settings, steps=1, learning_rate=1e-9), 1, "sum")[0]
    ends = descend(Linear(20.0, centre=-2.0), image, replace(settings, steps=4), 1, "sum")[0]
    expected = starts
    for _ in range(4):
        expected = expected * (1 - 0.05 * 0.01) - 0.05
    torch.testing.assert_close(ends, expected, atol=2e-6, rtol=0)


def test_sgd_stays_in_the_box():
    end = descend(Linear(3.0, centre=4.0), torch.zeros(2, 2, 2), replace(SGD, steps=80), 1, "sum")[0]
    assert torch.equal(end, torch.ones(6, 1, 1))


def test_sgd_keeps_the_start_of_least_error():
    oracle, image = positions(), positions().image(TRUTH[:1])
    settings = replace(SGD, steps=25, restarts=8, learning_rate=1e-2, seed=4)
    ends, _ = descend(oracle, image, settings, 1, "sum")
    errors, calls = score(oracle, image, ends, settings, "sum")
    found = invert(oracle, image, settings, k=1)
    best = errors.mean(1).argmin()
    assert torch.equal(found.concepts, ends[best]) and errors.shape == (8, 8) and calls == 8 * 8 * 2
    assert found.denoising_error == pytest.approx(float(errors.mean(1).min()))


@pytest.mark.parametrize("method", ["evidence", "enumerate", "eliminate", "relax"])
def test_the_methods_agree_and_cost_what_they_say(method):
    oracle = CallCounter(factors())
    truth = configurations(oracle.space)[13]
    settings = replace(QUICK, method=method, relax_steps=60, max_draws=16, settled=0.0)
    found = invert(oracle, oracle.denoiser.image(truth), settings)
    assert torch.equal(found.concepts, truth)
    assert (found.k, found.k_source) == (3, "given")
    assert found.network_calls == oracle.used.passes + oracle.used.contributions or method == "eliminate"
    cost = {
        "evidence": (8 * (1 + 9), 8),  # the sum of 2, 3 and 4 values
        "enumerate": (8 * (1 + 3 * 24), 8),  # three factors of 2 * 3 * 4 configurations
        "relax": (4 * 60 * (1 + 3), 240),
        "eliminate": (16 + 3 * (24 * 4 + 12 * 4 + 6 * 4 + 3 * 4), 16),
    }
    assert (found.network_calls, found.draws) == cost[method]


@pytest.mark.parametrize("composition", ["sum", "mean"])
def test_the_evidence_is_that_of_enumeration(composition):
    """The mean of conditional predictions is another model; both roads must still agree on it."""
    oracle = factors()
    for index, concepts in enumerate(configurations(oracle.space)[::7]):
        image = oracle.image(concepts, seed=index)
        evidence = invert(oracle, image, QUICK, composition=composition)
        enumerated = invert(oracle, image, replace(QUICK, method="enumerate"), composition=composition)
        assert torch.equal(evidence.concepts, enumerated.concepts)
        assert evidence.denoising_error == pytest.approx(enumerated.denoising_error, rel=5e-4)


def test_configurations_are_all_choices_of_one_value_each():
    space = factors().space
    every = configurations(space)
    assert every.shape == (24, 3, 9)
    expected = list(itertools.product(*space.groups()))
    assert [tuple(row) for row in every.argmax(2).tolist()] == expected
    many = Categorical({f"f{i}": ("no", "yes") for i in range(17)})
    with pytest.raises(UsageError, match="131072 configurations"):
        configurations(many)


def test_relaxed_rows_lie_on_the_simplex_of_each_factor():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.0])
    rows = relaxed(logits, [[0, 1], [2, 3, 4]])
    torch.testing.assert_close(rows[0], torch.cat([logits[:2].softmax(0), torch.zeros(3)]))
    torch.testing.assert_close(rows[1], torch.cat([torch.zeros(2), logits[2:].softmax(0)]))


def test_relaxation_takes_the_direction_of_the_gradient_not_its_length():
    """AdamW remembers the length of earlier gradients: a faint image is descended as fast as a plain one."""
    norms = []

    class Recording(torch.optim.AdamW):
        def step(self, closure=None):
            norms.append(float(self.param_groups[0]["params"][0].grad.norm()))
            return super().step(closure)

    oracle = factors()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference.torch.optim, "AdamW", Recording)
        invert(
            oracle, oracle.image(configurations(oracle.space)[5]), replace(QUICK, method="relax", relax_steps=9)
        )
    assert norms == pytest.approx([1.0] * 9, abs=1e-4)


def test_relaxation_sees_new_noise_at_every_step():
    oracle, inputs = factors(), []
    features = oracle.features
    oracle.features = lambda x_t, t: inputs.extend(x_t[:, 0, 0, 0].tolist()) or features(x_t, t)
    found = invert(oracle, torch.zeros(3, 24, 24), replace(QUICK, method="relax", relax_steps=5))
    assert len(set(inputs)) == len(inputs) == found.draws == 20


@pytest.mark.parametrize("power", [0.0, 3.0])
def test_relaxation_weighs_noise_samples_by_their_importance(power):
    oracle, image = factors(), factors().image(configurations(factors().space)[5])
    settings = replace(QUICK, method="relax", relax_steps=1, power=power)
    found = invert(oracle, image, settings)
    even = torch.zeros(9)
    rows = relaxed(even, oracle.space.groups())
    draws = draw(oracle.schedule, (3, 24, 24), 4, low=0.1, high=0.8, seed=0)
    errors = hypothesis_errors(oracle, image, draws, rows[None], "sum")[0]
    weight = (oracle.schedule.sigma(draws.t) / oracle.schedule.alpha(draws.t)) ** power
    assert found.denoising_error == pytest.approx(float((weight * errors).sum() / weight.sum()), rel=1e-4)


@pytest.mark.parametrize("method", ["enumerate", "eliminate", "relax", "sgd"])
def test_the_same_seed_gives_the_same_answer(method):
    oracle = positions() if method == "sgd" else factors()
    image = torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(3))
    settings = replace(QUICK, method=method, relax_steps=5, steps=3, restarts=3, score_draws=4)
    k = 2 if method == "sgd" else None
    once, again, other = (invert(oracle, image, replace(settings, seed=seed), k=k) for seed in (0, 0, 7))
    assert torch.equal(once.concepts, again.concepts)
    assert once.denoising_error == again.denoising_error != other.denoising_error


@pytest.mark.parametrize("method", ["enumerate", "eliminate", "relax"])
def test_another_number_of_factors_is_refused(method):
    with pytest.raises(UsageError, match="3 factors, so k cannot be 2"):
        invert(factors(), torch.zeros(3, 24, 24), replace(QUICK, method=method), k=2)
