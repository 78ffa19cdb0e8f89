"""Semantic decomposition: bindings, the codebooks' exact denoisers, coupled diffusion, and every solver."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from igm_cli.core.decomposition.binding import BINDINGS
from igm_cli.core.decomposition.codebooks import Codebooks, duplicates
from igm_cli.core.decomposition.coupled import CoupledDiffusion
from igm_cli.core.decomposition.decompose import METHODS, decompose
from igm_cli.core.decomposition.denoiser import posterior, pull, score
from igm_cli.core.decomposition.problems import Problems, random_problems
from igm_cli.core.decomposition.resonator import AttentionResonator
from igm_cli.core.decomposition.superposition import superposition
from igm_cli.errors import InputError, UsageError

names = st.sampled_from(sorted(BINDINGS))


def exact(problems: Problems, method: object = "auto", **options: int) -> float:
    """Share of problems of which all factors are right."""
    found = decompose(problems.vectors, problems.codebooks, method, **options)  # type: ignore[arg-type]
    return float((found.indices == problems.truth).all(1).float().mean())


@given(names, st.integers(2, 65), st.integers(2, 4), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_what_is_bound_can_be_unbound(name: str, dim: int, factors: int, seed: int) -> None:
    binding, generator = BINDINGS[name], torch.Generator().manual_seed(seed)
    vectors = [
        binding.random(3, dim, generator).to(torch.complex128 if name == "fhrr" else torch.float64)
        for _ in range(factors)
    ]
    left = binding.unbind(binding.bind(*vectors), *vectors[1:])
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


@pytest.mark.parametrize("space", ["latent", "codebook"])
@pytest.mark.parametrize("a", [0.05, 0.6])
def test_the_score_is_the_gradient_of_the_noised_codebooks_log_density(space: str, a: float) -> None:
    """log p(x) = logsumexp_i(-‖x - √a c_i‖² / 2(1-a)), the points c_i being codewords, or one-hot."""
    codebooks = random_problems(6, 2, 12, 1).codebooks
    points = codebooks.spectra[0] if space == "latent" else torch.eye(6)
    noised = torch.randn(3, points.shape[1], generator=torch.Generator().manual_seed(1), requires_grad=True)
    distance = (noised[:, None] - a**0.5 * points).square().sum(-1)
    torch.logsumexp(-distance / (2 * (1 - a)), 1).sum().backward()
    belief = posterior(codebooks, 0, noised.detach(), a, space)  # type: ignore[arg-type]
    assert torch.allclose(score(belief @ points, noised.detach(), a), noised.grad, atol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("energy", ["gauss", "similarity"])
@pytest.mark.parametrize("name", ["map", "fhrr"])
def test_the_pull_is_the_energys_negative_gradient(energy: str, name: str) -> None:
    problems = random_problems(5, 3, 9, 2, binding=name)
    generator = torch.Generator().manual_seed(2)
    estimates = [problems.codebooks.noise(2, generator).requires_grad_() for _ in range(3)]
    product = estimates[0] * estimates[1] * estimates[2]
    if energy == "gauss":
        value = (problems.vectors - product).abs().square().sum() / 2
    else:
        value = -(problems.vectors.conj() * product).real.sum()
    value.backward()
    with torch.no_grad():
        for factor in range(3):
            expected = estimates[factor].grad
            towards = pull(problems.vectors, estimates, factor, energy)  # type: ignore[arg-type]
            assert expected is not None and torch.allclose(-towards, expected, atol=1e-4)


@pytest.mark.parametrize(("relative", "guidance"), [(True, 3.0), (False, 300.0)])
def test_the_attention_resonator_is_coupled_inference_without_prior_and_noise(
    relative: bool, guidance: float
) -> None:
    problems = random_problems(12, 3, 200, 4, seed=3)
    a = 0.01
    coupled = CoupledDiffusion(
        energy="similarity",
        steps=20,
        guidance=guidance,
        signal=(a, a),
        stochasticity=0,
        temperature=0,
        prior=0,
        relative=relative,
        sequential=False,
    )
    attention = AttentionResonator(beta=guidance * a / (1 - a), relative=relative)
    generator, spectra, books = torch.Generator().manual_seed(0), problems.vectors, problems.codebooks
    one, other = coupled.start(books, spectra, generator), attention.start(books, spectra, generator)
    for number in range(20):
        one, beliefs = coupled.step(books, spectra, one, number, generator)
        other, weights = attention.step(books, spectra, other, number, generator)
        for belief, weight in zip(beliefs, weights, strict=True):
            assert torch.allclose(belief, weight, atol=1e-4)
    assert max(float(belief.max()) for belief in beliefs) > 0.2  # they have left the codebooks' means


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


@pytest.mark.parametrize(
    ("codewords", "factors", "dim"), [(60, 3, 256), (100, 2, 300), (20, 5, 400), (100, 4, 600)]
)
def test_auto_meets_in_the_middle(codewords: int, factors: int, dim: int) -> None:
    problems = random_problems(codewords, factors, dim, 20, seed=2)
    found = decompose(problems.vectors, problems.codebooks)
    assert torch.equal(found.indices, problems.truth)
    assert float(found.operations.mean()) < 0.1 * 2 * codewords**factors * dim


def test_codebooks_of_different_sizes() -> None:
    books = [
        torch.randint(0, 2, (n, 900), generator=torch.Generator().manual_seed(n)) * 2.0 - 1 for n in (7, 40, 90)
    ]
    truth = torch.tensor([[6, 39, 89], [0, 0, 0]])
    vectors = torch.stack([books[0][a] * books[1][b] * books[2][c] for a, b, c in truth.tolist()])
    for method in ("auto", "exhaustive", "resonator"):
        assert torch.equal(decompose(vectors, Codebooks(books), method).indices, truth), method


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_auto_sees_through_noise(noise: float) -> None:
    problems = random_problems(30, 3, 1000, 12, noise=noise, seed=4)
    found = decompose(problems.vectors, problems.codebooks)
    assert torch.equal(found.indices, problems.truth)
    assert (found.confidence > 0.99).all() and (found.similarity < 0.95).all()


def test_where_nothing_else_is_affordable_auto_ends_with_coupled_diffusion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("igm_cli.core.decomposition.auto.MOST_ENTRIES", 0)
    monkeypatch.setattr("igm_cli.core.decomposition.auto.AFFORDABLE", 0)
    problems = random_problems(20, 3, 600, 6, seed=11)
    found = decompose(problems.vectors, problems.codebooks)
    assert torch.equal(found.indices, problems.truth) and (found.iterations > 0).all()


def test_what_was_never_bound_is_not_believed() -> None:
    problems = random_problems(20, 3, 500, 1)
    strangers = BINDINGS["map"].random(40, 500, torch.Generator().manual_seed(9))
    for method in ("auto", "coupled", "exhaustive"):
        found = decompose(strangers, problems.codebooks, method)
        assert (found.confidence < 0.9).all(), method
        assert float(found.confidence.mean()) < 0.1, method


@pytest.mark.parametrize("name", sorted(BINDINGS))
def test_the_similarity_that_chance_gives_is_known(name: str) -> None:
    """Also of HRR products that share all codewords but one, whose few large coordinates decide together."""
    generator, kind = torch.Generator().manual_seed(3), BINDINGS[name]
    shared = kind.bind(kind.random(400, 300, generator), kind.random(400, 300, generator))
    books = Codebooks([kind.random(400, 300, generator), kind.random(400, 300, generator)], name)
    one, other = (books.spectrum(kind.bind(shared, kind.random(400, 300, generator))) for _ in range(2))
    z = books.similarity(one, other) / books.spread(one, other)
    assert float(z.square().mean().sqrt()) == pytest.approx(1, abs=0.12)


def test_codewords_that_are_the_same_are_told() -> None:
    problems = random_problems(12, 3, 300, 1, seed=6)
    books = [book.clone() for book in problems.codebooks.spectra]
    books[1][3] = books[1][8]
    vectors = torch.stack([books[0][2] * books[1][8] * books[2][5], books[0][2] * books[1][4] * books[2][5]])
    found = decompose(vectors, Codebooks(books))
    assert found.ambiguous.tolist() == [[False, True, False], [False, False, False]]
    assert float(found.confidence[0, 1]) == pytest.approx(0.5, abs=0.01)
    assert int(found.indices[0, 1]) in (3, 8)
    assert duplicates(books[1]).nonzero()[:, 0].tolist() == [3, 8]


@pytest.mark.parametrize("turn", [-1.0, 1j])
def test_codewords_that_can_be_turned_in_pairs_are_told(turn: complex) -> None:
    """x ⊙ y = (e^{iφ} x) ⊙ (e^{-iφ} y)."""
    problems = random_problems(12, 3, 300, 1, seed=6, binding="map" if turn == -1 else "fhrr")
    books = [book.clone() for book in problems.codebooks.spectra]
    books[0][7], books[2][9] = turn * books[0][2], books[2][5] / turn
    vectors = torch.stack([books[0][a] * books[1][4] * books[2][b] for a, b in ((2, 5), (3, 3))])
    found = decompose(vectors, Codebooks(books, problems.codebooks.binding.name))
    assert found.ambiguous.tolist() == [[True, False, True], [False, False, False]]
    assert (found.confidence[0] < 0.51).tolist() == [True, False, True]


@pytest.mark.parametrize("size", [1e-25, 1e-3, 1e18])
@pytest.mark.parametrize("method", ["auto", "coupled", "factorizer"])
def test_the_size_of_a_vector_does_not_matter(size: float, method: str) -> None:
    problems = random_problems(10, 3, 400, 4, seed=12)
    found = decompose(size * problems.vectors, problems.codebooks, method)
    assert torch.equal(found.indices, problems.truth)
    assert torch.allclose(found.similarity, torch.ones(4), atol=1e-5)


@pytest.mark.parametrize("name", sorted(BINDINGS))
@pytest.mark.parametrize("count", [1, 2, 4])
def test_superposed_products_are_counted_and_found(name: str, count: int) -> None:
    problems = random_problems(20, 3, 800, 2, binding=name, superposed=count, seed=count)
    for vector, truth in zip(problems.vectors, problems.truth.reshape(2, count, 3), strict=True):
        found = superposition(vector, problems.codebooks)
        assert found.count == count
        assert sorted(found.indices.tolist()) == sorted(truth.tolist())
        assert (found.errors[1:] < found.errors[:-1]).all() and float(found.errors[-1]) < 1e-3


def test_nothing_is_found_in_a_vector_that_holds_no_product() -> None:
    problems = random_problems(20, 3, 500, 1)
    found = superposition(BINDINGS["map"].random(1, 500)[0], problems.codebooks)
    assert found.count == 0 and found.errors.tolist() == [1.0]


def test_bfloat16_products_find_the_same() -> None:
    problems = random_problems(20, 3, 600, 10, seed=7)
    coarse = problems.codebooks.to(torch.device("cpu"), torch.bfloat16)
    for method in ("exhaustive", "coupled", "factorizer", "auto"):
        found = decompose(problems.vectors, coarse, method)
        assert (found.indices == problems.truth).all(1).float().mean() > 0.9, method
        assert float(found.similarity.max()) == pytest.approx(1, abs=1e-5)


def test_the_same_seed_gives_the_same_result_and_progress_is_told() -> None:
    problems = random_problems(25, 3, 300, 300, seed=8)
    calls: list[tuple[int, int]] = []
    one, other = (
        decompose(
            problems.vectors,
            problems.codebooks,
            "coupled",
            iterations=20,
            seed=3,
            progress=lambda what, done, total: calls.append((done, total)),
        )
        for _ in range(2)
    )
    assert torch.equal(one.indices, other.indices) and torch.equal(one.iterations, other.iterations)
    assert calls[:3] == [(0, 300), (256, 300), (300, 300)]


def test_problems_that_are_settled_use_no_more_iterations() -> None:
    easy = random_problems(5, 2, 500, 8)
    assert int(decompose(easy.vectors, easy.codebooks, "resonator").iterations.max()) < 10


def test_restarts_repeat_the_last_part_of_the_schedule() -> None:
    diffusion = CoupledDiffusion(steps=8, ratio=0.5, signal=(1e-4, 1e-2))
    levels = [diffusion.levels(number) for number in range(16)]
    assert levels[0][0] == pytest.approx(1e-4) and levels[7][1] == pytest.approx(1e-2)
    assert levels[8:12] == levels[12:16]
    assert levels[8] == pytest.approx(levels[4]) and levels[11] == pytest.approx(levels[7])


BOOKS = [torch.ones(3, 8), torch.ones(3, 8)]


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
