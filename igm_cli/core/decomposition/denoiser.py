"""The exact denoisers of codebooks, and the energies that couple them.

A codebook X_k [D,n] is a distribution of n equally probable points, so its denoiser is closed-form.  In *latent space*
a chain is x_t = √a x_0 + √(1-a) ε ∈ R^D, x_0 a codeword; in *codebook space* z_t = √a z_0 + √(1-a) ε ∈ R^n, z_0 one-hot:

    D_k(x_t) = X_k softmax((√a X_kᵀ x_t - a ‖X_k‖²/2) / (1-a)),      D_k(z_t) = X_k softmax(√a z_t / (1-a))

with the score (√a D_k - x_t) / (1-a) in both.  The chains are coupled by an energy of the denoised estimates,

    E_gauss = ‖y - ⊙_k D_k‖² / 2s²,        E_sim = -⟨y, ⊙_k D_k⟩ / τ        (Yeung et al. 2026)
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.iteration import others

Space: TypeAlias = Literal["latent", "codebook"]
Energy: TypeAlias = Literal["gauss", "similarity"]


def posterior(codebooks: Codebooks, factor: int, noised: Tensor, a: float, space: Space = "latent") -> Tensor:
    """Probability of every codeword given a noised one, ``[B,F]`` or ``[B,n_k]`` to ``[B,n_k]``.

    Args:
        codebooks: K of them.
        factor: Which.
        noised: x_t as a spectrum, or z_t.
        a: Share of the signal, 0 <= a < 1.
        space: Where the noise is.
    """
    if space == "codebook":
        return torch.softmax(a**0.5 * noised / (1 - a), 1)
    scores = codebooks.scores(factor, noised)
    return torch.softmax((a**0.5 * scores - a * codebooks.squares[factor] / 2) / (1 - a), 1)


def score(estimate: Tensor, noised: Tensor, a: float) -> Tensor:
    """∇ log p(x_t) by Tweedie's formula, from the denoised estimate: both ``[B,F]`` in latent space, ``[B,n_k]`` else."""
    result: Tensor = (a**0.5 * estimate - noised) / (1 - a)
    return result


def pull(spectra: Tensor, estimates: list[Tensor], factor: int, energy: Energy) -> Tensor:
    """-∂E/∂D_k for s = τ = 1, ``[B,F]``.

    Of the similarity energy it is the unbinding y ⊙ conj(⊙_{j≠k} D_j); the Gaussian energy's has also what the estimate
    explains already, conj(o) ⊙ (y - D_k ⊙ o).

    Args:
        spectra: Bound vectors ``[B,F]``.
        estimates: D_k of every factor ``[B,F]``.
        factor: k.
        energy: Which.
    """
    rest = others(estimates, factor)
    if energy == "gauss":
        spectra = spectra - estimates[factor] * rest
    return spectra * rest.conj()
