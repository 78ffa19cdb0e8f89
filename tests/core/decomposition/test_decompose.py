"""Every method of decomposition: what it finds, how sure it is, and what is refused."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch

from igm_cli.core.decomposition.binding import BINDINGS
from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.decompose import METHODS, decompose
from igm_cli.core.decomposition.problems import random_problems
from igm_cli.core.decomposition.resonator import Dynamics, Factorizer, Resonator, State, Step, phase
from igm_cli.errors import InputError, UsageError

BOOKS = [torch.ones(3, 8), torch.ones(3, 8)]


@pytest.mark.parametrize("name", sorted(BINDINGS))
def test_exhaustive_search_finds_the_most_similar_product_of_all(name: str) -> None:
    problems = random_problems(4, 3, 16, 6, binding=name, noise=1.5, seed=5)
    books = problems.codebooks
    every = torch.tensor(list(itertools.product(range(4), repeat=3)))
    alike = books.similarity(books.product(every)[None], books.spectrum(problems.vectors)[:, None])
    found = decompose(problems.vectors, books, "exhaustive")
    assert torch.equal(found.indices, every[alike.argmax(1)])
    assert torch.allclose(found.similarity, alike.amax(1), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", sorted(BINDINGS))
def test_every_method_takes_easy_products_apart(method: str, name: str) -> None:
    problems = random_problems(10, 3, 500, 12, binding=name, seed=1)
    found = decompose(problems.vectors, problems.codebooks, method)
    right = (found.indices == problems.truth).all(1)
    assert right.float().mean() > 0.9
    assert (found.similarity[right] > 0.999).all() and (found.confidence[right] > 0.999).all()
    assert (found.iterations <= 100).all() and (found.operations > 0).all()


def test_more_products_than_can_be_tried_are_refused() -> None:
    for books in ([torch.ones(100, 8)] * 8, [torch.ones(1000, 8)] * 16):
        with pytest.raises(UsageError, match="products are too many to try each; use --method auto"):
            decompose(torch.ones(1, 8), Codebooks(books), "exhaustive")


def test_codebooks_of_different_sizes() -> None:
    books = [
        torch.randint(0, 2, (n, 900), generator=torch.Generator().manual_seed(n)) * 2.0 - 1 for n in (7, 40, 90)
    ]
    truth = torch.tensor([[6, 39, 89], [0, 0, 0]])
    vectors = torch.stack([books[0][a] * books[1][b] * books[2][c] for a, b, c in truth.tolist()])
    for method in ("auto", "exhaustive", "resonator"):
        assert torch.equal(decompose(vectors, Codebooks(books), method).indices, truth), method


def test_what_was_never_bound_is_not_believed() -> None:
    problems = random_problems(20, 3, 500, 1)
    strangers = BINDINGS["map"].random(40, 500, torch.Generator().manual_seed(9))
    for method in ("auto", "coupled", "exhaustive"):
        found = decompose(strangers, problems.codebooks, method)
        assert (found.confidence < 0.9).all(), method
        assert float(found.confidence.mean()) < 0.1, method


@pytest.mark.parametrize("size", [1e-25, 1e-3, 1e18])
@pytest.mark.parametrize("method", ["auto", "coupled", "factorizer"])
def test_the_size_of_a_vector_does_not_matter(size: float, method: str) -> None:
    problems = random_problems(10, 3, 400, 4, seed=12)
    found = decompose(size * problems.vectors, problems.codebooks, method)
    assert torch.equal(found.indices, problems.truth)
    assert torch.allclose(found.similarity, torch.ones(4), atol=1e-5)


def test_bfloat16_products_find_the_same() -> None:
    problems = random_problems(20, 3, 600, 10, seed=7)
    coarse = problems.codebooks.to(torch.device("cpu"), torch.bfloat16)
    for method in ("exhaustive", "coupled", "factorizer", "auto"):
        found = decompose(problems.vectors, coarse, method)
        assert (found.indices == problems.truth).all(1).float().mean() > 0.9, method
        assert float(found.similarity.max()) == pytest.approx(1, abs=1e-5)


def test_the_same_seed_gives_the_same_result() -> None:
    problems = random_problems(25, 3, 300, 300, seed=8)
    one, other = (
        decompose(problems.vectors, problems.codebooks, "coupled", iterations=20, seed=3) for _ in range(2)
    )
    assert torch.equal(one.indices, other.indices) and torch.equal(one.iterations, other.iterations)
    changed = decompose(problems.vectors, problems.codebooks, "coupled", iterations=20, seed=4)
    assert not torch.equal(one.iterations, changed.iterations)


def test_problems_that_are_decided_use_no_more_iterations() -> None:
    easy = random_problems(5, 2, 500, 8)
    assert int(decompose(easy.vectors, easy.codebooks, "resonator").iterations.max()) < 10


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (torch.ones(2, 9), "dimension 9"),
        (torch.ones(8), "shape"),
        (torch.zeros(1, 8), "zero"),
        (torch.full((1, 8), float("inf")), "not finite"),
        (torch.ones(1, 8, dtype=torch.complex64), "complex"),
    ],
)
def test_vectors_that_cannot_be_taken_apart(vectors: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decompose(vectors, Codebooks(BOOKS))


def test_names_that_are_not_known() -> None:
    with pytest.raises(UsageError, match="known are"):
        decompose(torch.ones(1, 8), Codebooks(BOOKS), "magic")
    with pytest.raises(InputError, match="binding"):
        Codebooks(BOOKS, "xor")
    with pytest.raises(InputError, match="cannot be real"):
        Codebooks(BOOKS, "fhrr")
    with pytest.raises(UsageError, match="at least 1"):
        decompose(torch.ones(1, 8), Codebooks(BOOKS), "coupled", iterations=0)


@dataclass(frozen=True)
class Scripted(Dynamics):
    """Believes in one product after the other."""

    answers: torch.Tensor

    def start(self, codebooks: Codebooks, spectra: torch.Tensor, generator: torch.Generator) -> State:
        return [spectra]

    def step(
        self, codebooks: Codebooks, spectra: torch.Tensor, state: State, i: int, generator: torch.Generator
    ) -> Step:
        chosen = self.answers[i].expand(len(spectra), -1).T
        return state, [torch.eye(size)[index] for size, index in zip(codebooks.sizes, chosen, strict=True)]


def test_an_iteration_keeps_the_best_product_that_it_has_seen() -> None:
    codebooks = random_problems(8, 3, 200, 1).codebooks
    strangers = BINDINGS["map"].random(5, 200, torch.Generator().manual_seed(1))
    answers = torch.randint(0, 8, (7, 3), generator=torch.Generator().manual_seed(2))
    alike = codebooks.similarity(codebooks.product(answers), strangers[:, None])
    assert len(set(alike.argmax(1).tolist())) > 1  # not always the last
    found = decompose(strangers, codebooks, Scripted(answers), iterations=7)
    assert torch.equal(found.indices, answers[alike.argmax(1)])
    assert found.iterations.tolist() == [7] * 5


@pytest.mark.parametrize("method", ["resonator", "attention"])
def test_what_a_deterministic_method_finds_does_not_depend_on_the_batch(method: str) -> None:
    problems = random_problems(12, 3, 250, 8, seed=3)
    together = decompose(problems.vectors, problems.codebooks, method)
    for row, vector in enumerate(problems.vectors):
        alone = decompose(vector[None], problems.codebooks, method)
        assert torch.equal(alone.indices[0], together.indices[row])
        assert alone.iterations[0] == together.iterations[row]


@pytest.mark.parametrize("name", sorted(BINDINGS))
def test_ols_weights_project_on_the_span_of_the_codewords(name: str) -> None:
    codebooks, generator = (
        random_problems(6, 2, 60, 1, binding=name).codebooks,
        torch.Generator().manual_seed(1),
    )
    inside = codebooks.combine(0, torch.randn(3, 6, generator=generator))
    estimate, _ = Resonator("ols").update(codebooks, 0, inside, generator)
    assert torch.allclose(estimate, phase(inside), atol=1e-3)


def test_the_factorizer_sums_the_codewords_whose_similarity_reaches_the_threshold() -> None:
    codebooks, generator = random_problems(6, 2, 300, 1).codebooks, torch.Generator().manual_seed(1)
    seen = codebooks.spectra[0][[2, 5]] + 0.1 * codebooks.noise(2, generator)
    estimate, _ = Factorizer(noise=0, threshold=8).update(codebooks, 0, seen, generator)
    assert torch.equal(
        estimate, codebooks.spectra[0][[2, 5]]
    )  # the similarity is √300 to one, about 1 to the others
    every, _ = Factorizer(noise=0, threshold=1e6).update(codebooks, 0, seen, generator)
    assert torch.equal(every, Resonator("outer").update(codebooks, 0, seen, generator)[0])
    _, read = Factorizer(noise=0.5).update(codebooks, 0, codebooks.noise(500, generator), generator)
    assert float(read.std()) == pytest.approx(1.25**0.5, abs=0.05)  # of chance, and of the noise
