"""How vectors are bound, as elementwise products.

Each of the three bindings is an elementwise product in some basis, its *spectrum*:

    map    x ∈ {-1, 1}^D                  as it is                (Gayler 2003)
    hrr    x ∈ R^D, circular convolution  its Fourier transform   (Plate 1995)
    fhrr   x ∈ C^D of modulus one         as it is                (Plate 2003)

so what is said about products of spectra holds for all.  In these bases codewords have coordinates of mean square one,
and unbinding is the product with the conjugate, the gradient of ⟨y, a ⊙ b⟩ by b; it is exact where moduli are one.
The conventions are those of torchhd's MAP, HRR and FHRR tensors.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Name: TypeAlias = Literal["map", "hrr", "fhrr"]


class Binding:
    """Bipolar Hadamard products: the identity is its own basis.

    Attributes:
        name: ``map``.
        complex: Whether spectra are complex.
    """

    name: Name = "map"
    complex = False

    def spectrum(self, vectors: Tensor) -> Tensor:
        """Vectors ``[...,D]`` in the basis of elementwise products ``[...,F]``."""
        return vectors

    def vector(self, spectrum: Tensor, dim: int) -> Tensor:
        """Inverse of :meth:`spectrum`."""
        return spectrum

    def weights(self, dim: int) -> Tensor:
        """How much a coordinate of a spectrum counts in an inner product ``[F]``; they sum to D."""
        return torch.ones(dim)

    def random(self, count: int, dim: int, generator: torch.Generator | None = None) -> Tensor:
        """Codewords ``[count,D]``."""
        return torch.randint(0, 2, (count, dim), generator=generator).float() * 2 - 1

    def noise(self, rows: int, dim: int, generator: torch.Generator | None = None) -> Tensor:
        """White noise with a standard deviation of one a real coordinate, as a spectrum ``[rows,F]``."""
        return torch.randn(rows, dim, generator=generator)

    def bind(self, *vectors: Tensor) -> Tensor:
        """The bound vector of vectors ``[...,D]``."""
        product = self.spectrum(vectors[0])
        for vector in vectors[1:]:
            product = product * self.spectrum(vector)
        return self.vector(product, vectors[0].shape[-1])

    def unbind(self, bound: Tensor, *vectors: Tensor) -> Tensor:
        """What was bound to vectors ``[...,D]`` to give ``bound``, by exact inverses in the spectrum."""
        spectrum = self.spectrum(bound)
        for vector in vectors:
            spectrum = spectrum / self.spectrum(vector)
        return self.vector(spectrum, bound.shape[-1])


class HolographicBinding(Binding):
    """Circular convolution of real vectors (HRR)."""

    name: Name = "hrr"
    complex = True

    def spectrum(self, vectors: Tensor) -> Tensor:  # noqa: D102
        spectrum: Tensor = torch.fft.rfft(vectors)
        return spectrum

    def vector(self, spectrum: Tensor, dim: int) -> Tensor:  # noqa: D102
        vector: Tensor = torch.fft.irfft(spectrum, n=dim)
        return vector

    def weights(self, dim: int) -> Tensor:  # noqa: D102
        weights = torch.full((dim // 2 + 1,), 2.0)  # a coordinate stands for its mirror image too
        weights[0] = 1.0
        if dim % 2 == 0:
            weights[-1] = 1.0
        return weights

    def random(self, count: int, dim: int, generator: torch.Generator | None = None) -> Tensor:  # noqa: D102
        return torch.randn(count, dim, generator=generator) / math.sqrt(dim)

    def noise(self, rows: int, dim: int, generator: torch.Generator | None = None) -> Tensor:  # noqa: D102
        return self.spectrum(self.random(rows, dim, generator))


class FourierBinding(Binding):
    """Products of complex numbers of modulus one (FHRR)."""

    name: Name = "fhrr"
    complex = True

    def random(self, count: int, dim: int, generator: torch.Generator | None = None) -> Tensor:  # noqa: D102
        angle = (2 * torch.rand(count, dim, generator=generator) - 1) * math.pi
        return torch.polar(torch.ones_like(angle), angle)

    def noise(self, rows: int, dim: int, generator: torch.Generator | None = None) -> Tensor:  # noqa: D102
        return torch.view_as_complex(torch.randn(rows, dim, 2, generator=generator))


BINDINGS: dict[str, Binding] = {each.name: each for each in (Binding(), HolographicBinding(), FourierBinding())}
