"""One engine: noise is drawn until the answer is decided, for every kind of concept, in batches of any make-up."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from label_oracle import LabelOracle, letters, names
from oracle import Oracle, factors, positions, products

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Categorical, Codebook
from igm_cli.core.inference import engine
from igm_cli.core.inference.any_set import KEPT
from igm_cli.core.inference.call_counter import CallCounter
from igm_cli.core.inference.closer_look import DRAWS
from igm_cli.core.inference.engine import by_statistics, invert, invert_batch
from igm_cli.core.inference.reference import configurations
from igm_cli.core.inference.typicality import LOOKS, REGIONS, Typical, fitted
from igm_cli.core.noise_schedule import draw
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError

QUICK = InversionSettings(draws=8, max_draws=8, low=0.1, high=0.8)
PLAIN = InversionSettings(draws=8, max_draws=32, k_min=1, k_max=3)
COMPOSITIONS = pytest.mark.parametrize("composition", ["mean", "sum"])


@pytest.mark.parametrize(("oracle", "threads"), [(positions(), 2), (LabelOracle(letters(3)), 1)])
def test_a_denoiser_with_whole_predictions_serves_one_group_at_a_time(oracle, threads, monkeypatch):
    """On a GPU; its memory of prompts is not for two threads."""
    monkeypatch.setattr(engine, "on_streams", lambda work, groups: [2 for _ in groups])
    groups = engine.in_groups(lambda group: 1, torch.zeros(200, 1, 1, 1, device="meta"), oracle)
    assert groups == [threads] * 2


# Factors


@COMPOSITIONS
def test_every_configuration_of_the_oracle_is_found(composition):
    oracle = factors()
    for index, concepts in enumerate(configurations(oracle.space)[::3]):
        found = invert(oracle, oracle.image(concepts, seed=index), QUICK)
        assert torch.equal(found.concepts, concepts)
        assert float(found.confidence.min()) > 0.95
        assert (found.k, found.k_source, found.network_calls) == (3, "given", 8 * (1 + 9))
        assert [(point.k, point.stderr) for point in found.k_curve] == [(3, 0.0)]


def test_noise_is_drawn_until_every_value_is_decided():
    oracle = Oracle(Categorical({"a": ("0", "1"), "b": ("0", "1")}), spread=0.5)
    oracle.patterns *= 0.02  # hardly to be seen
    truth = configurations(oracle.space)[2]
    few = replace(QUICK, draws=4, max_draws=64, settled=4.0)
    taken = {invert(oracle, oracle.image(truth, seed), replace(few, seed=seed)).draws for seed in range(6)}
    assert taken <= {4, 8, 16, 32, 64} and taken & {16, 32}  # as many again each time
    assert invert(oracle, oracle.image(truth), replace(few, settled=1e9, max_draws=50)).draws == 50
    assert invert(oracle, oracle.image(truth), replace(few, settled=0.0)).draws == 4
    oracle.patterns *= 100
    clear = invert(oracle, oracle.image(truth), few)
    assert clear.draws == 4 and clear.network_calls == 4 * 5


def test_an_untypical_image_leaves_every_value_at_chance():
    oracle = factors()
    calibrated = replace(QUICK, temperature=1e-4)
    every = [(each, seed) for seed in range(2) for each in configurations(oracle.space)]
    known = [invert(oracle, oracle.image(*each), calibrated).evidence for each in every]
    seen = [each.features for each in known if each]
    calibrated = replace(calibrated, typical=fitted(seen, calibrated.low, calibrated.high))
    usual = invert(oracle, oracle.image(configurations(oracle.space)[7]), calibrated)
    noise = invert(oracle, 30 * torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(0)), calibrated)
    assert usual.typicality > 0.9 and float(usual.confidence.min()) > 0.9
    assert noise.typicality < 0.01 and float(noise.confidence.max()) < 0.51
    assert math.isnan(invert(oracle, oracle.image(configurations(oracle.space)[7]), QUICK).typicality)


def test_a_closer_look_tells_where_in_an_image_the_error_stands():
    """Two images denoised equally well on average, but not in the same places."""
    oracle, (truth, *_) = factors(), configurations(factors().space)
    beside = torch.zeros(3, 24, 24)
    beside[:, :8, :8] = 0.5  # a region of its own
    settings = replace(QUICK, typical=Typical.unknown(QUICK.low, QUICK.high, LOOKS))
    image = oracle.image(truth)
    plain, first, last = (invert(oracle, image + what, settings) for what in (0.0, beside, beside.flip(1, 2)))
    assert plain.network_calls == 8 * (1 + 9) + len(LOOKS) * DRAWS * (1 + 3)
    there = len(LOOKS) * REGIONS**2
    seen = [
        found.evidence.features[:there].exp().unflatten(0, (-1, REGIONS, REGIONS))
        for found in (plain, first, last)
    ]
    for usual, one, other in zip(*seen, strict=True):
        assert one.mean() == pytest.approx(float(other.mean()), rel=0.15)
        for found, (row, column) in ((one, (0, 0)), (other, (2, 2))):
            more = found / usual
            assert more[row, column] == more.max() > 1.5 and (more > 1.05).sum() == 1
    # The error of the composed prediction itself.
    t = torch.full((DRAWS,), round(LOOKS[1] * (oracle.schedule.steps - 1)))
    noise = draw(oracle.schedule, (3, 24, 24), DRAWS, low=0, high=1, seed=settings.seed).noise
    features = oracle.features(oracle.schedule.add_noise(image.expand_as(noise), noise, t), t)
    prediction = oracle.base(features) + oracle.contributions(features, plain.concepts).sum(1)
    assert seen[0][1].mean() == pytest.approx(float((noise - prediction).square().mean()), rel=5e-3)


# Labels


@pytest.mark.parametrize("truth", ["b", "af", "cdh"])
@pytest.mark.parametrize("given_k", [True, False])
def test_sets_of_labels_are_found_and_counted(truth: str, given_k: bool) -> None:
    oracle = LabelOracle(letters(8))
    found = invert(oracle, oracle.image(truth), PLAIN, k=len(truth) if given_k else None, composition="mean")
    assert names(oracle, found.concepts) == set(truth)
    assert (found.k, found.k_source) == (len(truth), "given" if given_k else "estimated")
    assert found.marginals is not None
    chosen = torch.tensor([label in truth for label in oracle.space.labels])
    assert (found.marginals[chosen] > 0.95).all() and (found.marginals[~chosen] < 0.05).all()
    assert found.confidence.tolist() == sorted(found.confidence.tolist(), reverse=True)
    if not given_k:
        assert [point.k for point in found.k_curve] == [1, 2, 3]
        assert min(found.k_curve, key=lambda point: point.error).k == len(truth)
        assert all((point.stderr == 0) == (point.k == found.k) for point in found.k_curve)


@COMPOSITIONS
@pytest.mark.parametrize("templates", [("a {label}",), ("a {label}", "one {label}")])
def test_calls_are_those_that_are_made(composition: Composition, templates: tuple[str, ...]) -> None:
    oracle = LabelOracle(letters(10), spread=1.5, templates=templates)
    found = invert(oracle, oracle.image("ae"), replace(PLAIN, settled=1e9), k=2, composition=composition)
    assert found.network_calls == oracle.calls
    assert found.draws == 32


def test_elimination_spares_calls_and_changes_nothing() -> None:
    for seed in range(3):
        oracle = LabelOracle(letters(20), spread=1.0)
        image = oracle.image("dkp", seed)
        never_decided = replace(PLAIN, draws=4, max_draws=64, settled=1e9, seed=seed)
        few = invert(oracle, image, never_decided, k=3, composition="mean")
        every = invert(oracle, image, replace(never_decided, give_up=False), k=3, composition="mean")
        assert names(oracle, few.concepts) == names(oracle, every.concepts) == set("dkp")
        assert every.network_calls == 64 * 20 and every.draws == few.draws == 64
        assert few.network_calls < every.network_calls / 2
        assert few.denoising_error == pytest.approx(every.denoising_error, rel=1e-4)
        assert few.marginals is not None and bool((few.marginals[[3, 10, 15]] > 0.95).all())


def test_noise_for_labels_is_doubled_until_they_are_decided() -> None:
    oracle = LabelOracle(letters(5), spread=1.5)
    settings = replace(PLAIN, draws=4, max_draws=64, settled=3.0)
    taken = {
        invert(oracle, oracle.image("bd", seed), settings, k=2, composition="mean").draws for seed in range(12)
    }
    assert taken <= {4, 8, 16, 32, 64} and taken & {16, 32}


def test_more_labels_than_needed_cost_few_calls_more() -> None:
    """Of 25 labels nearly all are given up after the first draws."""
    calls = {}
    for count in (5, 25):
        oracle = LabelOracle(letters(count), spread=1.0)
        fixed = replace(PLAIN, draws=4, max_draws=64, settled=1e9)
        calls[count] = invert(oracle, oracle.image("ab"), fixed, k=2, composition="mean").network_calls
    assert calls[25] < 2.5 * calls[5]


def test_labels_are_given_up_before_the_first_decision() -> None:
    """Of 30 labels that are plainly not there most see four noise samples of sixteen, and the answer is that of all."""
    oracle = LabelOracle(letters(30), spread=0.5)
    image, sixteen = oracle.image("dk"), replace(PLAIN, draws=16, max_draws=16)
    few = invert(oracle, image, sixteen, k=2, composition="mean")
    every = invert(oracle, image, replace(sixteen, give_up=False), k=2, composition="mean")
    assert few.network_calls + every.network_calls == oracle.calls
    assert every.network_calls == 16 * 30 and few.network_calls < 16 * 30 / 2
    assert few.draws == every.draws == 16
    assert names(oracle, few.concepts) == names(oracle, every.concepts) == set("dk")
    assert few.denoising_error == pytest.approx(every.denoising_error, rel=1e-4)


def test_a_label_that_was_given_up_still_counts_against_those_chosen() -> None:
    """It resembles one of them, and is worse for certain, but by little to a posterior of this temperature."""
    oracle = LabelOracle(letters(12), spread=0.5)
    for truth, like in (("d", "c"), ("k", "e")):
        oracle.patterns[like] = 0.8 * oracle.patterns[truth] + 0.6 * oracle.patterns[like]
    for seed in range(4):
        image, warm = (
            oracle.image("dk", seed),
            replace(PLAIN, draws=16, max_draws=16, temperature=0.05, seed=seed),
        )
        few = invert(oracle, image, warm, k=2, composition="mean")
        every = invert(oracle, image, replace(warm, give_up=False), k=2, composition="mean")
        assert few.network_calls < every.network_calls / 2 and float(every.confidence.max()) < 0.9
        assert few.confidence.tolist() == pytest.approx(every.confidence.tolist(), abs=0.05)


@pytest.mark.parametrize(("truth", "k"), [("dk", 2), ("bfq", None)])
def test_after_a_coarse_start_only_the_likeliest_labels_go_on(truth: str, k: int | None) -> None:
    most = k or PLAIN.k_max
    for seed in range(3):
        oracle = LabelOracle(letters(60), spread=1.0)
        image, settings = oracle.image(truth, seed), replace(PLAIN, draws=16, max_draws=16, coarse=2, seed=seed)
        few = invert(oracle, image, settings, k=k, composition="mean")
        calls = oracle.calls
        every = invert(oracle, image, replace(settings, give_up=False), k=k, composition="mean")
        assert few.network_calls == calls <= 2 * 60 + 14 * KEPT * most
        assert every.network_calls == 16 * 60
        assert names(oracle, few.concepts) == names(oracle, every.concepts)


def test_a_coarse_start_needs_two_noise_samples() -> None:
    with pytest.raises(UsageError, match="2 noise samples or more"):
        replace(PLAIN, coarse=1)


def test_the_order_of_labels_does_not_matter() -> None:
    labels = letters(9)
    for order in (labels[::-1], labels[4:] + labels[:4]):
        oracle, other = LabelOracle(labels, spread=1.0), LabelOracle(order, spread=1.0)
        image = oracle.image("bgh", 4)
        for k in (3, None):
            one = invert(oracle, image, PLAIN, k=k, composition="mean")
            two = invert(other, image, PLAIN, k=k, composition="mean")
            assert names(oracle, one.concepts) == names(other, two.concepts)
            assert (one.draws, one.network_calls) == (two.draws, two.network_calls)
            assert one.denoising_error == pytest.approx(two.denoising_error, rel=1e-5)
            assert one.marginals is not None and two.marginals is not None
            back = [order.index(label) for label in labels]
            torch.testing.assert_close(one.marginals, two.marginals[back], atol=1e-4, rtol=1e-3)


def test_a_penalty_makes_sets_smaller() -> None:
    oracle = LabelOracle(letters(6))
    image = oracle.image("ad")
    assert invert(oracle, image, replace(PLAIN, penalty=1e8), composition="mean").k == 1


def test_progress_tells_calls() -> None:
    oracle, told = LabelOracle(letters(6), spread=2.0), []
    found = invert(
        oracle, oracle.image("ad"), replace(PLAIN, settled=1e9), k=2, composition="mean",
        progress=lambda *calls: told.append(calls),
    )  # fmt: skip
    done, most = zip(*told, strict=True)
    assert list(done) == sorted(done) and done[-1] == most[-1] == found.network_calls
    assert most[0] == 32 * 6
    silent = invert(oracle, oracle.image("ad"), replace(PLAIN, settled=1e9), k=2, composition="mean")
    assert silent.network_calls == found.network_calls


def test_all_labels_may_be_chosen() -> None:
    oracle = LabelOracle(letters(3))
    found = invert(oracle, oracle.image("abc"), PLAIN, k=3, composition="mean")
    assert names(oracle, found.concepts) == set("abc")
    assert found.confidence.tolist() == [1, 1, 1]


def test_views_are_looked_at_in_turn() -> None:
    """Views of noise differ in everything; those that are the same image are that image."""
    oracle = LabelOracle(letters(5), spread=2.0)
    views = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    one, four, same = (
        invert(oracle, image, QUICK, k=2, composition="mean")
        for image in (views[0], views, views[:1].expand(4, -1, -1, -1))
    )
    assert one.denoising_error == pytest.approx(same.denoising_error, abs=1e-6)
    assert abs(one.denoising_error - four.denoising_error) > 1e-4


# What cannot be


@pytest.mark.parametrize("k", [0, 4])
def test_numbers_of_labels_out_of_range(k: int) -> None:
    oracle = LabelOracle(letters(3))
    with pytest.raises(UsageError, match="cannot be chosen"):
        invert(oracle, oracle.image("a"), PLAIN, k=k, composition="mean")


@pytest.mark.parametrize(
    ("oracle", "method", "sentence"),
    [
        (positions(), "relax", "method 'relax' does not support continuous concepts; choose evidence or sgd"),
        (
            factors(),
            "sgd",
            "'sgd' does not support factors; choose evidence or relax or enumerate or eliminate",
        ),
        (LabelOracle(letters(2)), "sgd", "method 'sgd' does not support labels; choose evidence"),
        (products(), "sgd", "method 'sgd' does not support points with values; choose evidence"),
    ],
)
def test_methods_of_other_concepts_are_refused(oracle, method, sentence):
    with pytest.raises(UsageError, match=sentence):
        invert(oracle, torch.zeros(3, 24, 24), replace(QUICK, method=method))


def test_bound_vectors_are_not_inverted():
    oracle = factors()
    oracle.space = Codebook((2, 2), 8)
    with pytest.raises(UsageError, match="does not support codewords"):
        invert(oracle, torch.zeros(3, 24, 24), QUICK)


def test_other_numbers_of_factors_are_refused():
    with pytest.raises(UsageError, match="3 factors, so k cannot be 2"):
        invert(factors(), torch.zeros(3, 24, 24), QUICK, k=2)


# Batches


def batch(kind):
    """An oracle, images that are decided after different numbers of draws, settings and a composition.

    Their typicality takes a closer look.
    """
    generator = torch.Generator().manual_seed(5)
    if kind == "positions":
        oracle, spots = positions(), torch.tensor([[0.2, 0.3], [0.7, 0.25], [0.5, 0.8], [0.3, 0.6]])
        truths = [spots[:k] for k in (3, 1, 4, 2)]
        settings, noise = InversionSettings(grid=(7, 7), draws=4, max_draws=16, k_max=4, penalty=8.0), 1.0
    elif kind == "products":
        oracle = products()
        grid = oracle.space.grid((5, 5))
        truths = [grid[torch.randint(len(grid), (k,), generator=generator)] for k in (2, 1, 3)]
        settings, noise = InversionSettings(grid=(5, 5), draws=2, max_draws=8, k_max=3, penalty=8.0), 0.7
    elif kind == "factors":
        oracle, settings, noise = factors(), replace(QUICK, draws=2, max_draws=32, settled=3.0), 1.0
        oracle.spread, oracle.patterns = 0.5, 0.1 * oracle.patterns
        truths = list(configurations(oracle.space)[[3, 11, 20, 7]])
    else:
        oracle, settings, noise = (
            LabelOracle(letters(8), spread=1.5),
            replace(PLAIN, draws=4, max_draws=32),
            0.7,
        )
        truths = ["ce", "a", "bdg", "fh"]
    images = torch.stack([oracle.image(truth, seed) for seed, truth in enumerate(truths)])
    images += (
        noise * torch.arange(len(images)).view(-1, 1, 1, 1) / 4 * torch.randn(images.shape, generator=generator)
    )
    usual = replace(Typical.unknown(settings.low, settings.high, (0.2, 0.6)), limit=14.0)
    return oracle, images, replace(settings, typical=usual), "mean" if kind == "labels" else "sum"


def answer(found):
    """What must be the same bit for bit."""
    fields = (found.k, found.denoising_error, found.k_curve, found.network_calls, found.draws)
    tensors = (found.concepts, found.confidence, found.marginals, found.values)
    return fields, [None if each is None else each.tolist() for each in tensors], repr(found.typicality)


KINDS = pytest.mark.parametrize("kind", ["positions", "factors", "labels", "products"])


@KINDS
def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(kind):
    """Bit for bit, alone, in a batch, in another order, on one thread and on two."""
    oracle, images, settings, composition = batch(kind)
    alone = [answer(invert(oracle, image, settings, composition=composition)) for image in images]
    order = [2, 0, *range(3, len(images)), 1]
    whole = invert_batch(oracle, images, settings, composition=composition)
    torch.set_num_threads(2)
    try:
        mixed = invert_batch(oracle, images[order], settings, composition=composition)
        one = invert(oracle, images[1], settings, composition=composition)
    finally:
        torch.set_num_threads(1)
    assert [answer(each) for each in whole] == alone
    assert [answer(each) for each in mixed] == [alone[place] for place in order]
    assert answer(one) == alone[1]
    assert all(each.seconds > 0 for each in whole)


@KINDS
@pytest.mark.parametrize("given_k", [True, False])
def test_images_whose_tensors_pass_together_have_the_answers_of_each(kind, given_k):
    """As on a GPU: in one batch, with other numbers of concepts, other numbers of draws, and labels given up."""
    oracle, images, settings, composition = batch(kind)
    k = 2 if given_k and kind != "factors" else None
    with torch.no_grad():
        together = by_statistics(oracle, images, settings, k, composition)
        alone = [by_statistics(oracle, image[None], settings, k, composition)[0] for image in images]
    for one, other in zip(together, alone, strict=True):
        assert (one.k, one.k_source, one.draws, one.network_calls) == (
            other.k, other.k_source, other.draws, other.network_calls,
        )  # fmt: skip
        torch.testing.assert_close(one.concepts, other.concepts, atol=1e-4, rtol=0)
        assert one.denoising_error == pytest.approx(other.denoising_error, abs=1e-5)
        torch.testing.assert_close(one.confidence, other.confidence, atol=1e-3, rtol=0)
        for a, b in zip(one.k_curve, other.k_curve, strict=True):
            assert a.k == b.k and (a.error, a.stderr) == (
                pytest.approx(b.error, abs=1e-5),
                pytest.approx(b.stderr, abs=1e-5),
            )
        for name in ("marginals", "values"):
            if getattr(other, name) is not None:
                torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-3, rtol=0)
        seen, alone_seen = one.evidence.features, other.evidence.features
        torch.testing.assert_close(seen, alone_seen, atol=5e-3, rtol=0, equal_nan=True)
    if not given_k:
        assert len({found.draws for found in together}) > 1  # some go on after others are decided
        assert len({found.k for found in together}) > 1 or kind == "factors"


def test_labels_given_up_for_one_image_are_still_asked_for_another():
    oracle, images, settings, _ = batch("labels")
    counter = CallCounter(oracle)
    hard = replace(settings, settled=1e9, typical=None)
    found = by_statistics(counter, images, hard, 2, "mean")
    each = [each.network_calls for each in found]
    assert all(calls < 8 * 32 for calls in each) and sum(each) >= counter.used.contributions - 8 * 32 * len(
        images
    )
    assert counter.used.contributions <= 8 * 32 * len(images)
