"""How a model is trained, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from igm_cli.core.validation import Natural, NonNegative, Positive, PositiveFloat, Share, validated
from igm_cli.errors import InputError


@validated("training option")
class TrainConfig:
    """How to train.

    Attributes:
        steps: Total optimizer steps; raising this continues a finished run.
        batch_size: Images per step, over all processes and micro-batches.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        warmup: Steps of linear warm-up.
        decay: Fraction of the steps, at the end, over which the rate falls linearly to zero.
        clip: Largest gradient norm.
        ema: Decay of the exponential moving average of the weights; the average is saved.
        precision: ``no``, ``bf16``, ``fp16``, or ``auto``: bf16 on a processor that has it, else ``no``.
        compile: How the network is compiled: ``no``, or a mode of torch.compile; ``reduce-overhead`` uses CUDA graphs.
        accumulation: Micro-batches per step on each process.
        mirror: Whether images are flipped left to right at random.
        drop: Proportion of images shown without any of their concepts, so that the prediction under none becomes
            unconditional (Ho & Salimans 2022); models trained separately need this to be composed.
        timestep_power: t = T u^power with u uniform; above 1 favours low noise.
        mixed: Proportion of the values of points that are replaced by an even mixture of their factor's values, so that
            a mixture comes to mean an unknown value.  Every concept has its own proportion.
        contrast: Weight of the contrast between values of factors (:mod:`igm_cli.core.training.contrast`), or between
            points and none (:mod:`igm_cli.core.training.presence`); 0 is the paper's objective.
        contrast_from: Step at which the contrast begins; before the model can denoise, there is nothing to tell apart.
        autoencoder_steps: The first of ``steps``, which train the autoencoder of a latent model; then it is frozen and
            the learning-rate schedule restarts.
        reading_steps: The next steps, which train a latent model to read labels; then the schedule restarts again.
        early_rate: Peak learning rate of these two phases, as a multiple of ``learning_rate``.
        seed: Seed of everything random.
        log_every: Steps between lines of metrics.jsonl.
        checkpoint_every: Steps between resumable states.
        picture_every: Steps between pictures and validation; 0 for never.
        calibration: Images of the second split to calibrate the finished model on; 0 for no calibration.
        half: Whether exported weights are float16 (half the size on disk).
    """

    steps: Positive = 1000
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 48
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0, le=1000)] = 0.01
    warmup: Natural = 200
    decay: Share = 0.45
    clip: PositiveFloat = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.9985
    precision: Literal["no", "bf16", "fp16", "auto"] = "no"
    compile: Literal["no", "default", "reduce-overhead", "max-autotune"] = "no"
    accumulation: Annotated[int, Field(ge=1, le=10_000)] = 1
    mirror: bool = True
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    timestep_power: Annotated[float, Field(gt=0, le=100)] = 1.0
    mixed: Share = 0.0
    contrast: NonNegative = 0.0
    contrast_from: Natural = 0
    autoencoder_steps: Natural = 0
    reading_steps: Natural = 0
    early_rate: PositiveFloat = 1.0
    seed: Natural = 0
    log_every: Positive = 50
    checkpoint_every: Positive = 500
    picture_every: Natural = 1000
    calibration: Natural = 48
    half: bool = True

    def __post_init__(self) -> None:
        if sum(self.phases) > self.steps:
            raise ValueError("autoencoder_steps and reading_steps must be no more than steps together")
        if self.contrast and self.drop:
            raise ValueError("contrast needs the concepts of every image; set drop to 0, or contrast")

    @property
    def phases(self) -> tuple[int, ...]:
        """Steps of each phase of the training."""
        first = self.autoencoder_steps, self.reading_steps
        return *first, max(0, self.steps - sum(first))

    def contrast_at(self, step: int) -> float:
        """Returns the weight of the contrast in a step."""
        return self.contrast if step >= self.contrast_from else 0.0

    def learning_rate_at(self, position: float) -> float:
        """Returns linear warm-up, then a constant, then linear decay to zero over the last part, restarted in every phase.

        ``position`` is the progress of the training, of ``steps`` in all.
        """
        phase, begin = 0, 0
        while phase < len(self.phases) - 1 and position >= begin + self.phases[phase]:
            begin += self.phases[phase]
            phase += 1
        length = self.phases[phase]
        left = (begin + length - position) / max(1.0, self.decay * length)
        peak = 1.0 if phase == len(self.phases) - 1 else self.early_rate
        return self.learning_rate * (peak * min(1.0, (position - begin + 1) / max(1, self.warmup), left))


@dataclass(frozen=True)
class Budget:
    """How long a training may take, given as exactly one of the two.

    Attributes:
        minutes: Time spent in training steps; loading data, validation and saving do not count.
        steps: Optimizer steps.
    """

    minutes: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None) or not (self.minutes or self.steps or 0) > 0:
            raise InputError("a budget is a positive number of either minutes or steps")

    def part(self, share: float) -> Budget:
        """Returns a share of the budget, at least one step."""
        if self.minutes is not None:
            return Budget(minutes=share * self.minutes)
        return Budget(steps=max(1, round(share * (self.steps or 0))))

    def used(self, seconds: float, steps: int, whole: int = 1) -> float:
        """Returns how much of the budget a training has used, where ``whole`` is all of it."""
        if self.minutes is not None:
            return whole * seconds / (60 * self.minutes)
        return whole * steps / (self.steps or 1)
