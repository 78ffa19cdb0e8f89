"""Errors of whole hypotheses by network calls."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from label_oracle import LabelOracle, letters
from oracle import factors, positions

from igm_cli.core.composition import compose
from igm_cli.core.inference import direct
from igm_cli.core.inference.direct import (
    FIRST_STAGE,
    Hypotheses,
    composed_predictions,
    hypothesis_errors,
    mean_errors,
)
from igm_cli.core.inference.reference import configurations
from igm_cli.core.noise_schedule import draw
from igm_cli.core.types import InversionSettings

staged_errors = partial(mean_errors, stages=None)
TRUTH = torch.tensor([[0.2, 0.3], [0.7, 0.25], [0.5, 0.8]])


@pytest.mark.parametrize("composition", ["sum", "mean"])
def test_the_objective_as_it_is_written(composition):
    oracle = positions()
    image, hypotheses = oracle.image(TRUTH), torch.stack([TRUTH[:2], TRUTH[1:]])
    draws = draw(oracle.schedule, (3, 24, 24), 3, low=0.05, high=0.6, seed=3)
    found = hypothesis_errors(oracle, image, draws, hypotheses, composition)
    for n in range(3):
        t, noise = draws.t[n : n + 1], draws.noise[n : n + 1]
        features = oracle.features(oracle.schedule.add_noise(image[None], noise, t), t)
        for r in range(2):
            delta = oracle.contributions(features, hypotheses[r : r + 1])
            prediction = compose(oracle.base(features), delta, composition)
            expected = float((noise - prediction).square().mean())
            assert float(found[r, n]) == pytest.approx(expected, rel=1e-5)


def scored(settings, method, power=0.0):
    """Scores of all configurations of three factors, each with the draws that were asked for it."""
    oracle = factors()
    rows = configurations(oracle.space)
    image = oracle.image(rows[13])
    asked = []

    def predict(features, which):
        asked.extend(len(features[1]) for _ in which)
        return composed_predictions(oracle, features, rows[which], "sum")

    return method(oracle, image, settings, Hypotheses(len(rows), 3, predict)), sum(asked), (oracle, image, rows)


@pytest.mark.parametrize("power", [0.0, 2.0])
def test_mean_errors_are_weighted_means(power, monkeypatch):
    settings = InversionSettings(draws=5, low=0.1, high=0.8, power=power, seed=2)
    scores, asked, (oracle, image, rows) = scored(settings, mean_errors)
    draws = draw(oracle.schedule, (3, 24, 24), 5, low=0.1, high=0.8, seed=2)
    weight = (oracle.schedule.sigma(draws.t) / oracle.schedule.alpha(draws.t)) ** power
    expected = (hypothesis_errors(oracle, image, draws, rows, "sum") * weight).sum(1) / weight.sum()
    torch.testing.assert_close(scores.errors.float(), expected, rtol=1e-4, atol=0)
    assert int(scores.errors.argmin()) == 13
    assert scores.calls == 5 * 24 * 3 == asked * 3
    for floats in (1, 3 * 24 * 24 * 3 * 7, 3 * 24 * 24 * 3 * 50):  # in parts of any size the result is the same
        monkeypatch.setattr(direct, "FLOATS_AT_ONCE", floats)
        parts, _, _ = scored(settings, mean_errors)
        torch.testing.assert_close(parts.errors, scores.errors, rtol=1e-5, atol=0)
        assert parts.calls == scores.calls


@pytest.mark.parametrize("power", [0.0, 2.0])
def test_stages_leave_out_the_worse_half(power):
    """24, 12, 6, 3 and 2 hypotheses see ever more noise samples; the last have seen all of them."""
    settings = InversionSettings(draws=32, low=0.1, high=0.8, power=power)
    scores, asked, _ = scored(settings, staged_errors)
    whole, _, _ = scored(settings, mean_errors)
    alive = scores.errors.isfinite()
    assert alive.sum() == 2 and int(scores.errors.argmin()) == 13 == int(whole.errors.argmin())
    torch.testing.assert_close(scores.errors[alive], whole.errors[alive], rtol=1e-5, atol=0)
    assert math.isinf(float(scores.errors[~alive].min()))
    stages = [
        (24, 4),
        (12, 8),
        (6, 12),
        (3, 16),
        (2, 32),
    ]  # at least 4 more in each, the draws halved backwards
    taken = [0, *(draws for _, draws in stages)]
    expected = sum(
        number * (draws - before) for (number, draws), before in zip(stages, taken[:-1], strict=True)
    )
    assert scores.calls == 3 * expected == 3 * asked


def test_few_draws_are_not_exceeded():
    scores, _, _ = scored(InversionSettings(draws=FIRST_STAGE - 1), staged_errors)
    assert scores.calls == 3 * 24 * (FIRST_STAGE - 1)
    assert int(scores.errors.argmin()) == 13


@pytest.mark.parametrize("count", [2, 4])
def test_noise_samples_take_turns_at_views(count):
    oracle = LabelOracle(letters(3), spread=2.0)
    views = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = oracle.space.candidates()[:, None]

    def predict(features, which):
        return composed_predictions(oracle, features, rows[which], "mean")

    settings = InversionSettings(draws=4)
    found = mean_errors(oracle, views, settings, Hypotheses(3, 1, predict)).errors
    draws = draw(oracle.schedule, (4, 8, 8), 4, low=settings.low, high=settings.high, seed=0)
    every = torch.stack([hypothesis_errors(oracle, view, draws, rows, "mean") for view in views])  # [V,R,N]
    turns = [0, 1, 1, 0] if count == 2 else [0, 1, 2, 3]
    expected = torch.stack([every[view, :, n] for n, view in enumerate(turns)]).mean(0)
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-6)
    # Those that stages leave have seen the same views, whatever noise sample a stage began with.
    many = InversionSettings(draws=16)
    staged, whole = (
        score(oracle, views, many, Hypotheses(3, 1, predict)).errors for score in (staged_errors, mean_errors)
    )
    alive = staged.isfinite()
    torch.testing.assert_close(staged[alive], whole[alive], rtol=1e-5, atol=0)
