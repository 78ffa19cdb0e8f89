"""The noise schedule: alpha and sigma, forward noising, timestep quadrature, shared draws.

Configurations are those of diffusers' schedulers (``scheduler_config.json``), so that checkpoints can be
exchanged with it; the few lines of arithmetic are ours, because importing diffusers takes seconds.

A flow (Lipman et al. 2023; Liu et al. 2023) is a noise process like any other, x_t = (1 - s) x_0 + s eps; its network
outputs the velocity v = eps - x_0.
"""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from igm_cli.core.validation import validated

Beta = Annotated[float, Field(gt=0, lt=1)]
FLOW = "flow_prediction"
"""What diffusers calls the output of a network on a flow."""


@validated("schedule option")
class ScheduleConfig:
    """The part of a diffusers scheduler configuration that fixes the forward process.

    Attributes:
        beta_schedule: ``linear``, ``scaled_linear`` or ``squaredcos_cap_v2`` (cosine).
        beta_start: First beta of the linear schedules.
        beta_end: Last beta of the linear schedules.
        num_train_timesteps: T.
        prediction_type: What a network on this schedule outputs: ``epsilon``, ``v_prediction``, or, on a flow, which ignores
            the betas, ``flow_prediction``.
        flow_shift: Shift of a flow's levels: s' = shift s / (1 + (shift - 1) s) instead of even ones (Esser et al. 2024,
            eq. 23); above 1 there is more noise.
    """

    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"
    beta_start: Beta = 0.0001
    beta_end: Beta = 0.02
    num_train_timesteps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    prediction_type: Literal["epsilon", "v_prediction", "flow_prediction"] = "v_prediction"
    flow_shift: Annotated[float, Field(gt=0, le=1000)] = 1.0

    @property
    def is_flow(self) -> bool:
        """Whether x_t = (1 - s) x_0 + s eps."""
        return self.prediction_type == FLOW

    def to_dict(self) -> dict[str, Any]:
        """Returns what diffusers reads by ``from_config``: a ``FlowMatchEulerDiscreteScheduler`` or a ``DDPMScheduler``."""
        if self.is_flow:
            name, steps = "FlowMatchEulerDiscreteScheduler", self.num_train_timesteps
            return {"_class_name": name, "num_train_timesteps": steps, "shift": self.flow_shift}
        told = {name: value for name, value in asdict(self).items() if name != "flow_shift"}
        return {"_class_name": "DDPMScheduler", "clip_sample": False, **told}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ScheduleConfig:
        """Reads a diffusers configuration, ignoring what does not affect the forward process."""
        if str(data.get("_class_name", "")).startswith("FlowMatch"):
            data = {**data, "prediction_type": FLOW, "flow_shift": data.get("shift", 1.0)}
        known = {k: data[k] for k in cls.__dataclass_fields__ if k in data}
        return cls(**known)


def _betas(config: ScheduleConfig) -> Tensor:
    steps = config.num_train_timesteps
    if config.beta_schedule == "linear":
        return torch.linspace(config.beta_start, config.beta_end, steps, dtype=torch.float64)
    if config.beta_schedule == "scaled_linear":
        start, end = config.beta_start**0.5, config.beta_end**0.5
        return torch.linspace(start, end, steps, dtype=torch.float64) ** 2

    def alpha_bar(u: float) -> float:  # Nichol & Dhariwal 2021, eq. 17
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return torch.tensor(
        [min(1 - alpha_bar((i + 1) / steps) / alpha_bar(i / steps), 0.999) for i in range(steps)],
        dtype=torch.float64,
    )


def _levels(config: ScheduleConfig) -> tuple[Tensor, Tensor]:
    """Returns alpha and sigma of all timesteps ``[T]``, in double precision."""
    if not config.is_flow:
        alpha_bar = torch.cumprod(1 - _betas(config), dim=0)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    steps, shift = config.num_train_timesteps, config.flow_shift
    # In between, so that no level is without a signal.
    s = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    whole = 1 + (shift - 1) * s
    return (1 - s) / whole, shift * s / whole


class Schedule:
    """x_t = alpha_t x_0 + sigma_t eps.

    With alpha_t^2 = prod(1 - beta) and sigma^2 = 1 - alpha^2, or, for a flow, alpha = 1 - s and sigma = s.
    """

    def __init__(self, config: ScheduleConfig | None = None) -> None:
        self.config = config or ScheduleConfig()
        with torch.device("cpu"):  # also while a model is built without memory, on "meta"
            alpha, sigma = _levels(self.config)
        self._tables = {torch.device("cpu"): (alpha.float(), sigma.float())}

    @property
    def steps(self) -> int:
        """T, the number of discrete timesteps."""
        return self.config.num_train_timesteps

    def alpha(self, t: Tensor) -> Tensor:
        """Returns the signal level of integer timesteps ``[...]``."""
        return self._on(t.device)[0][t]

    def sigma(self, t: Tensor) -> Tensor:
        """Returns the noise level of integer timesteps ``[...]``."""
        return self._on(t.device)[1][t]

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Returns alpha and sigma of all timesteps, copied to a device once."""
        if device not in self._tables:
            alpha, sigma = self._tables[torch.device("cpu")]
            self._tables[device] = alpha.to(device), sigma.to(device)
        return self._tables[device]

    def time(self, t: Tensor) -> Tensor:
        """Returns the time that diffusers' networks take for integer timesteps ``[...]``: T s for a flow, else these."""
        return self.steps * self.sigma(t) if self.config.is_flow else t

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Returns x_t ``[N,C,H,W]`` of x0 and noise ``[N,C,H,W]`` at timesteps ``[N]``."""
        return _spread(self.alpha(t), x0) * x0 + _spread(self.sigma(t), x0) * noise

    def output_to_epsilon(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Converts the output of a network to eps.

        With v = alpha eps - sigma x0: eps = alpha v + sigma x_t.  With v = eps - x0 of a flow: eps = alpha v + x_t.
        """
        if self.config.prediction_type == "epsilon":
            return output
        if self.config.is_flow:
            return _spread(self.alpha(t), x_t) * output + x_t
        return _spread(self.alpha(t), x_t) * output + _spread(self.sigma(t), x_t) * x_t

    def epsilon_gain(self, t: Tensor) -> Tensor:
        """Returns d eps / d output ``[...]``: how much a change of the output changes eps."""
        if self.config.prediction_type == "epsilon":
            return torch.ones_like(t, dtype=torch.float32)
        return self.alpha(t)


def _spread(per_sample: Tensor, like: Tensor) -> Tensor:
    """Reshapes ``[N]`` to ``[N,1,1,1]``."""
    return per_sample.view(-1, *([1] * (like.dim() - 1)))


@dataclass(frozen=True)
class Draws:
    """Timesteps and noise shared by all hypotheses about an image.

    Sharing makes differences of hypotheses paired samples (Clark & Jaini 2023).

    Attributes:
        t: ``[N]`` integer timesteps.
        noise: ``[N,C,H,W]``.
    """

    t: Tensor
    noise: Tensor

    def __len__(self) -> int:
        return int(self.t.shape[0])

    def to(self, device: torch.device) -> Draws:
        """Returns the same draws on another device."""
        return Draws(self.t.to(device), self.noise.to(device))


def van_der_corput(start: int, count: int) -> Tensor:
    """Returns elements ``start .. start+count`` of the base-2 low-discrepancy sequence in (0, 1).

    They are the binary digits of their numbers, mirrored at the point.
    """
    digits = [f"{index:b}" for index in range(start + 1, start + count + 1)]
    return torch.tensor([int(each[::-1], 2) / 2 ** len(each) for each in digits], dtype=torch.float64)


def timestep_quadrature(schedule: Schedule, low: float, high: float, start: int, count: int) -> Tensor:
    """Returns integer timesteps ``[count]`` that cover low..high, fractions of T, evenly, however many are taken.

    They are a low-discrepancy sequence rather than a grid, of which ``start`` were taken before: every prefix is a fair
    quadrature of the expectation over t, so draws can be added until a decision is settled.
    """
    return (quadrature_levels(low, high, start, count) * (schedule.steps - 1)).round().long()


def quadrature_levels(low: float, high: float, start: int, count: int) -> Tensor:
    """Returns the nodes of :func:`timestep_quadrature` as fractions of T ``[count]``, before they are rounded."""
    if not 0 <= low < high <= 1:
        raise ValueError(f"timestep range {low}..{high} must lie within 0..1")
    return low + (high - low) * van_der_corput(start, count)


def draw(
    schedule: Schedule,
    shape: tuple[int, ...],
    count: int,
    *,
    low: float,
    high: float,
    seed: int,
    start: int = 0,
) -> Draws:
    """Returns draws number ``start .. start+count`` for images of shape ``(C, H, W)``; see :func:`timestep_quadrature`.

    Each depends on the seed and its number only.  They are on the CPU, so that every device sees the same noise.
    """
    t = timestep_quadrature(schedule, low, high, start, count)
    noise = [
        torch.randn(shape, generator=torch.Generator().manual_seed(((seed << 20) + start + i) % 2**63))
        for i in range(count)
    ]
    return Draws(t, torch.stack(noise))


@functools.lru_cache(maxsize=16)
def drawn(
    schedule: Schedule,
    shape: tuple[int, ...],
    count: int,
    low: float,
    high: float,
    seed: int,
    start: int,
    device: torch.device,
) -> Draws:
    """Returns the same draws as :func:`draw`, on a device; images inverted one after another share them."""
    return draw(schedule, shape, count, low=low, high=high, seed=seed, start=start).to(device)


def views_of_draws(views: Tensor, start: int, count: int) -> Tensor:
    """Returns the views that draws number ``start .. start+count`` see, ``[count,C,H,W]``.

    Views take turns by the digit sum of the draw's number to the base V (Prouhet-Thue-Morse), so that no view has
    timesteps of its own: those of draws follow the same digits one by one (``timestep_quadrature``).  Views are
    ``[V,C,H,W]``, or a single one ``[C,H,W]``.
    """
    if views.dim() == 3:
        return views.expand(count, *views.shape)
    return views[[_digit_sum(number, len(views)) % len(views) for number in range(start, start + count)]]


def _digit_sum(number: int, base: int) -> int:
    total = 0
    while base > 1 and number:
        number, digit = divmod(number, base)
        total += digit
    return total
