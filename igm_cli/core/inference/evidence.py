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

import torch
from scipy.special import stdtr
from torch import Tensor

from igm_cli.core.composition import Composition, weight


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
        return float(stdtr(self.draws - 1, self.mean / self.stderr))


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
