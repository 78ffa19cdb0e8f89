"""The quadratic form is the error of the composed prediction, and its differences are paired samples."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from label_oracle import LabelOracle, letters
from oracle import factors, flow, positions, products, random_form, statistics_of
from scipy.stats import t as student
from torch import Tensor

from igm_cli.core.inference.direct import hypothesis_errors
from igm_cli.core.inference.statistics import PairedDifference
from igm_cli.core.noise_schedule import draw
from igm_cli.core.types import InversionSettings

TRUTH = torch.tensor([[0.2, 0.3], [0.7, 0.25], [0.5, 0.8]])
DRAWS = InversionSettings(draws=5, low=0.05, high=0.6, seed=3)
COMPOSITIONS = pytest.mark.parametrize("composition", ["sum", "mean"])


def cases():
    """Oracles with two images and some candidates each."""
    generator = torch.Generator().manual_seed(0)
    spots, values, things, labels = positions(), factors(), products(), LabelOracle(letters(5))
    near = torch.cat([TRUTH, torch.rand(2, 2, generator=generator)])
    what = things.space.combinations()[[0, 3, 5, 1, 2]]
    rows, names = values.space.candidates(), labels.space.candidates()
    return {
        "positions": (spots, torch.stack([spots.image(TRUTH), spots.image(TRUTH[:1], 1)]), near),
        "factors": (values, torch.stack([values.image(rows[[0, 3]]), values.image(rows[[1, 8]])]), rows[:6]),
        "products": (things, torch.stack([things.image(torch.cat([near, what], 1)[i]) for i in ([0, 1], [2])]),
                     torch.cat([near, what], 1)),
        "labels": (labels, torch.stack([labels.image("bd"), labels.image("a")]), names),
    }  # fmt: skip


@COMPOSITIONS
@pytest.mark.parametrize("kind", ["positions", "factors", "products", "labels"])
def test_the_form_is_the_direct_error_of_every_set(kind, composition):
    """Errors by network calls, as the objective is written, are those of the inner products, for every image."""
    oracle, images, candidates = cases()[kind]
    statistics = statistics_of(oracle, images, candidates, composition, DRAWS)
    form = statistics.expected
    shape = tuple(images.shape[1:])
    draws = draw(oracle.schedule, shape, DRAWS.draws, low=DRAWS.low, high=DRAWS.high, seed=DRAWS.seed)
    # Where the mean prediction stands for eps_u, the empty set has no error of its own.
    for size in range(kind == "labels" and composition == "mean", 4):
        sets = torch.tensor(list(itertools.combinations(range(len(candidates)), size)), dtype=torch.long)
        sets = sets.reshape(math.comb(len(candidates), size), size)
        errors = statistics.errors(sets.expand(2, -1, -1))
        for image in range(2):
            direct = hypothesis_errors(oracle, images[image], draws, candidates[sets], composition)
            torch.testing.assert_close(errors[image], direct, rtol=5e-4, atol=1e-5)
            expected = form.error(sets.expand(2, -1, -1))[image]
            torch.testing.assert_close(expected.float(), direct.mean(1), rtol=1e-4, atol=1e-5)


@COMPOSITIONS
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_error_on_a_flow_is_that_of_the_velocity(shift, composition):
    """But for alpha² of each noise sample: velocities are taken here from E[x0 | x_t, c], as one on a flow is trained."""
    oracle = positions(flow(shift))
    image, pixels = oracle.image(TRUTH), 3 * 24 * 24
    statistics = statistics_of(oracle, image[None], TRUTH, composition, DRAWS)
    draws = draw(
        oracle.schedule, tuple(image.shape), DRAWS.draws, low=DRAWS.low, high=DRAWS.high, seed=DRAWS.seed
    )
    s = oracle.schedule.sigma(draws.t)[:, None, None, None]
    x_t = (1 - s) * image + s * draws.noise

    def velocity(mean: Tensor) -> Tensor:
        trust = (1 - s) * oracle.spread**2 / ((1 - s) ** 2 * oracle.spread**2 + s**2)
        return (x_t - mean - trust * (x_t - (1 - s) * mean)) / s

    for size in (1, 2, 3):
        sets = torch.tensor(list(itertools.combinations(range(3), size)))
        for members, errors in zip(sets, statistics.errors(sets[None])[0], strict=True):
            each = torch.stack([velocity(oracle.template(TRUTH[i])) for i in members.tolist()])
            none = velocity(torch.zeros_like(image))
            composed = none + (each - none).sum(0) / (size if composition == "mean" else 1)
            missed = (draws.noise - image - composed).square().flatten(1).sum(1) / pixels
            torch.testing.assert_close(errors, (1 - s).flatten() ** 2 * missed, rtol=5e-4, atol=1e-5)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_noise_samples_are_weighted_by_their_importance(power):
    """By (sigma/alpha)^power, largest where the noise is."""
    oracle = positions()
    settings_ = InversionSettings(draws=6, power=power)
    statistics = statistics_of(oracle, oracle.image(TRUTH)[None], TRUTH, settings=settings_)
    t = draw(oracle.schedule, (3, 24, 24), 6, low=settings_.low, high=settings_.high, seed=0).t
    weight = (oracle.schedule.sigma(t) / oracle.schedule.alpha(t)) ** power
    torch.testing.assert_close(statistics.importance, weight)
    sets = torch.tensor([[[0, 1], [0, 2]]])
    errors = (weight * statistics.errors(sets)).sum(2) / weight.sum()
    torch.testing.assert_close(statistics.expected.error(sets).float(), errors, rtol=1e-4, atol=1e-6)


@COMPOSITIONS
def test_no_candidate_fills_up_smaller_sets(composition):
    form = random_form(6, 0, composition, images=2)
    short, long = torch.tensor([[[1, 4]], [[0, 5]]]), torch.tensor([[[-1, 1, 4, -1]], [[0, -1, -1, 5]]])
    torch.testing.assert_close(form.error(long), form.error(short))
    none = torch.full((2, 1, 3), -1)
    assert torch.equal(form.error(none)[:, 0], form.constant)
    oracle = positions()
    statistics = statistics_of(oracle, torch.stack([oracle.image(TRUTH)] * 2), TRUTH, composition)
    filled = torch.tensor([[[0, -1, 2], [-1, -1, -1]]] * 2)
    torch.testing.assert_close(statistics.errors(filled)[:, :1], statistics.errors(filled[:, :1, [0, 2]]))
    assert torch.equal(statistics.errors(filled)[:, 1], statistics.residual)


def test_a_candidate_can_be_ruled_out_for_one_image():
    form = random_form(4, 0, images=3)
    without = form.without(torch.tensor([2, -1, 0]))
    assert without.usable.tolist() == [[True, True, False, True], [True] * 4, [False, True, True, True]]
    assert form.usable.all()


def test_the_statistics_of_some_images_are_those_of_each():
    oracle = positions()
    images = torch.stack([oracle.image(TRUTH[:k], k) for k in (1, 2, 3)])
    whole = statistics_of(oracle, images, TRUTH)
    some = whole.images(torch.tensor([2, 0]))
    for place, image in enumerate((2, 0)):
        alone = statistics_of(oracle, images[image : image + 1], TRUTH)
        for name in ("residual", "linear", "gram"):
            torch.testing.assert_close(getattr(some, name)[place], getattr(alone, name)[0])
    assert (some.draws, whole.draws) == (6, 6)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 4))
def test_errors_do_not_depend_on_the_order_of_candidates(order, size):
    oracle = positions()
    candidates = torch.rand(5, 2, generator=torch.Generator().manual_seed(2))
    images, two = oracle.image(TRUTH)[None], InversionSettings(draws=2)
    form = statistics_of(oracle, images, candidates, settings=two).expected
    shuffled = statistics_of(oracle, images, candidates[list(order)], settings=two).expected
    places = torch.tensor([[[order.index(i) for i in range(size)]]], dtype=torch.long)
    torch.testing.assert_close(form.error(torch.arange(size)[None, None]), shuffled.error(places))


def test_paired_errors_of_shared_draws_are_smaller_than_unpaired():
    oracle = positions()
    candidates = torch.cat([TRUTH, TRUTH[:1] + 0.05])
    settings_ = InversionSettings(draws=12)
    statistics = statistics_of(oracle, oracle.image(TRUTH)[None], candidates, settings=settings_)
    good, worse = statistics.errors(torch.tensor([[[0, 1, 2], [3, 1, 2]]]))[0]
    gap = PairedDifference.of(worse, good, statistics.importance)
    unpaired = float((good.var() + worse.var()).sqrt() / len(good) ** 0.5)
    assert gap.mean > 2 * gap.stderr and gap.stderr < unpaired and gap.probability() > 0.95


def test_weighted_differences_have_the_error_of_a_ratio():
    w = torch.tensor([1.0, 4.0, 2.0, 3.0])
    constant = PairedDifference.of(torch.ones(4), torch.zeros(4), w)
    assert (float(constant.mean), float(constant.stderr)) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-12))
    sample = torch.tensor([1.0, 2.0, 3.0, 6.0])
    even = PairedDifference.of(sample, torch.zeros(4), torch.ones(4))
    assert float(even.mean) == pytest.approx(3.0)
    assert float(even.stderr) == pytest.approx(float(sample.std() / 2))
    # The ratio sum w d / sum w, by linearisation: its variance is n/(n-1) sum (w (d - mean) / sum w)^2.
    odd = PairedDifference.of(sample, torch.ones(4), w)
    mean = float((w * (sample - 1)).sum() / 10)
    assert float(odd.mean) == pytest.approx(mean)
    squares = (w / 10 * (sample - 1 - mean)).square().sum()
    assert float(odd.stderr) == pytest.approx(float((squares * 4 / 3).sqrt()))
    assert PairedDifference.of(torch.ones(1), torch.zeros(1), torch.ones(1)).stderr == math.inf


def test_probability_is_students():
    mean, stderr = torch.tensor([0.3, -0.2, 0.0]).double(), torch.tensor([0.2, 0.4, 1.0]).double()
    for n in (2, 5, 30):
        expected = [student.cdf(m / s, df=n - 1) for m, s in zip(mean.tolist(), stderr.tolist(), strict=True)]
        assert PairedDifference(mean, stderr, n).probability().tolist() == pytest.approx(expected)


def test_differences_without_spread_are_certain():
    """Equal under every noise sample, or a single noise sample: all there is to go by is the sign."""
    mean = torch.tensor([1e-9, 0.0, -1e-9]).double()
    assert PairedDifference(mean, torch.zeros(3).double(), 8).probability().tolist() == [1, 0, 0]
    assert PairedDifference(mean, torch.full((3,), math.inf).double(), 1).probability().tolist() == [0.5] * 3


def test_standard_errors_are_counted():
    difference = PairedDifference(torch.tensor([1.0, 2.0, 3.0, -5.0]), torch.ones(4), 8)
    assert difference.at_least(2.0).tolist() == [False, True, True, False]
