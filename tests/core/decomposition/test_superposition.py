"""Sums of products: counted and found."""

from __future__ import annotations

import pytest
import torch

from igm_cli.core.decomposition.binding import BINDINGS
from igm_cli.core.decomposition.problems import random_problems
from igm_cli.core.decomposition.superposition import superposition


@pytest.mark.parametrize("name", sorted(BINDINGS))
@pytest.mark.parametrize("count", [1, 2, 4])
def test_superposed_products_are_counted_and_found(name: str, count: int) -> None:
    problems = random_problems(20, 3, 800, 2, binding=name, superposed=count, seed=count)
    for vector, truth in zip(problems.vectors, problems.truth.reshape(2, count, 3), strict=True):
        found = superposition(vector, problems.codebooks)
        assert found.count == count
        assert sorted(found.indices.tolist()) == sorted(truth.tolist())
        assert (found.errors[1:] < found.errors[:-1]).all() and float(found.errors[-1]) < 1e-3
        assert (found.similarity > 0.98).all()  # of each product and what all others leave


def test_products_of_little_weight_are_found() -> None:
    problems = random_problems(20, 3, 800, 2, seed=5)
    found = superposition(problems.vectors[0] + 0.15 * problems.vectors[1], problems.codebooks)
    assert torch.equal(found.indices, problems.truth)
    assert float(found.errors[1]) == pytest.approx(0.15**2, rel=0.1)


@pytest.mark.parametrize("name", sorted(BINDINGS))
@pytest.mark.parametrize("weights", [(1.0, -1.0), (1.0, -0.5), (-1.0, 0.3), (-1.0, -0.6)])
def test_products_of_negative_weight_are_found(name: str, weights: tuple[float, float]) -> None:
    problems = random_problems(20, 3, 800, 2, binding=name, seed=5)
    first, second = problems.vectors
    found = superposition(weights[0] * first + weights[1] * second, problems.codebooks)
    signs = {
        tuple(row): float(s) for row, s in zip(found.indices.tolist(), found.similarity.sign(), strict=True)
    }
    wanted = zip(problems.truth.reshape(2, 3).tolist(), weights, strict=True)
    assert signs == {tuple(row): 1.0 if weight > 0 else -1.0 for row, weight in wanted}
    assert float(found.errors[-1]) < 1e-3


def test_nothing_is_found_in_a_vector_that_holds_no_product() -> None:
    problems = random_problems(20, 3, 500, 1)
    found = superposition(BINDINGS["map"].random(1, 500)[0], problems.codebooks)
    assert found.count == 0 and found.errors.tolist() == [1.0]
