"""Clocks and counts of inversions, and what a short descent tells about a long one (suite ``cost``)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor

from igm_cli.benchmarks.timing import Clock, clocked
from igm_cli.core.checkpoint import Checkpoint
from igm_cli.core.inference.call_counter import CallCounter, with_gflop
from igm_cli.core.inference.engine import invert
from igm_cli.core.types import InversionSettings

FEW_SCORED = 8
"""Draws by which short descents are scored: the whole scoring is measured once, apart from them."""


class NetworkUse(NamedTuple):
    """Use of the network in one run, or the mean of several."""

    passes: float  # noised images the trunk looked at
    contributions: float  # (noised image, concept) pairs
    network_calls: float  # as the inversion itself reports them
    gflop: float  # 1e9 floating-point operations; nan if not counted

    def along(self, other: NetworkUse, share: float) -> NetworkUse:
        """Returns the count at ``share`` of the straight way from this one to another, beyond it if above 1."""
        return NetworkUse(*(a + share * (b - a) for a, b in zip(self, other, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields of a row."""
        gflop = None if self.gflop != self.gflop else self.gflop
        return {**self._asdict(), "whole_calls": self.passes + self.contributions, "gflop": gflop}


@dataclass(frozen=True)
class Meter:
    """Measures inversions of images ``[C,H,W]`` by a model; ``flops`` tells whether to count arithmetic."""

    checkpoint: Checkpoint
    flops: bool

    def timed(self, image: Tensor, settings: InversionSettings, k: int | None) -> Clock:
        """Times one inversion."""
        denoiser, composition = self.checkpoint.denoiser, self.checkpoint.spec.composition
        return clocked(lambda: invert(denoiser, image, settings, k=k, composition=composition), image.device)

    def counted(self, image: Tensor, settings: InversionSettings, k: int | None) -> NetworkUse:
        """Counts one untimed inversion."""
        tally = CallCounter(self.checkpoint.denoiser)

        def run() -> int:
            return invert(
                tally, image, settings, k=k, composition=self.checkpoint.spec.composition
            ).network_calls

        calls, gflop = with_gflop(run) if self.flops else (run(), float("nan"))
        return NetworkUse(tally.used.passes, tally.used.contributions, calls, gflop)

    def measure(
        self, images: Sequence[Tensor], settings: InversionSettings, k: int | None, repeats: int
    ) -> dict[str, Any]:
        """Returns what inversions cost, as fields of a row: each is timed ``repeats`` times, the first image warms up."""
        self.timed(images[0], settings, k)
        clocks = [self.timed(image, settings, k) for image in images for _ in range(repeats)]
        counts = [self.counted(image, settings, k) for image in images]
        mean = NetworkUse(*map(statistics.fmean, zip(*counts, strict=True)))
        return {**_clocks(clocks), **mean.to_dict(), "runs": len(clocks)}

    def descent(
        self, images: Sequence[Tensor], settings: InversionSettings, k: int, short: int
    ) -> dict[str, Any]:
        """Returns what ``settings.steps`` steps of descent cost, scaled from few, as fields of a row.

        One step with the whole scoring is measured, and what a further step costs between half and twice
        ``short`` steps; the counts of a step are the same each time, its arithmetic up to windows that hang over
        the border.
        """
        lengths, more = (short // 2, short, 2 * short), settings.steps - 1

        def run(image: Tensor, steps: int, scored: int) -> Clock:
            return self.timed(image, replace(settings, steps=steps, score_draws=scored), k)

        run(images[0], 1, FEW_SCORED)
        totals, deviations = [], []
        for image in images:
            first = run(image, 1, settings.score_draws)
            runs = [run(image, steps, FEW_SCORED) for steps in lengths]
            wall, deviation = line(lengths, [r.seconds for r in runs])
            cpu, _ = line(lengths, [r.cpu_seconds for r in runs])
            totals.append(Clock(first.seconds + more * wall, first.cpu_seconds + more * cpu))
            deviations.append(deviation)
        one, two = (self.counted(images[0], replace(settings, steps=steps), k) for steps in (1, 2))
        scaled = {"scaled_from": list(lengths), "nonlinearity": max(deviations)}
        return {**_clocks(totals), **one.along(two, more).to_dict(), "runs": len(totals), **scaled}


def line(steps: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Returns the slope of seconds over steps by least squares, and the farthest point's relative distance from it."""
    slope, intercept = statistics.linear_regression(steps, seconds)
    return slope, max(abs(intercept + slope * n - s) / s for n, s in zip(steps, seconds, strict=True))


def repeated(row: dict[str, Any], times: int) -> dict[str, Any]:
    """Returns the fields of as many runs one after another, each like the one measured."""
    kept = ("label", "runs", "scaled_from", "nonlinearity")
    return {name: v if name in kept or v is None else v * times for name, v in row.items()}


def _clocks(clocks: Sequence[Clock]) -> dict[str, float]:
    seconds = [clock.seconds for clock in clocks]
    return {
        "seconds": statistics.fmean(seconds),
        "seconds_std": statistics.stdev(seconds) if len(seconds) > 1 else 0.0,
        "seconds_median": statistics.median(seconds),
        "cpu_seconds": statistics.fmean(clock.cpu_seconds for clock in clocks),
    }
