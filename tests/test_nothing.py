"""A label that stands for none of the others: no part of an answer, but what the answer is compared with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from label_oracle import LabelOracle, letters, names

from igm_cli.core.concepts import ConceptSpace, Text
from igm_cli.core.inference.engine import invert
from igm_cli.core.types import Inversion, InversionSettings
from igm_cli.errors import UsageError
from igm_cli.plugins.labels.parser import Labels

LABELS = letters(5)
NOTHING = "z"
SETTINGS = InversionSettings(
    draws=8, max_draws=8, low=0.1, high=0.6, temperature=0.01, k_min=1, k_max=3, penalty=30.0
)


def inverted(
    shown: list[str], seed: int, k: int | None, nothing: str = NOTHING, give_up: bool = False, coarse: int = 0
) -> tuple[set[str], Inversion]:
    """What is found in a picture of some labels, by a model that knows a label for nothing or not."""
    model = LabelOracle([*LABELS, NOTHING] if nothing else LABELS, spread=0.6, nothing=nothing)
    picture = LabelOracle([*LABELS, NOTHING], spread=0.6).image(shown, seed)
    found = invert(model, picture, replace(SETTINGS, give_up=give_up, coarse=coarse), k=k, composition="mean")
    return names(model, found.concepts), found


@pytest.mark.parametrize("k", [None, 1, 2, 5])
@pytest.mark.parametrize("seed", range(6))
def test_it_changes_no_answer_and_is_in_none(k: int | None, seed: int) -> None:
    shown = [["a"], ["b", "c"], ["a", "d", "e"], [NOTHING]][seed % 4]
    (with_it, found), (without, alone) = inverted(shown, seed, k), inverted(shown, seed, k, "")
    assert with_it == without
    assert NOTHING not in with_it
    errors = [p.error for p in alone.k_curve]
    assert [p.error for p in found.k_curve] == pytest.approx(errors, abs=1e-6)


@pytest.mark.parametrize("k", [None, 1, 2])
@pytest.mark.parametrize(("give_up", "coarse"), [(False, 0), (True, 0), (True, 2)])
def test_a_picture_of_nothing_is_told_from_one_of_labels(k: int | None, give_up: bool, coarse: int) -> None:
    for seed in range(4):
        _, nothing = inverted([NOTHING], seed, k, give_up=give_up, coarse=coarse)
        found, some = inverted(["a", "c"][: k or 2], seed, k, give_up=give_up, coarse=coarse)
        assert nothing.typicality < 0.1
        assert some.typicality > 0.9
        assert found == set(["a", "c"][: k or 2])
        guess = len(nothing.concepts) / len(LABELS)
        assert nothing.confidence.tolist() == pytest.approx([guess] * len(nothing.concepts), abs=0.1)


def test_without_it_nothing_is_said_of_how_typical_a_picture_is() -> None:
    _, found = inverted(["a"], 0, 1, "")
    assert found.typicality != found.typicality
    assert found.evidence is not None
    assert found.evidence.nothing is None


def test_as_many_labels_can_be_chosen_as_there_are_beside_it() -> None:
    assert inverted(["a"], 0, 5)[0] == set(LABELS)
    with pytest.raises(UsageError, match="6 of 5 labels cannot be chosen"):
        inverted(["a"], 0, 6)


def test_it_must_be_one_of_several_labels() -> None:
    for labels in (("a", "b"), ("z",)):
        with pytest.raises(ValueError, match="must be one beside others"):
            Text(labels, nothing="z")
    space = Labels().configured({"labels": "a,b,z", "nothing": "z"}).space
    assert space == Text(("a", "b", "z"), nothing="z")
    assert space.nothing_place == 2
    assert ConceptSpace.from_dict(space.to_dict()) == space
    assert torch.equal(space.candidates(), torch.eye(3))
