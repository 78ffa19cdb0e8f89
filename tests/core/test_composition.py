"""How contributions add up."""

from __future__ import annotations

import pytest
import torch

from igm_cli.core.composition import compose, weight
from igm_cli.core.noise_schedule import Schedule, ScheduleConfig
from igm_cli.core.objective import Noised, composed_loss, denoising_weight


def test_sum_and_mean_ignore_padding():
    base, delta = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 3, 4, 4)
    present = torch.tensor([[True, True, False], [True, True, True]])
    total = compose(base, delta, "sum", present)
    torch.testing.assert_close(total[0], base[0] + delta[0, 0] + delta[0, 1])
    torch.testing.assert_close(total[1], base[1] + delta[1].sum(0))
    mean = compose(base, delta, "mean", present)
    conditional = base[:, None] + delta  # the released code: the mean of conditional predictions
    torch.testing.assert_close(mean[0], conditional[0, :2].mean(0))
    torch.testing.assert_close(mean[1], conditional[1].mean(0))
    torch.testing.assert_close(compose(base, delta, "sum"), base + delta.sum(1))
    torch.testing.assert_close(compose(base, delta, "mean"), conditional.mean(1))


def test_weights_of_the_two_compositions():
    k = torch.tensor([0, 1, 2, 5])
    assert weight("sum", k).tolist() == [1, 1, 1, 1]
    assert weight("mean", k).tolist() == pytest.approx([1, 1, 0.5, 0.2])
    nothing = compose(torch.ones(1, 1, 2, 2), torch.ones(1, 0, 1, 2, 2), "mean")
    assert torch.equal(nothing, torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_is_the_error_of_the_composed_prediction(prediction):
    """For networks that predict v, that of v: (eps_hat - eps) / alpha = v_hat - v."""
    schedule = Schedule(ScheduleConfig(prediction_type=prediction))
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(3, 2, 4, 4, generator=generator) for _ in range(2))
    base, delta = torch.randn(3, 2, 4, 4, generator=generator), torch.randn(3, 2, 2, 4, 4, generator=generator)
    t, present = torch.tensor([10, 400, 800]), torch.tensor([[True, True], [True, False], [False, False]])
    seen = []

    def model(x_t, t, concepts):
        seen.append(x_t)
        return base, delta

    loss = composed_loss(model, Noised.of(schedule, x0, t, noise), "sum", torch.zeros(3, 2, 1), present)
    alpha, sigma = (f(t)[:, None, None, None] for f in (schedule.alpha, schedule.sigma))
    torch.testing.assert_close(seen[0], alpha * x0 + sigma * noise)
    epsilon = base + (present[..., None, None, None] * delta).sum(1)
    if prediction == "epsilon":
        expected = (epsilon - noise).square().mean()
    else:
        expected = ((epsilon - noise) / alpha).square().mean()
    torch.testing.assert_close(loss, expected)


def test_the_weight_of_v_is_bounded_where_alpha_vanishes():
    schedule = Schedule()
    assert float(denoising_weight(schedule, torch.tensor([999]))[0]) == pytest.approx(1 / 0.05**2)
    assert float(denoising_weight(schedule, torch.tensor([0]))[0]) == pytest.approx(1, abs=1e-3)
