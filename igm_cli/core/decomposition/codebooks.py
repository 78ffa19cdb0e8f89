"""The codebooks of K factors, in the basis where binding is an elementwise product."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from igm_cli.core.decomposition.binding import BINDINGS, Binding
from igm_cli.errors import InputError

COLLINEAR = 1e-5
"""How far from 1 the cosine of codewords of one direction may be."""

UNIT = 1e-5
"""How far from 1 the modulus of a coordinate may be where products are said to have a norm of √D."""


class Codebooks:
    """One codebook a factor.

    Args:
        books: Codewords ``[n_k,D]`` of every factor.
        binding: ``map``, ``hrr`` or ``fhrr``.
        precision: Of matrix products with codewords: float32 or bfloat16, which is much faster where the processor
            has it; what is found is always judged in float32.

    Attributes:
        spectra: Codewords in the basis of products ``[n_k,F]``.
        dim: D.
        unit: Whether all coordinates have a modulus of one, and so have those of products.

    Raises:
        InputError: If the codebooks cannot be used together.
    """

    def __init__(
        self, books: Sequence[Tensor], binding: str = "map", precision: torch.dtype = torch.float32
    ) -> None:
        if binding not in BINDINGS:
            raise InputError(f"unknown binding {binding!r}; known are {', '.join(BINDINGS)}")
        check_books(books)
        self.binding: Binding = BINDINGS[binding]
        if torch.is_complex(books[0]) != (binding == "fhrr"):
            kind = "complex" if torch.is_complex(books[0]) else "real"
            raise InputError(
                f"codewords of the binding {binding!r} cannot be {kind}; choose the binding they fit"
            )
        self.dim, self.precision = books[0].shape[-1], precision
        dtype = torch.complex64 if torch.is_complex(books[0]) else torch.float32
        self.spectra = [self.binding.spectrum(book.to(dtype)) for book in books]
        self._weigh()

    def _weigh(self) -> None:
        weights = self.binding.weights(self.dim).to(self.spectra[0].device)
        self.weights = weights
        self.unit = all(bool(((book.abs() - 1).abs() < UNIT).all()) for book in self.spectra)
        self._inverses: dict[int, Tensor] = {}
        self._turned: dict[int, bool] = {}
        self._rows = [_real(book).to(self.precision) for book in self.spectra]
        self._weighted = [_real(book * weights).to(self.precision) for book in self.spectra]
        self.squares = [self.norm(book).square() for book in self.spectra]  # ‖x‖² [n_k]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codewords of every factor."""
        return tuple(len(book) for book in self.spectra)

    @property
    def search_space(self) -> int:
        """Number of products that can be made."""
        return math.prod(self.sizes)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.spectra[0].device

    @property
    def values(self) -> int:
        """Real numbers of a spectrum, for counts of arithmetic."""
        return self._rows[0].shape[1]

    @property
    def coordinates(self) -> int:
        """Real numbers of a vector: D, or 2D if it is complex."""
        return self.dim * (2 if self.binding.name == "fhrr" else 1)

    def to(self, device: torch.device, precision: torch.dtype | None = None) -> Codebooks:
        """The same on another device, or in another precision."""
        moved = object.__new__(Codebooks)
        moved.binding, moved.dim, moved.precision = self.binding, self.dim, precision or self.precision
        moved.spectra = [book.to(device) for book in self.spectra]
        moved._weigh()
        return moved

    def spectrum(self, vectors: Tensor) -> Tensor:
        """Bound vectors ``[B,D]`` of any size in the basis of products ``[B,F]``, with a mean square of one."""
        dtype = torch.complex64 if self.binding.name == "fhrr" else torch.float32
        largest = vectors.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        spectra = self.binding.spectrum((vectors / largest).to(self.device, dtype))
        brought: Tensor = spectra * (self.dim**0.5 / self.norm(spectra)[..., None].clamp_min(1e-20))
        return brought

    def compare(self, spectra: Tensor, products: Tensor) -> Tensor:
        """Inner products of spectra ``[B,F]`` with products ``[P,F]`` over the products' norms, ``[B,P]``."""
        inner = self._matmul(_real(spectra * self.weights), _real(products).T)
        return inner / (self.dim**0.5 if self.unit else self.norm(products).clamp_min(1e-20))

    def scores(self, factor: int, spectra: Tensor) -> Tensor:
        """Inner products of spectra ``[B,F]`` with all codewords of a factor, real ``[B,n_k]``."""
        return self._matmul(_real(spectra), self._weighted[factor].T)

    def _matmul(self, one: Tensor, other: Tensor) -> Tensor:
        return (one.to(self.precision) @ other.to(self.precision)).float()

    def inverse_gram(self, factor: int) -> Tensor:
        """(Re XᴴX)⁻¹ of a factor's codewords, real ``[n_k,n_k]``; the pseudo-inverse where they depend on each other."""
        if factor not in self._inverses:
            gram = self._weighted[factor].double() @ self._rows[factor].double().T
            self._inverses[factor] = torch.linalg.pinv(gram, hermitian=True).float()
        return self._inverses[factor]

    def has_turned(self, factor: int) -> bool:
        """Whether a codeword of a factor is another one times a number of modulus one, such as -1."""
        if factor not in self._turned:
            every = torch.arange(self.sizes[factor], device=self.device)
            self._turned[factor] = bool((self.turns(factor, every) != 0).any())
        return self._turned[factor]

    def turns(self, factor: int, indices: Tensor) -> Tensor:
        """By what number of modulus one, not 1 itself, every codeword is another: ``[B]`` to ``[B,n_k]``, 0 if by none."""
        book = self.spectra[factor] / self.norm(self.spectra[factor])[:, None]
        cosine = (book[indices].conj() * self.weights) @ book.T
        turned = (cosine.abs() > 1 - COLLINEAR) & ((cosine - 1).abs() > COLLINEAR**0.5)
        return torch.where(turned, cosine, torch.zeros_like(cosine))

    def combine(self, factor: int, weights: Tensor) -> Tensor:
        """Weighted sums of codewords: ``[B,n_k]`` to spectra ``[B,F]``."""
        return _complex(self._matmul(weights, self._rows[factor]), self.binding.complex)

    def noise(self, rows: int, generator: torch.Generator) -> Tensor:
        """White noise as spectra ``[rows,F]``."""
        return self.binding.noise(rows, self.dim, generator).to(self.device)

    def product(self, indices: Tensor) -> Tensor:
        """Spectra of the bound vectors of codewords: ``[...,K]`` to ``[...,F]``."""
        result = self.spectra[0][indices[..., 0]]
        for factor in range(1, len(self.spectra)):
            result = result * self.spectra[factor][indices[..., factor]]
        return result

    def similarity(self, one: Tensor, other: Tensor) -> Tensor:
        """Cosine of spectra ``[...,F]``; 0 if one is zero."""
        inner = (self.weights * (one.conj() * other).real).sum(-1)
        return inner / (self.norm(one) * self.norm(other)).clamp_min(1e-20)

    def spread(self, one: Tensor, other: Tensor) -> Tensor:
        """Standard deviation of the cosine of spectra ``[...,F]`` if their signs, or phases, had nothing to do with each other.

        It is 1/√P for P real coordinates of one modulus, and more where few large coordinates decide, as those of HRR
        products do, the more so if both hold the same codewords.
        """
        half = 0.5 if self.binding.complex else 1.0
        square = (self.weights.square() * half * one.abs().square() * other.abs().square()).sum(-1)
        return square.sqrt() / (self.norm(one) * self.norm(other)).clamp_min(1e-20)

    def norm(self, spectra: Tensor) -> Tensor:
        """‖x‖ of spectra ``[...,F]``."""
        return (self.weights * spectra.abs().square()).sum(-1).sqrt()


def check_books(books: Sequence[Tensor]) -> None:
    """Refuses codebooks that cannot be used.

    Raises:
        InputError: Saying which and why.
    """
    if len(books) < 2:
        raise InputError(f"{len(books)} codebooks are too few to take a product apart; give two or more")
    for number, book in enumerate(books):
        if book.ndim != 2:
            raise InputError(f"codebook {number} has the shape {list(book.shape)}; it must be [codewords, D]")
        if len(book) < 2:
            raise InputError(
                f"codebook {number} has {len(book)} codewords, so there is nothing to choose; give two or more"
            )
        if book.shape[1] != books[0].shape[1]:
            raise InputError(
                f"codebook {number} has dimension {book.shape[1]}, codebook 0 has {books[0].shape[1]}; "
                "all must have the same"
            )
        if torch.is_complex(book) != torch.is_complex(books[0]):
            raise InputError(f"codebook {number} and codebook 0 are not both real or both complex")
        if not torch.isfinite(torch.view_as_real(book) if torch.is_complex(book) else book).all():
            raise InputError(f"codebook {number} has entries that are not finite; repair it")
        if (book.abs().sum(-1) == 0).any():
            raise InputError(f"codebook {number} has a codeword that is zero; leave it out")


def guess_binding(books: Sequence[Tensor]) -> str:
    """What codewords look like: complex ones are bound by ``fhrr``, ±1 by ``map``, other real ones by ``hrr``."""
    if any(torch.is_complex(book) for book in books):
        return "fhrr"
    return "map" if all(bool((book.abs() == 1).all()) for book in books) else "hrr"


def duplicates(book: Tensor) -> Tensor:
    """Which codewords ``[n,D]`` occur more than once ``[n]``."""
    values = torch.view_as_real(book).flatten(-2) if torch.is_complex(book) else book
    _, inverse, counts = torch.unique(values, dim=0, return_inverse=True, return_counts=True)
    same: Tensor = counts[inverse] > 1
    return same


def _real(values: Tensor) -> Tensor:
    """Complex rows as real ones of twice the length."""
    return torch.view_as_real(values).flatten(-2) if torch.is_complex(values) else values


def _complex(values: Tensor, wanted: bool) -> Tensor:
    """Inverse of :func:`_real`."""
    return torch.view_as_complex(values.unflatten(-1, (-1, 2)).contiguous()) if wanted else values
