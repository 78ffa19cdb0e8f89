"""The head of points with values: values enter late, so that all of a point cost one pass of what they share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_models import TINY, inputs, randomised
from torch.nn.functional import softplus

from igm_cli.core.concepts import Categorical, Continuous, Product
from igm_cli.core.inference.gauss_newton import refine
from igm_cli.core.inference.noised_batch import noised
from igm_cli.core.models import build_denoiser
from igm_cli.core.noise_schedule import Schedule, draw
from igm_cli.core.objective import Noised
from igm_cli.core.training.config import TrainConfig
from igm_cli.core.training.contrast import contrastive_loss_of_points, false_concepts
from igm_cli.errors import InputError

SPACE = Product(
    Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True),
    Categorical({"colour": tuple("abcdefgh"), "shape": tuple("ijk"), "size": ("l", "m")}),
)


@pytest.fixture(scope="module")
def denoiser():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomised(build_denoiser("factored", TINY, SPACE, Schedule()))


def concepts_at(points: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Points ``[...,2]`` with random values."""
    generator = torch.Generator().manual_seed(seed)
    values = [torch.eye(n)[torch.randint(n, points.shape[:-1], generator=generator)] for n in (8, 3, 2)]
    return torch.cat([points, *values], dim=-1)


class Rows:
    """Counts the rows that pass the layers that all values of a point share."""

    def __init__(self, denoiser):
        self.count = 0
        self.hook = denoiser.head.layers[0][0].register_forward_pre_hook(self.add)

    def add(self, module, arguments):
        self.count += arguments[0].shape[:-1].numel()


def counted(denoiser, work):
    rows = Rows(denoiser)
    found = work()
    rows.hook.remove()
    return found, rows.count


def test_variants_of_a_point_are_what_they_are_alone_at_the_cost_of_one(denoiser):
    x, t, _ = inputs(denoiser)
    features = denoiser.features(x, t)
    points = torch.tensor([[0.02, 0.1], [0.4, 0.5], [0.97, 0.99]])
    lone = concepts_at(points)
    every = torch.cat([SPACE.variants(lone[:2]).flatten(0, 1), lone[2:]])  # 13, 13 and 1
    patches = denoiser.to_patches(x)

    def all_at_once(concepts):
        one = concepts[None]
        windows = denoiser.windows(features, one, one)
        return denoiser.contributions(features, one), *windows, *denoiser.products(features, one, patches)

    together, shared = counted(denoiser, lambda: all_at_once(every))
    _, alone = counted(denoiser, lambda: all_at_once(lone))
    assert shared == alone > 0
    each = [all_at_once(concept[None]) for concept in every]
    for which, dim in enumerate((1, 2, 1, 1, 1)):
        torch.testing.assert_close(together[which], torch.cat([one[which] for one in each], dim))
    delta = together[0]
    assert float((delta[:, 0] - delta[:, 1]).abs().max()) > 1e-4  # the value matters


def test_points_of_several_images_may_differ_in_number(denoiser):
    x, t, _ = inputs(denoiser)
    features = denoiser.features(x, t)
    points = torch.tensor([[[0.3, 0.2], [0.3, 0.2], [0.8, 0.7]], [[0.3, 0.2], [0.5, 0.5], [0.8, 0.7]]])
    concepts = concepts_at(points)
    windows, cells = denoiser.windows(features, concepts, None)
    for image in range(2):
        own = denoiser.features(x[image : image + 1], t[image : image + 1])
        values, where = denoiser.windows(own, concepts[image : image + 1], None)
        torch.testing.assert_close(windows[:, image], values[:, 0], atol=1e-5, rtol=1e-4)
        assert torch.equal(cells[image], where[0])
    none = denoiser.windows(features, concepts[:, :0], None)
    assert none[0].shape[2] == none[1].shape[1] == 0


def test_with_gradients_the_answer_and_the_derivatives_are_the_same(denoiser):
    x, t, _ = inputs(denoiser)
    features = denoiser.features(x, t)
    variants = SPACE.variants(concepts_at(torch.tensor([[0.4, 0.5], [0.1, 0.8]])))  # of one point of each image
    plain = denoiser.windows(features, variants, None)[0]
    film = denoiser.head.film.weight.requires_grad_(True)

    def gradient(concepts):
        values = denoiser.windows(features, concepts, None)[0]
        return values, torch.autograd.grad((values * plain.sin()).sum(), film)[0]

    (grouped, slope), few = counted(denoiser, lambda: gradient(variants))
    (single, expected), many = counted(denoiser, lambda: gradient(variants.clone().requires_grad_(True)))
    film.requires_grad_(False)
    assert 10 * few < many
    torch.testing.assert_close(grouped, plain)
    torch.testing.assert_close(single, plain)
    torch.testing.assert_close(slope, expected)


def test_refinement_moves_the_point_and_keeps_the_values(denoiser):
    draws = draw(denoiser.schedule, (3, 32, 48), 4, low=0.2, high=0.6, seed=0)
    seen = noised(denoiser, torch.zeros(4, 1, 3, 32, 48), draws, 0.0)
    true = concepts_at(torch.tensor([[0.46, 0.55]]))
    patches = seen.contributions(true[None]).added_to(torch.zeros_like(seen.residual), torch.ones(1, 1))
    seen = replace(seen, residual=patches)
    start = true.clone()
    start[:, :2] += torch.tensor([0.01, -0.005])  # a random head has minima beyond
    one = torch.ones(1, 1, 1, dtype=torch.bool)
    found = refine([seen], SPACE.point, start[None, None], one, torch.ones(1), steps=8).concepts[0, 0]
    torch.testing.assert_close(found[:, :2], true[:, :2], atol=2e-3, rtol=0)
    assert torch.equal(found[:, 2:], true[:, 2:])


def test_the_contrast_is_that_of_whole_images(denoiser):
    """Brute force: the composed error with every value in exchange, over all pixels, by ``contributions``."""
    schedule, generator = denoiser.schedule, torch.Generator().manual_seed(1)
    x0, noise = torch.randn(2, 2, 3, 32, 48, generator=generator)
    t, present = torch.tensor([200, 600]), torch.tensor([[True, True, True], [True, False, False]])
    points = torch.tensor([[0.4, 0.5], [0.45, 0.6], [0.02, 0.97]]).expand(2, 3, 2)
    concepts, member = concepts_at(points), torch.tensor([1, 0])
    shown = SPACE.mixed(concepts, torch.tensor([False, True, False]).expand(2, 3, 3))
    x_t = schedule.add_noise(x0, noise, t)
    false = concepts_at(torch.rand(2, 2, 2, generator=generator))

    def loss(contrast):
        seen = Noised.of(schedule, x0, t, noise)
        return contrastive_loss_of_points(
            denoiser, denoiser, seen, SPACE, concepts, present, shown, member, false, contrast
        )

    expected, missed, more = 0.0, [], []
    for b in range(2):
        features = denoiser.features(x_t[b : b + 1], t[b : b + 1])

        def square(held, features=features, b=b):
            delta = denoiser.contributions(features, held[None])[0].sum(0)
            return float((noise[b] - denoiser.base(features)[0] - delta).square().sum())

        true = shown[b][present[b]]
        logits = []
        for variant in SPACE.variants(shown[b, member[b]]):
            held = true.clone()
            held[member[b]] = variant
            logits.append(-square(held) / 2)
        likelihood = torch.tensor(logits)
        for group in SPACE.what.groups():
            right = int(concepts[b, member[b], 2:][group].argmax())
            expected -= float(likelihood[group].log_softmax(0)[right]) / 2
        missed += [square(torch.cat([true[:i], true[i + 1 :]])) - square(true) for i in range(len(true))]
        more += [square(torch.cat([true, each[None]])) - square(true) for each in false[b]]
    expected += sum(float(softplus(-torch.tensor(ratios) / 2).mean()) for ratios in (missed, more))
    assert float(loss(0.7) - loss(0.0)) == pytest.approx(0.7 * expected, rel=1e-3)


def test_false_concepts_lie_near_a_true_one_and_anywhere():
    beside = concepts_at(torch.full((3000, 2), 0.5))
    near, far = false_concepts(SPACE, beside, torch.Generator().manual_seed(0)).unbind(1)
    assert float((near - beside)[:, :2].std()) == pytest.approx(0.05, abs=0.005)
    assert float(far[:, :2].std()) == pytest.approx(12**-0.5, abs=0.01)
    for one in (near, far):
        for group in SPACE.what.groups():
            values = one[:, 2:][:, group]
            assert bool((values.sum(1) == 1).all() and (values.amax(1) == 1).all())
    own = (near[:, 2:10] == beside[:, 2:10]).all(1).float().mean()
    assert float(own) == pytest.approx(0.5 + 0.5 / 8, abs=0.03)


def test_mixtures_come_in_all_numbers_and_in_the_proportion_asked_for():
    from igm_cli.core.training.objectives import ComposedObjective

    asked = object.__new__(ComposedObjective)
    asked.config, asked.device = TrainConfig(mixed=0.2), torch.device("cpu")
    concepts = concepts_at(torch.rand(4000, 3, 2))
    shown = asked._mixed(SPACE, concepts, torch.Generator().manual_seed(0))
    unknown = torch.stack([shown[..., 2:][..., group].amax(-1) < 1 for group in SPACE.what.groups()], -1)
    assert float(unknown.float().mean()) == pytest.approx(0.2, abs=0.01)
    assert all(int((unknown.sum(-1) == count).sum()) > 500 for count in range(4))
    assert torch.equal(shown[~unknown.any(-1)], concepts[~unknown.any(-1)])
    assert torch.equal(shown[..., :2], concepts[..., :2])
    with pytest.raises(InputError, match="mixed"):
        TrainConfig(mixed=1.5)
