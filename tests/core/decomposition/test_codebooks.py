"""Bindings and codebooks: products, inner products, similarity by chance, and codebooks that are refused."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import reduce
from operator import mul

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from igm_cli.core.decomposition.binding import BINDINGS
from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.decompose import decompose
from igm_cli.core.decomposition.problems import random_problems
from igm_cli.core.decomposition.result import exchanges
from igm_cli.errors import InputError

names = st.sampled_from(sorted(BINDINGS))
BOOKS = [torch.ones(3, 8), torch.ones(3, 8)]


@given(names, st.integers(2, 65), st.integers(2, 4), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_what_is_bound_can_be_unbound(name: str, dim: int, factors: int, seed: int) -> None:
    binding, generator = BINDINGS[name], torch.Generator().manual_seed(seed)
    vectors = [
        binding.random(3, dim, generator).to(torch.complex128 if name == "fhrr" else torch.float64)
        for _ in range(factors)
    ]
    others = reduce(mul, map(binding.spectrum, vectors[1:]))
    left = binding.vector(binding.spectrum(binding.bind(*vectors)) / others, dim)
    assert torch.allclose(left, vectors[0], atol=1e-5)


@given(names, st.integers(2, 40), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_inner_products_are_the_same_in_both_bases(name: str, dim: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    books = [BINDINGS[name].random(4, dim, generator) for _ in range(2)]
    codebooks = Codebooks(books, name)
    vector = BINDINGS[name].random(1, dim, generator)
    scores = codebooks.scores(0, codebooks.binding.spectrum(vector))[0]
    plain = (books[0].conj() * vector).sum(1).real
    scale = dim if name == "hrr" else 1  # spectra of HRR codewords have a mean square of one
    assert torch.allclose(scores / scale, plain, atol=1e-3)


def test_circular_convolution_is_what_hrr_binds_by() -> None:
    a, b = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([sum(a[j] * b[(i - j) % 5] for j in range(5)) for i in range(5)])
    assert torch.allclose(BINDINGS["hrr"].bind(a, b), expected, atol=1e-6)


@pytest.mark.parametrize("name", sorted(BINDINGS))
def test_the_similarity_that_chance_gives_is_known(name: str) -> None:
    """Also of HRR products that share all codewords but one, whose few large coordinates decide together."""
    generator, kind = torch.Generator().manual_seed(3), BINDINGS[name]
    shared = kind.bind(kind.random(400, 300, generator), kind.random(400, 300, generator))
    books = Codebooks([kind.random(400, 300, generator), kind.random(400, 300, generator)], name)
    one, other = (books.spectrum(kind.bind(shared, kind.random(400, 300, generator))) for _ in range(2))
    z = books.similarity(one, other) / books.chance_std(one, other)
    assert float(z.square().mean().sqrt()) == pytest.approx(1, abs=0.12)


def test_codewords_that_are_the_same_are_ambiguous() -> None:
    problems = random_problems(12, 3, 300, 1, seed=6)
    books = [book.clone() for book in problems.codebooks.spectra]
    books[1][3] = books[1][8]
    vectors = torch.stack([books[0][2] * books[1][8] * books[2][5], books[0][2] * books[1][4] * books[2][5]])
    found = decompose(vectors, Codebooks(books))
    assert found.ambiguous.tolist() == [[False, True, False], [False, False, False]]
    assert float(found.confidence[0, 1]) == pytest.approx(0.5, abs=0.01)
    assert int(found.indices[0, 1]) in (3, 8)


@pytest.mark.parametrize("name", sorted(BINDINGS))
@pytest.mark.parametrize(
    ("rows", "truth"),
    [
        ([range(5), range(5)], [(1, 3), (4, 4)]),
        ([range(5), range(5), range(5)], [(1, 3, 4)]),
        (
            [range(5), range(3, 8), range(20, 24)],
            [(1, 2, 0), (3, 1, 2), (3, 0, 2)],
        ),  # two shared, in their own order
        ([[0, 1, 2, 0], [0, 1, 5], [5, 2, 7]], [(2, 0, 0), (0, 1, 0), (0, 2, 1)]),  # one twice, three in a ring
        ([range(4), range(10, 14), range(20, 24)], [(1, 2, 3)]),
    ],
)
def test_codewords_shared_by_codebooks_are_as_sure_as_a_choice_among_all_equal_products(
    name: str, rows: list[Sequence[int]], truth: list[tuple[int, ...]]
) -> None:
    words = BINDINGS[name].random(24, 200, torch.Generator().manual_seed(3))
    codebooks = Codebooks([words[list(row)] for row in rows], name)
    spectra = codebooks.product(torch.tensor(truth))
    vectors = codebooks.binding.vector(spectra, 200)
    every = torch.tensor(list(itertools.product(*map(range, codebooks.sizes))))
    alike = codebooks.similarity(codebooks.product(every)[None], spectra[:, None])
    found = decompose(vectors, codebooks)
    for row, indices in enumerate(found.indices):
        equal = every[alike[row] > 1 - 1e-4]
        sure = (equal == indices).float().mean(0)
        assert torch.allclose(found.confidence[row], sure, atol=0.01), truth[row]
        assert torch.equal(found.ambiguous[row], sure < 1)


@pytest.mark.parametrize("turn", [-1.0, 1j])
def test_codewords_with_equivalent_phases_are_ambiguous(turn: complex) -> None:
    """x ⊙ y = (e^{iφ} x) ⊙ (e^{-iφ} y)."""
    problems = random_problems(12, 3, 300, 1, seed=6, binding="map" if turn == -1 else "fhrr")
    books = [book.clone() for book in problems.codebooks.spectra]
    books[0][7], books[2][9] = turn * books[0][2], books[2][5] / turn
    vectors = torch.stack([books[0][a] * books[1][4] * books[2][b] for a, b in ((2, 5), (3, 3))])
    found = decompose(vectors, Codebooks(books, problems.codebooks.binding.name))
    assert found.ambiguous.tolist() == [[True, False, True], [False, False, False]]
    assert (found.confidence[0] < 0.51).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("books", "message"),
    [
        ([BOOKS[0]], "too few"),
        ([BOOKS[0], torch.ones(3, 9)], "dimension 9"),
        ([BOOKS[0], torch.ones(1, 8)], "nothing to choose"),
        ([BOOKS[0], torch.ones(8)], "shape"),
        ([BOOKS[0], torch.zeros(3, 8)], "zero"),
        ([BOOKS[0], torch.full((3, 8), float("nan"))], "not finite"),
        ([BOOKS[0], torch.ones(3, 8, dtype=torch.complex64)], "not both"),
    ],
)
def test_codebooks_that_cannot_be_used(books: list[torch.Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Codebooks(books)


@pytest.mark.parametrize("name", sorted(BINDINGS))
def test_exchanges_are_the_similarities_of_the_products_with_one_other_codeword(name: str) -> None:
    problems = random_problems(5, 3, 40, 2, binding=name, noise=0.5, seed=4)
    books, indices = problems.codebooks, problems.truth
    spectra = books.spectrum(problems.vectors)
    for factor, alike in enumerate(exchanges(books, spectra, indices)):
        for codeword in range(5):
            other = indices.clone()
            other[:, factor] = codeword
            expected = books.similarity(books.product(other), spectra)
            assert torch.allclose(alike[:, codeword], expected, atol=1e-5)
