"""Noised images as a denoiser sees them, which the statistics of all candidates share."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from igm_cli.core.concepts import ConceptSpace
from igm_cli.core.device import floats_at_once, inference_precision, side_by_side
from igm_cli.core.inference.windows import Local, Windows
from igm_cli.core.noise_schedule import Draws, Schedule

if TYPE_CHECKING:
    from igm_cli.core.denoiser import Denoiser

CANDIDATES_AT_ONCE = 64
CONCEPTS_AT_ONCE = 12
"""Concepts that pass the network together, when they are only ranked and otherwise; a CPU's cores share these parts.

If points have values, these numbers count points: the values of a point share most of the work and stay together.
"""

WIDTH = 64
"""Values that a whole network holds at once, per value of an image; a rough bound of its memory."""


@runtime_checkable
class Whole(Protocol):
    """A denoiser with whole predictions under single concepts, which need no call for the prediction under none."""

    def predictions(self, features: Any, concepts: Tensor) -> Tensor:
        """Returns eps_theta(x_t, t | c_j), ``[R,M,C,H,W]`` float32, of concepts ``[1,M,D]`` or ``[R,M,D]``."""
        ...


def predictions(denoiser: Denoiser, features: Any, concepts: Tensor) -> Tensor:
    """Returns eps_theta(x_t, t | c_j) ``[R,M,C,H,W]`` of any denoiser, for concepts ``[1,M,D]`` or ``[R,M,D]``."""
    if isinstance(denoiser, Whole):
        return denoiser.predictions(features, concepts)
    return denoiser.base(features)[:, None] + denoiser.contributions(features, concepts)


def precision_of(denoiser: Denoiser, device: torch.device) -> AbstractContextManager[object]:
    """Returns the precision context a denoiser computes in.

    A denoiser with whole predictions, or with weights that are not float32, sets its own precision.
    """
    settled = isinstance(denoiser, Whole) or getattr(denoiser, "dtype", torch.float32) != torch.float32
    return nullcontext() if settled else inference_precision(device)


def values_of_a_point(space: ConceptSpace) -> int:
    """Returns how many values a point has over all factors; 1 if it has none."""
    return max(1, sum(map(len, space.variant_groups())))


def importance_of(schedule: Schedule, t: Tensor, power: float) -> Tensor:
    """Returns the weight (sigma/alpha)^power of noise samples at timesteps ``[N]``.

    Power 0 is the paper's plain error of eps, power 2 the error of the clean image; both have the same minimiser for a
    perfect model, but not the same noise for an imperfect one.
    """
    return (schedule.sigma(t) / schedule.alpha(t)).pow(power)


@dataclass
class NoisedBatch:
    """b images under n noise samples, as the denoiser sees them.

    Attributes:
        denoiser: The model.
        features: Features of the n*b noised images.
        residual: r = eps - eps_u, cell after cell ``[n,b,G,c]``.
        importance: Weight of each noise sample ``[n]``.
        shared: Delta ``[n*b,M,C,H,W]`` of all candidates, if their mean prediction stands for eps_u; see
            :func:`noised`.
    """

    denoiser: Denoiser
    features: Any
    residual: Tensor
    importance: Tensor
    shared: Tensor | None = None

    def contributions(self, concepts: Tensor, around: Tensor | None = None) -> Windows:
        """Returns Delta of concepts ``[b,M,D]``, in windows around these or around others nearby ``[b,M,D]``."""
        n, b = self.residual.shape[:2]
        if isinstance(self.denoiser, Local):
            at_once = max(1, concepts.shape[1])
            if concepts.device.type == "cpu":
                at_once = CONCEPTS_AT_ONCE * values_of_a_point(self.denoiser.space)
            parts = [slice(first, first + at_once) for first in range(0, max(1, concepts.shape[1]), at_once)]
            return Windows.joined(side_by_side(lambda some: self._windows(concepts, around, some), parts))
        with precision_of(self.denoiser, concepts.device):
            rows = concepts if b == 1 else concepts.repeat(n, 1, 1)
            if self.shared is not None:
                delta = self.shared
            else:
                parts = rows.split(self._concepts_at_once(rows), dim=1)
                every = [self.denoiser.contributions(self.features, part) for part in parts]
                delta = every[0] if len(every) == 1 else torch.cat(every, dim=1)
        cells = torch.zeros(b, delta.shape[1], 1, dtype=torch.long, device=delta.device)
        return Windows(delta.float().flatten(2).unflatten(0, (n, b))[..., None, :], cells, (1, 1))

    def _concepts_at_once(self, concepts: Tensor) -> int:
        """Returns how many of the concepts ``[R,M,D]`` pass the network together; as many as fit, if each is a whole pass."""
        from igm_cli.core.denoiser import InputFeatures

        if isinstance(self.features, InputFeatures) and not isinstance(self.denoiser, Whole):
            return max(1, floats_at_once(concepts.device) // (WIDTH * self.residual.numel()))
        return max(1, concepts.shape[1])

    def _windows(self, concepts: Tensor, around: Tensor | None, some: slice) -> Windows:
        denoiser = cast(Local, self.denoiser)
        near = None if around is None else around[:, some]
        with precision_of(self.denoiser, concepts.device):
            return Windows(
                *denoiser.windows(self.features, concepts[:, some], near), denoiser.grid(self.features)
            )

    def explained(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Returns <r,Delta_j> and <Delta_j,Delta_j> ``[b,M]`` of concepts ``[M,D]``, sums over noise by importance."""
        n, b = self.residual.shape[:2]

        def sums(part: Tensor) -> tuple[Tensor, ...]:
            if isinstance(self.denoiser, Local):
                with precision_of(self.denoiser, part.device):
                    both = self.denoiser.products(self.features, part[None], self.residual.flatten(0, 1))
                both = both[0].float().unflatten(0, (n, b)), both[1].float().unflatten(0, (n, b))
            else:
                delta = self.contributions(part.expand(b, -1, -1))
                both = delta.pull(self.residual), delta.values.square().sum((3, 4))
            return tuple(torch.einsum("n,nbm->bm", self.importance, each) for each in both)

        at_once = CANDIDATES_AT_ONCE * values_of_a_point(self.denoiser.space)
        found = side_by_side(sums, candidates.split(at_once))
        return torch.cat([pull for pull, _ in found], dim=1), torch.cat([square for _, square in found], dim=1)

    def left_over(self, concepts: Tensor, weight: Tensor) -> NoisedBatch:
        """Returns the images less the contributions of concepts ``[b,K,D]``, each by its weight ``[b,K]``."""
        if concepts.shape[1] == 0:
            return self
        left = self.contributions(concepts).added_to(self.residual, -weight)
        return NoisedBatch(self.denoiser, self.features, left, self.importance)


def noised(
    denoiser: Denoiser, images: Tensor, draws: Draws, power: float, shared: Tensor | None = None
) -> NoisedBatch:
    """Passes noised images through the part of the network that all concepts share.

    Under the mean composition the prediction under no concept cancels,

        eps_u + 1/K sum_S (eps_j - eps_u) = 1/K sum_S eps_j,

    so any stand-in may be used.  Where whole predictions need no call for eps_u, it is the mean over the candidates,
    which keeps the inner products small, and rounding with them.

    Args:
        denoiser: The model.
        images: Images that each noise sample is added to ``[n,b,C,H,W]``.
        draws: n noise samples, shared by the images.
        power: A noise sample is weighted by (sigma/alpha)^power.
        shared: All candidates ``[1,M,D]``, the same for all images, whose mean prediction stands for eps_u; None for
            eps_u itself.
    """
    n, b = images.shape[:2]
    noise = draws.noise[:, None].expand_as(images).flatten(0, 1)
    t = draws.t[:, None].expand(n, b).flatten()
    with precision_of(denoiser, images.device):
        features = denoiser.features(denoiser.schedule.add_noise(images.flatten(0, 1), noise, t), t)
        if shared is None:
            base, delta = denoiser.base(features), None
        else:
            whole = predictions(denoiser, features, shared)
            base = whole.mean(1)
            delta = whole - base[:, None]
    residual = noise - base.float()
    patches = denoiser.to_patches(residual) if isinstance(denoiser, Local) else residual.flatten(1)[:, None]
    importance = importance_of(denoiser.schedule, draws.t, power)
    return NoisedBatch(denoiser, features, patches.unflatten(0, (n, b)), importance, delta)
