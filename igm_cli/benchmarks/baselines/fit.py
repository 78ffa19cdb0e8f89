"""Trains a baseline under a budget: short trials choose the learning rate, the rest trains afresh."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from igm_cli.benchmarks.baselines.fit_run import Baseline, Budget, FitRun, learned
from igm_cli.core.device import inference_precision
from igm_cli.core.files import write_atomically, write_json
from igm_cli.core.training.state import STATE, RunRecord
from igm_cli.core.training.trainer import Samples
from igm_cli.errors import InputError

__all__ = ["Baseline", "Budget", "Fitted", "fit"]

TRIAL_SHARE = 0.08
SAVE_SECONDS = 60.0
RESULT, WEIGHTS = "baseline.json", "model.safetensors"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Fitted:
    """A trained baseline.

    Attributes:
        model: In evaluation mode, with averaged weights.
        learning_rate: The one chosen.
        steps: Of the final training, trials not counted.
        images: Seen in it.
        seconds: It took.
        validation: Its error on the validation samples.
        trials: Validation error of each learning rate tried; infinite where it diverged.
    """

    model: nn.Module
    learning_rate: float
    steps: int
    images: int
    seconds: float
    validation: float
    trials: dict[str, float]


def fit(
    baseline: Baseline,
    training: Samples,
    validation: Samples,
    budget: Budget,
    folder: Path,
    *,
    seed: int = 0,
    device: torch.device,
    data: Mapping[str, Any],
    progress: Progress | None = None,
) -> Fitted:
    """Trains a baseline, goes on with a training cut short, or loads a finished one.

    Args:
        baseline: What is trained.
        training: On what.
        validation: What learning rates are chosen by; none of it may be among ``training``.
        budget: For trials and final training together.
        folder: Holds the state of the training, then its result.
        seed: Of everything random.
        device: Where.
        data: JSON description of the samples, part of the identity of the training.
        progress: Called with (what, done, total), in seconds or steps as the budget is.

    Raises:
        InputError: If the folder holds another training, is damaged, or the training diverges.
    """
    identity = {
        "baseline": baseline.name,
        "model": baseline.describe(),
        "data": dict(data),
        "budget": asdict(budget),
        "seed": seed,
    }
    record = RunRecord(folder, identity)
    record.refuse_other_run()
    if (folder / RESULT).is_file():
        return _load(baseline, folder, device)
    record.begin(0)
    fitting = _Fitting(baseline, training, validation, budget, record, seed, device, progress)
    fitted = fitting.run()
    _save(fitted, folder, identity)
    return fitted


class _Fitting:
    """Trials and final training in their order, the state of which is stored now and then."""

    def __init__(
        self,
        baseline: Baseline,
        training: Samples,
        validation: Samples,
        budget: Budget,
        record: RunRecord,
        seed: int,
        device: torch.device,
        progress: Progress | None,
    ) -> None:
        self.baseline, self.training, self.validation = baseline, training, validation
        self.budget, self.record, self.seed, self.device = budget, record, seed, device
        self.progress = progress or (lambda what, done, total: None)
        self.trials: dict[str, float] = {}
        self.pending: dict[str, Any] | None = None  # state of the run that was cut short
        record.load_state(device, self._take)

    def _take(self, state: dict[str, Any]) -> None:
        self.trials, self.pending = state["trials"], state["run"]

    def run(self) -> Fitted:
        """The trials that are left, then the final training."""
        rates = self.baseline.learning_rates
        for rate in rates if len(rates) > 1 else ():
            if str(rate) not in self.trials:
                run = self._train(rate, self.budget.part(TRIAL_SHARE), f"trial of learning rate {rate:g}")
                self.trials[str(rate)] = math.inf if run.diverged else self._score(run)
                self._save_state(None)
        left = 1 - TRIAL_SHARE * len(self.trials)
        rate = min(rates, key=lambda rate: self.trials.get(str(rate), 0.0))
        run = self._train(rate, self.budget.part(left), f"training at {rate:g}")
        error = math.inf if run.diverged else self._score(run)
        if not math.isfinite(error):
            raise InputError(f"{self.baseline.name} diverges at learning rate {rate:g}; try lower ones")
        images = run.steps * self.baseline.batch_size
        return Fitted(run.finished(), rate, run.steps, images, run.seconds, error, self.trials)

    def _train(self, rate: float, budget: Budget, what: str) -> FitRun:
        run = FitRun(self.baseline, rate, budget, self.seed, self.device)
        if self.pending:
            run.load(self.pending)
            self.pending = None
        saved = time.monotonic()
        total = round(60 * budget.minutes) if budget.minutes is not None else budget.steps or 0
        while run.used < 1 and not run.diverged:
            run.step(self.training)
            if time.monotonic() - saved >= SAVE_SECONDS:
                self._save_state(run)
                saved = time.monotonic()
            self.progress(f"{self.baseline.name}: {what}", min(total, int(run.used * total)), total)
        return run

    def _score(self, run: FitRun) -> float:
        count = len(self.validation)
        batch = self.validation.batch(list(range(count)), [False] * count)
        with torch.no_grad(), inference_precision(self.device):
            error = self.baseline.validate(run.finished(), *(tensor.to(self.device) for tensor in batch))
        return error if math.isfinite(error) else math.inf

    def _save_state(self, run: FitRun | None) -> None:
        self.record.save_state({"trials": self.trials, "run": run.state() if run else None})


def _save(fitted: Fitted, folder: Path, identity: Mapping[str, Any]) -> None:
    """Weights first, the result last: a folder with a result is complete."""
    tensors = {name: value.cpu().contiguous() for name, value in learned(fitted.model).items()}
    write_atomically(folder / WEIGHTS, lambda path: save_file(tensors, path, {"format": "pt"}))
    result = {field: value for field, value in vars(fitted).items() if field != "model"}
    machine = {"torch": torch.__version__, "processor": platform.processor() or platform.machine()}
    write_json(folder / RESULT, {**identity, "result": result, **machine})
    (folder / STATE).unlink(missing_ok=True)


def _load(baseline: Baseline, folder: Path, device: torch.device) -> Fitted:
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))["result"]
        weights = load_file(folder / WEIGHTS)
        model = baseline.build()
        missing = learned(model).keys() ^ weights.keys()
        model.load_state_dict(weights, strict=False)
        if missing:
            raise KeyError(sorted(missing)[0])
        model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        return Fitted(model, **result)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder} is damaged ({error}); delete it to train again") from error
