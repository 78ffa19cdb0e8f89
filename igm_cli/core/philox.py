"""Counter-based normal noise: the same on every device, and any part of it without the rest.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a counter of four 32-bit words
and a key of two into four random words.  It is written in integer operations of torch, which are exact, so random bits
are equal everywhere; normal numbers made from them (Box and Muller 1958) differ in the last place at most.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
WORD = 0xFFFFFFFF

Words = tuple[Tensor, Tensor, Tensor, Tensor]
"""Four words of 32 bits, each an int64 tensor of one shape."""

MOST_AHEAD = 2**26
"""Most samples drawn ahead."""

CACHED = 32768
"""Counters that a CPU works on at once: its caches hold them through all rounds."""


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Returns the random words of counters, words of any shapes that broadcast, under a key of two words."""
    c0, c1, c2, c3 = counter
    for step in range(ROUNDS):
        k0, k1 = ((k + step * more) & WORD for k, more in zip(key, KEY_STEPS, strict=True))
        # Products overflow into the sign, which the mask removes; what is carried on is masked one round later.
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c2 = (p1 >> 32).bitwise_xor(c1), (p0 >> 32).bitwise_xor(c3)
        c0, c2 = c0.bitwise_xor_(k0).bitwise_and_(WORD), c2.bitwise_xor_(k1).bitwise_and_(WORD)
        c1, c3 = p1, p0
    return c0, c1.bitwise_and_(WORD), c2, c3.bitwise_and_(WORD)


def normal_rows(shape: tuple[int, ...], rows: range, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """Returns standard normal samples ``[rows, *shape]``, each row from its number and the seed, below 2^64, alone."""
    size = math.prod(shape)
    blocks, key = -(-size // 4), (seed & WORD, seed >> 32)
    at_once = max(1, CACHED // blocks) if torch.device(device).type == "cpu" else len(rows)
    parts = []
    for first in range(0, len(rows), max(1, at_once)):
        part = rows[first : first + at_once]
        block = torch.arange(blocks, device=device)
        row = torch.arange(part.start, part.stop, device=device)[:, None]
        counter = block, row & WORD, row >> 32, torch.zeros_like(row[:1])
        a, b, c, d = philox(counter, key)  # [rows,blocks]
        samples = torch.cat([*_box_muller(a, b), *_box_muller(c, d)], dim=1)  # [rows,4*blocks]
        parts.append(samples[:, :size].unflatten(1, shape))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class NormalRows:
    """Rows of :func:`normal_rows`, ``ahead`` or more drawn at once: a GPU starts as many kernels for one batch."""

    def __init__(self, seed: int, device: torch.device, ahead: int = 0) -> None:
        self.seed, self.device, self.ahead = seed, device, ahead
        self.drawn, self.samples = range(0), torch.empty(0)

    def rows(self, shape: tuple[int, ...], rows: range) -> Tensor:
        """Returns ``[rows, *shape]``."""
        if rows.start < self.drawn.start or rows.stop > self.drawn.stop or self.samples.shape[1:] != shape:
            most = max(len(rows), min(self.ahead, MOST_AHEAD // math.prod(shape)))
            self.drawn = range(rows.start, rows.start + most)
            self.samples = normal_rows(shape, self.drawn, self.seed, self.device)
        return self.samples[rows.start - self.drawn.start : rows.stop - self.drawn.start]


def _box_muller(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Returns two independent normal samples from two random words."""
    radius = first.float().add_(0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
    angle = second.float().mul_(2 * math.pi * 2.0**-32)
    return radius * angle.cos(), radius * angle.sin()
