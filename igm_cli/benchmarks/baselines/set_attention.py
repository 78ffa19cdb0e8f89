"""How the cells of an image and a set of positions attend to each other.

Padding is masked in every layer, and no layer knows an order: the set may have any size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def fourier(u: Tensor, octaves: int) -> Tensor:
    """Coordinates ``[...,D]`` and their sines and cosines at frequencies pi 2^i, ``[...,D(1+2*octaves)]``."""
    frequencies = math.pi * 2.0 ** torch.arange(octaves, device=u.device)
    angles = (u[..., None] * frequencies).flatten(-2)
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
        """tokens: ``[N,K,d]``; present: ``[N,K]``."""
        n, k, dim = tokens.shape
        qkv = self.qkv(self.norm1(tokens)).view(n, k, 3, self.heads, dim // self.heads)
        q, key, value = qkv.permute(2, 0, 3, 1, 4)  # [N,h,K,d/h]
        # A padded token attends to itself, so that no row of the mask is empty.
        mask = present[:, None, None, :] | torch.eye(k, dtype=torch.bool, device=tokens.device)
        mixed = F.scaled_dot_product_attention(q, key, value, attn_mask=mask)
        tokens = tokens + self.join(mixed.transpose(1, 2).reshape(n, k, dim))
        total: Tensor = tokens + self.mlp(self.norm2(tokens))
        return total


class Relations(nn.Module):
    """Where every cell lies relative to every position.

    Args:
        dim: Features of a pair.
        reach: Distance in cells up to which an offset is told finely; beyond, only its direction
            and rough length.
    """

    OCTAVES = 5
    WIDTHS = (1.0, 2.0, 4.0, 8.0)

    def __init__(self, dim: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.encode = nn.Sequential(
            nn.Linear(2 + 4 * self.OCTAVES + len(self.WIDTHS), dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU()
        )

    def forward(self, concepts: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Relations of positions ``[N,K,2]`` to the cells of a grid (columns, rows).

        Returns:
            Features ``[N,G,K,dim]``; squared distances in units of the reach ``[N,G,K]``; and for
            each position the weights ``[N,K,G]`` with which it reads the cells around it.
        """
        cells = _centres(grid, concepts)  # [G,2]
        offset = cells[None, :, None] - (concepts * concepts.new_tensor(grid))[:, None]  # [N,G,K,2]
        square = offset.square().sum(-1, keepdim=True)
        near = torch.exp(-square / (2 * self.reach**2 / 4))
        u = torch.tanh(offset / (2 * self.reach))
        waves = fourier(offset / self.reach, self.OCTAVES)[..., 2:] * near
        bumps = torch.exp(-square / (2 * square.new_tensor(self.WIDTHS).square()))
        features = self.encode(torch.cat([u, waves, bumps], dim=-1))
        reading = torch.softmax(-2.0 * square[..., 0].transpose(1, 2), dim=-1)
        return features, square[..., 0] / self.reach**2, reading


def _centres(grid: tuple[int, int], like: Tensor) -> Tensor:
    """Cell centres ``[G,2]`` in cells, columns varying fastest."""
    columns, rows = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5 for side in grid)
    return torch.stack([columns.repeat(grid[1]), rows.repeat_interleave(grid[0])], dim=-1)


class SetAttention(nn.Module):
    """Cells attend to all positions at once, or to none of them (a learned null key).

    Logits and values both know where the position lies relative to the cell (Shaw et al. 2018, in
    two dimensions), so that a cell can ask for the positions near it and how far they are.

    Args:
        dim: Channels.
        heads: Attention heads.
        related: Features of a pair.
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
        """One round of attention.

        Args:
            cells: ``[N,d,gh,gw]``.
            tokens: ``[N,K,d]``.
            relations: ``[N,G,K,g]``.
            distance: Squared, ``[N,G,K]``.
            present: ``[N,K]``.
        """
        n, dim, rows, columns = cells.shape
        k, per = tokens.shape[1], dim // self.heads
        q = self.query(self.norm(cells)).flatten(2).view(n, self.heads, per, rows * columns)
        key, value = self.key_value(self.norm_tokens(tokens)).chunk(2, dim=-1)
        key, value = (part.view(n, k, self.heads, per).transpose(1, 2) for part in (key, value))
        logits = (q.transpose(2, 3) @ key.transpose(2, 3)).float() / math.sqrt(per)  # [N,h,G,K]
        logits = logits + self.closeness(relations).permute(0, 3, 1, 2)
        logits = logits - self.sharpness[:, None, None] * distance[:, None]
        logits = logits.masked_fill(~present[:, None, None], -math.inf)
        null = self.null[:, None, None].float().expand(n, -1, rows * columns, 1)
        weights = torch.softmax(torch.cat([null, logits], dim=-1), dim=-1)[..., 1:].to(value.dtype)
        said = (weights @ value).transpose(1, 2).reshape(n, rows * columns, dim)  # [N,G,d]
        pairs = relations.view(n, rows * columns, k, self.heads, relations.shape[-1] // self.heads)
        where = (weights.permute(0, 2, 3, 1)[..., None] * pairs).sum(2).flatten(2)  # [N,G,g]
        change = self.join(torch.cat([said, where], dim=-1))
        total: Tensor = cells + change.transpose(1, 2).reshape(n, dim, rows, columns)
        return total


class Gate(nn.Module):
    """How far a set as a whole concerns each cell, 0..1: sigmoid(logsumexp over its positions).

    A network that sees a barely noised image can do without the set, and learns to: then no set
    fits better than another.  What the gate lets through is drawn only where the set says so.  It
    saturates, so that two positions at one place are no more than one.
    """

    def __init__(self, related: int) -> None:
        super().__init__()
        self.interest = nn.Linear(related, 1)
        nn.init.zeros_(self.interest.weight)
        nn.init.constant_(self.interest.bias, 4.0)
        self.sharpness = nn.Parameter(torch.tensor(8.0))

    def forward(self, relations: Tensor, distance: Tensor, present: Tensor) -> Tensor:
        """relations: ``[N,G,K,g]``; distance: squared, ``[N,G,K]``; present: ``[N,K]``; returns ``[N,G]``."""
        logits = self.interest(relations)[..., 0].float() - self.sharpness * distance
        logits = logits.masked_fill(~present[:, None], -100.0)
        nothing = logits.new_full((*logits.shape[:2], 1), -100.0)
        return torch.cat([nothing, logits], dim=-1).logsumexp(-1).sigmoid()
