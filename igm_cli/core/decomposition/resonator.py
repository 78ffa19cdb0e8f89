"""The iterative methods: their common loop, and resonator networks with their relatives.

The networks read each factor's estimate from the vector after unbinding the other estimates:

    x_k ← f(X_k g(X_kᵀ (y ⊙ conj(⊙_{j≠k} x_j))))

    resonator    g(s) = (XᵀX)⁻¹ s, or s                 f = sign, or phase     Frady et al. 2020
    factorizer   g(s) = [s + noise]_{≥ threshold}       f = sign, or phase     Langenegger et al. 2023
    attention    g(s) = softmax(β s)                    f(x) = x               a limit of coupled diffusion
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import Literal, TypeAlias

import torch
from torch import Generator, Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.result import Decomposition, SearchState, decided
from igm_cli.core.device import to_device

State: TypeAlias = list[Tensor]  # tensors with one row per problem
Step: TypeAlias = tuple[State, list[Tensor]]
"""The next state, and the belief in each codeword ``[B,n_k]`` per factor."""

CHECKED_EVERY = 8
"""Iterations between checks on a device, where a check makes the host wait; on the CPU every iteration is checked."""

Estimate: TypeAlias = tuple[Tensor, Tensor]
"""A factor's estimate x_k ``[B,F]``, and the belief in each codeword ``[B,n_k]``."""


class Dynamics(ABC):
    """An iterative method, which improves estimates of all factors step by step."""

    @abstractmethod
    def start(self, codebooks: Codebooks, spectra: Tensor, generator: Generator) -> State:
        """Returns the state before the first step, for bound vectors ``[B,F]``."""

    @abstractmethod
    def step(self, codebooks: Codebooks, spectra: Tensor, state: State, i: int, generator: Generator) -> Step:
        """Takes step number ``i`` for bound vectors ``[B,F]``."""

    def operations(self, codebooks: Codebooks) -> float:
        """Returns the arithmetic of a step for one problem: unbinding, X_kᵀ x and X_k w for each factor."""
        unbinding = len(codebooks.sizes) ** 2 * codebooks.values
        return sum(4.0 * size * codebooks.values for size in codebooks.sizes) + unbinding


def iterate(
    dynamics: Dynamics, codebooks: Codebooks, spectra: Tensor, iterations: int, generator: Generator
) -> Decomposition:
    """Runs a method on bound vectors ``[B,F]``, and keeps the best product of the codewords it believed in most.

    Decided problems leave the loop.  On a device this is checked at every :data:`CHECKED_EVERY`-th iteration only, for the
    best product so far.
    """
    search, state = SearchState(codebooks, spectra), dynamics.start(codebooks, spectra, generator)
    rows, left = torch.arange(len(spectra), device=spectra.device), spectra
    on_cpu = spectra.device.type == "cpu"
    for i in range(iterations):
        state, beliefs = dynamics.step(codebooks, left, state, i, generator)
        indices = torch.stack([belief.argmax(1) for belief in beliefs], 1)
        similarity = codebooks.similarity(codebooks.product(indices), left)
        search.improve(rows, indices, similarity)
        search.iterations[rows] += 1
        if not on_cpu:
            if (i + 1) % CHECKED_EVERY:
                continue
            indices, similarity = search.indices[rows], search.similarity[rows]
        done = decided(codebooks, left, indices, similarity)
        stay = (~done).nonzero()[:, 0]
        if len(stay) < len(rows):
            rows, left, state = rows[stay], left[stay], [part[stay] for part in state]
        if not len(rows):
            break
    search.operations += search.iterations.cpu() * dynamics.operations(codebooks)
    return search.result()


def others(estimates: list[Tensor], factor: int) -> Tensor:
    """Returns ⊙_{j≠k} D_j, the products of all estimates but one factor's ``[B,F]``."""
    return reduce(mul, (estimate for k, estimate in enumerate(estimates) if k != factor))


def rms(codebooks: Codebooks, spectra: Tensor) -> Tensor:
    """Returns the root mean square of the coordinates of spectra ``[B,F]``, ``[B,1]``, never zero."""
    return (codebooks.square(spectra)[..., None] / codebooks.weights.sum()).sqrt().clamp_min(1e-12)


class Network(Dynamics):
    """Base class of networks, which start at all codewords at once and update each factor once per step.

    Attributes:
        sequential: True if a factor sees the newest estimates of those before it.
    """

    sequential: bool = True

    def start(self, codebooks: Codebooks, spectra: Tensor, generator: Generator) -> State:
        """Returns the sign, or phase, of the sum of all codewords ``[B,F]`` for each factor."""
        return [phase(book.sum(0)).expand(len(spectra), -1) for book in codebooks.spectra]

    def step(self, codebooks: Codebooks, spectra: Tensor, state: State, i: int, generator: Generator) -> Step:
        """Updates each factor once."""
        estimates, beliefs = list(state), list(state)
        for k in range(len(state)):
            unbound = spectra * others(estimates if self.sequential else state, k).conj()
            estimates[k], beliefs[k] = self.update(codebooks, k, unbound, generator)
        return estimates, beliefs

    @abstractmethod
    def update(self, codebooks: Codebooks, factor: int, unbound: Tensor, generator: Generator) -> Estimate:
        """Returns a factor's new estimate from ``unbound``, the bound vectors without the other factors ``[B,F]``."""


@dataclass(frozen=True)
class Resonator(Network):
    """The resonator network.

    Attributes:
        weights: ``ols`` projects on the codebook's span, ``X (XᵀX)⁻¹ Xᵀ``; ``outer`` is ``X Xᵀ``.
    """

    weights: Literal["ols", "outer"] = "ols"

    def update(self, codebooks: Codebooks, factor: int, unbound: Tensor, generator: Generator) -> Estimate:
        """Returns ``sign(X (XᵀX)⁻¹ Xᵀ unbound)``, or without the inverse."""
        scores = codebooks.scores(factor, unbound)
        weights = scores @ codebooks.inverse_grams[factor] if self.weights == "ols" else scores
        estimate = phase(codebooks.combine(factor, weights))
        # the estimates of two factors may both have the opposite sign, so the modulus of their scores decides
        return estimate, codebooks.scores(factor, estimate).abs()

    def operations(self, codebooks: Codebooks) -> float:
        """Returns the arithmetic of a step: the estimate is compared with the codewords once more."""
        gram = sum(2.0 * n * n for n in codebooks.sizes) if self.weights == "ols" else 0.0
        return 1.5 * super().operations(codebooks) + gram


@dataclass(frozen=True)
class Factorizer(Network):
    """The in-memory factorizer.

    Attributes:
        noise: Standard deviation of the analogue read-out's noise, in units of 1/√D, the similarity by chance.
        threshold: Similarities below it count as zero, in the same units.
    """

    noise: float = 0.5
    threshold: float = 1.5

    def update(self, codebooks: Codebooks, factor: int, unbound: Tensor, generator: Generator) -> Estimate:
        """Returns ``sign(X [a]_{≥ threshold})`` for ``a = Xᵀ unbound + noise``."""
        similarity = codebooks.scores(factor, unbound) / codebooks.dim**0.5
        noise = to_device(torch.randn(similarity.shape, generator=generator), similarity.device)
        read = similarity + self.noise * noise
        kept = torch.where(read >= self.threshold, read, 0.0)
        silent = (kept == 0).all(1, keepdim=True)  # nothing reaches the threshold: then all similarities count
        return phase(codebooks.combine(factor, torch.where(silent, read, kept))), read


@dataclass(frozen=True)
class AttentionResonator(Network):
    """The attention resonator, which starts at the codebooks' means.

    Attributes:
        beta: Inverse temperature β.
        sequential: True if a factor sees the newest estimates of those before it.
        relative: True if the unbound vector is divided by its root mean square, so that β means the same for vague and
            sharp estimates.
    """

    beta: float = 0.037
    sequential: bool = False
    relative: bool = True

    def start(self, codebooks: Codebooks, spectra: Tensor, generator: Generator) -> State:
        """Returns the codebooks' means ``[B,F]``."""
        return [book.mean(0).expand(len(spectra), -1) for book in codebooks.spectra]

    def update(self, codebooks: Codebooks, factor: int, unbound: Tensor, generator: Generator) -> Estimate:
        """Returns ``X softmax(β Xᵀ unbound)``."""
        scores = codebooks.scores(factor, unbound / rms(codebooks, unbound) if self.relative else unbound)
        belief = torch.softmax(self.beta * scores, 1)
        return codebooks.combine(factor, belief), belief


def phase(spectra: Tensor) -> Tensor:
    """Returns spectra with a modulus of one: the signs of real numbers, +1 for zero, and the phases of complex ones."""
    if torch.is_complex(spectra):
        return torch.polar(torch.ones_like(spectra.real), spectra.angle())
    return torch.where(spectra < 0, -1.0, 1.0)
