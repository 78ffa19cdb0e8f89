"""Images from concepts."""

from __future__ import annotations

import itertools

import pytest
import torch
from oracle import Oracle, positions

from igm_cli.core.composition import compose
from igm_cli.core.sampling import sample

TRUTH = torch.tensor([[0.2, 0.3], [0.7, 0.25], [0.5, 0.8]])
SHAPE = (3, 24, 24)


def test_samples_of_the_oracle_are_its_templates():
    oracle = positions()
    images = sample(oracle, TRUTH[None], SHAPE, steps=40)
    expected = oracle.template(TRUTH).sum(0).clamp(-1, 1)
    assert float((images[0] - expected).abs().mean()) < 3 * oracle.spread


def test_samples_follow_the_seed_and_not_the_batch():
    oracle = positions()
    first, again, other = (sample(oracle, TRUTH[None], SHAPE, steps=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    two = sample(oracle, torch.stack([TRUTH, TRUTH]), SHAPE, steps=3)
    torch.testing.assert_close(two[0], first[0])
    assert not torch.equal(two[0], two[1])


def test_padding_is_not_drawn():
    oracle = positions()
    present = torch.tensor([[True, False, False]])
    padded = sample(oracle, TRUTH[None], SHAPE, steps=3, present=present)
    torch.testing.assert_close(padded, sample(oracle, TRUTH[None, :1], SHAPE, steps=3))


@pytest.mark.parametrize("composition", ["sum", "mean"])
def test_every_step_is_that_of_ddim_from_the_clamped_image(composition):
    """Bright templates leave -1..1: x0 is clamped, and eps is taken from it, so that both describe the same x."""
    oracle = Oracle(positions().space, spread=0.5)
    template = oracle.template
    oracle.template = lambda concepts: 3 * template(concepts)
    steps, schedule = 4, oracle.schedule
    images = sample(oracle, TRUTH[None], SHAPE, composition, steps=steps, seed=2)
    x = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(2))
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
