"""The paper's own inversion of continuous concepts (IGM, Wang et al. 2025, Algorithm 3).

R random starts descend the composed error by stochastic gradients, one (t, eps) draw a step; every
end is then scored under shared draws and the best kept.  K is estimated by doing so for each K.
Kept as the reference that ``evidence`` is measured against.
"""

from __future__ import annotations

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Continuous
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.evidence import paired
from igm_cli.core.inference.hypotheses import hypothesis_errors
from igm_cli.core.inference.inversion import Inversion, InversionSettings, KPoint
from igm_cli.core.noise_schedule import Draws, draw
from igm_cli.errors import UsageError

# Of the released code: starts ~ N(0.5, 0.13²) of the box, gradient norm clipped at 1.
START_MEAN, START_SPREAD, CLIP = 0.5, 0.13, 1.0


def invert_sgd(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int | None, composition: Composition
) -> Inversion:
    """Finds K concepts by descent from R starts; K = 1..k_max are all tried if it is not given.

    Args:
        denoiser: Over a :class:`Continuous` space.
        image: ``[C,H,W]``.
        settings: ``restarts``, ``steps``, ``learning_rate``, ``score_draws``, ``sgd_high``.
        k: Number of concepts or None.
        composition: How contributions add up.
    """
    if k == 0:
        raise UsageError("the sgd method needs at least one concept; use the evidence method")
    sizes = [k] if k is not None else list(range(max(1, settings.k_min), settings.k_max + 1))
    best, calls = {}, 0
    for size in sizes:
        starts, used = descend(denoiser, image, settings, size, composition)
        errors, scored = score(denoiser, image, starts, settings, composition)  # [R,N]
        best[size] = (starts[int(errors.mean(1).argmin())], errors[int(errors.mean(1).argmin())])
        calls += used + scored
    chosen = min(sizes, key=lambda size: float(best[size][1].mean()) + settings.cost * size)
    concepts, errors = best[chosen]
    even = torch.ones_like(errors)
    curve = [KPoint(n, float(best[n][1].mean()), paired(best[n][1], errors, even).stderr) for n in sizes]
    return Inversion(
        concepts=concepts.float().cpu(),
        confidence=torch.full((chosen,), float("nan")),
        k=chosen,
        k_source="estimated" if k is None else "given",
        denoising_error=float(errors.mean()),
        k_curve=tuple(curve),
        network_calls=calls,
        seconds=0.0,
        draws=settings.score_draws,
    )


def descend(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int, composition: Composition
) -> tuple[Tensor, int]:
    """Where R random starts end up ``[R,K,D]``, and the network calls it took."""
    space = denoiser.space
    if not isinstance(space, Continuous):
        raise TypeError("stochastic gradient descent needs continuous concepts")
    generator = torch.Generator().manual_seed(settings.seed)
    r, dim = settings.restarts, space.dim
    low, high = image.new_tensor(space.low), image.new_tensor(space.high)
    start = START_MEAN + START_SPREAD * torch.randn(r, k, dim, generator=generator)
    concepts = space.clamp(low + (high - low) * start.to(image.device)).requires_grad_(True)
    optimizer = torch.optim.AdamW([concepts], lr=settings.learning_rate)
    top = max(1, int(settings.sgd_high * denoiser.schedule.steps))
    for _ in range(settings.steps):
        t = torch.randint(0, top, (1,), generator=generator).to(image.device)
        noise = torch.randn(1, *image.shape, generator=generator).to(image.device)
        with torch.enable_grad():
            error = hypothesis_errors(denoiser, image, Draws(t, noise), concepts, composition).sum()
            (concepts.grad,) = torch.autograd.grad(error, concepts)
        norm = concepts.grad.flatten(1).norm(dim=1).clamp(min=CLIP)
        concepts.grad /= norm[:, None, None] / CLIP  # each start is a run of its own
        optimizer.step()
        with torch.no_grad():
            concepts.copy_(space.clamp(concepts))
    return concepts.detach(), settings.steps * r * (k + 1)


def score(
    denoiser: Denoiser,
    image: Tensor,
    starts: Tensor,
    settings: InversionSettings,
    composition: Composition,
    chunk: int = 8,
) -> tuple[Tensor, int]:
    """Errors of R hypotheses ``[R,K,D]`` under shared draws ``[R,N]``, and the network calls."""
    draws = draw(
        denoiser.schedule,
        tuple(image.shape),
        settings.score_draws,
        low=0.0,
        high=settings.sgd_high,
        seed=settings.seed,
    ).to(image.device)
    columns = []
    with torch.no_grad():
        for first in range(0, len(draws), chunk):
            part = Draws(draws.t[first : first + chunk], draws.noise[first : first + chunk])
            columns.append(hypothesis_errors(denoiser, image, part, starts, composition))
    calls = len(draws) * len(starts) * (starts.shape[1] + 1)
    return torch.cat(columns, dim=1), calls
