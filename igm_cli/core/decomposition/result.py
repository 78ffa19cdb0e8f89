"""What was found, how sure it is, and what it cost."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks

CAUTION = 100.0
"""So many vectors that are no products at all are reckoned with for every one that is as little similar as chance gives."""

BEYOND_CHANCE = 1 - 1e-3
"""Confidence from which on an iteration stops, if no exchange of one factor is better."""

TIE = 1e-5
"""Codewords whose products are as similar as that cannot be told apart."""


@dataclass(frozen=True)
class Decomposition:
    """One codeword of every codebook for B bound vectors.

    Attributes:
        indices: ``[B,K]``.
        similarity: Cosine of the bound vector and the product of the codewords ``[B]``.
        confidence: Of every index ``[B,K]``: how sure it is that this is not chance, times the codeword's posterior
            given the others.
        ambiguous: Whether another codeword of the factor would do as well ``[B,K]``.
        iterations: Of the method, 0 where it has none ``[B]``.
        operations: Multiplications and additions ``[B]``, float64.
    """

    indices: Tensor
    similarity: Tensor
    confidence: Tensor
    ambiguous: Tensor
    iterations: Tensor
    operations: Tensor


def beyond_chance(codebooks: Codebooks, similarity: Tensor, related: Tensor | None = None) -> Tensor:
    """How sure it is that a product was bound at all, ``1 / (1 + c · hits)``, ``[B]``.

    Of vectors that have nothing to do with each other Fisher's z = artanh(s) · √P of the cosine s is nearly normal, P being
    the number of real coordinates; with its upper tail Q, chance makes N Q(z) of all N products as similar.  Where moduli differ,
    products that share all codewords but one with what was bound have a wider spread of their own.

    Args:
        codebooks: K of them, which make N products.
        similarity: Of products and vectors ``[B]``.
        related: Spread of the similarity of such related products ``[B]``, see :func:`spread`.
    """
    z = similarity.double().clamp(-1 + 1e-12, 1 - 1e-12).atanh()
    hits = math.log(codebooks.search_space) + torch.special.log_ndtr(-z * math.sqrt(codebooks.coordinates))
    if related is not None:
        hits = torch.logaddexp(hits, math.log(sum(codebooks.sizes)) + torch.special.log_ndtr(-z / related))
    return torch.sigmoid(-(hits + math.log(CAUTION))).float()


def spread(codebooks: Codebooks, spectra: Tensor, indices: Tensor) -> Tensor | None:
    """Standard deviation of the similarity by chance ``[B]``; None where it is 1/√P, all moduli being one."""
    return None if codebooks.unit else codebooks.spread(codebooks.product(indices), spectra)


def exchanges(codebooks: Codebooks, spectra: Tensor, indices: Tensor) -> list[Tensor]:
    """Similarity of the products in which one factor's codeword is exchanged, ``[B,n_k]`` for every factor k.

    Args:
        codebooks: K of them.
        spectra: Bound vectors ``[B,F]``.
        indices: ``[B,K]``.
    """
    exact = codebooks if codebooks.precision == torch.float32 else codebooks.to(codebooks.device, torch.float32)
    result = []
    for factor in range(len(codebooks.sizes)):
        rest = _others(codebooks, indices, factor)
        inner = exact.scores(factor, spectra * rest.conj())
        lengths = codebooks.norm(spectra)[:, None] * _lengths(codebooks, rest, factor)
        result.append(inner / lengths.clamp_min(1e-20))
    return result


def _lengths(codebooks: Codebooks, rest: Tensor, factor: int) -> Tensor | float:
    """Norms of products with all codewords of a factor ``[B,n_k]``; the same for all where all moduli are one."""
    if codebooks.unit:
        return float(codebooks.dim**0.5)
    squares = (rest.abs().square() * codebooks.weights) @ codebooks.spectra[factor].abs().square().T
    return squares.sqrt()


def conclude(
    codebooks: Codebooks,
    spectra: Tensor,
    indices: Tensor,
    iterations: Tensor,
    operations: Tensor,
    similarity: Tensor | None = None,
) -> Decomposition:
    """Similarity and confidence of what was found.

    Args:
        codebooks: K of them.
        spectra: Bound vectors ``[B,F]``.
        indices: ``[B,K]``.
        iterations: ``[B]``.
        operations: ``[B]``.
        similarity: Of products and vectors ``[B]``, if it is known.
    """
    if similarity is None:
        similarity = codebooks.similarity(codebooks.product(indices), spectra)
    chance = beyond_chance(codebooks, similarity, spread(codebooks, spectra, indices))
    precision = (
        codebooks.coordinates * similarity / (1 - similarity.square()).clamp_min(1e-6)
    )  # of the posterior, [B]
    confidence, ambiguous = [], []
    for factor, alike in enumerate(exchanges(codebooks, spectra, indices)):
        chosen = indices[:, factor : factor + 1]
        posterior = torch.softmax(precision.clamp_min(0)[:, None] * alike, 1).gather(1, chosen)[:, 0]
        confidence.append(chance * posterior)
        ties = (alike >= alike.gather(1, chosen) - TIE).sum(1) > 1
        ambiguous.append(ties & (similarity > TIE))
    turned = _turned(codebooks, indices)
    if turned is not None:
        confidence = [sure * torch.where(turned[:, k], 0.5, 1.0) for k, sure in enumerate(confidence)]
        ambiguous = [either | turned[:, k] for k, either in enumerate(ambiguous)]
    return Decomposition(
        indices, similarity, torch.stack(confidence, 1), torch.stack(ambiguous, 1), iterations, operations
    )


def settled(codebooks: Codebooks, spectra: Tensor, indices: Tensor, similarity: Tensor) -> Tensor:
    """Whether products are similar beyond chance, and no exchange of one factor is better ``[B]``.

    A product that reproduces its vector is the best there can be.

    Args:
        codebooks: K of them.
        spectra: Bound vectors ``[B,F]``.
        indices: ``[B,K]``.
        similarity: Of the products and the vectors ``[B]``.
    """
    result = similarity >= 1 - TIE
    rows = (~result).nonzero()[:, 0]
    if len(rows):
        spectra, indices, similarity = spectra[rows], indices[rows], similarity[rows]
        sure = beyond_chance(codebooks, similarity, spread(codebooks, spectra, indices)) >= BEYOND_CHANCE
        best = torch.stack([each.amax(1) for each in exchanges(codebooks, spectra, indices)], 1)
        result[rows] = sure & (best.amax(1) <= similarity + TIE)
    return result


def _turned(codebooks: Codebooks, indices: Tensor) -> Tensor | None:
    """Whether codewords of two factors may be exchanged at once: -x and -y for x and y; ``[B,K]``, None if nowhere.

    In general for e^{iφ} x and e^{-iφ} y, of complex codewords.
    """
    factors = len(codebooks.sizes)
    if sum(codebooks.has_turned(k) for k in range(factors)) < 2:
        return None
    phases = [codebooks.turns(k, indices[:, k]) for k in range(factors)]  # [B,n_k], 0 where not collinear
    result = torch.zeros_like(indices, dtype=torch.bool)
    for one, other in itertools.combinations(range(factors), 2):
        product = phases[one][:, :, None] * phases[other][:, None, :]
        same = ((product - 1).abs() < TIE**0.5).flatten(1).any(1)
        result[:, one] |= same
        result[:, other] |= same
    return result


def _others(codebooks: Codebooks, indices: Tensor, factor: int) -> Tensor:
    """Products of all codewords but a factor's ``[B,F]``."""
    rest = [k for k in range(len(codebooks.sizes)) if k != factor]
    product = codebooks.spectra[rest[0]][indices[:, rest[0]]]
    for k in rest[1:]:
        product = product * codebooks.spectra[k][indices[:, k]]
    return product


def join(parts: list[Decomposition]) -> Decomposition:
    """Results of several batches as one, on the CPU."""
    names = Decomposition.__annotations__
    return Decomposition(*(torch.cat([getattr(part, name) for part in parts]).cpu() for name in names))
