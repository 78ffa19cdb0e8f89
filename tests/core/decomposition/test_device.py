"""Decomposition on a device other than the CPU: one that has no float64, as MPS."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from conftest import ROOT
from torch import Tensor

from igm_cli.core.decomposition import superposition as sums
from igm_cli.core.decomposition.binding import BINDINGS
from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.decompose import METHODS, decompose
from igm_cli.core.decomposition.problems import random_problems
from igm_cli.core.decomposition.resonator import CHECKED_EVERY


@pytest.fixture(scope="module")
def device() -> Iterator[torch.device]:
    """A pretended device, which refuses float64."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import pretended_device

    with pretended_device.MadeOnTheHost(), pretended_device.Pretended(float64=False):
        yield pretended_device.DEVICE
    sys.path.remove(str(ROOT / "benchmarks"))


def test_the_device_refuses_float64(device: torch.device) -> None:
    with pytest.raises(TypeError, match="float64"):
        torch.zeros(2, device=device).double()
    assert torch.ones(2, device=device).cpu().double().sum() == 2


PAIRS = [
    *(("hrr", method) for method in METHODS),
    *((name, "coupled") for name in sorted(BINDINGS) if name != "hrr"),
]
"""What may differ on a device lies in a method or in a binding."""


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_the_same_products_are_found_on_a_device(name: str, method: str, device: torch.device) -> None:
    problems = random_problems(12, 3, 300, 4, binding=name, noise=0.2, seed=1)
    here = decompose(problems.vectors, problems.codebooks, method)
    there = decompose(problems.vectors, problems.codebooks.to(device), method)
    assert torch.equal(here.indices, there.indices) and torch.equal(here.indices, problems.truth)
    torch.testing.assert_close(here.similarity, there.similarity)
    torch.testing.assert_close(here.confidence, there.confidence)
    assert there.operations.dtype == torch.float64 and (there.operations > 0).all()
    assert (there.iterations % CHECKED_EVERY == 0).all() and bool(
        here.iterations.any() == there.iterations.any()
    )


def test_sums_are_found_on_a_device(device: torch.device) -> None:
    problems = random_problems(20, 3, 800, 1, superposed=3, seed=3)
    here, there = (
        sums.superposition(problems.vectors[0], books)
        for books in (problems.codebooks, problems.codebooks.to(device))
    )
    assert here.count == 3 and torch.equal(here.indices, there.indices)
    torch.testing.assert_close(here.errors, there.errors)


def test_products_that_depend_on_each_other_are_weighted_by_the_pseudo_inverse() -> None:
    problems = random_problems(10, 3, 200, 2, binding="hrr", seed=2)
    books: Codebooks = problems.codebooks
    whole = books.spectrum(problems.vectors).sum(0)
    twice = torch.cat([problems.truth, problems.truth[:1]])
    products = books.product(twice)
    gram = ((products.conj() * books.weights) @ products.T).real.double()
    inner = ((products.conj() * books.weights) @ whole).real.double()
    weights: Tensor = (torch.linalg.pinv(gram, hermitian=True, rtol=1e-6) @ inner).float()
    expected = whole - (weights[:, None] * products).sum(0)
    found = sums._residual(books, whole, twice)
    assert torch.linalg.matrix_rank(gram, rtol=1e-6) == 2
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(found, sums._residual(books, whole, problems.truth), atol=1e-3, rtol=0)


def test_a_product_found_twice_counts_once_whatever_the_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the inner products of the two copies differ in their last bit, their weights must not explode."""
    problems = random_problems(10, 3, 200, 2, binding="map", seed=2)
    books: Codebooks = problems.codebooks
    whole = books.spectrum(problems.vectors).sum(0)
    expected = sums._residual(books, whole, problems.truth)
    product = type(books).product

    def rounded(self: Codebooks, indices: Tensor) -> Tensor:
        products = product(self, indices)
        return torch.cat([products[:-1], products[-1:] * (1 + 2e-7)])

    monkeypatch.setattr(type(books), "product", rounded)
    found = sums._residual(books, whole, torch.cat([problems.truth, problems.truth[:1]]))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
