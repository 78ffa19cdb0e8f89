"""How long ``igm zero-shot`` will take, by one U-Net batch: said before a long run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from igm_cli.output import span

if TYPE_CHECKING:
    from igm_cli.session import ImageSession

LONG = 30.0
"""Seconds above which people are told."""

_QUICK = 1.0
"""Seconds of a first batch on a CPU within which a second one is timed; elsewhere the first one always has more to do."""


def warning(session: ImageSession, images: int, world: int = 1) -> str | None:
    """Returns what people are told before a long run of some images by ``world`` processes; None if it is short."""
    denoiser, settings = session.model.denoiser, session.settings
    calls = denoiser.space.dim * len(denoiser.space.templates) + (session.model.composition == "sum")
    each = seconds_per_call(denoiser, calls * settings.draws) * calls * -(-images // world)
    least, most = each * settings.draws, each * settings.max_draws
    if most <= LONG:
        return None
    device, s = session.device.type, settings
    draws = f"{s.draws}" if s.draws == s.max_draws else f"{s.draws} to {s.max_draws}"
    faster = "fewer --labels or --draws" + (", or a GPU," if device == "cpu" else "")
    return (
        f"about {span(least, most)} for {images} image{'s' * (images != 1)}, "
        f"{denoiser.space.dim} labels and {draws} draws on {device}; {faster} are faster"
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
