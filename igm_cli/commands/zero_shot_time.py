"""How long ``igm zero-shot`` will take, by one U-Net batch: said before a long run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from igm_cli.commands.zero_shot_session import LabelSession
    from igm_cli.core.models.text_to_image import TextToImageDenoiser

LONG = 30.0
"""Seconds above which people are told."""

_UNITS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
_QUICK = 1.0
"""Seconds of a first batch within which a second one is timed: the first one has more to do."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of a run.

    Attributes:
        least: If every image is settled by the first draws.
        most: If no image is, and no label is given up.
    """

    least: float
    most: float


def estimate(session: LabelSession, images: int) -> Estimate:
    """Of a run over images, by timing the model.

    Args:
        session: Model, labels and draws.
        images: That this process has to do.
    """
    from igm_cli.core.inference.labels import calls_a_draw

    calls = calls_a_draw(session.denoiser.space, session.composition)
    draws = session.settings.draws, session.settings.max_draws
    each = seconds_per_call(session.denoiser, calls * draws[0])
    return Estimate(*(images * calls * count * each for count in draws))


def seconds_per_call(denoiser: TextToImageDenoiser, most: int) -> float:
    """Of a U-Net call, in a batch as it is used.

    Args:
        denoiser: The model; its calls are counted on.
        most: Calls that a batch need not be larger than.
    """
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
        if seconds > _QUICK:
            break
    return seconds / batch


def warning(session: LabelSession, images: int, expected: Estimate) -> str | None:
    """What people are told before a long run; None if it is short."""
    if expected.most <= LONG:
        return None
    s, on_cpu = session.settings, session.denoiser.device.type == "cpu"
    draws = f"{s.draws}" if s.draws == s.max_draws else f"{s.draws} to {s.max_draws}"
    faster = "fewer --labels or --draws" + (", or a GPU," if on_cpu else "")
    return (
        f"about {span(expected.least, expected.most)} for {images} image{'s' * (images != 1)}, "
        f"{session.denoiser.space.dim} labels and {draws} draws on {session.denoiser.device.type}; "
        f"{faster} are faster"
    )


def span(least: float, most: float) -> str:
    """A range of seconds in the unit that suits its end, e.g. ``12 to 45 minutes``."""
    unit, size = next((unit, size) for unit, size in _UNITS.items() if most >= 1.5 * size or size == 1)
    low, high = _figure(least / size), _figure(most / size)
    if low == "0":
        return f"{high} {unit} at most"
    return f"{high} {unit}" if low == high else f"{low} to {high} {unit}"


def _figure(value: float) -> str:
    """Two digits, or one behind the point."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")
