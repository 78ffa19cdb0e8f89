"""The quadratic form: inner products from which the error of every hypothesis follows.

With residual r = eps - eps_u and contributions Delta_j, the error of a set S of concepts is

    ‖r - w sum_S Delta_j‖² = <r,r> - 2 w sum_S <r,Delta_j> + w² sum_{S,S} <Delta_i,Delta_j>

so M candidates cost M network calls and one Gram matrix per noise sample, and all subsets then cost none.  Everything
is divided by the number of pixels C*H*W: errors are means over pixels, as in the paper.  All of it is computed for a
batch of B images at once, which share their noise samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from scipy.special import stdtr
from torch import Tensor

from igm_cli.core.composition import Composition, weight


@dataclass(frozen=True)
class QuadraticForm:
    """The expected error of sets of candidates: c - 2 w b(S) + w² A(S,S), in double precision.

    Attributes:
        constant: Error of the empty set, c ``[B]``.
        linear: b ``[B,M]``.
        gram: A ``[B,M,M]``.
        usable: Which candidates may be chosen ``[B,M]``.
        composition: Gives w(K).
    """

    constant: Tensor
    linear: Tensor
    gram: Tensor
    usable: Tensor
    composition: Composition

    @property
    def diagonal(self) -> Tensor:
        """<Delta_j,Delta_j> ``[B,M]``."""
        return self.gram.diagonal(dim1=1, dim2=2)

    def to(self, device: torch.device) -> QuadraticForm:
        """Returns the same on a device."""
        constant, linear = self.constant.to(device), self.linear.to(device)
        return QuadraticForm(constant, linear, self.gram.to(device), self.usable.to(device), self.composition)

    def w(self, k: int) -> float:
        """Returns the weight of one of K contributions."""
        return float(weight(self.composition, torch.tensor(k)))

    def error(self, sets: Tensor) -> Tensor:
        """Returns the errors ``[B,S]`` of sets ``[B,S,K]`` of candidate indices; -1 stands for no candidate."""
        one = (self.constant[:, None], self.linear[:, None], self.gram[:, None])
        return _errors(*one, self.composition, sets)[..., 0]

    def mean(self) -> QuadraticForm:
        """Returns the form of the mean error over the images, as that of a single image."""
        constant, linear, gram = (x.mean(0, keepdim=True) for x in (self.constant, self.linear, self.gram))
        return QuadraticForm(constant, linear, gram, self.usable.all(0, keepdim=True), self.composition)

    def given(self, held: Sequence[int], k: int) -> QuadraticForm:
        """Returns the form over what is added to the held candidates, in sets of K in all.

        Its error of a set R is that of ``held`` and R together; its inner products include w(K).
        """
        index = torch.tensor(list(held), dtype=torch.long, device=self.linear.device)
        w, rows = self.w(k), self.gram[:, index]  # [B,H,M]
        within = rows[:, :, index].sum((1, 2))
        constant = self.constant - 2 * w * self.linear[:, index].sum(1) + w * w * within
        linear, usable = w * self.linear - w * w * rows.sum(1), self.usable.clone()
        usable[:, index] = False
        return QuadraticForm(constant, linear, w * w * self.gram, usable, "sum")

    def without(self, candidates: Tensor) -> QuadraticForm:
        """Returns the form in which one candidate of each image ``[B]`` may not be chosen (-1: all may)."""
        usable = self.usable.clone()
        rows = (candidates >= 0).nonzero()[:, 0]
        usable[rows, candidates[rows]] = False
        return replace(self, usable=usable)


@dataclass(frozen=True)
class GramStatistics:
    """Inner products of M candidates of B images under N shared noise samples, float32.

    Attributes:
        residual: <r,r> ``[B,N]``.
        linear: <r,Delta_j> ``[B,N,M]``.
        gram: <Delta_i,Delta_j> ``[B,N,M,M]``.
        usable: Which candidates exist ``[B,M]``; images may differ in their number.
        composition: How contributions are composed.
        importance: Weight of each noise sample in the expectation ``[N]``.
    """

    residual: Tensor
    linear: Tensor
    gram: Tensor
    usable: Tensor
    composition: Composition
    importance: Tensor

    @property
    def draws(self) -> int:
        """N, the number of noise samples."""
        return int(self.residual.shape[1])

    @cached_property
    def expected(self) -> QuadraticForm:
        """The mean over noise samples, in double precision: a search adds up many small changes."""
        p = (self.importance.double() / self.importance.double().sum())[:, None]
        return QuadraticForm(
            (p[:, 0] * self.residual).sum(1),
            (p * self.linear).sum(1),
            (p[:, :, None] * self.gram).sum(1),
            self.usable,
            self.composition,
        )

    def errors(self, sets: Tensor) -> Tensor:
        """Returns the errors of sets ``[B,S,K]`` under every noise sample ``[B,S,N]``; -1 stands for no candidate."""
        return _errors(self.residual, self.linear, self.gram, self.composition, sets)

    def images(self, index: Tensor) -> GramStatistics:
        """Returns the statistics of some of the images, on the CPU."""
        tensors = (self.residual, self.linear, self.gram, self.usable)
        residual, linear, gram, usable = (tensor[index].cpu() for tensor in tensors)
        return GramStatistics(residual, linear, gram, usable, self.composition, self.importance.cpu())


def _errors(residual: Tensor, linear: Tensor, gram: Tensor, composition: Composition, sets: Tensor) -> Tensor:
    """Returns the errors ``[B,S,N]`` of sets ``[B,S,K]``, from the inner products of :class:`GramStatistics`."""
    there = sets >= 0
    w = weight(composition, there.sum(-1))[:, None].to(linear)  # [B,1,S]
    held = linear.new_zeros(*sets.shape[:2], linear.shape[2])
    held = held.scatter_add_(2, sets.clamp(min=0), there.to(linear))[:, None]  # [B,1,S,M]
    pull = (linear[:, :, None] * held).sum(3)  # [B,N,S]
    square = ((held @ gram) * held).sum(3)
    return (residual[..., None] - 2 * w * pull + w * w * square).mT


@dataclass(frozen=True)
class PairedDifference:
    """How much worse one hypothesis is than another under N shared noise samples.

    Shared noise makes differences paired samples (Clark & Jaini 2023).

    Attributes:
        mean: Mean difference ``[...]``, float64.
        stderr: Its standard error ``[...]``; infinite for a single noise sample.
        draws: N.
    """

    mean: Tensor
    stderr: Tensor
    draws: int

    @classmethod
    def of(cls, first: Tensor, second: Tensor, importance: Tensor) -> PairedDifference:
        """Compares the errors of hypotheses under every noise sample ``[...,N]``, weighted by importance w ``[N]``.

        The mean is sum w d / sum w; its standard error is that of a ratio estimate.
        """
        d, w = (first - second).double(), importance.double()
        n, p = d.shape[-1], w / w.sum()
        mean = (p * d).sum(-1)
        if n < 2:
            return cls(mean, torch.full_like(mean, math.inf), n)
        return cls(mean, ((p * (d - mean[..., None])).square().sum(-1) * (n / (n - 1))).sqrt(), n)

    def among(self, image: int, which: Sequence[int]) -> PairedDifference:
        """Returns the differences of some alternatives of one image ``[R]``."""
        return PairedDifference(self.mean[image, list(which)], self.stderr[image, list(which)], self.draws)

    def scaled(self, factor: float) -> PairedDifference:
        """Returns the same for errors ``factor`` times as large."""
        return PairedDifference(self.mean * factor, self.stderr * factor, self.draws)

    def to(self, device: torch.device) -> PairedDifference:
        """Returns the same on a device."""
        return PairedDifference(self.mean.to(device), self.stderr.to(device), self.draws)

    def probability(self) -> Tensor:
        """Returns the probability that the expected difference is above zero (Student's t) ``[...]``.

        A single noise sample says nothing of it.
        """
        if self.draws < 2:
            return torch.full_like(self.mean, 0.5)
        t = self.mean / self.stderr.clamp(min=1e-300)
        sure = torch.as_tensor(stdtr(self.draws - 1, t.numpy()))
        return torch.where(self.stderr == 0, (self.mean > 0).double(), sure)

    def at_least(self, standard_errors: float) -> Tensor:
        """Returns whether the difference is at least this many standard errors above zero ``[...]``."""
        return self.mean >= standard_errors * self.stderr


def gathered(rows: Tensor, index: Tensor) -> Tensor:
    """Returns rows ``[b,m,D]`` of each image's ``[b,M,D]``, by index ``[b,m]``."""
    return rows.gather(1, index.to(rows.device)[..., None].expand(-1, -1, rows.shape[2]))
