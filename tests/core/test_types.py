"""Settings of an inversion: what they refuse, and what a checkpoint gives."""

from __future__ import annotations

import dataclasses
import json

import pytest

from igm_cli.core.inference.typicality import Typical
from igm_cli.core.types import InversionSettings
from igm_cli.errors import IgmError, InputError, UsageError

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("draws", 2.5), ("draws", "12"), ("draws", True), ("draws", None), ("max_draws", 3.5), ("k_max", [1]),
        ("power", NAN), ("power", INF), ("power", "much"), ("settled", NAN), ("low", NAN), ("temperature", INF),
        ("penalty", NAN), ("method", 3), ("grid", [4.5, 4]), ("typical", [0.1, 1.0]), ("seed", 0.5),
        ("learning_rate", {}), ("refine_steps", 1.5),
    ],
)  # fmt: skip
def test_values_of_another_type_are_refused_in_one_sentence_with_the_name(name, value):
    with pytest.raises(InputError) as error:
        InversionSettings.from_dict({name: value})
    sentence = str(error.value)
    assert sentence.startswith(f"the inversion setting '{name}") and "\n" not in sentence
    assert "pydantic" not in sentence and len(sentence) < 200
    if value is not None:  # which means: not given
        with pytest.raises(IgmError, match=f"the inversion setting '{name}"):
            InversionSettings.from_dict({}, **{name: tuple(value) if isinstance(value, list) else value})


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("settled", -3.0, "must be at least 0, not -3.0"),
        ("temperature", -1.0, "must be at least 0, not -1.0"),
        ("refine_steps", -1, "must be at least 0, not -1"),
        ("draws", 0, "the inversion setting 'draws' must be at least 1, not 0"),
        ("max_draws", 0, "the inversion setting 'max_draws' must be at least 1, not 0"),
        ("k_max", 0, "the inversion setting 'k_max' must be at least 1, not 0"),
        ("k_min", -1, "the inversion setting 'k_min' must be at least 0, not -1"),
        ("k_min", 11, "k-min 11 must lie between 0 and k-max 10"),
        ("scan_draws", 0, "the inversion setting 'scan_draws' must be at least 1, not 0"),
        ("keep", 0, "the inversion setting 'keep' must be at least 1, not 0"),
        ("restarts", 0, "the inversion setting 'restarts' must be at least 1, not 0"),
        ("steps", 0, "the inversion setting 'steps' must be at least 1, not 0"),
        ("score_draws", 0, "the inversion setting 'score_draws' must be at least 1, not 0"),
        ("relax_steps", 0, "the inversion setting 'relax_steps' must be at least 1, not 0"),
        ("low", 0.7, "timesteps 0.7..0.58 must lie within 0..1"),
        ("low", -0.1, "the inversion setting 'low' must be at least 0, not -0.1"),
        ("high", 1.1, "the inversion setting 'high' must be at most 1, not 1.1"),
        ("low", 0.58, "timesteps 0.58..0.58 must lie within 0..1"),
        ("sgd_high", 0.0, "must be above 0, not 0.0"),
        ("sgd_high", 1.5, "must be at most 1, not 1.5"),
        ("learning_rate", 0.0, "the inversion setting 'learning_rate' must be above 0, not 0.0"),
        ("views", 3, "the inversion setting 'views' must be 1, 2 or 4, not 3"),
        ("method", "guess", "unknown method 'guess'; choose eliminate, enumerate, evidence, relax, sgd"),
    ],
)
def test_values_out_of_range_are_refused_in_one_sentence(name, value, sentence):
    for make in (
        lambda: InversionSettings(**{name: value}),
        lambda: InversionSettings.from_dict({name: value}),
    ):
        with pytest.raises(UsageError) as error:
            make()
        assert sentence in str(error.value) and "\n" not in str(error.value)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="unknown inversion setting 'drawz'; did you mean draws"):
        InversionSettings.from_dict({"drawz": 3, "draws": 4})


def test_values_at_the_edge_are_allowed():
    edge = InversionSettings(
        k_min=0, k_max=1, draws=1, max_draws=1, settled=0, low=0.0, high=1.0, refine_steps=0, views=4
    )
    assert (edge.settled, edge.low, edge.high, edge.refine_steps) == (0, 0, 1, 0)
    edge = InversionSettings(k_min=3, k_max=3, sgd_high=1.0, temperature=0, grid=(1, 1))
    assert (edge.k_min, edge.k_max, edge.sgd_high, edge.grid) == (3, 3, 1.0, (1, 1))


def test_what_a_user_gives_stands_before_the_checkpoints():
    settings = InversionSettings.from_dict({"draws": 4, "grid": [8, 8], "seed": 3}, draws=6, seed=None, k_max=2)
    assert (settings.draws, settings.grid, settings.seed, settings.k_max) == (6, (8, 8), 3, 2)
    assert settings.max_draws == InversionSettings().max_draws
    assert InversionSettings.from_dict({"k_max": 6}, k_min=12).k_max == 12
    with pytest.raises(UsageError, match="k-min 12 must lie between 0 and k-max 8"):
        InversionSettings.from_dict({"k_max": 6}, k_min=12, k_max=8)
    more = InversionSettings.from_dict({"max_draws": 8}, draws=20)
    assert (more.draws, more.max_draws) == (20, 20)


TYPICAL = Typical(0.1, 0.5, (0.0, 1.0, 2.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), 3.0)


def test_settings_survive_json():
    settings = InversionSettings(grid=(4, 6), typical=TYPICAL, power=1.0)
    assert InversionSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert set(settings.to_dict()) == {field.name for field in dataclasses.fields(InversionSettings)}


def test_the_cost_of_a_concept():
    assert InversionSettings(penalty=3.0).cost == pytest.approx(3e-4)
