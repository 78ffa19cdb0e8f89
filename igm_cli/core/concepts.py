"""Concept spaces: what a concept is to the engine, a vector with a meaning elsewhere.

A concept is a row of a tensor ``[..., D]``.  What the row *means* (a position, an attribute) is
known to the concept parser that made the space, never to the engine.

Every space has ``plural``, what its concepts are called, and ``fixed_k``, the number of concepts of every image
where that is fixed, else None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True)
class Continuous:
    """Concepts that are points of a box, e.g. image positions.

    Attributes:
        names: Name of each coordinate, ``D`` of them.
        low: Lower bound of each coordinate.
        high: Upper bound of each coordinate.
        local: True if a concept speaks only of the place it points at, so that a denoiser may
            confine its contribution to a window around it.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    local: bool = False

    plural: ClassVar[str] = "points"
    fixed_k: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if not (len(self.names) == len(self.low) == len(self.high) > 0):
            raise ValueError("a continuous space needs one name, low and high per coordinate")
        if any(a >= b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError("every low must be below its high")

    @property
    def dim(self) -> int:
        """Length D of a concept vector."""
        return len(self.names)

    def grid(self, counts: Sequence[int]) -> Tensor:
        """Candidates at the centres of a regular grid.

        Args:
            counts: Number of cells along each coordinate.

        Returns:
            ``[prod(counts), D]``, the first coordinate varying fastest.
        """
        if len(counts) != self.dim:
            raise ValueError(f"a grid over {self.dim} coordinates needs {self.dim} counts")
        axes = [
            lo + (torch.arange(n) + 0.5) / n * (hi - lo)
            for n, lo, hi in zip(counts, self.low, self.high, strict=True)
        ]
        mesh = torch.meshgrid(*reversed(axes), indexing="ij")
        return torch.stack([m.flatten() for m in reversed(mesh)], dim=-1)

    def clamp(self, concepts: Tensor) -> Tensor:
        """Moves concepts ``[..., D]`` into the box."""
        low, high = concepts.new_tensor(self.low), concepts.new_tensor(self.high)
        return torch.minimum(torch.maximum(concepts, low), high)


@dataclass(frozen=True)
class Categorical:
    """Concepts that are values of factors; a concept is a one-hot row over all values.

    Attributes:
        factors: Factor name to the names of its values, in order.
    """

    factors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    plural: ClassVar[str] = "factors"

    def __post_init__(self) -> None:
        for factor, values in self.factors.items():
            if len(set(values)) != len(values) or len(values) < 2:
                raise ValueError(f"factor {factor!r} needs at least two different values")

    @property
    def dim(self) -> int:
        """Length D = number of values of all factors."""
        return sum(len(values) for values in self.factors.values())

    @property
    def fixed_k(self) -> int | None:
        """Number of concepts of every image, one per factor; there is nothing to count."""
        return len(self.factors)

    def candidates(self) -> Tensor:
        """Every value of every factor, ``[D, D]``."""
        return torch.eye(self.dim)

    def groups(self) -> list[list[int]]:
        """Candidate indices of each factor: the one-per-factor constraint of a search."""
        groups: list[list[int]] = []
        start = 0
        for values in self.factors.values():
            groups.append(list(range(start, start + len(values))))
            start += len(values)
        return groups


@dataclass(frozen=True)
class Text:
    """Concepts that are texts; a concept is a one-hot row over the labels, an image holds a set of them.

    Attributes:
        labels: What can be looked for, in order.
        templates: Prompts to put a label in; with several, its prediction is their mean.
    """

    labels: tuple[str, ...]
    templates: tuple[str, ...] = ("a photo of a {label}",)

    plural: ClassVar[str] = "labels"
    fixed_k: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if not self.labels or not all(label.strip() for label in self.labels):
            raise ValueError("labels must not be empty")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ from each other")
        if not self.templates or any("{label}" not in template for template in self.templates):
            raise ValueError("a template must hold {label}, where the label goes")

    @property
    def dim(self) -> int:
        """Length D of a concept vector: the number of labels."""
        return len(self.labels)

    def candidates(self) -> Tensor:
        """Every label, ``[D, D]``."""
        return torch.eye(self.dim)

    def prompts(self, label: int) -> tuple[str, ...]:
        """A label in every template."""
        return tuple(template.replace("{label}", self.labels[label]) for template in self.templates)


@dataclass(frozen=True)
class Codebook:
    """Concepts that are products of codewords, one of every codebook; a concept is a row of K indices.

    Attributes:
        sizes: Number of codewords of each of the K codebooks.
        dim: Length D of a codeword, and of the bound vector.
    """

    sizes: tuple[int, ...]
    dim: int

    plural: ClassVar[str] = "products"
    fixed_k: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 2:
            raise ValueError("a product needs two or more codebooks of two or more codewords each")
        if self.dim < 1:
            raise ValueError("codewords need at least one coordinate")


ConceptSpace: TypeAlias = Continuous | Categorical | Text | Codebook


def space_to_dict(space: ConceptSpace) -> dict[str, Any]:
    """The JSON form of a space, as igm.json holds it."""
    if isinstance(space, Continuous):
        return {
            "kind": "continuous",
            "names": list(space.names),
            "low": list(space.low),
            "high": list(space.high),
            "local": space.local,
        }
    if isinstance(space, Text):
        return {"kind": "text", "labels": list(space.labels), "templates": list(space.templates)}
    if isinstance(space, Codebook):
        return {"kind": "codebook", "sizes": list(space.sizes), "dim": space.dim}
    return {"kind": "categorical", "factors": {k: list(v) for k, v in space.factors.items()}}


def space_from_dict(data: Mapping[str, Any]) -> ConceptSpace:
    """Inverse of :func:`space_to_dict`.

    Raises:
        ValueError: If the kind is unknown.
    """
    kind = data.get("kind")
    if kind == "continuous":
        return Continuous(tuple(data["names"]), tuple(data["low"]), tuple(data["high"]), bool(data["local"]))
    if kind == "categorical":
        return Categorical({k: tuple(v) for k, v in data["factors"].items()})
    if kind == "text":
        return Text(tuple(data["labels"]), tuple(data["templates"]))
    if kind == "codebook":
        return Codebook(tuple(data["sizes"]), int(data["dim"]))
    raise ValueError(f"unknown concept space {kind!r}")
