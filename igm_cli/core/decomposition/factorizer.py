"""The noisy factorizer with a threshold of in-memory computing (Langenegger et al. 2023), after resonator networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.iteration import State, both_ways, unbound
from igm_cli.core.decomposition.resonator import all_codewords, phase


@dataclass(frozen=True)
class Factorizer:
    """``a = Xᵀ(y ⊙ x_others)/D + noise;  x ← f(X [a]_{≥ threshold})``, one factor after the other.

    Attributes:
        noise: Standard deviation of what the analogue read-out adds, over 1/√D.
        threshold: Similarities below it are taken for zero, over 1/√D.
    """

    noise: float = 0.5
    threshold: float = 1.5

    def start(self, codebooks: Codebooks, spectra: Tensor, generator: torch.Generator) -> State:
        """All codewords at once."""
        return all_codewords(codebooks, len(spectra))

    def step(
        self, codebooks: Codebooks, spectra: Tensor, state: State, number: int, generator: torch.Generator
    ) -> tuple[State, list[Tensor]]:
        """Updates every factor once, each with the newest of the others."""
        estimates, beliefs = list(state), []
        for factor in range(len(estimates)):
            similarity = codebooks.scores(factor, unbound(spectra, estimates, factor)) / codebooks.dim**0.5
            noise = torch.randn(similarity.shape, generator=generator).to(similarity)
            read = similarity + self.noise * noise
            kept = torch.where(read >= self.threshold, read, 0.0)
            silent = (kept == 0).all(1, keepdim=True)  # nothing passes: all that was read does
            estimates[factor] = phase(codebooks.combine(factor, torch.where(silent, read, kept)))
            beliefs.append(read)
        return estimates, beliefs

    def operations(self, codebooks: Codebooks) -> float:
        """Of both products with the codebooks."""
        return both_ways(codebooks)
