"""What inference is asked and what it answers: settings, the error over K, and the result for one image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from dataclasses import dataclass as plain_dataclass
from typing import Any, TypeAlias

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from igm_cli.errors import InputError, UsageError

METHODS = ("evidence", "sgd", "relax", "enumerate", "eliminate")
"""Ours, and the published algorithms it is compared with; a concept space says which of them it supports."""

VIEWS = (1, 2, 4)
"""Numbers of views of an image that can be looked at: the image; its mirror image, too; both enlarged, too."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the network calls made so far and those to be made at most."""


@dataclass(frozen=True, config=ConfigDict(strict=True, allow_inf_nan=False))
class InversionSettings:
    """How to invert.

    Attributes:
        method: ``evidence``; for continuous concepts also ``sgd``, for factors also ``relax``, ``enumerate`` and
            ``eliminate``.
        k_min: Smallest number of concepts when K is estimated.
        k_max: Largest number of concepts when K is estimated.
        draws: Noise samples of the first decision.
        max_draws: Noise samples at most, if the answer is not decided before.
        settled: Standard errors that must separate the answer from every alternative.
        low: Smallest timestep used, as a fraction of T.
        high: Largest timestep used, as a fraction of T.
        power: A noise sample is weighted by (sigma/alpha)^power.
        give_up: Whether candidates that cannot be part of an answer any more see no further noise.
        views: How many views of the image the noise samples take turns at, 1, 2 or 4 (for labels only).
        grid: Candidates along each coordinate of a continuous space; empty for 384 on the model's own image size.
        scan_draws: Noise samples by which the whole grid is ranked.
        keep: Candidates of the grid that are searched.
        penalty: Smallest fall of the error, times 1e-4, that justifies one more concept; calibrated.
        refine_steps: Gauss-Newton steps; 0 leaves concepts on the grid.
        seed: Seed of the noise.
        restarts: Starts R of ``sgd``.
        steps: Steps of ``sgd``.
        learning_rate: Learning rate of ``sgd`` (AdamW on the coordinates).
        score_draws: Noise samples by which the starts of ``sgd`` are compared.
        sgd_high: Largest timestep of ``sgd`` as a fraction of T (the paper's code: 0.5).
        relax_steps: Steps of ``relax``.
        temperature: tau of the posterior over alternatives, in units of the error; 0 if it is not calibrated.
        typical: Denoising error of images like those trained on (geometric mean), and its standard deviation in log
            error; empty if it is not calibrated.
    """

    method: str = "evidence"
    k_min: int = 0
    k_max: int = 10
    draws: int = 12
    max_draws: int = 36
    settled: float = 2.0
    low: float = 0.04
    high: float = 0.58
    power: float = 0.0
    give_up: bool = True
    views: int = 1
    grid: tuple[int, ...] = ()
    scan_draws: int = 6
    keep: int = 96
    penalty: float = 0.0
    refine_steps: int = 4
    seed: int = 0
    restarts: int = 20
    steps: int = 2000
    learning_rate: float = 4e-3
    score_draws: int = 100
    sgd_high: float = 0.5
    relax_steps: int = 200
    temperature: float = 0.0
    typical: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"unknown method {self.method!r}; choose {', '.join(sorted(METHODS))}")
        if not 0 <= self.k_min <= self.k_max:
            raise UsageError(f"k-min {self.k_min} must lie between 0 and k-max {self.k_max}")
        if not 0 <= self.low < self.high <= 1:
            raise UsageError(f"timesteps {self.low}..{self.high} must lie within 0..1")
        for name in (
            "k_max", "draws", "max_draws", "scan_draws", "keep", "restarts", "steps", "score_draws", "relax_steps",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise UsageError(f"{name.replace('_', '-')} must be at least 1")
        for name in ("settled", "refine_steps", "temperature"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name.replace('_', '-')} must be 0 or more")
        if not 0 < self.sgd_high <= 1 or self.learning_rate <= 0:
            raise UsageError("sgd-high must lie within 0..1, and learning-rate be above 0")
        if self.views not in VIEWS:
            raise UsageError(f"views must be 1, 2 or 4, not {self.views}")
        if self.typical and (len(self.typical) != 2 or min(self.typical) <= 0):
            raise UsageError("typical must be two positive numbers")

    @property
    def cost(self) -> float:
        """Smallest fall of the error that justifies one more concept."""
        return self.penalty * 1e-4

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], **overrides: Any) -> InversionSettings:
        """Returns a checkpoint's settings with those a user gives (None = not given) in their place.

        Raises:
            InputError: If a name is unknown or a value is of another type.
            UsageError: If a value is out of range.
        """
        unknown = sorted(set(data) - {field.name for field in fields(cls)})
        if unknown:
            raise InputError(f"unknown inversion setting {unknown[0]!r} in the checkpoint")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        values |= {k: v for k, v in overrides.items() if v is not None}
        try:
            settings = cls(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name, value = str(first["loc"][0]), repr(first["input"])[:60]
            raise InputError(f"the inversion setting {name} is {value}: {first['msg'].lower()}") from error
        return replace(settings, max_draws=max(settings.max_draws, settings.draws))


@plain_dataclass(frozen=True)
class KPoint:
    """The error under the best K concepts, with the standard error of its difference to that of the chosen K."""

    k: int
    error: float
    stderr: float


@plain_dataclass(frozen=True)
class Inversion:
    """What was understood of one image.

    Attributes:
        concepts: The concepts found, ``[K,D]`` on the CPU.
        confidence: Probability of each concept ``[K]``: that it is there, or, of a factor, that it has this value.
        k: Number of concepts.
        k_source: ``given`` or ``estimated``.
        denoising_error: Mean squared error of the predicted noise under the concepts.
        k_curve: The error over K.
        network_calls: Evaluations of the denoiser: one for every base and every contribution under every noise
            sample.
        seconds: Wall-clock time.
        draws: Noise samples of the final decision.
        familiarity: Typicality of the image among those trained on, 0..1; nan where that is not calibrated.
        marginals: Probability of every candidate ``[M]``, where an image holds any set of them; else None.
        values: Probability of the value of each factor of each concept ``[K,F]``, where a concept is a point with
            one value of each of F factors; else None.
    """

    concepts: Tensor
    confidence: Tensor
    k: int
    k_source: str
    denoising_error: float
    k_curve: tuple[KPoint, ...]
    network_calls: int
    seconds: float
    draws: int
    familiarity: float = float("nan")
    marginals: Tensor | None = None
    values: Tensor | None = None
