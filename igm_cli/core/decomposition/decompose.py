"""Takes bound vectors apart, by any of the methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from igm_cli.core.decomposition.auto import auto
from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.coupled import CoupledDiffusion
from igm_cli.core.decomposition.exhaustive import exhaustive
from igm_cli.core.decomposition.factorizer import Factorizer
from igm_cli.core.decomposition.iteration import Dynamics, iterate
from igm_cli.core.decomposition.resonator import AttentionResonator, Resonator
from igm_cli.core.decomposition.result import Decomposition, join
from igm_cli.errors import InputError, UsageError

ITERATIVE: Mapping[str, Callable[[], Dynamics]] = {
    "coupled": CoupledDiffusion,
    "attention": AttentionResonator,
    "resonator": Resonator,
    "factorizer": Factorizer,
}
METHODS = ("auto", *ITERATIVE, "exhaustive")

ITERATIONS = 100
"""Of the iterative methods, as in the paper."""

OWN_STREAM = 2**32
"""Added to the seed, so that a method's noise is not the stream that random codebooks of the same seed came from."""

AT_ONCE = 256
"""Problems, which bounds the memory."""


def decompose(
    vectors: Tensor,
    codebooks: Codebooks,
    method: str | Dynamics = "auto",
    *,
    iterations: int = ITERATIONS,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Decomposition:
    """Finds the codewords whose product a bound vector is.

    Args:
        vectors: Bound vectors ``[B,D]``, noisy or not.
        codebooks: K of them.
        method: ``auto``, ``coupled``, ``attention``, ``resonator``, ``factorizer`` or ``exhaustive``, or an iterative
            method with its settings.
        iterations: At most, of an iterative method.
        seed: Of everything random; the same batch of vectors gives the same result.
        progress: Called as problems are done.

    Returns:
        On the CPU, in the order of the vectors.

    Raises:
        InputError: If the vectors cannot be bound vectors of these codebooks.
        UsageError: If there is no such method.
    """
    check_vectors(vectors, codebooks)
    if isinstance(method, str) and method not in METHODS:
        raise UsageError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    generator = torch.Generator().manual_seed(seed + OWN_STREAM)
    parts: list[Decomposition] = []
    progress("vectors", 0, len(vectors))
    for first in range(0, len(vectors), AT_ONCE):
        spectra = codebooks.spectrum(vectors[first : first + AT_ONCE])
        if method == "auto":
            parts.append(auto(codebooks, spectra, generator))
        elif method == "exhaustive":
            parts.append(exhaustive(codebooks, spectra))
        else:
            dynamics = ITERATIVE[method]() if isinstance(method, str) else method
            parts.append(iterate(dynamics, codebooks, spectra, iterations, generator))
        progress("vectors", min(first + AT_ONCE, len(vectors)), len(vectors))
    return join(parts)


def check_vectors(vectors: Tensor, codebooks: Codebooks) -> None:
    """Refuses what cannot be taken apart.

    Raises:
        InputError: Saying which vector and why.
    """
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
    parts = torch.view_as_real(vectors) if torch.is_complex(vectors) else vectors
    bad = (~torch.isfinite(parts)).flatten(1).any(1).nonzero()[:, 0]
    if len(bad):
        raise InputError(f"vector {int(bad[0])} has entries that are not finite; repair or leave it out")
    zero = (vectors.abs().sum(1) == 0).nonzero()[:, 0]
    if len(zero):
        raise InputError(f"vector {int(zero[0])} is zero, so nothing was bound; leave it out")
