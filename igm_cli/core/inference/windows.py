"""Contributions that are zero except in a window around their concept, and their inner products.

An image is a grid of G cells with c numbers each.  A contribution is kept in the W cells of its window, so that a
concept costs the same on an image of any size, and only neighbours have an inner product.  A contribution that reaches
the whole image is the case of a grid of one cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

DENSE_CELLS = 1024
"""Cells of an image up to which inner products are taken over the whole image, all at once."""

FLOATS_AT_ONCE = 2**25
"""Numbers of windows that are held at once for inner products of pairs, which bounds the memory."""


@runtime_checkable
class Local(Protocol):
    """A denoiser whose contributions are zero except in a window around their concepts."""

    def to_patches(self, image: Tensor) -> Tensor:
        """Returns images ``[R,C,H,W]`` cell after cell ``[R,G,c]``."""
        ...

    def windows(self, features: Any, concepts: Tensor, around: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns contributions in their windows.

        Args:
            features: Features of n*b noised images, all images under a noise sample before the next one.
            concepts: Concepts of every image ``[b,M,D]``.
            around: Concepts near them that the windows are centred on ``[b,M,D]``; None for the concepts themselves.

        Returns:
            Values ``[n,b,M,W,c]`` float32, and the cells they belong to ``[b,M,W]``; G stands for one outside.
        """
        ...

    def products(self, features: Any, concepts: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Returns <image,Delta_j> and <Delta_j,Delta_j>, both ``[R,M]``, precise enough to rank candidates.

        Args:
            features: Features of R noised images.
            concepts: Concepts shared by all images ``[1,M,D]``.
            patches: Images cell after cell ``[R,G,c]``.
        """
        ...


@dataclass(frozen=True)
class Windows:
    """Contributions of M concepts to b images under n noise samples.

    Attributes:
        values: ``[n,b,M,W,c]``.
        cells: Which cells of the image they belong to ``[b,M,W]``; G stands for one outside, where values are zero.
        grid: G, the number of cells of an image.
    """

    values: Tensor
    cells: Tensor
    grid: int

    @property
    def pixels(self) -> int:
        """Number of pixels of an image."""
        return self.grid * self.values.shape[-1]

    def select(self, index: Tensor) -> Windows:
        """The contributions of some of the concepts of each image ``[b,m]``."""
        image = torch.arange(len(index), device=index.device)[:, None]
        return Windows(self.values[:, image, index], self.cells[image, index], self.grid)

    def join(self, other: Windows) -> Windows:
        """These contributions, then others to the same images."""
        return Windows(
            torch.cat([self.values, other.values], dim=2),
            torch.cat([self.cells, other.cells], dim=1),
            self.grid,
        )

    def at(self, patches: Tensor) -> Tensor:
        """Returns what images ``[n,b,G,c]`` have in the windows ``[n,b,M,W,c]``; outside the image that is nothing meant."""
        n, b, _, c = patches.shape
        index = self.cells.clamp(max=self.grid - 1).flatten(1)  # values outside are zero, whatever they meet
        if b == 1:
            return patches[:, 0].index_select(1, index[0]).view(self.values.shape)
        return patches.gather(2, index[None, ..., None].expand(n, -1, -1, c)).view(self.values.shape)

    def pull(self, patches: Tensor) -> Tensor:
        """Returns <image,Delta_j> ``[n,b,M]`` of images ``[n,b,G,c]``."""
        return (self.values * self.at(patches)).sum((3, 4))

    def added_to(self, patches: Tensor, weight: Tensor) -> Tensor:
        """Returns images ``[n,b,G,c]`` with contributions added, each by its weight ``[b,M]``."""
        n, b, _, c = patches.shape
        total = torch.cat([patches, patches.new_zeros(n, b, 1, c)], dim=2)
        index = (
            self.cells + torch.arange(b, device=self.cells.device)[:, None, None] * (self.grid + 1)
        ).flatten()
        values = (self.values * weight[None, ..., None, None]).view(n, -1, c)
        return total.view(n, -1, c).index_add_(1, index, values).view(total.shape)[:, :, :-1]

    def canvas(self) -> Tensor:
        """Returns the contributions as whole images ``[n,b,M,G*c]``."""
        n, b, m, _, c = self.values.shape
        if self.grid == 1:
            return self.values.flatten(3)
        canvas = self.values.new_zeros(n, b * m * (self.grid + 1), c)
        owner = torch.arange(b * m, device=self.cells.device).view(b, m, 1) * (self.grid + 1)
        canvas.index_copy_(1, (owner + self.cells).flatten(), self.values.reshape(n, -1, c))
        return canvas.view(n, b, m, self.grid + 1, c)[..., :-1, :].flatten(3)

    def near(self, other: Windows) -> Tensor:
        """Returns the pairs (image, i, j) of which the windows share a cell ``[3,pairs]``."""
        b, m, k = len(self.cells), self.cells.shape[1], other.cells.shape[1]
        if self.grid == 1:
            return torch.ones(b, m, k, dtype=torch.bool).nonzero().T
        held = torch.zeros(b, m, self.grid + 1).scatter_(2, self.cells.cpu(), 1.0)[..., :-1]
        others = torch.zeros(b, k, self.grid + 1).scatter_(2, other.cells.cpu(), 1.0)[..., :-1]
        return (held @ others.mT > 0).nonzero().T

    def gram(self, other: Windows) -> Tensor:
        """Returns <Delta_i,Delta_j> ``[n,b,M,M']`` with contributions to the same images."""
        n, b, m, w, c = self.values.shape
        result = self.values.new_zeros(n, b, m, other.values.shape[2])
        pairs = self.near(other).to(self.values.device)
        for image, i, j in (
            part.unbind(0) for part in pairs.split(max(1, FLOATS_AT_ONCE // (2 * n * w * c)), 1)
        ):
            place = other.places(image, j).gather(
                1, self.cells[image, i]
            )  # of the shared cells in the other window
            there = torch.cat([other.values, other.values.new_zeros(*other.values.shape[:3], 1, c)], dim=3)
            met = there[:, image[:, None], j[:, None], place]  # [n,pairs,W,c]
            result[:, image, i, j] = (self.values[:, image, i] * met).sum((2, 3))
        return result

    def gram_of_groups(self, size: int) -> Tensor:
        """Returns <Delta_i,Delta_j> ``[n,b,M,M]`` among contributions of which each group of a size shares its window."""
        n, b, m, w, c = self.values.shape
        groups, count = self.values.view(n, b, -1, size, w * c), m // size
        result = self.values.new_zeros(n, b, count, count, size, size)
        own = torch.arange(count)
        result[:, :, own, own] = groups @ groups.mT
        cells = self.cells[:, ::size]
        one = Windows(self.values[:, :, ::size], cells, self.grid)
        pairs = one.near(one).to(cells.device) if count > 1 else torch.zeros(3, 0, dtype=torch.long)
        pairs = pairs[:, pairs[1] < pairs[2]]
        at_once = max(1, FLOATS_AT_ONCE // (2 * n * size * w * c))
        for image, i, j in (part.unbind(0) for part in pairs.split(at_once, 1) if part.shape[1]):
            place = one.places(image, j).gather(1, cells[image, i])  # [pairs,W]
            there = self.values.view(n, b, count, size, w, c)[:, image, j]  # [n,pairs,size,W,c]
            there = torch.cat([there, there.new_zeros(*there.shape[:3], 1, c)], dim=3)
            index = place[None, :, None, :, None].expand(n, -1, size, -1, c)
            met = there.gather(3, index).flatten(3)  # [n,pairs,size,W*c]
            found = groups[:, image, i] @ met.mT  # [n,pairs,size,size]
            result[:, image, i, j], result[:, image, j, i] = found, found.mT
        return result.transpose(3, 4).reshape(n, b, m, m)

    def places(self, image: Tensor, index: Tensor) -> Tensor:
        """Returns where in the windows of some concepts every cell of the image is ``[pairs,G+1]``; W for nowhere."""
        w = self.cells.shape[2]
        cells = self.cells[image, index]
        places = cells.new_full((len(cells), self.grid + 1), w)
        places.scatter_(1, cells, torch.arange(w, device=cells.device).expand_as(cells))
        places[:, self.grid] = w
        return places
