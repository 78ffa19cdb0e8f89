"""Expressions drawn by single models or by separately trained models composed, for the suite ``composition``.

Tables 1 and 2 and figure 10 of Du, Li & Mordatch (2020), at this machine's scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from igm_cli.benchmarks.baselines.judges import NEAR
from igm_cli.benchmarks.intervals import Estimate, mean, proportion
from igm_cli.benchmarks.scores import Rows
from igm_cli.benchmarks.suite import Row
from igm_cli.benchmarks.suites.composition_judges import KINDS, Objects, together
from igm_cli.benchmarks.suites.composition_sets import CONDITIONAL, Drawn, DrawnSplit, costs, sampling
from igm_cli.generation import Generation, GenerationSettings
from igm_cli.imaging import Frame, to_model
from igm_cli.model import Model

APART = 0.25
"""Minimum distance between the places of two branches, in 0..1 of both sides."""

JUDGES = {"objects": ("objects", ""), "attributes": ("face", "factors"), "labels": ("animals", "labels")}
"""What judges images of datasets that have a column, as :attr:`Expressions._judge` has it."""

Values = Mapping[str, Any]
"""Names in an expression, such as color or place2, to values."""


@dataclass
class Expressions(DrawnSplit):
    """Expressions about an image's only object, or a whole drawing, filled in with the values in real images.

    The suite's file declares in ``asked`` the expression, with names in braces, what each of its branches
    ``shows``, and what must not be shown.
    """

    models: Sequence[Model]  # in order
    asked: Mapping[str, Any]
    values: list[Values] = field(init=False)  # one per image

    def __post_init__(self) -> None:
        super().__post_init__()
        known = [_values(row, Frame.fit(row["image"].size, 1.0, "squash")) for row in self.scenes.data]
        self.values = [{**own, **_another(known, number)} for number, own in enumerate(known)]

    @property
    def measured(self) -> bool:
        """Whether places and sizes are scored by their distance from those requested, instead of as right or wrong."""
        return "measured" in self.asked

    @property
    def kinds(self) -> Mapping[str, tuple[str, ...]]:
        """The conditions of the conditional model other than the place."""
        return self.models[-1].parser.space.factors if self.measured else KINDS  # type: ignore[attr-defined]

    @property
    def errors(self) -> Mapping[str, float]:
        """The judges' errors on real images."""
        _, trained = self._judge
        if not trained:
            return super().errors
        judge, fitted, *_ = getattr(self.judges, trained)
        return {judge.name: fitted.validation}

    @property
    def _judge(self) -> tuple[str, str]:
        """What says what an image shows: a method of the judges, and the judge that it asks, if it is one alone."""
        if self.measured:
            return "measured", "measures"
        return next(JUDGES[column] for column in self.scenes.data.column_names if column in JUDGES)

    def expression(self, number: int) -> str:
        """Returns the expression for the image with a number."""
        return str(self.asked["expression"]).format(**self.values[number])

    def _said(self, image: Tensor, number: int) -> Row:
        look, _ = self._judge
        return self.judged(getattr(self.judges, look)(image), number)

    def _batch(self, method: str, first: int, other: bool) -> list[Drawn]:
        if method == CONDITIONAL:
            return self._conditional_batch(first, other)
        how = GenerationSettings(seed=self.own_seed(other), **sampling(method, self.numbers))
        generation = Generation(self.models, how)
        numbers = range(first, min(first + self.numbers["batch"], len(self.items)))
        images = generation.images(
            [generation.reader.read(self.expression(number)) for number in numbers], numbers
        )
        width, height = self.scenes.image_size
        whole = Frame.fit((width, height), width / height)
        return [
            Drawn(to_model(one.picture, whole, (width, height)), one.seconds, one.network_calls)
            for one in images
        ]

    def _conditional_batch(self, first: int, other: bool) -> list[Drawn]:
        """Returns a batch of the conditional model."""
        assert self.conditional is not None
        values = self.values[first : first + self.numbers["batch"]]
        numbered = [
            [*v["at"], *(float(names.index(v[kind])) for kind, names in self.kinds.items())] for v in values
        ]
        condition = torch.tensor(numbered, device=self.device)[:, None]
        return self._sampled(CONDITIONAL, self.conditional(), first, other, condition)

    def judged(self, objects: Objects, number: int) -> Row:
        """Returns which branches of the expression of image ``number`` the objects satisfy, or how far off they are."""
        values, asked = self.values[number], self.asked
        if self.measured:
            return {"objects": objects, "off": [_off(objects[0], name, values) for name in asked["measured"]]}
        shown = [[_holds(objects, name, values) for name in branch] for branch in asked["shows"]]
        excluded = [_holds(objects, name, values) for name in asked.get("excludes", ())]
        parts = dict(zip(asked["shows"][0], shown[0], strict=True))
        return {
            "objects": objects,
            "branches": [all(branch) and not any(excluded) for branch in shown],
            "shown": parts if len(shown) == 1 else {},
            "excluded": excluded,
        }


def _values(row: Mapping[str, Any], whole: Frame) -> dict[str, Any]:
    """Returns the values of an image by their names in expressions."""
    if "attributes" in row:
        return {factor: "yes" if held else "no" for factor, held in row["attributes"].items()}
    if "labels" in row:
        return {"labels": together(row["labels"])}
    (thing,) = row["objects"]
    x, y = (float(p / side) for p, side in zip(thing["pixel_coords"][:2], whole.size, strict=True))
    kinds = {kind: thing[kind] for kind in (*KINDS, "size")}
    others = [color for color in KINDS["color"] if color != kinds["color"]]
    none_else = " AND ".join(f"NOT color={color}" for color in others)
    return {"place": _place((x, y)), "at": (x, y), "no_other_color": none_else, **kinds}


def _another(known: Sequence[Values], number: int) -> dict[str, Any]:
    """Returns another image's values, with a 2 after each name: the last earlier one with a distant place and another color.

    If there is none, a place and a color are made up, so that the expression depends only on the earlier images.
    """
    own = known[number]
    if "at" not in own:
        return {}
    for other in reversed(known[:number]):
        if math.dist(own["at"], other["at"]) >= APART and own["color"] != other["color"]:
            return {f"{name}2": value for name, value in other.items()}
    x, y = own["at"]
    across = (1 - x if abs(1 - 2 * x) >= APART else x + 0.27 * (1 if x < 0.5 else -1)), y
    color = KINDS["color"][KINDS["color"].index(own["color"]) - 1]
    return {"place2": _place(across), "at2": across, "color2": color}


def _place(at: tuple[float, float]) -> str:
    return "pos({:.4f},{:.4f})".format(*at)


def _holds(objects: Objects, name: str, values: Values) -> bool:
    """Returns whether an image shows exactly one object, which has the value of a name such as color, color2 or place."""
    if len(objects) != 1:
        return False
    kind, number = name.rstrip("2"), "2" * name.endswith("2")
    if kind == "place":
        return math.dist(objects[0]["place"], values[f"at{number}"]) < NEAR
    return bool(objects[0][kind] == values[name])


def _off(thing: Mapping[str, Any], name: str, values: Values) -> float:
    """Returns the mean absolute error of a place (in 0..1 of both sides) or of a size (in units of the scene)."""
    if name == "place":
        return fmean(abs(p - q) for p, q in zip(thing["place"], values["at"], strict=True))
    return abs(float(thing[name]) - float(values[name]))


def expression_metrics(rows: Rows) -> dict[str, Estimate]:
    """Returns how often samples are as requested, or how far off they are, which parts they show, and costs."""
    if "off" in rows[0]:
        places, sizes = (mean(row["off"][n] for row in rows) for n in range(2))
        return {"place_off": places, "size_off": sizes} | costs(rows)
    branches = [row["branches"] for row in rows]
    estimates = {"as_asked": proportion([any(hits) for hits in branches])}
    for name in rows[0]["shown"]:
        estimates[name] = proportion([row["shown"][name] for row in rows])
    if any(row["excluded"] for row in rows):
        estimates["excluded"] = proportion([any(row["excluded"]) for row in rows])
    if len(branches[0]) > 1:
        estimates |= {n: proportion([hits[b] for hits in branches]) for b, n in enumerate(("first", "second"))}
        if decided := [hits[0] for hits in branches if any(hits)]:
            estimates["share"] = proportion(decided)
    return estimates | costs(rows)
