"""What a dry run doubts of a concept parser and its annotations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from igm_cli.core.concepts import Categorical, Product
from igm_cli.plugins import registry
from igm_cli.plugins.doubts import doubts
from igm_cli.plugins.object_concepts import ObjectConcepts as Objects
from igm_cli.plugins.positions import Positions

FACTORS = {"color": ("red", "blue"), "size": ("small", "large")}
PARSER: Any = Objects(FACTORS)
RIGHT = torch.tensor([[0.2, 0.5, 1, 0, 0, 1], [0.7, 0.4, 0, 1, 1, 0]])


def told(parser: Any, *concepts: Tensor) -> Sequence[str]:
    return list(doubts(parser, concepts, (96, 64)))


def test_there_is_nothing_to_doubt_of_what_is_right() -> None:
    assert isinstance(PARSER.space, Product)
    assert told(PARSER, RIGHT, RIGHT[:0]) == []
    unknown = RIGHT.clone()
    unknown[0, 2:4] = 0.5  # a color that nobody annotated
    beyond = RIGHT - torch.tensor([0.4, 0, 0, 0, 0, 0])  # beside a crop
    assert told(PARSER, unknown, beyond) == []
    assert told(Positions(), RIGHT[:, :2]) == []
    attributes = registry.configured(
        registry.concept_parser("attributes"), {"factors": "Bangs,hair=black|blond"}
    )
    assert isinstance(attributes.space, Categorical)
    assert told(attributes, attributes.space.candidates()[[0, 2]]) == []


@pytest.mark.parametrize(
    ("concepts", "says"),
    [
        (RIGHT[:0], "none of the first 1 images has a concept"),
        (RIGHT * torch.tensor([96, 64, 1, 1, 1, 1]), "2 of the first 2 concepts lie far outside"),
        (RIGHT * torch.tensor([1, 1, 1, 1, 0, 0]), "2 of the first 2 concepts have no value of size"),
        (
            RIGHT.index_fill(1, torch.tensor([4, 5]), 1.0),
            "2 of the first 2 concepts have several values of size, which add up",
        ),
    ],
)
def test_concepts_that_are_none(concepts: Tensor, says: str) -> None:
    assert any(says in each for each in told(PARSER, concepts))


def test_methods_that_do_not_fit_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mistaken(Objects):
        """What it does is wrong one by one."""

    parser: Any = Mistaken(FACTORS)

    def wrong(name: str, method: Any) -> Sequence[str]:
        with monkeypatch.context() as patched:
            patched.setattr(Mistaken, name, method)
            return told(parser, RIGHT.clone())

    mirrored = Objects.mirror

    def in_place(self: Any, concepts: Tensor) -> Tensor:
        return concepts.copy_(mirrored(self, concepts))

    def moved(self: Any, concepts: Tensor) -> Tensor:
        return mirrored(self, concepts) * torch.tensor([0.8, 1, 1, 1, 1, 1])

    def swapped(self: Any, items: Any, frame: Any) -> Tensor:
        return Objects.encode(self, items, frame)[:, [1, 0, 2, 3, 4, 5]]

    def nothing(self: Any, predicted: Tensor, truth: Tensor) -> Tensor:
        return torch.zeros(len(predicted), 3, dtype=torch.bool)

    assert wrong("summary", "unchanged") == []
    assert wrong("mirror", in_place) == [
        "mirror changes the tensor that it is given; it must return another one"
    ]
    assert wrong("mirror", moved) == ["mirror, applied twice, does not give the same concepts again"]
    assert wrong("encode", swapped) == ["encode does not give the concepts again that decode was given"]
    assert wrong("right", nothing) == ["right does not call the true concepts right"]
