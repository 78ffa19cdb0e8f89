"""The base of every built-in suite: declared methods, splits and options, opened for one request."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor

from igm_cli.benchmarks.baselines.fit import Baseline, Budget, Fitted, TrainingData, fit
from igm_cli.benchmarks.suite import Bench, Method, Request, Row
from igm_cli.benchmarks.timing import machine
from igm_cli.bundled import name_of
from igm_cli.core.checkpoint import Checkpoint, load_checkpoint, model_fingerprint
from igm_cli.core.files import fingerprint_of, parse_toml
from igm_cli.core.types import Inversion, InversionSettings
from igm_cli.errors import InputError, UsageError
from igm_cli.folders import content_of, option_identity
from igm_cli.imaging import to_model, to_rgb
from igm_cli.plugins import registry
from igm_cli.plugins.base import ConceptParser, Frame

if TYPE_CHECKING:
    import datasets
    from PIL.Image import Image

    from igm_cli.benchmarks.scores import Scores

MOST = 10**9
"""Largest value of a numeric option whose suite declares no other."""


class Split(NamedTuple):
    """A set of images as a suite declares it."""

    about: str
    options: Mapping[str, Any] = {}  # options of the dataset adapter
    folder: bool = False  # whether the images come from the given folder instead of being drawn
    asked: Mapping[str, Any] = {}  # the expression to be drawn, and the models


@cache
def declared(name: str) -> Mapping[str, Any]:
    """Returns the content of a suite's TOML file."""
    return parse_toml((Path(__file__).parent / "suites" / f"{name}.toml").read_text(encoding="utf-8"))


class DeclaredSuite:
    """A suite whose texts and splits are declared in a TOML file of its name, beside its module."""

    def __init__(self, name: str, bench: Callable[[DeclaredSuite, Request], Bench]) -> None:
        self.words = words = declared(name)
        self.name, self.bench = name, bench
        self.summary: str = words["summary"]
        self.concepts: str = words["concepts"]
        self.methods: Mapping[str, str] = words["methods"]
        self.options: Mapping[str, str] = words["options"]
        self.images = {
            name: Split(**split) if isinstance(split, dict) else Split(split)
            for name, split in words["splits"].items()
        }
        self.splits: Mapping[str, str] = {name: split.about for name, split in self.images.items()}
        # Published figures: table name to labels.
        self.published: Mapping[str, Mapping[str, str]] = words.get("published", {})
        self.notes: Sequence[str] = words["notes"]  # on how it was measured

    def default_splits(self, data_root: Path | None) -> tuple[str, ...]:
        """Returns the splits that run if none is named."""
        return tuple(self.words.get("defaults", {}).get("folder" if data_root else "drawn", self.splits))

    def open(self, request: Request) -> Bench:
        """Loads the data; raises an IgmError if the model, a split or an option cannot be used."""
        return self.bench(self, request)


class DeclaredBench:
    """A declared suite opened for one request."""

    free: ClassVar[tuple[str, ...]] = ()  # options that may differ between two calls with one result folder
    scenes: Mapping[str, AnnotatedImages]  # images of every split

    def __init__(self, suite: DeclaredSuite, request: Request) -> None:
        self.suite, self.request = suite, request
        self.options, self.device = request.options, request.device
        self.numbers = {name: self.whole_number(name, n) for name, n in suite.words.get("numbers", {}).items()}

    def whole_number(self, name: str, default: int) -> int:
        """Returns a numeric option; raises UsageError if it is not an integer in the range that the suite declares."""
        value, words = self.options.get(name, default), self.suite.words
        least, most = words.get("least", {}).get(name, 1), words.get("most", {}).get(name, MOST)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise UsageError(f"--set {name} takes a whole number of {least} to {most}, not {str(value)[:40]!r}")
        return value

    def image_identity(self, dataset: str, **more: Any) -> dict[str, Any]:
        """Returns the identity of a suite of images: everything that determines its rows.

        Folders among the options count by their content, so that they may move, but not change.  The ``version`` of a
        dataset adapter that draws or renders its images counts too, so that records of different pictures are not mixed up.
        """
        return {
            "data_root": self.folder_identity,
            "seed": self.request.seed,
            "scenes": version_of(dataset),
            "options": {
                key: option_identity(value) for key, value in self.options.items() if key not in self.free
            },
            **self.request.range_option,
            **more,
        }

    def items(self, split: str) -> Sequence[str]:
        """Returns the file names of a split's images."""
        return list(self.scenes[split].rows)

    def columns(self, split: str, scores: Sequence[Scores]) -> Mapping[str, str]:
        """Returns the declared columns of a split's table."""
        return dict(self.suite.words["columns"])

    def published(self, split: str) -> Mapping[str, str]:
        """Returns the published figures of a split, whose images may also come from a folder."""
        return self.suite.published.get(split.removeprefix("folder-"), {})

    @cached_property
    def folder_identity(self) -> str | None:
        """The last part of the data root, and a fingerprint of its files: a folder may move, but not change."""
        root = self.request.data_root
        return f"{root.absolute().name}-{content_of(root)}" if root else None


def version_of(dataset: str) -> int:
    """Returns the version of the images that a dataset makes."""
    return int(getattr(registry.dataset(dataset), "version", 0))


class MachineBench(DeclaredBench):
    """A suite that makes its own problems, and whose rows depend on the machine."""

    makes: ClassVar[str]  # its problems, for messages

    def __init__(self, suite: DeclaredSuite, request: Request) -> None:
        super().__init__(suite, request)
        if request.data_root is not None:
            raise UsageError(f"the {suite.name} benchmark {self.makes}; leave out --data-root")
        self.machine = machine(self.device)


class CheckpointBench(DeclaredBench):
    """A suite that measures one of igm's checkpoints beside trained baselines, on annotated images."""

    dataset: ClassVar[str]  # name of the dataset adapter
    called: ClassVar[str]  # its concepts, for messages

    def __init__(self, suite: DeclaredSuite, request: Request) -> None:
        super().__init__(suite, request)
        self.checkpoint = replace(load_checkpoint(request.model, request.device), name=name_of(request.model))
        spec = self.checkpoint.spec
        self.parser = registry.configured(registry.concept_parser(spec.concepts), spec.concept_options)
        if self.parser.name not in (suite.concepts, *suite.words.get("also", ())):
            raise InputError(f"{suite.name} measures models of {self.called}, not of {self.parser.name!r}")
        self.image_size = spec.image_size
        self.settings = InversionSettings.from_dict(spec.inference, seed=request.seed)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The identity; methods, splits, limit and the number of images for slow methods are free between two calls."""
        model, budget = model_fingerprint(self.request.model), vars(self.request.budget)
        return self.image_identity(self.dataset, model=model, train_budget=budget)

    def on_images(
        self, find: Callable[[AnnotatedImage], list[Row]], info: Mapping[str, Any], limit: int | None = None
    ) -> Method:
        """Returns a method that makes rows image by image; the truth is added to them."""

        def rows(split: str, item: str) -> list[Row]:
            scene = self.scenes[split][item]
            return [{**row, "truth": self.truth(scene)} for row in find(scene)]

        return Method(rows, info, limit)

    def load(self, part: str, name: str, drawn: int, layout: str) -> datasets.Dataset:
        """Returns the images of a split from the dataset adapter: ``part`` of a folder, or a number of ``drawn`` ones."""
        split, request = self.suite.images[name], self.request
        adapter = registry.dataset(self.dataset)
        if split.folder:
            root = folder_of(request, name, f"in the layout of {layout}")
            how = request.reading(adapter) | dict(split.options)
            return adapter.load(part, data_root=root, limit=request.limit, **how)
        return adapter.load(part, seed=request.seed, progress=request.progress, size=drawn, **split.options)

    def truth(self, scene: AnnotatedImage) -> Any:
        """Returns the true concepts of an image as rows hold them."""
        return scene.truth.tolist()

    def fitted(
        self, baseline: Baseline, data: TrainingData, another: int = 0, budget: Budget | None = None
    ) -> Fitted:
        """Returns a trained baseline, from the cache folder if it has one of the same configuration.

        ``another`` is added to the request's seed; the budget is the request's by default.
        """
        r, budget = self.request, budget or self.request.budget
        folder, seed = self.folder_of(baseline, data, another, budget), r.seed + another
        return fit(baseline, data, budget, folder, seed=seed, device=r.device, progress=r.progress)

    def folder_of(self, baseline: Baseline, data: TrainingData, another: int, budget: Budget) -> Path:
        """Returns the cache folder of a trained baseline; the arguments are those of :meth:`fitted`."""
        seen = {
            "image_size": list(self.image_size),
            "version": version_of(self.dataset),
            **self.request.range_option,
        }
        identity = [baseline.describe(), data.about, vars(budget), self.request.seed + another, seen]
        return self.request.cache / f"{baseline.name}-{fingerprint_of(identity, 12)}"


def checkpoint_info(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the report's facts about a checkpoint."""
    info, kept = checkpoint.spec.info, ("data", "steps", "training", "hardware")
    return {"checkpoint": checkpoint.name, **{key: info[key] for key in kept if key in info}}


def inversion_row(label: str, predicted: Any, found: Inversion, seconds: float) -> Row:
    """Returns the row of an inversion, with the answer in the form ``predicted``."""
    confidence = found.confidence.tolist()
    return {
        "label": label,
        "predicted": predicted,
        "confidence": None if any(map(math.isnan, confidence)) else confidence,
        "seconds": seconds,
        "calls": found.network_calls,
        "draws": found.draws,
        "error": found.denoising_error,
    }


class AnnotatedImage(NamedTuple):
    """One annotated image."""

    image: Image  # as given
    frame: Frame  # the part of it that models see
    x0: Tensor  # that part [3,H,W] in -1..1
    truth: Tensor  # its concepts [L,D]
    example: Mapping[str, Any]  # its annotations


@dataclass
class AnnotatedImages:
    """The images of one split, decoded on access."""

    data: datasets.Dataset
    parser: ConceptParser  # reads its annotations
    image_size: tuple[int, int]  # (width, height) that models see
    rows: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = {name: row for row, name in enumerate(self.data["file"])}

    def __getitem__(self, item: str) -> AnnotatedImage:
        example = self.data[self.rows[item]]
        image = to_rgb(example["image"])
        width, height = self.image_size
        frame = Frame.fit(image.size, width / height)
        x0 = to_model(image, frame, self.image_size)
        return AnnotatedImage(image, frame, x0, self.parser.parse(example, frame), example)


def folder_of(request: Request, split: str, what: str) -> Path:
    """Returns the folder that a split is read from; raises InputError, naming its expected content, if there is none."""
    if request.data_root is None:
        raise InputError(f"the split {split} needs --data-root, a folder {what}")
    return request.data_root
