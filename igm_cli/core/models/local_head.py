"""The head of the factored denoiser for positions: a contribution, confined to a window around its position.

A position may have values, such as a colour.  They enter after all other layers, so all values of a position share one
pass through these and each adds little cost.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igm_cli.core.device import fast_memory, has_triton

ROWS_IN_CACHE = 16384
"""Rows that pass the layers at once on a CPU, few enough for activations to stay in its caches."""


Square: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""What :meth:`LocalHead._square` returns."""


@dataclass(frozen=True)
class Touched:
    """The R pairs of a position and an image cell within its window.

    Attributes:
        shape: (B, M, W): M positions of each of B images, W cells of the square around each.
        place: Index of the pair among B*M*W ``[R]``.
        cell: Index of the cell in its image ``[R]``.
        offset: Offset of the cell's centre from the position, in cells ``[R,2]``.
        bump: The window's height there ``[R,1]``.
    """

    shape: tuple[int, int, int]
    place: Tensor
    cell: Tensor
    offset: Tensor
    bump: Tensor

    @property
    def owner(self) -> Tensor:
        """Index of the position among B*M ``[R]``."""
        return self.place // self.shape[2]

    @property
    def image(self) -> Tensor:
        """Index of the image among B ``[R]``."""
        return self.place // (self.shape[1] * self.shape[2])

    def rows(self, view: Tensor, index: Tensor) -> Tensor:
        """Returns rows ``[n,R,d]`` of a view ``[n*B,X,d]`` by their index among B*X.

        For each of the n noise samples, the rows of all B images are read as those of one image.
        """
        side_by_side = view.reshape(len(view) // self.shape[0], -1, view.shape[-1])
        return side_by_side.index_select(1, index)

    def split(self, size: int) -> Iterator[Touched]:
        """Yields the pairs in parts."""
        columns = (self.place, self.cell, self.offset, self.bump)
        for part in zip(*(column.split(size) for column in columns), strict=True):
            yield Touched(self.shape, *part)


@dataclass(frozen=True)
class Points:
    """M concepts of each of B images as U points: consecutive concepts at the same place share a point.

    Attributes:
        at: Positions of the points ``[B,U,2]``.
        around: Centres of their squares ``[B,U,2]``; None for the points themselves.
        first: Index of the first concept of each point among B*M ``[B*U]``.
        count: Number of concepts of each point ``[B*U]``.
        concepts: M.
    """

    at: Tensor
    around: Tensor | None
    first: Tensor
    count: Tensor
    concepts: int

    @classmethod
    def of(cls, position: Tensor, around: Tensor | None, together: bool) -> Points:
        """Returns the points of positions ``[B,M,2]``; one for each position unless ``together``.

        It is also one for each if images differ in the number of points, or if positions need gradients.
        """
        b, m, _ = position.shape
        new = torch.ones(b, m, dtype=torch.bool)
        if together and not position.requires_grad:
            places = position if around is None else torch.cat([position, around], dim=-1)
            new[:, 1:] = (places[:, 1:] != places[:, :-1]).any(-1)
            new |= bool((new.sum(1) != new[:1].sum()).any())
        first = new.flatten().nonzero()[:, 0]
        count = torch.cat([first, first.new_tensor([b * m])]).diff()

        def of_points(each: Tensor) -> Tensor:
            return each.reshape(b * m, 2)[first].view(b, len(first) // b, 2)

        return cls(of_points(position), None if around is None else of_points(around), first, count, m)

    def each(self, of_points: Tensor) -> Tensor:
        """Repeats values of points ``[B,U,...]`` for each of their concepts ``[B,M,...]``."""
        every = of_points.flatten(0, 1).repeat_interleave(self.count, 0)
        return every.view(len(of_points), self.concepts, *of_points.shape[2:])


@dataclass(frozen=True)
class HeadView:
    """The head's features of images, before any position enters.

    Attributes:
        here: Features that every cell uses itself ``[N,gh*gw,d]``.
        there: Features that every cell gives to positions that point at it ``[N,gh*gw,d]``.
        grid: (gw, gh), the number of cells.
    """

    here: Tensor
    there: Tensor
    grid: tuple[int, int]

    def to(self, dtype: torch.dtype) -> HeadView:
        """Returns the same in another precision."""
        return HeadView(self.here.to(dtype), self.there.to(dtype), self.grid)


class LocalHead(nn.Module):
    """A contribution from trunk features and a position, computed only on the cells it can touch.

    Every cell of a square around the position receives its own features, the features *at* the position (what the
    concept points at), and its offset from the position.  Nothing here depends on the size of the image.

    With values v, one-hot rows or mixtures of them, the output is out(z) + told(silu(z (1 + scale(v)) + shift(v))), where z
    is the layers' output for the position alone.

    Args:
        channels: Channels of the trunk's features.
        width: Channels of the head.
        layers: Residual layers.
        window: Radius in cells beyond which a contribution is zero.
        patch: Side of a cell in pixels.
        query_layers: Residual layers on the features that a position points at, run once per position.
        values: V, the length of the values after the position; a concept is ``[2+V]``.
    """

    FREQUENCIES = 5
    POINTED = 3

    def __init__(
        self,
        channels: int,
        width: int,
        layers: int,
        *,
        window: int,
        patch: int,
        query_layers: int = 0,
        values: int = 0,
    ) -> None:
        super().__init__()
        self.radius, self.ranking_radius, self.patch = window, max(1, 2 * window // 3), patch
        self.here = nn.Conv2d(channels, width, 1)
        self.there = nn.Conv2d(channels, width, 1)
        self.where = nn.Linear(3 + 4 * self.FREQUENCIES, width)
        self.query = nn.Linear(width, width)
        self.asked = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(query_layers)
        )
        for layer in self.asked:
            *_, last = layer.parameters()
            nn.init.zeros_(last)
            nn.init.zeros_(layer.get_parameter("3.weight"))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(layers)
        )
        self.out = nn.Linear(width, 3 * patch**2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.film = nn.Linear(values, 2 * width) if values else None
        self.told = nn.Linear(width, 3 * patch**2, bias=False) if values else None
        if self.told is not None:
            nn.init.zeros_(self.told.weight)
        self._padded: tuple[tuple[int, int], tuple[Tensor, ...]] | None = None

    def project(self, h: Tensor) -> HeadView:
        """Returns what does not depend on a position, from features ``[N,C,gh,gw]``."""
        here, there = (conv(h).flatten(2).transpose(1, 2).contiguous() for conv in (self.here, self.there))
        return HeadView(here, there, (h.shape[3], h.shape[2]))

    def forward(self, view: HeadView, concepts: Tensor, gain: Tensor) -> Tensor:
        """Returns the contributions of concepts to all cells (see :meth:`cells`).

        Args:
            view: Views of N images.
            concepts: ``[N,M,2+V]`` or ``[1,M,2+V]``, the position in 0..1.
            gain: Factor of each image's contributions ``[N]``.

        Returns:
            ``[N,M,gh*gw*c]`` float32.
        """
        (b, m, _), cells = concepts.shape, view.grid[0] * view.grid[1]
        if concepts.device.type != "cpu":
            values, number = self._of_square(view, concepts, self.radius, gain)  # [n,b,m,W,c]
            canvas = values.new_zeros(len(values), b * m * (cells + 1), self.out.out_features)
            owner = torch.arange(b * m, device=number.device).view(b, m, 1) * (cells + 1)
            canvas = canvas.index_copy(1, (owner + number).flatten(), values.flatten(1, 3))
            return canvas.view(len(gain), m, cells + 1, -1)[:, :, :-1].flatten(2)
        points = self._points(concepts)
        square = self._square(points.at, self.radius, view.grid)
        canvas = gain.new_zeros(len(gain) // b, b * m * cells, self.out.out_features)
        for touched, values in self._values(view, concepts, points, square, gain):
            canvas.index_copy_(1, touched.owner * cells + touched.cell, values)
        return canvas.view(len(gain), m, cells * self.out.out_features)

    def windows(
        self, view: HeadView, concepts: Tensor, gain: Tensor, around: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the contributions of concepts to the square of cells around them, outside which they are zero.

        Args:
            view: Views of n*B images, all images under a noise sample before the next one.
            concepts: ``[B,M,2+V]``.
            gain: ``[n*B]``.
            around: Nearby concepts to centre the squares on ``[B,M,2+V]``; by default the concepts themselves.

        Returns:
            Values ``[n,B,M,W,c]``, and the index of each cell ``[B,M,W]``, gh*gw for a cell outside the image.
        """
        if concepts.device.type != "cpu":
            return self._of_square(view, concepts, self.radius, gain, around)
        points = self._points(concepts, around)
        square = self._square(points.at, self.radius, view.grid, points.around)
        (b, m, _), w = concepts.shape, square[0].shape[2]
        window = gain.new_zeros(len(gain) // b, b * m * w, self.out.out_features)
        for touched, values in self._values(view, concepts, points, square, gain):
            window.index_copy_(1, touched.place, values)
        return window.view(len(gain) // b, b, m, w, self.out.out_features), points.each(square[0])

    def products(
        self, view: HeadView, concepts: Tensor, gain: Tensor, patches: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns <image,Delta> and <Delta,Delta>, both ``[N,M]``, over the inner part of the windows.

        The margin is left out, since this only ranks: it holds little and costs as much per cell.

        Args:
            view: Views of N images.
            concepts: ``[1,M,2+V]``.
            gain: ``[N]``.
            patches: The images, cell after cell ``[N,gh*gw*c]``.
        """
        image = patches.unflatten(1, (-1, self.out.out_features))
        if concepts.device.type != "cpu":
            values, number = self._of_square(view, concepts, self.ranking_radius, gain)  # [N,1,M,W,c]
            seen = image[:, number.clamp(max=image.shape[1] - 1).flatten()].view(values.shape)
            return (seen * values).sum((1, 3, 4)), values.square().sum((1, 3, 4))
        points = self._points(concepts)
        inner = self._square(points.at, self.ranking_radius, view.grid)
        shape = len(gain), concepts.shape[1], (2 * self.ranking_radius) ** 2
        linear, square = gain.new_zeros(shape), gain.new_zeros(shape)
        for touched, values in self._values(view, concepts, points, inner, gain):
            pull = (touched.rows(image, touched.cell) * values).sum(-1)
            linear.flatten(1).index_copy_(1, touched.place, pull)
            square.flatten(1).index_copy_(1, touched.place, values.square().sum(-1))
        return linear.sum(-1), square.sum(-1)

    def cells(self, image: Tensor) -> Tensor:
        """Returns images ``[N,C,H,W]`` cell after cell, ``[N,gh*gw*c]`` with c = C * patch²."""
        return F.pixel_unshuffle(image, self.patch).flatten(2).transpose(1, 2).flatten(1)

    def image(self, cells: Tensor, grid: tuple[int, int]) -> Tensor:
        """Inverse of :meth:`cells`: ``[...,gh*gw*c]`` to ``[...,C,H,W]``."""
        # Same as pixel_shuffle, whose backward pass supports fewer memory layouts.
        (gw, gh), p = grid, self.patch
        patches = cells.unflatten(-1, (gh, gw, -1, p, p))  # [...,gh,gw,C,p,p]
        rows = patches.movedim(-3, -5).movedim(-2, -3)  # [...,C,gh,p,gw,p]
        image: Tensor = rows.flatten(-4, -3).flatten(-2, -1)
        return image

    def _touched(self, square: Square) -> Touched:
        """Returns the cells of squares that lie in the image and in the window."""
        number, offset, inside = square
        bump = _bump(offset / (self.radius - 0.5))
        place = (inside & (bump[..., 0] > 0)).flatten().nonzero()[:, 0]
        offset, bump = offset.flatten(0, 2)[place], bump.flatten(0, 2)[place]
        b, m, w = inside.shape
        return Touched((b, m, w), place, number.flatten()[place], offset, bump)

    def _square(
        self, position: Tensor, radius: int, grid: tuple[int, int], around: Tensor | None = None
    ) -> Square:
        """Returns the cells of a square around positions ``[B,M,2]``.

        Returns:
            Indices of cells ``[B,M,W]`` (on a CPU all of them, elsewhere without the corners that the window does not
            reach), gh*gw for a cell outside the image; their offset from the position ``[B,M,W,2]`` in cells; and whether
            they lie in the image ``[B,M,W]``.
        """
        limit, square = _limit(grid, position.device), _square_of(radius, self.radius - 0.5, position.device)
        at = position * limit
        middle = at if around is None else around * limit
        cell = (middle.detach().round().long() - radius)[:, :, None] + square
        inside = ((cell >= 0) & (cell < limit)).all(-1)
        number = (cell[..., 1] * grid[0] + cell[..., 0]).masked_fill(~inside, grid[0] * grid[1])
        return number, cell + 0.5 - at[:, :, None], inside

    def _points(self, concepts: Tensor, around: Tensor | None = None) -> Points:
        """Returns the points of concepts ``[B,M,2+V]``; concepts with values share points."""
        near = None if around is None else around[..., :2]
        return Points.of(concepts[..., :2], near, together=self.film is not None)

    def _values(
        self, view: HeadView, concepts: Tensor, points: Points, square: Square, gain: Tensor
    ) -> Iterator[tuple[Touched, Tensor]]:
        """Yields contributions ``[n,R,c]`` to the touched cells of squares, in parts."""
        here, there = view.here, view.there
        query = self._query(self._pointed(points.at, view.grid).to(there.dtype) @ there)  # [N,U,d]
        touched = self._touched(square)
        size = max(1, len(touched.place))
        if here.device.type == "cpu" and not torch.is_grad_enabled():
            size = max(1, ROWS_IN_CACHE * len(concepts) // len(here))
        film = None if self.film is None else self._film(concepts[..., 2:].flatten(0, 1))
        for part in touched.split(size):
            z = self._pass(here, query, part)
            every = [(part, self.out(z))] if film is None else self._tell(z, film, points, part)
            for those, values in every:
                height = those.bump * those.rows(gain[:, None, None], those.image)
                yield those, values.float().mul_(height)

    def _film(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the scale and shift ``[...,d]`` that values ``[...,V]`` apply to the layers' output."""
        assert self.film is not None
        scale, shift = self.film(values.to(self.film.weight.dtype)).chunk(2, dim=-1)
        return 1 + scale, shift

    def _add(self, shared: Tensor, z: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Returns the output ``[...,c]`` under values, from that of their position and the layers' output ``[...,d]``."""
        assert self.told is not None
        y = F.silu(torch.addcmul(shift, z, scale), inplace=not torch.is_grad_enabled())
        return torch.as_tensor(shared + self.told(y))

    def _tell(
        self, z: Tensor, film: tuple[Tensor, Tensor], points: Points, part: Touched
    ) -> Iterator[tuple[Touched, Tensor]]:
        """Yields the output ``[n,R,c]`` of every concept, from the layers' output ``[n,R,d]`` for its point.

        The first concepts of all points come together, then the second ones.  With gradients, all come at once.
        """
        b, _, w = part.shape
        shape, owner, shared = (b, points.concepts, w), part.owner, self.out(z)
        count, found = points.count[owner], []
        for number in range(int(count.max()) if len(count) else 0):
            has = (count > number).nonzero()[:, 0]
            z_those, shared_those = (z, shared) if len(has) == len(count) else (z[:, has], shared[:, has])
            concept = points.first[owner[has]] + number
            scale, shift = (each[concept] for each in film)
            place = concept * w + part.place[has] % w
            those = Touched(shape, place, part.cell[has], part.offset[has], part.bump[has])
            found.append((those, self._add(shared_those, z_those, scale, shift)))
            if not torch.is_grad_enabled():
                yield found.pop()
        if found:  # one tensor, into which a gradient is written once
            columns = [(t.place, t.cell, t.offset, t.bump) for t, _ in found]
            yield (
                Touched(shape, *(torch.cat(column) for column in zip(*columns, strict=True))),
                torch.cat([values for _, values in found], dim=1),
            )

    def _of_square(
        self, view: HeadView, concepts: Tensor, radius: int, gain: Tensor, around: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns contributions to all cells of squares, zero outside the window, and the indices of the cells.

        The number of touched cells depends on the positions; reading it from an asynchronous device would stall the host.

        Returns:
            ``[n,B,M,W,c]`` float32, and ``[B,M,W]``, gh*gw for a cell outside the image.
        """
        position, around = concepts[..., :2], None if around is None else around[..., :2]
        if self.kernels_fit(position):
            return self._by_kernels(view, position, radius, gain, around)
        number, offset, inside = self._square(position, radius, view.grid, around)
        (b, m, w), g = inside.shape, view.grid[0] * view.grid[1]
        pointed = self._pointed(position, view.grid).to(view.there.dtype)
        query = self._query(pointed @ view.there.unflatten(0, (-1, b)))  # [n,b,M,d]
        here = F.pad(view.here, (0, 0, 0, 1)).view(-1, b * (g + 1), view.here.shape[-1])  # [n,b*(G+1),d]
        index = number + torch.arange(b, device=number.device)[:, None, None] * (g + 1)
        z = here.index_select(1, index.flatten()).unflatten(1, (b, m, w))  # [n,b,m,W,d]
        z = z + self._where(offset) + query[:, :, :, None]
        height = _bump(offset / (self.radius - 0.5)) * inside[..., None]  # [b,m,W,1]
        height = height * gain.view(-1, b, 1, 1, 1)
        z = self._layers_of(z)
        output = self.out(z)
        if self.film is not None:
            output = self._add(output, z, *(each[:, :, None] for each in self._film(concepts[..., 2:])))
        return output.float() * height, number

    def kernels_fit(self, position: Tensor) -> bool:
        """Whether our own kernels replace the layers: on a GPU, with weights meant for inference."""
        d, device = self.out.in_features, position.device
        known = d % 16 == 0 and d <= 128 and len(self.layers) <= 2
        if (
            not known
            or self.film is not None
            or self.out.weight.dtype != torch.bfloat16
            or torch.is_grad_enabled()
        ):
            return False
        return has_triton(device) and fast_memory(device) > 220_000  # where the layers' weights lie

    def _by_kernels(
        self, view: HeadView, position: Tensor, radius: int, gain: Tensor, around: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Does the same as :meth:`_of_square`, by :mod:`igm_cli.core.models.local_head_triton`."""
        from igm_cli.core.models import local_head_triton as kernels

        grid, device, reach = view.grid, position.device, self.radius - 0.5
        limit, near = _limit(grid, device), min(self.POINTED, self.radius)
        at = position * limit
        middle = at if around is None else around * limit
        pointed = kernels.pointed_at(
            view.there, at, (at.round() - near).int(), _square_of(near, reach, device, torch.int32), grid
        )
        first = self.out.weight
        if self._padded is None or self._padded[0] != (first.data_ptr(), first._version):
            weights = kernels.padded(self.where, self.layers, self.out)
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # other streams read them, too
            self._padded = (first.data_ptr(), first._version), weights
        return kernels.contributions(
            view.here, self._query(pointed), at, (middle.round() - radius).int(),
            _square_of(radius, reach, device, torch.int32), gain, self.out.out_features, self._padded[1], grid,
            self.radius,
        )  # fmt: skip

    def _pass(self, here: Tensor, query: Tensor, touched: Touched) -> Tensor:
        """Returns the layers' output ``[n,R,d]`` for touched cells, given the queries of their positions."""
        z = touched.rows(here, touched.image * here.shape[1] + touched.cell)
        return self._layers_of(z.add_(self._where(touched.offset)).add_(touched.rows(query, touched.owner)))

    def _layers_of(self, z: Tensor) -> Tensor:
        """Returns the layers' output ``[...,d]`` for the summed inputs of cells."""
        spare = not torch.is_grad_enabled()  # no gradient needs what an activation overwrites
        z = F.silu(z, inplace=spare)
        for layer in self.layers:
            first, _, second = layer.children()
            z = second(F.silu(first(z), inplace=spare)).add_(z)
        return z

    def _query(self, pointed: Tensor) -> Tensor:
        """Returns the queries ``[...,d]`` of positions, from the features they point at."""
        query = self.query(pointed)
        for layer in self.asked:
            query = query + layer(query)
        return torch.as_tensor(query)

    def _pointed(self, position: Tensor, grid: tuple[int, int]) -> Tensor:
        """Returns the weights ``[B,M,gh*gw]`` with which positions ``[B,M,2]`` point at cells: a softmax over those close by."""
        number, offset, inside = self._square(position, min(self.POINTED, self.radius), grid)
        nearness = torch.softmax(-2.0 * offset.square().sum(-1), dim=-1) * inside
        weights = nearness.new_zeros(*inside.shape[:2], grid[0] * grid[1])
        return weights.scatter_add(2, number.masked_fill(~inside, 0), nearness)

    def _where(self, offset: Tensor) -> Tensor:
        """Returns a linear layer of Fourier features ``[...,d]`` of offsets ``[...,2]``."""
        u = offset / self.radius
        angles = (u[..., None] * _octaves(self.FREQUENCIES, u.device)).flatten(-2)
        features = torch.cat([u, u.square().sum(-1, keepdim=True), angles.sin(), angles.cos()], dim=-1)
        return torch.as_tensor(self.where(features.to(self.where.weight.dtype)))


def _bump(u: Tensor) -> Tensor:
    """Returns a smooth window of offsets ``[...,2]`` in radii: 1 at the centre, 0 from distance 1 on."""
    square = u.square().sum(-1, keepdim=True).clamp(max=1.0)
    return (1 - square.square()).square()


@functools.cache
def _limit(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Returns the number of cells along the width and the height, on a device."""
    return torch.tensor(grid).to(device)


@functools.cache
def _octaves(count: int, device: torch.device) -> Tensor:
    """Returns the angular frequencies of the Fourier features."""
    return (math.pi * 2.0 ** torch.arange(count)).to(device)


@functools.cache
def _square_of(radius: int, reach: float, device: torch.device, dtype: torch.dtype = torch.long) -> Tensor:
    """Returns the steps ``[W,2]`` from the corner of a square to its cells, on a CPU to all of them.

    Other devices skip the corners, which a window of this reach never touches.  A position lies at most half a cell off
    the middle of its square, and a few hundredths more where derivatives are taken.
    """
    steps = torch.arange(2 * radius)
    square = torch.stack([steps.repeat(2 * radius), steps.repeat_interleave(2 * radius)], dim=-1)
    if device.type == "cpu":
        return square
    least = ((square - radius + 0.5).abs() - 0.65).clamp(min=0)
    return square[least.square().sum(1) < reach**2].to(device, dtype)
