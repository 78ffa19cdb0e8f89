"""One image as a model of whole sets sees it: the denoising errors of many sets under shared noise."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from igm_cli.core.device import inference_precision
from igm_cli.core.noise_schedule import Schedule, draw


class Features(Protocol):
    """What a model computes of N noised images before it hears of a set."""

    def take(self, index: Tensor) -> Features:
        """The features of the images ``index``, repeats allowed."""
        ...


class SetModel(Protocol):
    """eps_theta(x_t, t | C) with the part that does not depend on the set C computed once."""

    schedule: Schedule

    def features(self, x_t: Tensor, t: Tensor) -> Any:
        """:class:`Features` of ``[N,C,H,W]`` at timesteps ``[N]``."""
        ...

    def epsilon(self, features: Any, concepts: Tensor) -> Tensor:
        """The prediction under one set ``[N,K,2]`` an image, ``[N,C,H,W]`` float32."""
        ...


class SetView:
    """An image under N noise draws that every hypothesis shares.

    Args:
        model: The model, in evaluation mode.
        image: ``[C,H,W]`` in -1..1.
        count: N.
        low: Least timestep as a fraction of T.
        high: Greatest timestep.
        seed: Of the noise.

    Attributes:
        passes: Evaluations of trunk and head so far; one that is differentiated counts once.
    """

    CHUNK = 32

    def __init__(
        self, model: SetModel, image: Tensor, *, count: int, low: float, high: float, seed: int
    ) -> None:
        self.model, self.image = model, image
        draws = draw(model.schedule, tuple(image.shape), count, low=low, high=high, seed=seed)
        draws = draws.to(image.device)
        self.noise = draws.noise
        with torch.no_grad(), inference_precision(image.device):
            self.features = model.features(model.schedule.add_noise(image[None], draws.noise, draws.t), draws.t)
        self.count = self.passes = count

    def residuals(self, sets: Tensor, draws: Tensor) -> Tensor:
        """Returns eps - eps_theta(x_t, t | C) of every set ``[P,K,2]`` under every draw ``[m]``, ``[P,m,C,H,W]``."""
        p, m = len(sets), len(draws)
        self.passes += p * m
        each, index = sets.repeat_interleave(m, dim=0), draws.repeat(p)
        parts = []
        for first in range(0, p * m, self.CHUNK):
            rows = slice(first, first + self.CHUNK)
            with inference_precision(sets.device):
                epsilon = self.model.epsilon(self.features.take(index[rows]), each[rows])
            parts.append(self.noise[index[rows]] - epsilon)
        residuals: Tensor = torch.cat(parts).unflatten(0, (p, m))
        return residuals

    def errors(self, sets: Tensor, draws: Tensor) -> Tensor:
        """Mean squared residuals ``[P,m]`` of sets ``[P,K,2]`` under draws ``[m]``."""
        errors = [self.residuals(part, draws).square().mean((2, 3, 4)) for part in self._parts(sets, draws)]
        return torch.cat(errors)

    def maps(self, sets: Tensor, draws: Tensor, cell: int) -> Tensor:
        """Squared residuals of sets ``[P,K,2]``, averaged over draws and cells: ``[P,H/cell,W/cell]``."""
        maps = []
        for part in self._parts(sets, draws):
            square = self.residuals(part, draws).square().mean((1, 2))
            maps.append(F.avg_pool2d(square[:, None], cell)[:, 0])
        return torch.cat(maps)

    def all_draws(self, most: int | None = None) -> Tensor:
        """Indices of the first ``most`` draws."""
        return torch.arange(min(most or self.count, self.count), device=self.image.device)

    def _parts(self, sets: Tensor, draws: Tensor) -> tuple[Tensor, ...]:
        """So many sets at a time that residuals stay in the cache."""
        parts: tuple[Tensor, ...] = sets.split(max(1, self.CHUNK // len(draws)))
        return parts
