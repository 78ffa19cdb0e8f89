"""Benchmark ``cost``: what an inversion costs, ours beside the paper's, on one checkpoint."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igm_cli.benchmarks.suite import Bench, Method, Record, Report, Request, Row
from igm_cli.benchmarks.suites.cost import points, report, workers
from igm_cli.benchmarks.suites.cost.measure import Subject, measure, measure_descent, repeated
from igm_cli.benchmarks.suites.cost.points import Options
from igm_cli.core.checkpoint import fingerprint, load_checkpoint
from igm_cli.core.concepts import Continuous
from igm_cli.core.inference.inversion import InversionSettings
from igm_cli.errors import UsageError
from igm_cli.imaging import to_model, to_rgb
from igm_cli.plugins import registry
from igm_cli.plugins.base import Frame

ROOMY = 10
"""Most objects of the usual sizes in a scene; more are all small, so that they fit on the plane."""


class Cost:
    """Seconds, network use, arithmetic and memory of an inversion."""

    name = "cost"
    summary = "what an inversion costs: seconds, network calls, arithmetic, memory"
    methods: Mapping[str, str] = {
        "igm": "inversion by evidence (ours)",
        "igm-sgd": "the paper's algorithm: stochastic gradient descent from random starts",
    }
    splits: Mapping[str, str] = points.AXES
    options: Mapping[str, str] = points.HELP
    concepts = "pos"

    def default_splits(self, data_root: Path | None) -> tuple[str, ...]:
        """Every axis."""
        return tuple(points.AXES)

    def open(self, request: Request) -> Bench:
        """Loads the model; images are rendered when a point needs them.

        Raises:
            UsageError: If an option or a split is unknown, data are given, or the model has no positions.
        """
        if request.data_root is not None:
            raise UsageError("the cost benchmark renders scenes of 1 to 12 objects; leave out the data root")
        unknown = sorted(set(request.splits) - set(points.AXES))
        if unknown:
            raise UsageError(f"cost has no split {unknown[0]!r}; choose among {', '.join(points.AXES)}")
        return CostBench(request, Options.parse(request.options))


class CostBench:
    """The benchmark opened for one request."""

    def __init__(self, request: Request, options: Options) -> None:
        self.request, self.options = request, options
        checkpoint = load_checkpoint(request.model, request.device)
        if not isinstance(checkpoint.denoiser.space, Continuous):
            raise UsageError("the cost benchmark needs a model of positions; give one with --model")
        self.image_size = checkpoint.image_size
        settings = InversionSettings.from_dict(checkpoint.inference, seed=request.seed)
        self.subject = Subject(checkpoint.denoiser, checkpoint.composition, settings, request.device)
        self._images: dict[tuple[int, int], list[Tensor]] = {}
        self.identity: Mapping[str, Any] = {
            "suite": Cost.name,
            "weights": fingerprint(request.model),
            "options": options.to_dict(),
            "settings": settings.to_dict(),
            **self.machine,
        }

    @cached_property
    def machine(self) -> Mapping[str, Any]:
        """What computes."""
        device = self.request.device
        cuda = device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(device) if cuda else str(device),
            "processor": platform.processor() or platform.machine(),
            "cores": points.cores(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def items(self, split: str) -> Sequence[str]:
        """Points of an axis."""
        return points.ITEMS[split][: self.request.limit]

    def method(self, name: str) -> Method:
        """``igm`` or ``igm-sgd``."""
        if name not in Cost.methods:
            raise UsageError(f"cost has no method {name!r}; choose {' or '.join(Cost.methods)}")
        return Igm(self) if name == "igm" else Sgd(self)

    def report(self, records: Sequence[Record], infos: Mapping[str, Mapping[str, Any]]) -> Report:
        """Tables and plots of every axis, and the ratios."""
        return report.build(records, self.options, self.machine)

    def images(self, k: int, count: int) -> list[Tensor]:
        """Rendered images ``[3,H,W]`` of k objects on the device."""
        if (k, count) not in self._images:
            options: dict[str, Any] = {"objects": f"{k}-{k}", "size": count}
            if k > ROOMY:
                options["sizes"] = "small"
            data = registry.dataset("clevr").load(
                "val", seed=self.request.seed, progress=self.request.progress, **options
            )
            width, height = self.image_size
            self._images[k, count] = [
                to_model(to_rgb(e["image"]), Frame.fit(e["image"].size, width / height), self.image_size).to(
                    self.request.device
                )
                for e in data
            ]
        return self._images[k, count]

    def settings(self, k: int, **changes: Any) -> InversionSettings:
        """Of the checkpoint, with room for k objects."""
        return replace(self.subject.settings, k_max=max(self.subject.settings.k_max, k), **changes)


class Igm:
    """Inversion by evidence along every axis."""

    limit: int | None = None

    def __init__(self, bench: CostBench) -> None:
        self.bench = bench
        self.info: Mapping[str, Any] = {"settings": bench.subject.settings.to_dict()}

    def __call__(self, split: str, item: str) -> list[Row]:
        """Rows of one point; none on an axis of the other method."""
        k = self.bench.options.objects
        if split == "k":
            k = int(points.value_of(item))
            given = self._row("igm, K given", k, self._measure(k, self.bench.settings(k), k))
            return [given, self._row("igm, K estimated", k, self._measure(k, self.bench.settings(k), None))]
        if split == "candidates":
            grid = points.grid_of(item)
            row = self._measure(k, self.bench.settings(k, grid=grid), k)
            return [self._row("igm, K given", grid[0] * grid[1], row)]
        if split == "draws":
            n = int(points.value_of(item))
            least = max(n, self.bench.subject.settings.max_draws)
            row = self._measure(k, self.bench.settings(k, draws=n, max_draws=least), k)
            return [self._row("igm, K given", n, row)]
        if split == "memory":
            return [self._memory(int(points.value_of(item)))]
        return self._batch(points.value_of(item)) if split == "batch" else []

    def _measure(self, objects: int, settings: InversionSettings, k: int | None) -> dict[str, Any]:
        options = self.bench.options
        images = self.bench.images(objects, options.images)
        return measure(
            self.bench.subject, images, settings, k, repeats=options.repeats, flops=bool(options.flops)
        )

    def _row(self, label: str, x: float, fields: Mapping[str, Any]) -> Row:
        return {"label": label, "x": x, **fields}

    def _memory(self, k: int) -> Row:
        image = self.bench.images(k, self.bench.options.images)[0]
        request = self.bench.request
        used = workers.peak_memory(request.model, self.bench.settings(k), image, k, request.device)
        return self._row("igm, K given", k, used)

    def _batch(self, way: str) -> list[Row]:
        bench, crew = self.bench, self.bench.options.crew
        images = bench.images(bench.options.objects, bench.options.batch)
        if way == "in turn":
            crew, label = 1, f"in turn, {torch.get_num_threads()} threads"
            seconds = workers.seconds_in_turn(bench.subject, images)
        elif bench.request.device.type != "cpu":
            return []  # one device is shared by nobody
        elif way == "threads":
            label = f"{crew} worker threads of one core each"
            seconds = workers.seconds_by_threads(bench.subject, images, crew)
        else:
            label = f"{crew} worker processes of one core each"
            seconds = workers.seconds_by_processes(bench.request.model, bench.subject.settings, images, crew)
        rate = len(images) / seconds
        fields = {"images": len(images), "images_per_second": rate, "seconds": seconds / len(images)}
        return [self._row(f"igm, {label}", crew, fields)]


class Sgd:
    """The paper's algorithm along the axes it has."""

    limit: int | None = None

    def __init__(self, bench: CostBench) -> None:
        self.bench = bench
        o = bench.options
        self.full = f"R={o.restarts}, {o.steps} steps"
        self.info: Mapping[str, Any] = {
            "measured_steps": [o.sgd_steps // 2, o.sgd_steps, 2 * o.sgd_steps],
            "scaled_to": {"steps": o.steps, "restarts": o.restarts},
        }

    def __call__(self, split: str, item: str) -> list[Row]:
        """Rows of one point; none on an axis of the other method."""
        k, options = self.bench.options.objects, self.bench.options
        if split == "k":
            k = int(points.value_of(item))
            return self._both_ways(k, k, options.restarts)
        if split == "restarts":
            r = int(points.value_of(item))
            return self._both_ways(r, k, r)
        if split == "steps":
            return [self._few_steps(int(points.value_of(item)), k)]
        if split == "memory":
            return [self._memory(int(points.value_of(item)))]
        return []

    def _settings(self, k: int, restarts: int, steps: int) -> InversionSettings:
        return self.bench.settings(k, method="sgd", restarts=restarts, steps=steps)

    def _both_ways(self, x: float, k: int, restarts: int) -> list[Row]:
        """All restarts under the same draws in one batch (ours), and one after another (the paper's)."""
        one = self._scaled(k, 1)
        batched = self._scaled(k, restarts) if restarts > 1 else one
        return [
            {"label": report.BATCHED, "x": x, "restarts": restarts, **batched},
            {"label": report.IN_TURN, "x": x, "restarts": restarts, **repeated(one, restarts)},
        ]

    def _scaled(self, k: int, restarts: int) -> dict[str, Any]:
        options = self.bench.options
        return measure_descent(
            self.bench.subject,
            self.bench.images(k, options.images),
            self._settings(k, restarts, options.steps),
            k,
            short=options.sgd_steps,
            flops=bool(options.flops),
        )

    def _few_steps(self, steps: int, k: int) -> Row:
        options, subject = self.bench.options, self.bench.subject
        images = self.bench.images(k, options.images)
        settings = self._settings(k, options.restarts, steps)
        row = measure(subject, images, settings, k, repeats=1, flops=bool(options.flops))
        return {"label": f"igm-sgd, R={options.restarts}, as measured", "x": steps, **row}

    def _memory(self, k: int) -> Row:
        request, options = self.bench.request, self.bench.options
        image = self.bench.images(k, options.images)[0]
        settings = self._settings(k, options.restarts, 2)
        used = workers.peak_memory(request.model, settings, image, k, request.device)
        return {"label": f"igm-sgd, R={options.restarts} in one batch", "x": k, **used}
