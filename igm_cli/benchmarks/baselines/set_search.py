"""Search for the set of positions under which a model of whole sets denoises best.

The paper (IGM, Wang et al. 2025, Algorithm 3) descends from random starts.  A few hundred
evaluations do not get far that way, so starts are proposed by what random sets do to the error
around each of their positions, and ends are improved by exchanging positions.  Whether a set is
better is always decided by its error as a whole: none of this asks the model to be compositional.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.benchmarks.baselines.set_view import SetView

CELL = 4
"""Side in pixels of the cells that errors are looked at in."""


@dataclass(frozen=True)
class Proposals:
    """Places ``[M,2]`` that may hold something, most promising first, and how promising ``[M]``."""

    places: Tensor
    gains: Tensor


def distances(a: Tensor, b: Tensor, image: Tensor) -> Tensor:
    """Pixels between positions ``[...,2]`` of an image ``[C,H,W]``; a and b broadcast."""
    size = a.new_tensor([image.shape[2], image.shape[1]])
    pixels: Tensor = ((a - b) * size).norm(dim=-1)
    return pixels


@dataclass(frozen=True)
class Scan:
    """What random sets ``[S,K,2]`` leave unexplained, as maps ``[S,h,w]`` of squared residuals."""

    sets: Tensor
    maps: Tensor

    def against(self, reference: Tensor, image: Tensor, keep: int) -> Proposals:
        """Places around which a set that has a position there errs less than a reference ``[h,w]``."""
        height, width = reference.shape
        ys, xs = (torch.arange(n, device=reference.device) + 0.5 for n in (height, width))
        at = self.sets * self.sets.new_tensor([width, height])
        square = (at[..., 0, None, None] - xs).square() + (at[..., 1, None, None] - ys[:, None]).square()
        spared = (reference - self.maps)[:, None]
        gains = (torch.exp(-square / 8) * spared).sum((2, 3)).flatten()  # [S*K]
        return _apart(self.sets.flatten(0, 1), gains, image, keep)


def scan(view: SetView, k: int, generator: torch.Generator, *, sets: int, draws: int) -> Scan:
    """Tries random sets of k positions under a few draws."""
    tried = scattered(view.image, sets, k, generator)  # [S,K,2]
    with torch.no_grad():
        return Scan(tried, view.maps(tried, view.all_draws(draws), CELL))


def scattered(image: Tensor, count: int, k: int, generator: torch.Generator, trials: int = 8) -> Tensor:
    """Random sets ``[count,k,2]`` whose positions keep away from each other: the best of some trials."""
    pool = 0.04 + 0.92 * torch.rand(trials, count, k, 2, generator=generator).to(image.device)
    apart = distances(pool[:, :, :, None], pool[:, :, None], image)
    apart = apart + 1e6 * torch.eye(k, device=image.device)
    best = apart.amin((2, 3)).argmax(0)  # [count]
    return pool[best, torch.arange(count, device=image.device)]


def _apart(places: Tensor, gains: Tensor, image: Tensor, keep: int, least: float = 5.0) -> Proposals:
    """The most promising places that lie at least so many pixels apart."""
    chosen: list[int] = []
    for index in gains.argsort(descending=True).tolist():
        near = chosen and float(distances(places[chosen], places[index], image).min()) < least
        if not near:
            chosen.append(index)
        if len(chosen) == keep:
            break
    return Proposals(places[chosen], gains[chosen])


def starting_sets(
    proposals: Proposals, image: Tensor, k: int, count: int, generator: torch.Generator
) -> Tensor:
    """Sets ``[count,k,2]`` to descend from: the best proposals, other mixtures of them, random ones."""
    starts = scattered(image, count, k, generator)
    m = len(proposals.places)
    if m < k:
        return starts
    starts[0] = proposals.places[:k]
    weights = torch.exp(-torch.arange(m, dtype=torch.float64) / k)
    for row in range(1, count - count // 4):
        index = torch.multinomial(weights, k, generator=generator)
        starts[row] = proposals.places[index.to(image.device)]
    return starts


def descend(
    view: SetView, starts: Tensor, generator: torch.Generator, *, steps: int, batch: int, rate: float
) -> Tensor:
    """Where AdamW ends from sets ``[R,K,2]``; all of them share the draws of a step.

    Args:
        view: The image.
        starts: ``[R,K,2]``.
        generator: Of the draws' order.
        steps: How many.
        batch: Draws a step.
        rate: First learning rate, in shares of the image; it falls to a tenth as a cosine does.
    """
    sets = starts.clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([sets], lr=rate, weight_decay=0.0, betas=(0.8, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps), eta_min=rate / 10)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.cat([order, torch.randperm(view.count, generator=generator)])
        picked, order = order[:batch].to(sets.device), order[batch:]
        with torch.enable_grad():
            (sets.grad,) = torch.autograd.grad(view.errors(sets, picked).mean(1).sum(), sets)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            sets.clamp_(0.0, 1.0)
    return sets.detach()


def exchange(
    view: SetView,
    best: Tensor,
    scanned: Scan,
    proposals: Proposals,
    *,
    draws: int,
    keep: int,
    finalists: int = 6,
) -> Tensor:
    """Sets that differ from ``best [K,2]`` in one position and promise less error, ``[F,K,2]``.

    Every position is moved to every free place that was proposed first, or that the scan explains
    better than ``best`` does.
    """
    with torch.no_grad():
        reference = view.maps(best[None], view.all_draws(draws), CELL)[0]
        missed = scanned.against(reference, view.image, keep).places
        places = torch.cat([proposals.places[:keep], missed])
        places = places[distances(places[:, None], best, view.image).amin(1) > 5.0]  # [M,2]
        k, m = len(best), len(places)
        if m == 0:
            return best[None][:0]
        moved = best.expand(k, m, k, 2).clone()
        each = torch.arange(k, device=best.device)
        moved[each, :, each] = places
        moved = moved.flatten(0, 1)
        errors = view.errors(moved, view.all_draws(draws)).mean(1)
    return moved[errors.argsort()[:finalists]]
