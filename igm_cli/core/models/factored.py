"""The factored denoiser: the trunk sees the image once, then a light head runs for every concept.

The trunk is a small U-Net on space-to-depth patches of x_t.  The head turns its features and one
position into a contribution, confined to a window around that position.  It affects its own place
only, so contributions learned from few objects add up for many.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, Strict
from torch import Tensor, nn

from igm_cli.core.concepts import ConceptSpace, Continuous, Product
from igm_cli.core.models.local_head import HeadView, LocalHead
from igm_cli.core.noise_schedule import Schedule
from igm_cli.core.validation import Depth, Size, Width, validated


@validated("model option")
class FactoredConfig:
    """Shape of a factored denoiser.

    Attributes:
        image_size: (width, height) in pixels; both divisible by ``4 * patch``.
        patch: Side of a space-to-depth cell in pixels.
        channels: Trunk channels at full, half and quarter cell resolution.
        blocks: Residual blocks per level, on the way down and on the way up.
        head_channels: Channels of the concept head.
        head_layers: Residual layers of the concept head.
        window: Radius in cells beyond which a contribution is zero.
        pixel_channels: Channels of the layers that refine the prediction under no concept pixel by pixel, across cell
            borders; 0 for none.
        query_layers: Residual layers of the local head on the features that a position points at.
        coordinates: Whether the trunk receives the coordinates of cells; without them, a model of local concepts
            inverts images of any size.
    """

    image_size: Size = (96, 64)
    patch: Annotated[int, Field(ge=1, le=256)] = 4
    channels: Annotated[tuple[Width, Width, Width], Strict(False)] = (128, 192, 192)
    blocks: Depth = 2
    head_channels: Width = 96
    head_layers: Annotated[int, Field(ge=0, le=100)] = 2
    window: Annotated[int, Field(ge=1, le=1000)] = 6
    pixel_channels: Annotated[int, Field(ge=0, le=2**14)] = 0
    query_layers: Annotated[int, Field(ge=0, le=100)] = 0
    coordinates: bool = True

    def __post_init__(self) -> None:
        if self.channels[0] % 2:
            raise ValueError(f"the first of the channels {self.channels} must be even")
        if any(side % (4 * self.patch) for side in self.image_size):
            raise ValueError(f"image sides {self.image_size} must be divisible by {4 * self.patch}")


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Returns the sinusoidal embedding (Vaswani et al. 2017) ``[N,dim]`` of timesteps ``[N]``."""
    angles = t.float()[:, None] * _frequencies(dim, t.device)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@functools.cache
def _frequencies(dim: int, device: torch.device) -> Tensor:
    return torch.exp(-math.log(10000.0) * torch.arange(dim // 2) / (dim // 2)).to(device)


class ResidualBlock(nn.Module):
    """x + conv(act(film(conv(act(norm(x)))))); the time enters as scale and shift."""

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
    """A U-Net of three levels with additive skips, on cells of ``patch**2`` pixels."""

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
        self.coordinates = config.coordinates
        self.stem = nn.Conv2d(cell + 2 * self.coordinates, fine, 3, padding=1)
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
        dtype = self.stem.weight.dtype
        time = self.time(timestep_embedding(t, self.fine).to(dtype))
        x = F.pixel_unshuffle(x_t.to(dtype), self.patch)
        if self.coordinates:
            x = torch.cat([x, _coordinates(x)], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)
        a = self.down1(self.stem(x), time)
        b = self.down2(self.to_middle(a), time)
        c = self.bottom(self.to_coarse(b), time)
        b = self.up2(b + F.interpolate(self.from_coarse(c), scale_factor=2.0), time)
        a = self.up1(a + F.interpolate(self.from_middle(b), scale_factor=2.0), time)
        return F.silu(self.norm(a))


class PixelLayers(nn.Module):
    """Refines an output pixel by pixel, so that cells of ``patch**2`` pixels leave no visible borders."""

    SEEN = 8  # channels of the trunk's features at every pixel

    def __init__(self, config: FactoredConfig) -> None:
        super().__init__()
        self.patch, width = config.patch, config.pixel_channels
        self.up = nn.Conv2d(config.channels[0], self.SEEN * config.patch**2, 1)
        self.first = nn.Conv2d(6 + self.SEEN, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, output: Tensor, x_t: Tensor, h: Tensor) -> Tensor:
        """output, x_t: ``[N,3,H,W]``; h: features ``[N,c,H/patch,W/patch]``; returns ``[N,3,H,W]``."""
        seen = F.pixel_shuffle(self.up(h), self.patch)
        z = torch.cat([x_t.to(seen), output.to(seen), seen], 1).contiguous(memory_format=torch.channels_last)
        total: Tensor = output + self.out(F.silu(self.second(F.silu(self.first(z)))))
        return total


@dataclass
class FactoredFeatures:
    """The trunk's features ``h`` [N,c,gh,gw], the head's view of them, and the trunk's inputs."""

    h: Tensor
    view: Any
    x_t: Tensor
    t: Tensor


class TrunkDenoiser(nn.Module):
    """Base class of factored denoisers: the trunk, and the prediction under no concept, which needs no head.

    Subclasses add a head and the rest of the protocol.  The network puts out the prediction type of its noise schedule.

    Attributes:
        neutral: Name prefixes of the parts that add nothing while freshly initialised.
    """

    neutral: ClassVar[tuple[str, ...]] = ("pixels.", "head.asked.", "head.film.", "head.told.")
    head: Any

    def __init__(self, config: FactoredConfig, space: ConceptSpace, schedule: Schedule) -> None:
        super().__init__()
        self.config, self.space, self.schedule = config, space, schedule
        self.image_size, self.any_size = config.image_size, not config.coordinates
        self.multiple = 4 * config.patch  # the sides of images must be multiples of this
        self.trunk = Trunk(config)
        self.base_out = nn.Conv2d(config.channels[0], 3 * config.patch**2, 3, padding=1)
        nn.init.zeros_(self.base_out.weight)
        self.pixels = PixelLayers(config) if config.pixel_channels else None

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights, in which the network computes unless autocast says otherwise."""
        return self.base_out.weight.dtype

    def features(self, x_t: Tensor, t: Tensor) -> FactoredFeatures:
        """Passes ``[N,C,H,W]`` at timesteps ``[N]`` through the trunk once."""
        h = self.trunk(x_t, t)
        return FactoredFeatures(h, self.head.project(h), x_t, t)

    def base(self, features: FactoredFeatures) -> Tensor:
        """Returns eps_u ``[N,C,H,W]``."""
        output = F.pixel_shuffle(self.base_out(features.h), self.config.patch)
        if self.pixels is not None:
            output = self.pixels(output, features.x_t, features.h)
        output = output.float()
        return self.schedule.output_to_epsilon(output, features.x_t, features.t)


def _coordinates(x: Tensor) -> Tensor:
    """Returns cell centres in -1..1 as two channels, ``[N,2,H,W]``."""
    n, _, h, w = x.shape
    ys = (torch.arange(h, device=x.device, dtype=x.dtype) + 0.5) / h * 2 - 1
    xs = (torch.arange(w, device=x.device, dtype=x.dtype) + 0.5) / w * 2 - 1
    grid = torch.stack([xs.expand(h, w), ys[:, None].expand(h, w)])
    return grid.expand(n, 2, h, w)


class FactoredDenoiser(TrunkDenoiser):
    """Trunk and local head behind the :class:`~igm_cli.core.denoiser.Denoiser` protocol.

    Its contributions are :class:`~igm_cli.core.inference.windows.Local`.  Its concept space is a local, two-dimensional
    :class:`Continuous` one in 0..1, or a :class:`Product` of such a one with values.

    Raises:
        ValueError: If the space is none of these.
    """

    head: LocalHead

    def __init__(self, config: FactoredConfig, space: ConceptSpace, schedule: Schedule) -> None:
        if not (isinstance(space, Continuous | Product) and space.local and space.point.dim == 2):
            raise ValueError("the factored denoiser needs local two-dimensional concepts; use the unet")
        if (space.point.low, space.point.high) != ((0.0, 0.0), (1.0, 1.0)):
            raise ValueError("the factored denoiser needs concepts within 0..1 of the image")
        super().__init__(config, space, schedule)
        self.head = LocalHead(
            config.channels[0],
            config.head_channels,
            config.head_layers,
            window=config.window,
            patch=config.patch,
            query_layers=config.query_layers,
            values=space.dim - space.point.dim,
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def contributions(self, features: FactoredFeatures, concepts: Tensor) -> Tensor:
        """Returns Delta ``[N,M,C,H,W]`` of concepts ``[N,M,D]`` or ``[1,M,D]``."""
        cells = self.head(self._view(features), concepts, self.schedule.epsilon_gain(features.t))
        return self.head.image(cells, features.view.grid)

    def to_patches(self, image: Tensor) -> Tensor:
        """Returns images ``[N,C,H,W]`` cell after cell ``[N,G,c]``."""
        patches: Tensor = self.head.cells(image).unflatten(1, (-1, self.head.out.out_features))
        return patches

    def grid(self, features: FactoredFeatures) -> tuple[int, int]:
        """Returns the number of cells along the width and the height of the images."""
        grid: tuple[int, int] = features.view.grid
        return grid

    def windows(
        self, features: FactoredFeatures, concepts: Tensor, around: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns Delta in the cells around concepts ``[b,M,D]``, and the indices of these cells."""
        gain = self.schedule.epsilon_gain(features.t)
        return self.head.windows(self._view(features), concepts, gain, around)

    def products(self, features: FactoredFeatures, concepts: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Returns <image,Delta_j> and <Delta_j,Delta_j> ``[N,M]`` of concepts ``[1,M,D]``."""
        gain = self.schedule.epsilon_gain(features.t)
        return self.head.products(self._view(features), concepts, gain, patches.flatten(1))

    def _view(self, features: FactoredFeatures) -> HeadView:
        """Returns the head's view, in the precision of the weights unless autocast is on now."""
        view: HeadView = features.view
        return view if torch.is_autocast_enabled(view.here.device.type) else view.to(self.dtype)

    def forward(
        self, x_t: Tensor, t: Tensor, concepts: Tensor, compared: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Returns (eps_u, Delta) in one call, as distributed training needs it.

        If concepts ``[N,M',D]`` to be compared are given, what :meth:`windows` returns for them follows.
        """
        features = self.features(x_t, t)
        found = self.base(features), self.contributions(features, concepts)
        return found if compared is None else (*found, *self.windows(features, compared, None))
