"""Where objects are in the world, from where they are in the image and what they are.

Objects of CLEVR stand on the ground, so that their place in the image, their size and the camera determine their place in
the world.  The camera moves a little from image to image, by a rule that nobody tells the methods: what is left is to
expect the place in the world, given those in the image, which is a regression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igm_cli.errors import InputError
from igm_cli.plugins.base import ConceptParser, Frame

DEGREE = 3
FEWEST = 100
"""Degree of the polynomials in x and y, one for every value, and fewest objects that they are fitted to."""


@dataclass(frozen=True)
class WorldPlaces:
    """The expected places of objects in the world, as a linear map of their :func:`terms`."""

    weights: Tensor  # [10 (1+V), 3]

    @classmethod
    def fitted(
        cls, parser: ConceptParser, examples: Iterable[tuple[Mapping[str, Any], Frame]]
    ) -> WorldPlaces | None:
        """Fits the map to annotated objects by least squares; returns None if hardly any has a place in the world."""
        alone = (({"objects": [thing]}, frame) for example, frame in examples for thing in example["objects"])
        known = [pair for thing, frame in alone if (pair := annotated(parser, thing, frame))]
        if len(known) < FEWEST:
            return None
        concepts, places = (torch.cat(part) for part in zip(*known, strict=True))
        # gelsd takes matrices without full rank: the values of a factor sum to one.
        return cls(torch.linalg.lstsq(terms(concepts), places, driver="gelsd").solution)

    def __call__(self, concepts: Tensor) -> Tensor:
        """Returns the places ``[K,3]`` of points with values ``[K,2+V]``, in units of the world."""
        return terms(concepts) @ self.weights


def terms(concepts: Tensor) -> Tensor:
    """Returns all products of a monomial of x and y with 1 or a value, ``[K, 10 (1+V)]``, of concepts ``[K,2+V]``."""
    concepts = concepts.detach().double().cpu()
    x, y = concepts[:, :2].unbind(1)
    powers = [x**i * y**j for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)]
    values = torch.cat([torch.ones(len(concepts), 1), concepts[:, 2:]], dim=1)
    return (torch.stack(powers, 1)[:, :, None] * values[:, None]).flatten(1)


def annotated(parser: ConceptParser, example: Mapping[str, Any], frame: Frame) -> tuple[Tensor, Tensor] | None:
    """Returns the concepts ``[L,D]`` of an example and their places in the world ``[L,3]``.

    Returns None if an object has no place in the world, or a value that the parser does not know.
    """
    try:
        found = [
            (parser.parse({"objects": [thing]}, frame), thing.get("3d_coords")) for thing in example["objects"]
        ]
    except InputError:
        return None
    inside = [(row, place) for row, place in found if len(row)]
    if not inside or any(not place for _, place in inside):
        return None
    concepts, places = zip(*inside, strict=True)
    return torch.cat(concepts), torch.tensor(places).double()
