"""Coupled inference in diffusion models (Yeung et al. 2026): one chain per factor, guided by what the others leave over.

A codebook X_k ``[D,n]`` is a distribution of n equally probable points, so its denoiser is closed-form.  In *latent
space* a chain is x_t = √a x_0 + √(1-a) ε ∈ R^D, x_0 a codeword; in *codebook space* z_t = √a z_0 + √(1-a) ε ∈ R^n, z_0
one-hot:

    D_k(x_t) = X_k softmax((√a X_kᵀ x_t - a ‖X_k‖²/2) / (1-a)),      D_k(z_t) = X_k softmax(√a z_t / (1-a)).

The chains are coupled by an energy of the denoised estimates,

    E_gauss = ‖y - ⊙_k D_k‖² / 2s²,        E_sim = -⟨y, ⊙_k D_k⟩ / τ,

whose gradient moves each estimate, by Tweedie's formula for the score; then the step is that of DDIM:

    x̃_0 = D_k(x_t) - (1-a)/√a · λ_t ∂E/∂D_k,        λ_t = g √a/(1-a),
    x_{t-1} = √a' x̃_0 + √(1-a'-σ²) (x_t - √a x̃_0)/√(1-a) + σ ε,      σ² = η² (1-a')/(1-a) (1 - a/a').

The iterative scheme re-noises the newest estimate and repeats the last part ρ of the T steps, many times.  In the limit
of no prior, no noise and a constant a, the estimates are those of the attention resonator with β = g a/(1-a).

The settings in use are near that limit.  With T = 3 and ρ = 0.35 a restart is max(1, round(ρT)) = 1 step, so a run is
one diffusion of three steps and then single steps between two fixed noise levels, with a signal proportion of at most
0.36 %: an attention resonator whose noise is annealed at the start.  ``relative`` divides the gradient by a number that
depends on the estimates, so the estimate follows the gradient of neither energy.  In codebook space the settings that
were chosen have a prior of 0, which leaves D_k out of x̃_0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Generator, Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.resonator import Dynamics, State, Step, others, rms
from igm_cli.core.device import to_device

Space: TypeAlias = Literal["latent", "codebook"]
Energy: TypeAlias = Literal["gauss", "similarity"]


@dataclass(frozen=True)
class CoupledDiffusion(Dynamics):
    """Coupled reverse diffusion with restarts.

    Attributes:
        energy: ``similarity`` or ``gauss``.
        space: Where the chains are: ``latent`` or ``codebook``.
        steps: Steps T of a whole diffusion.
        ratio: Fraction ρ of the steps that a restart repeats; iterations limit the number of restarts.
        guidance: Guidance g.
        signal: Signal proportion a at the first and at the last step.
        stochasticity: η, from 0 (deterministic) to 1 (as noisy as the forward process).
        temperature: Factor of all noise.
        prior: Weight of the codebook's own estimate D_k, added to the guidance.
        relative: True if the unbound vector is divided by the root mean square of the others' product, so that guidance
            keeps its weight while estimates are vague.
        sequential: True if a factor sees the newest estimates of those before it.
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

    def start(self, codebooks: Codebooks, spectra: Tensor, generator: Generator) -> State:
        """Returns noise ``[B,F]`` or ``[B,n_k]`` for each factor, then its denoised beliefs ``[B,n_k]``."""
        chains = [self._noise(codebooks, k, len(spectra), generator) for k in range(len(codebooks.sizes))]
        return [*chains, *self._denoised(codebooks, chains, self.levels(0)[0])]

    def step(self, codebooks: Codebooks, spectra: Tensor, state: State, i: int, generator: Generator) -> Step:
        """Takes one step of each chain, from a re-noised estimate at the beginning of a restart."""
        factors = len(codebooks.sizes)
        chains, beliefs = list(state[:factors]), list(state[factors:])
        a, a_next = self.levels(i)
        if self.restarts(i):
            for k, belief in enumerate(beliefs):
                clean = codebooks.combine(k, belief) if self.space == "latent" else belief
                noise = self._noise(codebooks, k, len(belief), generator)
                chains[k] = a**0.5 * clean + (1 - a) ** 0.5 * noise
            beliefs = self._denoised(codebooks, chains, a)
        estimates = [codebooks.combine(k, belief) for k, belief in enumerate(beliefs)]
        newest = list(estimates)
        for k in range(factors):
            clean = self._guided(codebooks, spectra, newest if self.sequential else estimates, k, beliefs[k])
            noise = self._noise(codebooks, k, len(spectra), generator)
            chains[k] = ddim(chains[k], clean, noise, a, a_next, self.stochasticity, self.temperature)
            beliefs[k] = posterior(codebooks, k, chains[k], a_next, self.space)
            newest[k] = codebooks.combine(k, beliefs[k])
        return [*chains, *beliefs], beliefs

    def levels(self, i: int) -> tuple[float, float]:
        """Returns a before and after a step; its logit changes linearly from the first level to the last."""
        first, last = (math.log(a / (1 - a)) for a in self.signal)
        begin, steps, offset = self._pass(i)
        reach = [begin + (1 - begin) * (offset + after) / steps for after in (0, 1)]
        before, after = (1 / (1 + math.exp(-(first + (last - first) * part))) for part in reach)
        return before, after

    def restarts(self, i: int) -> bool:
        """Returns whether a step begins a restart."""
        return i >= self.steps and self._pass(i)[2] == 0

    def _pass(self, i: int) -> tuple[float, int, int]:
        """Returns where a step's pass begins in the schedule (0..1), its number of steps, and the step's place in it."""
        if i < self.steps:
            return 0.0, self.steps, i
        again = max(1, round(self.ratio * self.steps))
        return 1 - self.ratio, again, (i - self.steps) % again

    def _denoised(self, codebooks: Codebooks, chains: list[Tensor], a: float) -> list[Tensor]:
        return [posterior(codebooks, k, chain, a, self.space) for k, chain in enumerate(chains)]

    def _guided(
        self, codebooks: Codebooks, spectra: Tensor, estimates: State, k: int, belief: Tensor
    ) -> Tensor:
        """Returns x̃_0 or z̃_0, the denoised estimate moved against the energy's gradient."""
        towards = negative_gradient(spectra, estimates, k, self.energy)
        if self.relative:
            towards = towards / rms(codebooks, others(estimates, k))
        if self.space == "latent":
            return self.prior * estimates[k] + self.guidance * towards
        return self.prior * belief + self.guidance * codebooks.scores(k, towards)

    def _noise(self, codebooks: Codebooks, factor: int, rows: int, generator: Generator) -> Tensor:
        if self.space == "latent":
            return self.temperature * codebooks.noise(rows, generator)
        noise = torch.randn(rows, codebooks.sizes[factor], generator=generator)
        return self.temperature * to_device(noise, codebooks.device)


def posterior(codebooks: Codebooks, factor: int, noised: Tensor, a: float, space: Space = "latent") -> Tensor:
    """Returns the probability of each codeword ``[B,n_k]`` given x_t ``[B,F]`` or z_t ``[B,n_k]``, for 0 <= a < 1."""
    if space == "codebook":
        return torch.softmax(a**0.5 * noised / (1 - a), 1)
    scores = codebooks.scores(factor, noised)
    return torch.softmax((a**0.5 * scores - a * codebooks.squares[factor] / 2) / (1 - a), 1)


def negative_gradient(spectra: Tensor, estimates: list[Tensor], factor: int, energy: Energy) -> Tensor:
    """Returns -∂E/∂D_k for s = τ = 1, ``[B,F]``.

    With o = ⊙_{j≠k} D_j it is the unbinding conj(o) ⊙ y for the similarity energy; the Gaussian energy also subtracts
    what the estimates ``[B,F]`` already explain, conj(o) ⊙ (y - D_k ⊙ o).
    """
    rest = others(estimates, factor)
    if energy == "gauss":
        spectra = spectra - estimates[factor] * rest
    return spectra * rest.conj()


def ddim(
    chain: Tensor, clean: Tensor, noise: Tensor, a: float, a_next: float, eta: float, temperature: float
) -> Tensor:
    """Returns a chain at level a' after one step of DDIM, from its estimate x̃_0 and noise ε times the temperature."""
    variance = eta**2 * max(0.0, (1 - a_next) / (1 - a) * (1 - a / a_next))
    kept = max(0.0, 1 - a_next - variance) ** 0.5 / (1 - a) ** 0.5 * temperature
    after: Tensor = a_next**0.5 * clean + kept * (chain - a**0.5 * clean) + variance**0.5 * noise
    return after
