"""The head of the factored denoiser: what one position adds, confined to a window around it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igm_cli.core.models.factored_config import FactoredConfig


class LocalHead(nn.Module):
    """A contribution from trunk features and a position, computed only on the cells it can touch.

    Every cell of a square around the position sees its own features, the features found *at* the
    position (what the concept points at), and where it lies relative to it.
    """

    FREQUENCIES = 5

    def __init__(self, config: FactoredConfig, out_channels: int = 3) -> None:
        super().__init__()
        self.radius = config.window
        self.ranking_radius = max(1, 2 * config.window // 3)
        self.grid = (config.image_size[0] // config.patch, config.image_size[1] // config.patch)
        self.patch = config.patch
        dim = config.head_channels
        self.here = nn.Conv2d(config.channels[0], dim, 1)
        self.there = nn.Conv2d(config.channels[0], dim, 1)
        self.where = nn.Linear(3 + 4 * self.FREQUENCIES, dim)
        self.query = nn.Linear(dim, dim)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
            for _ in range(config.head_layers)
        )
        self.out = nn.Linear(dim, out_channels * config.patch**2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def project(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The two views of features ``[N,C,gh,gw]`` that do not depend on a position.

        Returns:
            Two tensors ``[N,(gh+2r)(gw+2r),d]``, padded so that windows may hang over the border.
        """
        pad = (self.radius,) * 4
        here, there = F.pad(self.here(h), pad), F.pad(self.there(h), pad)
        return here.flatten(2).transpose(1, 2), there.flatten(2).transpose(1, 2)

    def forward(self, projected: tuple[Tensor, Tensor], position: Tensor) -> Tensor:
        """projected: of N images; position: ``[N,M,2]`` or ``[1,M,2]`` in 0..1; returns ``[N,M,C,H,W]``."""
        return self._place(*self._window(projected, position, self.radius))

    def products(
        self, projected: tuple[Tensor, Tensor], position: Tensor, image: Tensor
    ) -> tuple[Tensor, Tensor]:
        """<image,Delta> and <Delta,Delta>, both ``[N,M]``, over the inner part of the windows.

        Their margin holds little and costs as much a cell: it is left out of what only ranks.

        Args:
            projected: Of N images.
            position: ``[N,M,2]``.
            image: ``[N,C,H,W]``.
        """
        values, index = self._window(projected, position, self.ranking_radius)
        pad = (self.radius,) * 4
        cells = F.pad(F.pixel_unshuffle(image, self.patch), pad).flatten(2).transpose(1, 2)
        inside = F.pad(image.new_ones(1, 1, *self.grid[::-1]), pad)
        values = (values * inside.flatten()[index][..., None].to(values.dtype)).flatten(2)
        values = values.float()
        return (values * _gather(cells, index).flatten(2)).sum(-1), values.square().sum(-1)

    def _window(self, projected: tuple[Tensor, Tensor], position: Tensor, radius: int) -> tuple[Tensor, Tensor]:
        """Contribution on cells within a radius ``[N,M,P,c]`` and the cells' index ``[N,M,P]``."""
        index, offset = self._cells(position, radius)
        values = self.out(self._describe(projected, index, offset))
        return values * _bump(offset / (self.radius - 0.5)).to(values.dtype), index

    def _cells(self, position: Tensor, radius: int) -> tuple[Tensor, Tensor]:
        """Cells of a square: index ``[N,M,P]`` into the padded grid, offset ``[N,M,P,2]`` in cells."""
        r = radius
        at = position * position.new_tensor(self.grid)  # [N,M,2]
        steps = torch.arange(2 * r, device=position.device)
        square = torch.stack([steps.repeat(2 * r), steps.repeat_interleave(2 * r)], dim=-1)  # [P,2]
        start = at.detach().round().long() - r
        limit = torch.tensor(self.grid, device=position.device)
        start = torch.minimum(torch.maximum(start, torch.tensor(-r, device=limit.device)), limit - r)
        cell = start[:, :, None, :] + square  # [N,M,P,2]
        offset = cell + 0.5 - at[:, :, None, :]
        padded = cell + self.radius
        return padded[..., 1] * (self.grid[0] + 2 * self.radius) + padded[..., 0], offset

    def _describe(self, projected: tuple[Tensor, Tensor], index: Tensor, offset: Tensor) -> Tensor:
        """``[N,M,P,d]``: each cell of each window, knowing what its concept points at."""
        here, there = projected
        near = _middle(index.shape[2]).to(index.device)
        nearness = torch.softmax(-2.0 * offset[:, :, near].square().sum(-1), dim=-1)  # [N,M,Q]
        pointed = _gather(there, index[:, :, near])
        query = (nearness.to(there.dtype)[..., None] * pointed).sum(2)
        here = _gather(here, index)
        z = F.silu(here + self.where(self._encode(offset)) + self.query(query)[:, :, None])
        for layer in self.layers:
            z = z + layer(z)
        return z

    def _encode(self, offset: Tensor) -> Tensor:
        """Fourier features of offsets in window radii, ``[N,M,P,3+4F]``."""
        u = offset / self.radius
        octaves = math.pi * 2.0 ** torch.arange(self.FREQUENCIES, device=u.device)
        angles = (u[..., None] * octaves).flatten(-2)
        return torch.cat([u, u.square().sum(-1, keepdim=True), angles.sin(), angles.cos()], dim=-1)

    def _place(self, values: Tensor, index: Tensor) -> Tensor:
        """Puts windows ``[N,M,P,c]`` at their cells of an image ``[N,M,C,H,W]``."""
        n, m, _, c = values.shape
        r, (gw, gh) = self.radius, self.grid
        canvas = values.new_zeros(n, m, (gh + 2 * r) * (gw + 2 * r), c)
        if len(index) == 1:
            rows = (torch.arange(m, device=index.device)[:, None] * canvas.shape[2] + index[0]).flatten()
            canvas.flatten(1, 2).index_copy_(1, rows, values.flatten(1, 2))
        else:
            canvas.scatter_(2, index[..., None].expand(values.shape), values)
        canvas = canvas.view(n * m, gh + 2 * r, gw + 2 * r, c)[:, r : r + gh, r : r + gw]
        image = F.pixel_shuffle(canvas.permute(0, 3, 1, 2), self.patch)
        return image.view(n, m, *image.shape[1:])


def _middle(cells: int) -> Tensor:
    """Which of the cells of a square lie around its middle: farther ones weigh nothing in the query."""
    side = math.isqrt(cells)
    steps = torch.arange(side)
    middle = (steps >= side // 2 - 3) & (steps < side // 2 + 3)
    return (middle[:, None] & middle).flatten().nonzero()[:, 0]


def _gather(view: Tensor, index: Tensor) -> Tensor:
    """View ``[N,G,d]`` at index ``[N,M,P]`` (or ``[1,M,P]``, shared): ``[N,M,P,d]``."""
    n, m, p = index.shape
    if n == 1:
        return view.index_select(1, index.flatten()).view(len(view), m, p, view.shape[-1])
    flat = index.reshape(n, m * p, 1).expand(-1, -1, view.shape[-1])
    return view.gather(1, flat).view(n, m, p, view.shape[-1])


def _bump(u: Tensor) -> Tensor:
    """A smooth window of offsets ``[...,2]`` in radii: 1 at the centre, 0 from distance 1 on."""
    square = u.square().sum(-1, keepdim=True).clamp(max=1.0)
    return (1 - square.square()).square()
