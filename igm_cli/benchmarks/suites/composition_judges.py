"""The judges of the suite ``composition``, trained separately and only on real images, and their answers about an image."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from igm_cli.benchmarks.baselines.fit import Fitted, TrainingData
from igm_cli.benchmarks.baselines.judges import FactorJudge, KindJudge, LabelJudge, MeasureJudge, PlaceJudge
from igm_cli.benchmarks.frame import version_of
from igm_cli.benchmarks.suite import Request
from igm_cli.core.device import inference_precision
from igm_cli.core.training.batches import as_floats
from igm_cli.plugins import registry
from igm_cli.plugins.animals.pictograms import Drawings
from igm_cli.plugins.attributes import Attributes
from igm_cli.plugins.base import ConceptParser, Frame, Progress
from igm_cli.plugins.clevr.object_attributes import VALUES
from igm_cli.plugins.labels.parser import Labels
from igm_cli.plugins.positions import Positions
from igm_cli.plugins.samples import DatasetSamples

Kinds = Mapping[str, tuple[str, ...] | None]
"""Kinds of objects' values, each with the names of its values; None if they are numbers."""

KINDS = {kind: VALUES[kind] for kind in ("shape", "material", "color")}
"""The kinds that judges of kinds name."""

SIZE: Kinds = {"size": None}
"""The quantity of the judge of measures: radii in units of the scene."""

HELD_OUT = 200  # images held out from the judges' training, at most as many as it uses
SEED = 31  # seed of the judges' images
SURE = 0.2  # the share of real objects below a judge's threshold of certainty

Objects = list[dict[str, Any]]
"""A judge's answer about an image: its objects, each with its named values, and ``place`` if it is known."""


def together(labels: Iterable[str]) -> str:
    """Returns the expression of an image with these labels."""
    return " AND ".join(sorted(labels))


class DescribedObjects(Positions):
    """Objects as places and values ``[K,2+F]``, from which judges of kinds learn."""

    name = "described-objects"

    def __init__(self, kinds: Kinds = KINDS) -> None:
        super().__init__()
        self.kinds = kinds

    def parse(self, example: Mapping[str, Any], frame: Frame) -> Tensor:
        """Returns the place of each object whose centre lies in the frame, and the indices of its values."""
        rows = [torch.zeros(0, 2 + len(self.kinds))]
        for thing in example["objects"]:
            place = super().parse({"objects": [thing]}, frame)
            told = [float(names.index(thing[k]) if names else thing[k]) for k, names in self.kinds.items()]
            rows.append(torch.cat([place, torch.tensor([told])[: len(place)]], 1))
        return torch.cat(rows)

    def mirror(self, concepts: Tensor) -> Tensor:
        """Returns the objects of the image flipped left to right."""
        return torch.cat([super().mirror(concepts[..., :2]), concepts[..., 2:]], -1)


def training_images(
    dataset: str,
    parser: ConceptParser,
    image_size: tuple[int, int],
    count: int,
    seed: int,
    progress: Progress,
    options: Mapping[str, Any],
) -> TrainingData:
    """Returns ``count`` images of the split that models are trained on, and held-out images."""
    rendered = {**options, "size": count + min(HELD_OUT, count)}

    def parts() -> tuple[DatasetSamples, DatasetSamples]:
        data = registry.dataset(dataset).load("train", seed=seed, progress=progress, **rendered)
        kept = data.select(range(count)), data.select(range(count, len(data)))
        first, second = (DatasetSamples(d, parser, image_size, progress) for d in kept)
        return first, second

    about = {
        "rendered": rendered,
        "seed": seed,
        "trained_on": count,
        "dataset": dataset,
        "size": list(image_size),
    }
    about |= {"version": version_of(dataset), "concepts": parser.space.to_dict()}
    return TrainingData(about, parts)


class Judged(NamedTuple):
    """The answers of the judges of places and kinds about an image."""

    found: Tensor  # places [N,2]
    which: Tensor  # indices of the places at which kinds were named [M]
    chances: Mapping[str, tuple[Tensor, Tensor]]  # kind to its values' chances by two judges [M,values]


@dataclass
class Judges:
    """Judges of rendered scenes, of drawn faces and of drawn animals, trained at first use."""

    request: Request  # budget, seed, device and cache folder
    renders: int  # training images per judge
    image_size: tuple[int, int]  # (width, height) of rendered scenes
    rendered: Mapping[str, Any]  # options of the scenes they learn from
    fitted: Callable[..., Fitted]  # trains a judge on data; a third argument is its offset of the seed

    @cached_property
    def scenes(self) -> TrainingData:
        """Renders for the judges of places and kinds."""
        return self._data("clevr-render", DescribedObjects(), self.image_size, **self.rendered)

    @cached_property
    def place(self) -> tuple[PlaceJudge, Fitted]:
        """The judge of places."""
        judge = PlaceJudge()
        return judge, self.fitted(judge, self.scenes)

    @cached_property
    def kinds(self) -> tuple[tuple[KindJudge, Fitted], ...]:
        """Two judges of kinds that differ in architecture and seed."""
        counts = tuple(len(names) for names in KINDS.values())
        both = KindJudge(values=counts), KindJudge(values=counts, name="judge-kinds-2", kernel=5, channels=32)
        return tuple((judge, self.fitted(judge, self.scenes, n)) for n, judge in enumerate(both, 1))

    @cached_property
    def factors(self) -> tuple[FactorJudge, Fitted, Attributes]:
        """The judge of faces, trained on both domains."""
        parser = Attributes()
        judge = FactorJudge(values=tuple(len(group) for group in parser.space.groups()))
        return judge, self.fitted(judge, self._data("celeba", parser, (64, 64))), parser

    @cached_property
    def labels(self) -> tuple[LabelJudge, Fitted, Labels]:
        """The judge of drawn animals."""
        parser = Labels(Drawings.animals)
        judge = LabelJudge(values=(2,) * len(parser.labels))
        return (
            judge,
            self.fitted(judge, self._data("animals", parser, self.image_size, **self.rendered)),
            parser,
        )

    @cached_property
    def measures(self) -> tuple[MeasureJudge, Fitted]:
        """The judge of the place and size of the only object."""
        judge = MeasureJudge()
        data = self._data("clevr-render", DescribedObjects(SIZE), self.image_size, **self.rendered)
        return judge, self.fitted(judge, data)

    @cached_property
    def least(self) -> Mapping[str, float]:
        """Kind to the probability above which the first judge of kinds counts as certain."""
        samples, (judge, fitted) = self.scenes.parts[1], self.kinds[0]
        images, concepts, present = samples.batch(list(range(len(samples))), [False] * len(samples))
        places = [row[there][:, :2] for row, there in zip(concepts, present, strict=True)]
        chances = self._asked(judge.kinds, fitted, as_floats(images), places)
        return {k: float(c.amax(1).quantile(SURE)) for k, c in zip(KINDS, chances, strict=True)}

    @property
    def errors(self) -> Mapping[str, float]:
        """The errors of the scene judges on held-out real images."""
        every = (self.place, *self.kinds)
        return {judge.name: fitted.validation for judge, fitted in every}

    def judged(self, image: Tensor, choose: Callable[[Tensor], Tensor] | None = None) -> Judged:
        """Returns the judges' answers about a rendered scene ``[3,H,W]``.

        ``choose`` maps the places found ``[N,2]`` to the indices of those whose kinds are needed; None takes all.
        """
        judge, fitted = self.place
        (found,) = self._asked(judge.places, fitted, image[None])
        which = choose(found) if choose else torch.arange(len(found))
        first, second = (self._asked(j.kinds, f, image[None], [found[which]]) for j, f in self.kinds)
        return Judged(found, which, dict(zip(KINDS, zip(first, second, strict=True), strict=True)))

    def objects(self, image: Tensor) -> Objects:
        """Returns the objects of a rendered scene ``[3,H,W]``."""
        judged = self.judged(image)
        named = {kind: [KINDS[kind][n] for n in first.argmax(1)] for kind, (first, _) in judged.chances.items()}
        return [
            {"place": place, **{kind: values[n] for kind, values in named.items()}}
            for n, place in enumerate(judged.found.tolist())
        ]

    def measured(self, image: Tensor) -> Objects:
        """Returns the only object of a rendered scene ``[3,H,W]``, with its ``size``."""
        judge, fitted = self.measures
        x, y, size = self._asked(judge.measured, fitted, image[None])[0].tolist()
        return [{"place": [x, y], "size": size}]

    def face(self, image: Tensor) -> Objects:
        """Returns the attributes of a face ``[3,H,W]``, as those of one object."""
        judge, fitted, parser = self.factors
        values = self._asked(judge.named, fitted, image[None])[0].tolist()
        return [{f: names[v] for (f, names), v in zip(parser.space.factors.items(), values, strict=True)}]

    def animals(self, image: Tensor) -> Objects:
        """Returns the animals in an image ``[3,H,W]``, as the ``labels`` of one object."""
        judge, fitted, parser = self.labels
        there = self._asked(judge.named, fitted, image[None])[0].tolist()
        return [{"labels": together(itertools.compress(parser.labels, there))}]

    def _data(self, dataset: str, parser: ConceptParser, size: tuple[int, int], **options: Any) -> TrainingData:
        return training_images(dataset, parser, size, self.renders, SEED, self.request.progress, options)

    def _asked(self, ask: Callable[..., Any], fitted: Fitted, images: Tensor, *more: Any) -> Any:
        """Returns a judge's answer about images, by the method ``ask``."""
        with inference_precision(self.request.device):
            return ask(fitted.model, images.to(self.request.device), *more)
