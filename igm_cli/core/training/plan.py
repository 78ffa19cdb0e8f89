"""What a training step draws, and how fast it learns.

Everything random in a step follows from (seed, step) alone: indices, flips, timesteps and the seed of
the noise are drawn for the whole batch.  So a resumed run, and a run on several processes, sees exactly
what one uninterrupted process sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.training.config import TrainConfig


@dataclass(frozen=True)
class StepPlan:
    """Everything random of one step, for the whole batch."""

    indices: list[int]
    flips: list[bool]
    u: Tensor
    seed: int

    def rows(self, start: int, stop: int) -> StepPlan:
        """The part of the batch that one process or micro-batch takes, with a seed of its own."""
        return StepPlan(self.indices[start:stop], self.flips[start:stop], self.u[start:stop], self.seed + start)


def plan_step(step: int, samples: int, config: TrainConfig) -> StepPlan:
    """What step number ``step`` draws: shuffled epochs, flips, stratified timesteps."""
    size = config.batch_size
    first = step * size
    indices: list[int] = []
    for position in range(first, first + size):
        epoch, place = divmod(position, samples)
        indices.append(_permuted(place, samples, config.seed, epoch))
    generator = torch.Generator().manual_seed(_mix(config.seed, step))
    flips = (torch.rand(size, generator=generator) < 0.5) & config.mirror
    strata = torch.randperm(size, generator=generator)
    u = (strata + torch.rand(size, generator=generator)) / size
    return StepPlan(indices, flips.tolist(), u, _mix(config.seed, step) + 1)


_permutations: dict[tuple[int, int, int], Tensor] = {}


def _permuted(place: int, samples: int, seed: int, epoch: int) -> int:
    key = (samples, seed, epoch)
    if key not in _permutations:
        if len(_permutations) > 1:  # a step touches two epochs at most
            _permutations.pop(next(iter(_permutations)))
        generator = torch.Generator().manual_seed(_mix(seed, -1 - epoch))
        _permutations[key] = torch.randperm(samples, generator=generator)
    return int(_permutations[key][place])


def _mix(seed: int, number: int) -> int:
    """A well spread 62-bit seed of (seed, number) (splitmix64 finalizer)."""
    z = (seed * 0x9E3779B97F4A7C15 + (number % 2**32) * 0xBF58476D1CE4E5B9 + 1) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return (z ^ (z >> 31)) >> 2


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then constant, then linear decay to zero over the last part; once in every phase."""
    phase, begin = 0, 0
    while phase < len(config.phases) - 1 and step >= begin + config.phases[phase]:
        begin += config.phases[phase]
        phase += 1
    length = config.phases[phase]
    left = (begin + length - step) / max(1.0, config.decay * length)
    peak = 1.0 if phase == len(config.phases) - 1 else config.early_rate
    return peak * min(1.0, (step - begin + 1) / max(1, config.warmup), left)
