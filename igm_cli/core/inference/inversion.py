"""Inversion: the concepts under which the composed model denoises an image best.

    c* = argmin_c  E_{t,eps} ‖eps - compose_k eps_theta(x_t, t | c_k)‖²     (IGM, Wang et al. 2025, eq. 6)

``evidence`` (ours, :mod:`igm_cli.core.inference.pursuer`): rank a grid of candidates by their evidence, search subsets of the promising
ones, refine the chosen by Gauss-Newton, and draw noise until the decision is settled.
``sgd`` (the paper's Algorithm 3, :mod:`igm_cli.core.inference.sgd`): stochastic gradient descent from R random starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Categorical, ConceptSpace, Continuous, Text
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.views import VIEWS
from igm_cli.errors import InputError, UsageError

METHODS: dict[type[ConceptSpace], tuple[str, ...]] = {
    Continuous: ("evidence", "sgd"),
    Categorical: ("evidence", "relax", "enumerate", "eliminate"),
    Text: ("evidence",),
}
"""Ways to invert, by the kind of concepts."""


def check_method(space: ConceptSpace, method: str) -> None:
    """Raises a :class:`UsageError` if concepts of this kind cannot be found by the method."""
    known = METHODS[type(space)]
    if method not in known:
        kind = {Categorical: "factors", Text: "labels"}.get(type(space), "continuous concepts")
        raise UsageError(f"the method {method!r} is none of {kind}; choose {' or '.join(known)}")


def check_request(space: ConceptSpace, settings: InversionSettings, k: int | None) -> None:
    """Raises a :class:`UsageError` for what :func:`invert` would refuse, before a model is loaded."""
    from igm_cli.core.inference.labels import sizes_of

    check_method(space, settings.method)
    if isinstance(space, Text):
        sizes_of(space.dim, k, settings)


@dataclass(frozen=True)
class InversionSettings:
    """How to invert.

    Attributes:
        method: ``evidence``; for continuous concepts also ``sgd``, for factors ``relax``, ``enumerate`` and
            ``eliminate``.
        k_min: Smallest number of concepts when K is estimated.
        k_max: Largest number of concepts when K is estimated.
        draws: Noise draws of the first decision.
        max_draws: Draws at most, if the decision is not settled before.
        settled: Standard errors that must separate the best K from every other.
        low: Least timestep used, as a fraction of T.
        high: Greatest timestep used.
        power: Weight (sigma/alpha)^power of a draw.
        views: Of the image that draws look at by turns, 1, 2 or 4 (:mod:`igm_cli.core.inference.views`); for labels only.
        grid: Candidates along each coordinate of a continuous space; empty for 384 in all.
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
        relax_steps: Steps of ``relax``.
        temperature: tau of the posterior of a factor's values, in units of the error; 0 if not calibrated.
        typical: Denoising error of images like those trained on (geometric mean), and its spread in log error;
            empty if not calibrated.
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
        known = sorted({name for names in METHODS.values() for name in names})
        if self.method not in known:
            raise UsageError(f"unknown method {self.method!r}; choose {', '.join(known)}")
        if not 0 <= self.k_min <= self.k_max:
            raise UsageError(f"k-min {self.k_min} must lie between 0 and k-max {self.k_max}")
        if not 0 <= self.low < self.high <= 1:
            raise UsageError(f"timesteps {self.low}..{self.high} must lie within 0..1")
        positive = ("k_max", "draws", "scan_draws", "keep", "restarts", "steps", "score_draws", "relax_steps")
        for name in positive:
            if getattr(self, name) < 1:
                raise UsageError(f"{name.replace('_', '-')} must be at least 1")
        if self.views not in VIEWS:
            raise UsageError(f"views must be 1, 2 or 4, not {self.views}")
        if self.temperature < 0 or (self.typical and (len(self.typical) != 2 or min(self.typical) <= 0)):
            raise UsageError("temperature must be 0 or more, and typical two positive numbers")

    @property
    def cost(self) -> float:
        """Fall of the error that justifies one more concept."""
        return self.penalty * 1e-4

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
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        values |= {k: v for k, v in overrides.items() if v is not None}
        try:
            settings = cls(**values)
        except TypeError as error:
            raise InputError(f"an inversion setting of the checkpoint is of the wrong type: {error}") from error
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
        familiarity: How much the image is like those trained on, 0..1; nan where that is not calibrated.
        marginals: Probability of every label ``[M]``; None where concepts are none.
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


def invert(
    denoiser: Denoiser,
    image: Tensor,
    settings: InversionSettings | None = None,
    *,
    k: int | None = None,
    composition: Composition = "sum",
    progress: Callable[[int, int], None] | None = None,
) -> Inversion:
    """Finds the concepts of one image.

    Args:
        denoiser: The model.
        image: ``[C,H,W]`` in -1..1, on the denoiser's device; for labels views of it ``[V,C,H,W]``, too.
        settings: How.
        k: Number of concepts; None estimates it (for factors it follows from the space).
        composition: How the denoiser was trained to compose.
        progress: Called with network calls made and to be made at most, by methods that can tell.

    Raises:
        UsageError: If ``k`` is out of range for the space, or the method is none of its kind.
    """
    # The methods return what is defined here.
    from igm_cli.core.inference.factors import invert_factors
    from igm_cli.core.inference.labels import invert_labels
    from igm_cli.core.inference.pursuer import Pursuer
    from igm_cli.core.inference.sgd import invert_sgd

    settings = settings or InversionSettings()
    check_method(denoiser.space, settings.method)
    started = time.monotonic()
    with torch.no_grad():
        if isinstance(denoiser.space, Categorical):
            found = invert_factors(denoiser, image, settings, k, composition)
        elif isinstance(denoiser.space, Text):
            found = invert_labels(denoiser, image, settings, k, composition, progress=progress)
        elif k is not None and not 0 <= k <= MOST_CONCEPTS:
            raise UsageError(f"k must lie between 0 and {MOST_CONCEPTS}, not {k}")
        elif settings.method == "sgd":
            found = invert_sgd(denoiser, image, settings, k, composition)
        else:
            found = Pursuer(denoiser, image, settings, composition).invert(k)
    return replace(found, seconds=time.monotonic() - started)


MOST_CONCEPTS = 100
