"""Suite ``decomposition``: bound vectors into their factors (Yeung et al. 2026), beside resonator networks and our own."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from igm_cli.benchmarks.suite import Record, Report, Request
from igm_cli.benchmarks.suites.cost.points import cores
from igm_cli.benchmarks.suites.decomposition import report
from igm_cli.benchmarks.suites.decomposition.methods import Solver
from igm_cli.benchmarks.suites.decomposition.points import OPTIONS, OWN, SPLITS, Options
from igm_cli.benchmarks.suites.decomposition.settings import METHODS, described
from igm_cli.errors import UsageError


class DecompositionBenchmark:
    """Accuracy, iterations, arithmetic and seconds of taking bound vectors apart."""

    name = "decomposition"
    summary = "bound vectors taken apart: coupled diffusion, resonator networks, exhaustive search, auto"
    concepts = ""  # nothing is trained, so no model is asked for
    methods: Mapping[str, str] = METHODS
    splits: Mapping[str, str] = SPLITS
    options: Mapping[str, str] = OPTIONS

    def default_splits(self, data_root: Path | None) -> tuple[str, ...]:
        """All that need no points of the user's."""
        return tuple(split for split in SPLITS if split != OWN)

    def open(self, request: Request) -> DecompositionBench:
        """Reads the options; problems are made when a point needs them.

        Raises:
            UsageError: If an option or a split cannot be used, or data are given.
        """
        if request.data_root is not None:
            raise UsageError(
                "the decomposition benchmark makes its own random problems; leave out the data root"
            )
        return DecompositionBench(request)


class DecompositionBench:
    """The suite opened for one request."""

    def __init__(self, request: Request) -> None:
        self.request, self.options = request, Options.parse(request.options)
        self.points = self.options.of_splits(request.splits)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Methods, splits, points and limit may differ between two calls."""
        return {
            "seed": self.request.seed,
            "problems": self.options.problems,
            "iterations": self.options.iterations,
            "exhaustive_gflop": self.options.exhaustive_gflop,
            "precision": self.options.precision,
            "settings": {name: described(name) for name in METHODS},
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
            "cores": cores(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def items(self, split: str) -> Sequence[str]:
        """Names of a split's points."""
        return list(self.points[split])[: self.request.limit]

    def method(self, name: str) -> Solver:
        """A method made ready; none of them is trained.

        Raises:
            UsageError: If there is no such method.
        """
        if name not in METHODS:
            raise UsageError(f"decomposition has no method {name!r}; choose among {', '.join(METHODS)}")
        return Solver(name, self.points, self.options, self.request.seed, self.request.device)

    def report(self, records: Sequence[Record], infos: Mapping[str, Mapping[str, Any]]) -> Report:
        """Tables and plots."""
        return report.build(records, infos, self.options, self.machine)
