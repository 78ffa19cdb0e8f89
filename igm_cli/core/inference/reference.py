"""The published algorithms as written: the references that the statistics are compared with.

``sgd``: descent of continuous concepts from R random starts (IGM, Wang et al. 2025, Algorithm 3).
``relax``: descent on relaxed one-hot rows of factors (IGM, appendix, Algorithm 5).
``enumerate``: every configuration of factors by network calls (IGM, section 4.2).
``eliminate``: the same in stages (Diffusion Classifier, Li et al. 2023, section 3.3, Algorithm 2).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Categorical, Continuous
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.direct import Hypotheses, composed_predictions, hypothesis_errors, mean_errors
from igm_cli.core.inference.noised_batch import importance_of
from igm_cli.core.inference.one_of_each import groups_of
from igm_cli.core.inference.statistics import PairedDifference
from igm_cli.core.noise_schedule import Draws, draw
from igm_cli.core.types import Inversion, InversionSettings, KPoint
from igm_cli.errors import UsageError

# From the released code: starts ~ N(0.5, 0.13²) of the box, gradient norm clipped at 1.
START_MEAN, START_STD, CLIP = 0.5, 0.13, 1.0

MOVED_AT_ONCE = 64
"""Samples of descent that go to the device together, since the host waits for each copy."""

SCORED_AT_ONCE = 8
"""Noise samples under which starts are scored together."""

RELAX_RATE, RELAX_BATCH = 0.1, 4
"""Learning rate of AdamW on the logits, and noise samples per step."""

MOST_CONFIGURATIONS = 2**16


def sgd(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int | None, composition: Composition
) -> Inversion:
    """Finds K concepts of an image ``[C,H,W]`` by descent from R starts; tries all K in max(1, k_min)..k_max if it is not given.

    Each step takes one (t, eps) sample; every end point is then scored under shared noise and the best kept.  Of the
    settings, ``restarts``, ``steps``, ``learning_rate``, ``score_draws`` and ``sgd_high`` are used.

    Raises:
        UsageError: If ``k`` is 0.
    """
    if k == 0:
        raise UsageError("the sgd method needs at least one concept; use the evidence method")
    sizes = [k] if k is not None else list(range(max(1, settings.k_min), settings.k_max + 1))
    best, calls = {}, 0
    for size in sizes:
        starts, used = descend(denoiser, image, settings, size, composition)
        errors, scored = score(denoiser, image, starts, settings, composition)  # [R,N]
        errors = errors.cpu()
        least = int(errors.mean(1).argmin())
        best[size] = starts[least], errors[least]
        calls += used + scored
    chosen = min(sizes, key=lambda size: float(best[size][1].mean()) + settings.cost * size)
    concepts, errors = best[chosen]
    even = torch.ones_like(errors)
    curve = [
        KPoint(n, float(best[n][1].mean()), float(PairedDifference.of(best[n][1], errors, even).stderr))
        for n in sizes
    ]
    source = "estimated" if k is None else "given"
    return unsure_answer(
        concepts, float(errors.mean()), calls, settings.score_draws, source=source, curve=curve
    )


def descend(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int, composition: Composition
) -> tuple[Tensor, int]:
    """Returns the end points of R random starts ``[R,K,D]``, and the network calls it took."""
    space = cast(Continuous, denoiser.space)
    generator = torch.Generator().manual_seed(settings.seed)
    r, dim = settings.restarts, space.dim
    low, high = image.new_tensor(space.low), image.new_tensor(space.high)
    start = START_MEAN + START_STD * torch.randn(r, k, dim, generator=generator)
    concepts = space.clamp(low + (high - low) * start.to(image.device)).requires_grad_(True)
    optimizer = torch.optim.AdamW([concepts], lr=settings.learning_rate)
    top = max(1, int(settings.sgd_high * denoiser.schedule.steps))
    for draws in _samples(settings.steps, top, image, generator):
        with torch.enable_grad():
            error = hypothesis_errors(denoiser, image, draws, concepts, composition).sum()
            (concepts.grad,) = torch.autograd.grad(error, concepts)
        norm = concepts.grad.flatten(1).norm(dim=1).clamp(min=CLIP)
        concepts.grad /= norm[:, None, None] / CLIP  # each start is a run of its own
        optimizer.step()
        with torch.no_grad():
            concepts.copy_(space.clamp(concepts))
    return concepts.detach(), settings.steps * r * (k + 1)


def _samples(steps: int, top: int, image: Tensor, generator: torch.Generator) -> Iterator[Draws]:
    """Draws one (t, eps) sample per step, t below ``top``; moves many to the image's device at once."""
    for left in range(steps, 0, -MOVED_AT_ONCE):
        drawn = [
            (
                torch.randint(0, top, (1,), generator=generator),
                torch.randn(1, *image.shape, generator=generator),
            )
            for _ in range(min(left, MOVED_AT_ONCE))
        ]
        t, noise = (torch.cat(part).to(image.device) for part in zip(*drawn, strict=True))
        yield from map(Draws, t.split(1), noise.split(1))


def score(
    denoiser: Denoiser, image: Tensor, starts: Tensor, settings: InversionSettings, composition: Composition
) -> tuple[Tensor, int]:
    """Returns the errors of R hypotheses ``[R,K,D]`` under shared noise ``[R,N]``, and the network calls."""
    s, shape = settings, tuple(image.shape)
    draws = draw(denoiser.schedule, shape, s.score_draws, low=0.0, high=s.sgd_high, seed=s.seed)
    draws = draws.to(image.device)
    columns = []
    with torch.no_grad():
        for t, noise in zip(draws.t.split(SCORED_AT_ONCE), draws.noise.split(SCORED_AT_ONCE), strict=True):
            columns.append(hypothesis_errors(denoiser, image, Draws(t, noise), starts, composition))
    return torch.cat(columns, dim=1), len(draws) * len(starts) * (starts.shape[1] + 1)


def relax(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int | None, composition: Composition
) -> Inversion:
    """Finds one value of every factor of an image ``[C,H,W]`` by descent on relaxed one-hot rows.

    Values of a factor are mixed with weights on the simplex, the weights descend the composed error by stochastic
    gradients, and the value of largest weight is taken.  Of the settings, ``relax_steps``, ``low``, ``high``, ``power``
    and ``seed`` are used.
    """
    s, space = settings, cast(Categorical, denoiser.space)
    groups = groups_of(space, k)
    logits = torch.zeros(space.dim, device=image.device, requires_grad=True)
    optimizer = torch.optim.AdamW([logits], lr=RELAX_RATE, weight_decay=0.0)
    loss, shape = torch.zeros(()), tuple(image.shape)
    for step in range(s.relax_steps):
        start = step * RELAX_BATCH
        draws = draw(denoiser.schedule, shape, RELAX_BATCH, low=s.low, high=s.high, seed=s.seed, start=start)
        draws = draws.to(image.device)
        importance = importance_of(denoiser.schedule, draws.t, s.power)
        with torch.enable_grad():
            rows = relaxed(logits, groups)
            errors = hypothesis_errors(denoiser, image, draws, rows[None], composition)[0]
            loss = (importance / importance.sum()) @ errors
            (logits.grad,) = torch.autograd.grad(loss, logits)
        # The error hardly depends on the values: the direction of the gradient counts, not its length.
        logits.grad /= logits.grad.norm().clamp(min=1e-12)
        optimizer.step()
    weights, error = logits.detach().cpu(), float(loss.detach())
    chosen = [group[int(weights[group].argmax())] for group in groups]
    samples = s.relax_steps * RELAX_BATCH
    return unsure_answer(space.candidates()[chosen], error, samples * (1 + len(groups)), samples)


def relaxed(logits: Tensor, groups: list[list[int]]) -> Tensor:
    """Returns the weights on the simplex of each factor as rows ``[F,D]``, from logits ``[D]``."""
    rows = logits.new_zeros(len(groups), len(logits))
    for factor, group in enumerate(groups):
        rows[factor, group] = torch.softmax(logits[group], dim=0)
    return rows


def enumerate_all(
    denoiser: Denoiser,
    image: Tensor,
    settings: InversionSettings,
    k: int | None,
    composition: Composition,
    stages: int | None = 1,
) -> Inversion:
    """Scores all configurations under ``draws`` shared noise samples; see :func:`mean_errors` for more stages."""
    space = cast(Categorical, denoiser.space)
    groups_of(space, k)
    rows = configurations(space).to(image.device)  # [R,F,D]

    def predict(features: Any, which: Tensor) -> Tensor:
        return composed_predictions(denoiser, features, rows[which.to(rows.device)], composition)

    found = mean_errors(denoiser, image, settings, Hypotheses(len(rows), rows.shape[1], predict), stages)
    best = int(found.errors.argmin())
    calls = found.calls + settings.draws  # the base, once for every noise sample
    return unsure_answer(rows[best], float(found.errors[best]), calls, settings.draws)


def eliminate(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int | None, composition: Composition
) -> Inversion:
    """Eliminates the worse half of the configurations after every stage; the last stage reaches ``max_draws``."""
    settings = replace(settings, draws=settings.max_draws)
    return enumerate_all(denoiser, image, settings, k, composition, stages=None)


def configurations(space: Categorical) -> Tensor:
    """Returns all choices of one value of each factor, one-hot ``[R,F,D]``; a :class:`UsageError` if too many."""
    groups, rows = space.groups(), space.candidates()
    number = math.prod(len(group) for group in groups)
    if number > MOST_CONFIGURATIONS:
        raise UsageError(
            f"{number} configurations are too many to ask the network for each; use --method evidence"
        )
    return rows[torch.tensor(list(itertools.product(*groups)))]


def unsure_answer(
    concepts: Tensor,
    error: float,
    calls: int,
    draws: int,
    *,
    source: str = "given",
    curve: list[KPoint] | None = None,
) -> Inversion:
    """Returns the answer of a method that has no confidence to report."""
    k = len(concepts)
    return Inversion(
        concepts=concepts.float().cpu(),
        confidence=torch.full((k,), math.nan),
        k=k,
        k_source=source,
        denoising_error=error,
        k_curve=tuple(curve or [KPoint(k, error, 0.0)]),
        network_calls=calls,
        seconds=0.0,
        draws=draws,
    )


METHODS = {"sgd": sgd, "relax": relax, "enumerate": enumerate_all, "eliminate": eliminate}
