"""Input and output of inference: settings, the error over K, and the result for one image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, Strict
from torch import Tensor

from igm_cli.core.inference.statistics import PairedDifference
from igm_cli.core.inference.typicality import Typical
from igm_cli.core.validation import Natural, NonNegative, Share, validated
from igm_cli.errors import UsageError

METHODS = ("evidence", "sgd", "relax", "enumerate", "eliminate")
"""Ours, and the published algorithms it is compared with; a concept space says which of them it supports."""

Draws = Annotated[int, Field(ge=1, le=100_000)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Count = Annotated[int, Field(ge=1, le=10_000)]
Grid = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Strict(False), Field(max_length=8)]


def _typical(value: Any) -> Any:
    return Typical(**value) if isinstance(value, Mapping) else value


Progress: TypeAlias = Callable[[int, int], None]
"""Called with the network calls made so far and those to be made at most."""


@validated("inversion setting", out_of_range=UsageError)
class InversionSettings:
    """How to invert.

    Attributes:
        method: ``evidence``; for continuous concepts also ``sgd``, for factors also ``relax``, ``enumerate`` and
            ``eliminate``.
        k_min: Smallest number of concepts when K is estimated.
        k_max: Largest number of concepts when K is estimated.
        draws: Noise samples of the first decision.
        max_draws: Most noise samples, if the answer is not decided before.
        settled: Standard errors that must separate the answer from every alternative.
        low: Smallest timestep used, as a fraction of T.
        high: Largest timestep used, as a fraction of T.
        power: A noise sample is weighted by (sigma/alpha)^power.
        give_up: Whether candidates that can no longer be part of an answer see no further noise.
        coarse: Noise samples after which only the likeliest candidates go on, 2 or more; 0: candidates are given up by
            tests alone (for labels only).
        views: How many views of the image the noise samples take turns at, 1, 2 or 4 (for labels only).
        grid: Candidates along each coordinate of a continuous space; empty for 384 on the model's own image size.
        scan_draws: Noise samples under which the whole grid is ranked.
        keep: Candidates of the grid that are searched.
        penalty: Smallest fall of the error, times 1e-4, that justifies one more concept; calibrated.
        refine_steps: Gauss-Newton steps; 0 leaves concepts on the grid.
        seed: Seed of the noise.
        restarts: Starts R of ``sgd``.
        steps: Steps of ``sgd``.
        learning_rate: Learning rate of ``sgd`` (AdamW on the coordinates).
        score_draws: Noise samples under which the starts of ``sgd`` are compared.
        sgd_high: Largest timestep of ``sgd`` as a fraction of T (the paper's code: 0.5).
        relax_steps: Steps of ``relax``.
        temperature: tau of the posterior over alternatives, in units of the error; 0 if it is not calibrated.
        value_temperature: tau of the posterior over the values of a point; 0 if it is not calibrated.
        typical: What is usual on images like those trained on; None if unknown.
    """

    method: str = "evidence"
    k_min: Annotated[int, Field(ge=0, le=10_000)] = 0
    k_max: Count = 10
    draws: Draws = 12
    max_draws: Draws = 36
    settled: NonNegative = 2.0
    low: Share = 0.04
    high: Share = 0.58
    power: Annotated[float, Field(ge=-8, le=8)] = 0.0
    give_up: bool = True
    coarse: Annotated[int, Field(ge=0, le=100_000)] = 0
    views: Literal[1, 2, 4] = 1
    grid: Grid = ()
    scan_draws: Draws = 6
    keep: Count = 96
    penalty: NonNegative = 0.0
    refine_steps: Annotated[int, Field(ge=0, le=1000)] = 4
    seed: Natural = 0
    restarts: Count = 20
    steps: Steps = 2000
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 4e-3
    score_draws: Draws = 100
    sgd_high: Annotated[float, Field(gt=0, le=1)] = 0.5
    relax_steps: Steps = 200
    temperature: NonNegative = 0.0
    value_temperature: NonNegative = 0.0
    typical: Annotated[Typical | None, BeforeValidator(_typical)] = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"unknown method {self.method!r}; choose {', '.join(sorted(METHODS))}")
        if self.k_min > self.k_max:
            raise UsageError(f"k-min {self.k_min} must lie between 0 and k-max {self.k_max}")
        if self.coarse == 1:
            raise UsageError(
                "coarse takes 2 noise samples or more, or 0: one says nothing of how sure a choice is"
            )
        if self.low >= self.high:
            raise UsageError(f"timesteps {self.low}..{self.high} must lie within 0..1, the lower one first")

    @property
    def cost(self) -> float:
        """Smallest fall of the error that justifies one more concept."""
        return self.penalty * 1e-4

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], **overrides: Any) -> InversionSettings:
        """Returns a checkpoint's settings with those a user gives (None = not given) in their place."""
        given = {name: value for name, value in overrides.items() if value is not None}
        k_min, k_max = given.get("k_min"), data.get("k_max", cls.k_max)
        if isinstance(k_min, int) and isinstance(k_max, int) and k_min > k_max:
            given = {"k_max": k_min, **given}
        settings = cls(**{**data, **given})
        return replace(settings, max_draws=max(settings.max_draws, settings.draws))


@dataclass(frozen=True)
class KPoint:
    """The error under the best K concepts, with the standard error of its difference from that of the chosen K."""

    k: int
    error: float
    stderr: float


@dataclass(frozen=True)
class Evidence:
    """What the confidence of an answer is computed from, so that it can be calibrated.

    Attributes:
        rivals: How much worse the alternatives to each of the K concepts are: differences ``[R]``.
        value_rivals: The same for the F values of each concept; empty if concepts have none.
        features: What typicality is computed from ``[F]``, see :func:`igm_cli.core.inference.typicality.features`.
        nothing: How much worse than the answer a prediction that stands for none of the concepts is ``[1]``; None for
            models without one.
    """

    rivals: Sequence[PairedDifference]
    value_rivals: Sequence[Sequence[PairedDifference]]
    features: Tensor
    nothing: PairedDifference | None = None

    def keep(self, kept: Sequence[bool]) -> Evidence:
        """Returns the evidence of some of the concepts ``[K]``."""
        return replace(
            self,
            rivals=list(compress(self.rivals, kept)),
            value_rivals=list(compress(self.value_rivals, kept)),
        )


@dataclass(frozen=True)
class Inversion:
    """The result for one image.

    Attributes:
        concepts: The concepts found, ``[K,D]`` on the CPU.
        confidence: Probability of each concept ``[K]``: that it is present or, for a factor, that it has this value;
            shrunk towards that of a guess if the image is untypical.
        k: Number of concepts.
        k_source: ``given`` or ``estimated``.
        denoising_error: Mean squared error of the predicted noise under the concepts.
        k_curve: The error over K.
        network_calls: Evaluations of the denoiser: one for every base and every contribution under every noise
            sample.
        seconds: Wall-clock time.
        draws: Noise samples of the final decision.
        typicality: How much the image is like those trained on, 0..1; nan if unknown.
        marginals: Probability of every candidate ``[M]`` if an image holds any set of them, nan for one that stands for
            none of the others; else None.
        values: Probability of the value of each factor of each concept ``[K,F]`` if a concept is a point with one value
            of each of F factors; else None.
        evidence: What confidence and typicality are computed from; None for methods without these.
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
    typicality: float = float("nan")
    marginals: Tensor | None = None
    values: Tensor | None = None
    evidence: Evidence | None = None

    def keep(self, kept: Tensor) -> Inversion:
        """Returns the result with only some of its concepts ``[K]``; the sizes of its curve are reduced by the number left out."""
        out = int((~kept).sum())
        return replace(
            self,
            concepts=self.concepts[kept],
            confidence=self.confidence[kept],
            k=int(kept.sum()),
            k_curve=tuple(replace(p, k=p.k - out) for p in self.k_curve if p.k >= out),
            values=None if self.values is None else self.values[kept],
            evidence=self.evidence and self.evidence.keep(kept.tolist()),
        )
