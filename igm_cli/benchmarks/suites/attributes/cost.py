"""What an inversion costs over the number of factors, on networks of the checkpoint's shape.

A network over so many factors need not be trained for it: no step of the computation depends on the weights
but when to stop drawing noise, and that is fixed to the most draws the checkpoint's settings allow.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from functools import cache
from typing import Any, cast

import torch

from igm_cli.benchmarks.suite import Row
from igm_cli.benchmarks.suites.attributes.inversions import ENUMERATE
from igm_cli.benchmarks.suites.cost.measure import clocked
from igm_cli.core.checkpoint import Checkpoint
from igm_cli.core.concepts import Categorical, space_to_dict
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.inversion import Inversion, InversionSettings, invert

REPEATS = 5
LARGEST = 6
"""Factors up to which enumeration is measured."""

FEW_DRAWS = 2
"""Draws that it is measured with."""


class FactorCost:
    """Times the inversion of one image over so many binary factors.

    Args:
        checkpoint: Whose architecture, composition and image size are taken.
        settings: Of its inversion.
        device: Where to compute.
    """

    def __init__(self, checkpoint: Checkpoint, settings: InversionSettings, device: torch.device) -> None:
        self.checkpoint, self.device = checkpoint, device
        self.settings = replace(settings, method="evidence", draws=settings.max_draws)
        self._enumerated = cache(self._measure_enumeration)

    def igm(self, factors: int) -> Row:
        """The evidence."""
        seconds, inversion = self._timed(factors, self.settings)
        return _row("igm", factors, seconds, inversion.network_calls, inversion.draws)

    def enumerate(self, factors: int) -> Row:
        """All configurations: measured with few draws, and beyond :data:`LARGEST` in proportion to its calls."""
        measured = min(factors, LARGEST)
        seconds, inversion = self._enumerated(measured)
        draws = self.settings.draws
        calls = draws * (1 + calls_of_enumeration(factors))
        return _row(
            ENUMERATE,
            factors,
            seconds * calls / inversion.network_calls,
            calls,
            draws,
            scaled=factors > measured,
            measured={"factors": measured, "draws": inversion.draws, "seconds": seconds},
        )

    def _measure_enumeration(self, factors: int) -> tuple[float, Inversion]:
        draws = min(FEW_DRAWS, self.settings.draws)
        return self._timed(factors, replace(self.settings, method="enumerate", draws=draws))

    def _timed(self, factors: int, settings: InversionSettings) -> tuple[float, Inversion]:
        """Median seconds of some runs after a warm-up, and what one of them found."""
        denoiser, composition = self._fresh(factors), self.checkpoint.composition
        width, height = self.checkpoint.image_size
        generator = torch.Generator().manual_seed(settings.seed)
        image = (torch.rand(3, height, width, generator=generator) * 2 - 1).to(self.device)

        def run() -> Inversion:
            return invert(denoiser, image, settings, composition=composition)

        inversion = run()
        return statistics.median(clocked(run, self.device).seconds for _ in range(REPEATS)), inversion

    def _fresh(self, factors: int) -> Denoiser:
        """A network of the checkpoint's shape with fresh weights."""
        space = Categorical({f"factor {number}": ("no", "yes") for number in range(factors)})
        spec = replace(self.checkpoint.spec, space=space_to_dict(space))
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            model = spec.build()
        model = model.eval().requires_grad_(False)
        return cast(Denoiser, model.to(self.device, memory_format=torch.channels_last))  # type: ignore[call-overload]


def calls_of_enumeration(factors: int, values: int = 2) -> int:
    """Network calls a draw besides the unconditional one: every factor of every configuration."""
    return factors * math.prod([values] * factors)


def _row(label: str, factors: int, seconds: float, calls: int, draws: int, **more: Any) -> Row:
    return {
        "label": label,
        "factors": factors,
        "seconds": seconds,
        "calls": calls,
        "draws": draws,
        "calls_a_draw": calls // draws - 1,
        "scaled": False,
        **more,
    }
