"""The shape of the factored denoiser, and its trunk: a small U-Net that looks at (x_t, t) once."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Strict
from torch import Tensor, nn

from igm_cli.core.concepts import ConceptSpace
from igm_cli.core.noise_schedule import Schedule
from igm_cli.core.validation import Natural, Positive, Size, validated


@validated("model option")
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
        coordinates: Whether the trunk is told where in the image a cell lies; without that, a model of local concepts
            inverts images of any size.
    """

    image_size: Size = (96, 64)
    patch: Positive = 4
    channels: Annotated[tuple[Positive, Positive, Positive], Strict(False)] = (128, 192, 192)
    blocks: Positive = 2
    head_channels: Positive = 96
    head_layers: Natural = 2
    window: Natural = 6
    coordinates: bool = True

    def __post_init__(self) -> None:
        if self.channels[0] % 2:
            raise ValueError(f"the first of the channels {self.channels} must be even")
        if any(side % (4 * self.patch) for side in self.image_size):
            raise ValueError(f"image sides {self.image_size} must be divisible by {4 * self.patch}")

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


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
        time = self.time(timestep_embedding(t, self.fine))
        x = F.pixel_unshuffle(x_t, self.patch)
        if self.coordinates:
            x = torch.cat([x, _coordinates(x)], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)
        a = self.down1(self.stem(x), time)
        b = self.down2(self.to_middle(a), time)
        c = self.bottom(self.to_coarse(b), time)
        b = self.up2(b + F.interpolate(self.from_coarse(c), scale_factor=2.0), time)
        a = self.up1(a + F.interpolate(self.from_middle(b), scale_factor=2.0), time)
        return F.silu(self.norm(a))


class TrunkDenoiser(nn.Module):
    """What factored denoisers share: the trunk, and the prediction under no concept that it makes alone.

    A head makes a denoiser of it: subclasses add what the protocol asks for besides.

    Args:
        config: Shape of the trunk.
        space: Concept space.
        schedule: The noise schedule; the network puts out its prediction type.
    """

    def __init__(self, config: FactoredConfig, space: ConceptSpace, schedule: Schedule) -> None:
        super().__init__()
        self.config, self.space, self.schedule = config, space, schedule
        self.image_size, self.any_size = config.image_size, not config.coordinates
        self.trunk = Trunk(config)
        self.base_out = nn.Conv2d(config.channels[0], 3 * config.patch**2, 3, padding=1)
        nn.init.zeros_(self.base_out.weight)

    def base(self, features: Any) -> Tensor:
        """eps_u ``[N,C,H,W]``."""
        output = F.pixel_shuffle(self.base_out(features.h), self.config.patch).float()
        return self.schedule.output_to_epsilon(output, features.x_t, features.t)


def _coordinates(x: Tensor) -> Tensor:
    """Cell centres in -1..1 as two channels, ``[N,2,H,W]``."""
    n, _, h, w = x.shape
    ys = (torch.arange(h, device=x.device, dtype=x.dtype) + 0.5) / h * 2 - 1
    xs = (torch.arange(w, device=x.device, dtype=x.dtype) + 0.5) / w * 2 - 1
    grid = torch.stack([xs.expand(h, w), ys[:, None].expand(h, w)])
    return grid.expand(n, 2, h, w)
