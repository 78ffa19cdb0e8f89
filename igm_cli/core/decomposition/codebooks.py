"""The codebooks of K factors, in the basis where binding is an elementwise product."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cached_property, reduce
from operator import mul
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igm_cli.core.decomposition.binding import BINDINGS, Binding
from igm_cli.core.device import to_device
from igm_cli.errors import InputError, counted, reason, some

MOST_CODEBOOKS = 16
FACTOR = re.compile(r"factor_(0|[1-9]\d*)")  # name of a codebook in a file
UNIT = 1e-5  # largest difference from 1 of the modulus of a coordinate that counts as one


class Codebooks:
    """One codebook per factor.

    Args:
        books: Codewords ``[n_k,D]`` of each factor.
        binding: ``map``, ``hrr`` or ``fhrr``.
        precision: Precision of matrix products with codewords, float32 or bfloat16, which is much faster where the
            processor supports it; answers are always judged in float32.

    Attributes:
        spectra: Codewords in the basis of products ``[n_k,F]``.
        weights: Weight of each coordinate of a spectrum in an inner product ``[F]``.
        dim: Dimension D of a vector.
        sizes: Number of codewords n_k of each factor.
        search_space: Number N of possible products.
        values: Number of real numbers in a spectrum, to count operations.
        coordinates: Number P of real numbers in a vector: D, or 2D if it is complex.
        unit: True if all coordinates of codewords, and so those of products, have a modulus of one.
        numbers: Number of each codeword ``[n_k]``, the same wherever, in whichever codebook, the same codeword occurs.

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
        kind, dtype = ("complex", torch.complex64) if torch.is_complex(books[0]) else ("real", torch.float32)
        if (kind == "complex") != (binding == "fhrr"):
            raise InputError(
                f"codewords of the binding {binding!r} cannot be {kind}; choose the binding they fit"
            )
        if (
            binding == "map"
            and all(bool(((book == 0) | (book == 1)).all()) for book in books)
            and any(bool((book == 0).any()) for book in books)
        ):
            raise InputError(BITS)
        self.dim, self.precision = books[0].shape[-1], precision
        self.spectra = [self.binding.spectrum(book.to(dtype)) for book in books]
        self.numbers = _numbered([book.to(dtype) for book in books])
        self.guessed = False
        """Whether the binding was guessed from the codewords rather than named."""
        self._prepare()

    def _prepare(self) -> None:
        self.device = self.spectra[0].device
        self.weights = self.binding.weights(self.dim).to(self.device)
        self.sizes = tuple(len(book) for book in self.spectra)
        self.search_space = math.prod(self.sizes)
        self.coordinates = self.dim * (2 if self.binding.name == "fhrr" else 1)
        self.unit = all(bool(((book.abs() - 1).abs() < UNIT).all()) for book in self.spectra)
        self._rows = [_real(book).to(self.precision) for book in self.spectra]
        self._weighted = [_real(book * self.weights).to(self.precision) for book in self.spectra]
        self.values = self._rows[0].shape[1]
        self.squares = [self.norm(book).square() for book in self.spectra]  # ‖x‖² [n_k]

    def to(self, device: torch.device, precision: torch.dtype | None = None) -> Codebooks:
        """Returns the same codebooks on another device, or in another precision."""
        moved = object.__new__(Codebooks)
        moved.binding, moved.dim, moved.precision = self.binding, self.dim, precision or self.precision
        moved.guessed, moved.numbers = self.guessed, self.numbers
        moved.spectra = [book.to(device) for book in self.spectra]
        moved._prepare()
        return moved

    def spectrum(self, vectors: Tensor) -> Tensor:
        """Returns the spectra ``[B,F]`` of bound vectors ``[B,D]`` of any norm, scaled to a mean square of one."""
        dtype = torch.complex64 if self.binding.name == "fhrr" else torch.float32
        largest = vectors.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        spectra = self.binding.spectrum((vectors / largest).to(self.device, dtype))
        scaled: Tensor = spectra * (self.dim**0.5 / self.norm(spectra)[..., None].clamp_min(1e-20))
        return scaled

    def product(self, indices: Tensor, without: int | None = None) -> Tensor:
        """Returns the products ``[...,F]`` of the codewords with indices ``[...,K]``, except factor ``without``'s."""
        return reduce(mul, (b[indices[..., k]] for k, b in enumerate(self.spectra) if k != without))

    def noise(self, rows: int, generator: torch.Generator) -> Tensor:
        """Draws white noise as spectra ``[rows,F]``."""
        return to_device(self.binding.noise(rows, self.dim, generator), self.device)

    def square(self, spectra: Tensor) -> Tensor:
        """Returns ‖x‖² of spectra ``[...,F]``."""
        return (self.weights * spectra.abs().square()).sum(-1)

    def norm(self, spectra: Tensor) -> Tensor:
        """Returns ‖x‖ of spectra ``[...,F]``."""
        return self.square(spectra).sqrt()

    def similarity(self, one: Tensor, other: Tensor) -> Tensor:
        """Returns the cosine of spectra ``[...,F]``; 0 if one of them is zero."""
        inner = (self.weights * (one.conj() * other).real).sum(-1)
        return inner / (self.norm(one) * self.norm(other)).clamp_min(1e-20)

    def chance_std(self, one: Tensor, other: Tensor) -> Tensor:
        """Returns the standard deviation of the cosine of spectra ``[...,F]`` whose signs, or phases, are independent.

        It is 1/√P for P real coordinates of one modulus.  It is larger where a few large coordinates dominate, as in
        products of HRR, and larger still if both products share codewords.
        """
        half = 0.5 if self.binding.complex else 1.0
        variance = (self.weights.square() * half * one.abs().square() * other.abs().square()).sum(-1)
        return variance.sqrt() / (self.norm(one) * self.norm(other)).clamp_min(1e-20)

    def compare(self, spectra: Tensor, products: Tensor) -> Tensor:
        """Returns ⟨y, p⟩ / ‖p‖ for spectra y ``[B,F]`` and products p ``[P,F]``, ``[B,P]``."""
        inner = self._matmul(_real(spectra * self.weights), _real(products).T)
        return inner / (self.dim**0.5 if self.unit else self.norm(products).clamp_min(1e-20))

    def scores(self, factor: int, spectra: Tensor) -> Tensor:
        """Returns X_kᵀ x, the inner products of spectra ``[B,F]`` with a factor's codewords, real ``[B,n_k]``."""
        return self._matmul(_real(spectra), self._weighted[factor].T)

    def combine(self, factor: int, weights: Tensor) -> Tensor:
        """Returns X_k w, the weighted sums of a factor's codewords: ``[B,n_k]`` to spectra ``[B,F]``."""
        return _complex(self._matmul(weights, self._rows[factor]), self.binding.complex)

    def _matmul(self, one: Tensor, other: Tensor) -> Tensor:
        return (one.to(self.precision) @ other.to(self.precision)).float()

    @cached_property
    def inverse_grams(self) -> list[Tensor]:
        """(Re XᴴX)⁻¹ of each factor ``[n_k,n_k]``, real; the pseudo-inverse where codewords are linearly dependent."""
        books = zip(self._weighted, self._rows, strict=True)
        # on the CPU: not every device has float64
        grams = (one.cpu().double() @ other.cpu().double().T for one, other in books)
        return [torch.linalg.pinv(gram, hermitian=True).float().to(self.device) for gram in grams]


def check_books(books: Sequence[Tensor]) -> None:
    """Raises an :class:`InputError` for codebooks that cannot be used, which says which and why."""
    if len(books) < 2:
        are = "is" if len(books) == 1 else "are"
        raise InputError(
            f"{counted(len(books), 'codebook')} {are} too few to take a product apart; give two or more"
        )
    if len(books) > MOST_CODEBOOKS:
        raise InputError(
            f"{len(books)} codebooks are too many to take a product apart; give {MOST_CODEBOOKS} at most"
        )
    for number, book in enumerate(books):
        fault = _fault(book, books[0])
        if fault:
            raise InputError(f"codebook {number} {fault}")


def _fault(book: Tensor, first: Tensor) -> str:
    """Returns what is wrong with a codebook, given the first one; empty if nothing is."""
    if book.ndim != 2:
        return f"has the shape {list(book.shape)}; it must be [codewords, D]"
    if len(book) < 2:
        return f"has {counted(len(book), 'codeword')}, so there is nothing to choose; give two or more"
    if not book.shape[1]:
        return "has codewords without a single number; save it again"
    if book.shape[1] != first.shape[1]:
        return f"has dimension {book.shape[1]}, codebook 0 has {first.shape[1]}; all must have the same"
    if torch.is_complex(book) != torch.is_complex(first):
        return "and codebook 0 are not both real or both complex"
    if not torch.isfinite(book).all():
        return "has entries that are not finite; repair it"
    return "has a codeword that is zero; leave it out" if (book.abs().sum(-1) == 0).any() else ""


def factor_names(names: Sequence[str], where: str) -> list[str]:
    """Returns the names factor_0, factor_1, ... among others, after checking that none is missing; ``where`` they are."""
    numbered = sorted(int(name.removeprefix("factor_")) for name in names if FACTOR.fullmatch(name))
    if not numbered:
        listed = some(sorted(names), 5) or "nothing"
        raise InputError(f"{where} holds {listed}; codebooks must be named factor_0, factor_1, ...")
    missing = sorted(set(range(numbered[-1] + 1)) - set(numbered))
    if missing:
        raise InputError(f"{where} has factor_{numbered[-1]} but no factor_{missing[0]}; number them from 0 on")
    return [f"factor_{number}" for number in numbered]


def numbers(values: Any, name: str) -> Tensor:
    """Returns an array, a tensor, or a list of them or of numbers, as float32 or complex64; ``name`` it in messages."""
    try:
        if isinstance(values, list | tuple) and any(isinstance(each, Tensor) for each in values):
            values = torch.stack(list(values))
        values = values.detach() if isinstance(values, Tensor) else np.asarray(values)
    except (RuntimeError, TypeError, ValueError) as error:  # of different lengths or kinds
        raise InputError(
            f"{name} cannot be made one array ({reason(error)}); give an array or a tensor"
        ) from error
    dtype, known = str(values.dtype), isinstance(values, Tensor) or values.dtype.kind in "biufc"
    if not known or dtype in ("bool", "torch.bool"):
        texts = not known and values.dtype.kind in "US"
        kind = "truth values" if known else "texts" if texts else f"values of the type {dtype}"
        raise InputError(f"{name} holds {kind}, not numbers; bipolar vectors hold 1 and -1")
    if isinstance(values, Tensor):
        finite = bool(torch.isfinite(values).all())
        plain = values.to(torch.complex64 if torch.is_complex(values) else torch.float32)
    else:
        finite = bool(np.isfinite(values).all())
        with np.errstate(over="ignore"):  # the value becomes infinite, and is refused as such
            copied = np.array(values, dtype=np.complex64 if values.dtype.kind == "c" else np.float32)
        plain = torch.from_numpy(copied)
    if finite and not torch.isfinite(plain).all():
        raise InputError(f"{name} holds numbers beyond those of float32 (3.4e38); scale them")
    return plain


def guess_binding(books: Sequence[Tensor]) -> str:
    """Returns the binding of codewords if they leave no doubt.

    It is ``fhrr`` for complex coordinates of modulus one, ``map`` for ±1, and ``hrr`` for real coordinates of different
    moduli if the codewords have a norm of about one, as hrr draws them.

    Raises:
        InputError: If other bindings are possible.
    """
    check_books(books)
    every = torch.cat([book.flatten() for book in books])
    moduli = every.abs()
    if torch.is_complex(every):
        if bool(((moduli - 1).abs() < UNIT).all()):
            return "fhrr"
        raise InputError(
            "complex codewords that are not all of modulus 1 do not tell how they are bound; name the binding, fhrr "
            "if it is that of products of complex numbers"
        )
    if bool((moduli == 1).all()):
        return "map"
    if set(every.unique().tolist()) <= {0.0, 1.0}:
        raise InputError(BITS)
    if bool(((moduli - moduli[0]).abs() < 1e-3 * moduli[0]).all()):
        raise InputError(
            f"codewords of ±{float(moduli[0]):.3g} do not tell how they are bound; name the binding, map if it is that of "
            "products"
        )
    norms = torch.cat([book.norm(dim=-1) for book in books])
    if 0.5 < float(norms.square().mean()) < 2:
        return "hrr"
    raise InputError(
        "these codewords do not tell how they are bound, as their norms are not one; name the binding, map or hrr"
    )


BITS = "codewords of 0 and 1 are not bipolar vectors, which products need; write -1 for every 0 in codebooks and vectors (2 * x - 1)"


def _numbered(books: Sequence[Tensor]) -> list[Tensor]:
    """Returns a number for each codeword ``[n_k]``, the same for the same codewords, on the CPU."""
    known: dict[bytes, int] = {}
    rows = ([row.tobytes() for row in book.detach().cpu().numpy() + 0.0] for book in books)  # no -0
    return [torch.tensor([known.setdefault(row, len(known)) for row in book]) for book in rows]


def _real(values: Tensor) -> Tensor:
    """Returns complex rows as real ones of twice the length, and real ones as they are."""
    return torch.view_as_real(values).flatten(-2) if torch.is_complex(values) else values


def _complex(values: Tensor, wanted: bool) -> Tensor:
    """Inverse of :func:`_real`."""
    return torch.view_as_complex(values.unflatten(-1, (-1, 2)).contiguous()) if wanted else values
