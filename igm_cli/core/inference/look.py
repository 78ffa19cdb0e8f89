"""One image under noise draws, as a denoiser sees it, and the contributions of concepts to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from igm_cli.core.denoiser import Denoiser
from igm_cli.core.device import inference_precision
from igm_cli.core.noise_schedule import Draws


@runtime_checkable
class Local(Protocol):
    """A denoiser whose contributions are zero but around their concepts: it lays pixels out its own way.

    Inner products do not depend on the order of pixels, and in this one contributions cost less.
    """

    def lay(self, image: Tensor) -> Tensor:
        """Pixels of images ``[N,C,H,W]`` in the denoiser's order ``[N,P]``."""
        ...

    def laid_contributions(self, features: Any, concepts: Tensor) -> Tensor:
        """Delta in this order.

        Args:
            features: Of N noised images.
            concepts: ``[1,M,D]``, shared by all images.

        Returns:
            ``[N,M,P]`` float32.
        """
        ...

    def products(self, features: Any, concepts: Tensor, laid: Tensor) -> tuple[Tensor, Tensor]:
        """<image,Delta_j> and <Delta_j,Delta_j>, both ``[N,M]``, precise enough to rank candidates.

        Args:
            features: Of N noised images.
            concepts: ``[1,M,D]``, shared by all images.
            laid: Images in this order ``[N,P]``.
        """
        ...


@dataclass
class Look:
    """One image under N draws, as the denoiser sees it: what every candidate's evidence shares.

    Attributes:
        features: Of the N noised images.
        residual: r = eps - eps_u ``[N,P]``, its pixels in the order of :func:`contributions`.
        importance: Weight of each draw ``[N]``.
    """

    features: Any
    residual: Tensor
    importance: Tensor

    def __len__(self) -> int:
        return int(self.residual.shape[0])


def importance_of(denoiser: Denoiser, t: Tensor, power: float) -> Tensor:
    """Weight of each draw: (sigma/alpha)^power.

    Power 0 is the paper's plain error of eps, power 2 the error of the clean image; both have the
    same minimiser for a perfect model, but not the same noise for an imperfect one.
    """
    schedule = denoiser.schedule
    return (schedule.sigma(t) / schedule.alpha(t)).pow(power)


def look(denoiser: Denoiser, image: Tensor, draws: Draws, power: float = 0.0) -> Look:
    """Passes an image ``[C,H,W]`` under N draws through what its concepts share."""
    device = image.device
    draws = draws.to(device)
    x_t = denoiser.schedule.add_noise(image[None], draws.noise, draws.t)
    with inference_precision(device):
        features = denoiser.features(x_t, draws.t)
        base = denoiser.base(features)
    residual = draws.noise - base.float()
    laid = denoiser.lay(residual) if isinstance(denoiser, Local) else residual.flatten(1)
    return Look(features, laid, importance_of(denoiser, draws.t, power))


def single_products(
    denoiser: Denoiser, seen: Look, candidates: Tensor, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """Expected <r,Delta_j> and <Delta_j,Delta_j> alone ``[M]``: enough to rank many candidates."""
    share = seen.importance / seen.importance.sum()
    linear, square = [], []
    for part in candidates.split(chunk):
        if isinstance(denoiser, Local):
            with inference_precision(part.device):
                b, a = denoiser.products(seen.features, part[None], seen.residual)
        else:
            delta = contributions(denoiser, seen, part)
            b, a = torch.einsum("nmp,np->nm", delta, seen.residual), delta.square().sum(2)
        linear.append(share @ b.float())
        square.append(share @ a.float())
    pixels = seen.residual.shape[1]
    return torch.cat(linear) / pixels, torch.cat(square) / pixels


def contributions(denoiser: Denoiser, seen: Look, concepts: Tensor) -> Tensor:
    """Delta ``[N,M,P]`` float32 of concepts ``[M,D]`` shared by all N draws; P = C*H*W."""
    if len(concepts) == 0:
        return seen.residual.new_zeros(len(seen), 0, seen.residual.shape[1])
    with inference_precision(concepts.device):
        if isinstance(denoiser, Local):
            return denoiser.laid_contributions(seen.features, concepts[None])
        return denoiser.contributions(seen.features, concepts[None]).float().flatten(2)
