"""The noise schedule, the quadrature over timesteps, and noise that all hypotheses share."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from igm_cli.core.noise_schedule import Schedule, ScheduleConfig, draw, timestep_quadrature, van_der_corput
from igm_cli.errors import InputError

CONFIGS = [
    ScheduleConfig(),
    ScheduleConfig("linear", 1e-4, 0.02, prediction_type="epsilon"),
    ScheduleConfig("scaled_linear", 0.00085, 0.012, prediction_type="epsilon"),
]
FLOWS = [ScheduleConfig(prediction_type="flow_prediction", flow_shift=shift) for shift in (1.0, 3.0)]


@pytest.mark.parametrize("config", CONFIGS)
def test_schedules_are_those_of_diffusers(config):
    from diffusers import DDPMScheduler

    theirs, ours = DDPMScheduler.from_config(config.to_dict()), Schedule(config)
    t = torch.arange(config.num_train_timesteps)
    torch.testing.assert_close(ours.alpha(t) ** 2, theirs.alphas_cumprod, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(ours.alpha(t) ** 2 + ours.sigma(t) ** 2, torch.ones(len(t)))
    x, noise, t = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8), torch.tensor([0, 10, 500, 999])
    torch.testing.assert_close(ours.add_noise(x, noise, t), theirs.add_noise(x, noise, t), atol=1e-4, rtol=1e-3)
    assert ScheduleConfig.from_dict(dict(theirs.config)) == config


@pytest.mark.parametrize("config", FLOWS)
def test_flows_are_those_of_diffusers(config):
    """Half a timestep apart: their last level has no signal."""
    from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

    theirs, ours = FlowMatchEulerDiscreteScheduler.from_config(config.to_dict()), Schedule(config)
    t = torch.arange(ours.steps)
    theirs.set_timesteps(sigmas=(t / ours.steps + 0.5 / ours.steps).tolist())
    torch.testing.assert_close(ours.sigma(t), theirs.sigmas[:-1])
    torch.testing.assert_close(ours.time(t), theirs.timesteps)
    torch.testing.assert_close(ours.alpha(t) + ours.sigma(t), torch.ones(len(t)))
    assert float(ours.alpha(t).min()) > 0
    assert ScheduleConfig.from_dict({"_class_name": type(theirs).__name__, **theirs.config}) == config
    solver = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": config.flow_shift}
    other = DPMSolverMultistepScheduler(**solver)
    assert Schedule(ScheduleConfig.from_dict(dict(other.config))).sigma(t).equal(ours.sigma(t))


def test_only_networks_on_flows_are_told_another_time():
    t = torch.tensor([0, 7, 999])
    assert Schedule().time(t) is t
    assert Schedule(FLOWS[0]).time(t).tolist() == pytest.approx([0.5, 7.5, 999.5])


@pytest.mark.parametrize("config", CONFIGS + FLOWS)
def test_epsilon_follows_from_the_output(config):
    schedule = Schedule(config)
    x0, noise, t = torch.randn(3, 3, 4, 4), torch.randn(3, 3, 4, 4), torch.tensor([5, 300, 900])
    x_t = schedule.add_noise(x0, noise, t)
    a, s = schedule.alpha(t)[:, None, None, None], schedule.sigma(t)[:, None, None, None]
    outputs = {"epsilon": noise, "v_prediction": a * noise - s * x0, "flow_prediction": noise - x0}
    output = outputs[config.prediction_type]
    epsilon = schedule.output_to_epsilon(output, x_t, t)
    torch.testing.assert_close(epsilon, noise, atol=1e-4, rtol=1e-3)
    gain = schedule.epsilon_gain(t)[:, None, None, None]
    changed = schedule.output_to_epsilon(output + 1, x_t, t)
    torch.testing.assert_close(changed - epsilon, gain.expand_as(epsilon), atol=1e-4, rtol=1e-4)


def test_unknown_schedules_are_refused():
    with pytest.raises(InputError, match="'beta_schedule' must be 'linear'"):
        Schedule(ScheduleConfig(beta_schedule="square"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'prediction_type' must be 'epsilon'"):
        Schedule(ScheduleConfig(prediction_type="x0"))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 3))
def test_draws_depend_on_their_number_and_the_seed_only(start, count, seed):
    schedule = Schedule()
    whole = draw(schedule, (1, 2, 2), start + count, low=0.1, high=0.6, seed=seed)
    part = draw(schedule, (1, 2, 2), count, low=0.1, high=0.6, seed=seed, start=start)
    assert torch.equal(whole.t[start:], part.t) and torch.equal(whole.noise[start:], part.noise)
    other = draw(schedule, (1, 2, 2), count, low=0.1, high=0.6, seed=seed + 1, start=start)
    assert torch.equal(other.t, part.t)
    assert not (other.noise == part.noise).any()
    flat = whole.noise.flatten(1)
    assert len({tuple(row) for row in flat.tolist()}) == len(flat)


def test_seeds_share_no_noise():
    """Not even that of other numbers."""
    schedule = Schedule()
    noise = [draw(schedule, (1, 2, 2), 50, low=0.1, high=0.6, seed=seed).noise.flatten(1) for seed in range(3)]
    rows = [tuple(row) for each in noise for row in each.tolist()]
    assert len(set(rows)) == 150
    assert draw(schedule, (1, 1, 1), 1, low=0.1, high=0.6, seed=2**60).noise.isfinite().all()


def test_the_sequence_halves_what_is_left():
    assert van_der_corput(0, 7).tolist() == [0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]
    assert van_der_corput(3, 2).tolist() == [0.125, 0.625]


def test_every_prefix_of_the_quadrature_covers_the_range():
    schedule = Schedule()
    for count in (4, 8, 16, 32):
        t = timestep_quadrature(schedule, 0.2, 0.8, 0, count).float() / (schedule.steps - 1)
        assert float(t.min()) >= 0.2 and float(t.max()) <= 0.8
        assert abs(float(t.mean()) - 0.5) < 0.6 / count
    with pytest.raises(ValueError, match="range"):
        timestep_quadrature(schedule, 0.8, 0.2, 0, 4)


def test_fractions_of_the_schedule_end_at_its_last_timestep():
    schedule = Schedule()
    assert timestep_quadrature(schedule, 0.0, 1.0, 0, 3).tolist() == [500, 250, 749]
    t = timestep_quadrature(schedule, 0.999, 1.0, 0, 2000)
    assert int(t.max()) == 999 and int(t.min()) == 998
    small = Schedule(ScheduleConfig(num_train_timesteps=11))
    assert timestep_quadrature(small, 0.0, 1.0, 0, 3).tolist() == [5, 2, 8]
    assert int(timestep_quadrature(small, 0.0, 1.0, 0, 4000).max()) == 10
