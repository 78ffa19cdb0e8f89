"""Refinement: concepts reach the minima of their composed errors, between the points of any grid."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from oracle import positions, products, seen_by

from igm_cli import load
from igm_cli.core.concepts import Continuous
from igm_cli.core.inference import gauss_newton
from igm_cli.core.inference.call_counter import CallCounter
from igm_cli.core.inference.direct import hypothesis_errors
from igm_cli.core.inference.gauss_newton import REACH, Boxes, one_by_one, refine
from igm_cli.core.inference.noised_batch import noised
from igm_cli.core.noise_schedule import Draws, draw

TRUTH = torch.tensor([[0.2, 0.3], [0.7, 0.25], [0.5, 0.8]])
ONE = torch.ones(1)


def refined(oracle, seen, starts, steps=10, w=ONE, present=None):
    """Hypotheses ``[H,K,D]`` about one image."""
    present = torch.ones(1, 1, starts.shape[1], dtype=torch.bool) if present is None else present
    return refine([seen], oracle.space.point, starts[None], present, w, steps=steps)


def test_the_truth_is_reached_between_grid_points():
    oracle = positions()
    seen = seen_by(oracle, oracle.image(TRUTH))
    starts = torch.stack([TRUTH + 0.02, TRUTH - 0.015, TRUTH])
    result = refined(oracle, seen, starts)
    assert float((result.concepts[0] - TRUTH).norm(dim=2).max()) < 0.004
    assert bool((result.errors[0] <= refined(oracle, seen, starts, steps=0).errors[0]).all())
    alone = refined(oracle, seen, starts[:1])  # hypotheses do not disturb one another
    torch.testing.assert_close(alone.concepts[0, 0], result.concepts[0, 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("power", [0.0, 2.0])
@pytest.mark.parametrize("w", [1.0, 0.5])
def test_errors_are_those_of_the_objective(power, w):
    """Weighted by the importance of the noise samples, each contribution by its weight in the composition."""
    oracle, image = positions(), positions().image(TRUTH)
    draws = draw(oracle.schedule, (3, 24, 24), 6, low=0.05, high=0.6, seed=3)
    seen = noised(oracle, image.expand(6, 1, -1, -1, -1), draws, power)
    two = TRUTH[None, :2]
    composition = "sum" if w == 1 else "mean"
    direct = hypothesis_errors(oracle, image, draws, two, composition)[0]
    expected = float((seen.importance * direct).sum() / seen.importance.sum())
    start = refined(oracle, seen, two, steps=0, w=torch.tensor([w]))
    assert float(start.errors[0, 0]) == pytest.approx(expected, rel=1e-4)
    assert start.calls.tolist() == [2] and torch.equal(start.concepts[0], two)


@pytest.mark.parametrize("power", [0.0, 4.0])
def test_the_end_is_a_minimum_of_the_weighted_error(power):
    """No small move of a coordinate makes it better, and hardly any step is left to be made."""
    oracle = positions()
    image = oracle.image(TRUTH[:2]) + 0.8 * torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(1))
    draws = draw(oracle.schedule, (3, 24, 24), 4, low=0.05, high=0.9, seed=3)
    seen = noised(oracle, image.expand(4, 1, -1, -1, -1), draws, power)
    end = refined(oracle, seen, TRUTH[None, :2] + 0.03, steps=20)
    concepts = end.concepts[0]
    for move in (-0.004, 0.004):
        for place in range(4):
            shifted = concepts.flatten().clone()
            shifted[place] += move
            other = refined(oracle, seen, shifted.view(1, 2, 2), steps=0)
            assert float(other.errors[0, 0]) > float(end.errors[0, 0])


def test_few_steps_are_enough():
    """Gauss-Newton steps, not gradient steps: the damping falls as they help."""
    oracle = positions()
    seen = seen_by(oracle, oracle.image(TRUTH))
    result = refined(oracle, seen, TRUTH[None] + torch.tensor([0.02, -0.02]), steps=3)
    assert float((result.concepts[0, 0] - TRUTH).norm(dim=1).max()) < 0.005
    long = refined(oracle, seen, TRUTH[None] + torch.tensor([0.02, -0.02]), steps=50)
    assert int(long.calls[0]) < 3 + 2 * 3 * 4 + 12 * 3  # it stops where a step hardly changes anything


def test_a_step_never_makes_it_worse():
    oracle = positions()
    seen = seen_by(oracle, oracle.image(TRUTH))
    generator = torch.Generator().manual_seed(0)
    starts = torch.rand(40, 3, 2, generator=generator)
    errors = [refined(oracle, seen, starts, steps=steps).errors for steps in range(6)]
    for before, after in itertools.pairwise(errors):
        assert bool((after <= before).all())
    assert float((errors[0] - errors[-1]).mean()) > 0


def test_no_coordinate_moves_further_than_the_reach():
    oracle = positions()
    seen = seen_by(oracle, oracle.image(TRUTH[:1]))
    starts = TRUTH[None, :1] + torch.tensor([[[0.09, -0.05]], [[-0.12, 0.02]], [[0.0, 0.14]]])
    moved = (refined(oracle, seen, starts, steps=1).concepts[0] - starts).abs()
    assert float(moved.max()) == pytest.approx(REACH, rel=1e-3)


def test_a_step_that_does_not_help_is_made_shorter():
    """From the flank of a spot the undamped step overshoots; further steps still arrive."""
    oracle = positions()
    seen = seen_by(oracle, oracle.image(TRUTH[:1]))
    angles = torch.linspace(0, 6.28, 16)
    starts = TRUTH[None, :1] + 0.11 * torch.stack([angles.cos(), angles.sin()], 1)[:, None]
    end = refined(oracle, seen, starts, steps=15).concepts[0]
    assert float((end - TRUTH[:1]).norm(dim=2).max()) < 0.01


def test_concepts_stay_in_their_box():
    oracle = positions()
    corner = torch.tensor([[0.99, 0.01]])
    outside = oracle.image(torch.tensor([[1.03, -0.03]]))
    end = refined(oracle, seen_by(oracle, outside), corner[None]).concepts[0, 0, 0]
    assert end.tolist() == [1.0, 0.0]


def test_ranges_of_coordinates_may_differ():
    """Steps and reach are fractions of each."""
    oracle = positions()
    oracle.space = Continuous(("x", "y"), (-10.0, 0.0), (10.0, 0.2))
    template = oracle.template
    unit = torch.tensor([20.0, 0.2])
    oracle.template = lambda concepts: template((concepts - torch.tensor([-10.0, 0.0])) / unit)
    truth = TRUTH * unit + torch.tensor([-10.0, 0.0])
    seen = seen_by(oracle, oracle.image(truth))
    end = refined(oracle, seen, truth[None] + 0.02 * unit).concepts[0, 0]
    assert float(((end - truth) / unit).norm(dim=1).max()) < 0.004


def test_images_are_refined_as_if_each_were_alone():
    """With other concepts, other weights, and fewer of them."""
    oracle = positions()
    images = torch.stack([oracle.image(TRUTH), oracle.image(TRUTH[:2], 1), oracle.image(TRUTH[2:], 2)])
    draws = draw(oracle.schedule, (3, 24, 24), 4, low=0.05, high=0.6, seed=3)
    present = torch.tensor([[True, True, True], [True, True, False], [False, False, False]])
    w = torch.tensor([1.0, 0.9, 1.0])
    starts = (TRUTH + 0.02).expand(3, 2, -1, -1).clone()
    starts[:, 1] -= 0.03

    def seen(which):
        return noised(oracle, images[which].expand(4, -1, -1, -1, -1), draws, 1.0)

    together = refine([seen([0, 1, 2])], oracle.space, starts, present[:, None], w, steps=4)
    for image in range(3):
        one = slice(image, image + 1)
        k = int(present[image].sum())
        alone = refine(
            [seen([image])], oracle.space, starts[one, :, :k], present[one, None, :k], w[one], steps=4
        )
        torch.testing.assert_close(together.concepts[image, :, :k], alone.concepts[0], atol=2e-4, rtol=0)
        torch.testing.assert_close(together.errors[image], alone.errors[0], rtol=1e-4, atol=1e-6)
    assert torch.equal(together.concepts[:, :, 2][~present[:, 2]], starts[:, :, 2][~present[:, 2]])


def test_noise_samples_may_come_in_parts():
    oracle, image = positions(), positions().image(TRUTH)
    draws = draw(oracle.schedule, (3, 24, 24), 6, low=0.05, high=0.6, seed=3)
    whole = noised(oracle, image.expand(6, 1, -1, -1, -1), draws, 1.0)
    parts = [
        noised(oracle, image.expand(n, 1, -1, -1, -1), Draws(t, noise), 1.0)
        for n, t, noise in zip((4, 2), draws.t.split([4, 2]), draws.noise.split([4, 2]), strict=True)
    ]
    start, present = TRUTH[None, None] + 0.02, torch.ones(1, 1, 3, dtype=torch.bool)
    one, two = (refine(seen, oracle.space, start, present, ONE, steps=4) for seen in ([whole], parts))
    torch.testing.assert_close(one.concepts, two.concepts, atol=1e-4, rtol=0)
    torch.testing.assert_close(one.errors, two.errors, rtol=1e-4, atol=0)
    assert torch.equal(one.calls, two.calls)


def test_only_the_points_of_products_move():
    oracle = products()
    values = oracle.space.combinations()[[1, 4]]
    truth = torch.cat([TRUTH[:2], values], dim=1)
    seen = seen_by(oracle, oracle.image(truth))
    start = truth + torch.nn.functional.pad(torch.tensor([0.015, -0.01]), (0, 5))
    end = refined(oracle, seen, start[None]).concepts[0, 0]
    assert torch.equal(end[:, 2:], values)
    assert float((end[:, :2] - TRUTH[:2]).norm(dim=1).max()) < 0.004


def test_calls_are_those_that_are_made():
    """Of each noise sample: one for every concept of every hypothesis, and two per derivative."""
    counter = CallCounter(positions())
    seen = seen_by(counter, counter.denoiser.image(TRUTH), count=4)
    for steps in (0, 1, 3, 9):
        before = counter.used.contributions
        found = refined(counter, seen, torch.stack([TRUTH + 0.02, TRUTH - 0.03]), steps=steps)
        assert 4 * int(found.calls[0]) == counter.used.contributions - before


def test_single_concepts_in_a_large_image_are_refined_in_the_cells_that_they_can_reach(monkeypatch):
    """As in the whole image, at its borders and beyond them, too."""
    denoiser = load("blood-cells", device="cpu").denoiser
    draws = draw(denoiser.schedule, (3, 144, 160), 3, low=0.1, high=0.6, seed=0)
    noise = torch.randn(3, 144, 160, generator=torch.Generator().manual_seed(0))
    x, y = torch.meshgrid(torch.arange(160.0), torch.arange(144.0), indexing="xy")
    image = (torch.cos(x / 5) * torch.cos(y / 6))[None] + 0.1 * noise
    point = Continuous(("x", "y"), (-0.06, -0.06), (1.06, 1.06), local=True)
    corners = torch.tensor([[-0.06, -0.06], [1.06, -0.06], [-0.06, 1.06], [1.06, 1.06], [0.0, 0.5], [1.0, 0.3]])
    inner = torch.rand(20, 2, generator=torch.Generator().manual_seed(1))
    starts, one = torch.cat([corners, inner])[None, :, None], torch.ones(1, 1, 1, dtype=torch.bool)
    with torch.no_grad():
        seen = noised(denoiser, image.expand(3, 1, -1, -1, -1), draws, 0.0)
        found = refine([seen], point, starts, one, ONE, steps=4)
        delta = one_by_one(seen.contributions(starts[:, :, 0]), 26)
        assert math.prod(Boxes.around(delta, 4 * REACH * point.extent).size) < delta.g / 2
        monkeypatch.setattr(gauss_newton, "DENSE_CELLS", 10**6)
        whole = refine([seen], point, starts, one, ONE, steps=4)
    torch.testing.assert_close(found.errors, whole.errors, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.concepts, whole.concepts, rtol=0, atol=2e-3)
    assert (found.concepts - starts).abs().amax((1, 2, 3)) > 0.02
    assert torch.equal(found.calls, whole.calls)
