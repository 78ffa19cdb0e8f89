"""Methods that finding labels is compared with: equal answers where they must be, and what they cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from label_oracle import LabelOracle, letters, names
from torch import Tensor

from igm_cli.benchmarks.baselines.label_methods import (
    BATCH,
    compound_prompts,
    enumerate_sets,
    labels_alone,
    prompt_weights,
)
from igm_cli.core.inference import direct
from igm_cli.core.inference.engine import invert
from igm_cli.core.models.prompts import compound
from igm_cli.core.noise_schedule import draw
from igm_cli.core.types import Inversion, InversionSettings
from igm_cli.errors import UsageError

SETTINGS = InversionSettings(draws=6, max_draws=6, relax_steps=30, low=0.1, high=0.9)
METHODS: dict[str, Callable[..., Inversion]] = {
    "enumerate": enumerate_sets,
    "dc-compound": compound_prompts,
    "dc-variant": labels_alone,
    "prompt-weights": prompt_weights,
}


def igm(oracle: LabelOracle, image: Tensor, settings: InversionSettings, k: int) -> Inversion:
    """The evidence under the same draws, all of them."""
    return invert(oracle, image, replace(settings, give_up=False), k=k, composition="mean")


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_enumeration_is_igm_under_equal_draws(k: int, power: float) -> None:
    """Also where little is certain: the pictures are noise, and no set is right."""
    for seed in range(12):
        oracle = LabelOracle(letters(6), spread=2.0)
        generator = torch.Generator().manual_seed(seed)
        image = torch.randn(4, 8, 8, generator=generator)
        settings = replace(SETTINGS, power=power, seed=seed)
        theirs, ours = enumerate_sets(oracle, image, settings, k), igm(oracle, image, settings, k)
        assert names(oracle, theirs.concepts) == names(oracle, ours.concepts)
        assert theirs.denoising_error == pytest.approx(ours.denoising_error, abs=1e-5)
        assert theirs.draws == ours.draws == 6


@pytest.mark.parametrize("count", [2, 4])
def test_all_methods_look_at_the_same_views_under_the_same_draws(count: int) -> None:
    """Views of noise differ in everything: errors are equal only if every draw looks at the same one."""
    oracle = LabelOracle(letters(5), spread=2.0)
    views = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs, ours = enumerate_sets(oracle, views, SETTINGS, 2), igm(oracle, views, SETTINGS, 2)
    assert theirs.denoising_error == pytest.approx(ours.denoising_error, abs=1e-5)
    assert names(oracle, theirs.concepts) == names(oracle, ours.concepts)
    assert ours.denoising_error != pytest.approx(igm(oracle, views[0], SETTINGS, 2).denoising_error, abs=1e-5)
    for method in (labels_alone, compound_prompts):
        equal, single = (
            method(oracle, views[:1].expand_as(views), SETTINGS, 2),
            method(oracle, views[0], SETTINGS, 2),
        )
        assert equal.denoising_error == pytest.approx(single.denoising_error, abs=1e-5)


@pytest.mark.parametrize(("labels", "k", "ours", "theirs"), [(3, 2, 3, 6), (20, 3, 20, 3420)])
def test_calls_a_draw(labels: int, k: int, ours: int, theirs: int) -> None:
    """M instead of K C(M,K), counted where they are made."""
    settings = replace(SETTINGS, draws=2, max_draws=2)
    calls = {}
    for name, method in {"igm": igm, **METHODS}.items():
        oracle = LabelOracle(letters(labels))
        found = method(oracle, oracle.image(letters(labels)[:k]), settings, k)
        assert found.network_calls == oracle.calls
        calls[name] = found.network_calls / found.draws
    sets = math.comb(labels, k)
    assert calls == {
        "igm": ours,
        "enumerate": theirs,
        "dc-compound": sets,
        "dc-variant": labels,
        "prompt-weights": labels,
    }


@pytest.mark.parametrize("name", METHODS)
def test_all_find_what_is_plain(name: str) -> None:
    for number, truth in enumerate(itertools.combinations(letters(4), 2)):
        oracle = LabelOracle(letters(4))
        found = METHODS[name](oracle, oracle.image(truth, number), SETTINGS, 2)
        assert names(oracle, found.concepts) == set(truth)
        assert (found.k, found.k_source) == (2, "given")
        assert found.confidence.isnan().all()


@pytest.mark.parametrize("name", [*METHODS, "igm"])
def test_every_template_is_a_call(name: str) -> None:
    oracle = LabelOracle(letters(4), templates=("a {label}", "one {label}"))
    if name == "dc-compound":
        oracle = LabelOracle(letters(4), templates=("a {label}", "drawn, a {label}"))
    method = {"igm": igm, **METHODS}[name]
    found = method(oracle, oracle.image("bc"), SETTINGS, 2)
    assert found.network_calls == oracle.calls
    assert names(oracle, found.concepts) == set("bc")


@pytest.mark.parametrize("name", ["enumerate", "dc-compound", "dc-variant"])
def test_memory_is_bounded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts of any size the result is the same."""
    oracle = LabelOracle(letters(5), spread=1.0)
    image = oracle.image("be")
    whole = METHODS[name](oracle, image, SETTINGS, 2)
    for floats in (1, 3 * 256, 40 * 256):
        monkeypatch.setattr(direct, "FLOATS_AT_ONCE", floats)
        parts = METHODS[name](oracle, image, SETTINGS, 2)
        assert parts.concepts.equal(whole.concepts)
        assert parts.denoising_error == pytest.approx(whole.denoising_error, rel=1e-6)
        assert parts.network_calls == whole.network_calls


def test_stages_leave_captions_out() -> None:
    oracle = LabelOracle(letters(7))
    settings = replace(SETTINGS, draws=32)
    image = oracle.image("cf")
    all_of_them = compound_prompts(oracle, image, settings, 2)
    oracle.calls = 0
    few = compound_prompts(oracle, image, settings, 2, stages=True)
    assert names(oracle, few.concepts) == set("cf")
    # 21 captions in 5 stages, the worse half left out after each: 4, 8, 12, 16, 32 draws.
    assert few.network_calls == oracle.calls == 4 * (21 + 11 + 6 + 3) + 16 * 2
    assert few.denoising_error == pytest.approx(all_of_them.denoising_error, rel=1e-9)  # the last saw all draws
    one = compound_prompts(LabelOracle(letters(2)), image, settings, 2, stages=True)
    assert one.network_calls == 32


def test_weights_see_new_draws_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []

    def counted(*arguments: Any, start: int, **options: Any) -> Any:
        starts.append(start)
        return draw(*arguments, start=start, **options)

    monkeypatch.setattr("igm_cli.benchmarks.baselines.label_methods.draw", counted)
    oracle = LabelOracle(letters(3))
    found = prompt_weights(oracle, oracle.image("ab"), SETTINGS, 2)
    assert starts == [BATCH * step for step in range(30)]
    assert found.draws == BATCH * 30


class Misleading(LabelOracle):
    """Speaks for label c at the first step, a thousand times as loud as for the truth at the others."""

    def predictions(self, features: tuple[Tensor, Tensor], concepts: Tensor) -> Tensor:
        first = self.calls == 0
        told = super().predictions(features, concepts)
        mean = told.mean(1, keepdim=True)
        return mean + 1000 * (told - mean).roll(1, dims=1) if first else told


def test_weights_follow_most_steps_not_the_loudest() -> None:
    oracle = Misleading(letters(4))
    found = prompt_weights(oracle, oracle.image("b"), SETTINGS, 1)
    assert names(oracle, found.concepts) == {"b"}


@pytest.mark.parametrize("name", METHODS)
def test_more_labels_than_there_are(name: str) -> None:
    oracle = LabelOracle(letters(3))
    with pytest.raises(UsageError, match="cannot be chosen"):
        METHODS[name](oracle, oracle.image("a"), SETTINGS, 4)


@pytest.mark.parametrize(
    ("template", "labels", "caption"),
    [
        ("a photo of a {label}", ["dog"], "a photo of a dog"),
        ("a photo of a {label}", ["dog", "cat"], "a photo of a dog and a cat"),
        ("a photo of a {label} outside", ["dog", "cat", "owl"], "a photo of a dog, a cat and a owl outside"),
        ("{label}", ["dog", "cat"], "dog and cat"),
        ("a {label}", ["dog", "cat"], "a dog and a cat"),
        ("on camera {label}", ["dog", "cat"], "on camera dog and cat"),
    ],
)
def test_captions_of_several_labels(template: str, labels: list[str], caption: str) -> None:
    assert compound(template, labels) == caption
