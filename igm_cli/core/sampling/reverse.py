"""The reverse process: from noise to an image, level by level.

    x0 = (x_t - sigma_t eps) / alpha_t,   x_s = alpha_s x0 + sqrt(sigma_s² - eta² s²) eps + eta s z,
    s² = sigma_s² (1 - (alpha_t sigma_s / (alpha_s sigma_t))²)            (DDIM, Song et al. 2021, eq. 12 and 16)

with eta = 0 for ``ddim`` and eta = 1 for ``ancestral`` steps (DDPM, Ho et al. 2020).  In this form s² is the variance of
x_s given x_t and x0 for any alpha² + sigma²: also on a flow, where eta = 0 is an Euler step along the velocity.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from igm_cli.core.noise_schedule import Schedule
from igm_cli.core.sampling.composed import Composed
from igm_cli.core.sampling.correctors import Corrector
from igm_cli.core.sampling.noise import ImageNoise
from igm_cli.core.sampling.particles import Particles
from igm_cli.core.validation import Sampler

Level: TypeAlias = tuple[float, float]
"""alpha and sigma."""


def levels(schedule: Schedule, steps: int) -> list[int]:
    """Returns the timesteps of a reverse process, from the last to 0."""
    return torch.linspace(schedule.steps - 1, 0, steps + 1).round().long().tolist()


def sample(
    model: Composed,
    shape: tuple[int, int, int],
    *,
    steps: int = 30,
    seed: int = 0,
    first: int = 0,
    sampler: Sampler = "ddim",
    corrector: Corrector | None = None,
    particles: int = 1,
    clip: bool = True,
    progress: Callable[[int, int], None] = lambda done, most: None,
) -> Tensor:
    """Draws one image for every set of concepts.

    Args:
        model: B sets of concepts, with their models.
        shape: (C, H, W) of an image.
        steps: Noise levels on the way.
        seed: Seed of all randomness.
        first: Number of the first image; image number i depends on the seed and on i alone.
        sampler: ``ddim`` or ``ancestral``.
        corrector: Steps at every level but the last; None for none.
        particles: M, particles per set, one of which is returned.  Their weights are those of ``ancestral`` steps.
        clip: Whether x0 is kept in -1..1 on the way; latents are not.
        progress: Called with the number of levels done and in total.

    Returns:
        ``[B,C,H,W]``, nominally in -1..1.
    """
    numbers, schedule, device = range(first, first + len(model)), model.schedule, model.device
    flock = Particles(len(model), particles, ImageNoise(seed + 1, numbers, device)) if particles > 1 else None
    model = model.repeated(particles)
    every = (number * particles + each for number in numbers for each in range(particles))
    noise = ImageNoise(seed, every, device)
    x = x0 = noise.normal(shape)
    with torch.no_grad():
        for done, (now, after) in enumerate(itertools.pairwise(levels(schedule, steps)), 1):
            prediction, here, there = model.predict(x, now), level_of(schedule, now), level_of(schedule, after)
            x, x0 = step(x, prediction.epsilon, here, there, sampler, noise, clip)
            if flock:
                (alpha, sigma), (alpha_after, _) = preserving(*here), preserving(*there)
                flock.advance(prediction.overlap, sigma, alpha, alpha_after)
                x = flock.redrawn(x) if after else flock.one(x0)
                x0 = x if not after else x0
            if corrector and after:
                sigma = there[1]
                x = corrector(x, lambda y: -model.predict(y, after).epsilon / sigma, sigma, noise)  # noqa: B023
            progress(done, steps)
    return x0


def step(
    x: Tensor, epsilon: Tensor, here: Level, there: Level, sampler: Sampler, noise: ImageNoise, clip: bool
) -> tuple[Tensor, Tensor]:
    """Returns images ``[B,C,H,W]`` at the next noise level, and the clean images they point at."""
    (alpha, sigma), (alpha_after, sigma_after) = here, there
    x0 = (x - sigma * epsilon) / alpha
    if clip:
        x0 = x0.clamp(-1, 1)
        epsilon = (x - alpha * x0) / sigma  # so that both describe the same x
    variance = 0.0
    if sampler == "ancestral":
        variance = sigma_after**2 * max(0.0, 1 - (alpha * sigma_after / (alpha_after * sigma)) ** 2)
    x = alpha_after * x0 + math.sqrt(max(0.0, sigma_after**2 - variance)) * epsilon
    if variance:
        x = x + math.sqrt(variance) * noise.normal(tuple(x.shape[1:]))
    return x, x0


def level_of(schedule: Schedule, t: int) -> Level:
    """Returns alpha and sigma of a timestep."""
    at = torch.tensor(t)
    return float(schedule.alpha(at)), float(schedule.sigma(at))


def preserving(alpha: float, sigma: float) -> Level:
    """Returns alpha and sigma over sqrt(alpha² + sigma²): those of x over that root, a variance-preserving process.

    Predictions of eps are the same for both.
    """
    root = math.hypot(alpha, sigma)
    return alpha / root, sigma / root
