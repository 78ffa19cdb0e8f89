"""``auto``: meeting in the middle, tables under noise, and the last resorts."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from igm_cli.core.decomposition.binding import BINDINGS
from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.decompose import decompose
from igm_cli.core.decomposition.exhaustive import exhaustive_operations
from igm_cli.core.decomposition.meet_in_the_middle import Halves
from igm_cli.core.decomposition.problems import random_problems
from igm_cli.core.decomposition.result import decided


@pytest.mark.parametrize(
    ("codewords", "factors", "dim"), [(60, 3, 256), (100, 2, 300), (20, 5, 400), (100, 4, 600)]
)
def test_auto_meets_in_the_middle(codewords: int, factors: int, dim: int) -> None:
    problems = random_problems(codewords, factors, dim, 20, seed=2)
    found = decompose(problems.vectors, problems.codebooks)
    assert torch.equal(found.indices, problems.truth)
    assert float(found.operations.mean()) < 0.1 * 2 * codewords**factors * dim


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_auto_sees_through_noise(noise: float) -> None:
    problems = random_problems(30, 3, 1000, 12, noise=noise, seed=4)
    found = decompose(problems.vectors, problems.codebooks)
    assert torch.equal(found.indices, problems.truth)
    assert (found.confidence > 0.99).all() and (found.similarity < 0.95).all()
    assert (found.iterations == 0).all()  # all products can be compared, so nothing is left to diffusion


def test_where_nothing_else_is_affordable_auto_ends_with_coupled_diffusion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("igm_cli.core.decomposition.auto.MOST_ENTRIES", 0)
    monkeypatch.setattr("igm_cli.core.decomposition.auto.AFFORDABLE", 0)
    problems = random_problems(20, 3, 600, 6, seed=11)
    found = decompose(problems.vectors, problems.codebooks)
    assert torch.equal(found.indices, problems.truth) and (found.iterations > 0).all()


def test_tables_at_sure_coordinates_see_through_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost little beside exhaustive search, which noise of this size would take otherwise."""
    monkeypatch.setattr("igm_cli.core.decomposition.auto.CHEAP", 0)
    problems = random_problems(50, 3, 1000, 6, noise=1.0, seed=4)
    found = decompose(problems.vectors, problems.codebooks)
    assert torch.equal(found.indices, problems.truth)
    assert (found.operations < exhaustive_operations(problems.codebooks) / 4).all()


def test_few_wrong_pairs_meet_by_chance() -> None:
    halves, generator = Halves(random_problems(30, 3, 1000, 1).codebooks), torch.Generator().manual_seed(1)
    coordinates = torch.randperm(1000, generator=generator)[: halves.bits]
    strangers = BINDINGS["map"].random(200, 1000, generator)[:, coordinates]
    numbers, _ = halves.meet(strangers, coordinates)
    assert len(numbers) <= 200 / 4


def test_codewords_with_the_same_key_are_all_returned() -> None:
    """Codewords that differ in two coordinates of 400, which a key does not hold; the better one is the answer."""
    problems = random_problems(20, 3, 400, 1, seed=2)
    books = [book.clone() for book in problems.codebooks.spectra]
    books[2][8] = books[2][3]
    books[2][8, :2] *= -1
    codebooks, coordinates = Codebooks(books), torch.arange(50, 400)
    truth = torch.tensor([[4, 6, 8], [4, 6, 3]])
    vectors, halves = codebooks.product(truth), Halves(codebooks)
    numbers, indices = halves.meet(vectors[:, coordinates[: halves.bits]], coordinates[: halves.bits])
    for row in range(2):
        assert {(4, 6, 8), (4, 6, 3)} <= {tuple(each) for each in indices[numbers == row].tolist()}
    noisy = codebooks.spectrum(vectors + 0.1 * codebooks.noise(2, torch.Generator().manual_seed(0)))
    for candidates, expected in ((truth, [True, True]), (truth.flip(0), [False, False])):
        similarity = codebooks.similarity(codebooks.product(candidates), noisy)
        assert decided(codebooks, noisy, candidates, similarity).tolist() == expected
    found = decompose(vectors, codebooks)
    assert torch.equal(found.indices, truth)
    assert (found.operations < exhaustive_operations(codebooks)).all()


def test_several_tables_are_tried_before_every_product_is_compared() -> None:
    """A key without a flipped sign is drawn in two of three tables at this noise."""
    problems = random_problems(20, 3, 1000, 40, noise=0.5, seed=3)
    found = decompose(problems.vectors, problems.codebooks)
    assert torch.equal(found.indices, problems.truth)
    assert (found.operations < exhaustive_operations(problems.codebooks)).float().mean() > 0.9


@pytest.mark.parametrize("sizes", [(7, 40, 90), (9, 9, 9, 9), (2, 3, 50), (5, 6), (3, 4, 5, 6, 7)])
def test_no_other_halves_are_more_equal(sizes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    halves = Halves(Codebooks([BINDINGS["map"].random(size, 64, generator) for size in sizes]))
    assert sorted(halves.query_factors + halves.table_factors) == list(range(len(sizes)))
    every = [math.prod(part) for n in range(1, len(sizes)) for part in itertools.combinations(sizes, n)]
    assert halves.entries == min(max(queries, math.prod(sizes) // queries) for queries in every)
    assert halves.queries * halves.entries == math.prod(sizes)
