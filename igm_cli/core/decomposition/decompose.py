"""Decomposes bound vectors by any of the methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from igm_cli.core.decomposition.auto import auto
from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.coupled import CoupledDiffusion
from igm_cli.core.decomposition.exhaustive import exhaustive
from igm_cli.core.decomposition.resonator import AttentionResonator, Dynamics, Factorizer, Resonator, iterate
from igm_cli.core.decomposition.result import Decomposition, join
from igm_cli.errors import InputError, UsageError

ITERATIVE: Mapping[str, Callable[[], Dynamics]] = {
    "coupled": CoupledDiffusion,
    "attention": AttentionResonator,
    "resonator": Resonator,
    "factorizer": Factorizer,
}
METHODS = ("auto", *ITERATIVE, "exhaustive")

ITERATIONS = 100  # most iterations of the iterative methods, as in the paper
AT_ONCE = 256  # problems solved together, which bounds the memory
OWN_STREAM = 2**32
"""Added to the seed, so that a method's noise is not the stream of random codebooks with the same seed."""


def decompose(
    vectors: Tensor,
    codebooks: Codebooks,
    method: str | Dynamics = "auto",
    *,
    iterations: int = ITERATIONS,
    seed: int = 0,
) -> Decomposition:
    """Finds the codewords whose product is a bound vector.

    Args:
        vectors: Bound vectors ``[B,D]``, noisy or not.
        codebooks: Codebooks of K factors.
        method: ``auto``, ``coupled``, ``attention``, ``resonator``, ``factorizer`` or ``exhaustive``, or an iterative
            method with its settings.
        iterations: Most iterations of an iterative method.
        seed: Seed of all random numbers; the same batch of vectors gives the same result.

    Returns:
        Codewords of all vectors, in their order, on the CPU.

    Raises:
        InputError: If the vectors cannot be bound vectors of these codebooks.
        UsageError: If there is no such method, or no iteration is allowed.
    """
    check_vectors(vectors, codebooks)
    if isinstance(method, str) and method not in METHODS:
        raise UsageError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    if iterations < 1:
        raise UsageError(f"iterations must be at least 1, not {iterations}")
    generator = torch.Generator().manual_seed(seed + OWN_STREAM)
    dynamics = ITERATIVE[method]() if isinstance(method, str) and method in ITERATIVE else method
    parts: list[Decomposition] = []
    for first in range(0, len(vectors), AT_ONCE):
        spectra = codebooks.spectrum(vectors[first : first + AT_ONCE])
        if not isinstance(dynamics, str):
            parts.append(iterate(dynamics, codebooks, spectra, iterations, generator))
        elif dynamics == "auto":
            parts.append(auto(codebooks, spectra, generator))
        else:
            parts.append(exhaustive(codebooks, spectra))
    return join(parts)


def check_vectors(vectors: Tensor, codebooks: Codebooks) -> None:
    """Raises an :class:`InputError` for vectors that cannot be decomposed, which says which and why."""
    if vectors.ndim != 2:
        raise InputError(f"bound vectors have the shape {list(vectors.shape)}; it must be [vectors, D]")
    if vectors.shape[1] != codebooks.dim:
        raise InputError(
            f"the bound vectors have dimension {vectors.shape[1]}, the codebooks {codebooks.dim}; they must have the same"
        )
    if torch.is_complex(vectors) and codebooks.binding.name != "fhrr":
        raise InputError(
            f"complex vectors cannot be bound by {codebooks.binding.name!r}; use the binding 'fhrr'"
        )
    for wrong, what in (
        (~torch.isfinite(vectors).all(1), "has entries that are not finite; repair or leave it out"),
        (vectors.abs().sum(1) == 0, "is zero, so nothing was bound; leave it out"),
    ):
        if wrong.any():
            raise InputError(f"vector {int(wrong.nonzero()[0])} {what}")
