"""GC, the baseline that is one conditional model of the whole set."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from igm_cli.benchmarks.baselines.fit import Budget, TrainingData, fit
from igm_cli.benchmarks.baselines.gc import GenerativeClassifier
from igm_cli.benchmarks.baselines.gc_inversion import SetSettings, invert_set
from igm_cli.benchmarks.baselines.gc_network import Relations, SetAttention, SetConfig, SetDenoiser
from igm_cli.core.checkpoint import ModelSpec, save_checkpoint
from igm_cli.core.concepts import Continuous
from igm_cli.core.metrics import match
from igm_cli.core.models.factored import FactoredConfig
from igm_cli.core.noise_schedule import Schedule, ScheduleConfig
from igm_cli.errors import InputError, MissingError

SIZE = (48, 32)
TINY = SetConfig(FactoredConfig(image_size=SIZE, channels=(16, 16, 16), blocks=1, window=3), 16, 2, 1, 2)


def tiny() -> SetDenoiser:
    """A small network whose set blocks are not silent, as they are before training."""
    torch.manual_seed(0)
    model = SetDenoiser(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(2, 3, SIZE[1], SIZE[0], generator=generator)
    return x_t, torch.tensor([100, 700]), torch.rand(2, 4, 2, generator=generator)


def test_order_of_the_set_does_not_matter(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    x_t, t, concepts = inputs
    model = tiny().requires_grad_(False)
    there, back = model(x_t, t, concepts), model(x_t, t, concepts[:, [2, 0, 3, 1]])
    torch.testing.assert_close(there, back, atol=1e-5, rtol=1e-4)
    assert float((there - model(x_t, t, concepts + 0.1)).abs().max()) > 1e-3


@pytest.mark.parametrize("k", [0, 1, 4])
def test_padding_does_not_matter(inputs: tuple[Tensor, Tensor, Tensor], k: int) -> None:
    x_t, t, concepts = inputs
    model, present = tiny(), torch.arange(4).expand(2, 4) < k
    padded = model(x_t, t, concepts, present)
    torch.testing.assert_close(padded, model(x_t, t, concepts[:, :k]), atol=1e-5, rtol=1e-4)


def test_predictions_are_not_a_sum_over_positions(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    x_t, t, concepts = inputs
    model = tiny().requires_grad_(False)
    both, first, second, none = (model(x_t, t, concepts[:, ks]) for ks in ([0, 1], [0], [1], []))
    assert float((both - first - second + none).abs().max()) > 1e-3


def test_an_empty_set_changes_nothing(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    x_t, t, concepts = inputs
    model = tiny()
    features = model.features(x_t, t)
    assert torch.equal(model.output(features, concepts[:, :0]), features.base)


def test_what_the_head_adds_is_confined_to_cells_that_the_set_concerns(inputs: tuple[Tensor, ...]) -> None:
    """And a cell is concerned or not, however many positions say so."""
    x_t, t, _ = inputs
    model = tiny().requires_grad_(False)
    features = model.features(x_t, t)
    corner = torch.full((2, 1, 2), 0.1)
    change = (model.output(features, corner) - features.base).abs().amax(1)  # [N,H,W]
    assert float(change[:, :8, :8].max()) > 1e3 * float(change[:, 20:, 30:].max())
    changes = []
    for count in (1, 20):
        relations, distance, _ = model.relations(corner.expand(2, count, 2), model.grid)
        changes.append(model.gate(relations, distance, torch.ones(2, count, dtype=torch.bool)))
    assert float(changes[0].max()) > 0.5 and float(changes[1].max()) <= 1.0


def test_positions_relate_to_the_cells_around_them() -> None:
    relations = Relations(8, 3)
    columns, rows = torch.meshgrid(torch.arange(6), torch.arange(4), indexing="xy")
    places = torch.stack([(columns + 0.5) / 6, (rows + 0.5) / 4], dim=-1).view(1, 24, 2)  # centres of cells
    features, distance, reading = relations(places, (6, 4))
    assert features.shape == (1, 24, 24, 8)
    assert torch.equal(reading[0].argmax(1), torch.arange(24)) and float(reading[0].diagonal().min()) > 0.5
    assert float(distance[0].diagonal().max()) < 1e-9
    assert float(distance[0, 0, 23]) == pytest.approx((5**2 + 3**2) / 3**2)


@torch.no_grad()
def test_cells_attend_to_near_positions_or_to_none() -> None:
    """The first cell is near the first position, the second near none."""
    torch.manual_seed(0)
    attention = SetAttention(8, 2, 4)
    cells, present = torch.randn(1, 8, 1, 2), torch.ones(1, 2, dtype=torch.bool)
    tokens, relations = torch.randn(1, 2, 8), torch.randn(1, 2, 2, 4)
    distance = torch.tensor([[[0.0, 50.0], [50.0, 50.0]]])
    both = attention(cells, tokens, relations, distance, present)
    near = attention(cells, tokens, relations, distance, torch.tensor([[True, False]]))
    torch.testing.assert_close(both, near)
    torch.testing.assert_close(both[..., 1], cells[..., 1])
    assert float((both - cells)[..., 0].abs().max()) > 0.01


def test_gradients_reach_weights_and_positions(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    x_t, t, concepts = inputs
    model = tiny()
    concepts.requires_grad_(True)
    model(x_t, t, concepts).square().mean().backward()
    assert concepts.grad is not None and bool((concepts.grad != 0).all())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_starts_as_the_unconditional_output_of_a_checkpoint(
    tmp_path: Path, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    x_t, t, concepts = inputs
    space = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True).to_dict()
    spec = ModelSpec("factored", asdict(TINY.trunk), space, ScheduleConfig().to_dict(), "sum", SIZE, "pos")
    donor = spec.build()
    torch.nn.init.normal_(donor.base_out.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    save_checkpoint(tmp_path / "donor", spec, donor.state_dict())
    baseline = GenerativeClassifier(TINY, init=tmp_path / "donor")
    model = baseline.build()
    base, _ = donor(x_t, t, concepts)
    torch.testing.assert_close(model.epsilon(model.features(x_t, t), concepts), base, atol=1e-5, rtol=1e-4)
    assert all(p.requires_grad for p in model.parameters())
    described = json.loads(json.dumps(baseline.describe()))
    assert len(described["init"]) == 64
    assert described != json.loads(json.dumps(replace(baseline, init=None).describe()))
    with pytest.raises(InputError, match="another shape"):
        replace(baseline, config=SetConfig(replace(TINY.trunk, channels=(32, 16, 16)), 16, 2)).build()
    with pytest.raises(InputError, match="another shape"):
        replace(baseline, config=SetConfig(replace(TINY.trunk, blocks=2), 16, 2)).build()
    with pytest.raises(MissingError):
        replace(baseline, init=tmp_path).build()


def blobs(sets: Tensor, size: tuple[int, int] = SIZE, width: float = 4.0) -> Tensor:
    """The union of soft discs at positions ``[N,K,2]``, ``[N,3,H,W]``; hidden parts do not add up."""
    ys, xs = torch.arange(size[1]) + 0.5, torch.arange(size[0]) + 0.5
    at = sets * sets.new_tensor(size)
    square = (at[..., 0, None, None] - xs).square() + (at[..., 1, None, None] - ys[:, None]).square()
    return (2 * torch.sigmoid(4 - square / width).amax(1, keepdim=True) - 1).expand(-1, 3, -1, -1)


class OracleFeatures(NamedTuple):
    x_t: Tensor
    t: Tensor


class Oracle:
    """Knows that images are :func:`blobs`: eps = (x_t - alpha x0) / sigma."""

    schedule = Schedule()

    def __init__(self, size: tuple[int, int] = SIZE, width: float = 4.0) -> None:
        self.size, self.width = size, width

    def features(self, x_t: Tensor, t: Tensor) -> OracleFeatures:
        return OracleFeatures(x_t, t)

    def epsilon(self, features: OracleFeatures, concepts: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha(features.t), self.schedule.sigma(features.t)
        if concepts.shape[1] == 0:
            return features.x_t
        x0 = blobs(concepts, self.size, self.width)
        return (features.x_t - alpha.view(-1, 1, 1, 1) * x0) / sigma.view(-1, 1, 1, 1)


TRUTH = torch.tensor([[0.2, 0.3], [0.36, 0.42], [0.7, 0.75], [0.85, 0.2]])


def test_inversion_finds_the_positions() -> None:
    settings = SetSettings(draws=8, low=0.3, high=0.6)
    found = invert_set(Oracle(), blobs(TRUTH[None])[0], [4], settings)
    assert float(match(found.concepts, TRUTH).squared.max()) < 1e-4
    again = invert_set(Oracle(), blobs(TRUTH[None])[0], [4], settings)
    assert torch.equal(found.concepts, again.concepts) and found.passes == again.passes > 100
    assert found.seconds > 0 and found.error < 1e-3


class Recording(Oracle):
    """Keeps the timesteps under which sets are differentiated."""

    def __init__(self) -> None:
        super().__init__()
        self.t = set[int]()

    def epsilon(self, features: OracleFeatures, concepts: Tensor) -> Tensor:
        self.t |= set(features.t.tolist()) if concepts.requires_grad else set()
        return super().epsilon(features, concepts)


def test_descent_looks_at_all_draws() -> None:
    oracle, settings = Recording(), SetSettings(draws=8, low=0.3, high=0.6, scan_sets=8, restarts=2, steps=8)
    invert_set(oracle, blobs(TRUTH[None, :1])[0], [1], settings)
    assert len(oracle.t) == 8


def test_counting_takes_the_least_error() -> None:
    image = blobs(TRUTH[None, :3])[0]
    settings = SetSettings(draws=8, low=0.3, high=0.6, scan_sets=32, restarts=4)
    found = invert_set(Oracle(), image, range(4), settings)
    assert len(found.concepts) == 3
    assert len(invert_set(Oracle(), image, [0], settings).concepts) == 0


def scattered(seed: int, k: int) -> Tensor:
    """Positions ``[k,2]`` of an image of 96×64 pixels, 9 pixels apart or more."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        places = 0.06 + 0.88 * torch.rand(k, 2, generator=generator)
        apart = ((places[:, None] - places) * torch.tensor([96.0, 64.0])).norm(dim=-1) + 1e6 * torch.eye(k)
        if float(apart.min()) > 9:
            return places


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_six_objects_are_found_exactly_within_a_thousand_passes(seed: int) -> None:
    """By good starts few are needed; what descent misses, exchanges find; Gauss-Newton makes it exact."""
    truth = scattered(seed, 6)
    settings = SetSettings(draws=8, low=0.3, high=0.6, restarts=4, scan_sets=48)
    image = blobs(truth[None], (96, 64), 9.0)[0]
    found = invert_set(Oracle((96, 64), 9.0), image, [6], settings)  # type: ignore[arg-type]
    assert float(match(found.concepts, truth).squared.max()) < 1e-8
    assert found.passes < 1000


class PerfectModel(torch.nn.Module):
    """Knows the clean images, and puts out v = (alpha x_t - x0) / sigma, or v and a constant; keeps its timesteps."""

    def __init__(self, x0: Tensor, off: float) -> None:
        super().__init__()
        self.x0, self.off, self.t = x0, off, torch.empty(0)

    def forward(self, x_t: Tensor, t: Tensor, concepts: Tensor, present: Tensor) -> Tensor:
        self.t = torch.cat([self.t, t])
        alpha, sigma = (f(t)[:, None, None, None] for f in (Schedule().alpha, Schedule().sigma))
        return (alpha * x_t - self.x0[: len(t)]) / sigma + self.off


@pytest.mark.parametrize("off", [0.0, 0.5])
def test_the_objective_is_the_error_of_v(off: float) -> None:
    images, concepts, present = Discs().batch(list(range(64)), [False] * 64)
    model, baseline = PerfectModel(images, off), GenerativeClassifier(TINY, batch_size=64)
    loss = baseline.loss(model, images, concepts, present, torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx(off**2, abs=1e-4)
    assert baseline.validate(model, images, concepts, present) == pytest.approx(off**2, abs=1e-4)


def test_training_and_validation_look_at_low_noise() -> None:
    """t = T u^power has the mean T/(power + 1); validation keeps to the noise that inference looks at."""
    images, concepts, present = Discs().batch(list(range(64)), [False] * 64)
    for power in (1.0, 2.0):
        baseline, model = (
            GenerativeClassifier(TINY, timestep_power=power, batch_size=64),
            PerfectModel(images, 0),
        )
        for seed in range(8):
            baseline.loss(model, images, concepts, present, torch.Generator().manual_seed(seed))
        assert float(model.t.mean()) == pytest.approx(1000 / (power + 1), abs=40)
    model = PerfectModel(images, 0)
    baseline.validate(model, images, concepts, present)
    assert len(model.t) == 4 * 64 and float(model.t.min()) >= 15 and float(model.t.max()) <= 350


class Discs:
    """Samples of the oracle's world."""

    def __len__(self) -> int:
        return 64

    def batch(self, indices: list[int], flips: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
        sets = torch.stack([torch.rand(2, 2, generator=torch.Generator().manual_seed(i)) for i in indices])
        sets = 0.1 + 0.8 * sets
        return blobs(sets), sets, torch.ones(len(sets), 2, dtype=torch.bool)


def test_learns_under_fit(tmp_path: Path) -> None:
    baseline = GenerativeClassifier(TINY, learning_rates=(3e-3,), batch_size=16, ema=0.9)
    images, concepts, present = Discs().batch(list(range(64)), [False] * 64)
    with torch.no_grad():
        before = baseline.validate(baseline.build().eval(), images, concepts, present)
    data = TrainingData({}, lambda: (Discs(), Discs()))
    fitted = fit(baseline, data, Budget(steps=30), tmp_path, device=torch.device("cpu"))
    assert fitted.validation < 0.95 * before
    with torch.no_grad():
        assert baseline.validate(fitted.model, images, concepts, present) == pytest.approx(fitted.validation)
    known = fitted.model.requires_grad_(False)
    found = invert_set(known, images[0], [2], SetSettings(draws=4, scan_sets=8, restarts=2, steps=4))  # type: ignore[arg-type]
    assert found.concepts.shape == (2, 2)
