"""A denoiser in closed form: what the engine says of it can be checked exactly.

x0 | c1..cK ~ N(sum_k m(c_k), s² I) with templates m.  Then x_t is Gaussian too and

    eps(x_t, t | c) = sigma (x_t - alpha sum_k m(c_k)) / (alpha² s² + sigma²)

is a base plus a sum of contributions, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.concepts import Categorical, ConceptSpace, Continuous
from igm_cli.core.noise_schedule import Schedule


@dataclass
class Oracle:
    """Templates are Gaussian spots (positions) or fixed random patterns (factors)."""

    space: ConceptSpace
    size: int = 24
    spread: float = 0.1
    width: float = 0.07

    def __post_init__(self) -> None:
        self.schedule = Schedule()
        if isinstance(self.space, Categorical):
            generator = torch.Generator().manual_seed(1)
            self.patterns = torch.randn(self.space.dim, 3, self.size, self.size, generator=generator)

    def template(self, concepts: Tensor) -> Tensor:
        """m ``[...,3,S,S]`` of concepts ``[...,D]``."""
        if isinstance(self.space, Categorical):
            return torch.einsum("...d,dchw->...chw", concepts, self.patterns)
        axis = (torch.arange(self.size) + 0.5) / self.size
        dx = (axis - concepts[..., 0:1]) ** 2
        dy = (axis - concepts[..., 1:2]) ** 2
        spot = torch.exp(-(dx[..., None, :] + dy[..., :, None]) / (2 * self.width**2))
        return spot[..., None, :, :].expand(*spot.shape[:-2], 3, *spot.shape[-2:])

    def image(self, concepts: Tensor, seed: int = 0) -> Tensor:
        """A draw of x0 ``[3,S,S]`` under concepts ``[K,D]``."""
        generator = torch.Generator().manual_seed(seed)
        mean = self.template(concepts).sum(0)
        return mean + self.spread * torch.randn(mean.shape, generator=generator)

    def _gain(self, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return (sigma / (alpha**2 * self.spread**2 + sigma**2))[:, None, None, None]

    def features(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return x_t, t

    def base(self, features: tuple[Tensor, Tensor]) -> Tensor:
        x_t, t = features
        return self._gain(t) * x_t

    def contributions(self, features: tuple[Tensor, Tensor], concepts: Tensor) -> Tensor:
        _, t = features
        scale = (self._gain(t) * self.schedule.alpha(t)[:, None, None, None])[:, None]
        return -scale * self.template(concepts)


def positions() -> Oracle:
    """An oracle over the unit square."""
    return Oracle(Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True))


def factors() -> Oracle:
    """An oracle over three factors of 2, 3 and 4 values."""
    return Oracle(Categorical({"a": ("0", "1"), "b": ("0", "1", "2"), "c": ("0", "1", "2", "3")}))
