"""OR: samples of a mixture of sets of concepts.

Drawing the branch and then sampling it is exact and needs no formula.  The alternative, which lets branches meet on the
way, follows the score of the mixture: sum_i kappa_i s_i with kappa = softmax(log pi_i + log q_i,t(x)), where the log
densities follow the path itself (SuperDiff, Skreta et al. 2024, Itô's formula):

    d log q_i = <s_i, dx> + [ div f + <f, s_i> - g²/2 ‖s_i‖² ] dtau,      f = -beta x / 2,  g² = beta

where div f is the same for all.  It holds for a variance-preserving process, as that of x / sqrt(alpha² + sigma²) is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from igm_cli.core.sampling.composed import Composed
from igm_cli.core.sampling.noise import ImageNoise
from igm_cli.core.sampling.reverse import level_of, levels, preserving, step


def sample_any(
    branches: Sequence[Composed],
    shape: tuple[int, int, int],
    weights: Sequence[float] | None = None,
    *,
    steps: int = 100,
    seed: int = 0,
    first: int = 0,
    clip: bool = True,
) -> tuple[Tensor, Tensor]:
    """Draws images of a mixture of branches, each with the same number of sets of concepts, by ancestral steps.

    Args:
        branches: What images may show, one branch each; every branch has B sets of concepts.
        shape: (C, H, W) of an image.
        weights: pi, how often each branch is wanted; equally often by default.
        steps: Noise levels on the way.
        seed: Seed of all randomness.
        first: Number of the first image.
        clip: Whether x0 is kept in -1..1 on the way.

    Returns:
        Images ``[B,C,H,W]``, and the probability of each branch for each ``[B,I]``.
    """
    schedule, count, device = branches[0].schedule, len(branches[0]), branches[0].device
    noise = ImageNoise(seed, range(first, first + count), device)
    prior = torch.tensor(weights or [1.0] * len(branches), device=device).log()
    log_q = prior.expand(count, -1).clone()
    x = x0 = noise.normal(shape)
    with torch.no_grad():
        for now, after in itertools.pairwise(levels(schedule, steps)):
            here, there = level_of(schedule, now), level_of(schedule, after)
            (alpha, sigma), (alpha_after, _) = preserving(*here), preserving(*there)
            each = torch.stack([branch.predict(x, now).epsilon for branch in branches], 1)  # [B,I,C,H,W]
            kappa = log_q.softmax(1)
            mixed = (kappa.view(*kappa.shape, 1, 1, 1) * each).sum(1)
            moved, x0 = step(x, mixed, here, there, "ancestral", noise, clip)
            time = 2 * math.log(alpha_after / alpha)  # ∫ beta dtau
            scores = -each.flatten(2) / sigma  # [B,I,P]
            before, behind = x / math.hypot(*here), moved / math.hypot(*there)
            along = (scores * (behind - before).flatten(1)[:, None]).sum(2)
            drift = 0.5 * (scores * before.flatten(1)[:, None]).sum(2) + 0.5 * scores.square().sum(2)
            log_q = log_q + along - time * drift
            x = moved
    return x0, log_q.softmax(1)
