"""The axes of the benchmark, their points, and its options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from igm_cli.errors import UsageError

AXES: Mapping[str, str] = {
    "k": "objects in the image",
    "candidates": "candidates of the grid (igm)",
    "draws": "noise draws (igm, K given)",
    "restarts": "random starts R (igm-sgd, scaled to its full steps)",
    "steps": "steps of descent, as measured (igm-sgd)",
    "batch": "images per second, in one process and shared among workers (igm, K estimated)",
    "memory": "peak memory of one inversion",
}
ITEMS: Mapping[str, tuple[str, ...]] = {
    "k": tuple(f"k={k}" for k in range(1, 13)),
    "candidates": ("grid=12x8", "grid=18x12", "grid=24x16", "grid=36x24", "grid=48x32"),
    "draws": tuple(f"draws={n}" for n in (4, 8, 12, 16, 32, 64)),
    "restarts": tuple(f"restarts={n}" for n in (1, 5, 10, 15, 20)),
    "steps": tuple(f"steps={n}" for n in (5, 10, 20, 40, 80)),
    "batch": ("way=in turn", "way=threads", "way=processes"),
    "memory": ("k=2", "k=5", "k=8", "k=12"),
}


@dataclass(frozen=True)
class Options:
    """Options of the suite.

    Attributes:
        images: Images a point is measured on.
        repeats: Timed runs of igm on each.
        objects: Objects in the images of every axis but ``k`` and ``memory``.
        sgd_steps: igm-sgd is measured at half, once and twice as many steps and scaled.
        steps: Steps of the paper's algorithm.
        restarts: Its random starts R.
        batch: Images of the ``batch`` axis.
        workers: Worker threads and processes of it; 0 for one a core.
        flops: 1 counts arithmetic, too; 0 does not.
    """

    images: int = 4
    repeats: int = 2
    objects: int = 5
    sgd_steps: int = 20
    steps: int = 2000
    restarts: int = 20
    batch: int = 16
    workers: int = 0
    flops: int = 1

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Options:
        """Options as ``--set`` gives them.

        Raises:
            UsageError: If one is unknown, no whole number or too small.
        """
        known = [field.name for field in fields(cls)]
        for name, value in given.items():
            if name not in known:
                raise UsageError(f"cost has no option {name!r}; it has {', '.join(known)}")
            if not str(value).isdigit() or int(value) < (0 if name in ("workers", "flops") else 1):
                raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")
        options = cls(**{name: int(value) for name, value in given.items()})
        if options.sgd_steps < 2:
            raise UsageError("sgd_steps must be at least 2, because half of them are measured, too")
        return options

    def to_dict(self) -> dict[str, int]:
        """JSON form."""
        return asdict(self)

    @property
    def crew(self) -> int:
        """Workers of the ``batch`` axis."""
        return self.workers or cores()


HELP: Mapping[str, str] = {
    "images": "images a point is measured on",
    "repeats": "timed runs of igm on each image",
    "objects": "objects in the images of every axis but k and memory",
    "sgd_steps": "igm-sgd is measured at half, once and twice as many steps and scaled",
    "steps": "steps of the paper's algorithm, to which igm-sgd is scaled",
    "restarts": "random starts of the paper's algorithm",
    "batch": "images of the batch axis",
    "workers": "worker threads and processes of the batch axis; 0 for one a core",
    "flops": "1 counts arithmetic in untimed runs, 0 does not",
}


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def value_of(item: str) -> str:
    """``2`` of ``k=2``."""
    return item.partition("=")[2]


def grid_of(item: str) -> tuple[int, ...]:
    """``(24, 16)`` of ``grid=24x16``."""
    return tuple(int(n) for n in value_of(item).split("x"))
