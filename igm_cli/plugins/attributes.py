"""Concept parser ``attributes``: one value of every factor, such as black hair: yes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from igm_cli.core.concepts import Categorical
from igm_cli.core.names import meant, names_option
from igm_cli.errors import InputError, UnknownConceptError, UsageError, near_names

if TYPE_CHECKING:
    from PIL.Image import Image

    from igm_cli.plugins.base import ConceptParser, Frame

NO_YES = ("no", "yes")
"""Values of a factor for which none are given."""

_MEANT = dict.fromkeys(("True", "1", "1.0"), "yes") | dict.fromkeys(("False", "0", "0.0", "-1", "-1.0"), "no")

DEFAULT_FACTORS = "Black_Hair,Eyeglasses,Smiling"
"""The three of IGM (Wang et al. 2025), section 5.2."""


class Attributes:
    """Factors with named values; the annotation is a column ``attributes`` of factor to value.

    Args:
        factors: Name of every factor to its values; None takes the paper's three, each no or yes.
    """

    name = "attributes"
    summary = "attributes of the whole image, one value of each"
    options: Mapping[str, str] = {
        "factors": "attributes between commas, e.g. Black_Hair,Smiling; values other than no and yes after "
        "an equals sign, e.g. hair=black|blond|grey"
    }

    def __init__(self, factors: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.space = Categorical(dict(factors or parse_factors(DEFAULT_FACTORS)))
        self._columns = [(factor, value) for factor, values in self.space.factors.items() for value in values]

    def configured(self, options: Mapping[str, Any]) -> ConceptParser:
        """Returns a parser of other factors."""
        return Attributes(parse_factors(options["factors"])) if "factors" in options else Attributes()

    def parse(self, example: Mapping[str, Any], frame: Frame) -> Tensor:
        """Returns the example's ``attributes`` as one-hot rows ``[F,D]``, one per factor in the space's order."""
        attributes = example.get("attributes")
        if not isinstance(attributes, Mapping):
            raise InputError(
                "concepts attributes need a column 'attributes' of names and values; this dataset has none"
            )
        return torch.stack([self.row(factor, attributes) for factor in self.space.factors])

    def row(self, factor: str, attributes: Mapping[str, Any]) -> Tensor:
        """Returns the one-hot row ``[D]`` of an example's value of one factor."""
        if attributes.get(factor) is None:
            known = [name for name, value in attributes.items() if value is not None]
            raise InputError(f"the dataset has no attribute {factor!r}; {near_names(factor, known)}")
        return self._one_hot(factor, value_name(attributes[factor], self.space.factors[factor]))

    def _one_hot(self, factor: str, value: str) -> Tensor:
        known = self.space.factors.get(factor)
        if known is None:
            raise InputError(
                f"the model knows no attribute {factor!r}; {near_names(factor, list(self.space.factors))}"
            )
        if value not in known:
            raise InputError(f"{factor} cannot be {value!r}; {near_names(value, known)}")
        row = torch.zeros(self.space.dim)
        row[self._columns.index((factor, value))] = 1.0
        return row

    def encode(self, items: Sequence[Mapping[str, Any]], frame: Frame) -> Tensor:
        """Returns items with ``factor`` and ``value`` as one-hot rows ``[F,D]``."""
        try:
            named = [(str(item["factor"]), str(item["value"])) for item in items]
        except KeyError as error:
            raise InputError(f"an attribute item needs a factor and a value; one has no {error}") from error
        rows = [self._one_hot(factor, value) for factor, value in named]
        return torch.stack(rows) if rows else torch.zeros(0, self.space.dim)

    def decode(self, concepts: Tensor, frame: Frame) -> list[dict[str, Any]]:
        """Returns one-hot rows ``[F,D]`` as items ``{"factor": .., "value": ..}``."""
        chosen = concepts.argmax(dim=1).tolist() if len(concepts) else []
        return [dict(zip(("factor", "value"), self._columns[index], strict=True)) for index in chosen]

    def ask(self, text: str, random: torch.Generator, beside: Tensor) -> Tensor:
        """Returns the value ``[1,D]`` of ``factor=value``, of a factor that is yes, or of the only value of a name."""
        factor, equals, value = (part.strip() for part in text.partition("="))
        factor = meant(factor, self.space.factors)
        text = meant(text, {name for column in self._columns for name in column})
        if equals and factor in self.space.factors:
            known = self.space.factors[factor]
            value = meant(value, known)
            if value not in known:
                raise UsageError(f"{factor} cannot be {value!r}; {near_names(value, known)}")
            return self._one_hot(factor, value)[None]
        named = [column for column in self._columns if column == (text, "yes")]
        named = named or [column for column in self._columns if column[1] == text and text not in NO_YES]
        if len(named) == 1:
            return self._one_hot(*named[0])[None]
        if named:
            raise UsageError(
                f"{text!r} is a value of {' and of '.join(f for f, _ in named)}; write factor=value"
            )
        words = [
            f if set(v) == set(NO_YES) else f"{f}={each}" for f, v in self.space.factors.items() for each in v
        ]
        raise UnknownConceptError(f"unknown attribute {text!r}; {near_names(text, list(dict.fromkeys(words)))}")

    def mirror(self, concepts: Tensor) -> Tensor:
        """Returns the same: flipping an image does not change its attributes."""
        return concepts

    def score(self, predicted: Tensor, truth: Tensor) -> dict[str, float]:
        """Returns whether all attributes are right at once (the paper's accuracy), and whether each is."""
        right = (predicted.argmax(dim=1) == truth.argmax(dim=1)).tolist()
        each = {factor: float(hit) for factor, hit in zip(self.space.factors, right, strict=True)}
        return {"all_right": float(all(right)), **each}

    def right(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Returns which attributes are right ``[F,1]``."""
        return (predicted.argmax(dim=1) == truth.argmax(dim=1))[:, None]

    def draw(self, image: Image, items: Sequence[Mapping[str, Any]]) -> Image:
        """Returns the image with its attributes next to it, in another colour if the confidence is low."""
        from igm_cli.plugins.overlays import draw_items

        return draw_items(image, items, "value", title="factor")

    def draw_map(self, image: Image, values: Tensor, frame: Frame) -> Image:
        """Returns the image with a bar next to it for every value of every attribute."""
        from igm_cli.plugins.overlays import draw_bars

        return draw_bars(
            image, [f"{factor.replace('_', ' ')}: {value}" for factor, value in self._columns], values
        )


def parse_factors(text: Any) -> dict[str, tuple[str, ...]]:
    """Returns factors and their values from ``Black_Hair,hair=black|blond|grey`` or from a table by name."""
    if isinstance(text, Mapping):
        return {str(name): _different(str(name), tuple(map(str, values))) for name, values in text.items()}
    factors: dict[str, tuple[str, ...]] = {}
    for part in names_option("factors", text):
        name, given, listed = (piece.strip() for piece in part.partition("="))
        values = tuple(value.strip() for value in listed.split("|") if value.strip()) if given else NO_YES
        if not name or name in factors:
            raise UsageError(f"factors must have a name each, and each its own, not {text!r}")
        factors[name] = _different(name, values)
    return factors


def _different(name: str, values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < 2 or len(set(values)) < len(values):
        raise UsageError(f"factor {name!r} needs at least two different values, such as {name}=no|yes")
    return values


def value_name(value: Any, values: Sequence[str]) -> str:
    """Returns an annotation as the name of a value: True, 1 and "1" mean yes, False, 0, -1 and "-1" mean no."""
    text = str(value)
    if text not in values and set(values) == set(NO_YES):
        return _MEANT.get(text, text)
    return text
