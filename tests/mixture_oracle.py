"""Two experts in the plane whose densities, product and mixture are known: Gaussian mixtures in closed form."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igm_cli.core.concepts import Continuous
from igm_cli.core.noise_schedule import Schedule

SHAPE = (1, 1, 2)


@dataclass(frozen=True)
class Mixture:
    """Gaussians of one spread in the plane: weights ``[C]``, means ``[C,2]``, variance."""

    weights: Tensor
    means: Tensor
    variance: float

    def noised(self, alpha: float, sigma: float) -> Mixture:
        """The density of alpha x0 + sigma eps."""
        return Mixture(self.weights, alpha * self.means, alpha**2 * self.variance + sigma**2)

    def log_density(self, x: Tensor) -> Tensor:
        """Up to a constant, ``[N]``."""
        square = (x[:, None] - self.means).square().sum(2)
        return (self.weights.log() - square / (2 * self.variance)).logsumexp(1)

    def score(self, x: Tensor) -> Tensor:
        """Of points ``[N,2]``."""
        away = self.means - x[:, None]
        share = (self.weights.log() - away.square().sum(2) / (2 * self.variance)).softmax(1)
        return (share[..., None] * away).sum(1) / self.variance

    def times(self, other: Mixture) -> Mixture:
        """The product of two mixtures."""
        variance = 1 / (1 / self.variance + 1 / other.variance)
        means, logs = [], []
        for (w, m), (v, n) in itertools.product(
            zip(self.weights, self.means, strict=True), zip(other.weights, other.means, strict=True)
        ):
            means.append(variance * (m / self.variance + n / other.variance))
            logs.append(w.log() + v.log() - (m - n).square().sum() / (2 * (self.variance + other.variance)))
        return Mixture(torch.stack(logs).softmax(0), torch.stack(means), variance)

    def drawn(self, count: int, seed: int) -> Tensor:
        """Points ``[N,2]`` of it."""
        generator = torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        return self.means[which] + self.variance**0.5 * torch.randn(count, 2, generator=generator)


def ring() -> Mixture:
    """Eight points on a circle."""
    angle = torch.arange(8) * torch.pi / 4
    return Mixture(torch.full((8,), 1 / 8), 0.6 * torch.stack([angle.cos(), angle.sin()], 1), 0.15**2)


def bar() -> Mixture:
    """Five points on a line."""
    x = torch.linspace(-0.8, 0.8, 5)
    return Mixture(torch.full((5,), 1 / 5), torch.stack([x, 0.3 * x + 0.1], 1), 0.2**2)


class Experts:
    """A denoiser of points ``[N,1,1,2]``: eps_u = 0, and concept number i adds the noise that expert i predicts."""

    def __init__(self, *experts: Mixture, schedule: Schedule | None = None) -> None:
        self.experts, self.schedule = experts, schedule or Schedule()
        self.space = Continuous(("which",), (0.0,), (float(len(experts) - 1),), local=False)
        self.calls = 0

    def features(self, x_t: Tensor, t: Tensor) -> Any:
        """What it is asked of, which it sees as it is."""
        self.calls += 1
        return x_t, int(t[0])

    def base(self, features: Any) -> Tensor:
        """Nothing."""
        return torch.zeros_like(features[0])

    def contributions(self, features: Any, concepts: Tensor) -> Tensor:
        """-sigma s_i(x_t) of experts ``[N,K,1]``."""
        x, at = features[0], torch.tensor(features[1])
        alpha, sigma = float(self.schedule.alpha(at)), float(self.schedule.sigma(at))
        each = torch.stack([-sigma * e.noised(alpha, sigma).score(x.flatten(1)) for e in self.experts], 1)
        index = concepts[..., 0].round().long().expand(len(x), -1)
        return each.gather(1, index[..., None].expand(-1, -1, 2)).unflatten(2, SHAPE)


def total_variation(one: Tensor, other: Tensor, cells: int = 14, reach: float = 1.4) -> float:
    """Half the difference of two histograms of points ``[N,2]`` on a grid."""

    def histogram(points: Tensor) -> Tensor:
        place = ((points + reach) / (2 * reach) * cells).long().clamp(0, cells - 1)
        return torch.bincount(place[:, 0] * cells + place[:, 1], minlength=cells**2) / len(points)

    return float((histogram(one) - histogram(other)).abs().sum() / 2)
