"""The head of the factored denoiser: what one position adds, confined to a window around it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igm_cli.core.models.factored_config import FactoredConfig

ROWS_IN_CACHE = 4096
"""Rows that pass the layers at once on a CPU: what lies between two layers then stays in its cache."""


@dataclass(frozen=True)
class Touched:
    """The R pairs of a position and a cell of the image that it reaches.

    Attributes:
        shape: (B, M, P): M positions of each of B images, P cells of the square around each.
        place: Number of the pair among B*M*P ``[R]``.
        cell: Number of the cell among those of an image ``[R]``.
        offset: Of the cell's centre from the position, in cells ``[R,2]``.
        bump: The window's height there ``[R,1]``.
    """

    shape: tuple[int, int, int]
    place: Tensor
    cell: Tensor
    offset: Tensor
    bump: Tensor

    @property
    def owner(self) -> Tensor:
        """Number of the position among B*M ``[R]``."""
        return self.place // self.shape[2]

    @property
    def image(self) -> Tensor:
        """Number of the image among B ``[R]``."""
        return self.place // (self.shape[1] * self.shape[2])

    def rows(self, view: Tensor, index: Tensor) -> Tensor:
        """Rows of a view ``[N,X,d]`` by their number among B*X: ``[N/B,R,d]``.

        B is 1 where all images share the positions, and N where each has its own: then the images are
        read as one that holds all of them side by side.
        """
        side_by_side = view.reshape(len(view) // self.shape[0], -1, view.shape[-1])
        return side_by_side.index_select(1, index)

    def split(self, size: int) -> Iterator[Touched]:
        """The pairs in parts."""
        columns = (self.place, self.cell, self.offset, self.bump)
        for part in zip(*(column.split(size) for column in columns), strict=True):
            yield Touched(self.shape, *part)


class LocalHead(nn.Module):
    """A contribution from trunk features and a position, computed only on the cells it can touch.

    Every cell of a square around the position sees its own features, the features found *at* the
    position (what the concept points at), and where it lies relative to it.
    """

    FREQUENCIES = 5
    POINTED = 3

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
        """The two views ``[N,gh*gw,d]`` of features ``[N,C,gh,gw]`` that do not depend on a position."""
        here, there = self.here(h), self.there(h)
        return here.flatten(2).transpose(1, 2).contiguous(), there.flatten(2).transpose(1, 2).contiguous()

    def forward(self, projected: tuple[Tensor, Tensor], position: Tensor, gain: Tensor) -> Tensor:
        """What positions add, cell after cell (see :meth:`cells`).

        Args:
            projected: Of N images.
            position: ``[N,M,2]`` or ``[1,M,2]`` in 0..1.
            gain: Factor of each image's contributions ``[N]``.

        Returns:
            ``[N,M,gh*gw*c]`` float32.
        """
        (b, m, _), cells = position.shape, self.grid[0] * self.grid[1]
        canvas = gain.new_zeros(len(gain) // b, b * m * cells, self.out.out_features)
        for touched, values in self._values(projected, position, self.radius, gain):
            canvas.index_copy_(1, touched.owner * cells + touched.cell, values)
        return canvas.view(len(gain), m, -1)

    def products(
        self, projected: tuple[Tensor, Tensor], position: Tensor, gain: Tensor, cells: Tensor
    ) -> tuple[Tensor, Tensor]:
        """<image,Delta> and <Delta,Delta>, both ``[N,M]``, over the inner part of the windows.

        Their margin holds little and costs as much a cell: it is left out of what only ranks.

        Args:
            projected: Of N images.
            position: ``[1,M,2]``.
            gain: ``[N]``.
            cells: The images, cell after cell ``[N,gh*gw*c]``.
        """
        shape = len(gain), position.shape[1], (2 * self.ranking_radius) ** 2
        linear, square = gain.new_zeros(shape), gain.new_zeros(shape)
        image = cells.unflatten(1, (-1, self.out.out_features))
        for touched, values in self._values(projected, position, self.ranking_radius, gain):
            pull = (touched.rows(image, touched.cell) * values).sum(-1)
            linear.flatten(1).index_copy_(1, touched.place, pull)
            square.flatten(1).index_copy_(1, touched.place, values.square().sum(-1))
        return linear.sum(-1), square.sum(-1)

    def cells(self, image: Tensor) -> Tensor:
        """Images ``[N,C,H,W]`` cell after cell, ``[N,gh*gw*c]`` with c = C * patch²."""
        return F.pixel_unshuffle(image, self.patch).flatten(2).transpose(1, 2).flatten(1)

    def image(self, cells: Tensor) -> Tensor:
        """Inverse of :meth:`cells`: ``[...,gh*gw*c]`` to ``[...,C,H,W]``."""
        # As pixel_shuffle does, whose backward pass knows fewer memory layouts.
        (gw, gh), p = self.grid, self.patch
        patches = cells.unflatten(-1, (gh, gw, -1, p, p))  # [...,gh,gw,C,p,p]
        rows = patches.movedim(-3, -5).movedim(-2, -3)  # [...,C,gh,p,gw,p]
        image: Tensor = rows.flatten(-4, -3).flatten(-2, -1)
        return image

    def _touched(self, position: Tensor, radius: int) -> Touched:
        """The cells of squares around positions ``[B,M,2]`` that lie in the image and in the window."""
        cell, offset, inside = self._square(position, radius)
        bump = _bump(offset / (self.radius - 0.5))
        place = (inside & (bump[..., 0] > 0)).flatten().nonzero()[:, 0]
        x, y = cell.flatten(0, 2)[place].unbind(-1)
        offset, bump = offset.flatten(0, 2)[place], bump.flatten(0, 2)[place]
        b, m, p = inside.shape
        return Touched((b, m, p), place, y * self.grid[0] + x, offset, bump)

    def _square(self, position: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
        """Cells of a square around positions ``[B,M,2]``.

        Returns:
            (x, y) of cells ``[B,M,P,2]``, their offset from the position ``[B,M,P,2]`` in cells, and
            whether they lie in the image ``[B,M,P]``.
        """
        side = 2 * radius
        limit = torch.tensor(self.grid, device=position.device)
        at = position * limit
        steps = torch.arange(side, device=position.device)
        square = torch.stack([steps.repeat(side), steps.repeat_interleave(side)], dim=-1)  # [P,2]
        cell = (at.detach().round().long() - radius)[:, :, None] + square
        return cell, cell + 0.5 - at[:, :, None], ((cell >= 0) & (cell < limit)).all(-1)

    def _values(
        self, projected: tuple[Tensor, Tensor], position: Tensor, radius: int, gain: Tensor
    ) -> Iterator[tuple[Touched, Tensor]]:
        """Contributions ``[N/B,R,c]`` to the cells that are touched, some of the pairs at a time."""
        here, there = projected
        query = self.query(self._pointed(position).to(there.dtype) @ there)  # [N,M,d]
        touched = self._touched(position, radius)
        size = max(1, len(touched.place))
        if here.device.type == "cpu" and not torch.is_grad_enabled():
            size = max(1, ROWS_IN_CACHE * len(position) // len(here))
        for part in touched.split(size):
            height = part.bump * part.rows(gain[:, None, None], part.image)
            yield part, self._describe(here, query, part).float().mul_(height)

    def _describe(self, here: Tensor, query: Tensor, touched: Touched) -> Tensor:
        """What the head puts out for cells, each knowing what its concept points at ``[N/B,R,c]``."""
        spare = not torch.is_grad_enabled()  # no gradient needs what an activation overwrites
        z = touched.rows(here, touched.image * here.shape[1] + touched.cell)
        z = z.add_(self.where(self._encode(touched.offset))).add_(touched.rows(query, touched.owner))
        z = F.silu(z, inplace=spare)
        for layer in self.layers:
            first, _, second = layer.children()
            z = second(F.silu(first(z), inplace=spare)).add_(z)
        return torch.as_tensor(self.out(z))

    def _pointed(self, position: Tensor) -> Tensor:
        """How much positions ``[B,M,2]`` point at every cell ``[B,M,gh*gw]``: softly, at those close by."""
        cell, offset, inside = self._square(position, min(self.POINTED, self.radius))
        nearness = torch.softmax(-2.0 * offset.square().sum(-1), dim=-1) * inside
        x, y = (cell * inside[..., None]).unbind(-1)
        weights = nearness.new_zeros(*inside.shape[:2], self.grid[0] * self.grid[1])
        return weights.scatter_add(2, y * self.grid[0] + x, nearness)

    def _encode(self, offset: Tensor) -> Tensor:
        """Fourier features of offsets in window radii ``[R,2]``, ``[R,3+4F]``."""
        u = offset / self.radius
        octaves = math.pi * 2.0 ** torch.arange(self.FREQUENCIES, device=u.device)
        angles = (u[..., None] * octaves).flatten(-2)
        return torch.cat([u, u.square().sum(-1, keepdim=True), angles.sin(), angles.cos()], dim=-1)


def _bump(u: Tensor) -> Tensor:
    """A smooth window of offsets ``[...,2]`` in radii: 1 at the centre, 0 from distance 1 on."""
    square = u.square().sum(-1, keepdim=True).clamp(max=1.0)
    return (1 - square.square()).square()
