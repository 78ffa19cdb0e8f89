"""Baselines over factors: GC of whole configurations and of each factor alone, and a ResNet."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from igm_cli.core.inference.evidence import Evidence
from igm_cli.core.inference.pool import gather
from torch import Tensor

from igm_cli.benchmarks.baselines.configuration import (
    ConfigurationClassifier,
    FactorClassifier,
    conditions,
    exchanged,
    start_from,
)
from igm_cli.benchmarks.baselines.configuration_inversion import (
    condition_errors,
    invert_configuration,
    invert_each_factor,
)
from igm_cli.benchmarks.baselines.fit import Budget, fit
from igm_cli.benchmarks.baselines.resnet_factors import ResNetFactors, log_probabilities, most_likely
from igm_cli.core.checkpoint import ModelSpec, save_checkpoint
from igm_cli.core.concepts import Categorical, Continuous, space_to_dict
from igm_cli.core.inference.look import contributions, look
from igm_cli.core.models.factored_global import GlobalDenoiser
from igm_cli.core.noise_schedule import Schedule, ScheduleConfig, draw
from igm_cli.errors import InputError, MissingError

CPU = torch.device("cpu")
SPACE = Categorical({"upper": ("red", "green", "blue"), "lower": ("dark", "light")})
UPPER = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]])
LOWER = torch.tensor([[-0.8] * 3, [0.8] * 3])
SIZE = (16, 16)
OPTIONS = {"image_size": SIZE, "channels": (16, 16, 16), "blocks": 1, "head_channels": 16, "head_layers": 1}
SPEC = ModelSpec("factored", OPTIONS, space_to_dict(SPACE), ScheduleConfig().to_dict(), "sum", SIZE, "any")
FAST = {"learning_rates": (1e-2,), "batch_size": 16, "ema": 0.9, "low": 0.6, "high": 0.97}
GC, VARIANT = ConfigurationClassifier(SPEC, **FAST), FactorClassifier(SPEC, **FAST)  # type: ignore[arg-type]
RESNET = ResNetFactors(
    SPACE,
    config={"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8},
    learning_rates=(1e-2,),
    batch_size=16,
    ema=0.9,
)


def paint(values: Tensor) -> Tensor:
    """Images ``[B,3,16,16]`` of values ``[B,2]``: a colour above, a brightness below."""
    images = torch.empty(len(values), 3, 16, 16)
    images[:, :, :8] = UPPER[values[:, 0]][:, :, None, None]
    images[:, :, 8:] = LOWER[values[:, 1]][:, :, None, None]
    return images


def one_hot(values: Tensor) -> Tensor:
    """Concepts ``[B,2,5]`` of values ``[B,2]``."""
    return SPACE.candidates()[values + torch.tensor([0, 3])]


class Flags:
    """Painted images, the values drawn from the index."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: list[int], flips: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
        numbers = [7 * (self.first + index) % 6 for index in indices]
        values = torch.tensor([divmod(number, 2) for number in numbers])
        generator = torch.Generator().manual_seed(self.first + sum(indices))
        noise = 0.1 * torch.randn(len(values), 3, 16, 16, generator=generator)
        return paint(values) + noise, one_hot(values), torch.ones(len(values), 2, dtype=torch.bool)


TRAINING, VALIDATION = Flags(0, 200), Flags(1000, 30)
HELD = VALIDATION.batch(list(range(30)), [False] * 30)


def fit_flags(folder, baseline, steps):  # type: ignore[no-untyped-def]
    budget, data = Budget(steps=steps), {"name": "flags"}
    return fit(baseline, TRAINING, VALIDATION, budget, folder, device=CPU, data=data)


def lively(space: Categorical = SPACE) -> GlobalDenoiser:
    """A small network whose head is not silent, as it is before training."""
    torch.manual_seed(0)
    model = replace(SPEC, space=space_to_dict(space)).build()
    assert isinstance(model, GlobalDenoiser)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


IMAGE = paint(torch.tensor([[1, 0]]))[0]
DRAWS = draw(Schedule(), (3, 16, 16), 5, low=0.1, high=0.9, seed=3)


@pytest.mark.parametrize(
    ("baseline", "steps"),
    [(GC, 120), (replace(GC, contrast=0.05), 80), (replace(VARIANT, contrast=0.05), 150)],
    ids=["gc", "gc-contrast", "gc-variant-contrast"],
)
def test_gc_learns_and_names_configurations(
    tmp_path: Path, baseline: ConfigurationClassifier, steps: int
) -> None:
    before = baseline.validate(baseline.build().eval(), *HELD)
    fitted = fit_flags(tmp_path, baseline, steps)
    assert fitted.validation < 0.5 * before
    assert baseline.validate(fitted.model, *HELD) == pytest.approx(fitted.validation)
    again = fit_flags(tmp_path, baseline, steps)
    draws = draw(Schedule(), (3, 16, 16), 16, low=0.6, high=0.97, seed=0)
    for values in itertools.product(range(3), range(2)):
        image = paint(torch.tensor([values]))[0]
        found = baseline.invert(fitted.model, image, draws)
        assert found.values == values
        assert torch.equal(found.concepts, one_hot(torch.tensor([values]))[0])
        torch.testing.assert_close(baseline.invert(again.model, image, draws).errors, found.errors)


def test_gc_is_told_the_whole_configuration() -> None:
    _, concepts, _ = HELD
    told = GC.told(concepts, torch.Generator())
    assert bool(told.all()) and torch.equal(GC.told_in_validation(concepts, 3), told)
    assert torch.equal(conditions(concepts, told), concepts.sum(1))


def test_the_variant_is_told_one_value_at_random() -> None:
    _, concepts, _ = HELD
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([VARIANT.told(concepts, generator) for _ in range(20)])  # [20,30,2]
    assert bool((drawn.sum(2) == 1).all()) and 0.4 < float(drawn[..., 0].float().mean()) < 0.6
    assert torch.equal(VARIANT.told(concepts, torch.Generator().manual_seed(0)), drawn[0])
    turns = [VARIANT.told_in_validation(concepts, number) for number in range(2)]
    assert bool((turns[0] ^ turns[1]).all())
    assert torch.equal(conditions(concepts, drawn[0]), (concepts * drawn[0][..., None]).sum(1))


def test_conditions_with_a_value_exchanged() -> None:
    concepts = one_hot(torch.tensor([[1, 0]]))  # green above, dark below
    both = exchanged(concepts, torch.tensor([[True, True]]), SPACE)[0]
    expected = [[1, 0, 0, 1, 0], [0, 1, 0, 1, 0], [0, 0, 1, 1, 0], [0, 1, 0, 1, 0], [0, 1, 0, 0, 1]]
    assert both.tolist() == expected
    upper = exchanged(concepts, torch.tensor([[True, False]]), SPACE)[0]
    assert upper.tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], *[[0, 1, 0, 0, 0]] * 2]


@pytest.mark.parametrize("power", [0.0, 1.0])
@pytest.mark.parametrize("floats", [1, 768, 768 * 5 * 2, 768 * 3])
def test_chunks_do_not_matter(power: float, floats: int) -> None:
    model = lively()
    whole = invert_configuration(model, IMAGE, DRAWS, power)
    parts = invert_configuration(model, IMAGE, DRAWS, power, floats)
    torch.testing.assert_close(parts.errors, whole.errors, rtol=2e-2, atol=1e-3)  # bfloat16 where there is
    assert whole.errors.shape == (6,) and whole.network_calls == parts.network_calls == 5 * (1 + 6)


@torch.no_grad()
def test_errors_are_those_of_the_definition() -> None:
    model, rows = lively(), torch.tensor([[1.0, 0, 0, 1, 0], [0, 0, 1, 0, 1]])
    seen = look(model, IMAGE, DRAWS, 1.0)
    change = contributions(model, seen, rows)
    weight = (seen.importance / seen.importance.sum())[:, None]
    expected = (weight * (seen.residual[:, None] - change).square().mean(2)).sum(0)
    found = condition_errors(model, IMAGE, rows, DRAWS, 1.0)
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_single_factors_have_the_errors_of_the_evidence() -> None:
    model = lively()
    found = invert_each_factor(model, IMAGE, DRAWS, 1.0)
    evidence: Evidence = gather(model, look(model, IMAGE, DRAWS, 1.0), SPACE.candidates(), "sum")
    form = evidence.expected()
    expected = torch.stack([form.error(torch.tensor([index])) for index in range(5)])
    torch.testing.assert_close(found.errors, expected, rtol=1e-4, atol=1e-5)
    assert found.values == (int(expected[:3].argmin()), int(expected[3:].argmin()))
    assert found.network_calls == 5 * (1 + 5)


@torch.no_grad()
def test_configurations_are_listed_as_the_exhaustive_search_lists_them() -> None:
    model = lively()
    found = invert_configuration(model, IMAGE, DRAWS)
    for place, subset in enumerate(itertools.product(*SPACE.groups())):
        row = SPACE.candidates()[list(subset)].sum(0, keepdim=True)
        alone = condition_errors(model, IMAGE, row, DRAWS, 0.0)
        torch.testing.assert_close(found.errors[place : place + 1], alone, rtol=2e-2, atol=1e-3)
    best = list(itertools.product(range(3), range(2)))[int(found.errors.argmin())]
    assert found.values == best and torch.equal(found.concepts, one_hot(torch.tensor([best]))[0])


def test_too_many_configurations_and_no_factors() -> None:
    many = Categorical({f"f{number}": ("no", "yes") for number in range(20)})
    with pytest.raises(InputError, match="too many"):
        invert_configuration(lively(many), IMAGE, DRAWS)
    model = lively()
    model.space = Continuous(("x",), (0.0,), (1.0,))
    with pytest.raises(InputError, match="no factors"):
        invert_each_factor(model, IMAGE, DRAWS)


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
        start_from(model, tmp_path)


def test_models_of_positions_are_refused(tmp_path: Path) -> None:
    space = space_to_dict(Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True))
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
    assert enlarging(HELD[0]).shape == (30, 5)
