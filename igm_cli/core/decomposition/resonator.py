"""The resonator network (Frady et al. 2020) and its attention-based kin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.iteration import State, both_ways, unbound


@dataclass(frozen=True)
class Resonator:
    """``x_k ← f(W_k (y ⊙ conj(⊙_{j≠k} x_j)))``, one factor after the other; f is the sign, or the phase of complex numbers.

    Attributes:
        weights: ``ols`` projects on the codebook's span, ``W = X (XᵀX)⁻¹ Xᵀ``; ``outer`` is ``W = X Xᵀ``.
    """

    weights: Literal["ols", "outer"] = "ols"

    def start(self, codebooks: Codebooks, spectra: Tensor, generator: torch.Generator) -> State:
        """All codewords at once."""
        return all_codewords(codebooks, len(spectra))

    def step(
        self, codebooks: Codebooks, spectra: Tensor, state: State, number: int, generator: torch.Generator
    ) -> tuple[State, list[Tensor]]:
        """Updates every factor once, each with the newest of the others."""
        estimates, beliefs = list(state), []
        for factor in range(len(estimates)):
            scores = codebooks.scores(factor, unbound(spectra, estimates, factor))
            weights = scores @ codebooks.inverse_gram(factor) if self.weights == "ols" else scores
            estimates[factor] = phase(codebooks.combine(factor, weights))
            # the signs of two factors may both be turned: it is the modulus that tells
            beliefs.append(codebooks.scores(factor, estimates[factor]).abs())
        return estimates, beliefs

    def operations(self, codebooks: Codebooks) -> float:
        """Of both products with the codebooks, of reading the estimate, and of OLS with the inverse Gram matrix."""
        gram = sum(2.0 * n * n for n in codebooks.sizes) if self.weights == "ols" else 0.0
        return 1.5 * both_ways(codebooks) + gram


@dataclass(frozen=True)
class AttentionResonator:
    """``x_k ← X_k softmax(β X_kᵀ (y ⊙ conj(⊙_{j≠k} x_j)))`` for all factors at once.

    Attributes:
        beta: Inverse temperature.
        sequential: Whether a factor sees the newest estimates of those before it.
        relative: Whether the others' product is taken at a size of one, so that β means the same whether the estimates
            are sharp or not.
    """

    beta: float = 0.037
    sequential: bool = False
    relative: bool = True

    def start(self, codebooks: Codebooks, spectra: Tensor, generator: torch.Generator) -> State:
        """The codebooks' means."""
        return [book.mean(0).expand(len(spectra), -1) for book in codebooks.spectra]

    def step(
        self, codebooks: Codebooks, spectra: Tensor, state: State, number: int, generator: torch.Generator
    ) -> tuple[State, list[Tensor]]:
        """Updates every factor once."""
        estimates, beliefs = list(state), []
        for factor in range(len(estimates)):
            seen = unbound(spectra, estimates if self.sequential else state, factor)
            if self.relative:
                seen = seen / size(codebooks, seen)
            scores = self.beta * codebooks.scores(factor, seen)
            beliefs.append(torch.softmax(scores, 1))
            estimates[factor] = codebooks.combine(factor, beliefs[-1])
        return estimates, beliefs

    def operations(self, codebooks: Codebooks) -> float:
        """Of both products with the codebooks."""
        return both_ways(codebooks)


def size(codebooks: Codebooks, spectra: Tensor) -> Tensor:
    """Root mean square of the coordinates of spectra ``[B,F]``, ``[B,1]``, not zero."""
    square = (codebooks.weights * spectra.abs().square()).sum(-1, keepdim=True) / codebooks.weights.sum()
    return square.sqrt().clamp_min(1e-12)


def all_codewords(codebooks: Codebooks, rows: int) -> State:
    """Signs, or phases, of the sum of all codewords of every factor ``[B,F]``: as likely one as another."""
    return [phase(book.sum(0)).expand(rows, -1) for book in codebooks.spectra]


def phase(spectra: Tensor) -> Tensor:
    """Modulus one: signs of real numbers, +1 for zero, phases of complex ones."""
    if torch.is_complex(spectra):
        return torch.polar(torch.ones_like(spectra.real), spectra.angle())
    return torch.where(spectra < 0, -1.0, 1.0)
