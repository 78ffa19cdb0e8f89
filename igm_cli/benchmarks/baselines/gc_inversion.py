"""Inverts a model of whole sets: argmin_C E_{t,eps} ‖eps - eps_theta(x_t, t | C)‖².

IGM (Wang et al. 2025, Algorithm 3) for its baseline GC: R starts, descent, and the end with the least error; an unknown
K is the one whose best set has the least error.  From random starts, a few hundred evaluations do not get far.  So the
starts come from the effect of random sets on the error around each of their positions, and the ends are improved by
moving single positions elsewhere and by Gauss-Newton steps.  The figures thus show the model, not a short search.
Sets are compared only by their total error, so none of this requires the model to be compositional.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from igm_cli.benchmarks.baselines.gc_network import SetDenoiser
from igm_cli.core.device import inference_precision
from igm_cli.core.noise_schedule import draw

CHUNK = 32  # evaluations per batch, so that residuals stay in the cache
CELL = 4  # side in pixels of the cells in which random sets are compared
SCAN_DRAWS = 2  # draws for comparing random and changed sets
APART = 5.0  # minimum distance of two proposed places in pixels
PROPOSALS = 16  # proposed places
ROUNDS = 4  # rounds in which positions are moved elsewhere
MOVES, FINALISTS = 10, 6  # places tried from either source, and sets that then descend
RATE = 0.03  # first learning rate of descent, as a fraction of the image
POLISH_STEPS, POLISH_DRAWS = 2, 4
STEP, REACH = 0.005, 0.03  # half the width of differences, and the longest move, as fractions of the image


@dataclass(frozen=True)
class SetSettings:
    """Settings of the inversion."""

    low: float = 0.02  # least timestep, as a fraction of T
    high: float = 0.35  # greatest timestep
    draws: int = 16  # N, shared by all hypotheses
    scan_sets: int = 64  # random sets from which places are proposed
    restarts: int = 8  # R
    steps: int = 24  # of descent from each start, each under one draw
    seed: int = 0  # of everything random


@dataclass(frozen=True)
class SetInversion:
    """The result for one image."""

    concepts: Tensor  # [K,2] on the CPU
    error: float  # mean squared error of eps under them
    seconds: float
    passes: int  # evaluations of the trunk and of the set head; one with gradients counts once


def invert_set(model: SetDenoiser, image: Tensor, sizes: Iterable[int], settings: SetSettings) -> SetInversion:
    """Finds the set of positions with the least error in an image ``[C,H,W]`` in -1..1.

    Each of the sizes K is searched as if it were given.  It is faster if the model's parameters are frozen.
    """
    began = time.monotonic()
    search = _Search(model, image, settings)
    concepts, error = min((search.run(k) for k in sizes), key=lambda end: end[1])
    return SetInversion(concepts.float().cpu(), error, time.monotonic() - began, search.passes)


class _Search:
    """Searches for sets in one image under N noise draws shared by all hypotheses."""

    def __init__(self, model: SetDenoiser, image: Tensor, settings: SetSettings) -> None:
        self.model, self.image, self.settings = model, image, settings
        s, schedule = settings, model.schedule
        draws = draw(schedule, tuple(image.shape), s.draws, low=s.low, high=s.high, seed=s.seed)
        draws = draws.to(image.device)
        self.noise, self.every = draws.noise, torch.arange(s.draws, device=image.device)
        with torch.no_grad(), inference_precision(image.device):
            self.features = model.features(schedule.add_noise(image[None], draws.noise, draws.t), draws.t)
        self.passes = s.draws

    def run(self, k: int) -> tuple[Tensor, float]:
        """Returns the best set ``[K,2]`` and its error."""
        if k == 0:
            return self._best(self.image.new_zeros(1, 0, 2))
        s, self.generator = self.settings, torch.Generator().manual_seed(self.settings.seed)
        tried = self._scattered(s.scan_sets, k)  # [S,K,2]
        maps = self._maps(tried)
        places = self._promising(tried, maps, maps.median(dim=0).values, PROPOSALS)
        starts = self._starts(places, k)
        best, error = self._best(torch.cat([self._descend(starts, s.steps, RATE), starts[:1]]))
        for _ in range(ROUNDS):
            missed = self._promising(tried, maps, self._maps(best[None])[0], MOVES)
            moved = self._moved(best, torch.cat([places[:MOVES], missed]))
            if len(moved) == 0:
                break
            # A moved position only helps after it and its neighbours have also descended.
            other, other_error = self._best(self._descend(moved, s.steps // 2, RATE / 2))
            if other_error >= error:
                break
            best, error = other, other_error
        return min((best, error), self._best(self._polished(best)[None]), key=lambda end: end[1])

    def _residuals(self, sets: Tensor, draws: Tensor) -> Iterator[Tensor]:
        """Yields eps - eps_theta(x_t, t | C) ``[p,m,C,H,W]`` of parts of sets ``[P,K,2]`` under draws ``[m]``."""
        self.passes += len(sets) * len(draws)
        for part in sets.split(max(1, CHUNK // len(draws))):
            index = draws.repeat(len(part))
            features = type(self.features)._make(value[index] for value in self.features)
            with inference_precision(sets.device):
                epsilon = self.model.epsilon(features, part.repeat_interleave(len(draws), dim=0))
            yield (self.noise[index] - epsilon).unflatten(0, (len(part), len(draws)))

    def _errors(self, sets: Tensor, draws: Tensor) -> Tensor:
        """Returns errors ``[P]`` of sets ``[P,K,2]``, averaged over draws ``[m]``."""
        return torch.cat([r.square().mean((2, 3, 4)) for r in self._residuals(sets, draws)]).mean(1)

    @torch.no_grad()
    def _best(self, sets: Tensor) -> tuple[Tensor, float]:
        """Returns the set with the least error under all draws; the first of equals."""
        errors = self._errors(sets, self.every)
        least = int(errors.argmin())
        return sets[least], float(errors[least])

    @torch.no_grad()
    def _maps(self, sets: Tensor) -> Tensor:
        """Returns the squared residuals of sets ``[P,K,2]`` per cell, ``[P,H/CELL,W/CELL]``."""
        squares = [r.square().mean((1, 2)) for r in self._residuals(sets, self.every[:SCAN_DRAWS])]
        return torch.cat([F.avg_pool2d(square[:, None], CELL)[:, 0] for square in squares])

    def _distances(self, a: Tensor, b: Tensor) -> Tensor:
        """Returns the distances in pixels between positions ``[...,2]``; a and b broadcast."""
        height, width = self.image.shape[1:]
        return torch.as_tensor(((a - b) * a.new_tensor([width, height])).norm(dim=-1))

    def _scattered(self, count: int, k: int, trials: int = 8) -> Tensor:
        """Returns random sets ``[count,k,2]``, each the one of some trials whose positions lie farthest apart."""
        pool = torch.rand(trials, count, k, 2, generator=self.generator).to(self.image.device) * 0.92 + 0.04
        apart = self._distances(pool[:, :, :, None], pool[:, :, None])
        apart = apart + 1e6 * torch.eye(k, device=self.image.device)
        best = apart.amin((2, 3)).argmax(0)  # [count]
        return pool[best, torch.arange(count, device=self.image.device)]

    def _promising(self, tried: Tensor, maps: Tensor, reference: Tensor, keep: int) -> Tensor:
        """Returns places of sets ``[S,K,2]`` near which their maps ``[S,h,w]`` lie furthest below ``reference [h,w]``."""
        height, width = reference.shape
        ys, xs = (torch.arange(n, device=reference.device) + 0.5 for n in (height, width))
        at = tried * tried.new_tensor([width, height])
        square = (at[..., 0, None, None] - xs).square() + (at[..., 1, None, None] - ys[:, None]).square()
        gains = (torch.exp(-square / 8) * (reference - maps)[:, None]).sum((2, 3)).flatten()  # [S*K]
        places, chosen = tried.flatten(0, 1), list[int]()
        for index in gains.argsort(descending=True).tolist():
            if not chosen or float(self._distances(places[chosen], places[index]).min()) >= APART:
                chosen.append(index)
            if len(chosen) == keep:
                break
        return places[chosen]

    def _starts(self, places: Tensor, k: int) -> Tensor:
        """Returns sets ``[R,k,2]`` to descend from: the best places, other mixtures of them, random ones."""
        count, m = self.settings.restarts, len(places)
        starts = self._scattered(count, k)
        if m >= k:
            starts[0] = places[:k]
            weights = torch.exp(-torch.arange(m, dtype=torch.float64) / k)
            for row in range(1, count - count // 4):
                starts[row] = places[torch.multinomial(weights, k, generator=self.generator).to(places.device)]
        return starts

    def _descend(self, starts: Tensor, steps: int, rate: float) -> Tensor:
        """Returns the ends of AdamW from sets ``[R,K,2]``, with one draw per step shared by all.

        The learning rate falls to a tenth by a cosine schedule.
        """
        sets = starts.clone().requires_grad_(True)
        optimizer = torch.optim.AdamW([sets], lr=rate, weight_decay=0.0, betas=(0.8, 0.95))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps), eta_min=rate / 10)
        order: list[int] = []
        while len(order) < steps:
            order += torch.randperm(len(self.every), generator=self.generator).tolist()
        for number in order[:steps]:
            with torch.enable_grad():
                loss = self._errors(sets, self.every[number : number + 1]).sum()
                (sets.grad,) = torch.autograd.grad(loss, sets)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                sets.clamp_(0.0, 1.0)
        return sets.detach()

    @torch.no_grad()
    def _moved(self, best: Tensor, places: Tensor) -> Tensor:
        """Returns the best sets ``[F,K,2]`` with one position of ``best [K,2]`` moved to a free place."""
        places = places[self._distances(places[:, None], best).amin(1) > APART]  # [M,2]
        k, m = len(best), len(places)
        moved, each = best.expand(k, m, k, 2).clone(), torch.arange(k, device=best.device)
        moved[each, :, each] = places
        moved = moved.flatten(0, 1)
        return moved[self._errors(moved, self.every[:SCAN_DRAWS]).argsort()[:FINALISTS]] if m else moved

    @torch.no_grad()
    def _polished(self, concepts: Tensor) -> Tensor:
        """Returns one set ``[K,2]`` after Gauss-Newton steps with Levenberg-Marquardt damping (Marquardt 1963).

        The error is a sum of squares; derivatives are central differences.
        """

        def residuals(sets: Tensor) -> Tensor:
            parts = self._residuals(sets, self.every[:POLISH_DRAWS])
            return torch.cat([part.flatten(1).double() for part in parts])

        damping, left = 1e-2, residuals(concepts[None])[0]  # [P]
        shift = STEP * torch.eye(concepts.numel(), device=concepts.device).view(-1, *concepts.shape)
        for _ in range(POLISH_STEPS):
            slopes = (residuals(concepts + shift) - residuals(concepts - shift)) / (2 * STEP)  # [2K,P]
            curvature = slopes @ slopes.T
            damped = curvature + damping * torch.diag(curvature.diagonal() + 1e-9)
            move = -torch.linalg.solve(damped, slopes @ left).view_as(concepts).clamp(-REACH, REACH)
            trial = (concepts + move.to(concepts)).clamp(0.0, 1.0)
            trial_left = residuals(trial[None])[0]
            if float(trial_left.square().sum()) < float(left.square().sum()):
                concepts, left, damping = trial, trial_left, damping / 4
            else:
                damping *= 16
        return concepts
