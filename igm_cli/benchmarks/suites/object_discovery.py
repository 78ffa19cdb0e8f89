"""Suite ``object-discovery``: the paper's Table 1 and shifts beyond it (IGM, Wang et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from igm_cli.benchmarks import frame, report
from igm_cli.benchmarks.baselines.fit import TrainingData
from igm_cli.benchmarks.baselines.gc import GenerativeClassifier
from igm_cli.benchmarks.baselines.gc_inversion import SetSettings, invert_set
from igm_cli.benchmarks.baselines.resnet import ResNetSet
from igm_cli.benchmarks.baselines.set_prediction import SetPredictor
from igm_cli.benchmarks.baselines.slot_attention import DinosaurSet, SlotAttentionSet
from igm_cli.benchmarks.scores import ScoredSplits, Scores
from igm_cli.benchmarks.suite import Infos, Method, Record, Report, Request, Row
from igm_cli.benchmarks.suites import object_values
from igm_cli.benchmarks.suites.object_discovery_report import RESTARTS, figures, metrics
from igm_cli.benchmarks.timing import timed
from igm_cli.core.checkpoint import Checkpoint, load_checkpoint
from igm_cli.core.concepts import Product
from igm_cli.core.device import inference_precision
from igm_cli.core.files import home_expanded
from igm_cli.core.inference.engine import invert
from igm_cli.core.inference.reference import descend, score
from igm_cli.core.training.batches import Samples
from igm_cli.core.types import InversionSettings
from igm_cli.errors import InputError
from igm_cli.plugins import registry
from igm_cli.plugins.base import Frame
from igm_cli.plugins.samples import DatasetSamples, JoinedSamples

RENDERED = 200  # images of a rendered split by default
FEW_STEPS = 20  # steps for comparing the times of fewer starts
RENDERS = {"objects": "3-5", "crowd": 0.7}
"""The training data of baselines: the rendered scenes of the checkpoint's last stage (the preset ``finetune``)."""
RENDER_SEED = 1
WORLD = 1000  # training images whose objects tell where places of the image are in the world
HELD_OUT = 100  # images at the end of each part, used only to choose learning rates


class DiscoveryBench(frame.CheckpointBench):
    """The suite opened for one request."""

    dataset, called = "clevr", "positions"
    free = ("sgd_images",)

    def __init__(self, suite: frame.DeclaredSuite, request: Request) -> None:
        super().__init__(suite, request)
        self.scenes: dict[str, frame.AnnotatedImages] = {}
        for name in request.splits:
            # Always the same number is rendered if sufficient, so that a larger limit finds the same images.
            data = self.load("val", name, max(RENDERED, request.limit or 0), "CLEVR_v1.0")
            if not suite.images[name].folder:
                data = data.select(range(min(len(data), request.limit or RENDERED)))
            self.scenes[name] = frame.AnnotatedImages(data, self.parser, self.image_size)

    @cached_property
    def data(self) -> TrainingData:
        """Images of 3 to 5 objects: rendered ones, and those of the data folder if it has any."""

        def parts() -> tuple[Samples, Samples]:
            every = self.rendered(self.numbers["renders"]), self.of_folder(objects="3-5")
            given = [data for data in every if data is not None]
            cuts = [max(len(data) - HELD_OUT, (len(data) + 1) // 2) for data in given]
            kept = [data.select(range(cut)) for data, cut in zip(given, cuts, strict=True)]
            held = [data.select(range(cut, len(data))) for data, cut in zip(given, cuts, strict=True)]
            return joined(kept), joined(held)

        def joined(given: Sequence[Any]) -> Samples:
            places = registry.concept_parser("pos")  # baselines predict only positions
            progress = self.request.progress
            parts = [DatasetSamples(d, places, self.image_size, progress) for d in given if len(d)]
            return JoinedSamples(parts)

        rendered = {**RENDERS, "size": self.numbers["renders"]}
        chosen = {"rendered": rendered, "seed": RENDER_SEED, "held_out": HELD_OUT}
        return TrainingData({"folder": self.folder_identity, **chosen}, parts)

    def rendered(self, size: int) -> Any:
        """Returns rendered training images."""
        how: dict[str, Any] = {**RENDERS, "size": size, "seed": RENDER_SEED, "progress": self.request.progress}
        return registry.dataset(self.dataset).load("train", **how)

    def of_folder(self, **how: Any) -> Any:
        """Returns the training images of the data folder; None without one, or if it has only test images."""
        root, adapter = self.request.data_root, registry.dataset(self.dataset)
        try:
            return root and adapter.load("train", data_root=root, **how, **self.request.reading(adapter))
        except InputError as error:
            self.request.note(f"no images for training are read: {error}")
            return None

    @cached_property
    def world(self) -> object_values.WorldPlaces | None:
        """The map from concepts to places in the world, fitted to the folder's training images, or to rendered ones."""
        data, (width, height) = self.of_folder(limit=WORLD), self.image_size
        data = self.rendered(WORLD) if data is None else data
        return object_values.WorldPlaces.fitted(
            self.parser, ((each, Frame.fit(each["image"].size, width / height)) for each in data)
        )

    def method(self, name: str) -> Method:
        """Prepares a method: loads or trains it."""
        if isinstance(self.parser.space, Product) and name in ("igm-sgd", "gc"):
            raise InputError(f"{name} is of models of positions, such as clevr-pos; leave it out by --methods")
        if name in (own := {"igm": self.inverted, "igm-sgd": self.descended, "gc": self.whole_set}):
            return own[name]()
        size, dino = self.image_size, str(self.options.get("dino", "facebook/dino-vitb16"))
        predictors: dict[str, SetPredictor] = {
            "slot-attention": SlotAttentionSet(size),
            "resnet-50": ResNetSet(size, weights=self.options.get("resnet")),
            "dinosaur": DinosaurSet(size, dino=dino),
        }
        return self.predicted(name, predictors[name])

    def inverted(self) -> Method:
        """Returns igm, with K given and with K estimated."""
        denoiser, composition = self.checkpoint.denoiser, self.checkpoint.spec.composition

        def rows(scene: frame.AnnotatedImage) -> list[Row]:
            image, settings = scene.x0.to(self.device), self.settings
            sizes = (len(scene.truth), None)
            given, free = (invert(denoiser, image, settings, k=k, composition=composition) for k in sizes)
            seconds = {"seconds": given.seconds, "seconds_free": free.seconds}
            calls = {"calls": given.network_calls, "calls_free": free.network_calls}
            row = _row("igm", given.concepts, free.concepts, **seconds, **calls)
            if isinstance(self.parser.space, Product):
                row |= object_values.described(self.parser.space, given, free, scene.truth)
                if self.world and (true := object_values.annotated(self.parser, scene.example, scene.frame)):
                    row["world"] = {"free": self.world(free.concepts).tolist(), "truth": true[1].tolist()}
            return [row]

        return self.on_images(rows, frame.checkpoint_info(self.checkpoint))

    def descended(self) -> Method:
        """Returns the paper's algorithm on the same checkpoint, and on the paper's U-Net if one is given."""
        models = {"igm-sgd": self.checkpoint}
        if "unet" in self.options:
            folder = home_expanded(str(self.options["unet"]))
            unet = models["igm-sgd-unet"] = load_checkpoint(folder, self.device)
            if (unet.spec.concepts, unet.spec.image_size) != (self.parser.name, self.image_size):
                width, height = self.image_size
                raise InputError(
                    f"the model {folder} must speak of {self.parser.name} in {width}×{height} pixels; "
                    f"train it with --set model.image_size=[{width},{height}]"
                )
        restarted = {}
        for label, checkpoint in models.items():
            settings = InversionSettings.from_dict(checkpoint.spec.inference, seed=self.request.seed)
            settings = replace(settings, method="sgd", restarts=max(RESTARTS), steps=self.numbers["sgd_steps"])
            restarted[label] = checkpoint, settings

        def rows(scene: frame.AnnotatedImage) -> list[Row]:
            image, k = scene.x0.to(self.device), len(scene.truth)
            return [row for label, model in restarted.items() for row in _descents(label, *model, image, k)]

        info = {label: {**frame.checkpoint_info(c), "steps": s.steps} for label, (c, s) in restarted.items()}
        return self.on_images(rows, info, self.numbers["sgd_images"])

    def predicted(self, label: str, predictor: SetPredictor) -> Method:
        """Returns a network that names all positions in one pass."""
        trained = self.fitted(predictor, self.data)

        def predict(image: Tensor, k: int | None) -> Tensor:
            with inference_precision(self.device):
                return predictor.predict(trained.model, image, [k])[0]

        def rows(scene: frame.AnnotatedImage) -> list[Row]:
            image = scene.x0[None].to(self.device)
            given, (seconds, _) = timed(lambda: predict(image, len(scene.truth)), self.device)
            return [_row(label, given, predict(image, None), seconds=seconds, calls=1)]

        return self.on_images(rows, trained.info(self.request.budget))

    def whole_set(self) -> Method:
        """Returns a conditional diffusion model of the whole set, inverted by search.

        Its trunk starts from the weights of the measured model.
        """
        settings, most = SetSettings(seed=self.request.seed), self.numbers["gc_k_max"]
        trained = self.fitted(GenerativeClassifier(init=self.request.model), self.data)
        model: Any = trained.model.requires_grad_(False)

        def rows(scene: frame.AnnotatedImage) -> list[Row]:
            image = scene.x0.to(self.device)
            given = invert_set(model, image, [len(scene.truth)], settings)
            free = invert_set(model, image, range(1, most + 1), settings).concepts if most else None
            return [_row("gc", given.concepts, free, seconds=given.seconds, calls=given.passes)]

        return self.on_images(rows, trained.info(self.request.budget))

    def columns(self, split: str, scores: Sequence[Scores]) -> Mapping[str, str]:
        """Returns the columns of perception, cost, and the accuracy of values."""
        named, values = {name for s in scores for name in s.estimates}, self.suite.words["value_columns"]
        said = {head: cell for head, cell in values.items() if cell.partition(" ")[2] in named}
        return {**super().columns(split, scores), **said}

    def report(self, records: Sequence[Record], infos: Infos) -> Report:
        """Returns tables, plots, confusions and pictures."""
        scored = ScoredSplits(records, self.scenes, metrics)
        tables = object_values.values_table(scored.scores, self.suite.words["precision"])
        return report.scored_report(self, scored, infos, tables, figures(self, records, scored), {})


def _row(label: str, given: Tensor, free: Tensor | None, **costs: Any) -> Row:
    """Returns a row: concepts with K given and with K estimated (None: not estimated), and their costs."""
    found = {"given": given.tolist(), "free": None if free is None else free.tolist()}
    return {"label": label, **found, **costs}


def _descents(
    label: str, checkpoint: Checkpoint, settings: InversionSettings, image: Tensor, k: int
) -> list[Row]:
    """Returns a row per number of starts, all from one run of the most starts.

    The starts share their draws and are computed together, so the first R of them are like a run of R starts, with other draws.
    The time of fewer is scaled from that of the most by the ratio of a few steps of both.
    """
    denoiser, composition = checkpoint.denoiser, checkpoint.spec.composition

    @torch.no_grad()
    def run() -> tuple[Tensor, Tensor, int]:
        ends, descending = descend(denoiser, image, settings, k, composition)
        errors, scoring = score(denoiser, image, ends, settings, composition)
        return ends, errors.mean(dim=1).cpu(), descending + scoring

    def few_steps(restarts: int) -> float:
        few = replace(settings, restarts=restarts, steps=min(FEW_STEPS, settings.steps))
        return timed(lambda: descend(denoiser, image, few, k, composition), image.device)[1].seconds

    (ends, mean_errors, calls), (seconds, _) = timed(run, image.device)
    times = {restarts: few_steps(restarts) for restarts in RESTARTS}
    return [
        _row(
            f"{label} R={restarts}",
            ends[int(mean_errors[:restarts].argmin())].cpu(),
            None,
            seconds=seconds * times[restarts] / times[max(RESTARTS)],
            calls=calls * restarts // max(RESTARTS),
        )
        for restarts in RESTARTS
    ]


SUITE = frame.DeclaredSuite("object-discovery", DiscoveryBench)
