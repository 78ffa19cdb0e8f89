"""Clocks and counts of inversions, and what a short descent says of a long one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.inversion import InversionSettings, invert
from igm_cli.core.inference.tally import Tally, with_gflop

FEW_SCORED = 8
"""Draws by which short descents are scored: the whole scoring is measured once, apart from them."""


@dataclass(frozen=True)
class Subject:
    """The model that is measured."""

    denoiser: Denoiser
    composition: Composition
    settings: InversionSettings
    device: torch.device


@dataclass(frozen=True)
class Clock:
    """One timed run: wall-clock and processor seconds (of all threads)."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Count:
    """Use of the network in one run, or the mean of several.

    Attributes:
        passes: Noised images the trunk looked at.
        contributions: (noised image, concept) pairs.
        network_calls: As the inversion itself reports them.
        gflop: 1e9 floating-point operations; nan if not counted.
    """

    passes: float
    contributions: float
    network_calls: float
    gflop: float

    def along(self, other: Count, share: float) -> Count:
        """The count at ``share`` of the straight way from this one to another, beyond it if above 1."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Count(*(a + share * (b - a) for a, b in pairs))

    def times(self, factor: float) -> Count:
        """The count of as many runs."""
        return Count(*(factor * value for value in vars(self).values()))


@dataclass(frozen=True)
class Line:
    """Seconds over steps: slope by least squares, and the farthest point's relative distance from it."""

    slope: float
    deviation: float

    @classmethod
    def fit(cls, steps: Sequence[int], seconds: Sequence[float]) -> Line:
        """Through at least two points."""
        slope, intercept = statistics.linear_regression(steps, seconds)
        off = [abs(intercept + slope * n - s) / s for n, s in zip(steps, seconds, strict=True)]
        return cls(slope, max(off))


def clocked(run: Callable[[], Any], device: torch.device) -> Clock:
    """Times one run, to the end of what it started on the device."""
    _synchronize(device)
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    _synchronize(device)
    return Clock(time.perf_counter() - wall, time.process_time() - cpu)


def counted(
    subject: Subject, image: Tensor, settings: InversionSettings, k: int | None, *, flops: bool
) -> Count:
    """Counts one untimed inversion of an image ``[C,H,W]``."""
    tally = Tally(subject.denoiser)

    def run() -> int:
        return invert(tally, image, settings, k=k, composition=subject.composition).network_calls

    calls, gflop = with_gflop(run) if flops else (run(), float("nan"))
    return Count(tally.used.passes, tally.used.contributions, calls, gflop)


def measure(
    subject: Subject,
    images: Sequence[Tensor],
    settings: InversionSettings,
    k: int | None,
    *,
    repeats: int,
    flops: bool,
) -> dict[str, Any]:
    """What inversions of some images cost, as fields of a row; the first image warms up.

    Args:
        subject: The model.
        images: ``[C,H,W]`` each.
        settings: How to invert.
        k: Number of concepts; None estimates it.
        repeats: Timed runs of each image.
        flops: Whether to count arithmetic.
    """

    def run(image: Tensor) -> None:
        invert(subject.denoiser, image, settings, k=k, composition=subject.composition)

    run(images[0])
    clocks = [clocked(lambda x=x: run(x), subject.device) for x in images for _ in range(repeats)]  # type: ignore[misc]
    counts = [counted(subject, image, settings, k, flops=flops) for image in images]
    return {**_clocks(clocks), **_counts(_mean(counts)), "runs": len(clocks)}


def measure_descent(
    subject: Subject,
    images: Sequence[Tensor],
    settings: InversionSettings,
    k: int,
    *,
    short: int,
    flops: bool,
) -> dict[str, Any]:
    """What ``settings.steps`` steps of descent cost, scaled from few, as fields of a row.

    One step with the whole scoring is measured, and what a further step costs between half and twice
    ``short`` steps; the counts of a step are the same each time, its arithmetic up to windows that hang over the border.

    Args:
        subject: The model.
        images: ``[C,H,W]`` each.
        settings: With the full number of steps.
        k: Number of concepts.
        short: Steps that are run.
        flops: Whether to count arithmetic.
    """
    lengths = (short // 2, short, 2 * short)

    def run(image: Tensor, steps: int, scored: int) -> Clock:
        few = replace(settings, steps=steps, score_draws=scored)
        return clocked(
            lambda: invert(subject.denoiser, image, few, k=k, composition=subject.composition), subject.device
        )

    run(images[0], 1, FEW_SCORED)
    totals, deviations = [], []
    for image in images:
        first = run(image, 1, settings.score_draws)
        runs = [run(image, steps, FEW_SCORED) for steps in lengths]
        wall = Line.fit(lengths, [r.seconds for r in runs])
        cpu = Line.fit(lengths, [r.cpu_seconds for r in runs])
        more = settings.steps - 1
        totals.append(Clock(first.seconds + more * wall.slope, first.cpu_seconds + more * cpu.slope))
        deviations.append(wall.deviation)
    one, two = (counted(subject, images[0], replace(settings, steps=steps), k, flops=flops) for steps in (1, 2))
    count = one.along(two, settings.steps - 1)
    return {
        **_clocks(totals),
        **_counts(count),
        "runs": len(totals),
        "scaled_from": list(lengths),
        "nonlinearity": max(deviations),
    }


def repeated(row: dict[str, Any], times: int) -> dict[str, Any]:
    """Fields of as many runs one after another, each like the one measured."""
    added = (
        "seconds", "seconds_std", "seconds_median", "cpu_seconds",
        "passes", "contributions", "whole_calls", "network_calls", "gflop",
    )  # fmt: skip
    return {
        name: value * times if name in added and value is not None else value for name, value in row.items()
    }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _clocks(clocks: Sequence[Clock]) -> dict[str, float]:
    seconds = [clock.seconds for clock in clocks]
    return {
        "seconds": statistics.fmean(seconds),
        "seconds_std": statistics.stdev(seconds) if len(seconds) > 1 else 0.0,
        "seconds_median": statistics.median(seconds),
        "cpu_seconds": statistics.fmean(clock.cpu_seconds for clock in clocks),
    }


def _counts(count: Count) -> dict[str, Any]:
    return {
        "passes": count.passes,
        "contributions": count.contributions,
        "whole_calls": count.passes + count.contributions,
        "network_calls": count.network_calls,
        "gflop": None if count.gflop != count.gflop else count.gflop,
    }


def _mean(counts: Sequence[Count]) -> Count:
    columns = zip(*(vars(count).values() for count in counts), strict=True)
    return Count(*(statistics.fmean(column) for column in columns))
