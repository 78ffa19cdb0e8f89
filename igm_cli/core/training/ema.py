"""The exponential moving average (EMA) of a model's weights over training, used in their place."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn


class Average(nn.Module):
    """An exponential moving average of a model that forgets its first steps faster; integers are copied.

    Like torch's ``AveragedModel``, but the host knows the count, so that no step waits for it.

    Args:
        model: The model to average.
        decay: Decay of the average.
        buffers: Whether buffers are also averaged, instead of copied.
    """

    def __init__(self, model: nn.Module, decay: float, buffers: bool) -> None:
        super().__init__()
        self.module, self.decay, self.buffers_too = deepcopy(model), decay, buffers

    @torch.no_grad()
    def update(self, model: nn.Module, count: int) -> None:
        """Updates the average with the model, after ``count`` earlier updates."""
        pairs = list(zip(self.module.parameters(), model.parameters(), strict=True))
        buffers = list(zip(self.module.buffers(), model.buffers(), strict=True))
        averaged = [pair for pair in pairs + buffers * self.buffers_too if pair[0].is_floating_point()]
        copied = [pair for pair in buffers if not (self.buffers_too and pair[0].is_floating_point())]
        weight = max(1 - self.decay, 10 / (10 + count))
        torch._foreach_lerp_([mean for mean, _ in averaged], [value for _, value in averaged], weight)
        if copied:
            torch._foreach_copy_([mean for mean, _ in copied], [value for _, value in copied])
