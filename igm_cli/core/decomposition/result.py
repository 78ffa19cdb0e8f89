"""The answer of a decomposition: the codewords, their confidence, and the cost.

In all functions ``spectra`` are bound vectors ``[B,F]``, ``indices`` the codewords of a product for each ``[B,K]``, and
``similarity`` their cosine ``[B]``.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks

CAUTION = 100.0  # c: weight of the hypothesis that a vector is no product at all
BEYOND_CHANCE = 1 - 1e-3  # confidence at which an iteration stops, if no exchange of one factor is better
COLLINEAR = 1e-5  # largest difference from 1 of the cosine of collinear codewords
TIE = 1e-5  # difference in similarity up to which two products cannot be told apart


@dataclass(frozen=True)
class Decomposition:
    """One codeword of each codebook for B bound vectors.

    Attributes:
        indices: Indices of the codewords ``[B,K]``.
        similarity: Cosine of the bound vector and the product of the codewords ``[B]``.
        confidence: Confidence in each index ``[B,K]``: the probability that the product is more than chance, times the
            posterior of the codeword given the others, and the share of equal products that have it (:func:`rearranged`).
        ambiguous: True where another codeword of the factor fits equally well ``[B,K]``.
        iterations: Iterations of the method ``[B]``, 0 if it has none.
        operations: Multiplications and additions ``[B]``, float64 on the CPU.
    """

    indices: Tensor
    similarity: Tensor
    confidence: Tensor
    ambiguous: Tensor
    iterations: Tensor
    operations: Tensor


def beyond_chance(
    codebooks: Codebooks, similarity: Tensor, spectra: Tensor | None = None, indices: Tensor | None = None
) -> Tensor:
    """Returns the confidence that vectors are products of codewords at all, ``1 / (1 + c · hits)``, ``[B]``.

    For unrelated vectors Fisher's z = artanh(s) · √P of their cosine s is nearly normal, P being the number of real
    coordinates.  With the upper tail Q of the normal distribution, chance makes N · Q(z) of all N products this similar.
    Where moduli differ, products that share all but one codeword with the bound one have a larger standard deviation,
    which is allowed for if ``spectra`` and ``indices`` are given.
    """
    z = similarity.cpu().double().clamp(-1 + 1e-12, 1 - 1e-12).atanh()  # not every device has float64
    hits = math.log(codebooks.search_space) + torch.special.log_ndtr(-z * math.sqrt(codebooks.coordinates))
    if spectra is not None and indices is not None and not codebooks.unit:
        std = codebooks.chance_std(codebooks.product(indices), spectra).cpu()
        hits = torch.logaddexp(hits, math.log(sum(codebooks.sizes)) + torch.special.log_ndtr(-z / std))
    return torch.sigmoid(-(hits + math.log(CAUTION))).float().to(similarity.device)


def exchanges(codebooks: Codebooks, spectra: Tensor, indices: Tensor) -> list[Tensor]:
    """Returns the similarity of vectors and all products with one codeword exchanged, ``[B,n_k]`` for each factor k."""
    exact = codebooks if codebooks.precision == torch.float32 else codebooks.to(codebooks.device, torch.float32)
    result = []
    for factor in range(len(codebooks.sizes)):
        rest = codebooks.product(indices, without=factor)
        norms = codebooks.norm(spectra)[:, None] * _norms(codebooks, rest, factor)
        result.append(exact.scores(factor, spectra * rest.conj()) / norms.clamp_min(1e-20))
    return result


def _norms(codebooks: Codebooks, rest: Tensor, factor: int) -> Tensor | float:
    """Returns the norms of products with all codewords of a factor ``[B,n_k]``; one for all if all moduli are one."""
    if codebooks.unit:
        return float(codebooks.dim**0.5)
    squares = (rest.abs().square() * codebooks.weights) @ codebooks.spectra[factor].abs().square().T
    return squares.sqrt()


def decided(codebooks: Codebooks, spectra: Tensor, indices: Tensor, similarity: Tensor) -> Tensor:
    """Returns whether products are similar to their vectors beyond chance and no exchange of one factor is better.

    A product that reproduces its vector is always decided: no other can be better.
    """
    result = similarity >= 1 - TIE
    rows = (~result).nonzero()[:, 0]
    if len(rows):
        spectra, indices, similarity = spectra[rows], indices[rows], similarity[rows]
        sure = beyond_chance(codebooks, similarity, spectra, indices) >= BEYOND_CHANCE
        best = torch.stack([each.amax(1) for each in exchanges(codebooks, spectra, indices)], 1)
        result[rows] = sure & (best.amax(1) <= similarity + TIE)
    return result


class SearchState:
    """The best product found so far for each of B problems and its cost, with the fields of :class:`Decomposition`.

    Attributes:
        decided: True where the search has ended ``[B]``.
    """

    def __init__(self, codebooks: Codebooks, spectra: Tensor) -> None:
        problems, device = len(spectra), spectra.device
        self.codebooks, self.spectra = codebooks, spectra
        self.indices = torch.zeros(problems, len(codebooks.sizes), dtype=torch.long, device=device)
        self.similarity = torch.full((problems,), -2.0, device=device)
        self.decided = torch.zeros(problems, dtype=torch.bool, device=device)
        self.iterations = torch.zeros(problems, dtype=torch.long, device=device)
        self.operations = torch.zeros(problems, dtype=torch.float64)

    def undecided(self) -> Tensor:
        """Returns the indices of the undecided problems."""
        return (~self.decided).nonzero()[:, 0]

    def improve(self, rows: Tensor, indices: Tensor, similarity: Tensor) -> Tensor:
        """Keeps products ``[R,K]`` for different problems ``[R]`` where they are better, and returns where ``[R]``."""
        better = similarity > self.similarity[rows]
        self.indices[rows] = torch.where(better[:, None], indices, self.indices[rows])
        self.similarity[rows] = torch.where(better, similarity, self.similarity[rows])
        return better

    def result(self) -> Decomposition:
        """Returns the best products, with their confidence."""
        codebooks, similarity = self.codebooks, self.similarity
        chance = beyond_chance(codebooks, similarity, self.spectra, self.indices)
        # of a posterior with Gaussian noise, whose variance is that of the residual, [B]
        precision = codebooks.coordinates * similarity / (1 - similarity.square()).clamp_min(1e-6)
        confidence, ambiguous = [], []
        for factor, alike in enumerate(exchanges(codebooks, self.spectra, self.indices)):
            chosen = self.indices[:, factor : factor + 1]
            posterior = torch.softmax(precision.clamp_min(0)[:, None] * alike, 1).gather(1, chosen)[:, 0]
            confidence.append(chance * posterior)
            ties = (alike >= alike.gather(1, chosen) - TIE).sum(1) > 1
            ambiguous.append(ties & (similarity > TIE))
        pairs = phase_equivalent(codebooks, self.indices)
        share = rearranged(codebooks, self.indices)
        sure = torch.stack(confidence, 1) * torch.where(pairs, 0.5, 1.0) * share
        tied = torch.stack(ambiguous, 1) | pairs | (share < 1)
        return Decomposition(self.indices, similarity, sure, tied, self.iterations, self.operations)


def phase_equivalent(codebooks: Codebooks, indices: Tensor) -> Tensor:
    """Returns which codewords of two factors may be exchanged together for the same product ``[B,K]``.

    These are -x and -y for x and y, and e^{iφ} x and e^{-iφ} y in general.
    """
    result = torch.zeros_like(indices, dtype=torch.bool)
    phases = {}  # multiples e^{iφ} ≠ 1 that turn the chosen codeword into another [B,n_k], else 0
    for factor, spectra in enumerate(codebooks.spectra):
        book = spectra / codebooks.norm(spectra)[:, None]
        cosine = (book[indices[:, factor]].conj() * codebooks.weights) @ book.T
        collinear = (cosine.abs() > 1 - COLLINEAR) & ((cosine - 1).abs() > COLLINEAR**0.5)
        if collinear.any():
            phases[factor] = torch.where(collinear, cosine, torch.zeros_like(cosine))
    for one, other in itertools.combinations(phases, 2):
        product = phases[one][:, :, None] * phases[other][:, None, :]
        same = ((product - 1).abs() < TIE**0.5).flatten(1).any(1)
        result[:, one] |= same
        result[:, other] |= same
    return result


def rearranged(codebooks: Codebooks, indices: Tensor) -> Tensor:
    """Returns how many of the equal products that codewords shared by codebooks make keep each codeword's place ``[B,K]``.

    It is a proportion, 1 without shared codewords.  Equal products have the same codewords in another order.  Their number is
    the permanent of the matrix of how often the codeword of one factor occurs in the codebook of another.  In ``map``
    a codeword bound to itself is all ones, as any other is that both codebooks have; that is counted for the two alone.
    """
    share = torch.ones(indices.shape, dtype=torch.float64)
    every = torch.cat(codebooks.numbers)
    codewords = int(every.max()) + 1
    counts = torch.stack([n.bincount(minlength=codewords) for n in codebooks.numbers])  # [K,codewords]
    if int((counts > 0).sum(0).max()) == 1:
        return share.to(indices.device, torch.float32)
    chosen = torch.stack([n[i] for n, i in zip(codebooks.numbers, indices.cpu().T, strict=True)], 1)
    same = chosen[:, :, None] == chosen[:, None, :]  # [B,K,K]
    kinds, kind = counts.T[chosen].unique(dim=0, return_inverse=True)  # how often codeword j is in codebook k
    whole = _permanent(kinds)
    for factor in range(indices.shape[1]):
        kept = kinds.clone()
        kept[:, factor] = 0
        kept[:, factor, factor] = kinds[:, factor, factor]
        share[:, factor] = (_permanent(kept) / whole)[kind] * same[:, factor].sum(1)
    if codebooks.binding.name == "map" and codebooks.unit:
        others = same & ~torch.eye(indices.shape[1], dtype=torch.bool)
        both = (counts > 0).long() @ (counts > 0).long().T  # codewords that two codebooks have [K,K]
        share /= torch.where(others, both, 1).amax(2)
    return share.to(indices.device, torch.float32)


def _permanent(matrices: Tensor) -> Tensor:
    """Returns the permanents of matrices ``[M,K,K]`` of counts ``[M]``, float64."""
    size = matrices.shape[1]
    # the ways to give each set of columns to the rows so far
    ways = torch.zeros(len(matrices), 2**size, dtype=torch.float64)
    ways[:, 0] = 1
    for row in matrices.unbind(1):
        grown = torch.zeros_like(ways)
        for column in range(size):
            by_column = (len(matrices), -1, 2, 2**column)  # the sets without the column and with it
            grown.view(by_column)[:, :, 1] += ways.view(by_column)[:, :, 0] * row[:, column, None, None]
        ways = grown
    return ways[:, -1]


def join(parts: list[Decomposition]) -> Decomposition:
    """Returns the results of several batches as one, on the CPU."""
    names = Decomposition.__annotations__
    return Decomposition(*(torch.cat([getattr(part, name) for part in parts]).cpu() for name in names))
