"""Correctors: steps that leave the composed density of a noise level as it is (Du et al. 2023, "Reduce, Reuse, Recycle").

Adding up scores at every level gives the product of the *noised* densities, whose sequence the reverse process does not
follow; Langevin or Hamiltonian steps at each level bring the samples back to it.  Accepting a step needs the ratio of two
densities, which a score network does not give, but the integral of the score along the line between them does:

    log p(x') - log p(x) = ∫_0^1 <s(x + u (x' - x)), x' - x> du          (Sjöberg et al. 2023, arXiv 2307.14012)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from igm_cli.core.sampling.noise import ImageNoise

Score: TypeAlias = Callable[[Tensor], Tensor]
"""s(x) = -eps(x)/sigma ``[B,C,H,W]`` of images at one noise level."""


class Corrector(Protocol):
    """Moves images at a noise level, by any number of steps."""

    def __call__(self, x: Tensor, score: Score, sigma: float, noise: ImageNoise) -> Tensor:
        """Returns images ``[B,C,H,W]`` as likely as before under the density whose score is given."""
        ...


def rise(here: Tensor, there: Tensor, move: Tensor) -> Tensor:
    """Returns how much log p rises along a move ``[B]``, by the trapezoid rule on the scores at both ends."""
    return 0.5 * ((here + there) * move).flatten(1).sum(1)


def accepted(log_ratio: Tensor, noise: ImageNoise, new: Tensor, old: Tensor) -> Tensor:
    """Returns the new images that a Metropolis test accepts, each on its own, else the old ones."""
    taken = noise.uniform().log() < log_ratio
    return torch.where(taken.view(-1, *[1] * (new.dim() - 1)), new, old)


@dataclass(frozen=True)
class Langevin:
    """x' = x + d s(x) + sqrt(2 d) z with d = size sigma²: ULA, or MALA if steps are accepted or refused.

    Attributes:
        steps: How many.
        size: Size of a step in sigma².
        accept: Whether each is tested (MALA), at the cost of one more score in all.
    """

    steps: int
    size: float = 0.1
    accept: bool = False

    def __call__(self, x: Tensor, score: Score, sigma: float, noise: ImageNoise) -> Tensor:
        """As :class:`Corrector`."""
        d, here = self.size * sigma**2, None
        for _ in range(self.steps):
            here = score(x) if here is None or not self.accept else here
            new = x + d * here + math.sqrt(2 * d) * noise.normal(tuple(x.shape[1:]))
            if not self.accept:
                x = new
                continue
            there = score(new)
            back = (x - new - d * there).flatten(1).square().sum(1)
            forth = (new - x - d * here).flatten(1).square().sum(1)
            log_ratio = rise(here, there, new - x) + (forth - back) / (4 * d)
            both = accepted(log_ratio, noise, torch.stack([new, there], 1), torch.stack([x, here], 1))
            x, here = both.unbind(1)
        return x


@dataclass(frozen=True)
class Hamiltonian:
    """Leapfrog steps with a partly renewed momentum, accepted or refused as a whole (HMC).

    Attributes:
        steps: How many trajectories.
        leapfrogs: Steps of each.
        size: Length of such a step in sigma.
        keep: How much of the momentum is kept for the next trajectory.
    """

    steps: int
    leapfrogs: int = 3
    size: float = 0.3
    keep: float = 0.5

    def __call__(self, x: Tensor, score: Score, sigma: float, noise: ImageNoise) -> Tensor:
        """As :class:`Corrector`."""
        h, shape = self.size * sigma, tuple(x.shape[1:])
        momentum, here = noise.normal(shape), score(x)
        for _ in range(self.steps):
            momentum = self.keep * momentum + math.sqrt(1 - self.keep**2) * noise.normal(shape)
            new, there, v, risen = x, here, momentum, torch.zeros(len(x), device=x.device)
            for _ in range(self.leapfrogs):
                v = v + 0.5 * h * there
                move = h * v
                after = score(new + move)
                risen = risen + rise(there, after, move)
                new, there = new + move, after
                v = v + 0.5 * h * there
            kinetic = 0.5 * (momentum.square() - v.square()).flatten(1).sum(1)
            # A refused trajectory turns round, which keeps the density.
            moved, back = torch.stack([new, there, v], 1), torch.stack([x, here, -momentum], 1)
            x, here, momentum = accepted(risen + kinetic, noise, moved, back).unbind(1)
        return x
