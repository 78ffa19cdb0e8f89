"""The contrast between the values of factors."""

from __future__ import annotations

import itertools

import pytest
import torch
from oracle import factors

from igm_cli.core.inference.reference import configurations
from igm_cli.core.objective import Noised, composed_loss
from igm_cli.core.training.contrast import contrastive_loss, contrasts, errors_of_values


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

    noised = Noised.of(oracle.schedule, x0, t, noise)

    def loss(contrast, truth=concepts):
        return contrastive_loss(model, noised, "sum", oracle.space, truth, contrast)

    present = torch.ones(2, 3, dtype=torch.bool)
    plain = composed_loss(model, noised, "sum", concepts, present)
    torch.testing.assert_close(loss(0.0), plain)
    # The oracle's true values are beyond doubt, and its predictions of others far from them.
    assert float(loss(1.0) - plain) == pytest.approx(0.0, abs=1e-3)
    wrong = configurations(oracle.space)[[4, 20]]
    assert float(loss(1.0, wrong) - loss(0.0, wrong)) > 1.0


def test_the_contrast_adds_the_cross_entropies_of_likelihoods_and_read_out():
    """Of p(v) = softmax(-P/2 error), P the number of pixels, and of the logits."""
    generator = torch.Generator().manual_seed(0)
    errors, logits = torch.rand(2, 5, generator=generator), torch.randn(2, 5, generator=generator)
    true, groups = torch.tensor([[1, 2], [0, 4]]), [[0, 1], [2, 3, 4]]
    found = contrasts(errors, logits, true, groups, 10)
    for b, (f, group) in itertools.product(range(2), enumerate(groups)):
        place = group.index(int(true[b, f]))
        likelihood = (-10 / 2 * errors[b, group]).log_softmax(0)[place]
        read_out = logits[b, group].log_softmax(0)[place]
        assert float(found[b, f]) == pytest.approx(float(-likelihood - read_out), rel=1e-5)
