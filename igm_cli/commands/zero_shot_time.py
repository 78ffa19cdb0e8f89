"""What ``igm zero-shot`` will take, by one U-Net batch: said before a long run, or asked by ``--estimate``."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from igm_cli.output import span

if TYPE_CHECKING:
    from igm_cli.session import ImageSession

LONG = 30.0
"""Seconds above which people are told."""

_QUICK = 1.0
"""Seconds of a first batch on a CPU within which a second one is timed; elsewhere the first one always has more to do."""


@dataclass(frozen=True)
class Estimate:
    """What ``igm zero-shot`` takes.

    Attributes:
        images: How many.
        labels: How many.
        templates: How many prompts are averaged for each.
        calls_per_draw: U-Net calls under one noise draw.
        draws: Of the first decision.
        max_draws: At most.
        least_calls: U-Net calls per image if labels are given up early and the first draws decide.
        seconds_per_call: Of the U-Net, in a batch as it is used.
        memory_gb: Most memory taken so far; None where that is not known.
        processes: Among how many the images are shared.
    """

    images: int
    labels: int
    templates: int
    calls_per_draw: int
    draws: int
    max_draws: int
    least_calls: int
    seconds_per_call: float
    memory_gb: float | None
    processes: int = 1

    @classmethod
    def of(cls, session: ImageSession, images: int, processes: int = 1) -> Estimate:
        """Returns what some images take in a session, by a batch of calls that is timed."""
        from igm_cli.core.device import peak_memory
        from igm_cli.core.inference.engine import constraint_of

        denoiser, settings = session.model.denoiser, session.settings
        space = denoiser.space
        base = session.model.composition == "sum"
        calls = space.dim * space.calls_per_concept + base
        search: Any = constraint_of(space)(space, settings, session.k, 1)
        least = search.least_calls + base * settings.draws
        seconds = seconds_per_call(denoiser, calls * settings.draws)
        memory = peak_memory(session.device)
        return cls(
            images,
            space.dim - (space.nothing_place is not None),
            len(space.templates),
            calls,
            settings.draws,
            settings.max_draws,
            least,
            seconds,
            memory,
            processes,
        )

    def seconds(self, images: int = 1) -> tuple[float, float]:
        """Returns the least and the most seconds of some images."""
        each = self.seconds_per_call * images
        return each * self.least_calls, each * self.calls_per_draw * self.max_draws

    @property
    def seconds_in_all(self) -> tuple[float, float]:
        """The least and the most seconds of all images."""
        return self.seconds(-(-self.images // self.processes))

    @property
    def between(self) -> str:
        """Least and most draws in words."""
        return f"{self.draws}" if self.draws == self.max_draws else f"{self.draws} to {self.max_draws}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the record of ``--json``."""
        low, high = self.seconds_in_all
        return {
            "schema": "igm.zero-shot-estimate/1",
            **asdict(self),
            "least_seconds": low,
            "most_seconds": high,
        }

    def rows(self, levels: tuple[float, float], tuned: bool) -> list[tuple[str, str]]:
        """Returns what people read; ``levels`` are those of noise, ``tuned`` says whether they and draws suit the model."""
        least, most = self.least_calls, self.calls_per_draw * self.max_draws
        whose = "as suits the model" if tuned else "of the literature: nothing was tuned to this model"
        memory = "not known" if self.memory_gb is None else f"{self.memory_gb:.1f} GB"
        return [
            ("labels", f"{self.labels}, {self.templates} prompt{'s' * (self.templates != 1)} each"),
            ("draws", f"{self.between}, {whose}"),
            ("noise levels", f"{levels[0]:g} to {levels[1]:g} of the schedule"),
            ("network calls per image", f"{least}" if least == most else f"{least} to {most}"),
            ("seconds per call", f"{self.seconds_per_call:.3g}"),
            ("time per image", span(*self.seconds())),
            (f"time of {self.images} image{'s' * (self.images != 1)}", span(*self.seconds_in_all)),
            ("memory", memory),
        ]


def warning(session: ImageSession, images: int, world: int = 1) -> str | None:
    """Returns what people are told before a long run of some images by ``world`` processes; None if it is short."""
    expected = Estimate.of(session, images, world)
    least, most = expected.seconds_in_all
    if most <= LONG:
        return None
    device = session.device.type
    faster = "fewer --labels or --draws" + (", or a GPU," if device == "cpu" else "")
    return (
        f"about {span(least, most)} for {images} image{'s' * (images != 1)}, "
        f"{expected.labels} labels and {expected.between} draws on {device}; {faster} are faster"
    )


def seconds_per_call(denoiser: Any, most: int) -> float:
    """Returns the seconds of a U-Net call, in a batch as it is used but no larger than ``most``."""
    import torch

    batch = min(denoiser.batch, most)
    shape = (batch, *denoiser.latent_shape)
    steps = torch.full((batch,), denoiser.schedule.steps // 2, dtype=torch.long, device=denoiser.device)
    features = denoiser.features(torch.zeros(shape, device=denoiser.device), steps)
    prompt = [denoiser.space.prompts(0)[0]]
    for _ in range(2):
        started = time.monotonic()
        denoiser.predictions_of_prompts(features, prompt)
        seconds = time.monotonic() - started
        if denoiser.device.type == "cpu" and seconds > _QUICK:
            break
    return float(seconds / batch)
