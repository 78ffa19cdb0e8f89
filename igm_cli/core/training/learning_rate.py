"""The learning-rate schedule."""

from __future__ import annotations

from igm_cli.core.training.config import TrainConfig


def learning_rate_factor(position: float, config: TrainConfig) -> float:
    """Returns linear warm-up, then a constant, then linear decay to zero over the last part, restarted in every phase.

    Args:
        position: Progress of the training, of ``config.steps`` in all.
        config: Its options.
    """
    phase, begin = 0, 0
    while phase < len(config.phases) - 1 and position >= begin + config.phases[phase]:
        begin += config.phases[phase]
        phase += 1
    length = config.phases[phase]
    left = (begin + length - position) / max(1.0, config.decay * length)
    peak = 1.0 if phase == len(config.phases) - 1 else config.early_rate
    return peak * min(1.0, (position - begin + 1) / max(1, config.warmup), left)
