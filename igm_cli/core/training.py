"""Joint training of the composed prediction (IGM, Wang et al. 2025, Algorithm 1).

    argmin_theta  E_{x0, c, t, eps} ‖eps - compose_k eps_theta(x_t, t | c_k)‖²

Everything random in a step follows from (seed, step) alone: indices, flips, timesteps and noise of
the whole batch are drawn on every process, and each takes its rows.  So a resumed run, and a run on
several processes, sees exactly what one uninterrupted process sees.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from igm_cli.core.checkpoint import ModelSpec, save_checkpoint
from igm_cli.core.composition import Composition, compose
from igm_cli.core.files import write_atomically, write_json
from igm_cli.core.schedule import Schedule
from igm_cli.errors import InputError

STATE = "state.pt"
RUN = "run.json"
METRICS = "metrics.jsonl"


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
        if self.precision not in ("no", "bf16", "fp16"):
            raise InputError(f"unknown precision {self.precision!r}; choose no, bf16 or fp16")

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


class Samples(Protocol):
    """Training images with their concepts."""

    def __len__(self) -> int: ...

    def batch(self, indices: list[int], flips: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
        """Images ``[B,C,H,W]`` in -1..1, concepts ``[B,K,D]``, presence ``[B,K]`` (False = padding)."""
        ...


class TrainObserver:
    """Called back on the main process; every method may be left as it is."""

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """After each logged step."""

    def on_validation(self, step: int, denoiser: nn.Module) -> Mapping[str, float]:
        """Every ``picture_every`` steps, with the averaged weights; returned figures are logged."""
        return {}


def composed_loss(
    model: nn.Module,
    schedule: Schedule,
    composition: Composition,
    x0: Tensor,
    concepts: Tensor,
    present: Tensor,
    t: Tensor,
    noise: Tensor,
) -> Tensor:
    """‖eps - compose_k eps_theta(x_t, t | c_k)‖², averaged over pixels and images.

    Networks that predict v are weighted by 1/alpha^2, which makes it the error of v
    (eps_hat - eps = alpha (v_hat - v)).

    Args:
        model: Called with (x_t, t, concepts) for (eps_u, Delta).
        schedule: The noise schedule.
        composition: ``sum`` or ``mean``.
        x0: Clean images ``[B,C,H,W]``.
        concepts: ``[B,K,D]``.
        present: ``[B,K]``.
        t: ``[B]``.
        noise: ``[B,C,H,W]``.
    """
    x_t = schedule.add_noise(x0, noise, t)
    base, contributions = model(x_t, t, concepts)
    prediction = compose(base.float(), contributions.float(), composition, present)
    error = (noise - prediction).square().mean(dim=(1, 2, 3))
    weight = schedule.epsilon_gain(t).clamp(min=0.05).square().reciprocal()
    return (weight * error).mean()


@dataclass(frozen=True)
class StepPlan:
    """Everything random of one step, for the whole batch."""

    indices: list[int]
    flips: list[bool]
    u: Tensor
    seed: int

    def rows(self, start: int, stop: int) -> StepPlan:
        """The part of the batch that one process or micro-batch takes."""
        return StepPlan(self.indices[start:stop], self.flips[start:stop], self.u[start:stop], self.seed)


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
    """Linear warm-up, then constant, then linear decay to zero over the last part."""
    left = (config.steps - step) / max(1.0, config.decay * config.steps)
    return min(1.0, (step + 1) / max(1, config.warmup), left)


def _averaged(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average that forgets its first steps faster."""

    def update(averages: Any, currents: Any, count: Any) -> None:
        weight = max(1 - decay, 10 / (10 + float(count)))
        torch._foreach_lerp_(averages, currents, weight)

    return AveragedModel(model, multi_avg_fn=torch.no_grad()(update))


class Trainer:
    """One training run in one folder.

    Args:
        spec: What is trained.
        samples: On what.
        config: How.
        folder: Where states, metrics and weights go.
        data: Description of the data, compared when a run is resumed.
        observer: Called back on the main process.
        device_is_cpu: Keeps accelerate off an accelerator that is there.
    """

    def __init__(
        self,
        spec: ModelSpec,
        samples: Samples,
        config: TrainConfig,
        folder: Path,
        *,
        data: Mapping[str, Any] | None = None,
        observer: TrainObserver | None = None,
        device_is_cpu: bool = False,
    ) -> None:
        self.spec, self.samples, self.config, self.folder = spec, samples, config, folder
        self.observer = observer or TrainObserver()
        self.accelerator = Accelerator(
            mixed_precision=config.precision,
            cpu=device_is_cpu,
            log_with="tensorboard",
            project_dir=str(folder),
        )
        world = self.accelerator.num_processes
        if config.batch_size % (world * config.accumulation):
            raise InputError(
                f"batch_size {config.batch_size} must be divisible by "
                f"{world} processes times {config.accumulation} accumulation steps"
            )
        self.description = {"model": _spec_identity(spec), "train": config.to_dict(), "data": dict(data or {})}
        torch.manual_seed(config.seed)
        model = spec.build()
        self.schedule: Schedule = model.schedule  # type: ignore[assignment]
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        # Copied before accelerate wraps forward, and kept without its wrappers: unwrapping a model
        # would take its autocast away.
        self.average = _averaged(model, config.ema).to(self.accelerator.device)
        self.bare_model = model
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.step = 0
        self.spent = 0.0

    def run(self) -> None:
        """Trains to the configured number of steps, resuming what the folder holds.

        Raises:
            InputError: If the folder holds a run of another configuration.
        """
        self._open_folder()
        if self.accelerator.is_main_process:
            self.accelerator.init_trackers("tensorboard")
        started, sums, count = time.monotonic() - self.spent, 0.0, 0
        self.model.train()
        while self.step < self.config.steps:
            sums, count = sums + self.train_step(), count + 1
            self.spent = time.monotonic() - started
            if self._due(self.config.log_every):
                loss = self.accelerator.reduce(torch.tensor(sums / count), "mean").item()
                self._log({"loss": loss, "learning_rate": self._rate(self.step - 1), "seconds": self.spent})
                sums, count = 0.0, 0
            if self._due(self.config.checkpoint_every):
                self.save()
            if self.config.picture_every and self._due(self.config.picture_every):
                self._validate()
        self.accelerator.end_training()

    def train_step(self) -> float:
        """One optimizer step; returns the loss of this process."""
        plan = plan_step(self.step, len(self.samples), self.config)
        share = self.config.batch_size // self.accelerator.num_processes
        first = self.accelerator.process_index * share
        noise = self._noise(plan.seed)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(self.step)
        micro, total = share // self.config.accumulation, 0.0
        for part in range(self.config.accumulation):
            start = first + part * micro
            last = part == self.config.accumulation - 1
            with self.accelerator.no_sync(self.model) if not last else nullcontext():
                loss = self._loss(plan.rows(start, start + micro), noise[start : start + micro])
                self.accelerator.backward(loss / self.config.accumulation)
            total += float(loss.detach()) / self.config.accumulation
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.bare_model)
        self.step += 1
        return total

    def _loss(self, plan: StepPlan, noise: Tensor) -> Tensor:
        device = self.accelerator.device
        images, concepts, present = self.samples.batch(plan.indices, plan.flips)
        t = (plan.u**self.config.timestep_power * self.schedule.steps).long()
        return composed_loss(
            self.model,
            self.schedule,
            self.spec.composition,
            images.to(device),
            concepts.to(device),
            present.to(device),
            t.clamp(max=self.schedule.steps - 1).to(device),
            noise.to(device),
        )

    def _noise(self, seed: int) -> Tensor:
        width, height = self.spec.image_size
        shape = (self.config.batch_size, 3, height, width)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def _rate(self, step: int) -> float:
        return self.config.learning_rate * learning_rate_factor(step, self.config)

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _log(self, values: Mapping[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        line = {"step": self.step, **values}
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.accelerator.log(dict(values), step=self.step)
        self.observer.on_step(self.step, values)

    def _validate(self) -> None:
        if self.accelerator.is_main_process:
            with torch.random.fork_rng(), torch.no_grad():
                figures = self.observer.on_validation(self.step, self.average.module)
            if figures:
                self._log(figures)
        self.accelerator.wait_for_everyone()

    def save(self) -> None:
        """Writes the resumable state and the averaged weights as a checkpoint."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "step": self.step,
            "spent": self.spent,
            "model": self.bare_model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        dtype = torch.float16 if self.config.half else torch.float32
        save_checkpoint(self.folder, self.spec, self.average.module.state_dict(), dtype)
        # The state last: a run that says it is finished has its weights.
        write_atomically(self.folder / STATE, lambda path: torch.save(state, path))

    def _open_folder(self) -> None:
        """Starts a run, or loads the one that is there if it is the same."""
        if (self.folder / RUN).is_file():
            _refuse_other_run(self.folder, self.description)
        state_file = self.folder / STATE
        if state_file.is_file():
            try:
                self._load(torch.load(state_file, map_location=self.accelerator.device, weights_only=True))
            except (OSError, RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
                raise InputError(
                    f"{state_file} is damaged; delete it to start again, or use another --output"
                ) from error
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            _forget_after(self.folder / METRICS, self.step)
            write_json(self.folder / RUN, self.description)

    def _load(self, state: dict[str, Any]) -> None:
        self.step, self.spent = state["step"], state["spent"]
        self.bare_model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def _spec_identity(spec: ModelSpec) -> dict[str, Any]:
    """The part of a specification that a resumed run must share."""
    return {
        "architecture": spec.architecture,
        "options": dict(spec.options),
        "space": dict(spec.space),
        "schedule": dict(spec.schedule),
        "composition": spec.composition,
        "image_size": list(spec.image_size),
        "concepts": spec.concepts,
    }


# What may change between two calls of one run: how long it goes on and how often it reports.
_FREE = {"train.steps", "train.log_every", "train.checkpoint_every", "train.picture_every", "train.half"}


def _refuse_other_run(folder: Path, description: Mapping[str, Any]) -> None:
    try:
        old = _flat(json.loads((folder / RUN).read_text(encoding="utf-8")))
    except ValueError as error:
        raise InputError(f"{folder / RUN} is damaged; use another --output") from error
    new = _flat(json.loads(json.dumps(description)))
    differing = [k for k in sorted(old | new) if old.get(k) != new.get(k) and k not in _FREE]
    if differing:
        key = differing[0]
        raise InputError(
            f"{folder} holds a run with {key} = {old.get(key)!r}, not {new.get(key)!r}; "
            "use another --output or the same options"
        )


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(data, dict):
        flat: dict[str, Any] = {}
        for key, value in data.items():
            flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: data}


def _forget_after(path: Path, step: int) -> None:
    """Drops metric lines later than the state that is resumed, and a half-written last line."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue
    write_atomically(path, lambda temporary: temporary.write_text("".join(kept), encoding="utf-8"))


def train(
    spec: ModelSpec,
    samples: Samples,
    config: TrainConfig,
    folder: Path,
    *,
    data: Mapping[str, Any] | None = None,
    observer: TrainObserver | None = None,
    device_is_cpu: bool = False,
) -> None:
    """Trains a model and leaves its checkpoint in ``folder``; the same call again resumes.

    Raises:
        InputError: If the folder holds a run of another configuration.
    """
    Trainer(spec, samples, config, folder, data=data, observer=observer, device_is_cpu=device_is_cpu).run()
