"""Baselines over factors: GC of whole configurations and of each factor alone, and a ResNet."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_flags import SPACE, Flags, one_hot, paint
from torch import Tensor

from igm_cli.benchmarks.baselines.configuration import (
    ConfigurationClassifier,
    FactorClassifier,
    exchanged,
)
from igm_cli.benchmarks.baselines.fit import Budget, TrainingData, fit
from igm_cli.benchmarks.baselines.resnet import (
    ResNetFactors,
    imagenet_normalised,
    log_probabilities,
    most_likely,
)
from igm_cli.core.checkpoint import ModelSpec, save_checkpoint
from igm_cli.core.concepts import Categorical, Continuous
from igm_cli.core.inference.candidates import CandidateSet
from igm_cli.core.models.factored_global import GlobalDenoiser
from igm_cli.core.noise_schedule import Schedule, ScheduleConfig, draw
from igm_cli.core.types import InversionSettings
from igm_cli.errors import InputError, MissingError

CPU = torch.device("cpu")
SIZE = (16, 16)
OPTIONS = {"image_size": SIZE, "channels": (16, 16, 16), "blocks": 1, "head_channels": 16, "head_layers": 1}
SPEC = ModelSpec("factored", OPTIONS, SPACE.to_dict(), ScheduleConfig().to_dict(), "sum", SIZE, "any")
FAST = {"learning_rates": (1e-2,), "batch_size": 16, "ema": 0.9, "low": 0.6, "high": 0.97}
GC, VARIANT = ConfigurationClassifier(SPEC, **FAST), FactorClassifier(SPEC, **FAST)  # type: ignore[arg-type]
RESNET = ResNetFactors(
    SPACE,
    config={"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8},
    learning_rates=(1e-2,),
    batch_size=16,
    ema=0.9,
)


TRAINING, VALIDATION = Flags(0, 200), Flags(1000, 30)
HELD = VALIDATION.batch(list(range(30)), [False] * 30)


def fit_flags(folder, baseline, steps):  # type: ignore[no-untyped-def]
    budget, data = Budget(steps=steps), {"name": "flags"}
    return fit(baseline, TrainingData(data, lambda: (TRAINING, VALIDATION)), budget, folder, device=CPU)


def lively(space: Categorical = SPACE) -> GlobalDenoiser:
    """A small network whose head is not silent, as it is before training."""
    torch.manual_seed(0)
    model = replace(SPEC, space=space.to_dict()).build()
    assert isinstance(model, GlobalDenoiser)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


IMAGE = paint(torch.tensor([[1, 0]]))[0]
SETTINGS = InversionSettings(max_draws=5, low=0.1, high=0.9, seed=3)
DRAWS = draw(Schedule(), (3, 16, 16), 5, low=0.1, high=0.9, seed=3)  # what the settings draw


@pytest.mark.parametrize(
    ("baseline", "steps"),
    [
        (GC, 120),
        pytest.param(replace(GC, contrast=0.05), 80, marks=pytest.mark.slow),
        pytest.param(replace(VARIANT, contrast=0.05), 150, marks=pytest.mark.slow),
    ],
    ids=["gc", "gc-contrast", "gc-variant-contrast"],
)
def test_gc_learns_and_names_configurations(
    tmp_path: Path, baseline: ConfigurationClassifier, steps: int
) -> None:
    with torch.no_grad():
        before = baseline.validate(baseline.build().eval(), *HELD)
    fitted = fit_flags(tmp_path, baseline, steps)
    assert fitted.validation < 0.5 * before
    with torch.no_grad():
        assert baseline.validate(fitted.model, *HELD) == pytest.approx(fitted.validation)
    again = fit_flags(tmp_path, baseline, steps)
    settings = InversionSettings(max_draws=16, low=0.6, high=0.97)
    for values in itertools.product(range(3), range(2)):
        image = paint(torch.tensor([values]))[0]
        found = baseline.invert(fitted.model, image, settings)
        assert found.values == values
        torch.testing.assert_close(baseline.invert(again.model, image, settings).errors, found.errors)


class Listening(torch.nn.Module):
    """Keeps the conditions that it is called with; knows the images, and puts out v or what is off by ``off``."""

    def __init__(self, off: float = 0.0) -> None:
        super().__init__()
        self.schedule, self.space, self.off, self.heard = Schedule(), SPACE, off, list[Tensor]()

    def forward(self, x_t: Tensor, t: Tensor, rows: Tensor, read: bool) -> tuple[Tensor, Tensor, Tensor]:
        self.heard.append(rows[:, 0])
        self.t = t
        alpha, sigma = (level(t)[:, None, None, None] for level in (self.schedule.alpha, self.schedule.sigma))
        epsilon = (x_t - alpha * HELD[0][: len(t)]) / sigma + alpha * self.off
        return epsilon, torch.zeros(*rows.shape[:2], *x_t.shape[1:]), torch.zeros(len(t), 5)


def test_the_objective_is_the_error_of_v_under_timesteps_spread_over_the_batch() -> None:
    model = Listening(off=0.5)
    loss = GC.loss(model, *HELD, torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx(0.25, rel=0.02)
    assert torch.equal((model.t.sort().values * 30 / 1000).long(), torch.arange(30))


@pytest.mark.parametrize("baseline", [GC, VARIANT], ids=["gc", "gc-variant"])
def test_the_contrast_counts_the_factors_that_are_given(baseline: ConfigurationClassifier) -> None:
    """All values fit equally well, and the read-out says nothing: two log(values) of each factor."""
    model = Listening()
    loss = replace(baseline, contrast=0.1).loss(model, *HELD, torch.Generator().manual_seed(0))
    given = heard(baseline, 0)
    nats = given[:, :3].sum(1) * math.log(3) + given[:, 3:].sum(1) * math.log(2)
    assert float(loss) == pytest.approx(0.1 * 2 * float(nats.mean()), rel=1e-3)


def heard(baseline: ConfigurationClassifier, seed: int) -> Tensor:
    """The conditions ``[30,5]`` of a training step."""
    model = Listening()
    baseline.loss(model, *HELD, torch.Generator().manual_seed(seed))
    return model.heard[0]


def test_gc_is_conditioned_on_the_whole_configuration() -> None:
    model = Listening()
    GC.validate(model, *HELD)
    assert len(model.heard) == 4 * 2  # draws, and parts of 16 images
    assert torch.equal(torch.cat(model.heard[-2:]), HELD[1].sum(1))
    assert torch.equal(heard(GC, 0), HELD[1].sum(1))


def test_the_variant_is_conditioned_on_one_value_at_random() -> None:
    _, concepts, _ = HELD
    drawn = torch.stack([heard(VARIANT, seed) for seed in range(20)])  # [20,30,5]
    assert bool((drawn.sum(2) == 1).all()) and 0.4 < float(drawn[..., :3].sum(2).mean()) < 0.6
    assert bool((drawn <= concepts.sum(1)).all())
    assert torch.equal(heard(VARIANT, 0), drawn[0])
    model = Listening()
    VARIANT.validate(model, *HELD)
    turns = [torch.cat(model.heard[first : first + 2]) for first in (0, 2)]
    assert torch.equal(turns[0] + turns[1], concepts.sum(1))  # the factors in turn


def test_conditions_with_a_value_exchanged() -> None:
    concepts = one_hot(torch.tensor([[1, 0]]))  # green above, dark below
    both = exchanged(concepts, torch.tensor([[True, True]]), SPACE)[0]
    expected = [[1, 0, 0, 1, 0], [0, 1, 0, 1, 0], [0, 0, 1, 1, 0], [0, 1, 0, 1, 0], [0, 1, 0, 0, 1]]
    assert both.tolist() == expected
    upper = exchanged(concepts, torch.tensor([[True, False]]), SPACE)[0]
    assert upper.tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], *[[0, 1, 0, 0, 0]] * 2]


def defined_error(model: GlobalDenoiser, row: Tensor, power: float) -> Tensor:
    """E ‖eps - eps_theta(x_t, t | row)‖² as it is written, over draws weighted by (sigma/alpha)^power."""
    schedule, t = model.schedule, DRAWS.t
    base, delta = model(schedule.add_noise(IMAGE[None], DRAWS.noise, t), t, row[None, None].expand(5, -1, -1))
    errors = (DRAWS.noise - base - delta[:, 0]).square().mean((1, 2, 3))
    weight = (schedule.sigma(t) / schedule.alpha(t)) ** power
    return ((weight * errors).sum() / weight.sum()).double()


@torch.no_grad()
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_every_configuration_has_the_error_of_the_definition(power: float) -> None:
    model = lively()
    found = GC.invert(model, IMAGE, replace(SETTINGS, power=power))
    configurations = list(itertools.product(*SPACE.groups()))  # in the order of the exhaustive search
    rows = [SPACE.candidates()[list(subset)].sum(0) for subset in configurations]
    expected = torch.stack([defined_error(model, row, power) for row in rows])
    torch.testing.assert_close(found.errors, expected, rtol=1e-2, atol=1e-3)  # bfloat16 where there is
    assert found.values == list(itertools.product(range(3), range(2)))[int(found.errors.argmin())]
    assert found.network_calls == 5 * (1 + 6)


@torch.no_grad()
def test_single_factors_have_the_errors_of_the_evidence() -> None:
    model = lively()
    found = VARIANT.invert(model, IMAGE, replace(SETTINGS, power=1.0))
    candidates = CandidateSet(model, IMAGE[None], replace(SETTINGS, power=1.0), "sum")
    candidates.add(SPACE.candidates()[None])
    candidates.see(5)
    expected = candidates.statistics().expected.error(torch.arange(5)[None, :, None])[0]
    torch.testing.assert_close(found.errors, expected, rtol=1e-4, atol=1e-5)
    assert found.values == (int(expected[:3].argmin()), int(expected[3:].argmin()))
    assert found.network_calls == 5 * (1 + 5)


def test_too_many_configurations_and_no_factors() -> None:
    many = Categorical({f"f{number}": ("no", "yes") for number in range(20)})
    with pytest.raises(InputError, match="too many"):
        GC.invert(lively(many), IMAGE, SETTINGS)
    model = lively()
    model.space = Continuous(("x",), (0.0,), (1.0,))
    with pytest.raises(InputError, match="no factors"):
        VARIANT.invert(model, IMAGE, SETTINGS)


def test_starts_from_the_trunk_of_a_checkpoint(tmp_path: Path) -> None:
    donor = lively()
    save_checkpoint(tmp_path / "donor", SPEC, donor.state_dict())
    baseline = replace(GC, init=tmp_path / "donor")
    model = baseline.build()
    x_t, t = DRAWS.noise, DRAWS.t
    base, change = model(x_t, t, SPACE.candidates()[None, :1].expand(5, -1, -1))
    torch.testing.assert_close(base, donor.base(donor.features(x_t, t)), atol=1e-5, rtol=1e-4)
    assert not bool(change.any()) and all(p.requires_grad for p in model.parameters())
    torch.testing.assert_close(model.head.view.weight, donor.head.view.weight)
    told = json.loads(json.dumps(baseline.describe()))
    assert len(told["init"]) == 64 and told != json.loads(json.dumps(GC.describe()))
    assert json.loads(json.dumps(VARIANT.describe())) != json.loads(json.dumps(GC.describe()))
    wider = replace(baseline, spec=replace(SPEC, options={**OPTIONS, "channels": (32, 16, 16)}))
    with pytest.raises(InputError, match="another shape"):
        wider.build()
    with pytest.raises(MissingError):
        replace(GC, init=tmp_path).build()


def test_models_of_positions_are_refused(tmp_path: Path) -> None:
    space = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True).to_dict()
    positions = replace(SPEC, space=space)
    with pytest.raises(InputError, match="over factors"):
        ConfigurationClassifier(positions).build()
    save_checkpoint(tmp_path, positions, positions.build().state_dict())
    with pytest.raises(InputError, match="no factored denoiser of whole images"):
        replace(GC, init=tmp_path).build()


def test_resnet_learns_the_factors(tmp_path: Path) -> None:
    images, concepts, _ = HELD
    fresh = RESNET.build().eval()
    chance = torch.tensor([1 / 3] * 3 + [1 / 2] * 2)
    torch.testing.assert_close(RESNET.predict(fresh, images), chance.expand(30, -1))
    assert RESNET.validate(fresh, *HELD) == pytest.approx(float(torch.tensor(6.0).log()), rel=1e-4)
    fitted = fit_flags(tmp_path, RESNET, 60)
    assert fitted.validation < 0.3
    probabilities = RESNET.predict(fitted.model, images)
    torch.testing.assert_close(probabilities[:, :3].sum(1), torch.ones(30))
    truth = torch.stack([concepts[:, 0, :3].argmax(1), concepts[:, 1, 3:].argmax(1)], dim=1)
    assert torch.equal(most_likely(SPACE, probabilities), truth)
    again = fit_flags(tmp_path, RESNET, 60)
    torch.testing.assert_close(RESNET.predict(again.model, images), probabilities)
    with pytest.raises(MissingError, match="--set resnet=FOLDER"):
        replace(RESNET, weights=str(tmp_path / "none")).build()


def test_cross_entropy_knows_no_order_of_rows_and_skips_missing_ones() -> None:
    images, concepts, present = HELD
    model, generator = RESNET.build().eval(), torch.Generator()
    torch.nn.init.normal_(model.out.weight)  # type: ignore[union-attr, arg-type]
    loss = RESNET.loss(model, images, concepts, present, generator)
    torch.testing.assert_close(RESNET.loss(model, images, concepts.flip(1), present, generator), loss)
    parts = [
        RESNET.loss(model, images, concepts, present & (torch.arange(2) == place), generator)
        for place in range(2)
    ]
    torch.testing.assert_close(parts[0] + parts[1], loss)
    rows = log_probabilities(SPACE, torch.randn(2, 5)).exp()
    torch.testing.assert_close(torch.stack([rows[:, :3].sum(1), rows[:, 3:].sum(1)]), torch.ones(2, 2))
    assert json.loads(json.dumps(RESNET.describe()))["space"]["factors"]["lower"] == ["dark", "light"]


def test_resnet_50_by_default_and_larger_images() -> None:
    assert sum(p.numel() for p in ResNetFactors(SPACE).build().parameters()) > 23_000_000
    enlarging = replace(RESNET, upscale=2).build().eval()
    torch.nn.init.normal_(enlarging.out.weight)  # type: ignore[union-attr, arg-type]
    images = torch.nn.functional.interpolate(HELD[0], (32, 32), mode="bilinear")
    expected = enlarging.out(enlarging.backbone(imagenet_normalised(images)).pooler_output.flatten(1))  # type: ignore[operator]
    torch.testing.assert_close(enlarging(HELD[0]), expected)


def test_images_are_normalised_as_imagenet() -> None:
    found = imagenet_normalised(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1))[..., 0, 0]
    expected = torch.tensor([[-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.6400]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
