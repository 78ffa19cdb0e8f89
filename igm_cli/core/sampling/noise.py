"""The randomness of samples: image number i depends on the seed and on i alone."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class ImageNoise:
    """A stream of random numbers for each image, by its number, drawn on the CPU: every device sees the same."""

    def __init__(self, seed: int, numbers: Iterable[int], device: torch.device) -> None:
        self.device = device
        self.streams = [torch.Generator().manual_seed(((seed << 24) + number) % 2**63) for number in numbers]

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Returns standard normal numbers ``[B,*shape]``."""
        return torch.stack([torch.randn(shape, generator=stream) for stream in self.streams]).to(self.device)

    def uniform(self) -> Tensor:
        """Returns a number in 0..1 for each image ``[B]``."""
        return torch.cat([torch.rand(1, generator=stream) for stream in self.streams]).to(self.device)
