"""Schedule, concept spaces, metrics, files: the small parts everything rests on."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from igm_cli.core.concepts import Categorical, Continuous, space_from_dict, space_to_dict
from igm_cli.core.files import write_atomically, write_json
from igm_cli.core.metrics import match
from igm_cli.core.noise_schedule import Schedule, ScheduleConfig, draw, timestep_quadrature

CONFIGS = [
    ScheduleConfig(),
    ScheduleConfig("linear", 1e-4, 0.02, prediction_type="epsilon"),
    ScheduleConfig("scaled_linear", 0.00085, 0.012, prediction_type="epsilon"),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_schedules_are_those_of_diffusers(config):
    from diffusers import DDPMScheduler

    theirs, ours = DDPMScheduler.from_config(config.to_dict()), Schedule(config)
    t = torch.arange(config.num_train_timesteps)
    torch.testing.assert_close(ours.alpha(t) ** 2, theirs.alphas_cumprod, atol=1e-5, rtol=1e-3)
    x, noise, t = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8), torch.tensor([0, 10, 500, 999])
    torch.testing.assert_close(ours.add_noise(x, noise, t), theirs.add_noise(x, noise, t), atol=1e-4, rtol=1e-3)
    assert ScheduleConfig.from_dict(dict(theirs.config)) == config


@pytest.mark.parametrize("config", CONFIGS)
def test_epsilon_and_clean_image_follow_from_the_output(config):
    schedule = Schedule(config)
    x0, noise, t = torch.randn(3, 3, 4, 4), torch.randn(3, 3, 4, 4), torch.tensor([5, 300, 900])
    x_t = schedule.add_noise(x0, noise, t)
    a, s = schedule.alpha(t)[:, None, None, None], schedule.sigma(t)[:, None, None, None]
    output = noise if config.prediction_type == "epsilon" else a * noise - s * x0
    epsilon = schedule.output_to_epsilon(output, x_t, t)
    torch.testing.assert_close(epsilon, noise, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(schedule.predict_x0(epsilon, x_t, t), x0, atol=1e-2, rtol=1e-2)


def test_unknown_schedules_are_refused():
    with pytest.raises(ValueError, match="beta_schedule"):
        Schedule(ScheduleConfig("square"))
    with pytest.raises(ValueError, match="prediction_type"):
        Schedule(ScheduleConfig(prediction_type="x0"))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 3))
def test_draws_depend_on_their_number_only(start, count, seed):
    schedule = Schedule()
    whole = draw(schedule, (1, 2, 2), start + count, low=0.1, high=0.6, seed=seed)
    part = draw(schedule, (1, 2, 2), count, low=0.1, high=0.6, seed=seed, start=start)
    assert torch.equal(whole.t[start:], part.t) and torch.equal(whole.noise[start:], part.noise)


def test_every_prefix_of_the_quadrature_covers_the_range():
    schedule = Schedule()
    for count in (4, 8, 16, 32):
        t = timestep_quadrature(schedule, 0.2, 0.8, 0, count).float() / (schedule.steps - 1)
        assert float(t.min()) >= 0.2 and float(t.max()) <= 0.8
        assert abs(float(t.mean()) - 0.5) < 0.6 / count
    with pytest.raises(ValueError, match="range"):
        timestep_quadrature(schedule, 0.8, 0.2, 0, 4)


def test_grids_cover_the_box():
    space = Continuous(("x", "y"), (-1.0, 0.0), (1.0, 4.0))
    grid = space.grid((4, 2))
    assert grid.shape == (8, 2)
    assert (
        grid[0].tolist() == [-0.75, 1.0]
        and grid[1].tolist() == [-0.25, 1.0]
        and grid[4].tolist() == [-0.75, 3.0]
    )
    assert space.clamp(torch.tensor([[-3.0, 9.0]])).tolist() == [[-1.0, 4.0]]


@pytest.mark.parametrize(
    "space",
    [
        Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True),
        Continuous(("z",), (-2.0,), (2.0,)),
        Categorical({"a": ("no", "yes"), "b": ("1", "2", "3")}),
    ],
)
def test_spaces_survive_json(space):
    assert space_from_dict(space_to_dict(space)) == space


def test_impossible_spaces_are_refused():
    with pytest.raises(ValueError, match="two different values"):
        Categorical({"a": ("yes",)})
    with pytest.raises(ValueError, match="below"):
        Continuous(("x",), (1.0,), (0.0,))
    with pytest.raises(ValueError, match="unknown"):
        space_from_dict({"kind": "fuzzy"})


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 100))
def test_matching_is_the_cheapest_and_symmetric(k, n, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.rand(k, 2, generator=generator), torch.rand(n, 2, generator=generator)
    for power in (1, 2):  # of the distance, whose sum is made least
        result, reverse = (match(*pair, squared=power == 2) for pair in ((a, b), (b, a)))
        cost = result.squared.sum(1).pow(power / 2).sum()
        assert len(result.squared) == min(k, n)
        torch.testing.assert_close(reverse.squared.sum(1).pow(power / 2).sum(), cost)
        if 0 < k <= n:
            costs = [
                float((a.double() - b.double()[list(p)]).norm(dim=1).pow(power).sum())
                for p in itertools.permutations(range(n), k)
            ]
            assert float(cost) == pytest.approx(min(costs), abs=1e-9)


def test_an_outlier_does_not_unmatch_what_is_found():
    truth = torch.tensor([[0.1, 0.5], [0.3, 0.5], [0.5, 0.5], [0.9, 0.5]])
    found = torch.tensor([[0.1, 0.5], [0.3, 0.5], [0.5, 0.5], [0.0, 0.5]])  # nothing at 0.9
    assert match(found, truth).perceived("sum").sum() == 3
    assert match(found, truth, squared=True).perceived("sum").sum() == 0  # the chain has shifted


def test_both_readings_of_perceived():
    result = match(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.55, 0.5]]))  # squared error 0.0025
    assert result.perceived("mean").tolist() == [True] and result.perceived("sum").tolist() == [False]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "new" / "data.json"
    write_json(path, {"a": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in path.parent.iterdir()] == ["data.json"]
