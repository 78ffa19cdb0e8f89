"""The reverse process."""

from __future__ import annotations

import itertools

import pytest
import torch
from oracle import Oracle, flow, positions

from igm_cli.core.composition import compose
from igm_cli.core.sampling import Composed, Langevin, sample
from igm_cli.core.sampling.noise import ImageNoise
from igm_cli.core.sampling.reverse import level_of, step

TRUTH = torch.tensor([[0.2, 0.3], [0.7, 0.25], [0.5, 0.8]])
SHAPE = (3, 24, 24)


@pytest.mark.parametrize("schedule", [None, flow(1.0), flow(3.0)])
def test_samples_of_the_oracle_are_its_templates(schedule):
    oracle = positions(schedule)
    images = sample(Composed.of(oracle, TRUTH[None]), SHAPE, steps=40)
    expected = oracle.template(TRUTH).sum(0).clamp(-1, 1)
    assert float((images[0] - expected).abs().mean()) < 3 * oracle.spread


@pytest.mark.parametrize("how", [{}, {"sampler": "ancestral", "corrector": Langevin(1)}, {"particles": 2}])
def test_an_image_follows_the_seed_and_its_number(how):
    """Whatever else is in the batch."""
    oracle = positions()
    three = sample(Composed.of(oracle, TRUTH[None].expand(3, -1, -1)), SHAPE, steps=3, **how)
    again = sample(Composed.of(oracle, TRUTH[None]), SHAPE, steps=3, first=1, **how)
    other = sample(Composed.of(oracle, TRUTH[None]), SHAPE, steps=3, first=1, seed=1, **how)
    torch.testing.assert_close(three[1:2], again)
    assert not torch.allclose(three[0], three[1]) and not torch.allclose(again, other)


def test_padding_is_not_drawn():
    oracle = positions()
    present = torch.tensor([[True, False, False]])
    padded = sample(Composed.of(oracle, TRUTH[None], present=present), SHAPE, steps=3)
    torch.testing.assert_close(padded, sample(Composed.of(oracle, TRUTH[None, :1]), SHAPE, steps=3))


@pytest.mark.parametrize("composition", ["sum", "mean"])
def test_every_step_is_that_of_ddim_from_the_clamped_image(composition):
    """Bright templates leave -1..1: x0 is clamped, and eps is taken from it, so that both describe the same x."""
    oracle = Oracle(positions().space, spread=0.5)
    template = oracle.template
    oracle.template = lambda concepts: 3 * template(concepts)
    steps, schedule = 4, oracle.schedule
    images = sample(Composed.of(oracle, TRUTH[None], composition), SHAPE, steps=steps, seed=2)
    x = ImageNoise(2, [0], torch.device("cpu")).normal(SHAPE)
    times, clamped = [999, 749, 500, 250, 0], 0
    for now, after in itertools.pairwise(times):
        t = torch.tensor([now])
        features = oracle.features(x, t)
        delta = oracle.contributions(features, TRUTH[None])
        epsilon = compose(oracle.base(features), delta, composition)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        x0 = (x - sigma * epsilon) / alpha
        clamped += int((x0.abs() > 1).sum())
        x0 = x0.clamp(-1, 1)
        epsilon = (x - alpha * x0) / sigma
        x = schedule.alpha(torch.tensor(after)) * x0 + schedule.sigma(torch.tensor(after)) * epsilon
    torch.testing.assert_close(images, x0, atol=1e-4, rtol=1e-4)
    assert clamped > 50 and float(images.abs().max()) <= 1


def test_guidance_below_zero_is_away_from_a_concept():
    oracle = positions()
    guidance = torch.tensor([[1.0, 1.0, -1.0]])
    image = sample(Composed.of(oracle, TRUTH[None], guidance=guidance), SHAPE, steps=40)[0]
    drawn = oracle.template(TRUTH)
    expected = (drawn[0] + drawn[1] - drawn[2]).clamp(-1, 1)
    assert float((image - expected).abs().mean()) < 3 * oracle.spread


def test_a_step_on_a_flow_is_eulers():
    schedule, generator = flow(3.0), torch.Generator().manual_seed(0)
    x, epsilon = torch.randn(2, 1, 3, 4, 4, generator=generator)
    noise = ImageNoise(0, [0], torch.device("cpu"))
    here, there = level_of(schedule, 700), level_of(schedule, 400)
    moved, x0 = step(x, epsilon, here, there, "ddim", noise, clip=False)
    (_, s), (_, after) = here, there
    torch.testing.assert_close(moved, x + (after - s) * (epsilon - x0))


def test_noise_added_on_the_way_leaves_the_noised_data_as_they_are():
    """x_s given x_t and the true noise has the variance of x_s given x0, on a flow as elsewhere."""
    for schedule in (positions().schedule, flow(3.0)):
        noise = ImageNoise(0, range(4000), torch.device("cpu"))
        eps, x0 = noise.normal((1, 1, 1)), 0.3
        here, there = level_of(schedule, 700), level_of(schedule, 400)
        (alpha, sigma), (after, sigma_after) = here, there
        x = alpha * x0 + sigma * eps
        moved, _ = step(x, eps, here, there, "ancestral", noise, clip=False)
        assert float(moved.mean()) == pytest.approx(after * x0, abs=0.03)
        assert float(moved.std()) == pytest.approx(sigma_after, rel=0.03)
        # and the right part of the noise is kept: Cov(x_s, x_t) = alpha_t/alpha_s sigma_s²
        kept = float(((moved - moved.mean()) * (x - x.mean())).mean())
        assert kept == pytest.approx(alpha / after * sigma_after**2, rel=0.1)


@pytest.mark.parametrize("schedule", [None, flow(1.0)])
def test_samples_vary_as_the_data(schedule):
    """A little less: what is returned is the mean of the clean images at the last level but one."""
    oracle = positions(schedule)
    none = torch.zeros(64, 0, 2)
    for sampler in ("ddim", "ancestral"):
        images = sample(Composed.of(oracle, none), SHAPE, steps=60, sampler=sampler)
        assert float(images.std()) == pytest.approx(0.9 * oracle.spread, rel=0.1)
