"""Training: resume, refusal, several processes, checkpoints."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import forks
import pytest
import torch

from igm_cli.core.checkpoint import ModelSpec, load_checkpoint, read_spec, save_checkpoint, weights_fingerprint
from igm_cli.core.composition import compose
from igm_cli.core.concepts import Continuous
from igm_cli.core.inference.engine import invert
from igm_cli.core.noise_schedule import ScheduleConfig
from igm_cli.core.objective import Noised, composed_loss
from igm_cli.core.philox import normal_rows
from igm_cli.core.sampling import Composed, sample
from igm_cli.core.training.config import TrainConfig
from igm_cli.core.training.objectives import Companion
from igm_cli.core.training.plan import plan_step
from igm_cli.core.training.run import fresh_model, train
from igm_cli.core.training.trainer import learned
from igm_cli.core.types import InversionSettings
from igm_cli.errors import InputError, MissingError

SPEC = ModelSpec(
    architecture="factored",
    options={
        "image_size": [32, 32], "patch": 4, "channels": [16, 16, 16], "blocks": 1,
        "head_channels": 16, "head_layers": 1, "window": 3,
    },
    space=Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True).to_dict(),
    schedule=ScheduleConfig().to_dict(),
    composition="sum",
    image_size=(32, 32),
    concepts="pos",
)  # fmt: skip
CONFIG = TrainConfig(steps=6, batch_size=4, warmup=2, log_every=1, checkpoint_every=2, half=False)


class Spots:
    """Bright squares on black, one or two an image."""

    def __len__(self) -> int:
        return 10

    def batch(self, indices, flips):
        images = torch.full((len(indices), 3, 32, 32), -1.0)
        concepts = torch.zeros(len(indices), 2, 2)
        present = torch.zeros(len(indices), 2, dtype=torch.bool)
        for row, (index, flip) in enumerate(zip(indices, flips, strict=True)):
            for k in range(1 + index % 2):
                x, y = 6 + (7 * index + 11 * k) % 20, 6 + (5 * index + 13 * k) % 20
                x = 32 - x if flip else x
                images[row, :, y - 3 : y + 3, x - 3 : x + 3] = 1.0
                concepts[row, k] = torch.tensor([x / 32, y / 32])
                present[row, k] = True
        return images, concepts, present


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "state.pt", weights_only=True)["model"]


def run(folder: Path, config: TrainConfig = CONFIG, spec: ModelSpec = SPEC, **more) -> None:
    train(spec, Spots(), config, folder, device_is_cpu=True, **more)


def test_a_model_is_trained_on_a_flow_inverted_and_sampled(tmp_path):
    config = ScheduleConfig(prediction_type="flow_prediction", flow_shift=2.0)
    run(tmp_path, replace(CONFIG, steps=40, checkpoint_every=40), replace(SPEC, schedule=config.to_dict()))
    found = load_checkpoint(tmp_path).denoiser
    assert found.schedule.config == config
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.8 * losses[0]
    image, concepts, _ = Spots().batch([0], [False])
    answer = invert(found, image[0], InversionSettings(draws=4, max_draws=4), k=1)
    assert answer.concepts.shape == (1, 2) and answer.denoising_error > 0
    for sampler in ("ddim", "ancestral"):
        drawn = sample(Composed.of(found, concepts[:, :1]), (3, 32, 32), steps=10, sampler=sampler)
        assert drawn.isfinite().all() and float(drawn.std()) > 0.05


def stop(at: int):
    """Breaks a run off after a step, as a crash would."""

    def report(step, figures):
        if step == at:
            raise KeyboardInterrupt

    return report


def test_a_resumed_run_has_the_same_weights_bit_for_bit(tmp_path):
    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", report=stop(5))  # state of step 4, metrics up to 5
    run(tmp_path / "broken")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    first, second = (
        [json.loads(line) for line in (tmp_path / f / "metrics.jsonl").read_text().splitlines()]
        for f in ("whole", "broken")
    )
    assert [line["step"] for line in first] == [line["step"] for line in second] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in first] == [line["loss"] for line in second]


def test_training_lowers_the_loss(tmp_path):
    run(
        tmp_path, replace(CONFIG, steps=40, batch_size=4, learning_rate=4e-3, log_every=10, checkpoint_every=40)
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.85 * lines[0]["loss"]


def test_accumulated_micro_batches_make_one_batch(tmp_path):
    run(tmp_path / "one")
    run(tmp_path / "two", replace(CONFIG, accumulation=2))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=2e-4)


def test_another_configuration_is_refused_and_nothing_is_lost(tmp_path):
    run(tmp_path)
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(InputError, match=r"train\.learning_rate = 0\.0005, not 0\.1"):
        run(tmp_path, replace(CONFIG, learning_rate=0.1))
    with pytest.raises(InputError, match=r"model\.options\.blocks"):
        run(tmp_path, spec=replace(SPEC, options={**SPEC.options, "blocks": 2}))
    assert (tmp_path / "state.pt").read_bytes() == before
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    state["average"]["n_averaged"] = torch.tensor(4)  # of an older version
    torch.save(state, tmp_path / "state.pt")
    run(tmp_path, replace(CONFIG, steps=8))  # going on for longer is the same run
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 8


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A checkpoint whose weights are those of no fresh model."""
    folder = tmp_path / "pretrained"
    save_checkpoint(folder, SPEC, {name: value + 0.1 for name, value in SPEC.build().state_dict().items()})
    return folder


def test_a_run_starts_from_the_weights_of_another_model(tmp_path, pretrained):
    model = fresh_model(SPEC, 0, pretrained)
    given = load_checkpoint(pretrained).denoiser.state_dict()
    assert learned(model).keys() == given.keys()  # all of them are trained
    assert all(torch.equal(value, given[name]) for name, value in model.state_dict().items())


def test_what_a_run_started_from_stays(tmp_path, pretrained):
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(folder, init=pretrained, report=stop(3))
    before = (folder / "state.pt").read_bytes()
    assert json.loads((folder / "run.json").read_text())["init"] == weights_fingerprint(pretrained)
    other = tmp_path / "other"
    save_checkpoint(other, SPEC, SPEC.build().state_dict())
    for init in (other, None):
        with pytest.raises(InputError, match=f"init = '{weights_fingerprint(pretrained)}', not "):
            run(folder, init=init)
    assert (folder / "state.pt").read_bytes() == before
    pretrained = pretrained.rename(tmp_path / "moved")
    run(folder, init=pretrained)  # resumed from its own state, not from the given weights again
    run(tmp_path / "whole", init=pretrained)
    whole, resumed = weights(tmp_path / "whole"), weights(folder)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_of_before_there_was_init_goes_on(tmp_path):
    run(tmp_path)
    description = json.loads((tmp_path / "run.json").read_text())
    del description["init"]
    (tmp_path / "run.json").write_text(json.dumps(description))
    run(tmp_path, replace(CONFIG, steps=8))
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 8


def test_a_run_of_before_there_was_an_option_goes_on(tmp_path):
    run(tmp_path)
    described = json.loads((tmp_path / "run.json").read_text())
    del described["train"]["drop"]
    (tmp_path / "run.json").write_text(json.dumps(described))
    run(tmp_path, replace(CONFIG, steps=CONFIG.steps + 1))
    with pytest.raises(InputError, match=r"train\.drop = 0\.0, not 0\.5"):
        run(tmp_path, replace(CONFIG, drop=0.5))


def test_images_without_their_concepts_train_the_prediction_under_none(tmp_path):
    """If all are shown so, no concept is learned: the head stays as it was."""
    fresh = fresh_model(SPEC, CONFIG.seed).state_dict()
    run(tmp_path / "none", replace(CONFIG, drop=0.999, weight_decay=0.0))
    run(tmp_path / "all", replace(CONFIG, weight_decay=0.0))
    none, every = weights(tmp_path / "none"), weights(tmp_path / "all")
    head = [name for name in fresh if name.startswith("head.")]
    assert head and all(torch.equal(none[name], fresh[name]) for name in head)
    assert not all(torch.equal(none[name], every[name]) for name in head)
    assert not torch.equal(none["base_out.weight"], fresh["base_out.weight"])


def test_weights_that_cannot_be_started_from(tmp_path, pretrained):
    deeper = replace(SPEC, options={**SPEC.options, "blocks": 2})
    wider = replace(SPEC, options={**SPEC.options, "channels": [32, 32, 32]})
    for spec in (deeper, wider):
        with pytest.raises(InputError, match=r"pretrained (do not fit|cannot be used)"):
            run(tmp_path / "run", spec=spec, init=pretrained)
    with pytest.raises(MissingError, match=r"no model\.safetensors"):
        run(tmp_path / "run", init=tmp_path)


@pytest.mark.parametrize("ema", [0.9985, 0.05])
def test_a_run_is_the_plain_loop(tmp_path, ema):
    """Algorithm 1 with AdamW, written down once more: clipping, schedule, decay, timesteps and the average."""
    config = replace(
        CONFIG,
        ema=ema,
        weight_decay=0.3,
        clip=0.05,
        timestep_power=2.0,
        learning_rate=1e-2,
        seed=5,
        picture_every=3,
    )
    validated = {}

    def validate(step, denoiser):
        validated[step] = {name: value.clone() for name, value in denoiser.state_dict().items()}
        return {"perception": 0.5}, {"drawn": torch.zeros(4, 6, 3, dtype=torch.uint8)}

    run(tmp_path, config, validate=validate)
    model = fresh_model(SPEC, 5)
    average = fresh_model(SPEC, 5)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.3)
    for step in range(6):
        plan = plan_step(step, 10, config)
        images, concepts, present = Spots().batch(plan.indices, plan.flips)
        noise = normal_rows(images.shape[1:], range(4 * step, 4 * step + 4), plan.noise_seed)
        t = (plan.u.square() * 1000).long()
        optimizer.zero_grad()
        noised = Noised.of(model.schedule, images, t, noise)
        composed_loss(model, noised, "sum", concepts, present).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.param_groups[0]["lr"] = config.learning_rate_at(step)
        optimizer.step()
        with torch.no_grad():
            for mean, value in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(value, max(1 - ema, 10 / (10 + step)))
    assert equal(weights(tmp_path), model.state_dict())
    saved = load_checkpoint(tmp_path).denoiser.state_dict()
    assert equal(saved, average.state_dict())
    assert not equal(saved, model.state_dict())
    assert validated.keys() == {3, 6}
    assert equal(validated[6], saved)
    assert '"perception": 0.5' in (tmp_path / "metrics.jsonl").read_text()


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.allclose(ours[n], theirs[n], atol=1e-7) for n in ours)


def test_two_processes_train_what_one_trains(tmp_path):
    run(tmp_path / "one")
    forks.together(lambda: run(tmp_path / "two"))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=2e-4)


def test_steps_draw_whole_epochs_and_stratified_times():
    config = TrainConfig(batch_size=5, seed=1)
    drawn = [i for step in range(4) for i in plan_step(step, 10, config).indices]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]
    u = plan_step(0, 10, config).u
    assert sorted((u * 5).long().tolist()) == [0, 1, 2, 3, 4]
    assert float((u * 5 % 1).std()) > 0.05  # anywhere within its stratum


def test_what_steps_draw_follows_from_seed_and_step():
    config = TrainConfig(batch_size=8, seed=1)
    first, again = plan_step(3, 20, config), plan_step(3, 20, config)
    assert first.indices == again.indices and first.flips == again.flips and torch.equal(first.u, again.u)
    assert torch.equal(first.noise((2, 2)), again.noise((2, 2)))
    for other in (plan_step(4, 20, config), plan_step(3, 20, replace(config, seed=2))):
        assert first.indices != other.indices and not torch.equal(first.u, other.u)
        assert not torch.equal(first.noise((2, 2)), other.noise((2, 2)))
        assert first.generator().initial_seed() != other.generator().initial_seed()
    assert any(first.flips) and not any(plan_step(3, 20, replace(config, mirror=False)).flips)


def test_rows_are_cut_from_what_the_whole_batch_draws():
    whole = plan_step(0, 20, TrainConfig(batch_size=8))
    part = whole.rows(2, 8).rows(1, 3)
    assert part.indices == whole.indices[3:5]
    assert torch.equal(part.noise((2, 3)), whole.noise((2, 3))[3:5])
    assert torch.equal(part.timesteps(1000, 2.0), (whole.u[3:5].square() * 1000).long())
    assert part.generator().initial_seed() != whole.generator().initial_seed()


def test_a_finished_run_without_its_weights_gets_them_back(tmp_path):
    run(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").unlink()
    run(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_learning_rate_rises_stays_and_falls():
    config = TrainConfig(steps=100, learning_rate=1.0, warmup=10, decay=0.5)
    factors = [config.learning_rate_at(step) for step in range(100)]
    assert factors[0] == 0.1 and factors[20] == 1.0 and factors[75] == 0.5 and factors[99] < 0.03


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("steps", 0, "'steps' must be at least 1, not 0"),
        ("steps", 2.5, "'steps' must be a whole number, not 2.5"),
        ("steps", True, "'steps' must be a whole number, not True"),
        ("accumulation", 0, "'accumulation' must be at least 1"),
        ("precision", "int4", "'precision' must be 'no', 'bf16', 'fp16' or 'auto', not 'int4'"),
        ("timestep_power", math.nan, "'timestep_power' must be a finite number, not nan"),
        ("learning_rate", "fast", "'learning_rate' must be a number, not 'fast'"),
        ("learning_rate", 0, "'learning_rate' must be above 0"),
        ("ema", 1, "'ema' must be below 1"),
        ("mirror", 1, "'mirror' must be true or false, not 1"),
        ("reading_steps", 9999, "no more than steps"),
        ("learning_rat", 1e-3, "unknown training option 'learning_rat'; did you mean learning_rate"),
    ],
)
def test_impossible_options_are_named(option, value, says):
    with pytest.raises(InputError, match=says):
        TrainConfig(**{option: value})
    with pytest.raises(InputError, match="contrast needs the concepts of every image"):
        TrainConfig(contrast=0.1, drop=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_checkpoints_load_as_they_were_saved(tmp_path, dtype):
    model = SPEC.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    save_checkpoint(tmp_path, SPEC, model.state_dict(), dtype)
    loaded = load_checkpoint(tmp_path)
    assert read_spec(tmp_path) == SPEC and loaded.spec.concepts == "pos"
    x, t, c = torch.randn(2, 3, 32, 32), torch.tensor([10, 500]), torch.rand(2, 3, 2)
    for mine, theirs in zip(model(x, t, c), loaded.denoiser(x, t, c), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=1e-2)


def test_broken_checkpoints_say_what_is_wrong(tmp_path):
    with pytest.raises(MissingError, match=r"no igm\.json"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, SPEC, SPEC.build().state_dict())
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged or cut short"):
        load_checkpoint(tmp_path)
    file.unlink()
    with pytest.raises(MissingError, match="safetensors"):
        load_checkpoint(tmp_path)
    (tmp_path / "igm.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        load_checkpoint(tmp_path)


def companion(folder: Path) -> Companion:
    return Companion(folder, load_checkpoint(folder).denoiser, "sum", Spots())


def test_a_model_learns_to_add_to_a_frozen_one(tmp_path):
    """Its loss is that of the composed prediction: the other's under all concepts, and its own contributions."""
    run(tmp_path / "first", replace(CONFIG, steps=4))
    first = companion(tmp_path / "first")
    before = weights(tmp_path / "first")
    run(tmp_path / "second", replace(CONFIG, seed=5), companions=[first])
    after = weights(tmp_path / "first")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    fresh = fresh_model(SPEC, 5)
    plan = plan_step(0, len(Spots()), replace(CONFIG, seed=5))
    images, concepts, present = Spots().batch(plan.indices, plan.flips)
    t = plan.timesteps(1000, 1.0)
    noise = normal_rows((3, 32, 32), plan.numbers, plan.noise_seed)
    x_t = fresh.schedule.add_noise(images, noise, t)
    known = first.denoiser
    with torch.no_grad():
        base, delta = known(x_t, t, concepts)  # type: ignore[operator]
        everything = compose(base, delta, "sum", present)
    seen = Noised.of(fresh.schedule, images, t, noise)
    expected = composed_loss(fresh, seen, "sum", concepts, present, lambda x, u: everything)
    lines = (tmp_path / "second" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["loss"] == pytest.approx(expected.item(), rel=1e-3)
    start = fresh.state_dict()
    trained = load_checkpoint(tmp_path / "second").denoiser.state_dict()  # type: ignore[attr-defined]
    assert torch.equal(trained["base_out.weight"], start["base_out.weight"])  # the other's takes its place
    assert not torch.equal(trained["head.out.weight"], start["head.out.weight"])


def test_what_a_run_adds_to_stays(tmp_path):
    run(tmp_path / "a", replace(CONFIG, steps=2))
    run(tmp_path / "b", replace(CONFIG, steps=2, seed=1))
    run(tmp_path / "sum", companions=[companion(tmp_path / "a")])
    with pytest.raises(InputError, match="holds a run with with"):
        run(tmp_path / "sum", replace(CONFIG, steps=8), companions=[companion(tmp_path / "b")])
    with pytest.raises(InputError, match="neither contrast nor drop"):
        run(tmp_path / "other", replace(CONFIG, drop=0.1), companions=[companion(tmp_path / "a")])
