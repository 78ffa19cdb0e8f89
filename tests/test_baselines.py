"""Trained baselines: the set loss, fitting under a budget, the networks."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from igm_cli.benchmarks.baselines import fit as fit_module
from igm_cli.benchmarks.baselines.fit import Budget, TrainingData, fit
from igm_cli.benchmarks.baselines.resnet import ResNetSet, imagenet_normalised
from igm_cli.benchmarks.baselines.set_prediction import Prediction, assign, choose, set_loss
from igm_cli.benchmarks.baselines.slot_attention import DinosaurSet, SlotAttention, SlotAttentionSet, place_grid
from igm_cli.core.device import inference_precision
from igm_cli.core.training.config import TrainConfig
from igm_cli.core.training.plan import plan_step
from igm_cli.core.training.trainer import learned
from igm_cli.errors import InputError, MissingError

CPU = torch.device("cpu")
SLOTS = SlotAttentionSet(
    (32, 32), slots=3, test_slots=4, channels=16, layers=2, size=16, learning_rates=(5e-3,), batch_size=16
)
STEPS = Budget(steps=12)
TINY_RESNET = {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8}


class Dots:
    """One to three bright dots on black, drawn from the index."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def batch(self, indices, flips):
        images = torch.full((len(indices), 3, 32, 32), -1.0)
        concepts = torch.zeros(len(indices), 3, 2)
        present = torch.zeros(len(indices), 3, dtype=torch.bool)
        for row, (index, flip) in enumerate(zip(indices, flips, strict=True)):
            generator = torch.Generator().manual_seed(self.first + index)
            places = torch.randint(3, 29, (1 + index % 3, 2), generator=generator)
            for k, (x, y) in enumerate(places.tolist()):
                x = 32 - x if flip else x
                images[row, :, y - 2 : y + 2, x - 2 : x + 2] = 1.0
                concepts[row, k] = torch.tensor([x / 32, y / 32])
                present[row, k] = True
        return images, concepts, present


TRAINING, VALIDATION = Dots(0, 300), Dots(1000, 30)


def fit_dots(folder: Path, baseline=SLOTS, budget=STEPS, **more):
    data = TrainingData({"name": "dots"}, lambda: (TRAINING, VALIDATION))
    return fit(baseline, data, budget, folder, **{"device": CPU, **more})


def random_set(seed: int, slots: int, objects: int) -> tuple[Prediction, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(2, slots, 2, generator=generator)
    logits = torch.randn(2, slots, generator=generator)
    present = torch.arange(objects).expand(2, -1) < torch.tensor([[objects], [objects - 1]])
    return Prediction(positions, logits), torch.rand(2, objects, 2, generator=generator), present


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 5))
def test_the_set_loss_knows_no_order(seed, slots, objects):
    prediction, concepts, present = random_set(seed, slots, objects)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(slots, generator=generator), torch.randperm(objects, generator=generator)
    shuffled = Prediction(prediction.positions[:, rows], prediction.logits[:, rows])
    torch.testing.assert_close(
        set_loss(prediction, concepts, present),
        set_loss(shuffled, concepts[:, columns], present[:, columns]),
    )


def test_the_set_loss_of_the_truth_is_nothing_and_images_without_objects_are_fine():
    _, concepts, present = random_set(0, 4, 4)
    perfect = Prediction(concepts, torch.where(present, 30.0, -30.0))
    assert set_loss(perfect, concepts, present) < 1e-6
    nothing = torch.zeros_like(present)
    assert set_loss(Prediction(concepts, torch.full((2, 4), -30.0)), concepts, nothing) < 1e-6
    image, slot, truth = assign(perfect.positions, perfect.logits, concepts, present)
    assert len(image) == 7 and torch.equal(slot, truth)
    assert math.isnan(set_loss(Prediction(concepts * math.nan, perfect.logits), concepts, present))


def test_earlier_predictions_count_half_and_auxiliary_losses_are_added():
    prediction, concepts, present = random_set(0, 5, 3)
    earlier = random_set(1, 5, 3)[0]
    whole = set_loss(prediction._replace(earlier=(earlier,), auxiliary=2.0), concepts, present)
    parts = set_loss(prediction, concepts, present), set_loss(earlier, concepts, present)
    torch.testing.assert_close(whole, parts[0] + 0.5 * parts[1] + 2.0)


def test_matching_is_by_euclidean_distance_and_presence():
    """Squares would shift both pairs to shorten the long one; of two equal slots the likelier one is matched."""
    concepts, present = torch.tensor([[[0.5, 0.0], [1.0, 0.25]]]), torch.ones(1, 2, dtype=torch.bool)
    _, slot, truth = assign(torch.tensor([[[0.0, 0.0], [0.5, 0.0]]]), torch.zeros(1, 2), concepts, present)
    assert dict(zip(slot.tolist(), truth.tolist(), strict=True)) == {0: 1, 1: 0}
    twice = torch.tensor([[[0.5, 0.0], [0.5, 0.0]]])
    assert assign(twice, torch.tensor([[-1.0, 1.0]]), concepts[:, :1], present[:, :1])[1].tolist() == [1]


@pytest.mark.parametrize(("distance", "error"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (3.0, 1.0)])
def test_validation_measures_distances_up_to_where_an_object_is_missed(distance, error):
    concepts, present = torch.full((2, 1, 2), 0.3), torch.ones(2, 1, dtype=torch.bool)
    off = torch.tensor([distance * 4 * 0.002**0.5, 0.0])
    found = SLOTS.validate(
        lambda images, generator: Prediction(concepts + off, torch.ones(2, 1)),
        torch.zeros(2),
        concepts,
        present,
    )
    assert found == pytest.approx(error, abs=1e-5)


@torch.no_grad()
def test_slot_attention_is_algorithm_1():
    torch.manual_seed(0)
    attention, inputs, slots = SlotAttention(6, 8, iterations=1), torch.randn(2, 5, 6), torch.randn(2, 3, 8)
    ((found, weights),) = attention(inputs, slots)
    normed = attention.norm_inputs(inputs)
    keys, values, queries = (
        attention.key(normed),
        attention.value(normed),
        attention.query(attention.norm_slots(slots)),
    )
    scores = torch.softmax(queries @ keys.mT / 8**0.5, dim=1)  # over the slots
    expected = scores / scores.sum(2, keepdim=True)
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-5)
    state = attention.gru((expected @ values).flatten(0, 1), slots.flatten(0, 1)).view(2, 3, 8)
    torch.testing.assert_close(found, state + attention.mlp(attention.norm_mlp(state)), atol=1e-5, rtol=1e-5)


def test_slots_start_at_random_in_training_only_and_all_iterations_are_read_then():
    images, model = VALIDATION.batch([0], [False])[0].expand(2, -1, -1, -1), SLOTS.build()
    trained = model.train()(images, torch.Generator().manual_seed(0))
    assert len(trained.earlier) == 2 and trained.positions.shape == (2, 3, 2)
    assert not torch.equal(trained.positions[0], trained.positions[1])
    tested = model.eval()(images)
    assert tested.earlier == () and tested.positions.shape == (2, 4, 2)
    torch.testing.assert_close(tested.positions[0], tested.positions[1])


def test_choosing_slots():
    positions, logits = torch.arange(8.0).view(4, 2), torch.tensor([-1.0, 3.0, 0.5, -2.0])
    assert choose(positions, logits, None).tolist() == [[2, 3], [4, 5]]
    assert choose(positions, logits, 3).tolist() == [[2, 3], [4, 5], [0, 1]]
    assert choose(positions, logits, 0).shape == (0, 2)


def test_places_are_listed_row_by_row():
    expected = [[1 / 6, 0.25], [0.5, 0.25], [5 / 6, 0.25], [1 / 6, 0.75]]
    torch.testing.assert_close(place_grid(3, 2)[:4], torch.tensor(expected))


def test_training_finds_dots(tmp_path):
    images, concepts, present = VALIDATION.batch(list(range(30)), [False] * 30)
    before = SLOTS.validate(SLOTS.build().eval(), images, concepts, present)
    fitted = fit_dots(tmp_path, budget=Budget(steps=120))
    assert fitted.validation < 0.7 * before
    assert (fitted.steps, fitted.images, fitted.learning_rate) == (120, 120 * 16, 5e-3)
    found = SLOTS.predict(fitted.model, images[:4], [1, 2, 3, None])
    assert [len(positions) for positions in found[:3]] == [1, 2, 3]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("at", [1, 3, 9])
def test_a_fit_cut_short_goes_on_to_the_same_weights(tmp_path, monkeypatch, at):
    monkeypatch.setattr(fit_module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(fit_module, "TRIAL_SHARE", 0.2)
    baseline = replace(SLOTS, learning_rates=(1e-3, 1e-4))
    calls = []

    def progress(what, done, total):
        calls.append((what, done, total))
        if len(calls) == at:
            raise Interrupted

    whole = fit_dots(tmp_path / "whole", baseline)
    with pytest.raises(Interrupted):
        fit_dots(tmp_path / "broken", baseline, progress=progress)
    resumed = fit_dots(tmp_path / "broken", baseline, progress=progress)
    assert len(calls) == 2 + 2 + 7 and not (tmp_path / "broken" / "state.pt").exists()
    assert calls[-1] == (f"slot-attention: training at {whole.learning_rate:g}", 7, 7)
    assert whole.trials == resumed.trials and whole.trials.keys() == {"0.001", "0.0001"}
    assert whole.trials[str(whole.learning_rate)] == min(whole.trials.values())
    for name, value in learned(whole.model).items():
        assert torch.equal(value, learned(resumed.model)[name]), name


def test_a_finished_fit_is_loaded_and_another_one_refused(tmp_path):
    first = fit_dots(tmp_path)
    again = fit_dots(tmp_path, progress=lambda *_: pytest.fail("trained again"))
    images = VALIDATION.batch([0], [False])[0]
    assert torch.equal(first.model(images).positions, again.model(images).positions)
    assert vars(first) | {"model": 0} == vars(again) | {"model": 0}
    report = json.loads((tmp_path / "baseline.json").read_text())
    assert report["data"] == {"name": "dots"} and report["result"]["steps"] == 12
    with pytest.raises(InputError, match=r"model\.size = 16, not 8"):
        fit_dots(tmp_path, replace(SLOTS, size=8))
    with pytest.raises(InputError, match=r"seed = 0, not 1"):
        fit_dots(tmp_path, seed=1)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="damaged"):
        fit_dots(tmp_path)


def test_minutes_are_kept_and_count_on(tmp_path, monkeypatch):
    fitted = fit_dots(tmp_path, budget=Budget(minutes=0.01))
    assert 0.6 <= fitted.seconds < 3 and fitted.steps >= 1
    monkeypatch.setattr(fit_module, "SAVE_SECONDS", 0.0)

    def cut(what, done, total):
        raise Interrupted

    with pytest.raises(Interrupted):
        fit_dots(tmp_path / "cut", budget=Budget(minutes=0.01), progress=cut)
    state = torch.load(tmp_path / "cut" / "state.pt", weights_only=True)["run"]
    assert state["step"] == 1 and state["spent"] > 0
    state["spent"] = 0.599  # of 0.6 seconds
    torch.save({"trials": {}, "run": state}, tmp_path / "cut" / "state.pt")
    resumed = fit_dots(tmp_path / "cut", budget=Budget(minutes=0.01))
    assert resumed.steps == 2 and resumed.seconds > 0.6


class Diverging(SlotAttentionSet):
    """No number at every rate but 1e-3, which ``fit`` tells it through the optimizer alone."""

    def loss(self, model, images, concepts, present, generator):
        loss = super().loss(model, images, concepts, present, generator)
        return loss * math.nan if self.slots == 5 else loss


def test_a_rate_that_diverges_counts_as_infinitely_bad(tmp_path):
    options = {**SLOTS.describe(), "slots": 5, "learning_rates": (1e-3, 1e-4)}
    with pytest.raises(InputError, match=r"slot-attention diverges .* try lower"):
        fit_dots(tmp_path, Diverging(**options))


def test_the_rate_of_the_best_trial_is_taken(tmp_path):
    fitted = fit_dots(tmp_path, replace(SLOTS, learning_rates=(10.0, 5e-3, 1e-9)), Budget(steps=60))
    assert fitted.learning_rate == 5e-3
    assert fitted.trials["10.0"] > fitted.trials["1e-09"] > fitted.trials["0.005"]


@pytest.mark.parametrize(("steps", "tried"), [(12, 0), (13, 3)])
def test_budgets_without_a_step_for_every_trial_take_the_middle_rate(tmp_path, steps, tried):
    fitted = fit_dots(tmp_path, replace(SLOTS, learning_rates=(1e-9, 5e-3, 10.0)), Budget(steps=steps))
    assert len(fitted.trials) == tried and (tried or fitted.learning_rate == 5e-3)
    assert tried or fitted.steps == steps


def test_weights_are_averaged_with_the_statistics_of_normalisation(tmp_path):
    """The schedule and the average of a budget, written down once more."""
    baseline = ResNetSet(
        (32, 32), config=TINY_RESNET, narrow=8, hidden=16, learning_rates=(1e-2,), batch_size=4, ema=0.9
    )
    fitted = fit_dots(tmp_path, baseline, Budget(steps=5))
    torch.manual_seed(0)
    model = baseline.build().to(memory_format=torch.channels_last)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=baseline.weight_decay)
    for step in range(5):
        plan = plan_step(step, len(TRAINING), TrainConfig(batch_size=4))
        images, concepts, present = TRAINING.batch(plan.indices, plan.flips)
        images = images.contiguous(memory_format=torch.channels_last)
        with inference_precision(CPU):
            loss = baseline.loss(model.train(), images, concepts, present, plan.generator())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        used = step / 5
        optimizer.param_groups[0]["lr"] = 1e-2 * min(1, (used + 1e-3) / 0.05, (1 - used) / 0.5)
        optimizer.step()
        for name, value in model.state_dict().items():
            near = max(0.1, 10 / (10 + step))
            average[name] = average[name].lerp(value, near) if value.is_floating_point() else value.clone()
    for name, value in fitted.model.state_dict().items():
        torch.testing.assert_close(value, average[name])
    assert any("running_mean" in name for name in average)


@pytest.mark.parametrize("wrong", [{}, {"minutes": 1, "steps": 1}, {"steps": 0}, {"minutes": -1}])
def test_impossible_budgets(wrong):
    with pytest.raises(InputError, match="either minutes or steps"):
        Budget(**wrong)


def test_resnet_has_a_fixed_number_of_slots_and_learns(tmp_path):
    baseline = ResNetSet(
        (48, 32), config=TINY_RESNET, narrow=8, hidden=16, learning_rates=(1e-3,), batch_size=4
    )
    positions, logits, *_ = baseline.build().eval()(torch.zeros(2, 3, 32, 48))
    assert positions.shape == (2, 10, 2) and logits.shape == (2, 10)
    assert ((positions > -0.1) & (positions < 1.1)).all()
    fitted = fit_dots(tmp_path, replace(baseline, image_size=(32, 32)), Budget(steps=3))
    again = fit_dots(tmp_path, replace(baseline, image_size=(32, 32)), Budget(steps=3))
    image = torch.zeros(1, 3, 32, 32)
    torch.testing.assert_close(fitted.model(image).positions, again.model(image).positions)
    with pytest.raises(MissingError, match="--set resnet=FOLDER"):
        replace(baseline, weights=str(tmp_path / "none")).build()


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
    )
    folder = tmp_path_factory.mktemp("vit")
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def test_dinosaur_trains_all_but_its_vit(tmp_path, tiny_vit):
    baseline = DinosaurSet(
        (32, 32),
        dino=str(tiny_vit),
        vit_size=(48, 32),
        size=16,
        hidden=16,
        learning_rates=(1e-3,),
        batch_size=4,
    )
    fitted = fit_dots(tmp_path, baseline, Budget(steps=3))
    names = learned(fitted.model).keys()
    assert not any(name.startswith("vit.") for name in names) and "decoder.place" in names
    fresh = baseline.build().vit.state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in fitted.model.vit.state_dict().items())
    again = fit_dots(tmp_path, baseline, Budget(steps=3))
    images = VALIDATION.batch([0, 1], [False] * 2)[0]
    torch.testing.assert_close(fitted.model(images).positions, again.model(images).positions)
    assert fitted.model(images).positions.shape == (2, 11, 2)
    assert fitted.model.train()(images).auxiliary > 0 and not fitted.model.vit.training
    scaled = torch.nn.functional.interpolate(images, (32, 48), mode="bicubic")
    seen = fitted.model.vit(imagenet_normalised(scaled), interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(fitted.model.see(images), seen[:, -6 * 4 :])  # of the patches, not of the class


@pytest.mark.parametrize("name", ["nowhere", "nobody/nothing", ""])
def test_missing_dino_weights(monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingError, match="--set dino=FOLDER"):
        DinosaurSet((32, 32), dino=name).build()
