"""How a model is trained: the options of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from igm_cli.errors import InputError


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: Optimizer steps in all; a finished run goes on when this is raised.
        batch_size: Images a step, over all processes and accumulation.
        learning_rate: Peak, of AdamW.
        weight_decay: Of AdamW.
        warmup: Steps of linear warm-up.
        decay: Fraction of the steps, at the end, over which the rate falls linearly to zero.
        clip: Largest gradient norm.
        ema: Decay of the exponential moving average of the weights, which is what is saved.
        precision: ``no``, ``bf16`` or ``fp16``.
        accumulation: Micro-batches a step on each process.
        mirror: Whether images are flipped left to right at random.
        timestep_power: t = T u^power with u uniform; above 1 favours low noise.
        contrast: Weight of the contrast between values of factors (:mod:`igm_cli.core.training.contrast`); 0 is the
            paper's objective.
        contrast_from: Step at which the contrast begins: a model that cannot denoise yet has nothing to tell apart.
        autoencoder_steps: Of ``steps``, those at the beginning that train the autoencoder of a latent model; it is
            frozen then, and the learning rate begins anew.
        reading_steps: Steps after those that train a latent model to read labels; the rate begins anew again.
        early_rate: Peak learning rate of these two phases, times ``learning_rate``.
        seed: Of everything random.
        log_every: Steps between lines of metrics.jsonl.
        checkpoint_every: Steps between resumable states.
        picture_every: Steps between pictures and validation; 0 for never.
        half: Whether exported weights are float16 (half the size on disk).
    """

    steps: int = 1000
    batch_size: int = 48
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    warmup: int = 200
    decay: float = 0.45
    clip: float = 1.0
    ema: float = 0.9985
    precision: str = "no"
    accumulation: int = 1
    mirror: bool = True
    timestep_power: float = 1.0
    contrast: float = 0.0
    contrast_from: int = 0
    autoencoder_steps: int = 0
    reading_steps: int = 0
    early_rate: float = 1.0
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 500
    picture_every: int = 0
    half: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.accumulation < 1:
            raise InputError("steps, batch_size and accumulation must be at least 1")
        if not (self.log_every >= 1 and self.checkpoint_every >= 1 and self.picture_every >= 0):
            raise InputError("log_every and checkpoint_every must be at least 1, picture_every 0 or more")
        if not (self.learning_rate > 0 and 0 <= self.ema < 1 and 0 <= self.decay <= 1 and self.clip > 0):
            raise InputError("learning_rate and clip must be positive, ema and decay between 0 and 1")
        if min(self.autoencoder_steps, self.reading_steps) < 0 or sum(self.phases) > self.steps:
            raise InputError(
                "autoencoder_steps and reading_steps must be 0 or more, and no more than steps together"
            )
        if self.early_rate <= 0:
            raise InputError("early_rate must be positive")
        if self.contrast < 0:
            raise InputError("contrast must be 0 or more")
        if self.precision not in ("no", "bf16", "fp16"):
            raise InputError(f"unknown precision {self.precision!r}; choose no, bf16 or fp16")

    @property
    def phases(self) -> tuple[int, ...]:
        """Steps of every phase of the training."""
        first = self.autoencoder_steps, self.reading_steps
        return *first, max(0, self.steps - sum(first))

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            InputError: If a name is unknown.
        """
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(data) - set(names))
        if unknown:
            raise InputError(f"unknown training option {unknown[0]!r}; known are {', '.join(names)}")
        for name, value in data.items():
            kind = type(getattr(cls, name))
            fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
            if not fits or (isinstance(value, bool) and kind is not bool):
                raise InputError(f"training option {name} must be of type {kind.__name__}, not {value!r}")
        return cls(**data)
