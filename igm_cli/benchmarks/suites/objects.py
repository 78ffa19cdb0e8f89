"""Suite ``objects``: photographs of many objects, by methods trained on crops with few (IGM's claim beyond CLEVR)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from igm_cli.benchmarks import frame, report
from igm_cli.benchmarks.baselines.fit import Baseline, Fitted, TrainingData
from igm_cli.benchmarks.baselines.maps import CentrePoints, DensityMap, MapBaseline
from igm_cli.benchmarks.baselines.resnet import ResNetSet
from igm_cli.benchmarks.baselines.set_prediction import OVERLAP, SetPredictor
from igm_cli.benchmarks.baselines.slot_attention import SlotAttentionSet
from igm_cli.benchmarks.baselines.watershed import chosen
from igm_cli.benchmarks.points import Hits, best, beyond, border, hits, within
from igm_cli.benchmarks.scores import ScoredSplits
from igm_cli.benchmarks.suite import Figure, Infos, Method, Record, Report, Request, Row
from igm_cli.benchmarks.suites.objects_report import comparisons, figures, metrics, pictures
from igm_cli.benchmarks.suites.objects_windows import Bands, Sight, Windows, typical_radius
from igm_cli.benchmarks.timing import timed
from igm_cli.core.concepts import Product
from igm_cli.core.device import inference_precision
from igm_cli.core.files import parse_toml
from igm_cli.core.inference.tiles import unit_of
from igm_cli.core.training.batches import Samples, as_floats
from igm_cli.errors import InputError, UsageError, need, percentage
from igm_cli.imaging import to_model
from igm_cli.model import open_checkpoint
from igm_cli.plugins import registry
from igm_cli.plugins.crops import Crops, CropSamples

HELD_OUT = 8  # one in this many training photographs only chooses learning rates and thresholds
HELD_CROPS = 200  # crops of these photographs
PHOTOGRAPHS = 16  # maximum number of training photographs for choosing the parameters of watershed
THRESHOLDS = tuple(level / 20 for level in range(1, 20))  # candidates for the threshold on map scores
RESNET_SIDE = 96  # minimum side of ResNet's input in pixels; its map has a cell per 32


class Found(NamedTuple):
    """A method's answer about an image."""

    points: Tensor  # in pixels of the model's input [K,2]
    density: Tensor | None = None  # objects per cell [h,w], if their sum is the count
    cell: int = 1  # side of a cell in pixels of the model's input
    kinds: Tensor | None = None  # index of each point's combination of values [K], if the method knows it


class Inside:
    """Samples without the objects whose centres lie beyond a crop; implements :class:`Samples`."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, indices: list[int], flips: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns images ``[B,3,H,W]``, concepts ``[B,K,D]`` and which of them lie in the crop ``[B,K]``."""
        images, concepts, present = self.samples.batch(indices, flips)
        x_y = concepts[..., :2]
        return images, concepts, present & ((x_y >= 0) & (x_y <= 1)).all(-1)


class ObjectsBench(frame.CheckpointBench):
    """The suite opened for one request."""

    dataset, called = "objects", "positions"
    scenes: Mapping[str, Windows]

    def __init__(self, suite: frame.DeclaredSuite, request: Request) -> None:
        super().__init__(suite, request)
        spec, self.adapter = self.checkpoint.spec, registry.dataset(self.dataset)
        if not spec.scale:
            raise InputError(
                f"objects measures models that were trained on crops of photographs, and {self.checkpoint.name!r} was not; "
                "give one by --model, see igm train objects"
            )
        self.places = registry.concept_parser("pos")  # baselines predict only positions
        root = frame.folder_of(request, request.splits[0], "of annotated photographs")
        self.given = {key: value for key, value in self.options.items() if key in self.adapter.options}
        part = str(self.options.get("part", "val"))
        if part not in self.adapter.splits:
            raise UsageError(f"--set part takes {' or '.join(self.adapter.splits)}, not {part!r}")
        how = {"data_root": root, "progress": request.progress, **request.reading(self.adapter), **self.given}
        measured = self.adapter.load(part, **how)
        self.photographs = self.adapter.load(self.adapter.splits[0], **how)  # the training split
        self.radius = self._radius()
        self.bands = Bands(self.radius, float(self.numbers["border"]))
        self.sight = Sight(spec.scale, unit_of(self.checkpoint.denoiser), self.image_size)
        windows = partial(Windows, measured, self.parser, self.image_size)
        self.scenes = {
            name: windows(name, self.sight, self.bands, request.seed, request.limit) for name in request.splits
        }
        if not any(windows.rows for windows in self.scenes.values()):
            raise InputError(
                f"no photograph of {root.name} holds as many objects as {' or '.join(request.splits)}; choose other --splits"
            )

    def _radius(self) -> float:
        if (given := self.options.get("radius")) is not None:
            number = isinstance(given, int | float) and not isinstance(given, bool)
            if not number or not 0 < given < math.inf:
                raise UsageError(f"--set radius takes a number of pixels above 0, not {given!r}")
            return float(given)
        radius = typical_radius(self.photographs)
        if not radius > 0:
            raise InputError("no training photograph holds two objects, or most share their place, so no distance says how near is "
                             "right; use --set radius=PIXELS")  # fmt: skip
        return radius

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The identity; methods, splits and limit are free between two calls."""
        return {**super().identity, "radius": self.radius}

    @cached_property
    def crops(self) -> Crops:
        """How training crops are cut: as the checkpoint says, otherwise as the dataset advises and its preset says."""
        if "crops" in self.checkpoint.spec.info and "most" not in self.options:
            return Crops(**self.checkpoint.spec.info["crops"])
        tables = parse_toml(self.adapter.presets["default"].read_text(encoding="utf-8"))
        own = dict(tables["crops"])
        if "most" in self.options:
            own["most"] = self.whole_number("most", 6)
        advised = self.adapter.advise(self.photographs, {"crops": own}).tables["crops"]  # type: ignore[attr-defined]
        scale = self.checkpoint.spec.scale
        margin = round(advised["margin"] * scale / advised["scale"])
        return Crops(**{**advised, **own, "scale": scale, "margin": margin})

    @property
    def near(self) -> float:
        """The radius in pixels of training crops."""
        return self.radius * self.crops.scale

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        """The baselines' training photographs, and the held-out ones."""
        count = len(self.photographs)
        kept = count - max(1, count // HELD_OUT)
        if kept < 1:  # a single photograph serves as both
            return self.photographs, self.photographs
        return self.photographs.select(range(kept)), self.photographs.select(range(kept, count))

    @cached_property
    def held_out(self) -> CropSamples:
        """Crops of held-out photographs, without augmentation."""
        plain = replace(self.crops, count=HELD_CROPS, turns=False, brightness=0.0)
        return CropSamples(self._parts[1], self.places, self.image_size, plain, self.request.seed)

    def trained_on(self, inside: bool) -> TrainingData:
        """Returns the training crops; with ``inside``, only objects whose centres lie in a crop count."""
        about = {
            "folder": self.folder_identity,
            "options": {key: str(value) for key, value in self.given.items()},
            "crops": asdict(self.crops),
            "held_out": [HELD_OUT, HELD_CROPS],
            "inside": inside,
        }

        def parts() -> tuple[Samples, Samples]:
            r = self.request
            crops = CropSamples(self._parts[0], self.places, self.image_size, self.crops, r.seed, r.progress)
            return (Inside(crops), Inside(self.held_out)) if inside else (crops, self.held_out)

        return TrainingData(about, parts)

    def method(self, name: str) -> Method:
        """Prepares a method: loads or trains it."""
        size, slots = self.image_size, 2 * self.crops.most
        upscale = math.ceil(RESNET_SIDE / max(size))
        ready: dict[str, Callable[[], Method]] = {
            "igm": self.inverted,
            "slot-attention": lambda: self.tiled(SlotAttentionSet(size, slots=slots, test_slots=slots)),
            "resnet-50": lambda: self.tiled(
                ResNetSet(
                    size, slots=slots, upscale=upscale, weights=self.options.get("resnet"), name="resnet-50"
                )
            ),
            "density": lambda: self.mapped(DensityMap(size, self.near)),
            "centre-point": lambda: self.mapped(CentrePoints(size, self.near)),
            "watershed": self.blobs,
        }
        return ready[name]()

    def answering(
        self, label: str, find: Callable[[frame.AnnotatedImage], Found], info: Mapping[str, Any]
    ) -> Method:
        """Returns a method that finds points image by image."""

        def rows(split: str, item: str) -> list[Row]:
            scene = self.scenes[split].scene(item)
            found, (seconds, _) = timed(lambda: find(scene.picture), self.device)
            seen = torch.tensor(scene.picture.x0.shape[:0:-1])
            enlarged = torch.tensor(scene.picture.image.size) / seen
            points = found.points.cpu() * enlarged
            result = hits(points, scene.points, scene.ignored, self.radius)
            count: float = result.answers
            if found.density is not None:
                grid = torch.cartesian_prod(*(torch.arange(n) + 0.5 for n in found.density.shape)).flip(1)
                counts = ~within(grid * found.cell * enlarged, scene.ignored)
                count = float(found.density.flatten()[counts].sum())
            about = {
                "photograph": scene.photograph,
                "predicted": [[round(v, 2) for v in point] for point in points.tolist()],
                "count": count,
                "seconds": seconds,
            }
            every = [{"label": label, **about, **result._asdict()}]
            if found.kinds is not None:
                kinds = found.kinds, self.kinds(scene.picture.truth)
                right = hits(points, scene.points, scene.ignored, self.radius, kinds)
                every.append({"label": f"{label}, values right", **about, **right._asdict()})
            return every

        return Method(rows, info)

    def inverted(self) -> Method:
        """Returns igm, as its users call it."""
        model = open_checkpoint(self.request.model, None, str(self.device))
        _ = model.denoiser  # loads the weights before timing starts
        valued = isinstance(self.parser.space, Product)  # whether objects have values, such as a label

        def find(picture: frame.AnnotatedImage) -> Found:
            items = model.invert(picture.image, seed=self.request.seed).items
            pixels = torch.tensor([[item["x"], item["y"]] for item in items]).reshape(-1, 2)
            kinds = self.kinds(self.parser.encode(items, picture.frame)) if valued else None
            return Found(pixels * torch.tensor(self.sight.size(picture.image.size)), kinds=kinds)

        return self.answering("igm", find, frame.checkpoint_info(self.checkpoint))

    def kinds(self, concepts: Tensor) -> Tensor:
        """Returns the index ``[K]`` of the combination of values of each concept ``[K,D]``."""
        space = cast(Product, self.parser.space)
        told, number = concepts[:, space.where.dim :], torch.zeros(len(concepts))
        for group in space.what.groups():
            number = number * len(group) + told[:, group].argmax(1)
        return number

    def seen(self, picture: frame.AnnotatedImage) -> Tensor:
        """Returns a baseline's input for an image, ``[3,H,W]``; it is rescaled again, to include this in the time."""
        x0 = to_model(picture.image, picture.frame, self.sight.size(picture.image.size))
        return x0.to(self.device)

    def told(self, trained: Fitted, baseline: Baseline) -> dict[str, Any]:
        """Returns the facts about a baseline's training for a report."""
        crops = f"{self.image_size[0]}×{self.image_size[1]} pixels with {self.crops.most} objects or fewer"
        return {
            **trained.info(self.request.budget),
            "trained on": f"crops of {crops}, {baseline.batch_size} a step",
        }

    def tiled(self, predictor: SetPredictor) -> Method:
        """Returns a network that names all positions of a tile in one pass."""
        trained = self.fitted(predictor, self.trained_on(True))

        def find(picture: frame.AnnotatedImage) -> Found:
            with inference_precision(self.device):
                return Found(predictor.predict_tiled(trained.model, self.seen(picture), self.near))

        width, height = self.image_size
        how = (
            f"tiles of {width}×{height} pixels that overlap by {percentage(OVERLAP, 0)}; of answers of two tiles within {self.near:.3g} "
            "pixels the one further from its tile's border counts"
        )
        return self.answering(predictor.name, find, {**self.told(trained, predictor), "larger images": how})

    def mapped(self, baseline: MapBaseline) -> Method:
        """Returns a fully convolutional network, applied to whole images."""
        trained = self.fitted(baseline, self.trained_on(False))

        def peaks(images: Tensor) -> Any:
            with inference_precision(self.device):
                return baseline.find(trained.model, images)

        threshold, f1 = self._threshold(peaks)

        def find(picture: frame.AnnotatedImage) -> Found:
            (found,) = peaks(self.seen(picture)[None])
            return Found(found.points[found.scores >= threshold], found.density, baseline.patch)

        info = {**self.told(trained, baseline), "threshold": threshold, "F1 on the held-out crops": f1}
        return self.answering(baseline.name, find, info)

    def _threshold(self, peaks: Callable[[Tensor], Any]) -> tuple[float, float]:
        """Returns the threshold with the highest F1 on held-out crops, and that F1."""
        count, near = len(self.held_out), self.near
        images, concepts, present = self.held_out.batch(list(range(count)), [False] * count)
        size = torch.tensor(self.image_size)
        truths = [some[there][:, :2] * size for some, there in zip(concepts, present, strict=True)]
        found = peaks(as_floats(images).to(self.device))
        band = border(self.image_size, [near] * 4)
        ignored = torch.cat([band, beyond(self.image_size)])

        def scored(threshold: float) -> list[Hits]:
            pairs = zip(found, truths, strict=True)
            return [hits(each.points[each.scores >= threshold], truth, ignored, near) for each, truth in pairs]

        return best(THRESHOLDS, scored)

    def blobs(self) -> Method:
        """Returns watershed, with parameters chosen on training photographs."""
        need("bench", "skimage")
        few = self.photographs.select(range(min(PHOTOGRAPHS, len(self.photographs))))
        windows = Windows(few, self.parser, self.image_size, "whole", self.sight, self.bands, 0, None)
        scenes = [windows.scene(item) for item in windows.rows]
        shrunk = [torch.tensor(s.picture.x0.shape[:0:-1]) / torch.tensor(s.picture.image.size) for s in scenes]
        truths = [scene.points * factor for scene, factor in zip(scenes, shrunk, strict=True)]
        ignored = [scene.ignored * factor.repeat(2) for scene, factor in zip(scenes, shrunk, strict=True)]
        watershed, f1 = chosen([scene.picture.x0 for scene in scenes], truths, ignored, self.near)

        def find(picture: frame.AnnotatedImage) -> Found:
            return Found(watershed.find(self.seen(picture).cpu()))

        info = {
            "chosen on": f"{len(scenes)} training photographs",
            "objects are": "dark" if watershed.dark else "light",
            "least distance of markers": f"{watershed.distance * self.near:.3g} pixels",
            "F1 there": f1,
        }
        return self.answering("watershed", find, info)

    def report(self, records: Sequence[Record], infos: Infos) -> Report:
        """Returns tables, plots and pictures; a note names the splits on which igm loses."""
        scored = ScoredSplits(records, self.scenes, metrics)
        rows, sentences, found = comparisons(scored)
        told = " ".join([f"Right: within {self.radius:.3g} pixels of the photograph.", *sentences])
        against = report.declared_table("objects", "differences", rows, told=told)
        tables = [replace(against, brief=4)] if rows else []
        shown: list[Figure] = [*figures(scored), *pictures(records, self.scenes, self.parser)]
        more = {"radius": self.radius, "differences": found}
        whole = report.scored_report(self, scored, infos, tables, shown, more)
        return replace(whole, notes=[told, *whole.notes])


SUITE = frame.DeclaredSuite("objects", ObjectsBench)
