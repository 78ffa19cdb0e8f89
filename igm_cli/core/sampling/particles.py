"""Particles: several samples of one set of concepts that are weighted and resampled (Feynman-Kac correctors).

Following the sum of scores S = s_u + sum_k v_k (s_k - s_u) from one noise level to the next gives every particle a weight
(Skreta et al. 2025; derived for sums of contributions):

    d log w = beta / (2 sigma²) sum_{i≠j} v_i v_j <Delta_i,Delta_j> dtau,      ∫ beta dtau = log(alpha'² / alpha²)

the off-diagonal of the Gram matrix that inference rests on.  If contributions do not overlap, it is zero.  alpha and
sigma are those of the variance-preserving process (:func:`igm_cli.core.sampling.reverse.preserving`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from igm_cli.core.sampling.noise import ImageNoise


class Particles:
    """Weights of M particles for each of B sets of concepts, all particles of a set in a row.

    ``noise`` is the randomness of the sets, not of the particles.
    """

    def __init__(self, sets: int, count: int, noise: ImageNoise) -> None:
        self.count, self.noise = count, noise
        self.log_weight = torch.zeros(sets, count, device=noise.device)

    def advance(self, overlap: Tensor, sigma: float, alpha: float, alpha_after: float) -> None:
        """Updates weights for a step of the reverse process to the next noise level; overlap ``[B*M]``."""
        time = 2 * math.log(alpha_after / alpha)
        self.log_weight += 0.5 / sigma**2 * time * overlap.view_as(self.log_weight)

    def redrawn(self, x: Tensor) -> Tensor:
        """Returns the particles ``[B*M,C,H,W]``, resampled by weight where few of them count."""
        p = self.log_weight.softmax(1)
        few = 1 / p.square().sum(1) < self.count / 2  # the effective number of particles
        # Systematic resampling: one random number for each set.
        places = (torch.arange(self.count, device=x.device) + self.noise.uniform()[:, None]) / self.count
        index = torch.searchsorted(p.cumsum(1).clamp(max=1.0), places).clamp(max=self.count - 1)
        index = torch.where(few[:, None], index, torch.arange(self.count, device=x.device))
        self.log_weight = torch.where(few[:, None], 0.0, self.log_weight)
        first = torch.arange(len(p), device=x.device)[:, None] * self.count
        return x[(first + index).flatten()]

    def one(self, x: Tensor) -> Tensor:
        """Returns one particle of each set ``[B,C,H,W]``, drawn by its weight."""
        p = self.log_weight.softmax(1).cumsum(1)
        index = torch.searchsorted(p, self.noise.uniform()[:, None]).clamp(max=self.count - 1)
        first = torch.arange(len(p), device=x.device) * self.count
        return x[first + index[:, 0]]
