"""Inversion over labels: the exact search over sets, the evidence behind it, elimination, and counting."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from igm_cli.core.inference.evidence import Gap, Quadratic
from igm_cli.core.inference.subsets import best_without, check_number, minima
from label_oracle import LabelOracle, letters, names

from igm_cli.core.composition import Composition
from igm_cli.core.inference import hypotheses
from igm_cli.core.inference.hypotheses import hypothesis_errors
from igm_cli.core.inference.inversion import InversionSettings, invert
from igm_cli.core.inference.label_evidence import label_evidence
from igm_cli.core.inference.labels import invert_labels, probability
from igm_cli.core.noise_schedule import draw
from igm_cli.errors import UsageError

PLAIN = InversionSettings(draws=8, max_draws=32, k_min=1, k_max=3)
COMPOSITIONS = pytest.mark.parametrize("composition", ["mean", "sum"])


def form_of(m: int, seed: int, composition: Composition, scale: float) -> Quadratic:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(m, m + 2, generator=generator, dtype=torch.float64)
    linear = scale * torch.randn(m, generator=generator, dtype=torch.float64)
    return Quadratic(torch.tensor(1.5, dtype=torch.float64), linear, root @ root.T, composition)


def brute(form: Quadratic, k: int, *, held: int | None = None, without: int | None = None) -> float:
    """The least error of all sets of K, one after the other."""
    errors = [
        float(form.error(torch.tensor(chosen)))
        for chosen in itertools.combinations(range(len(form.linear)), k)
        if (held is None or held in chosen) and without not in chosen
    ]
    return min(errors)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(1, 4),
    st.integers(0, 10_000),
    st.sampled_from(["mean", "sum"]),
    st.sampled_from([0.0, 1.0, 30.0]),
)
def test_minima_are_those_of_all_sets(
    m: int, k: int, seed: int, composition: Composition, scale: float
) -> None:
    k = min(k, m)
    form = form_of(m, seed, composition, scale)
    found = minima(form, k)
    assert found.best.error == pytest.approx(brute(form, k), rel=1e-9, abs=1e-9)
    for candidate in range(m):
        subset = found.subsets[candidate].tolist()
        assert candidate in subset and subset == sorted(set(subset)) and len(subset) == k
        assert float(found.errors[candidate]) == pytest.approx(
            brute(form, k, held=candidate), rel=1e-9, abs=1e-9
        )
        assert float(found.errors[candidate]) == pytest.approx(
            float(form.error(found.subsets[candidate])), rel=1e-9, abs=1e-9
        )
        others = best_without(form, k, candidate)
        if k == m:
            assert others is None
            continue
        assert others is not None and candidate not in others.subset and len(others.subset) == k
        assert others.error == pytest.approx(brute(form, k, without=candidate), rel=1e-9, abs=1e-9)
        assert others.error == pytest.approx(float(form.error(torch.tensor(others.subset))), rel=1e-9, abs=1e-9)


def test_too_many_sets_are_refused() -> None:
    check_number(300, [1, 2, 3])
    for labels, sizes in ((1000, [4]), (25, range(1, 26))):  # one size, and all of them together
        with pytest.raises(UsageError, match="too many to try"):
            check_number(labels, sizes)


@COMPOSITIONS
def test_the_evidence_is_the_error_of_every_set(
    composition: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors by network calls, as the objective is written, are those of the inner products."""
    monkeypatch.setattr(hypotheses, "inference_precision", lambda device: nullcontext())
    oracle = LabelOracle(letters(5))
    image = oracle.image(["b", "d"])
    draws = draw(oracle.schedule, tuple(image.shape), 6, low=0.1, high=0.9, seed=3)
    rows = oracle.space.candidates()
    evidence = label_evidence(oracle, image, draws, rows, composition, 0.0)
    for k in (1, 2, 3):
        sets = list(itertools.combinations(range(5), k))
        called = hypothesis_errors(oracle, image, draws, rows[torch.tensor(sets)], composition)
        for chosen, errors in zip(sets, called, strict=True):
            torch.testing.assert_close(evidence.errors(chosen), errors, rtol=1e-4, atol=1e-5)


@COMPOSITIONS
def test_draws_may_be_taken_in_parts(composition: Composition, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = LabelOracle(letters(4))
    image = oracle.image(["a", "c"])
    draws = draw(oracle.schedule, tuple(image.shape), 5, low=0.1, high=0.9, seed=0)
    rows = oracle.space.candidates()
    whole = label_evidence(oracle, image, draws, rows, composition, 1.0)
    monkeypatch.setattr("igm_cli.core.inference.label_evidence.FLOATS_AT_ONCE", 2 * 4 * image.numel())
    parts = label_evidence(oracle, image, draws, rows, composition, 1.0)
    for name in ("residual", "linear", "gram", "importance"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


@pytest.mark.parametrize("truth", ["b", "af", "cdh"])
@pytest.mark.parametrize("given_k", [True, False])
def test_sets_are_found_and_counted(truth: str, given_k: bool) -> None:
    oracle = LabelOracle(letters(8))
    found = invert_labels(oracle, oracle.image(truth), PLAIN, len(truth) if given_k else None, "mean")
    assert names(oracle, found.concepts) == set(truth)
    assert (found.k, found.k_source) == (len(truth), "given" if given_k else "estimated")
    assert found.marginals is not None
    chosen = torch.tensor([label in truth for label in oracle.space.labels])
    assert (found.marginals[chosen] > 0.95).all() and (found.marginals[~chosen] < 0.05).all()
    assert found.confidence.tolist() == sorted(found.confidence.tolist(), reverse=True)
    if not given_k:
        assert [point.k for point in found.k_curve] == [1, 2, 3]
        assert min(found.k_curve, key=lambda point: point.error).k == len(truth)


@COMPOSITIONS
@pytest.mark.parametrize("templates", [("a {label}",), ("a {label}", "one {label}")])
def test_calls_are_those_that_are_made(composition: Composition, templates: tuple[str, ...]) -> None:
    oracle = LabelOracle(letters(10), spread=1.5, templates=templates)
    found = invert_labels(oracle, oracle.image("ae"), replace(PLAIN, settled=1e9), 2, composition)
    assert found.network_calls == oracle.calls
    assert found.draws == 32


def test_elimination_spares_calls_and_changes_nothing() -> None:
    for seed in range(5):
        oracle = LabelOracle(letters(20), spread=1.0)
        image = oracle.image("dkp", seed)
        never_settled = replace(PLAIN, draws=4, max_draws=64, settled=1e9, seed=seed)
        few = invert_labels(oracle, image, never_settled, 3, "mean")
        every = invert_labels(oracle, image, never_settled, 3, "mean", eliminate=False)
        assert names(oracle, few.concepts) == names(oracle, every.concepts) == set("dkp")
        assert every.network_calls == 64 * 20 and every.draws == few.draws == 64
        assert few.network_calls < every.network_calls / 2
        assert few.denoising_error == pytest.approx(every.denoising_error, rel=1e-4)


def test_more_labels_than_needed_cost_few_calls_more() -> None:
    """Of 25 labels nearly all are given up after the first draws."""
    calls = {}
    for count in (5, 25):
        oracle = LabelOracle(letters(count), spread=1.0)
        fixed = replace(PLAIN, draws=4, max_draws=64, settled=1e9)
        calls[count] = invert_labels(oracle, oracle.image("ab"), fixed, 2, "mean").network_calls
    assert calls[25] < 2.5 * calls[5]


def test_the_order_of_labels_does_not_matter() -> None:
    labels = letters(9)
    for order in (labels[::-1], labels[4:] + labels[:4]):
        oracle, other = LabelOracle(labels, spread=1.0), LabelOracle(order, spread=1.0)
        image = oracle.image("bgh", 4)
        for k in (3, None):
            one = invert_labels(oracle, image, PLAIN, k, "mean")
            two = invert_labels(other, image, PLAIN, k, "mean")
            assert names(oracle, one.concepts) == names(other, two.concepts)
            assert (one.draws, one.network_calls) == (two.draws, two.network_calls)
            assert one.denoising_error == pytest.approx(two.denoising_error, rel=1e-5)
            assert one.marginals is not None and two.marginals is not None
            back = [order.index(label) for label in labels]
            torch.testing.assert_close(one.marginals, two.marginals[back], atol=1e-4, rtol=1e-3)


def test_a_penalty_makes_sets_smaller() -> None:
    oracle = LabelOracle(letters(6))
    image = oracle.image("ad")
    assert invert_labels(oracle, image, replace(PLAIN, penalty=1e8), None, "mean").k == 1


def test_progress_tells_calls() -> None:
    oracle, told = LabelOracle(letters(6), spread=2.0), []
    settings = replace(PLAIN, settled=1e9)
    found = invert_labels(
        oracle, oracle.image("ad"), settings, 2, "mean", progress=lambda *calls: told.append(calls)
    )
    done, most = zip(*told, strict=True)
    assert list(done) == sorted(done) and done[-1] == most[-1] == found.network_calls
    assert most[0] == 32 * 6


def test_all_labels_may_be_chosen() -> None:
    oracle = LabelOracle(letters(3))
    found = invert(oracle, oracle.image("abc"), PLAIN, k=3, composition="mean")
    assert names(oracle, found.concepts) == set("abc")
    assert found.confidence.tolist() == [1, 1, 1]


@pytest.mark.parametrize("k", [0, 4])
def test_numbers_of_labels_out_of_range(k: int) -> None:
    oracle = LabelOracle(letters(3))
    with pytest.raises(UsageError, match="cannot be chosen"):
        invert_labels(oracle, oracle.image("a"), PLAIN, k, "mean")


def test_more_labels_than_there_are_are_not_estimated() -> None:
    oracle = LabelOracle(letters(2))
    found = invert_labels(oracle, oracle.image("ab"), PLAIN, None, "mean")
    assert [point.k for point in found.k_curve] == [1, 2] and found.k == 2
    with pytest.raises(UsageError, match="cannot be chosen"):
        invert_labels(oracle, oracle.image("ab"), replace(PLAIN, k_min=3), None, "mean")


def test_probability_of_a_gap() -> None:
    assert probability(Gap(0.0, 1.0, 10), 0.0) == pytest.approx(0.5)
    assert probability(Gap(0.0, 1.0, 10), 0.1) == pytest.approx(0.5)
    sure, unsure = (probability(Gap(0.3, stderr, 10), 0.1) for stderr in (0.0, 1.0))
    assert 0.9 < sure < 1 and 0.5 < unsure < sure
    assert probability(Gap(1e9, float("inf"), 1), 1e-9) >= 0.5
