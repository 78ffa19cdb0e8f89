"""The paper's architecture: diffusers' UNet2DConditionModel, one whole pass per concept.

A concept vector is embedded and attended to as the only token of the conditioning sequence; a
learned token stands for no concept.  (IGM, Wang et al. 2025, appendix; code released with it.)
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from igm_cli.core.concepts import ConceptSpace, Continuous
from igm_cli.core.denoiser import InputFeatures
from igm_cli.core.noise_schedule import Schedule
from igm_cli.core.validation import Channels, Depth, Size, Width, validated
from igm_cli.errors import need


@validated("model option")
class UNetConfig:
    """Shape of the U-Net.

    Attributes:
        image_size: (width, height) in pixels, divisible by 2 to the number of levels less one.
        channels: Channels of each level (``block_out_channels``).
        layers: Residual blocks per level.
        attention_dim: Width of the concept token.
        head_dim: Channels of an attention head.
        groups: Groups of the normalisation.
        frequencies: Octaves of the Fourier features of continuous concepts.
    """

    image_size: Size = (64, 64)
    channels: Channels = (64, 128, 256, 256)
    layers: Depth = 2
    attention_dim: Width = 256
    head_dim: Width = 32
    groups: Width = 32
    frequencies: Annotated[int, Field(ge=0, le=32)] = 6

    def __post_init__(self) -> None:
        step = 2 ** (len(self.channels) - 1)
        if any(side % step for side in self.image_size):
            raise ValueError(f"image sides {self.image_size} must be divisible by {step}")
        if any(c % self.head_dim or c % self.groups for c in self.channels):
            divisors = f"head_dim ({self.head_dim}) and groups ({self.groups})"
            raise ValueError(f"channels {self.channels} must be divisible by {divisors}")


class ConceptToken(nn.Module):
    """Concept vectors as tokens; continuous ones through Fourier features (Tancik et al. 2020)."""

    def __init__(self, space: ConceptSpace, config: UNetConfig) -> None:
        super().__init__()
        self.space, self.frequencies = space, config.frequencies
        continuous = isinstance(space, Continuous)
        width = space.dim * (1 + 2 * config.frequencies) if continuous else space.dim
        self.embed = nn.Sequential(
            nn.Linear(width, config.attention_dim),
            nn.SiLU(),
            nn.Linear(config.attention_dim, config.attention_dim),
        )
        self.none = nn.Parameter(torch.zeros(config.attention_dim))

    def forward(self, concepts: Tensor) -> Tensor:
        """Embeds ``[...,D]`` as ``[...,attention_dim]``."""
        if not isinstance(self.space, Continuous):
            return torch.as_tensor(self.embed(concepts))
        low, high = concepts.new_tensor(self.space.low), concepts.new_tensor(self.space.high)
        u = (concepts - low) / (high - low)
        octaves = math.pi * 2.0 ** torch.arange(self.frequencies, device=u.device)
        angles = (u[..., None] * octaves).flatten(-2)
        return torch.as_tensor(self.embed(torch.cat([u, angles.sin(), angles.cos()], dim=-1)))


class UNetDenoiser(nn.Module):
    """eps_theta(x_t, t | c) by a whole pass per concept of any space, behind the denoiser protocol.

    The network puts out the prediction type of its noise schedule.
    """

    def __init__(self, config: UNetConfig, space: ConceptSpace, schedule: Schedule) -> None:
        super().__init__()
        need("text", "diffusers")
        from diffusers import UNet2DConditionModel

        self.config, self.space, self.schedule = config, space, schedule
        self.image_size = config.image_size
        levels = len(config.channels)
        self.token = ConceptToken(space, config)
        self.unet = UNet2DConditionModel(
            in_channels=3,
            out_channels=3,
            block_out_channels=config.channels,
            layers_per_block=config.layers,
            cross_attention_dim=config.attention_dim,
            attention_head_dim=tuple(c // config.head_dim for c in config.channels),  # number of heads
            norm_num_groups=config.groups,
            down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        )

    def features(self, x_t: Tensor, t: Tensor) -> InputFeatures:
        """Keeps the input: this architecture has nothing to share."""
        return InputFeatures(x_t, t)

    def base(self, features: InputFeatures) -> Tensor:
        """Returns eps_u ``[N,C,H,W]``, under the token that stands for no concept."""
        if features.base is None:
            tokens = self.token.none.expand(len(features.t), 1, -1)
            features.base = self._epsilon(features.x_t, features.t, tokens)
        return features.base

    def contributions(self, features: InputFeatures, concepts: Tensor) -> Tensor:
        """Returns Delta ``[N,M,C,H,W]`` of concepts ``[N,M,D]`` or ``[1,M,D]``: N*M passes."""
        n, m = len(features.t), concepts.shape[1]
        tokens = self.token(concepts).expand(n, -1, -1).reshape(n * m, 1, self.config.attention_dim)
        x_t = features.x_t.repeat_interleave(m, dim=0)
        epsilon = self._epsilon(x_t, features.t.repeat_interleave(m), tokens)
        conditional: Tensor = epsilon.unflatten(0, (n, m))
        return conditional - self.base(features)[:, None]

    def forward(self, x_t: Tensor, t: Tensor, concepts: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (eps_u, Delta) in one call, as distributed training needs it."""
        features = self.features(x_t, t)
        return self.base(features), self.contributions(features, concepts)

    def _epsilon(self, x_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        output = self.unet(x_t, self.schedule.time(t), encoder_hidden_states=tokens).sample.float()
        return self.schedule.output_to_epsilon(output, x_t, t)
