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
from igm_cli.core.evidence import (
    Evidence,
    Gap,
    Look,
    Pool,
    contributions,
    gather,
    look,
    paired,
    single_products,
)
from igm_cli.core.refine import refine
from igm_cli.core.schedule import draw
from igm_cli.core.search import Found, exhaustive_configurations, pursuit
from igm_cli.errors import InputError, UsageError


@dataclass(frozen=True)
class InversionSettings:
    """How to invert.

    Attributes:
        method: ``evidence`` or ``sgd``.
        k_min: Smallest number of concepts when K is estimated.
        k_max: Largest number of concepts when K is estimated.
        draws: Noise draws of the first decision.
        max_draws: Draws at most, if the decision is not settled before.
        settled: Standard errors that must separate the best K from every other.
        low: Least timestep used, as a fraction of T.
        high: Greatest timestep used.
        power: Weight (sigma/alpha)^power of a draw.
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

    def __post_init__(self) -> None:
        if self.method not in ("evidence", "sgd"):
            raise UsageError(f"unknown method {self.method!r}; choose evidence or sgd")
        if not 0 <= self.k_min <= self.k_max:
            raise UsageError(f"k-min {self.k_min} must lie between 0 and k-max {self.k_max}")
        if not 0 <= self.low < self.high <= 1:
            raise UsageError(f"timesteps {self.low}..{self.high} must lie within 0..1")
        positive = ("k_max", "draws", "scan_draws", "keep", "restarts", "steps", "score_draws")
        for name in positive:
            if getattr(self, name) < 1:
                raise UsageError(f"{name.replace('_', '-')} must be at least 1")

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
class Decision:
    """The chosen K, and how much worse every other is."""

    k: int
    gaps: tuple[Gap, ...]

    def settled(self, by: float) -> bool:
        """True if every other K is worse by so many standard errors."""
        return all(gap.mean > by * gap.stderr for gap in self.gaps)


def decide(evidence: Evidence, path: list[Found], settings: InversionSettings) -> Decision:
    """The K of least error, each concept at its cost."""
    errors = [evidence.errors(found.subset) + settings.cost * k for k, found in enumerate(path)]
    sizes = range(min(settings.k_min, len(path) - 1), len(path))
    best = min(sizes, key=lambda k: path[k].error + settings.cost * k)
    gaps = (paired(errors[k], errors[best], evidence.importance) for k in sizes if k != best)
    return Decision(best, tuple(gaps))


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
        # Sets of another size than the one asked for lead to candidates that it needs, too.
        k_max = max(self.settings.k_max, k or 0)
        shortlist = self.shortlist(k_max)
        pool = Pool(self.denoiser, self.look(self.settings.draws), self.composition)
        self.add(pool, shortlist)
        path = pursuit(pool.evidence().expected(), k_max)
        chosen = self.choose(pool.evidence(), path, k)
        for turn in range(ROUNDS):  # sharper concepts can change the count, and the count the concepts
            # One more than chosen at first: what it holds besides may be right, once it is in its place.
            self.sharpen(pool, path[min(chosen + (turn == 0), len(path) - 1)])
            if turn == 0:
                self.rescan(pool, pursuit(pool.evidence().expected(), k_max)[chosen])
            path = pursuit(pool.evidence().expected(), k_max)
            before, chosen = chosen, self.choose(pool.evidence(), path, k)
            if chosen == before and turn > 0:
                break
        candidates, evidence = self.members(pool, path)
        if k is None:
            evidence = self.settle(evidence, candidates)
        path = pursuit(evidence.expected(), k_max)
        return self.report(candidates, evidence, path, self.choose(evidence, path, k), k)

    def choose(self, evidence: Evidence, path: list[Found], k: int | None) -> int:
        """The K asked for, or the one that the errors speak for."""
        return min(k, len(path) - 1) if k is not None else decide(evidence, path, self.settings).k

    def look(self, draws: int) -> Look:
        """The image under the next draws."""
        s = self.settings
        shape = tuple(self.image.shape)
        taken = draw(
            self.denoiser.schedule, shape, draws, low=s.low, high=s.high, seed=s.seed, start=self.drawn
        )
        self.drawn += draws
        self.calls += draws
        return look(self.denoiser, self.image, taken, s.power)

    def add(self, pool: Pool, candidates: Tensor) -> None:
        """Takes candidates into a pool, counted."""
        self.calls += len(pool.seen) * len(candidates)
        pool.add(candidates)

    def shortlist(self, k_max: int) -> Tensor:
        """Candidates of the grid that a first search under few draws finds use for ``[M,D]``.

        A candidate of free amplitude explains <r,Delta>²/<Delta,Delta> on its own; those pointing the
        wrong way explain nothing.  The best of these are searched, and the members of every subset
        on the way go on.
        """
        settings = self.settings
        counts = settings.grid or (round(GRID_SIZE ** (1 / self.space.dim)),) * self.space.dim
        grid = self.space.grid(counts).to(self.image.device)
        self.steps = torch.tensor([max(1, n - 1) for n in counts], device=grid.device)
        if k_max > len(grid):
            raise UsageError(f"{k_max} concepts cannot be told apart on a grid of {len(grid)}; use fewer")
        seen = self.look(min(settings.scan_draws, settings.draws))
        self.drawn = 0  # the search goes on with the same draws
        self.few, self.grid = seen, grid
        explained = self.explained(seen, grid)
        keep = min(len(grid), max(settings.keep, 2 * k_max))
        pool = Pool(self.denoiser, seen, self.composition)
        self.add(pool, grid[explained.topk(keep).indices.sort().values])
        candidates, _ = self.members(pool, pursuit(pool.evidence().expected(), k_max + BEYOND))
        return candidates

    def explained(self, seen: Look, candidates: Tensor) -> Tensor:
        """What each candidate of free amplitude explains of a residual on its own ``[M]``."""
        self.calls += len(seen) * len(candidates)
        linear, square = single_products(self.denoiser, seen, candidates)
        return linear.clamp(min=0).square() / square.clamp(min=1e-12)

    def rescan(self, pool: Pool, found: Found) -> None:
        """Adds candidates that explain what a subset leaves over, between the points of the grid.

        What is hidden by something larger shows only once the larger is explained.
        """
        assert pool.candidates is not None
        chosen = pool.candidates[list(found.subset)]
        w = pool.evidence().expected().w(len(chosen))
        delta = contributions(self.denoiser, self.few, chosen).sum(1).view_as(self.few.residual)
        self.calls += len(self.few) * len(chosen)
        left = Look(self.few.features, self.few.residual - w * delta, self.few.importance)
        between = self.space.clamp(self.grid + (self.grid[-1] - self.grid[0]) / self.steps / 2)
        best = self.explained(left, between).topk(min(RESCANNED, len(between))).indices
        self.add(pool, between[best])

    def members(self, pool: Pool, path: list[Found]) -> tuple[Tensor, Evidence]:
        """The candidates that occur in any subset of a path, and their evidence."""
        assert pool.candidates is not None
        used = torch.tensor(sorted({i for found in path for i in found.subset}), dtype=torch.long)
        used = used.to(pool.candidates.device)
        return pool.candidates[used], pool.evidence().select(used)

    def sharpen(self, pool: Pool, found: Found) -> None:
        """Adds the refined members of a subset to the pool."""
        if self.settings.refine_steps == 0 or not found.subset:
            return
        assert pool.candidates is not None
        start = pool.candidates[list(found.subset)]
        steps = self.settings.refine_steps
        result = refine(self.denoiser, self.few, start, self.composition, steps=steps)
        self.calls += len(self.few) * result.calls
        self.add(pool, result.concepts)

    def settle(self, evidence: Evidence, candidates: Tensor) -> Evidence:
        """Draws more noise until K is decided, or the draws are spent."""
        s = self.settings
        while self.drawn < s.max_draws:
            path = pursuit(evidence.expected(), s.k_max)
            if decide(evidence, path, s).settled(s.settled):
                break
            pool = Pool(self.denoiser, self.look(min(s.draws, s.max_draws - self.drawn)), self.composition)
            self.add(pool, candidates)
            evidence = evidence.join(pool.evidence())
        return evidence

    def report(
        self, candidates: Tensor, evidence: Evidence, path: list[Found], chosen: int, k: int | None
    ) -> Inversion:
        """What was found, with the confidence of every part of it."""
        subset = list(path[chosen].subset)
        errors = evidence.errors(subset)
        curve = [
            KPoint(j, found.error, paired(evidence.errors(found.subset), errors, evidence.importance).stderr)
            for j, found in enumerate(path)
        ]
        return Inversion(
            concepts=candidates[subset].float().cpu(),
            confidence=concept_confidence(evidence, subset, self.settings.cost),
            k=chosen,
            k_source="estimated" if k is None else "given",
            denoising_error=path[chosen].error,
            k_curve=tuple(curve),
            network_calls=self.calls,
            seconds=0.0,
            draws=self.drawn,
        )


ROUNDS = 2
GRID_SIZE = 384
BEYOND = 3
RESCANNED = 32


def concept_confidence(evidence: Evidence, subset: list[int], cost: float = 0.0) -> Tensor:
    """For each member of a subset, the probability that leaving it out raises the error ``[K]``.

    Of the paired difference over draws.  The members were chosen under the same draws, so that it
    is rather too high than too low.
    """
    whole = evidence.errors(subset)
    values = []
    for place in range(len(subset)):
        without = evidence.errors(subset[:place] + subset[place + 1 :])
        values.append(paired(without - cost, whole, evidence.importance).probability())
    return torch.tensor(values)


def _invert_factors(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, composition: Composition
) -> Inversion:
    """One value of every factor, by exact search over the evidence of all values."""
    space = denoiser.space
    assert isinstance(space, Categorical)
    candidates = space.candidates().to(image.device)
    with torch.no_grad():
        taken = draw(
            denoiser.schedule,
            tuple(image.shape),
            settings.draws,
            low=settings.low,
            high=settings.high,
            seed=settings.seed,
        )
        seen = look(denoiser, image, taken, settings.power)
        evidence = gather(denoiser, seen, candidates, composition)
    found = exhaustive_configurations(evidence.expected(), space.groups())
    subset = list(found.subset)
    errors = evidence.errors(subset)
    confidence = []
    for place, group in enumerate(space.groups()):
        rivals = [[*subset[:place], v, *subset[place + 1 :]] for v in group if v != subset[place]]
        gaps = [paired(evidence.errors(rival), errors, evidence.importance) for rival in rivals]
        confidence.append(min(gap.probability() for gap in gaps))
    return Inversion(
        concepts=candidates[subset].cpu(),
        confidence=torch.tensor(confidence),
        k=len(subset),
        k_source="given",
        denoising_error=found.error,
        k_curve=(KPoint(len(subset), found.error, 0.0),),
        network_calls=len(seen) * (1 + len(candidates)),
        seconds=0.0,
        draws=len(seen),
    )
