"""Correctors, particles and mixtures, on two experts in the plane whose product and mixture are known."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from mixture_oracle import SHAPE, Experts, Mixture, bar, ring, total_variation
from oracle import flow
from torch import Tensor

from igm_cli.core.noise_schedule import Schedule
from igm_cli.core.sampling import Composed, Hamiltonian, Langevin, sample, sample_any
from igm_cli.core.sampling.correctors import rise
from igm_cli.core.sampling.noise import ImageNoise
from igm_cli.core.sampling.particles import Particles

CPU = torch.device("cpu")
COUNT, STEPS = 2000, 25


@pytest.fixture(scope="module", autouse=True)
def one_stream() -> Iterator[None]:
    """All points of a sample draw from one stream, which takes a fraction of the time of one each."""

    def normal(noise: ImageNoise, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(len(noise.streams), *shape, generator=noise.streams[0])

    def uniform(noise: ImageNoise) -> Tensor:
        return torch.rand(len(noise.streams), generator=noise.streams[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageNoise, "normal", normal)
        patch.setattr(ImageNoise, "uniform", uniform)
        yield


@pytest.fixture(scope="module")
def product() -> Mixture:
    return ring().times(bar())


@pytest.fixture(scope="module")
def plain() -> Tensor:
    """Samples of the sum of scores alone."""
    return drawn(sampler="ancestral")


def drawn(schedule: Schedule | None = None, **how: object) -> Tensor:
    """Samples ``[N,2]`` of both experts at once."""
    both = torch.tensor([[[0.0], [1.0]]]).expand(COUNT, -1, -1)
    model = Composed.of(Experts(ring(), bar(), schedule=schedule), both)
    return sample(model, SHAPE, steps=STEPS, clip=False, **how).flatten(1)  # type: ignore[arg-type]


def above(points: Tensor, wanted: Mixture) -> float:
    """Total variation from a density, above what as many of its own points have."""
    many = wanted.drawn(100_000, 1)
    return total_variation(points, many) - total_variation(wanted.drawn(len(points), 2), many)


@pytest.mark.parametrize(
    ("corrector", "most"), [(Langevin(8, 0.2), 0.13), (Langevin(8, 0.3, True), 0.09), (Hamiltonian(4), 0.08)]
)
def test_correctors_bring_samples_to_the_product(corrector, most, product, plain):
    """The sum of scores alone does not give it."""
    assert above(plain, product) > 0.2
    assert above(drawn(sampler="ancestral", corrector=corrector), product) < most


def test_particles_come_closer_to_the_product(product, plain):
    assert above(drawn(sampler="ancestral", particles=8), product) < above(plain, product) - 0.03


def test_particles_come_closer_on_a_flow(product):
    alone = above(drawn(flow(1.0), sampler="ancestral"), product)
    assert above(drawn(flow(1.0), sampler="ancestral", particles=8), product) < alone - 0.03


@pytest.mark.parametrize("corrector", [Langevin(30, 0.5, True), Hamiltonian(15, 3, 0.5)])
def test_what_is_accepted_keeps_the_density(corrector, product):
    """Without a test large steps do not."""
    start = product.drawn(COUNT, 5).view(COUNT, *SHAPE)

    def score(x: Tensor) -> Tensor:
        return product.score(x.flatten(1)).view_as(x)

    def moved(how: Langevin | Hamiltonian) -> Tensor:
        return how(start, score, product.variance**0.5, ImageNoise(0, range(COUNT), CPU)).flatten(1)

    assert above(moved(corrector), product) < 0.025
    assert above(moved(Langevin(30, 1.0)), product) > 0.045
    assert float((moved(corrector) - start.flatten(1)).norm(dim=1).mean()) > 0.1


def test_the_rise_along_a_move_is_that_of_a_gaussian():
    """Its score is linear, so that the trapezoid rule is exact."""
    one = Mixture(torch.ones(1), torch.tensor([[0.3, -0.2]]), 0.2)
    x, y = torch.randn(2, 9, 2, generator=torch.Generator().manual_seed(0))
    expected = one.log_density(y) - one.log_density(x)
    torch.testing.assert_close(rise(one.score(x), one.score(y), y - x), expected, rtol=1e-4, atol=1e-4)


def test_the_overlap_is_the_off_diagonal_of_the_gram_matrix():
    experts = Experts(ring(), bar(), ring())
    concepts, scale = torch.tensor([[[0.0], [1.0], [2.0]]]).expand(4, -1, -1), torch.tensor([[1.0, -0.5, 2.0]])
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    prediction = Composed.of(experts, concepts, guidance=scale.expand(4, -1)).predict(x, 300)
    delta = experts.contributions((x, 300), concepts).flatten(2)
    gram = torch.einsum("k,nkp,l,nlp->nkl", scale[0], delta, scale[0], delta)
    off = gram.sum((1, 2)) - gram.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(prediction.overlap, off)
    torch.testing.assert_close(prediction.epsilon.flatten(1), (scale[0, :, None] * delta).sum(1))


def test_models_trained_apart_add_their_contributions_to_the_first_ones_base():
    """The second has a prediction of its own under no concept, which is taken off."""
    both, left, right = Experts(ring(), bar()), Experts(ring(), bar()), Experts(bar(), ring())
    right.base = lambda features: torch.ones_like(features[0])  # type: ignore[method-assign]
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(4, 1, 1)
    joined = (Composed.of(left, zeros, guidance=2.0) & Composed.of(right, zeros)).predict(x, 300)
    concepts, weights = torch.tensor([[[0.0], [1.0]]]).expand(4, -1, -1), torch.tensor([[2.0, 1.0]])
    expected = Composed.of(both, concepts, guidance=weights).predict(x, 300)
    torch.testing.assert_close(joined.epsilon, expected.epsilon)
    torch.testing.assert_close(joined.overlap, expected.overlap)


def test_particles_are_drawn_by_their_weights():
    flock = Particles(2, 4, ImageNoise(0, range(2), CPU))
    x = torch.arange(8.0).view(8, 1, 1, 1)
    flock.log_weight = torch.tensor([[0.0, 0.0, 0.0, 0.0], [-50.0, 0.0, -50.0, -50.0]])
    again = flock.redrawn(x).flatten()
    assert again[:4].tolist() == [0, 1, 2, 3]  # all of them count
    assert again[4:].tolist() == [5, 5, 5, 5]
    flock.log_weight = torch.tensor([[-50.0, -50.0, 0.0, -50.0], [0.0, -50.0, -50.0, -50.0]])
    assert flock.one(x).flatten().tolist() == [2, 4]


def test_a_weight_is_the_overlap_over_the_time():
    flock = Particles(1, 2, ImageNoise(0, range(1), CPU))
    flock.advance(torch.tensor([3.0, -1.0]), sigma=0.5, alpha=0.2, alpha_after=0.4)
    expected = [3.0 / 0.25 * math.log(2), -1.0 / 0.25 * math.log(2)]
    assert flock.log_weight[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("wanted", "schedule"), [([0.5, 0.5], None), ([0.2, 0.8], None), ([0.2, 0.8], flow(1.0))]
)
def test_a_mixture_has_its_branches_as_often_as_wanted(wanted, schedule):
    left = Mixture(torch.ones(2) / 2, torch.tensor([[-0.8, -0.5], [-0.6, -0.9]]), 0.1**2)
    right = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([[0.7, 0.5], [0.5, 0.9]]), 0.15**2)
    experts = Experts(left, right, schedule=schedule)
    branches = [Composed.of(experts, torch.full((COUNT, 1, 1), float(i))) for i in (0, 1)]
    points, sure = sample_any(branches, SHAPE, wanted, steps=60, clip=False)
    found = points.flatten(1)[:, 0] > 0
    assert float(found.float().mean()) == pytest.approx(wanted[1], abs=0.05)
    assert torch.equal(sure[:, 1] > 0.5, found)
    mixed = Mixture(
        torch.cat([wanted[0] * left.weights, wanted[1] * right.weights]),
        torch.cat([left.means, right.means]),
        0.02,
    )
    assert above(points.flatten(1), mixed) < 0.2
