"""One conditional diffusion model over a whole set of positions: eps_theta(x_t, t | {c_1 .. c_K}).

The trunk is that of the factored denoiser, which sees (x_t, t) once.  In the head every cell of the image attends to
all positions together, so that the meaning of one position depends on all the others.  Padding is masked in every
layer, and no layer depends on the order, so the set may have any size.

A network that sees a barely noised image can ignore the set, and learns to; then every set fits equally well, which
would make a straw-man baseline.  So a gate lets the head through only where the set says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igm_cli.core.models.factored import FactoredConfig, ResidualBlock, Trunk, timestep_embedding
from igm_cli.core.noise_schedule import Schedule


@dataclass(frozen=True)
class SetConfig:
    """Shape of a set denoiser."""

    trunk: FactoredConfig = field(default_factory=FactoredConfig)  # its head's fields are not used
    width: int = 96  # channels of the head, divisible by 2 * heads
    heads: int = 4
    token_layers: int = 2  # self-attention over the positions
    blocks: int = 2  # rounds of attention and convolution over the image's cells


def fourier(u: Tensor, octaves: int) -> Tensor:
    """Returns coordinates ``[...,D]`` followed by their sines and cosines at frequencies pi 2^i."""
    angles = (u[..., None] * (math.pi * 2.0 ** torch.arange(octaves, device=u.device))).flatten(-2)
    return torch.cat([u, angles.sin(), angles.cos()], dim=-1)


class TokenLayer(nn.Module):
    """Self-attention over the positions of a set, then an MLP (Vaswani et al. 2017, pre-norm)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.join = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Returns tokens ``[N,K,d]`` after attending to those that are ``present [N,K]``."""
        k = tokens.shape[1]
        qkv = self.qkv(self.norm1(tokens)).unflatten(2, (3, self.heads, -1))
        q, key, value = qkv.permute(2, 0, 3, 1, 4)  # [N,h,K,d/h]
        # A padded token attends to itself, so that no row of the mask is empty.
        mask = present[:, None, None, :] | torch.eye(k, dtype=torch.bool, device=tokens.device)
        mixed = F.scaled_dot_product_attention(q, key, value, attn_mask=mask)
        tokens = tokens + self.join(mixed.transpose(1, 2).flatten(2))
        return torch.as_tensor(tokens + self.mlp(self.norm2(tokens)))


class Relations(nn.Module):
    """The place of every cell relative to every position, as ``dim`` features; fine-grained up to ``reach`` cells."""

    OCTAVES = 5
    WIDTHS = (1.0, 2.0, 4.0, 8.0)

    def __init__(self, dim: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        size = 2 + 4 * self.OCTAVES + len(self.WIDTHS)
        self.encode = nn.Sequential(nn.Linear(size, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU())

    def forward(self, concepts: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Relates positions ``[N,K,2]`` to the cells of a grid (columns, rows).

        Returns features ``[N,G,K,dim]``, squared distances in units of the reach ``[N,G,K]``, and for each
        position the weights ``[N,K,G]`` with which it reads the cells around it.
        """
        x, y = (torch.arange(side, device=concepts.device, dtype=concepts.dtype) + 0.5 for side in grid)
        cells = torch.cartesian_prod(y, x).flip(-1)  # [G,2], columns varying fastest
        offset = cells[None, :, None] - (concepts * concepts.new_tensor(grid))[:, None]  # [N,G,K,2]
        square = offset.square().sum(-1, keepdim=True)
        near = torch.exp(-square / (2 * self.reach**2 / 4))
        u = torch.tanh(offset / (2 * self.reach))
        waves = fourier(offset / self.reach, self.OCTAVES)[..., 2:] * near
        bumps = torch.exp(-square / (2 * square.new_tensor(self.WIDTHS).square()))
        features = self.encode(torch.cat([u, waves, bumps], dim=-1))
        reading = torch.softmax(-2.0 * square[..., 0].transpose(1, 2), dim=-1)
        return features, square[..., 0] / self.reach**2, reading


class SetAttention(nn.Module):
    """Lets cells attend to all positions at once, or to none (a learned null key).

    Logits and values depend on the position relative to the cell (Shaw et al. 2018, in two dimensions).
    """

    def __init__(self, dim: int, heads: int, related: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_tokens = nn.GroupNorm(1, dim), nn.LayerNorm(dim)
        self.query, self.key_value = nn.Conv2d(dim, dim, 1), nn.Linear(dim, 2 * dim)
        self.closeness = nn.Linear(related, heads)
        self.sharpness = nn.Parameter(2.0 ** torch.arange(1, heads + 1))  # near positions come first
        self.null = nn.Parameter(-torch.ones(heads))
        self.join = nn.Linear(dim + related, dim)
        nn.init.zeros_(self.join.bias)

    def forward(
        self, cells: Tensor, tokens: Tensor, relations: Tensor, distance: Tensor, present: Tensor
    ) -> Tensor:
        """Returns G cells ``[N,d,gh,gw]`` after one round of attention to tokens ``[N,K,d]`` present ``[N,K]``.

        ``relations [N,G,K,g]`` and squared ``distance [N,G,K]`` are those between cells and positions.
        """
        q = self.query(self.norm(cells)).flatten(2).unflatten(1, (self.heads, -1))  # [N,h,d/h,G]
        keys_values = self.key_value(self.norm_tokens(tokens)).chunk(
            2, dim=-1
        )  # both from [N,K,d] to [N,h,K,d/h]
        key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in keys_values)
        logits = (q.transpose(2, 3) @ key.transpose(2, 3)).float() / math.sqrt(q.shape[2])  # [N,h,G,K]
        logits = logits + self.closeness(relations).permute(0, 3, 1, 2)
        logits = logits - self.sharpness[:, None, None] * distance[:, None]
        logits = logits.masked_fill(~present[:, None, None], -math.inf)
        null = self.null[:, None, None].float().expand(*logits.shape[:1], -1, logits.shape[2], 1)
        weights = torch.softmax(torch.cat([null, logits], dim=-1), dim=-1)[..., 1:].to(value.dtype)
        content = (weights @ value).transpose(1, 2).flatten(2)  # [N,G,d]
        pairs = relations.unflatten(3, (self.heads, -1))
        where = (weights.permute(0, 2, 3, 1)[..., None] * pairs).sum(2).flatten(2)  # [N,G,g]
        change = self.join(torch.cat([content, where], dim=-1))
        return torch.as_tensor(cells + change.transpose(1, 2).reshape(cells.shape))


class Gate(nn.Module):
    """How much a whole set concerns each cell, 0..1: sigmoid(logsumexp over its positions), which saturates."""

    def __init__(self, related: int) -> None:
        super().__init__()
        self.interest = nn.Linear(related, 1)
        nn.init.zeros_(self.interest.weight)
        nn.init.constant_(self.interest.bias, 4.0)
        self.sharpness = nn.Parameter(torch.tensor(8.0))

    def forward(self, relations: Tensor, distance: Tensor, present: Tensor) -> Tensor:
        """Returns ``[N,G]``; arguments as in :meth:`SetAttention.forward`."""
        logits = self.interest(relations)[..., 0].float() - self.sharpness * distance
        logits = logits.masked_fill(~present[:, None], -100.0)
        return F.pad(logits, (1, 0), value=-100.0).logsumexp(-1).sigmoid()  # an empty set concerns no cell


class SetFeatures(NamedTuple):
    """Everything about N noised images that does not depend on the set."""

    cells: Tensor  # the head's view of the image [N,d,gh,gw]
    readable: Tensor  # features that positions can read [N,G,d]
    base: Tensor  # output under no condition [N,C,H,W]
    time: Tensor  # embedding of t [N,d]
    x_t: Tensor  # [N,C,H,W]
    t: Tensor  # [N]


class SetDenoiser(nn.Module):
    """Trunk and set head; predicts v on the cosine schedule."""

    OCTAVES = 6

    def __init__(self, config: SetConfig) -> None:
        super().__init__()
        trunk, dim, fine = config.trunk, config.width, config.trunk.channels[0]
        self.schedule, self.patch = Schedule(), trunk.patch
        self.grid = (trunk.image_size[0] // trunk.patch, trunk.image_size[1] // trunk.patch)
        self.trunk = Trunk(trunk)
        self.base_out = nn.Conv2d(fine, 3 * trunk.patch**2, 3, padding=1)
        self.to_cells, self.to_readable = nn.Conv2d(fine, dim, 1), nn.Conv2d(fine, dim, 1)
        self.to_time = nn.Sequential(nn.Linear(self.trunk.time_dim, dim), nn.SiLU())
        self.from_position = nn.Sequential(nn.Linear(2 + 4 * self.OCTAVES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.tokens = nn.ModuleList(TokenLayer(dim, config.heads) for _ in range(config.token_layers))
        self.relations = Relations(dim // 2, trunk.window)
        self.attention = nn.ModuleList(SetAttention(dim, config.heads, dim // 2) for _ in range(config.blocks))
        self.convolution = nn.ModuleList(ResidualBlock(dim, dim) for _ in range(config.blocks))
        self.gate = Gate(dim // 2)
        self.norm = nn.GroupNorm(1, dim)
        self.out = nn.Conv2d(dim, 3 * trunk.patch**2, 3, padding=1)
        for last in (self.base_out, self.out):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, x_t: Tensor, t: Tensor) -> SetFeatures:
        """Returns the features of ``[N,C,H,W]`` at timesteps ``[N]``, from one pass of the trunk."""
        h = self.trunk(x_t, t)
        base = F.pixel_shuffle(self.base_out(h), self.patch).float()
        readable = self.to_readable(h).flatten(2).transpose(1, 2)
        time = self.to_time(self.trunk.time(timestep_embedding(t, self.trunk.fine)))
        return SetFeatures(self.to_cells(h), readable, base, time, x_t, t)

    def output(self, features: SetFeatures, concepts: Tensor, present: Tensor | None = None) -> Tensor:
        """Returns the network's output ``[N,C,H,W]`` float32 under one set ``[N,K,2]`` per image; K may be 0.

        ``present [N,K]`` is False for padding; None if there is no padding.
        """
        if present is None:
            present = torch.ones(concepts.shape[:2], dtype=torch.bool, device=concepts.device)
        relations, distance, reading = self.relations(concepts, self.grid)
        read = reading.to(features.readable.dtype) @ features.readable
        tokens = self.from_position(fourier(2 * concepts - 1, self.OCTAVES)) + read
        for layer in self.tokens:
            tokens = layer(tokens, present)
        z = features.cells
        for attend, convolve in zip(self.attention, self.convolution, strict=True):
            z = convolve(attend(z, tokens, relations, distance, present), features.time)
        gate = self.gate(relations, distance, present).view(-1, 1, *z.shape[2:])
        change = gate * self.out(F.silu(self.norm(z))).float()
        return features.base + F.pixel_shuffle(change, self.patch)

    def epsilon(self, features: SetFeatures, concepts: Tensor) -> Tensor:
        """Returns eps_theta(x_t, t | the whole set) ``[N,C,H,W]``; arguments as in :meth:`output`."""
        return self.schedule.output_to_epsilon(self.output(features, concepts), features.x_t, features.t)

    def forward(self, x_t: Tensor, t: Tensor, concepts: Tensor, present: Tensor | None = None) -> Tensor:
        """Returns the output for ``[N,C,H,W]`` at ``[N]`` under ``[N,K,2]``."""
        return self.output(self.features(x_t, t), concepts, present)
