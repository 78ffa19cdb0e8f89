"""Concept parser ``objects``: where objects are in the image, and what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from igm_cli.core.concepts import Product
from igm_cli.errors import InputError, UnknownConceptError, UsageError, near_names, some
from igm_cli.plugins.attributes import Attributes, parse_factors, value_name
from igm_cli.plugins.base import Advice
from igm_cli.plugins.clevr.object_attributes import VALUES
from igm_cli.plugins.positions import Positions

if TYPE_CHECKING:
    from PIL.Image import Image

    from igm_cli.plugins.adapters import Dataset
    from igm_cli.plugins.base import Frame

LABEL = ("label", "category")
"""Factors that are read from the label of an object."""

MOST = 20
"""Most values of an attribute that is learned without being asked for; one with more is likely free text."""


class ObjectConcepts:
    """Object centres, each with one value of every factor.

    The annotation is a column ``objects`` of tables with ``pixel_coords`` and the value of each factor: next to that, in
    a table ``attributes``, or as ``label`` for a factor called label or category.  An empty value is unknown; an even
    mixture of all values stands for it.

    Args:
        factors: Name of every factor to its values; None takes those of CLEVR's objects.
        places: Options of :class:`igm_cli.plugins.positions.Positions`.
    """

    name = "objects"
    summary = "object positions in the image, each with a value of every factor"
    options: Mapping[str, str] = {
        "factors": "factors between commas, with their values after an equals sign, e.g. label=cat|dog,size=small|large",
        **Positions.options,
    }

    def __init__(self, factors: Mapping[str, tuple[str, ...]] | None = None, **places: Any) -> None:
        self.places, self.what = Positions().configured(places), Attributes(factors or VALUES)
        self.space = Product(self.places.space, self.what.space)

    def configured(self, options: Mapping[str, Any]) -> ObjectConcepts:
        """Returns a parser of other factors, or one that draws places elsewhere."""
        places = {name: value for name, value in options.items() if name != "factors"}
        return ObjectConcepts(parse_factors(options["factors"]) if "factors" in options else None, **places)

    def advise(self, splits: Sequence[Dataset], options: Mapping[str, Any]) -> Advice:
        """Returns as factors the labels of objects, and those attributes that are words, with all values."""
        parts = [data["objects"] if "objects" in data.column_names else [] for data in splits]
        train, *others = [[_told(thing) for things in part for thing in things] for part in parts]
        every = [*train, *chain(*others)]
        silent = [factor for factor in self.space.what.factors if not any(told.get(factor) for told in every)]
        if not silent or not every:
            return Advice({}, _hardly_seen(self.space.what.factors, train) if every else ())
        if "factors" in options:
            raise InputError(
                f"no object says its {silent[0]!r}, so that it cannot be learned; leave it out of concepts.factors, or learn "
                "places alone with --concepts pos"
            )
        values = _values(every)
        found = {name: sorted(each) for name, each in values.items() if not _why_not(name, each)}
        if not found:
            raise InputError(
                "objects have no labels here, or all the same, and no attributes in words, so that there are only places to "
                "learn: --concepts pos"
            )
        plain = not any(set(word) & set(",|=") for name, values in found.items() for word in (name, *values))
        said = ",".join(f"{name}={'|'.join(values)}" for name, values in found.items())
        reasons = [
            f"concepts.factors = {said}: what is said of objects",
            *_about_factors(values, found),
            *_hardly_seen(found, train),
        ]
        return Advice({"concepts": {"factors": said if plain else found}}, reasons)

    def parse(self, example: Mapping[str, Any], frame: Frame) -> Tensor:
        """Returns the example's objects as ``[K,D]``; those outside the frame are left out."""
        things = example.get("objects")
        if not isinstance(things, list):
            raise InputError(
                f"concepts {self.name} need a column 'objects' of positions and values; this dataset has none"
            )
        found = [(self.places.parse({"objects": [thing]}, frame), thing) for thing in things]
        rows = [torch.cat([place[0], self._values_of(thing)]) for place, thing in found if len(place)]
        return torch.stack(rows) if rows else torch.zeros(0, self.space.dim)

    def _values_of(self, thing: Mapping[str, Any]) -> Tensor:
        """Returns the values ``[V]`` of an object."""
        told = _told(thing)
        missing = [factor for factor in self.space.what.factors if told.get(factor) is None]
        if missing:
            known = sorted(name for name, value in told.items() if isinstance(value, str | int | bool))
            only = f", only its {' and '.join(known)}" if known else ""
            raise InputError(
                f"an object says nothing of its {missing[0]!r}{only}; name what objects have, and all values of it, "
                "with --set concepts.factors='label=cat|dog'"
            )
        try:
            return self._row({factor: told[factor] for factor in self.space.what.factors})
        except InputError as error:
            raise InputError(
                f"of an object, {error}; add the value to concepts.factors, or leave out objects of other labels with "
                "--set data.labels=..."
            ) from error

    def _row(self, told: Mapping[str, Any]) -> Tensor:
        """Returns the values ``[V]`` of the factors given; other factors, and empty values, are unknown."""
        rows = [self.what.row(factor, told) for factor, value in told.items() if str(value)]
        return self._filled(torch.stack(rows).sum(0) if rows else torch.zeros(self.space.what.dim))

    def _filled(self, values: Tensor) -> Tensor:
        """Returns values ``[V]`` with an even mixture for every factor that has none."""
        left_open = torch.stack([values[group].sum() == 0 for group in self.space.what.groups()])
        concept = torch.cat([values.new_zeros(self.space.where.dim), values])
        return self.space.mixed(concept, left_open)[self.space.where.dim :]

    def encode(self, items: Sequence[Mapping[str, Any]], frame: Frame) -> Tensor:
        """Returns items with ``x``, ``y`` and ``values`` as ``[K,D]`` in the frame; values left out are unknown."""
        for item in items:
            if unknown := [
                factor for factor in item.get("values", {}) if factor not in self.space.what.factors
            ]:
                raise InputError(
                    f"the model knows no factor {unknown[0]!r}; {near_names(unknown[0], list(self.space.what.factors))}"
                )
        rows = [self._row(item.get("values", {})) for item in items]
        values = torch.stack(rows) if rows else torch.zeros(0, self.space.what.dim)
        return torch.cat([self.places.encode(items, frame), values], dim=1)

    def decode(self, concepts: Tensor, frame: Frame) -> list[dict[str, Any]]:
        """Returns ``[K,D]`` in the frame as items on the image as given, with the likeliest value of every factor that has one."""
        points, values = self._split(concepts)
        items = [{**item, "values": {}} for item in self.places.decode(points, frame)]
        groups = self.space.what.groups()
        for (factor, names), group in zip(self.space.what.factors.items(), groups, strict=True):
            likeliest = values[:, group].max(1)
            known = (likeliest.values > values[:, group].amin(1)).tolist()
            for item, index, there in zip(items, likeliest.indices.tolist(), known, strict=True):
                if there or len(group) == 1:
                    item["values"][factor] = names[index]
        return items

    def ask(self, text: str, random: torch.Generator, beside: Tensor) -> Tensor:
        """Returns the concepts ``[K,D]`` of ``red cube at pos(0.3,0.5)`` or ``cube at 3 pos``; values left out are unknown."""
        words, at, place = text.rpartition(" at ")
        try:
            points = self.places.ask((place if at else text).strip(), random, self._split(beside)[0])
        except UnknownConceptError as error:
            value = next(iter(self.space.what.factors.values()))[-1]
            raise UnknownConceptError(f"{error}; values stand before it: {value} at pos(0.3,0.5)") from error
        rows = [self.what.ask(word, random, beside) for word in words.split()]
        values = torch.cat(rows).sum(0) if rows else torch.zeros(self.space.what.dim)
        for factor, group in zip(self.space.what.factors, self.space.what.groups(), strict=True):
            if values[group].sum() > 1:
                raise UsageError(f"{words!r} has two values of {factor}; name one")
        return torch.cat([points, self._filled(values).expand(len(points), -1)], dim=1)

    def mirror(self, concepts: Tensor) -> Tensor:
        """Returns objects in the image flipped left to right."""
        points, values = self._split(concepts)
        return torch.cat([self.places.mirror(points), values], dim=-1)

    def turn(self, concepts: Tensor) -> Tensor:
        """Returns objects in the image turned by a quarter, counterclockwise."""
        points, values = self._split(concepts)
        return torch.cat([self.places.turn(points), values], dim=-1)

    def score(self, predicted: Tensor, truth: Tensor) -> dict[str, float]:
        """Returns the scores of positions, and how many perceived objects have the right values.

        ``FACTOR_right``, and ``objects_right`` for all factors, count objects whose position is perceived; ``scene_right``
        requires the right K and every object.  If the truth is unknown, any value is right.
        """
        right = self.right(predicted, truth)
        every = right.all(1)
        return {
            **self.places.score(self._split(predicted)[0], self._split(truth)[0]),
            **{
                f"{factor}_right": float(hits.sum())
                for factor, hits in zip(self.space.what.factors, right[:, 1:].T, strict=True)
            },
            "objects_right": float(every.sum()),
            "scene_right": float(len(predicted) == len(truth) == int(every.sum())),
        }

    def right(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Returns which predicted objects match one by the paper's criterion, and which of their values are right ``[K,1+F]``.

        If the truth is unknown, any value is right.
        """
        from igm_cli.core.metrics import match

        (found, values), (true, told) = self._split(predicted), self._split(truth)
        result = match(found, true)
        groups = self.space.what.groups()
        right = torch.zeros(len(predicted), 1 + len(groups), dtype=torch.bool)
        right[result.predicted, 0] = result.perceived("sum")
        for place, group in enumerate(groups, 1):
            chosen = values[result.predicted][:, group].argmax(1).cpu()
            allowed = told[result.truth][:, group].cpu() > 0
            right[result.predicted, place] = allowed.gather(1, chosen[:, None])[:, 0]
        return right & right[:, :1]

    def draw(self, image: Image, items: Sequence[Mapping[str, Any]]) -> Image:
        """Returns the image with the positions drawn on it."""
        return self.places.draw(image, items)

    def draw_labels(self, image: Image, items: Sequence[Mapping[str, Any]]) -> Image:
        """Returns the image with the positions drawn on it and the values of each object next to them."""
        from igm_cli.plugins.overlays import Mark, confidence_of, draw_marks

        texts = (" ".join(item["values"].values()) for item in items)
        return draw_marks(
            image, [Mark(o["x"], o["y"], confidence_of(o), text) for o, text in zip(items, texts, strict=True)]
        )

    def draw_map(self, image: Image, values: Tensor, frame: Frame) -> Image:
        """Returns the image with a map of values ``[rows,columns]`` over what the model sees of it."""
        return self.places.draw_map(image, values, frame)

    def _split(self, concepts: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the points ``[...,2]`` and the values ``[...,V]`` of concepts."""
        points, values = concepts.split([self.space.where.dim, self.space.what.dim], dim=-1)
        return points, values


def _told(thing: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the attributes of an object by name, its label among them."""
    told = {**(thing.get("attributes") or {}), **thing}
    return {**{name: told["label"] for name in LABEL if "label" in told}, **told}


def _values(every: Sequence[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """Returns how often each value occurs, for labels, which come first, and for every attribute."""
    found: dict[str, Counter[str]] = {LABEL[0]: Counter()}
    for told in every:
        for name, value in told.items():
            if isinstance(value, str) and value and name not in LABEL[1:]:
                found.setdefault(name, Counter())[value] += 1
    return found


def _why_not(name: str, values: Collection[str]) -> str:
    """Returns why labels or an attribute are not learned unless asked for; empty if they are."""
    if len(values) < 2:
        return "one value"
    if name == LABEL[0]:
        return ""
    if not all(value[0].isalpha() for value in values):
        return "not words"
    return f"more than {MOST} values" if len(values) > MOST else ""


def _about_factors(values: Mapping[str, Counter[str]], found: Collection[str]) -> list[str]:
    """Returns sentences about attributes that are not factors, and about values that differ only in case."""
    others = [f"{name} ({_why_not(name, each)})" for name, each in values.items() if each and name not in found]
    sentences = [f"concepts.factors leaves out {', '.join(others)}"] if others else []
    for name in found:
        spellings: dict[str, list[str]] = {}
        for value in sorted(values[name]):
            spellings.setdefault(value.casefold(), []).append(value)
        for same in spellings.values():
            if len(same) > 1:
                said = " and ".join(f"{value} {values[name][value]}" for value in same)
                sentences.append(
                    f"{said} (in all splits) are different values of {name}; write them alike if they are one"
                )
    return sentences


def _hardly_seen(factors: Mapping[str, Sequence[str]], train: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns sentences about values of factors that no training object has, or a single one; none if all have more."""
    rare: tuple[list[str], list[str]] = [], []  # by how many objects have them
    for name, values in factors.items():
        seen = Counter(value_name(told.get(name), values) for told in train)
        for value in values:
            if seen[value] < len(rare):
                rare[seen[value]].append(f"{name}={value}")
    missing, single = (some(each, MOST) if each else "" for each in rare)
    sentences = [f"no object for training has {missing}, which cannot be learned"] if missing else []
    if single:
        sentences += [
            f"a single object for training has {single}, which is hardly learned: annotate more, correct it if it is misspelled, or "
            "leave it out (data.labels names the labels to keep, concepts.factors the values of other factors)"
        ]
    return sentences
