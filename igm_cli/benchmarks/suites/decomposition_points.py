"""The points of the suite ``decomposition``: kinds of problems, and schemes of restarts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from igm_cli.core.decomposition.binding import BINDINGS
from igm_cli.errors import UsageError

AUTO, COUPLED, EXHAUSTIVE, RESONATOR = "auto", "coupled", "exhaustive", "resonator"
"""Methods that the report compares."""

OWN = "points"
"""The split whose points are given with ``--set points=``."""

_NAME = re.compile(
    r"(?:(?P<binding>[a-z]+)-)?K(?P<factors>\d+)-n(?P<codewords>\d+)-D(?P<dim>\d+)"
    r"(?:-noise(?P<noise>\d+(?:\.\d+)?))?(?:-rho(?P<ratio>\d+(?:\.\d+)?)-R(?P<restarts>\d+))?(?:-T(?P<steps>\d+))?"
)


@dataclass(frozen=True)
class Point:
    """One point of a figure."""

    factors: int  # K
    codewords: int  # n, per codebook
    dim: int  # D
    noise: float = 0.0  # standard deviation of white noise, relative to that of the bound vector's coordinates
    binding: str = "map"  # or hrr or fhrr
    ratio: float | None = None  # ρ of coupled diffusion; its own setting if None
    restarts: int | None = None  # R of coupled diffusion; the iterations' maximum if None
    steps: int | None = None  # of coupled diffusion; its own setting if None

    @property
    def name(self) -> str:
        """The name, which :meth:`parse` turns back into the point."""
        kind = "" if self.binding == "map" else f"{self.binding}-"
        noise = f"-noise{self.noise:g}" if self.noise else ""
        scheme = f"-rho{self.ratio:g}-R{self.restarts}" if self.ratio is not None else ""
        steps = f"-T{self.steps}" if self.steps is not None else ""
        return f"{kind}K{self.factors}-n{self.codewords}-D{self.dim}{noise}{scheme}{steps}"

    @property
    def problem(self) -> Point:
        """The point without the scheme: points of one problem share their random vectors."""
        return replace(self, ratio=None, restarts=None, steps=None)

    @property
    def search_space(self) -> int:
        """The number of products n^K."""
        return int(self.codewords**self.factors)

    @property
    def coupled_only(self) -> bool:
        """Whether the point concerns only the scheme of coupled diffusion."""
        return self.ratio is not None or self.steps is not None

    @classmethod
    def parse(cls, name: str) -> Point:
        """Returns the point with a name; raises UsageError if the name is invalid."""
        name = name.strip()
        found = _NAME.fullmatch(name)
        if not found:
            raise UsageError(
                f"{name!r} of --set points names no point; write one like K3-n50-D1000 or hrr-K3-n50-D1000-noise0.5"
            )
        part = {key: value for key, value in found.groupdict().items() if value is not None}
        binding = part.pop("binding", "map")
        if binding not in BINDINGS:
            known = ", ".join(BINDINGS)
            raise UsageError(f"unknown binding {binding!r} in the point {name!r}; known are {known}")
        real = {key: float(part.pop(key)) for key in ("noise", "ratio") if key in part}
        point = cls(binding=binding, **real, **{key: int(value) for key, value in part.items()})  # type: ignore[arg-type]
        if point.factors < 2 or point.codewords < 2 or not point.dim or point.steps == 0:
            raise UsageError(f"the point {name!r} is empty; K and n are at least 2, D and T at least 1")
        if point.ratio is not None and not 0 < point.ratio <= 1:
            raise UsageError(f"ρ of the point {name!r} must be more than 0 and at most 1")
        return point


DEMANDED: Mapping[str, tuple[float, float]] = {
    "K3-n100-D1000": (0.99, 1.0),
    "K3-n200-D1000": (0.99, 1.0),
    "K4-n100-D2000": (0.90, 0.1),
    "K3-n256-D256": (0.99, 1.0),
}
"""Exact accuracy required of ``auto``, and the maximum of its arithmetic relative to exhaustive search."""

_SIZES = {
    2: (50, 100, 200, 400, 700, 1000),
    3: (20, 30, 40, 50, 70, 100, 150, 200),
    4: (10, 20, 30, 40, 50, 70, 100),
}
_RATIOS, _RESTARTS = (0.2, 0.35, 0.5, 0.7, 1.0), (0, 1, 3, 10, 30)

POINTS: Mapping[str, tuple[Point, ...]] = {
    "targets": tuple(map(Point.parse, DEMANDED)),
    "size": tuple(Point(factors, n, 1000) for factors, sizes in _SIZES.items() for n in sizes),
    "dimension": tuple(Point(3, 50, dim) for dim in (128, 256, 384, 512, 768, 1000, 1500, 2000)),
    "restarts": tuple(Point(3, 40, 1000, ratio=rho, restarts=r) for rho in _RATIOS for r in _RESTARTS),
    "steps": tuple(Point(3, 40, 1000, steps=steps) for steps in (2, 4, 8, 16, 32, 64, 128)),
    "noise": tuple(Point(3, 50, 1000, noise=noise) for noise in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)),
    "bindings": tuple(Point(3, 50, 1000, binding=binding) for binding in BINDINGS),
}
