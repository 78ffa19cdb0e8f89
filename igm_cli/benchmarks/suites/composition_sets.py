"""Sets of objects drawn by one model, for the suite ``composition``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from igm_cli.benchmarks import frame
from igm_cli.benchmarks.baselines.judges import NEAR, all_right, near
from igm_cli.benchmarks.intervals import Estimate, mean, proportion, rate
from igm_cli.benchmarks.scores import Rows
from igm_cli.benchmarks.suite import Row
from igm_cli.benchmarks.suites.composition_judges import KINDS, DescribedObjects, Judges
from igm_cli.benchmarks.timing import timed
from igm_cli.core.checkpoint import Checkpoint, GenerationDefaults
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.call_counter import CallCounter
from igm_cli.core.inference.engine import invert
from igm_cli.core.metrics import match
from igm_cli.core.sampling import Composed, Langevin, sample
from igm_cli.core.training.batches import as_floats
from igm_cli.core.types import InversionSettings
from igm_cli.core.validation import LARGEST
from igm_cli.imaging import as_bytes

CONDITIONAL = "conditional"
"""The method of one conditional model that is not composed."""

TOLD = ("shape", "material")  # kinds that are reported

CHANGED: Mapping[str, Mapping[str, Any]] = {
    "unguided": {"guidance": 1.0},
    "ancestral": {"sampler": "ancestral"},
    "ddim": {"sampler": "ddim"},
    "ula": {"sampler": "ancestral"},
    "particles": {"sampler": "ancestral"},
}
"""Settings of igm generate that methods change."""

MORE = {"ula": ("correct", "Langevin steps a level"), "particles": ("particles", "particles")}
"""Methods with an option of the suite of their own, and what it counts."""


class Drawn(NamedTuple):
    """A sample rounded to bytes, and its share of seconds and network calls."""

    image: Tensor  # [3,H,W] in -1..1
    seconds: float
    calls: float


def sampling(method: str, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Returns the settings of igm generate for a method of the suite."""
    how: dict[str, Any] = {"steps": numbers["steps"], **CHANGED.get(method, {})}
    if method in MORE:
        option, _ = MORE[method]
        how[option] = numbers[option]
    return how


@dataclass
class DrawnSplit(ABC):
    """A split whose images' content each method draws again, to be judged."""

    scenes: frame.AnnotatedImages  # the real images
    judges: Judges  # they decide what a sample shows
    numbers: Mapping[str, int]  # options of the suite
    seed: int  # of everything random
    device: torch.device
    # Returns the model that is not composed, if there is one.
    conditional: Callable[[], Denoiser] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.items = list(self.scenes.rows)
        self._together = cache(self._batch)

    def draws(self, method: str) -> bool:
        """Returns whether a method can draw these, or has them, as ``real`` does."""
        return method != CONDITIONAL or self.conditional is not None

    @property
    def errors(self) -> Mapping[str, float]:
        """The judges' errors on real images."""
        return self.judges.errors

    def row(self, method: str, item: str) -> Row:
        """Returns the judges' answers about a sample."""
        number = self.items.index(item)
        image, seconds, calls = self.drawn(method, number)
        row = {"label": method, **self._said(image, number), "seconds": seconds, "calls": calls}
        if number < self.numbers["twins"]:
            row["diversity"] = float((image - self.drawn(method, number, other=True).image).square().mean() / 4)
        return row

    def real(self, item: str) -> Row:
        """Returns the judges' answers about a real image."""
        return {"label": "real", **self._said(self.scenes[item].x0, self.items.index(item))}

    def drawn(self, method: str, number: int, other: bool = False) -> Drawn:
        """Returns a sample of the content of image ``number``, or with ``other`` a second one."""
        batch = self.numbers["batch"]
        return self._together(method, number - number % batch, other)[number % batch]

    def own_seed(self, other: bool) -> int:
        """Returns the seed of the samples, or of ``other`` ones, within the range of seeds."""
        return (2 * self.seed + other) % (LARGEST + 1)

    @abstractmethod
    def _said(self, image: Tensor, number: int) -> Row:
        """Returns the judges' answers about an image of the content requested for image ``number``."""

    @abstractmethod
    def _batch(self, method: str, first: int, other: bool) -> list[Drawn]:
        """Returns a batch of samples."""

    def _sampled(
        self,
        method: str,
        model: Denoiser,
        first: int,
        other: bool,
        concepts: Tensor,
        own: Mapping[str, Any] | None = None,
        **composed: Any,
    ) -> list[Drawn]:
        """Returns one model's samples of concepts, with its ``own`` defaults; ``composed`` as in :meth:`Composed.of`."""
        counter, count, (width, height) = CallCounter(model), len(concepts), self.scenes.image_size
        default = GenerationDefaults(**own or {})
        how = {
            "sampler": default.sampler or "ancestral",
            "guidance": default.guidance or 1.0,
            **sampling(method, self.numbers),
        }
        corrector = Langevin(how.pop("correct")) if "correct" in how else None
        asked = Composed.of(counter, concepts, guidance=how.pop("guidance"), **composed)
        seed = self.own_seed(other)
        images, (seconds, _) = timed(
            lambda: sample(asked, (3, height, width), seed=seed, first=first, corrector=corrector, **how).cpu(),
            self.device,
        )
        calls = counter.used.whole_calls / count
        return [Drawn(image, seconds / count, calls) for image in as_floats(as_bytes(images))]


@dataclass
class Sets(DrawnSplit):
    """Sets of as many places as renders have objects."""

    checkpoint: Checkpoint  # the model
    settings: InversionSettings  # for its own inversion

    def row(self, method: str, item: str) -> Row:
        """Returns the judges' answers about a sample, and for some samples the model's own."""
        row, number = super().row(method, item), self.items.index(item)
        if number < self.numbers["inverted"]:
            image = self.drawn(method, number).image.to(self.device)
            composition, denoiser = self.checkpoint.spec.composition, self.checkpoint.denoiser
            row["own"] = invert(denoiser, image, self.settings, composition=composition).concepts.tolist()
        return row

    def real(self, item: str) -> Row:
        """Returns the judges' answers about a render, and how often they are right."""
        scene, row = self.scenes[item], super().real(item)
        described = DescribedObjects().parse(self.scenes.data[self.scenes.rows[item]], scene.frame)
        for number, kind in enumerate(KINDS, start=2):
            true = described[row["which"], number].long().tolist()
            row[f"{kind}_right"] = sum(a == b for a, b in zip(row[kind], true, strict=True))
        return row

    def _batch(self, method: str, first: int, other: bool) -> list[Drawn]:
        truths = [self.scenes[item].truth for item in self.items[first : first + self.numbers["batch"]]]
        longest = max(map(len, truths))
        concepts = torch.stack([torch.cat([t, t.new_zeros(longest - len(t), 2)]) for t in truths])
        present = torch.tensor([[k < len(t) for k in range(longest)] for t in truths])
        spec = self.checkpoint.spec
        return self._sampled(
            method, self.checkpoint.denoiser, first, other, concepts.to(self.device), spec.generation,
            composition=spec.composition, present=present.to(self.device),
        )  # fmt: skip

    def _said(self, image: Tensor, number: int) -> Row:
        truth = self.scenes[self.items[number]].truth
        of_truth: list[int] = []

        def confirmed(found: Tensor) -> Tensor:
            matched = match(found, truth)
            close = matched.squared.sum(1) < NEAR**2
            of_truth.extend(matched.truth[close].tolist())
            return torch.as_tensor(matched.predicted[close])

        judged = self.judges.judged(image, confirmed)
        row: Row = {"found": judged.found.tolist(), "which": of_truth, "truth": truth.tolist()}
        for kind, (here, there) in judged.chances.items():
            row[kind] = here.argmax(1).tolist()
            row[f"{kind}_told"] = int((here.argmax(1) == there.argmax(1)).sum())
            row[f"{kind}_sure"] = int((here.amax(1) > self.judges.least[kind]).sum())
        return row


def set_metrics(rows: Rows) -> dict[str, Estimate]:
    """Returns how often the requested objects are present, whether their kinds are recognisable, and costs."""
    truths, found = ([torch.tensor(row[key]).reshape(-1, 2) for row in rows] for key in ("truth", "found"))
    pairs = list(zip(found, truths, strict=True))
    hits, asked = [near(*pair) for pair in pairs], [len(truth) for truth in truths]
    confirmed = [len(row["which"]) for row in rows]
    estimates = {
        "all_right": proportion([all_right(*pair) for pair in pairs]),
        "recall": rate(hits, asked),
        "precision": rate(hits, [len(places) for places in found]),
        "count": proportion([len(places) == len(truth) for places, truth in pairs]),
    }
    for name in (f"{kind}_{how}" for kind in TOLD for how in ("told", "sure", "right")):
        if all(name in row for row in rows):
            estimates[name] = rate([row[name] for row in rows], confirmed)
    estimates |= costs(rows)
    if inverted := [
        (torch.tensor(r["own"]).reshape(-1, 2), t) for r, t in zip(rows, truths, strict=True) if "own" in r
    ]:
        estimates["own_recall"] = rate(
            [near(*pair) for pair in inverted], [len(truth) for _, truth in inverted]
        )
        estimates["own_count"] = proportion([len(own) == len(truth) for own, truth in inverted])
    return estimates


def costs(rows: Rows) -> dict[str, Estimate]:
    """Returns seconds and network calls per sample, and how different two samples are."""
    estimates: dict[str, Estimate] = {}
    if all("seconds" in row for row in rows):
        estimates |= {name: mean(row[name] for row in rows) for name in ("seconds", "calls")}
    if twins := [row["diversity"] for row in rows if "diversity" in row]:
        estimates["diversity"] = mean(twins)
    return estimates
