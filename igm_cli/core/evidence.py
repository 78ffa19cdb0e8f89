"""Evidence: the inner products from which the error of every hypothesis follows.

With residual r = eps - eps_u and contributions Delta_j, the error of a set S of concepts is

    ‖r - w sum_S Delta_j‖² = <r,r> - 2 w sum_S <r,Delta_j> + w² sum_{S,S} <Delta_i,Delta_j>

so M candidates cost M network calls and one Gram matrix per draw, and all subsets then cost none.
Everything is divided by the number of pixels C*H*W: errors are means over pixels, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igm_cli.core.composition import Composition, weight
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.device import inference_precision
from igm_cli.core.schedule import Draws


@dataclass(frozen=True)
class Quadratic:
    """The expected error of a subset as a quadratic form: c - 2 w b(S) + w² A(S,S).

    Attributes:
        constant: c, error of the empty set, scalar.
        linear: b ``[M]``.
        gram: A ``[M,M]``.
        composition: Gives w(K).
    """

    constant: Tensor
    linear: Tensor
    gram: Tensor
    composition: Composition

    def w(self, k: int) -> float:
        """w(K)."""
        return float(weight(self.composition, torch.tensor(k)))

    def error(self, subsets: Tensor) -> Tensor:
        """Errors of subsets ``[...,K]`` of candidate indices, ``[...]``."""
        w = self.w(subsets.shape[-1])
        linear = self.linear[subsets].sum(-1)
        square = self.gram[subsets[..., :, None], subsets[..., None, :]].sum((-2, -1))
        return self.constant - 2 * w * linear + w * w * square


@dataclass(frozen=True)
class Evidence:
    """Inner products of M candidates under N shared draws, float32.

    Attributes:
        residual: <r,r> ``[N]``.
        linear: <r,Delta_j> ``[N,M]``.
        gram: <Delta_i,Delta_j> ``[N,M,M]``.
        composition: How contributions are composed.
        importance: Weight of each draw in the expectation ``[N]``, of mean 1.
    """

    residual: Tensor
    linear: Tensor
    gram: Tensor
    composition: Composition
    importance: Tensor

    def __len__(self) -> int:
        return int(self.residual.shape[0])

    def expected(self) -> Quadratic:
        """The average over draws."""
        p = self.importance / self.importance.sum()
        return Quadratic(
            (p * self.residual).sum(),
            p @ self.linear,
            torch.einsum("n,nij->ij", p, self.gram),
            self.composition,
        )

    def errors(self, subset: Sequence[int] | Tensor) -> Tensor:
        """Weighted error of one subset under every draw ``[N]``; their mean is the expected error."""
        index = torch.as_tensor(subset, dtype=torch.long, device=self.residual.device)
        w = float(weight(self.composition, torch.tensor(len(index))))
        linear = self.linear[:, index].sum(1)
        square = self.gram[:, index][:, :, index].sum((1, 2))
        errors = self.residual - 2 * w * linear + w * w * square
        return self.importance / self.importance.mean() * errors

    def select(self, index: Tensor) -> Evidence:
        """The evidence of some of the candidates."""
        return Evidence(
            self.residual,
            self.linear[:, index],
            self.gram[:, index][:, :, index],
            self.composition,
            self.importance,
        )

    def join(self, other: Evidence) -> Evidence:
        """The evidence of the same candidates under these draws and further ones."""
        return Evidence(
            torch.cat([self.residual, other.residual]),
            torch.cat([self.linear, other.linear]),
            torch.cat([self.gram, other.gram]),
            self.composition,
            torch.cat([self.importance, other.importance]),
        )


def paired(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Mean and standard error of the difference of two hypotheses under shared draws.

    Args:
        first: Errors under every draw ``[N]``.
        second: The same for the other hypothesis.
    """
    difference = (first - second).double()
    n = len(difference)
    error = float(difference.std() / n**0.5) if n > 1 else float("inf")
    return float(difference.mean()), error


@dataclass
class Look:
    """One image under N draws, as the denoiser sees it: what every candidate's evidence shares.

    Attributes:
        features: Of the N noised images.
        residual: r = eps - eps_u ``[N,C,H,W]``.
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
    return Look(features, draws.noise - base.float(), importance_of(denoiser, draws.t, power))


def contributions(denoiser: Denoiser, features: Any, concepts: Tensor, draws: int) -> Tensor:
    """Delta ``[N,M,C*H*W]`` float32 of concepts ``[M,D]`` shared by all N draws."""
    with inference_precision(concepts.device):
        delta = denoiser.contributions(features, concepts.expand(draws, *concepts.shape))
    return delta.float().flatten(2)


def gather(
    denoiser: Denoiser, seen: Look, candidates: Tensor, composition: Composition, chunk: int = 64
) -> Evidence:
    """The evidence of candidates ``[M,D]`` for what was seen.

    Args:
        denoiser: The model.
        seen: From :func:`look`.
        candidates: ``[M,D]``.
        composition: ``sum`` or ``mean``.
        chunk: Candidates evaluated at once.
    """
    n = len(seen)
    delta = torch.cat(
        [contributions(denoiser, seen.features, part, n) for part in candidates.split(chunk)], dim=1
    )
    residual = seen.residual.flatten(1)  # [N,P]
    pixels = residual.shape[1]
    return Evidence(
        residual.square().sum(1) / pixels,
        torch.einsum("nmp,np->nm", delta, residual) / pixels,
        torch.bmm(delta, delta.transpose(1, 2)) / pixels,
        composition,
        seen.importance,
    )


def gather_single(
    denoiser: Denoiser, seen: Look, candidates: Tensor, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """<r,Delta_j> and <Delta_j,Delta_j> alone, both ``[N,M]``: enough to rank many candidates."""
    residual = seen.residual.flatten(1)
    pixels = residual.shape[1]
    linear, square = [], []
    for part in candidates.split(chunk):
        delta = contributions(denoiser, seen.features, part, len(seen))
        linear.append(torch.einsum("nmp,np->nm", delta, residual) / pixels)
        square.append(delta.square().sum(2) / pixels)
    return torch.cat(linear, 1), torch.cat(square, 1)
