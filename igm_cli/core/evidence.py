"""Evidence: the inner products from which the error of every hypothesis follows.

With residual r = eps - eps_u and contributions Delta_j, the error of a set S of concepts is

    ‖r - w sum_S Delta_j‖² = <r,r> - 2 w sum_S <r,Delta_j> + w² sum_{S,S} <Delta_i,Delta_j>

so M candidates cost M network calls and one Gram matrix per draw, and all subsets then cost none.
Everything is divided by the number of pixels C*H*W: errors are means over pixels, as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from scipy.stats import t as student
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
        """Weight of a contribution among K."""
        return float(weight(self.composition, torch.tensor(k)))

    def error(self, subsets: Tensor) -> Tensor:
        """Errors of subsets ``[...,K]`` of candidate indices, ``[...]``."""
        return _error(self.constant, self.linear, self.gram, subsets, self.w(subsets.shape[-1]))


def _error(constant: Tensor, linear: Tensor, gram: Tensor, subsets: Tensor, w: float) -> Tensor:
    """The quadratic form c - 2 w b(S) + w² A(S,S): many subsets of one, or one subset of many."""
    pull = linear[..., subsets].sum(-1)
    square = gram[..., subsets[..., :, None], subsets[..., None, :]].sum((-2, -1))
    return constant - 2 * w * pull + w * w * square


@dataclass(frozen=True)
class Evidence:
    """Inner products of M candidates under N shared draws, float32.

    Attributes:
        residual: <r,r> ``[N]``.
        linear: <r,Delta_j> ``[N,M]``.
        gram: <Delta_i,Delta_j> ``[N,M,M]``.
        composition: How contributions are composed.
        importance: Weight of each draw in the expectation ``[N]``.
    """

    residual: Tensor
    linear: Tensor
    gram: Tensor
    composition: Composition
    importance: Tensor

    def __len__(self) -> int:
        return int(self.residual.shape[0])

    def expected(self) -> Quadratic:
        """The average over draws, in double precision: a search adds up many small changes."""
        p = self.importance.double() / self.importance.double().sum()
        return Quadratic(
            (p * self.residual).sum(),
            p @ self.linear.double(),
            torch.einsum("n,nij->ij", p, self.gram.double()),
            self.composition,
        )

    def errors(self, subset: Sequence[int] | Tensor) -> Tensor:
        """Error of one subset under every draw ``[N]``."""
        index = torch.as_tensor(subset, dtype=torch.long, device=self.residual.device)
        w = float(weight(self.composition, torch.tensor(len(index))))
        return _error(self.residual, self.linear, self.gram, index, w)

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


@dataclass(frozen=True)
class Gap:
    """Difference of two hypotheses under N shared draws: mean, standard error, and N."""

    mean: float
    stderr: float
    draws: int

    def probability(self) -> float:
        """That the difference is above zero in expectation (Student's t)."""
        if self.stderr == 0 or self.draws < 2:
            return float(self.mean > 0)
        return float(student.cdf(self.mean / self.stderr, df=self.draws - 1))


def paired(first: Tensor, second: Tensor, importance: Tensor) -> Gap:
    """How much worse the first hypothesis is than the second, as a paired sample.

    The mean is sum w d / sum w; its standard error is that of a ratio estimate.

    Args:
        first: Errors under every draw ``[N]``.
        second: The same for the other hypothesis.
        importance: w ``[N]``.
    """
    d, w = (first - second).double(), importance.double()
    n, p = len(d), w / w.sum()
    mean = (p * d).sum()
    if n < 2:
        return Gap(float(mean), math.inf, n)
    return Gap(float(mean), float((p * (d - mean)).square().sum().mul(n / (n - 1)).sqrt()), n)


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


@runtime_checkable
class Ranking(Protocol):
    """A denoiser that offers inner products of single candidates for less than whole contributions."""

    def products(self, features: Any, concepts: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """<image,Delta_j> and <Delta_j,Delta_j>, both ``[N,M]``.

        Args:
            features: Of N noised images.
            concepts: ``[1,M,D]``, shared by all images.
            image: ``[N,C,H,W]``.
        """
        ...


def single_products(
    denoiser: Denoiser, seen: Look, candidates: Tensor, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """Expected <r,Delta_j> and <Delta_j,Delta_j> alone ``[M]``: enough to rank many candidates."""
    share = seen.importance / seen.importance.sum()
    linear, square = [], []
    for part in candidates.split(chunk):
        if isinstance(denoiser, Ranking):
            with inference_precision(part.device):
                b, a = denoiser.products(seen.features, part[None], seen.residual)
        else:
            delta = contributions(denoiser, seen, part)
            b, a = torch.einsum("nmp,np->nm", delta, seen.residual.flatten(1)), delta.square().sum(2)
        linear.append(share @ b.float())
        square.append(share @ a.float())
    pixels = seen.residual[0].numel()
    return torch.cat(linear) / pixels, torch.cat(square) / pixels


def contributions(denoiser: Denoiser, seen: Look, concepts: Tensor) -> Tensor:
    """Delta ``[N,M,C*H*W]`` float32 of concepts ``[M,D]`` shared by all N draws."""
    if len(concepts) == 0:
        return seen.residual.new_zeros(len(seen), 0, seen.residual[0].numel())
    with inference_precision(concepts.device):
        delta = denoiser.contributions(seen.features, concepts[None])
    return delta.float().flatten(2)


class Pool:
    """Candidates of one image under the draws of one look; grows without looking twice.

    Args:
        denoiser: The model.
        seen: The image under its draws.
        composition: How contributions add up.
        chunk: Candidates evaluated at once.
    """

    def __init__(self, denoiser: Denoiser, seen: Look, composition: Composition, chunk: int = 64) -> None:
        self.denoiser, self.seen, self.composition, self.chunk = denoiser, seen, composition, chunk
        n, pixels = len(seen), seen.residual[0].numel()
        self.pixels = pixels
        self.delta = seen.residual.new_zeros(n, 0, pixels)
        self.candidates: Tensor | None = None
        self.gram = seen.residual.new_zeros(n, 0, 0)

    def add(self, candidates: Tensor) -> None:
        """Takes further candidates ``[M,D]``; only their own inner products are computed."""
        new = torch.cat(
            [contributions(self.denoiser, self.seen, part) for part in candidates.split(self.chunk)], 1
        )
        across = torch.bmm(self.delta, new.transpose(1, 2)) / self.pixels  # [N,M_old,M_new]
        within = torch.bmm(new, new.transpose(1, 2)) / self.pixels
        below = torch.cat([across.transpose(1, 2), within], dim=2)
        self.gram = torch.cat([torch.cat([self.gram, across], dim=2), below], dim=1)
        self.delta = torch.cat([self.delta, new], dim=1)
        old = self.candidates
        self.candidates = candidates if old is None else torch.cat([old, candidates])

    def evidence(self) -> Evidence:
        """The evidence of all candidates taken so far, on the CPU, where it is searched."""
        residual = self.seen.residual.flatten(1)  # [N,P]
        return Evidence(
            (residual.square().sum(1) / self.pixels).cpu(),
            (torch.bmm(self.delta, residual[:, :, None])[:, :, 0] / self.pixels).cpu(),
            self.gram.cpu(),
            self.composition,
            self.seen.importance.cpu(),
        )


def gather(denoiser: Denoiser, seen: Look, candidates: Tensor, composition: Composition) -> Evidence:
    """The evidence of candidates ``[M,D]`` for what was seen.

    Args:
        denoiser: The model.
        seen: From :func:`look`.
        candidates: ``[M,D]``.
        composition: ``sum`` or ``mean``.
    """
    pool = Pool(denoiser, seen, composition)
    pool.add(candidates)
    return pool.evidence()
