"""Evidence: the inner products from which the error of every hypothesis follows.

With residual r = eps - eps_u and contributions Delta_j, the error of a set S of concepts is

    ‖r - w sum_S Delta_j‖² = <r,r> - 2 w sum_S <r,Delta_j> + w² sum_{S,S} <Delta_i,Delta_j>

so M candidates cost M network calls and one Gram matrix per draw, and all subsets then cost none.
Everything is divided by the number of pixels C*H*W: errors are means over pixels, as in the paper.
"""

from __future__ import annotations

import functools
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


class Seen:
    """Inner products of candidates under the draws of one look."""

    def __init__(self, seen: Look) -> None:
        self.look = seen
        self.delta: list[Tensor] = []  # [N,m,P] each
        n = len(seen)
        self.linear = seen.residual.new_zeros(n, 0)
        self.gram = seen.residual.new_zeros(n, 0, 0)

    def add(self, new: Tensor) -> None:
        """Takes the contributions of further candidates ``[N,m,P]``."""
        self.delta.append(new)
        pixels = new.shape[2]
        linear = torch.bmm(new, self.look.residual[:, :, None])[:, :, 0] / pixels
        rows = torch.cat([torch.bmm(new, old.mT) for old in self.delta], dim=2) / pixels  # [N,m,M+m]
        held = self.gram.shape[1]
        self.gram = torch.cat([torch.cat([self.gram, rows[:, :, :held].mT], dim=2), rows], dim=1)
        self.linear = torch.cat([self.linear, linear], dim=1)

    def select(self, index: Tensor) -> Seen:
        """Of some of the candidates, in their order."""
        some, first = Seen(self.look), 0
        for part in self.delta:
            after = first + part.shape[1]
            some.delta.append(part[:, index[(index >= first) & (index < after)] - first])
            first = after
        some.linear, some.gram = self.linear[:, index], self.gram[:, index][:, :, index]
        return some


class Pool:
    """Candidates of one image under the draws of some looks; grows without looking twice.

    Args:
        denoiser: The model.
        seen: The image under its first draws.
        composition: How contributions add up.
        chunk: Candidates evaluated at once.
    """

    def __init__(self, denoiser: Denoiser, seen: Look, composition: Composition, chunk: int = 64) -> None:
        self.denoiser, self.composition, self.chunk = denoiser, composition, chunk
        self.parts = [Seen(seen)]
        self.candidates = seen.residual.new_zeros(0, denoiser.space.dim)

    def add(self, candidates: Tensor) -> None:
        """Takes further candidates ``[M,D]``; only their own inner products are computed."""
        for seen in self.parts:
            self._evaluate(seen, candidates)
        self.candidates = torch.cat([self.candidates, candidates])

    def see(self, look: Look) -> None:
        """Takes further draws for all candidates."""
        self.parts.append(Seen(look))
        self._evaluate(self.parts[-1], self.candidates)

    def _evaluate(self, seen: Seen, candidates: Tensor) -> None:
        for part in candidates.split(self.chunk):
            seen.add(contributions(self.denoiser, seen.look, part))

    def select(self, index: Tensor) -> Pool:
        """Some of the candidates under the same draws."""
        pool = Pool(self.denoiser, self.parts[0].look, self.composition, self.chunk)
        pool.parts = [part.select(index) for part in self.parts]
        pool.candidates = self.candidates[index]
        return pool

    def __len__(self) -> int:
        """Number of draws."""
        return sum(len(part.look) for part in self.parts)

    def evidence(self) -> Evidence:
        """The evidence of all candidates taken so far, on the CPU, where it is searched."""
        each = (
            Evidence(
                part.look.residual.square().mean(1).cpu(),
                part.linear.cpu(),
                part.gram.cpu(),
                self.composition,
                part.look.importance.cpu(),
            )
            for part in self.parts
        )
        return functools.reduce(Evidence.join, each)


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
