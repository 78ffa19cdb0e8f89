"""The three ways to bind vectors; each is an elementwise product in some basis, in which igm computes.

    map    x ∈ {-1, 1}^D                  in itself               (Gayler 2003)
    hrr    x ∈ R^D, circular convolution  its Fourier transform   (Plate 1995)
    fhrr   x ∈ C^D of modulus one         in itself               (Plate 2003)

A vector in that basis is called its *spectrum*, so one equation about products of spectra holds for all three.  Codewords
have spectra with a mean square of one.  Unbinding multiplies by the conjugate, which is the gradient of ⟨y, a ⊙ b⟩ by b; it
is exact where all moduli are one.  The conventions are those of torchhd's MAP, HRR and FHRR tensors.
"""

from __future__ import annotations

import math
from functools import reduce
from operator import mul

import torch
from torch import Generator, Tensor


class Binding:
    """Elementwise products of bipolar vectors (MAP), which are their own spectra.

    Attributes:
        name: Name of the binding on the command line.
        complex: True if spectra are complex.
    """

    name = "map"
    complex = False

    def spectrum(self, vectors: Tensor) -> Tensor:
        """Returns vectors ``[...,D]`` in the basis of elementwise products ``[...,F]``."""
        return vectors

    def vector(self, spectrum: Tensor, dim: int) -> Tensor:
        """Inverse of :meth:`spectrum`."""
        return spectrum

    def weights(self, dim: int) -> Tensor:
        """Returns the weight of each coordinate of a spectrum in an inner product ``[F]``; they sum to D."""
        return torch.ones(dim)

    def random(self, count: int, dim: int, generator: Generator | None = None) -> Tensor:
        """Draws codewords ``[count,D]``."""
        return torch.randint(0, 2, (count, dim), generator=generator).float() * 2 - 1

    def noise(self, rows: int, dim: int, generator: Generator | None = None) -> Tensor:
        """Draws the spectra of white noise, of variance one in each real coordinate ``[rows,F]``."""
        return torch.randn(rows, dim, generator=generator)

    def bind(self, *vectors: Tensor) -> Tensor:
        """Returns vectors ``[...,D]`` bound into one."""
        return self.vector(reduce(mul, map(self.spectrum, vectors)), vectors[0].shape[-1])


class HolographicBinding(Binding):
    """Circular convolution of real vectors (HRR)."""

    name = "hrr"
    complex = True

    def spectrum(self, vectors: Tensor) -> Tensor:  # noqa: D102
        spectrum: Tensor = torch.fft.rfft(vectors)
        return spectrum

    def vector(self, spectrum: Tensor, dim: int) -> Tensor:  # noqa: D102
        vector: Tensor = torch.fft.irfft(spectrum, n=dim)
        return vector

    def weights(self, dim: int) -> Tensor:  # noqa: D102
        weights = torch.full((dim // 2 + 1,), 2.0)  # a coordinate also stands for its complex conjugate
        weights[0] = 1.0
        if dim % 2 == 0:
            weights[-1] = 1.0
        return weights

    def random(self, count: int, dim: int, generator: Generator | None = None) -> Tensor:  # noqa: D102
        return torch.randn(count, dim, generator=generator) / math.sqrt(dim)

    def noise(self, rows: int, dim: int, generator: Generator | None = None) -> Tensor:  # noqa: D102
        return self.spectrum(self.random(rows, dim, generator))


class FourierBinding(Binding):
    """Elementwise products of complex numbers of modulus one (FHRR)."""

    name = "fhrr"
    complex = True

    def random(self, count: int, dim: int, generator: Generator | None = None) -> Tensor:  # noqa: D102
        angle = (2 * torch.rand(count, dim, generator=generator) - 1) * math.pi
        return torch.polar(torch.ones_like(angle), angle)

    def noise(self, rows: int, dim: int, generator: Generator | None = None) -> Tensor:  # noqa: D102
        return torch.view_as_complex(torch.randn(rows, dim, 2, generator=generator))


BINDINGS: dict[str, Binding] = {each.name: each for each in (Binding(), HolographicBinding(), FourierBinding())}
