"""Contributions that are zero except in a window around their concept, and their inner products.

An image is a grid of G cells with c numbers each.  A contribution is kept in the W cells of its window, so that a
concept costs the same on an image of any size, and only neighbours have an inner product.  If a contribution reaches the
whole image, the grid has one cell.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

DENSE_CELLS = 1024
"""Number of cells up to which inner products are taken over the whole image at once."""

TILE_CELLS = 12
"""Side in cells of the tiles that larger images are divided into."""


@runtime_checkable
class Local(Protocol):
    """A denoiser whose contributions are zero except in a window around their concepts."""

    def to_patches(self, image: Tensor) -> Tensor:
        """Returns images ``[R,C,H,W]`` cell after cell ``[R,G,c]``."""
        ...

    def grid(self, features: Any) -> tuple[int, int]:
        """Returns the number of cells along the width and the height of the images."""
        ...

    def windows(self, features: Any, concepts: Tensor, around: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns contributions in their windows.

        Args:
            features: Features of n*b noised images, ordered by noise sample, then by image.
            concepts: Concepts of every image ``[b,M,D]``.
            around: Concepts near them that the windows are centred on ``[b,M,D]``; None for the concepts themselves.

        Returns:
            Values ``[n,b,M,W,c]`` float32, and the cells they belong to ``[b,M,W]``; G stands for a cell outside.
        """
        ...

    def products(self, features: Any, concepts: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Returns <image,Delta_j> and <Delta_j,Delta_j>, both ``[R,M]``, precise enough to rank candidates.

        Concepts ``[1,M,D]`` are shared by all images, given cell after cell ``[R,G,c]``.
        """
        ...


@dataclass(frozen=True)
class Windows:
    """Contributions of M concepts to b images under n noise samples.

    Attributes:
        values: ``[n,b,M,W,c]``.
        cells: Which cells of the image they belong to ``[b,M,W]``; G stands for a cell outside, where values are zero.
        grid: Number of cells of an image along its width and its height; their product is G.
    """

    values: Tensor
    cells: Tensor
    grid: tuple[int, int]

    @property
    def g(self) -> int:
        """G, the number of cells of an image."""
        return math.prod(self.grid)

    @property
    def pixels(self) -> int:
        """Size of an image, C*H*W."""
        return self.g * self.values.shape[-1]

    def select(self, index: Tensor) -> Windows:
        """Returns the contributions of some concepts of each image ``[b,m]``."""
        image = torch.arange(len(index), device=index.device)[:, None]
        return Windows(self.values[:, image, index], self.cells[image, index], self.grid)

    @classmethod
    def joined(cls, parts: Sequence[Windows]) -> Windows:
        """Returns the contributions of several sets of concepts to the same images, joined."""
        if len(parts) == 1:
            return parts[0]
        values = torch.cat([part.values for part in parts], dim=2)
        return cls(values, torch.cat([part.cells for part in parts], dim=1), parts[0].grid)

    def at(self, patches: Tensor) -> Tensor:
        """Returns the cells of images ``[n,b,G,c]`` in the windows ``[n,b,M,W,c]``; those outside are arbitrary."""
        n, b, _, c = patches.shape
        index = self.cells.clamp(max=self.g - 1).flatten(1)  # values outside are zero, so any cell will do
        if b == 1:
            return patches[:, 0].index_select(1, index[0]).view(self.values.shape)
        index = index + torch.arange(b, device=index.device)[:, None] * self.g
        return patches.reshape(n, -1, c).index_select(1, index.flatten()).view(self.values.shape)

    def pull(self, patches: Tensor) -> Tensor:
        """Returns <image,Delta_j> ``[n,b,M]`` of images ``[n,b,G,c]``."""
        return (self.values * self.at(patches)).sum((3, 4))

    def added_to(self, patches: Tensor, weight: Tensor) -> Tensor:
        """Returns images ``[n,b,G,c]`` with contributions added, each by its weight ``[b,M]``."""
        n, b, _, c = patches.shape
        total = torch.cat([patches, patches.new_zeros(n, b, 1, c)], dim=2)
        flat = total.view(n, -1, c)
        index = self.cells + torch.arange(b, device=self.cells.device)[:, None, None] * (self.g + 1)
        if flat.device.type == "cpu":
            values = self.values * weight[None, ..., None, None]
            flat.index_add_(1, index.flatten(), values.view(n, -1, c))
        else:  # one after another: other devices add the values of a cell in any order
            values = (self.values.movedim(2, 0) * weight.T[:, None, :, None, None]).flatten(2, 3)  # [M,n,b*W,c]
            for cells, value in zip(index.movedim(1, 0).flatten(1), values, strict=True):
                flat.index_add_(1, cells, value)
        return total[:, :, :-1]

    def canvas(self) -> Tensor:
        """Returns the contributions as whole images ``[n,b,M,G*c]``."""
        n, b, m, _, c = self.values.shape
        if self.g == 1:
            return self.values.flatten(3)
        canvas = self.values.new_zeros(n, b * m * (self.g + 1), c)
        owner = torch.arange(b * m, device=self.cells.device).view(b, m, 1) * (self.g + 1)
        canvas.index_copy_(1, (owner + self.cells).flatten(), self.values.reshape(n, -1, c))
        return canvas.view(n, b, m, self.g + 1, c)[..., :-1, :].flatten(3)

    def gram(self, other: Windows) -> Tensor:
        """Returns <Delta_i,Delta_j> ``[n,b,M,M']`` with contributions to the same images.

        Small images are taken whole, large ones tile by tile, each with the contributions that reach it.
        """
        if self.g <= DENSE_CELLS:
            return self.canvas() @ other.canvas().mT
        n, b, m = self.values.shape[:3]
        result = self.values.new_zeros(n, b, m, other.values.shape[2])
        for image, tile in itertools.product(range(b), self.tiles()):
            rows, mine = self.within(image, tile)
            columns, others = (rows, mine) if other is self else other.within(image, tile)
            result[:, image, rows[:, None], columns] += mine @ others.mT
        return result

    def gram_of_groups(self, size: int) -> Tensor:
        """Returns <Delta_i,Delta_j> ``[n,b,M,M]``, where groups of ``size`` contributions share a window."""
        if self.values.shape[2] == size:
            values = self.values.flatten(3)
            return values @ values.mT
        return self.gram(self)

    def tiles(self) -> Iterator[Tensor]:
        """Yields, for every tile, the index in it of every cell of an image ``[G+1]``; T for cells of other tiles."""
        width, height = self.grid
        cell = torch.arange(width * height, device=self.cells.device)
        x, y = cell % width, cell // width
        for top, left in itertools.product(range(0, height, TILE_CELLS), range(0, width, TILE_CELLS)):
            inside = (x >= left) & (x < left + TILE_CELLS) & (y >= top) & (y < top + TILE_CELLS)
            place = torch.where(inside, (y - top) * TILE_CELLS + x - left, TILE_CELLS * TILE_CELLS)
            yield torch.nn.functional.pad(place, (0, 1), value=TILE_CELLS * TILE_CELLS)

    def within(self, image: int, tile: Tensor) -> tuple[Tensor, Tensor]:
        """Returns which contributions to an image reach a tile ``[m]``, and their values in it ``[n,m,T*c]``."""
        place = tile[self.cells[image]]  # [M,W]
        reach = (place < TILE_CELLS * TILE_CELLS).any(1).nonzero()[:, 0]
        n, c = self.values.shape[0], self.values.shape[-1]
        canvas = self.values.new_zeros(n, len(reach) * (TILE_CELLS * TILE_CELLS + 1), c)
        owner = torch.arange(len(reach), device=place.device)[:, None] * (TILE_CELLS * TILE_CELLS + 1)
        canvas.index_copy_(1, (owner + place[reach]).flatten(), self.values[:, image, reach].flatten(1, 2))
        return reach, canvas.view(n, len(reach), TILE_CELLS * TILE_CELLS + 1, c)[:, :, :-1].flatten(2)
