"""Inversion: the concepts under which the composed model denoises an image best.

    c* = argmin_c  E_{t,eps} ‖eps - compose_k eps_theta(x_t, t | c_k)‖²     (IGM, Wang et al. 2025, eq. 6)

``evidence`` (ours): rank a grid of candidates by their evidence, search subsets of the promising
ones, refine the chosen by Gauss-Newton, and draw noise until the decision is settled.
``sgd`` (the paper's Algorithm 3): stochastic gradient descent from R random starts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Categorical, Continuous
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.evidence import Evidence, Look, gather, gather_single, look, paired
from igm_cli.core.refine import refine
from igm_cli.core.schedule import draw
from igm_cli.core.search import Found, exhaustive_configurations, pursuit
from igm_cli.errors import InputError, UsageError


@dataclass(frozen=True)
class InversionSettings:
    """How to invert.

    Attributes:
        method: ``evidence`` or ``sgd``.
        k_max: Largest number of concepts tried when K is estimated.
        draws: Noise draws of the first decision.
        max_draws: Draws at most, if the decision is not settled before.
        settled: Standard errors that must separate the best K from every other.
        low: Least timestep used, as a fraction of T.
        high: Greatest timestep used.
        power: Weight (sigma/alpha)^power of a draw.
        grid: Candidates along each coordinate of a continuous space.
        scan_draws: Draws by which the whole grid is ranked.
        keep: Candidates of the grid that are searched.
        penalty: Least fall of the error, times 1e-4, that justifies one more concept; calibrated.
        refine_steps: Gauss-Newton steps; 0 leaves concepts on the grid.
        seed: Of the noise.
        restarts: R of ``sgd``.
        steps: Steps of ``sgd``.
        learning_rate: Of ``sgd`` (AdamW on the coordinates).
        score_draws: Draws by which the starts of ``sgd`` are compared.
        sgd_high: Greatest timestep of ``sgd`` as a fraction of T (the paper's code: 0.5).
    """

    method: str = "evidence"
    k_max: int = 10
    draws: int = 12
    max_draws: int = 36
    settled: float = 2.0
    low: float = 0.04
    high: float = 0.58
    power: float = 0.0
    grid: tuple[int, ...] = (24, 16)
    scan_draws: int = 4
    keep: int = 128
    penalty: float = 0.0
    refine_steps: int = 4
    seed: int = 0
    restarts: int = 20
    steps: int = 2000
    learning_rate: float = 4e-3
    score_draws: int = 100
    sgd_high: float = 0.5

    def __post_init__(self) -> None:
        if self.method not in ("evidence", "sgd"):
            raise UsageError(f"unknown method {self.method!r}; choose evidence or sgd")
        positive = ("k_max", "draws", "scan_draws", "keep", "restarts", "steps", "score_draws")
        for name in positive:
            if getattr(self, name) < 1:
                raise UsageError(f"{name.replace('_', '-')} must be at least 1")

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], **overrides: Any) -> InversionSettings:
        """Settings of a checkpoint, with what the user gives (None = not given) above them.

        Raises:
            InputError: If a name is unknown.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise InputError(f"unknown inversion setting {unknown[0]!r} in the checkpoint")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        values |= {k: v for k, v in overrides.items() if v is not None}
        settings = cls(**values)
        return replace(settings, max_draws=max(settings.max_draws, settings.draws))


@dataclass(frozen=True)
class KPoint:
    """Error under the best K concepts, with the standard error of its difference to the chosen K."""

    k: int
    error: float
    stderr: float


@dataclass(frozen=True)
class Inversion:
    """What was understood of one image.

    Attributes:
        concepts: ``[K,D]`` on the CPU.
        confidence: Probability that leaving a concept out would raise the error ``[K]``.
        k: Number of concepts.
        k_source: ``given`` or ``estimated``.
        denoising_error: Mean squared error of eps under the concepts.
        k_curve: Error over K.
        network_calls: Evaluations of the denoiser: one for every base and every contribution under
            every draw.
        seconds: Wall-clock time.
        draws: Noise draws of the final decision.
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


def invert(
    denoiser: Denoiser,
    image: Tensor,
    settings: InversionSettings | None = None,
    *,
    k: int | None = None,
    composition: Composition = "sum",
) -> Inversion:
    """Finds the concepts of one image.

    Args:
        denoiser: The model.
        image: ``[C,H,W]`` in -1..1, on the denoiser's device.
        settings: How.
        k: Number of concepts; None estimates it (for factors it follows from the space).
        composition: How the denoiser was trained to compose.

    Raises:
        UsageError: If ``k`` is out of range for the space.
    """
    settings = settings or InversionSettings()
    started = time.monotonic()
    if isinstance(denoiser.space, Categorical):
        found = _invert_factors(denoiser, image, settings, composition)
    else:
        if k is not None and not 0 <= k <= MOST_CONCEPTS:
            raise UsageError(f"k must lie between 0 and {MOST_CONCEPTS}, not {k}")
        with torch.no_grad():
            if settings.method == "sgd":
                from igm_cli.core.sgd import invert_sgd

                found = invert_sgd(denoiser, image, settings, k, composition)
            else:
                found = Pursuer(denoiser, image, settings, composition).invert(k)
    return replace(found, seconds=time.monotonic() - started)


MOST_CONCEPTS = 100


@dataclass(frozen=True)
class _Decision:
    """The chosen K, and its paired advantage over every other: mean and standard error."""

    k: int
    advantage: dict[int, tuple[float, float]]

    def settled(self, by: float) -> bool:
        """True if every other K is worse by so many standard errors."""
        return all(mean > by * error for mean, error in self.advantage.values())


class Pursuer:
    """Evidence inversion of one image over a continuous space.

    Args:
        denoiser: The model.
        image: ``[C,H,W]``.
        settings: How.
        composition: How contributions add up.
    """

    def __init__(
        self, denoiser: Denoiser, image: Tensor, settings: InversionSettings, composition: Composition
    ) -> None:
        if not isinstance(denoiser.space, Continuous):
            raise TypeError("pursuit needs a continuous space")
        self.denoiser, self.image, self.settings, self.composition = denoiser, image, settings, composition
        self.space = denoiser.space
        self.calls = 0
        self.drawn = 0

    def invert(self, k: int | None) -> Inversion:
        """Finds K concepts, or as many as explain the image."""
        settings = self.settings
        first = self.look(settings.draws)
        candidates = self.scan()
        evidence = self.gather(first, candidates)
        k_max = settings.k_max if k is None else k
        path = pursuit(evidence.expected(), k_max)
        chosen = self.decide(evidence, path).k if k is None else len(path) - 1
        for _ in range(2):  # sharper positions can change the count, and the count the positions
            candidates = self.sharpen(first, candidates, path[chosen])
            evidence = self.gather(first, candidates)
            path = pursuit(evidence.expected(), k_max)
            before, chosen = chosen, self.decide(evidence, path).k if k is None else len(path) - 1
            if chosen == before:
                break
        evidence = self.settle(evidence, candidates, path) if k is None else evidence
        path = pursuit(evidence.expected(), k_max)
        decision = self.decide(evidence, path)
        chosen = decision.k if k is None else len(path) - 1
        return self.report(candidates, evidence, path, chosen, "estimated" if k is None else "given")

    def look(self, draws: int) -> Look:
        """The image under the next draws."""
        s = self.settings
        taken = draw(
            self.denoiser.schedule,
            tuple(self.image.shape),
            draws,
            low=s.low,
            high=s.high,
            seed=s.seed,
            start=self.drawn,
        )
        self.drawn += draws
        self.calls += draws
        return look(self.denoiser, self.image, taken, s.power)

    def gather(self, seen: Look, candidates: Tensor) -> Evidence:
        """Evidence of candidates, counted."""
        self.calls += len(seen) * len(candidates)
        return gather(self.denoiser, seen, candidates, self.composition)

    def scan(self) -> Tensor:
        """The candidates of the grid that explain most of the residual on their own ``[keep,D]``."""
        raise NotImplementedError
