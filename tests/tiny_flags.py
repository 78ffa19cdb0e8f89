"""Painted images of two factors: a colour above, a brightness below."""

from __future__ import annotations

import torch
from torch import Tensor

from igm_cli.core.concepts import Categorical

SPACE = Categorical({"upper": ("red", "green", "blue"), "lower": ("dark", "light")})
UPPER = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]])
LOWER = torch.tensor([[-0.8] * 3, [0.8] * 3])


def paint(values: Tensor) -> Tensor:
    """Images ``[B,3,16,16]`` of values ``[B,2]``."""
    images = torch.empty(len(values), 3, 16, 16)
    images[:, :, :8] = UPPER[values[:, 0]][:, :, None, None]
    images[:, :, 8:] = LOWER[values[:, 1]][:, :, None, None]
    return images


def one_hot(values: Tensor) -> Tensor:
    """Concepts ``[B,2,5]`` of values ``[B,2]``."""
    return SPACE.candidates()[values + torch.tensor([0, 3])]


class Flags:
    """Painted images with a little noise, the values drawn from the index."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: list[int], flips: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
        numbers = [self.first + index for index in indices]
        values = torch.tensor([divmod(7 * number % 6, 2) for number in numbers])
        noise = [torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(n)) for n in numbers]
        images = paint(values) + 0.1 * torch.stack(noise)
        return images, one_hot(values), torch.ones(len(values), 2, dtype=torch.bool)
