"""Suite ``cost``: the cost of igm's and the paper's inversion on one checkpoint."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor, nn

from igm_cli.benchmarks.frame import AnnotatedImages, DeclaredSuite, MachineBench, declared
from igm_cli.benchmarks.suite import Infos, Method, Record, Report, Request, Row
from igm_cli.benchmarks.suites import cost_measure as measure
from igm_cli.benchmarks.suites.cost_report import BATCHED, ESTIMATED, GIVEN, IN_TURN, build
from igm_cli.benchmarks.timing import cores
from igm_cli.core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, weights_fingerprint
from igm_cli.core.concepts import Continuous
from igm_cli.core.types import InversionSettings
from igm_cli.errors import InputError, UsageError
from igm_cli.plugins import registry

MOST = 12  # objects in one scene
ROOMY = 10
"""Maximum number of objects of the usual sizes in a scene; if there are more, all are small, to fit on the plane."""

ITEMS: Mapping[str, Sequence[str]] = declared("cost")["items"]
"""The points of every axis."""


class CostBench(MachineBench):
    """The suite opened for one request; images are rendered when a point needs them."""

    makes = "renders scenes of 1 to 12 objects"

    def __init__(self, suite: DeclaredSuite, request: Request) -> None:
        super().__init__(suite, request)
        self.flops = bool(self.numbers["flops"])
        self.checkpoint = load_checkpoint(request.model, request.device)
        if not isinstance(self.checkpoint.denoiser.space, Continuous):
            raise UsageError("the cost benchmark needs a model of positions; give one with --model")
        self.base = InversionSettings.from_dict(self.checkpoint.spec.inference, seed=request.seed)
        self._images: dict[tuple[int, int], list[Tensor]] = {}

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The identity; methods, splits and limit are free between two calls."""
        measured = {"suite": self.suite.name, "weights": weights_fingerprint(self.request.model)}
        return {**measured, "options": self.numbers, "settings": self.base.to_dict(), **self.machine}

    def items(self, split: str) -> Sequence[str]:
        """Returns the points of an axis."""
        return ITEMS[split][: self.request.limit]

    def method(self, name: str) -> Method:
        """Returns a method, which gives the rows of a point, but none on an axis of the other method."""
        ours, n = name == "igm", self.numbers
        axes = self._igm() if ours else self._sgd()
        lengths = [n["sgd_steps"] // 2, n["sgd_steps"], 2 * n["sgd_steps"]]
        descent = {"measured_steps": lengths, "scaled_to": {key: n[key] for key in ("steps", "restarts")}}
        info = {"settings": self.base.to_dict()} if ours else descent

        def rows(split: str, item: str) -> list[Row]:
            return axes[split](item.partition("=")[2]) if split in axes else []

        return Method(rows, info)

    def report(self, records: Sequence[Record], infos: Infos) -> Report:
        """Returns tables and plots of every axis, and the ratios."""
        return build(records, self.numbers, self.machine, self.suite)

    def images(self, k: int, count: int) -> list[Tensor]:
        """Returns rendered images ``[3,H,W]`` of k objects on the device."""
        if (k, count) not in self._images:
            options: dict[str, Any] = {"objects": f"{k}-{k}", "size": count, "seed": self.request.seed}
            options |= {"sizes": "small"} if k > ROOMY else {}
            data = registry.dataset("clevr").load("val", progress=self.request.progress, **options)
            scenes = AnnotatedImages(data, registry.concept_parser("pos"), self.checkpoint.spec.image_size)
            self._images[k, count] = [scenes[item].x0.to(self.device) for item in scenes.rows]
        return self._images[k, count]

    def settings(self, k: int, **changes: Any) -> InversionSettings:
        """Returns the checkpoint's settings with room for k objects."""
        return replace(self.base, k_max=max(self.base.k_max, k), **changes)

    def _igm(self) -> Mapping[str, Callable[[str], list[Row]]]:
        """Returns igm's axes as functions from a point's value to rows."""
        objects, n, meter = self.numbers["objects"], self.numbers, measure.Meter(self.checkpoint, self.flops)

        def row(x: int, objects: int, k: int | None, **changes: Any) -> Row:
            images, settings = self.images(objects, n["images"]), self.settings(objects, **changes)
            label = ESTIMATED if k is None else GIVEN
            return {"label": label, "x": x, **meter.measure(images, settings, k, n["repeats"])}

        def candidates(value: str) -> list[Row]:
            grid = tuple(map(int, value.split("x")))
            return [row(math.prod(grid), objects, objects, grid=grid)]

        def draws(value: str) -> list[Row]:
            n = int(value)
            return [row(n, objects, objects, draws=n, max_draws=max(n, self.base.max_draws))]

        return {
            "k": lambda value: [row(int(value), int(value), k) for k in (int(value), None)],
            "candidates": candidates,
            "draws": draws,
            "batch": self._batch,
            "memory": lambda value: self._memory(GIVEN, int(value), self.settings(int(value))),
            "size": self._size,
        }

    @cached_property
    def anywhere(self) -> tuple[Path, Checkpoint]:
        """Folder and model of the checkpoint without the coordinate channels, so that it takes any size."""
        if getattr(self.checkpoint.denoiser, "any_size", False):
            return self.request.model, self.checkpoint
        if self.checkpoint.spec.architecture != "factored":
            raise InputError("the split size needs a factored denoiser; give one with --model, or other splits")
        self._kept = TemporaryDirectory(prefix="igm-")  # removed with the suite
        folder, model = Path(self._kept.name), cast(nn.Module, self.checkpoint.denoiser)
        weights = model.state_dict()
        weights["trunk.stem.weight"] = weights["trunk.stem.weight"][:, :-2]
        spec = self.checkpoint.spec
        save_checkpoint(folder, replace(spec, options={**spec.options, "coordinates": False}), weights)
        return folder, load_checkpoint(folder, self.device)

    def _size(self, value: str) -> list[Row]:
        """Returns the cost on one image of a size, tiled from scenes that together contain about K objects."""
        k, width, height = (int(n) for n in re.findall(r"\d+", value))
        across, down = self.checkpoint.spec.image_size
        each = min(MOST, max(1, round(k * across * down / (width * height))))
        scenes = itertools.cycle(self.images(each, self.numbers["images"]))
        rows = [
            torch.cat([next(scenes) for _ in range(0, width, across)], dim=2) for _ in range(0, height, down)
        ]
        image = torch.cat(rows, dim=1)[:, :height, :width].contiguous()
        (folder, checkpoint), settings, n = self.anywhere, self.settings(k), self.numbers
        cost = measure.Meter(checkpoint, self.flops).measure([image], settings, k, n["repeats"])
        memory = measure.peak_memory(folder, settings, image, k, self.device)
        size = {"size": f"{width}x{height}", "seconds_per_object": cost["seconds"] / k}
        return [{"label": GIVEN, "x": k, **size, **cost, **memory}]

    def _sgd(self) -> Mapping[str, Callable[[str], list[Row]]]:
        """Returns the axes of the paper's algorithm as functions from a point's value to rows."""
        objects, n, meter = self.numbers["objects"], self.numbers, measure.Meter(self.checkpoint, self.flops)
        restarts = n["restarts"]

        def settings(k: int, restarts: int, steps: int) -> InversionSettings:
            return self.settings(k, method="sgd", restarts=restarts, steps=steps)

        def both_ways(x: int, k: int, restarts: int) -> list[Row]:
            """Returns the cost of all restarts under the same draws in one batch (ours), and in sequence (the paper's)."""
            images = self.images(k, n["images"])
            cost = {
                starts: meter.descent(images, settings(k, starts, n["steps"]), k, n["sgd_steps"])
                for starts in {1, restarts}
            }
            ways = {BATCHED: cost[restarts], IN_TURN: measure.repeated(cost[1], restarts)}
            return [{"label": label, "x": x, "restarts": restarts, **cost} for label, cost in ways.items()]

        def steps(value: str) -> list[Row]:
            few = settings(objects, restarts, int(value))
            cost = meter.measure(self.images(objects, n["images"]), few, objects, repeats=1)
            return [{"label": f"igm-sgd, R={restarts}, as measured", "x": int(value), **cost}]

        def memory(value: str) -> list[Row]:
            two_steps = settings(int(value), restarts, 2)
            return self._memory(f"igm-sgd, R={restarts} in one batch", int(value), two_steps)

        return {
            "k": lambda value: both_ways(int(value), int(value), restarts),
            "restarts": lambda value: both_ways(int(value), objects, int(value)),
            "steps": steps,
            "memory": memory,
        }

    def _memory(self, label: str, k: int, settings: InversionSettings) -> list[Row]:
        image = self.images(k, self.numbers["images"])[0]
        used = measure.peak_memory(self.request.model, settings, image, k, self.device)
        return [{"label": label, "x": k, **used}]

    def _batch(self, way: str) -> list[Row]:
        crew = self.numbers["workers"] or cores()
        images = self.images(self.numbers["objects"], self.numbers["batch"])
        if way == "in turn":
            crew, label = 1, f"in turn, {torch.get_num_threads()} threads"
            seconds = measure.seconds_in_turn(self.checkpoint, self.base, images)
        elif self.device.type != "cpu":
            return []  # processes do not share one device
        elif way == "threads":
            label = f"{crew} worker threads of one core each"
            seconds = measure.seconds_by_threads(self.checkpoint, self.base, images, crew)
        else:
            label = f"{crew} worker processes of one core each"
            seconds = measure.seconds_by_processes(self.request.model, self.base, images, crew)
        rate = len(images) / seconds
        cost = {"images": len(images), "images_per_second": rate, "seconds": seconds / len(images)}
        return [{"label": f"igm, {label}", "x": crew, **cost}]


SUITE = DeclaredSuite("cost", CostBench)
