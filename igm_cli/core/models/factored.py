"""The factored denoiser: one look at the image, then a light head for every concept.

A trunk (a small U-Net on space-to-depth patches) sees (x_t, t) once.  A head turns its features and
one position into a contribution that is confined to a window around that position: it can speak of
its own place only, so contributions learned from few objects add up for many.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igm_cli.core.concepts import ConceptSpace, Continuous
from igm_cli.core.schedule import Schedule


@dataclass(frozen=True)
class FactoredConfig:
    """Shape of a factored denoiser.

    Attributes:
        image_size: (width, height) in pixels; both divisible by ``4 * patch``.
        patch: Side of a space-to-depth cell in pixels.
        channels: Trunk channels at full, half and quarter cell resolution.
        blocks: Residual blocks a level, on the way down and on the way up.
        head_channels: Channels of the concept head.
        head_layers: Residual layers of the concept head.
        window: Radius in cells beyond which a contribution is zero.
    """

    image_size: tuple[int, int] = (96, 64)
    patch: int = 4
    channels: tuple[int, int, int] = (128, 192, 192)
    blocks: int = 2
    head_channels: int = 96
    head_layers: int = 2
    window: int = 6

    def __post_init__(self) -> None:
        if self.channels[0] % 2:
            raise ValueError(f"the first of the channels {self.channels} must be even")
        if any(side % (4 * self.patch) for side in self.image_size):
            raise ValueError(f"image sides {self.image_size} must be divisible by {4 * self.patch}")

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FactoredConfig:
        """Inverse of :meth:`to_dict`."""
        tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**tuples)


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding (Vaswani et al. 2017) of timesteps ``[N]``, ``[N,dim]``."""
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ResidualBlock(nn.Module):
    """x + conv(act(film(conv(act(norm(x)))))), the time entering as scale and shift."""

    def __init__(self, channels: int, time_dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(time_dim, 2 * channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.film.weight)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x: ``[N,C,H,W]``; time: ``[N,E]``."""
        scale, shift = self.film(time)[:, :, None, None].chunk(2, dim=1)
        y = self.conv1(F.silu(self.norm(x)))
        y = self.conv2(F.silu(torch.addcmul(shift, y, 1 + scale)))
        total: Tensor = x + y
        return total


class Level(nn.Module):
    """Residual blocks at one resolution."""

    def __init__(self, channels: int, blocks: int, time_dim: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(channels, time_dim) for _ in range(blocks))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x: ``[N,C,H,W]``; time: ``[N,E]``."""
        for block in self.blocks:
            x = block(x, time)
        return x


class Trunk(nn.Module):
    """A U-Net of three levels whose skips are added; works on cells of ``patch**2`` pixels."""

    def __init__(self, config: FactoredConfig, in_channels: int = 3) -> None:
        super().__init__()
        self.patch = config.patch
        fine, middle, coarse = config.channels
        self.time_dim = 2 * fine
        self.time = nn.Sequential(
            nn.Linear(fine, self.time_dim), nn.SiLU(), nn.Linear(self.time_dim, self.time_dim), nn.SiLU()
        )
        self.fine = fine
        cell = in_channels * config.patch**2
        self.stem = nn.Conv2d(cell + 2, fine, 3, padding=1)  # + 2: where in the image a cell lies
        self.down1 = Level(fine, config.blocks, self.time_dim)
        self.to_middle = nn.Conv2d(fine, middle, 2, stride=2)
        self.down2 = Level(middle, config.blocks, self.time_dim)
        self.to_coarse = nn.Conv2d(middle, coarse, 2, stride=2)
        self.bottom = Level(coarse, config.blocks, self.time_dim)
        self.from_coarse = nn.Conv2d(coarse, middle, 1)
        self.up2 = Level(middle, config.blocks, self.time_dim)
        self.from_middle = nn.Conv2d(middle, fine, 1)
        self.up1 = Level(fine, config.blocks, self.time_dim)
        self.norm = nn.GroupNorm(1, fine)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: ``[N,C,H,W]``; t: ``[N]``; returns ``[N,fine,H/patch,W/patch]``."""
        time = self.time(timestep_embedding(t, self.fine))
        x = F.pixel_unshuffle(x_t, self.patch)
        x = torch.cat([x, _coordinates(x)], dim=1).contiguous(memory_format=torch.channels_last)
        a = self.down1(self.stem(x), time)
        b = self.down2(self.to_middle(a), time)
        c = self.bottom(self.to_coarse(b), time)
        b = self.up2(b + F.interpolate(self.from_coarse(c), scale_factor=2.0), time)
        a = self.up1(a + F.interpolate(self.from_middle(b), scale_factor=2.0), time)
        return F.silu(self.norm(a))


def _coordinates(x: Tensor) -> Tensor:
    """Cell centres in -1..1 as two channels, ``[N,2,H,W]``."""
    n, _, h, w = x.shape
    ys = (torch.arange(h, device=x.device, dtype=x.dtype) + 0.5) / h * 2 - 1
    xs = (torch.arange(w, device=x.device, dtype=x.dtype) + 0.5) / w * 2 - 1
    grid = torch.stack([xs.expand(h, w), ys[:, None].expand(h, w)])
    return grid.expand(n, 2, h, w)


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


@dataclass
class FactoredFeatures:
    """What the trunk saw: ``h`` [N,c,gh,gw], the head's two views of it, and its inputs."""

    h: Tensor
    projected: tuple[Tensor, Tensor]
    x_t: Tensor
    t: Tensor


class FactoredDenoiser(nn.Module):
    """Trunk and local head behind the :class:`~igm_cli.core.denoiser.Denoiser` protocol.

    Args:
        config: Its shape.
        space: A local, two-dimensional :class:`Continuous` space in 0..1.
        schedule: The noise schedule; the network puts out its prediction type.

    Raises:
        ValueError: If the space is not one that a window can follow.
    """

    def __init__(self, config: FactoredConfig, space: ConceptSpace, schedule: Schedule) -> None:
        super().__init__()
        if not (isinstance(space, Continuous) and space.local and space.dim == 2):
            raise ValueError("the factored denoiser needs local two-dimensional concepts; use the unet")
        if (space.low, space.high) != ((0.0, 0.0), (1.0, 1.0)):
            raise ValueError("the factored denoiser needs concepts within 0..1 of the image")
        self.config, self.space, self.schedule = config, space, schedule
        self.trunk = Trunk(config)
        self.base_out = nn.Conv2d(config.channels[0], 3 * config.patch**2, 3, padding=1)
        self.head = LocalHead(config)
        nn.init.zeros_(self.base_out.weight)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, x_t: Tensor, t: Tensor) -> FactoredFeatures:
        """One pass of the trunk over ``[N,C,H,W]`` at timesteps ``[N]``."""
        h = self.trunk(x_t, t)
        return FactoredFeatures(h, self.head.project(h), x_t, t)

    def base(self, features: FactoredFeatures) -> Tensor:
        """eps_u ``[N,C,H,W]``."""
        output = F.pixel_shuffle(self.base_out(features.h), self.config.patch).float()
        return self.schedule.output_to_epsilon(output, features.x_t, features.t)

    def contributions(self, features: FactoredFeatures, concepts: Tensor) -> Tensor:
        """Delta ``[N,M,C,H,W]`` of positions ``[N,M,2]`` or ``[1,M,2]``."""
        gain = self.schedule.epsilon_gain(features.t)[:, None, None, None, None]
        projected = features.projected
        if not torch.is_autocast_enabled(concepts.device.type):  # features may come from autocast
            projected = (projected[0].float(), projected[1].float())
        delta: Tensor = self.head(projected, concepts)
        return gain * delta.float()

    def products(self, features: FactoredFeatures, concepts: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """<image,Delta_j> and <Delta_j,Delta_j> ``[N,M]``; see :class:`~igm_cli.core.evidence.Ranking`."""
        linear, square = self.head.products(features.projected, concepts, image)
        gain = self.schedule.epsilon_gain(features.t)[:, None]
        return gain * linear, gain.square() * square

    def forward(self, x_t: Tensor, t: Tensor, concepts: Tensor) -> tuple[Tensor, Tensor]:
        """(eps_u, Delta) in one call, as distributed training needs it."""
        features = self.features(x_t, t)
        return self.base(features), self.contributions(features, concepts)
