"""The random draws of a training step.

Everything random in a step depends on (seed, step) alone: indices, flips, timesteps and a seed for further draws are
drawn for the whole batch, and the noise of a row depends on its number in the whole training.  So a resumed run, and a
run on several processes, sees exactly what one uninterrupted process sees.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from igm_cli.core.philox import normal_rows
from igm_cli.core.training.config import TrainConfig


@dataclass(frozen=True)
class StepPlan:
    """Everything random in one step, for the rows of the batch in a process or micro-batch.

    Attributes:
        indices: Which samples.
        flips: Which of them are mirrored.
        u: Stratified uniform numbers ``[rows]``, from which timesteps are computed.
        seed: Seed of the step's further draws.
        noise_seed: Seed of all noise in the training.
        size: Rows of the whole batch.
        step: Number of the step.
        first: Index of the first of these rows in the whole batch.
    """

    indices: list[int]
    flips: list[bool]
    u: Tensor
    seed: int
    noise_seed: int
    size: int
    step: int
    first: int = 0

    def rows(self, start: int, stop: int) -> StepPlan:
        """Returns some of these rows."""
        part = slice(start, stop)
        return replace(
            self, indices=self.indices[part], flips=self.flips[part], u=self.u[part], first=self.first + start
        )

    def timesteps(self, steps: int, power: float) -> Tensor:
        """Returns timesteps t = T u^power ``[rows]`` of a schedule of T steps."""
        return (self.u**power * steps).long().clamp(max=steps - 1)

    @property
    def numbers(self) -> range:
        """Numbers of these rows in the whole training."""
        first = self.step * self.size + self.first
        return range(first, first + len(self.indices))

    def noise(self, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
        """Returns noise ``[rows, *shape]``, drawn on a device; a row's noise is the same on all devices."""
        return normal_rows(shape, self.numbers, self.noise_seed, device)

    def generator(self) -> torch.Generator:
        """Returns these rows' own generator for further draws."""
        return torch.Generator().manual_seed(self.seed + self.first)


def plan_step(step: int, samples: int, config: TrainConfig) -> StepPlan:
    """Returns the draws of step number ``step``: shuffled epochs, flips, stratified timesteps."""
    size = config.batch_size
    indices: list[int] = []
    while len(indices) < size:
        epoch, place = divmod(step * size + len(indices), samples)
        left = size - len(indices)
        indices += _permutation(samples, config.seed, epoch)[place : place + left].tolist()
    generator = torch.Generator().manual_seed(_mix(config.seed, step))
    flips = (torch.rand(size, generator=generator) < 0.5) & config.mirror
    strata = torch.randperm(size, generator=generator)
    u = (strata + torch.rand(size, generator=generator)) / size
    seeds = _mix(config.seed, step) + 1, _mix(config.seed, -1)
    return StepPlan(indices, flips.tolist(), u, *seeds, size, step)


@lru_cache(maxsize=2)  # a step touches two epochs at most, unless there are fewer samples than rows
def _permutation(samples: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(samples, generator=torch.Generator().manual_seed(_mix(seed, -1 - epoch)))


def _mix(seed: int, number: int) -> int:
    """Returns a well-spread 62-bit seed from (seed, number) (splitmix64 finalizer)."""
    z = (seed * 0x9E3779B97F4A7C15 + (number % 2**32) * 0xBF58476D1CE4E5B9 + 1) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return (z ^ (z >> 31)) >> 2
