"""What the iterative methods share: the loop, the early stop, the count of arithmetic."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.result import Decomposition, conclude, settled

State: TypeAlias = list[Tensor]
"""Tensors with a row a problem."""


class Dynamics(Protocol):
    """A method that improves estimates of all factors step by step."""

    def start(self, codebooks: Codebooks, spectra: Tensor, generator: torch.Generator) -> State:
        """The state before the first step, for bound vectors ``[B,F]``."""
        ...

    def step(
        self, codebooks: Codebooks, spectra: Tensor, state: State, number: int, generator: torch.Generator
    ) -> tuple[State, list[Tensor]]:
        """The next state, and how much every codeword is believed in, ``[B,n_k]`` for every factor."""
        ...

    def operations(self, codebooks: Codebooks) -> float:
        """Multiplications and additions of a step, for one problem."""
        ...


def iterate(
    dynamics: Dynamics, codebooks: Codebooks, spectra: Tensor, iterations: int, generator: torch.Generator
) -> Decomposition:
    """Runs a method; a problem that is settled takes no further part.

    Args:
        dynamics: The method.
        codebooks: K of them.
        spectra: Bound vectors ``[B,F]``.
        iterations: At most so many.
        generator: Of everything random.
    """
    problems, factors = len(spectra), len(codebooks.sizes)
    found = torch.zeros(problems, factors, dtype=torch.long, device=spectra.device)
    best = torch.full((problems,), -2.0, device=spectra.device)
    used = torch.full((problems,), iterations, device=spectra.device)
    active = torch.arange(problems, device=spectra.device)
    state, left = dynamics.start(codebooks, spectra, generator), spectra
    for number in range(iterations):
        state, beliefs = dynamics.step(codebooks, left, state, number, generator)
        indices = torch.stack([belief.argmax(1) for belief in beliefs], 1)
        similarity = codebooks.similarity(codebooks.product(indices), left)
        better = similarity > best[active]
        found[active[better]], best[active[better]] = indices[better], similarity[better]
        done = settled(codebooks, left, indices, similarity)
        if done.any():
            used[active[done]] = number + 1
            active, left, state = active[~done], left[~done], [part[~done] for part in state]
            if not len(active):
                break
    return conclude(codebooks, spectra, found, used, used.double() * dynamics.operations(codebooks), best)


def unbound(spectra: Tensor, estimates: list[Tensor], factor: int) -> Tensor:
    """What is left of bound vectors when the other factors' estimates are unbound ``[B,F]``: y ⊙ conj(⊙_{j≠k} D_j)."""
    return spectra * others(estimates, factor).conj()


def others(estimates: list[Tensor], factor: int) -> Tensor:
    """Products of all estimates but a factor's ``[B,F]``."""
    rest = [estimate for k, estimate in enumerate(estimates) if k != factor]
    product = rest[0]
    for estimate in rest[1:]:
        product = product * estimate
    return product


def both_ways(codebooks: Codebooks) -> float:
    """Arithmetic of one product of every factor with its codebook and one with its transpose, and the unbinding."""
    factors = len(codebooks.sizes)
    return sum(4.0 * size * codebooks.values for size in codebooks.sizes) + factors * factors * codebooks.values
