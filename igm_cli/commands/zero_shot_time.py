"""What ``igm zero-shot`` will take, by one U-Net batch: said before a long run, or asked by ``--estimate``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from igm_cli.errors import counted
from igm_cli.output import span

if TYPE_CHECKING:
    from igm_cli.commands.schemas import ZeroShotEstimate
    from igm_cli.session import ImageSession

LONG = 30.0
"""Seconds above which people are told."""

_QUICK = 1.0
"""Seconds of a first batch on a CPU within which a second one is timed; elsewhere the first one always has more to do."""


def estimate(session: ImageSession, images: int, processes: int = 1) -> ZeroShotEstimate:
    """Returns what some images take in a session, by a batch of calls that is timed."""
    from igm_cli.commands.schemas import ZeroShotEstimate
    from igm_cli.core.device import peak_memory
    from igm_cli.core.inference.engine import constraint_of

    denoiser, settings = session.model.denoiser, session.settings
    space = denoiser.space
    base = session.model.composition == "sum"
    calls = space.dim * space.calls_per_concept + base
    search: Any = constraint_of(space)(space, settings, session.k, 1)
    least = search.least_calls + base * settings.draws
    seconds = seconds_per_call(denoiser, calls * settings.draws)
    each = seconds * -(-images // processes)
    return ZeroShotEstimate(
        schema="igm.zero-shot-estimate/1", model=session.model.name, device=session.device.type,
        images=images, labels=space.dim - (space.nothing_place is not None), templates=len(space.templates),
        calls_per_draw=calls, draws=settings.draws, max_draws=settings.max_draws, least_calls=least,
        seconds_per_call=seconds, memory_gb=peak_memory(session.device), processes=processes,
        least_seconds=each * least, most_seconds=each * calls * settings.max_draws,
    )  # fmt: skip


def between(expected: ZeroShotEstimate) -> str:
    """Returns the least and the most draws in words."""
    fixed = expected.draws == expected.max_draws
    return f"{expected.draws}" if fixed else f"{expected.draws} to {expected.max_draws}"


def rows(expected: ZeroShotEstimate, levels: tuple[float, float], tuned: bool) -> list[tuple[str, str]]:
    """Returns what people read; ``levels`` are those of noise, ``tuned`` says whether they and draws suit the model."""
    least, most = expected.least_calls, expected.calls_per_draw * expected.max_draws
    each, images = expected.seconds_per_call, expected.images
    whose = "as suits the model" if tuned else "of the literature: nothing was tuned to this model"
    memory = "not known" if expected.memory_gb is None else f"{expected.memory_gb:.1f} GB"
    in_all = span(expected.least_seconds, expected.most_seconds)
    return [
        ("labels", f"{expected.labels}, {counted(expected.templates, 'prompt')} each"),
        ("draws", f"{between(expected)}, {whose}"),
        ("noise levels", f"{levels[0]:g} to {levels[1]:g} of the schedule"),
        ("network calls per image", f"{least}" if least == most else f"{least} to {most}"),
        ("seconds per call", f"{each:.3g}"),
        ("time per image", span(each * least, each * most)),
        (f"time of {counted(images, 'image')}", in_all),
        ("memory", memory),
    ]


def warning(session: ImageSession, images: int, world: int = 1) -> str | None:
    """Returns what people are told before a long run of some images by ``world`` processes; None if it is short."""
    expected = estimate(session, images, world)
    least, most = expected.least_seconds, expected.most_seconds
    if most <= LONG:
        return None
    device = session.device.type
    faster = "fewer --labels or --draws" + (", or a GPU," if device == "cpu" else "")
    return (
        f"about {span(least, most)} for {counted(images, 'image')}, "
        f"{counted(expected.labels, 'label')} and {between(expected)} draws on {device}; {faster} are faster"
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
