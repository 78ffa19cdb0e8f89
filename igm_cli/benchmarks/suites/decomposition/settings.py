"""Settings of every method: the one place where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from igm_cli.core.decomposition.coupled import CoupledDiffusion
from igm_cli.core.decomposition.resonator import AttentionResonator, Dynamics, Factorizer, Resonator

AUTO, COUPLED, EXHAUSTIVE = "auto", "coupled", "exhaustive"
RESONATOR = "resonator"

ORIGIN = (
    "Settings were chosen by benchmarks/calibrate_decomposition.py on problems of other seeds with K = 3, n = 100, "
    "D = 1000 and 100 iterations; the variants of coupled diffusion one by one; the factorizer's are near the best ones and do for few codewords, too."
)
"""Where the settings come from, for the report."""

IN_CODEBOOKS = CoupledDiffusion(
    space="codebook", steps=4, ratio=0.35, guidance=0.123, signal=(0.061, 0.817), stochasticity=1.0, prior=0.0
)
"""Noise on one-hot vectors is of another size than on codewords, and so are levels and guidance."""

DYNAMICS: Mapping[str, Dynamics] = {
    COUPLED: CoupledDiffusion(),
    "coupled-gauss-latent": CoupledDiffusion(),
    "coupled-similarity-latent": CoupledDiffusion(energy="similarity"),
    "coupled-gauss-codebook": IN_CODEBOOKS,
    "coupled-similarity-codebook": replace(IN_CODEBOOKS, energy="similarity"),
    "attention": AttentionResonator(),
    RESONATOR: Resonator(),
    "resonator-outer": Resonator(weights="outer"),
    "factorizer": Factorizer(),
}
"""The iterative methods.  ``coupled``, ``attention``, ``resonator`` and ``factorizer`` are what users get by these names."""

METHODS: Mapping[str, str] = {
    AUTO: "what is cheapest first: meeting in the middle, exhaustive search, coupled diffusion",
    COUPLED: "coupled diffusion with restarts (Yeung et al. 2026), as users get it",
    "coupled-gauss-latent": "the same with Gaussian energy, chains in latent space",
    "coupled-similarity-latent": "the same with similarity energy, chains in latent space",
    "coupled-gauss-codebook": "the same with Gaussian energy, chains in codebook space",
    "coupled-similarity-codebook": "the same with similarity energy, chains in codebook space",
    "attention": "attention resonator, a special case of coupled diffusion",
    RESONATOR: "resonator network with OLS weights (Frady et al. 2020)",
    "resonator-outer": "resonator network with outer-product weights",
    "factorizer": "noisy factorizer with a threshold (Langenegger et al. 2023)",
    EXHAUSTIVE: "all products, as a blocked matrix product",
}


def described(name: str) -> dict[str, Any]:
    """The settings of a method as JSON; nothing if it has none."""
    dynamics = DYNAMICS.get(name)
    return {} if dynamics is None else {key: _plain(value) for key, value in asdict(dynamics).items()}  # type: ignore[call-overload]


def copies(name: str) -> bool:
    """Whether ``coupled`` is one of the variants, so that a figure of the variants shows it already."""
    others = [each for other, each in DYNAMICS.items() if other != COUPLED]
    return name == COUPLED and DYNAMICS[COUPLED] in others


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
