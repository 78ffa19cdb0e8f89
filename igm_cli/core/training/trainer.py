"""The training loop of all models and baselines.

Every process plans the whole batch and takes its own rows; see :mod:`igm_cli.core.training.plan`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from igm_cli.core.device import peak_memory, runs_ahead
from igm_cli.core.training.config import Budget, TrainConfig
from igm_cli.core.training.ema import Average
from igm_cli.core.training.objectives import Objective
from igm_cli.core.training.plan import StepPlan, plan_step
from igm_cli.core.weights import require_finite
from igm_cli.errors import InputError, counted

if TYPE_CHECKING:
    from accelerate import Accelerator

Note: TypeAlias = Callable[[str], None]
"""Called with a sentence for the user."""


class DivergenceError(InputError):
    """A training whose loss or gradients are no longer finite."""


class Trainer:
    """The loop: optimizer, learning rate, average of the weights, and the state from which a training resumes.

    Args:
        model: The model to train; frozen parameters stay as they are.
        objective: The loss to minimise.
        images: Number of samples.
        config: The training options; ``steps`` is the length of the learning-rate schedule.
        accelerator: Gives the device, the number of processes and the precision.
        budget: How long to train; None takes the configuration's steps.
        average_buffers: Whether buffers (statistics of normalisation) are also averaged, instead of copied.
        note: Receives sentences for the user.

    Raises:
        InputError: If the batch cannot be shared among the processes.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        images: int,
        config: TrainConfig,
        accelerator: Accelerator,
        *,
        budget: Budget | None = None,
        average_buffers: bool = False,
        note: Note = lambda text: None,
    ) -> None:
        if config.batch_size % (accelerator.num_processes * config.accumulation):
            raise InputError(
                f"batch_size {config.batch_size} must be divisible by {accelerator.num_processes} processes "
                f"times {config.accumulation} accumulation steps"
            )
        self.objective, self.images, self.config, self.accelerator = objective, images, config, accelerator
        self.budget, self.note = budget or Budget(steps=config.steps), note
        self.share = config.batch_size // accelerator.num_processes  # rows of this process
        device = accelerator.device
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=runs_ahead(device),  # on a CPU it rounds differently
        )
        # Copied before accelerate wraps forward, and kept unwrapped: unwrapping a model later would
        # remove its autocast.
        self.average = Average(model, config.ema, average_buffers).to(device)
        self.bare_model = model
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        if config.compile != "no":
            self.model = torch.compile(self.model, mode=config.compile)
        self.step, self.spent = 0, 0.0
        self.accumulation, self.halved = config.accumulation, False
        self.diverged = torch.zeros((), dtype=torch.bool, device=device)
        self.sound = torch.zeros((), dtype=torch.long, device=device)  # steps before the gradients diverged
        self.reported = 0, 0.0  # step and time of the last figures
        self.losses: list[Tensor] = []  # since then

    @property
    def position(self) -> float:
        """Progress of the training, of ``config.steps`` in all."""
        return self.budget.used(self.spent, self.step, self.config.steps)

    def run(self) -> Iterator[Tensor]:
        """Trains until the budget is used, and yields each step's loss on this process, on its device.

        Raises:
            DivergenceError: If the gradients of a step are not finite; the weights stay those before it.
            InputError: If a step needs more memory than is available, even with half the rows at once.
        """
        self.model.train()
        while self.position < self.config.steps:
            yield self.train_step()
        self.require_sound()

    def train_step(self) -> Tensor:
        """Runs and times one optimizer step, and returns the loss of this process.

        On a GPU nothing waits for its end: neither a step that diverges nor any later one changes weights, and
        :meth:`require_sound` reports it.
        """
        began = time.monotonic()
        plan = plan_step(self.step, self.images, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.position)
        while (loss := self._gradients(plan)) is None:
            self._halve()
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self._leave_out_unless_finite(norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.bare_model, self.step)
        self.step += 1
        self.spent += time.monotonic() - began
        return loss

    def _gradients(self, plan: StepPlan) -> Tensor | None:
        """Computes the gradients of this process's rows; returns their loss, or None if out of memory."""
        first, micro = self.accelerator.process_index * self.share, self.share // self.accumulation
        losses = []
        for part in range(self.accumulation):
            rows = plan.rows(first + part * micro, first + (part + 1) * micro)
            last = part == self.accumulation - 1
            with self.accelerator.no_sync(self.model) if not last else nullcontext():
                try:
                    loss = self.objective.loss(self.model, self.step, rows) / self.accumulation
                    self.accelerator.backward(loss)
                except torch.OutOfMemoryError:
                    return None
                except RuntimeError as error:
                    if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                        raise
                    raise InputError(
                        f"torch.compile does not work here ({type(error).__name__}); use --set compile=no"
                    ) from error
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _halve(self) -> None:
        """Processes about half the rows at once from now on; gradients stay those of the whole batch.

        Raises:
            InputError: If this was done before or is impossible; several processes would wait for one another.
        """
        share = self.share
        finer = [n for n in range(2 * self.accumulation, share + 1) if share % n == 0]
        if self.halved or self.accelerator.num_processes > 1 or not finer:
            raise InputError(
                f"a training step of {counted(share // self.accumulation, 'image')} at once needs more memory than the device "
                f"has left; use --set accumulation={(finer or [share])[0]}, a smaller --batch-size or --precision bf16"
            )
        self.halved, self.accumulation = True, finer[0]
        self.optimizer.zero_grad()
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        self.note(
            f"out of memory in step {self.step + 1}; training goes on with {counted(share // self.accumulation, 'image')} at once "
            f"(accumulation {self.accumulation}), which changes no gradient"
        )

    def _leave_out_unless_finite(self, norm: Tensor) -> None:
        """Makes the optimizer skip a step whose gradients' norm is not finite, and all later steps."""
        if self.accelerator.scaler is not None:  # it skips steps that overflow
            return
        self.diverged |= ~norm.isfinite()
        self.sound += ~self.diverged
        if self.optimizer.param_groups[0]["fused"]:
            self.optimizer.optimizer.found_inf = self.diverged.float()
        else:
            self.require_sound()

    def all_agree(self, stop: Callable[[], bool]) -> bool:
        """Returns whether any process should stop, the same in all processes.

        On devices that compute ahead, several processes compare only at every 16th step, since that makes them wait.
        """
        if self.accelerator.num_processes == 1:
            return stop()
        device = self.accelerator.device
        if runs_ahead(device) and self.step % 16:
            return False
        return bool(self.accelerator.reduce(torch.tensor(float(stop()), device=device)) > 0)

    def figures(self) -> dict[str, float]:
        """Returns the figures to log after some steps: mean loss over all processes, learning rate, time.

        Raises:
            DivergenceError: If one of them, or a gradient, was not finite.
        """
        began = time.monotonic()
        loss = float(self._mean_losses().mean())
        self.losses = []
        self.spent += time.monotonic() - began  # for the steps still being computed
        self.require_sound(loss)
        step, spent = self.reported
        self.reported = self.step, self.spent
        images = (self.step - step) * self.config.batch_size
        figures = {
            "loss": loss,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": self.spent,
            "images_per_second": images / max(self.spent - spent, 1e-9),
        }
        if (memory := peak_memory(self.accelerator.device)) is not None:
            figures["memory_gb"] = memory
        return figures

    def _mean_losses(self) -> Tensor:
        """Returns the losses since the last figures, averaged over all processes, which must all call this."""
        own = torch.stack(self.losses).to(self.accelerator.device)
        mean: Tensor = self.accelerator.reduce(own, "mean")
        return mean

    def require_sound(self, loss: float = 0.0) -> None:
        """Raises a :class:`DivergenceError` if a loss or the gradients of a step so far were not finite."""
        if bool(self.diverged) or not math.isfinite(loss):
            step = int(self.sound) if bool(self.diverged) else self.step
            raise DivergenceError(
                f"the training diverges after step {step}, what was saved before is kept; "
                "use a lower learning_rate, or more warmup"
            )

    def state(self) -> dict[str, Any]:
        """Returns the state that :meth:`load` resumes from; all processes must call this.

        Raises:
            DivergenceError: If the gradients of a step were not finite.
        """
        self.require_sound()
        state = {
            "step": self.step,
            "spent": self.spent,
            "model": learned(self.bare_model),
            "average": learned(self.average),
            "optimizer": self.optimizer.state_dict(),
            "losses": self._mean_losses().cpu() if self.losses else torch.zeros(0),
            "reported": list(self.reported),
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return state

    def load(self, state: Mapping[str, Any]) -> None:
        """Resumes from :meth:`state`.

        Raises:
            InputError: If weights are not finite.
            KeyError: If an entry or a weight is missing.
            ValueError: If its step or its time is invalid.
        """
        step, spent = state["step"], state["spent"]
        if not (isinstance(step, int) and isinstance(spent, float) and step >= 0 and math.isfinite(spent)):
            raise ValueError("the state has no step or no time")
        state["average"].pop("n_averaged", None)  # a count that older versions saved
        for module, weights in ((self.bare_model, state["model"]), (self.average, state["average"])):
            require_finite(weights, "the weights of the run's state", "start another run")
            if learned(module).keys() - weights.keys():
                raise KeyError("weights are missing")
            module.load_state_dict({**module.state_dict(), **weights})
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.spent = step, spent
        self.sound.fill_(self.step)
        self.losses = list(state.get("losses", torch.zeros(0)).to(self.accelerator.device))
        self.reported = tuple(state.get("reported", (self.step, self.spent)))
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def learned(model: nn.Module) -> dict[str, Tensor]:
    """Returns the weights without the frozen ones, which come from elsewhere."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}
