"""Coupled inference in diffusion models (Yeung et al. 2026): a chain a factor, guided by what the others leave.

Every factor has a reverse diffusion with its codebook's exact denoiser.  Guidance by the energy moves the denoised
estimate, by Tweedie's formula for the score plus the energy's gradient,

    x̃_0 = D_k(x_t) - (1-a)/√a · λ_t ∂E/∂D_k,        λ_t = g √a/(1-a),

so that a guidance g is in units of the estimate; then the step is DDIM's,

    x_{t-1} = √a' x̃_0 + √(1-a'-σ²) (x_t - √a x̃_0)/√(1-a) + σ ε,      σ² = η² (1-a')/(1-a) (1 - a/a').

The iterative scheme goes on from a partly re-noised estimate, again and again: a fraction ρ of the steps.

Special case: with no weight on the prior, no noise and a constant a, x_t = √a g · unbinding, so that the estimates are
those of the attention resonator with β = g a/(1-a).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.denoiser import Energy, Space, posterior, pull
from igm_cli.core.decomposition.iteration import State, both_ways, others
from igm_cli.core.decomposition.resonator import size


@dataclass(frozen=True)
class CoupledDiffusion:
    """Coupled reverse diffusion with restarts.

    Attributes:
        energy: ``similarity`` or ``gauss``.
        space: Where the chains are: ``latent`` or ``codebook``.
        steps: Of a whole diffusion.
        ratio: ρ, the part of the steps that a restart repeats; as many restarts as iterations allow.
        guidance: g.
        signal: a at the first and at the last step.
        stochasticity: η, 0 deterministic, 1 as noisy as the forward process.
        temperature: Factor of all noise.
        prior: Weight of the codebook's own estimate beside the guidance.
        relative: Whether the unbound vector is divided by the size of the others' product, so that guidance weighs the
            same while estimates are vague.
        sequential: Whether a factor sees the newest estimates of those before it.
    """

    energy: Energy = "gauss"
    space: Space = "latent"
    steps: int = 3
    ratio: float = 0.35
    guidance: float = 370.0
    signal: tuple[float, float] = (4.9e-5, 3.6e-3)
    stochasticity: float = 0.0
    temperature: float = 1.0
    prior: float = 1.0
    relative: bool = True
    sequential: bool = True

    def start(self, codebooks: Codebooks, spectra: Tensor, generator: torch.Generator) -> State:
        """Noise ``[B,F]`` or ``[B,n_k]`` for every factor, and what it is denoised to ``[B,n_k]``."""
        chains = [
            self._noise(codebooks, factor, len(spectra), generator) for factor in range(len(codebooks.sizes))
        ]
        beliefs = [
            posterior(codebooks, k, chain, self.levels(0)[0], self.space) for k, chain in enumerate(chains)
        ]
        return [*chains, *beliefs]

    def step(
        self, codebooks: Codebooks, spectra: Tensor, state: State, number: int, generator: torch.Generator
    ) -> tuple[State, list[Tensor]]:
        """One step of every chain."""
        factors = len(codebooks.sizes)
        chains, beliefs = list(state[:factors]), list(state[factors:])
        a, a_next = self.levels(number)
        if self._restarts(number):
            chains, beliefs = self._renoised(codebooks, beliefs, a, generator)
        estimates = [codebooks.combine(k, belief) for k, belief in enumerate(beliefs)]
        newest = list(estimates)
        for k in range(factors):
            seen = newest if self.sequential else estimates
            clean = self._guided(codebooks, spectra, seen, k, beliefs[k])
            noise = self._noise(codebooks, k, len(spectra), generator)
            chains[k] = self._ddim(chains[k], clean, noise, a, a_next)
            beliefs[k] = posterior(codebooks, k, chains[k], a_next, self.space)
            newest[k] = codebooks.combine(k, beliefs[k])
        return [*chains, *beliefs], beliefs

    def operations(self, codebooks: Codebooks) -> float:
        """Of the products with the codebooks: two in latent space; in codebook space the guidance takes one more."""
        return both_ways(codebooks)

    def levels(self, number: int) -> tuple[float, float]:
        """Signal share a before and after a step: its logit goes evenly from the first level to the last."""
        first, last = (math.log(a / (1 - a)) for a in self.signal)
        begin, steps, offset = self._pass(number)
        reach = [begin + (1 - begin) * (offset + after) / steps for after in (0, 1)]
        before, after = (1 / (1 + math.exp(-(first + (last - first) * part))) for part in reach)
        return before, after

    def _pass(self, number: int) -> tuple[float, int, int]:
        """Where the pass of a step begins, 0..1 of the schedule, its number of steps, and the step's place in it."""
        again = max(1, round(self.ratio * self.steps))
        if number < self.steps:
            return 0.0, self.steps, number
        return 1 - self.ratio, again, (number - self.steps) % again

    def _restarts(self, number: int) -> bool:
        return number >= self.steps and self._pass(number)[2] == 0

    def _renoised(
        self, codebooks: Codebooks, beliefs: list[Tensor], a: float, generator: torch.Generator
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Chains at level a about the newest estimates, and what they are denoised to."""
        chains = []
        for k, belief in enumerate(beliefs):
            clean = codebooks.combine(k, belief) if self.space == "latent" else belief
            chains.append(a**0.5 * clean + (1 - a) ** 0.5 * self._noise(codebooks, k, len(belief), generator))
        return chains, [posterior(codebooks, k, chain, a, self.space) for k, chain in enumerate(chains)]

    def _guided(
        self, codebooks: Codebooks, spectra: Tensor, estimates: list[Tensor], factor: int, belief: Tensor
    ) -> Tensor:
        """x̃_0 or z̃_0: the denoised estimate moved against the energy's gradient."""
        towards = pull(spectra, estimates, factor, self.energy)
        if self.relative:
            towards = towards / size(codebooks, others(estimates, factor))
        if self.space == "latent":
            return self.prior * estimates[factor] + self.guidance * towards
        return self.prior * belief + self.guidance * codebooks.scores(factor, towards)

    def _ddim(self, chain: Tensor, clean: Tensor, noise: Tensor, a: float, a_next: float) -> Tensor:
        """The step from level a to level a'."""
        variance = self.stochasticity**2 * max(0.0, (1 - a_next) / (1 - a) * (1 - a / a_next))
        kept = max(0.0, 1 - a_next - variance) ** 0.5 / (1 - a) ** 0.5 * self.temperature
        after: Tensor = a_next**0.5 * clean + kept * (chain - a**0.5 * clean) + variance**0.5 * noise
        return after

    def _noise(self, codebooks: Codebooks, factor: int, rows: int, generator: torch.Generator) -> Tensor:
        if self.space == "latent":
            return self.temperature * codebooks.noise(rows, generator)
        noise = torch.randn(rows, codebooks.sizes[factor], generator=generator)
        return self.temperature * noise.to(codebooks.device)
