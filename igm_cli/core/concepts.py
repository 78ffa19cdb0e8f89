"""Concept spaces: to the engine, a concept is a row of a tensor ``[..., D]``.

Only the concept parser that made the space knows what a row *means* (a position, an attribute); the engine never does.
A space says which constraint its concepts obey (:mod:`igm_cli.core.inference.constraints`) and which methods can find
them.  A new kind is a subclass of :class:`ConceptSpace`; nothing else needs to change.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor


class ConceptSpace:
    """The base of all concept spaces.

    Attributes:
        kind: Name in JSON.
        plural: What its concepts are called in messages.
        constraint: Name of the constraint on which sets of concepts are answers; empty if the engine does not search
            them.
        methods: Names of the methods that find its concepts.
        countable: Whether images differ in the number of concepts they hold, so that it is worth estimating.
        negation: How generation treats NOT: ``complement``, as one of the concept's alternatives; ``guidance``, as guidance
            away from it; empty if sets of concepts are complete, so that leaving one out negates it.
    """

    kind: ClassVar[str] = ""
    plural: ClassVar[str] = "concepts"
    constraint: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("evidence",)
    countable: ClassVar[bool] = True
    negation: ClassVar[Literal["complement", "guidance", ""]] = ""

    @property
    def calls_per_concept(self) -> int:
        """Network calls that the prediction under one concept takes."""
        return 1

    @property
    def most(self) -> int | None:
        """The most concepts an image can hold; None if there is no limit."""
        return None

    @property
    def nothing_place(self) -> int | None:
        """Index of the candidate that stands for none of the others; None if there is none."""
        return None

    if TYPE_CHECKING:  # subclasses have it as a field or a property

        @property
        def dim(self) -> int:
            """Length D of a concept vector."""

    def variant_groups(self) -> list[list[int]]:
        """Returns, for every factor, which of the V variants of a concept exchange its value; none here."""
        return []

    def alternatives(self, concept: Tensor) -> Tensor:
        """Returns the concepts ``[V,D]`` that exclude one ``[D]``, one of which holds if it does not; none are known here."""
        return concept.new_zeros(0, self.dim)

    def completed(self, concepts: Tensor, random: torch.Generator) -> Tensor:
        """Returns the concepts ``[L,D]`` of an image of which ``[K,D]`` are named; what these leave open is drawn."""
        return concepts

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form, as igm.json holds it."""
        values = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(cast(Any, self)))
        return {"kind": self.kind, **{name: _to_json(value) for name, value in values}}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ConceptSpace:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: If the kind is unknown, or a field is missing or of another type.
        """
        kinds = {space.kind: space for space in _subclasses(ConceptSpace)}
        values = {
            name: ConceptSpace.from_dict(value) if isinstance(value, Mapping) and "kind" in value else value
            for name, value in data.items()
        }
        kind = values.pop("kind", None)
        if kind not in kinds:
            raise ValueError(f"unknown concept space {kind!r}")
        space: ConceptSpace = cast(Any, kinds[kind])(**values)
        return space


def _subclasses(space: type[ConceptSpace]) -> Iterator[type[ConceptSpace]]:
    for sub in space.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _to_json(value: Any) -> Any:
    if isinstance(value, ConceptSpace):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: list(values) for key, values in value.items()}
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Continuous(ConceptSpace):
    """Concepts that are points of a box, such as image positions; an image holds any number of them.

    Attributes:
        names: Name of each coordinate, ``D`` of them.
        low: Lower bound of each coordinate.
        high: Upper bound of each coordinate.
        local: True if a concept describes only the place it points at, so a denoiser may confine its contribution to a
            window around it.
    """

    kind: ClassVar[str] = "continuous"
    plural: ClassVar[str] = "continuous concepts"
    constraint: ClassVar[str] = "sparse-subset"
    methods: ClassVar[tuple[str, ...]] = ("evidence", "sgd")

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    local: bool = False

    def __post_init__(self) -> None:
        if not (len(self.names) == len(self.low) == len(self.high) > 0):
            raise ValueError("a continuous space needs one name, low and high per coordinate")
        if any(a >= b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError("every low must be below its high")

    @property
    def dim(self) -> int:
        """Length D of a concept vector."""
        return len(self.names)

    @property
    def point(self) -> Continuous:
        """The coordinates that can be moved: all of them."""
        return self

    @property
    def mixes(self) -> bool:
        """Whether a grid holds mixtures of values: never, as there are none."""
        return False

    @property
    def extent(self) -> Tensor:
        """Range of every coordinate ``[D]``, float64, from bounds in float32 as concepts are."""
        low, high = torch.tensor([self.low, self.high]).double()
        extent: Tensor = high - low
        return extent

    def grid(self, counts: Sequence[int]) -> Tensor:
        """Returns the centres of a regular grid of so many cells along each coordinate ``[prod(counts), D]``.

        The first coordinate varies fastest.
        """
        if len(counts) != self.dim:
            raise ValueError(f"a grid over {self.dim} coordinates needs {self.dim} counts")
        axes = [
            lo + (torch.arange(n) + 0.5) / n * (hi - lo)
            for n, lo, hi in zip(counts, self.low, self.high, strict=True)
        ]
        mesh = torch.meshgrid(*reversed(axes), indexing="ij")
        return torch.stack([m.flatten() for m in reversed(mesh)], dim=-1)

    def between(self, counts: Sequence[int]) -> Tensor:
        """Returns candidates halfway between the points of :meth:`grid`, the same number."""
        grid = self.grid(counts)
        gaps = torch.tensor([max(1, n - 1) for n in counts])
        return self.clamp(grid + (grid[-1] - grid[0]) / gaps / 2)

    def clamp(self, concepts: Tensor) -> Tensor:
        """Moves concepts ``[..., D]`` into the box."""
        low, high = _bounds(self.low, self.high, concepts.dtype, concepts.device)
        return torch.minimum(torch.maximum(concepts, low), high)

    def variants(self, concepts: Tensor) -> Tensor:
        """Returns the concepts ``[...,V,D]`` that differ from each of ``[...,D]`` in one value: none, for points."""
        return concepts[..., None, :][..., :0, :]


@dataclass(frozen=True)
class Categorical(ConceptSpace):
    """Concepts that are values of factors: an image holds one value of each, a one-hot row over all values.

    Attributes:
        factors: Factor name to the names of its values, in order.
    """

    kind: ClassVar[str] = "categorical"
    plural: ClassVar[str] = "factors"
    constraint: ClassVar[str] = "one-of-each"
    negation = "complement"
    methods: ClassVar[tuple[str, ...]] = ("evidence", "relax", "enumerate", "eliminate")
    countable: ClassVar[bool] = False

    factors: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for factor, values in self.factors.items():
            if len(set(values)) != len(values) or len(values) < 2:
                raise ValueError(f"factor {factor!r} needs at least two different values")

    @property
    def dim(self) -> int:
        """Length D = number of values of all factors."""
        return sum(len(values) for values in self.factors.values())

    def candidates(self) -> Tensor:
        """Returns every value of every factor, ``[D, D]``."""
        return torch.eye(self.dim)

    def alternatives(self, concept: Tensor) -> Tensor:
        """Returns the other values ``[V,D]`` of the factor of a value ``[D]``."""
        value = int(concept.argmax())
        group = next(group for group in self.groups() if value in group)
        return self.candidates()[[other for other in group if other != value]]

    def completed(self, concepts: Tensor, random: torch.Generator) -> Tensor:
        """Returns concepts ``[K,D]``, and after them a random value of every factor that has none."""
        named = set(concepts.argmax(1).tolist()) if len(concepts) else set()
        free = [group for group in self.groups() if named.isdisjoint(group)]
        drawn = [group[int(torch.randint(len(group), (), generator=random))] for group in free]
        return torch.cat([concepts, self.candidates()[drawn]])

    def groups(self) -> list[list[int]]:
        """Returns the candidate indices of each factor."""
        groups: list[list[int]] = []
        start = 0
        for values in self.factors.values():
            groups.append(list(range(start, start + len(values))))
            start += len(values)
        return groups


@dataclass(frozen=True)
class Text(ConceptSpace):
    """Concepts that are texts: an image holds a set of them; a concept is a one-hot row over the labels.

    Attributes:
        labels: What can be looked for, in order.
        templates: Prompts to put a label in; with several, its prediction is their mean.
        nothing: The label that stands for none of the others and is part of no answer: an image that is denoised best
            under it holds none of them.  Empty if there is no such label.
    """

    kind: ClassVar[str] = "text"
    plural: ClassVar[str] = "labels"
    constraint: ClassVar[str] = "any-set"
    negation = "guidance"

    labels: tuple[str, ...]
    templates: tuple[str, ...] = ("a photo of a {label}",)
    nothing: str = ""

    def __post_init__(self) -> None:
        if not self.labels or not all(label.strip() for label in self.labels):
            raise ValueError("labels must not be empty")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ from each other")
        if not self.templates or any("{label}" not in template for template in self.templates):
            raise ValueError("a template must hold {label}, where the label goes")
        if self.nothing and (self.nothing not in self.labels or len(self.labels) < 2):
            raise ValueError(
                f"{self.nothing!r}, which stands for none of the labels, must be one beside others"
            )

    @property
    def nothing_place(self) -> int | None:
        """Index of the label that stands for none of the others; None if there is none."""
        return self.labels.index(self.nothing) if self.nothing else None

    @property
    def most(self) -> int:
        """Number of labels, without the one that stands for none of them."""
        return self.dim - bool(self.nothing)

    @property
    def calls_per_concept(self) -> int:
        """Network calls that the prediction under one label takes: one for every template."""
        return len(self.templates)

    @property
    def dim(self) -> int:
        """Length D of a concept vector: the number of labels."""
        return len(self.labels)

    def candidates(self) -> Tensor:
        """Returns every label, ``[D, D]``."""
        return torch.eye(self.dim)

    def prompts(self, label: int) -> tuple[str, ...]:
        """Returns a label in every template."""
        return tuple(template.replace("{label}", self.labels[label]) for template in self.templates)


@dataclass(frozen=True)
class Codebook(ConceptSpace):
    """Concepts that are products of codewords, one from every codebook; a concept is a row of K indices.

    They have their own solvers (:mod:`igm_cli.core.decomposition`).

    Attributes:
        sizes: Number of codewords of each of the K codebooks.
        dim: Length D of a codeword, and of the bound vector.
    """

    kind: ClassVar[str] = "codebook"
    plural: ClassVar[str] = "codewords"
    methods: ClassVar[tuple[str, ...]] = ()

    sizes: tuple[int, ...]
    dim: int

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 2:
            raise ValueError("a product needs two or more codebooks of two or more codewords each")
        if self.dim < 1:
            raise ValueError("codewords need at least one coordinate")


@dataclass(frozen=True)
class Product(ConceptSpace):
    """Concepts that are a point with one value of each of several factors, where and what; an image holds any number.

    A concept is the coordinates of the point, then the one-hot rows of all factors: ``[point, values]``.

    Attributes:
        where: Space of the points.
        what: Space of the values.
    """

    kind: ClassVar[str] = "product"
    plural: ClassVar[str] = "points with values"
    constraint: ClassVar[str] = "sparse-subset"

    where: Continuous
    what: Categorical

    MOST_SCANNED: ClassVar[int] = 16
    """Combinations of values up to which all are tried at every point of a grid; beyond, only single values are."""

    @property
    def dim(self) -> int:
        """Length D of a concept vector."""
        return self.where.dim + self.what.dim

    @property
    def point(self) -> Continuous:
        """The coordinates that can be moved: the first of a concept vector."""
        return self.where

    @property
    def local(self) -> bool:
        """True if a concept describes only the place it points at."""
        return self.where.local

    @property
    def mixes(self) -> bool:
        """Whether values have too many combinations for each to be tried at every point of a grid."""
        return math.prod(map(len, self.what.groups())) > self.MOST_SCANNED

    def combinations(self) -> Tensor:
        """Returns the values tried at every point of a grid ``[R,V]``: all combinations of one value per factor.

        If these are too many: each value, with an even mixture of the values of every other factor.
        """
        groups, rows = self.what.groups(), self.what.candidates()
        if self.mixes:
            return self._exchanged(self._even())
        indices = torch.cartesian_prod(*(torch.tensor(group) for group in groups)).reshape(-1, len(groups))
        return rows[indices].sum(1)

    def mixed(self, concepts: Tensor, which: Tensor) -> Tensor:
        """Returns concepts ``[...,D]`` with an even mixture in place of the values of some factors ``[...,F]``."""
        point, values = concepts.split([self.where.dim, self.what.dim], dim=-1)
        sizes = torch.tensor([len(group) for group in self.what.groups()], device=which.device)
        replaced = which.repeat_interleave(sizes, dim=-1, output_size=self.what.dim)
        return torch.cat([point, torch.where(replaced, self._even().to(values), values)], dim=-1)

    def _even(self) -> Tensor:
        """Returns the row ``[V]`` of an even mixture of the values of every factor: no value is known."""
        rows = self.what.candidates()
        return torch.stack([rows[group].mean(0) for group in self.what.groups()]).sum(0)

    def grid(self, counts: Sequence[int]) -> Tensor:
        """Returns the points of a regular grid, each with every combination of values ``[G,D]``."""
        return self._with_values(self.where.grid(counts))

    def between(self, counts: Sequence[int]) -> Tensor:
        """Returns points halfway between those of :meth:`grid`, each with every combination of values ``[G,D]``."""
        return self._with_values(self.where.between(counts))

    def clamp(self, concepts: Tensor) -> Tensor:
        """Moves the points of concepts ``[...,D]`` into their box."""
        point, values = concepts.split([self.where.dim, self.what.dim], dim=-1)
        return torch.cat([self.where.clamp(point), values], dim=-1)

    def completed(self, concepts: Tensor, random: torch.Generator) -> Tensor:
        """Returns concepts ``[K,D]`` with a random value of every factor of which none is known."""
        point, values = concepts.split([self.where.dim, self.what.dim], dim=-1)
        parts = []
        for group in self.what.groups():
            drawn = torch.eye(len(group))[torch.randint(len(group), (len(values),), generator=random)]
            known = values[:, group].amax(1, keepdim=True) == 1
            parts.append(torch.where(known, values[:, group], drawn.to(values)))
        return torch.cat([point, *parts], dim=1)

    def variants(self, concepts: Tensor) -> Tensor:
        """Returns concepts ``[...,D]`` with one value exchanged, for each of all V values ``[...,V,D]``."""
        point, values = concepts.split([self.where.dim, self.what.dim], dim=-1)
        exchanged = self._exchanged(values)
        return torch.cat([point[..., None, :].expand(*exchanged.shape[:-1], -1), exchanged], dim=-1)

    def _exchanged(self, values: Tensor) -> Tensor:
        """Returns rows of values ``[...,V]`` with every value in its factor's place ``[...,V,V]``."""
        changed = []
        for group in self.what.groups():
            others = values[..., None, :].repeat(*[1] * (values.dim() - 1), len(group), 1)
            others[..., group] = torch.eye(len(group)).to(values)
            changed.append(others)
        return torch.cat(changed, dim=-2)

    def variant_groups(self) -> list[list[int]]:
        """Returns, for every factor, which of the V variants of a concept exchange its value."""
        return self.what.groups()

    def _with_values(self, points: Tensor) -> Tensor:
        values = self.combinations().to(points)
        g, r = len(points), len(values)
        return torch.cat([points.repeat_interleave(r, 0), values.repeat(g, 1)], dim=-1)


@functools.cache
def _bounds(
    low: tuple[float, ...], high: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns the bounds of a box ``[D]``, copied to a device once."""
    return torch.tensor(low, dtype=dtype).to(device), torch.tensor(high, dtype=dtype).to(device)
