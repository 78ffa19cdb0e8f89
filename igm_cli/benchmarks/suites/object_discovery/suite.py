"""Suite ``object-discovery``: the paper's Table 1 and shifts beyond it (IGM, Wang et al. 2025)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from igm_cli.benchmarks.baselines.dinosaur import DinosaurSet
from igm_cli.benchmarks.baselines.fit import Fitted
from igm_cli.benchmarks.baselines.gc import GenerativeClassifier
from igm_cli.benchmarks.baselines.resnet import ResNetSet
from igm_cli.benchmarks.baselines.set_inversion import SetSettings
from igm_cli.benchmarks.baselines.set_prediction import SetPredictor
from igm_cli.benchmarks.baselines.slot_attention import SlotAttentionSet
from igm_cli.benchmarks.frame.images import SceneMethod, drawn_version, portable
from igm_cli.benchmarks.frame.tables import whole_number
from igm_cli.benchmarks.frame.training import fitted
from igm_cli.benchmarks.suite import Record, Report, Request
from igm_cli.benchmarks.suites.object_discovery.inversions import Descent, Descents, Evidence
from igm_cli.benchmarks.suites.object_discovery.report import summarise
from igm_cli.benchmarks.suites.object_discovery.splits import DATASET, SPLITS, load_split
from igm_cli.benchmarks.suites.object_discovery.trained import Predicted, WholeSet
from igm_cli.benchmarks.suites.object_discovery.training import RENDERS, TrainingData
from igm_cli.core.checkpoint import Checkpoint, load_checkpoint, model_fingerprint
from igm_cli.core.inference.inversion import InversionSettings
from igm_cli.errors import InputError
from igm_cli.plugins import registry

OPTIONS = {
    "sgd_images": "images of a split that igm-sgd runs on, for it takes minutes an image (default 1)",
    "sgd_steps": "steps of igm-sgd (default 2000, the paper's)",
    "unet": "checkpoint folder of the paper's U-Net: igm-sgd runs on it, too",
    "renders": f"rendered images that baselines are trained on (default {RENDERS['size']})",
    "resnet": "folder or hub id of pretrained ResNet-50 weights (default: trained from scratch)",
    "dino": "folder or hub id of DINO weights (default facebook/dino-vitb16)",
    "gc_k_max": "largest K that gc tries to estimate K, one search each (default 0: it is not estimated)",
}


class ObjectDiscovery:
    """Where the objects of an image are, and how many."""

    name = "object-discovery"
    summary = "where the objects of an image are: igm, the paper's descent, and trained baselines"
    concepts = "pos"
    methods: Mapping[str, str] = {
        "igm": "evidence, pursuit and refinement",
        "igm-sgd": "the paper's restarted descent on the same checkpoint, R = 1 to 20",
        "gc": "one conditional diffusion model of the whole set of positions, not composed",
        "slot-attention": "Slot Attention with a position read-out",
        "resnet-50": "ResNet-50 with a position read-out",
        "dinosaur": "DINO features, Slot Attention and a position read-out",
    }
    splits: Mapping[str, str] = {name: split.about for name, split in SPLITS.items()}
    options: Mapping[str, str] = OPTIONS

    def default_splits(self, data_root: Path | None) -> tuple[str, ...]:
        """3 to 5 and 6 to 8 objects: of the folder, if there is one."""
        return ("folder-3-5", "folder-6-8") if data_root else ("3-5", "6-8")

    def open(self, request: Request) -> Discovery:
        """Loads the images of all splits.

        Raises:
            InputError: If a split cannot be had.
            UsageError: If an option cannot be used.
        """
        return Discovery(request)


class Discovery:
    """The suite opened for one request."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.checkpoint = load_checkpoint(request.model, request.device)
        self.parser = registry.concept_parser(self.checkpoint.concepts, typed=False)
        if self.parser.name != ObjectDiscovery.concepts:
            raise InputError(f"object-discovery measures models of positions, not of {self.parser.name!r}")
        self.sgd_images, self.sgd_steps = self._number("sgd_images", 1), self._number("sgd_steps", 2000)
        self.renders = self._number("renders", RENDERS["size"])
        self.scenes = {
            name: load_split(name, request, self.checkpoint.image_size, self.parser) for name in request.splits
        }

    @property
    def identity(self) -> Mapping[str, Any]:
        """Methods, splits, limit and how many images igm-sgd runs on may differ between two calls."""
        request = self.request
        return {
            "model": model_fingerprint(request.model),
            "data_root": request.data_root.absolute().name if request.data_root else None,
            "train_budget": vars(request.budget),
            "seed": request.seed,
            "scenes": drawn_version(DATASET),
            "options": portable(request.options, "sgd_images"),
        }

    def items(self, split: str) -> Sequence[str]:
        """File names of a split's images."""
        return list(self.scenes[split].rows)

    def method(self, name: str) -> SceneMethod:
        """A method made ready: loaded, or trained first."""
        options, size = self.request.options, self.checkpoint.image_size
        dino = str(options.get("dino", "facebook/dino-vitb16"))
        makers: dict[str, Callable[[], Any]] = {
            "igm": self._evidence,
            "igm-sgd": self._descent,
            "gc": self._whole_set,
            "slot-attention": lambda: self._predictor(name, SlotAttentionSet(size)),
            "resnet-50": lambda: self._predictor(name, ResNetSet(size, weights=options.get("resnet"))),
            "dinosaur": lambda: self._predictor(name, DinosaurSet(size, dino=dino)),
        }
        made = makers[name]()
        return SceneMethod(self.scenes, made, made.limit, made.info)

    def report(self, records: Sequence[Record], infos: Mapping[str, Mapping[str, Any]]) -> Report:
        """Tables, plots, confusions and pictures."""
        return summarise(records, infos, self.scenes, self.parser)

    @cached_property
    def data(self) -> TrainingData:
        """What baselines are trained on."""
        request = self.request
        return TrainingData(
            request.data_root, self.parser, self.checkpoint.image_size, self.renders, request.progress
        )

    def _settings(self, checkpoint: Checkpoint) -> InversionSettings:
        return InversionSettings.from_dict(checkpoint.inference, seed=self.request.seed)

    def _evidence(self) -> Evidence:
        return Evidence(self.checkpoint, self._settings(self.checkpoint), self.request.device)

    def _descent(self) -> Descents:
        """The paper's algorithm on the same checkpoint, and on its U-Net where one is given."""
        models = {"igm-sgd": self.checkpoint}
        if "unet" in self.request.options:
            models["igm-sgd-unet"] = self._unet(Path(str(self.request.options["unet"])).expanduser())
        parts = []
        for label, checkpoint in models.items():
            settings = replace(self._settings(checkpoint), steps=self.sgd_steps)
            parts.append(Descent(label, checkpoint, settings, self.request.device, self.sgd_images))
        return Descents(parts)

    def _unet(self, folder: Path) -> Checkpoint:
        checkpoint = load_checkpoint(folder, self.request.device)
        if (checkpoint.concepts, checkpoint.image_size) != (self.parser.name, self.checkpoint.image_size):
            width, height = self.checkpoint.image_size
            raise InputError(
                f"the model {folder} must speak of {self.parser.name} in {width}×{height} pixels; "
                f"train it with --set model.image_size=[{width},{height}]"
            )
        return checkpoint

    def _predictor(self, name: str, predictor: SetPredictor) -> Predicted:
        trained = self._fitted(predictor)
        return Predicted(name, predictor, trained, self.request.budget, self.request.device)

    def _whole_set(self) -> WholeSet:
        """Its trunk starts from the weights of the model that is measured."""
        trained = self._fitted(GenerativeClassifier(init=self.request.model))
        settings = SetSettings(seed=self.request.seed)
        most = self._number("gc_k_max", 0, least=0)
        return WholeSet(trained, self.request.budget, settings, self.request.device, most)

    def _fitted(self, baseline: Any) -> Fitted:
        request = self.request
        return fitted(
            baseline, self.data, request.budget, request.cache, request.seed, request.device, request.progress
        )

    def _number(self, name: str, default: int, least: int = 1) -> int:
        return whole_number(self.request.options, name, default, least)
