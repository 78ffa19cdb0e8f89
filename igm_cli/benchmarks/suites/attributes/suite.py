"""Suite ``attributes``: facial attributes in and out of the domain trained on (IGM, Wang et al. 2025, section 5.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from igm_cli.benchmarks.baselines.configuration import ConfigurationClassifier, FactorClassifier
from igm_cli.benchmarks.baselines.fit import Fitted
from igm_cli.benchmarks.baselines.resnet import ResNetFactors
from igm_cli.benchmarks.frame.images import SceneMethod, drawn_version, portable
from igm_cli.benchmarks.frame.tables import whole_number
from igm_cli.benchmarks.frame.training import fitted
from igm_cli.benchmarks.suite import Record, Report, Request, Row
from igm_cli.benchmarks.suites.attributes.cost import FactorCost
from igm_cli.benchmarks.suites.attributes.inversions import ENUMERATE, Inversions, exact_pair, values_of
from igm_cli.benchmarks.suites.attributes.report import summarise
from igm_cli.benchmarks.suites.attributes.splits import COUNTS, DATASET, FACTORS, IMAGES, SPLITS, load_split
from igm_cli.benchmarks.suites.attributes.trained import Classified, Predicted
from igm_cli.benchmarks.suites.attributes.training import TrainingData
from igm_cli.core.checkpoint import load_checkpoint, model_fingerprint
from igm_cli.core.concepts import Categorical
from igm_cli.core.inference.inversion import InversionSettings
from igm_cli.errors import InputError, UsageError
from igm_cli.plugins import registry

OPTIONS = {
    "exact_images": "images (and points of factors) of a split that enumerate runs on (default 200)",
    "relax_images": "images of a split that relax runs on (default 50)",
    "relax_steps": "steps of relax (default: the checkpoint's)",
    "faces": "drawn faces that baselines are trained on (default: as many as igm train celeba draws)",
    "contrast": "weight of the contrast in the training of gc and gc-variant; 0 is the paper's objective "
    "(default: as the checkpoint was trained)",
    "resnet": "folder or hub id of pretrained ResNet-50 weights (default: trained from scratch)",
}
_FREE = ("exact_images", "relax_images")  # may differ between two calls


class AttributeReading:
    """Which attributes a face has."""

    name = "attributes"
    summary = "which attributes a face has, in and out of the domain trained on: igm, enumeration, baselines"
    concepts = "attributes"
    methods: Mapping[str, str] = {
        "igm": "exact search over the evidence of all values",
        ENUMERATE: "every configuration by network calls, and igm with the same draws",
        "relax": "the paper's gradient relaxation on the same checkpoint",
        "diffusion-classifier": "configurations by network calls with elimination in stages, same checkpoint",
        "gc": "one conditional diffusion model of the whole configuration, not composed",
        "gc-variant": "the same, each attribute alone",
        "resnet-50": "ResNet-50, supervised",
    }
    splits: Mapping[str, str] = SPLITS
    options: Mapping[str, str] = OPTIONS

    def default_splits(self, data_root: Path | None) -> tuple[str, ...]:
        """The domain trained on and its shifts: of the folder, if there is one."""
        return ("folder-female", "folder-male") if data_root else ("female", "male", "outlined")

    def open(self, request: Request) -> Attribution:
        """Loads the images of all splits.

        Raises:
            InputError: If a split cannot be had, or the model has no attributes.
            UsageError: If an option cannot be used.
        """
        return Attribution(request)


@dataclass
class AttributeMethod:
    """A method of images that may also have a cost over the number of factors.

    Attributes:
        images: None where nothing but the cost is asked for.
        cost: None where the method has none.
        limit: Most items of a split.
        info: What the report says of it.
    """

    images: SceneMethod | None
    cost: Callable[[int], Row] | None
    limit: int | None
    info: Mapping[str, Any]

    def __call__(self, split: str, item: str) -> list[Row]:
        """The rows of one image, or of one number of factors."""
        if split == FACTORS:
            return [self.cost(int(item))] if self.cost else []
        return self.images(split, item) if self.images else []


class Attribution:
    """The suite opened for one request."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.checkpoint = load_checkpoint(request.model, request.device)
        concepts = self.checkpoint.concepts
        if concepts != AttributeReading.concepts or not isinstance(self.checkpoint.denoiser.space, Categorical):
            raise InputError(f"attributes measures models of attributes, not of {concepts!r}")
        self.space = self.checkpoint.denoiser.space
        self.parser = registry.configured(
            registry.concept_parser(concepts), self.checkpoint.spec.concept_options
        )
        if self.parser.space != self.space:
            raise InputError("the checkpoint's options of concepts do not fit its factors; train it again")
        self.exact_images = self._number("exact_images", 200)
        self.relax_images = self._number("relax_images", 50)
        self.settings, self.contrast = self._settings(), self._contrast()
        self.faces = self._number("faces", 0, least=2) if "faces" in request.options else None
        self.scenes = {
            name: load_split(name, request, self.checkpoint.image_size, self.parser)
            for name in request.splits
            if name in IMAGES
        }

    @property
    def identity(self) -> Mapping[str, Any]:
        """Methods, splits, limit and how many images slow methods run on may differ between two calls."""
        request = self.request
        return {
            "model": model_fingerprint(request.model),
            "data_root": request.data_root.absolute().name if request.data_root else None,
            "train_budget": vars(request.budget),
            "seed": request.seed,
            "scenes": drawn_version(DATASET),
            "options": portable(request.options, *_FREE),
        }

    def items(self, split: str) -> Sequence[str]:
        """File names of a split's images, or numbers of factors."""
        if split == FACTORS:
            return [str(count) for count in COUNTS][: self.request.limit]
        return list(self.scenes[split].rows)

    def method(self, name: str) -> AttributeMethod:
        """A method made ready: loaded, or trained first, unless it is not asked about images."""
        cost = {"igm": self.cost.igm, ENUMERATE: self.cost.enumerate}.get(name)
        if not self.scenes:
            limit = self.exact_images if name == ENUMERATE else None
            return AttributeMethod(None, cost, limit, {"cost": "over factors only" if cost else "not measured"})
        made = self._made(name)
        images = SceneMethod(self.scenes, made, made.limit, made.info, self._told)
        return AttributeMethod(images, cost, made.limit, made.info)

    def report(self, records: Sequence[Record], infos: Mapping[str, Mapping[str, Any]]) -> Report:
        """Tables, plots and pictures."""
        return summarise(records, infos, self.scenes, self.parser)

    @cached_property
    def cost(self) -> FactorCost:
        """Times inversions over factors."""
        return FactorCost(self.checkpoint, self.settings, self.request.device)

    @cached_property
    def data(self) -> TrainingData:
        """What baselines are trained on."""
        request = self.request
        return TrainingData(
            request.data_root, self.parser, self.checkpoint.image_size, self.faces, request.progress
        )

    def _made(self, name: str) -> Any:
        s, spec, model = self.settings, self.checkpoint.spec, self.request.model
        makers: dict[str, Callable[[], Any]] = {
            "igm": lambda: self._inversions({name: s}),
            ENUMERATE: lambda: self._inversions(exact_pair(s), self.exact_images),
            "relax": lambda: self._inversions({name: replace(s, method="relax")}, self.relax_images),
            "diffusion-classifier": lambda: self._inversions({name: replace(s, method="eliminate")}),
            "gc": lambda: self._classified(ConfigurationClassifier(spec, model, contrast=self.contrast)),
            "gc-variant": lambda: self._classified(FactorClassifier(spec, model, contrast=self.contrast)),
            "resnet-50": lambda: self._predicted(name),
        }
        return makers[name]()

    def _inversions(self, settings: Mapping[str, InversionSettings], limit: int | None = None) -> Inversions:
        return Inversions(self.checkpoint, settings, self.request.device, limit)

    def _classified(self, baseline: ConfigurationClassifier) -> Classified:
        """Its trunk starts from the weights of the model that is measured."""
        request = self.request
        return Classified(baseline, self._fitted(baseline), request.budget, self.settings, request.device)

    def _predicted(self, label: str) -> Predicted:
        request = self.request
        baseline = ResNetFactors(self.space, weights=request.options.get("resnet"))
        return Predicted(label, baseline, self._fitted(baseline), request.budget, request.device)

    def _fitted(self, baseline: Any) -> Fitted:
        request = self.request
        return fitted(
            baseline, self.data, request.budget, request.cache, request.seed, request.device, request.progress
        )

    def _settings(self) -> InversionSettings:
        """Of the checkpoint; ours whatever its own method is."""
        settings = InversionSettings.from_dict(
            self.checkpoint.inference, method="evidence", seed=self.request.seed
        )
        return replace(settings, relax_steps=self._number("relax_steps", settings.relax_steps))

    def _contrast(self) -> float:
        value = self.request.options.get("contrast", self.checkpoint.info.get("contrast", 0.0))
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise UsageError(f"--set contrast takes a number of at least 0, not {value!r}")
        return float(value)

    def _told(self, truth: Tensor) -> list[int]:
        return values_of(self.space, truth)

    def _number(self, name: str, default: int, least: int = 1) -> int:
        return whole_number(self.request.options, name, default, least)
