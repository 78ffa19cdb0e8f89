"""Text-to-image models of our own: tokens, losses, training in three phases, the folder they become."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from igm_cli.core.checkpoint import ModelSpec
from igm_cli.core.concepts import ConceptSpace, Continuous, Text
from igm_cli.core.models import build_denoiser
from igm_cli.core.models.pipelines import load_pipeline
from igm_cli.core.models.prompts import word_tokenizer, words_of
from igm_cli.core.models.text_to_image import TextToImageDenoiser
from igm_cli.core.noise_schedule import Schedule, ScheduleConfig
from igm_cli.core.objective import Noised, denoising_weight
from igm_cli.core.training import latent as latent_training
from igm_cli.core.training import latent_losses
from igm_cli.core.training.config import TrainConfig
from igm_cli.core.training.latent_losses import sample_labels, set_errors, subsets
from igm_cli.core.training.run import train
from igm_cli.core.training.state import RunRecord, describe_run
from igm_cli.errors import InputError, MissingError

LABELS = ("red", "green", "blue", "polar bear")
SPACE = Text(LABELS, ("a photo of a {label}", "{label}"))
SCHEDULE = ScheduleConfig(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
SHAPE = {
    "image_size": [16, 16], "autoencoder_channels": [8, 8], "latent_channels": 2, "channels": [8, 16],
    "head_dim": 8, "groups": 4, "text_dim": 16, "text_layers": 1, "tokens": 16,
}  # fmt: skip
FLOW = ScheduleConfig(prediction_type="flow_prediction", flow_shift=2.0)
SPEC = ModelSpec(
    architecture="text-to-image",
    options=SHAPE,
    space=SPACE.to_dict(),
    schedule=SCHEDULE.to_dict(),
    composition="mean",
    image_size=(16, 16),
    concepts="labels",
)
CONFIG = TrainConfig(
    steps=9, autoencoder_steps=3, reading_steps=2, batch_size=8, warmup=2, log_every=1, checkpoint_every=9, half=False,
    contrast=0.1, contrast_from=7,
)  # fmt: skip


class Patches:
    """One or two coloured squares an image."""

    def __len__(self) -> int:
        return 8

    def batch(self, indices, flips):
        images = torch.full((len(indices), 3, 16, 16), -1.0)
        concepts = torch.zeros(len(indices), 2, len(LABELS))
        present = torch.zeros(len(indices), 2, dtype=torch.bool)
        for row, index in enumerate(indices):
            for place in range(1 + index % 2):
                color = (index + place) % 3
                images[row, color, 8 * place : 8 * place + 6, 4:12] = 1.0
                concepts[row, place, color] = 1.0
                present[row, place] = True
        return images, concepts, present


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latent")
    train(SPEC, Patches(), CONFIG, folder, device_is_cpu=True)
    return folder


def test_known_words_are_one_token_and_others_fall_into_letters():
    tokenizer = word_tokenizer(words_of(["a photo of a dog, a cat and a elephant", "polar bear"]), 16)
    assert tokenizer.tokenize("A photo of a elephant") == [
        "a</w>",
        "photo</w>",
        "of</w>",
        "a</w>",
        "elephant</w>",
    ]
    assert tokenizer.tokenize("polar bear") == ["polar</w>", "bear</w>"]
    assert tokenizer.tokenize("zoo")[0] == "z"
    for word in ("déjà", "猫", "🐱"):  # of letters beyond its alphabet, which are several tokens
        foreign = word_tokenizer((word,), 16)
        assert foreign.decode(foreign(word)["input_ids"], skip_special_tokens=True).strip() == word
    assert tokenizer.model_max_length == 16


def test_vocabulary_is_the_same_in_every_run():
    """Weights trained further look the same words up by the same numbers."""
    words = words_of(["a photo of a bear", "a cat, a rat and a star", "snail owl turtle"])
    first, *others = [word_tokenizer.__wrapped__(words, 16).get_vocab() for _ in range(6)]
    assert all(other == first for other in others)


@given(
    st.lists(st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=8), min_size=1)
)
@settings(max_examples=20, deadline=None)
def test_every_word_given_is_one_token(words):
    tokenizer = word_tokenizer(tuple(sorted(set(words))), 16)
    for word in words:
        assert tokenizer.tokenize(word) == [word + "</w>"]
    assert len(tokenizer) == len(set(tokenizer.get_vocab().values()))


@given(st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_sampled_labels_hold_the_true_ones(seed, count):
    generator = torch.Generator().manual_seed(seed)
    present = torch.zeros(5, 7, dtype=torch.bool)
    for row in present:
        row[torch.randperm(7, generator=generator)[:count]] = True
    asked, true = sample_labels(present, 4, generator)
    assert (true.sum(1) == count).all()
    assert all(len(set(row.tolist())) == 4 for row in asked)
    assert torch.equal(present.gather(1, asked), true)


def test_what_is_likely_is_asked_about_rather_than_the_rest():
    generator = torch.Generator().manual_seed(0)
    present = torch.zeros(4000, 6, dtype=torch.bool)
    present[:, 0] = True
    likely = torch.zeros(4000, 6)
    likely[:, 0], likely[:, 5] = 99.0, 2.0
    asked, true = sample_labels(present, 2, generator, likely)
    assert (asked[true] == 0).all() and true.sum() == 4000
    share = torch.bincount(asked[~true], minlength=6)[1:] / 4000
    # A part of the rows draws evenly; the others by the softmax of the logits.
    hard = torch.softmax(torch.tensor([0.0, 0, 0, 0, 2]), 0)
    expected = latent_losses.EASY / 5 + (1 - latent_losses.EASY) * hard
    assert torch.allclose(share, expected, atol=0.03)


def test_set_errors_are_those_of_the_mean_of_predictions():
    generator = torch.Generator().manual_seed(0)
    epsilon, noise = (torch.randn(*shape, generator=generator) for shape in ((2, 4, 2, 4, 4), (2, 2, 4, 4)))
    sets = subsets(4, 3)
    assert len(sets) == 4 + 6 + 4
    assert len({tuple(row.tolist()) for row in sets}) == len(sets)
    errors = set_errors(epsilon, noise, sets.float())
    for column, members in enumerate(sets):
        expected = (noise - epsilon[:, members].mean(1)).square().mean((1, 2, 3))
        torch.testing.assert_close(errors[:, column], expected)


class Told:
    """A model of latents that are all noise: its prediction under a prompt is what it is told for the labels in it.

    Args:
        foretold: How much of the noise every label foretells, ``[labels]``; under no label nothing is.
    """

    space, schedule = Text(("red", "green"), ("{label}",)), Schedule()

    def __init__(self, foretold):
        self.foretold, self.reader = foretold, self

    def embed(self, texts):
        named = [[label in text for label in self.space.labels] for text in texts]
        return torch.tensor(named).float()[:, None]  # [R,1,labels]

    def __call__(self, x_t, t, embeddings, whole=True):
        if not whole:
            return None, torch.zeros(len(x_t), 1)
        found = (embeddings[..., 0, :] * torch.tensor(self.foretold)).sum(-1)  # [B,R]
        return found[..., None, None, None] * x_t[:, None], torch.zeros(found.numel(), 1)

    def pool(self, noticed):
        return noticed

    def read(self, pooled, prompts):
        return (torch.zeros(len(pooled), 2),) * 2

    def match(self, pooled):
        return torch.zeros(len(pooled))


def told(*foretold: float) -> tuple[Told, Noised]:
    noise = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    model, t = Told(foretold), torch.tensor([100, 700])
    return model, Noised(noise, t, noise, denoising_weight(model.schedule, t))


RED = torch.tensor([[True, False]] * 2)


def test_the_true_labels_are_contrasted_with_all_sets():
    weighted = []
    for contrast in (0.0, 1.0, 2.0):
        model, seen = told(0.9, 0.5)
        weighted.append(latent_losses.label_loss(model, seen, RED, contrast, torch.Generator().manual_seed(1)))
    left = torch.tensor([0.1, 0.5, 0.3]).square()  # under red, green, and the mean of both
    likelihood = -16 * left * seen.noise.square().mean((1, 2, 3))[:, None]
    signal = model.schedule.alpha(seen.t).square()
    crossed = -(signal * likelihood.log_softmax(1)[:, 0]).mean()
    torch.testing.assert_close(weighted[1] - weighted[0], crossed)
    torch.testing.assert_close(weighted[2] - weighted[1], crossed)
    chance = torch.tensor(2.0).log()  # of a reading that says nothing, twice, and of a matching
    denoising = denoising_weight(model.schedule, seen.t) * seen.noise.square().mean((1, 2, 3)) * left[0]
    torch.testing.assert_close(weighted[0], denoising.mean() + (0.1 * 2 + 0.5) * chance)


def test_without_a_contrast_only_the_composed_error_is_learned():
    """Images of red, of red and green, and of nothing, whose label is dropped or which has none."""
    model, seen = told(0.9, 0.5)
    present = torch.tensor([[True, False], [True, True]])
    square = denoising_weight(model.schedule, seen.t) * seen.noise.square().mean((1, 2, 3))
    loss = latent_losses.composed_label_loss(model, seen, present, 0.0, torch.Generator())
    torch.testing.assert_close(loss, (square * torch.tensor([0.1, 0.3]).square()).mean())
    none = latent_losses.composed_label_loss(model, seen, present & False, 0.0, torch.Generator())
    torch.testing.assert_close(none, square.mean())  # nothing is foretold under the empty prompt
    rows = range(200)
    dropped = [
        latent_losses.composed_label_loss(model, seen, present, 0.3, torch.Generator().manual_seed(row))
        for row in rows
    ]
    expected = 0.3 * square.mean() + 0.7 * loss
    assert abs(torch.stack(dropped).mean() - expected) < 0.08 * square.mean()


def test_captions_are_learned_with_and_without_words():
    model, seen = told(1.0, 0.5)
    model.space = Text(("red", "green"), ("{label}",))
    loss = latent_losses.caption_loss(model, seen, RED, 0.0, torch.Generator().manual_seed(1))
    square = denoising_weight(model.schedule, seen.t) * seen.noise.square().mean((1, 2, 3))
    torch.testing.assert_close(loss, square.mean() / 2)  # nothing is left under red, all of it under no words
    crossed = latent_losses.caption_loss(model, seen, RED, 1.0, torch.Generator().manual_seed(1)) - loss
    assert (
        0 < float(crossed) < float(torch.tensor(3.0).log())
    )  # the true caption is likelier than the wrong ones


def test_one_label_is_contrasted_with_no_words():
    model, seen = told(1.0, 0.5)
    model.space = Text(("red",), ("{label}",))
    alone = [
        latent_losses.caption_loss(model, seen, RED[:, :1], weight, torch.Generator().manual_seed(1))
        for weight in (0.0, 1.0)
    ]
    assert 0 < float(alone[1] - alone[0]) < float(torch.tensor(3.0).log())


def test_latents_are_drawn_to_a_normal_distribution():
    mean, std = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.3, 2.0]])
    images = torch.zeros(1, 2)
    posterior = SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=std))
    vae = SimpleNamespace(encode=lambda x: posterior, decode=lambda z: SimpleNamespace(sample=images))
    loss = latent_losses.autoencoder_loss(SimpleNamespace(vae=vae), images, torch.Generator())
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(mean, std), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(loss, 1e-4 * divergence)


def test_the_learning_rate_begins_anew_with_every_phase():
    config = TrainConfig(100, learning_rate=1.0, warmup=10, decay=0.5, autoencoder_steps=40, reading_steps=20)
    factors = [config.learning_rate_at(step) for step in range(100)]
    assert factors[0] < factors[9] == 1.0
    assert factors[39] < 0.06
    assert factors[40] == factors[60] == factors[0]
    assert factors[59] < 0.11
    assert factors[99] < 0.06
    faster = replace(config, early_rate=2.0)
    doubled = [faster.learning_rate_at(step) / factor for step, factor in enumerate(factors)]
    assert doubled == [2.0] * 60 + [1.0] * 40


PHASES = {
    "vae.": 3,
    "unet.down_blocks.": 6,  # reading and composing
    "unet.up_blocks.": 4,  # composing alone
    "reader.matches.": 3,  # of single labels, but not of a caption
}
"""Steps that parts of the network are trained in, three of the autoencoder, two of reading, four of composing."""


def test_every_part_is_trained_in_its_phases(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 10))
    state = torch.load(trained / "state.pt", weights_only=True)
    names = [name for name, _ in SPEC.build().named_parameters()]
    steps = {names[index]: int(moments["step"]) for index, moments in state["optimizer"]["state"].items()}
    counts = {part: {n for name, n in steps.items() if name.startswith(part)} for part in PHASES}
    assert counts == {part: {count} for part, count in PHASES.items()}
    assert float(state["model"]["scale"]) != 1.0


def test_training_without_a_contrast_teaches_no_reading(trained, tmp_path):
    plain = replace(CONFIG, steps=4, autoencoder_steps=1, reading_steps=0, contrast=0.0, drop=0.2)
    train(SPEC, Patches(), plain, tmp_path, device_is_cpu=True)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    names = [name for name, _ in SPEC.build().named_parameters()]
    learned = {names[index].partition(".")[0] for index in state["optimizer"]["state"]}
    assert learned == {"vae", "unet", "text_encoder"}


def test_a_finished_run_is_known_as_such(trained):
    record = RunRecord(trained, describe_run(SPEC, CONFIG, {}, None))
    assert record.held(CONFIG.steps - 1, SPEC) == CONFIG.steps
    assert record.held(CONFIG.steps + 1, SPEC) is None


def test_a_run_cut_short_goes_on_as_if_it_had_not_been(trained, tmp_path):
    class Cut(Exception):
        pass

    def cut(step, figures):
        if step == 7:
            raise Cut

    often = replace(CONFIG, checkpoint_every=3)
    with pytest.raises(Cut):
        train(SPEC, Patches(), often, tmp_path, device_is_cpu=True, report=cut)
    train(SPEC, Patches(), often, tmp_path, device_is_cpu=True)
    whole, resumed = (torch.load(f / "state.pt", weights_only=True)["model"] for f in (trained, tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_training_in_bfloat16(tmp_path):
    AcceleratorState._reset_state(True)  # one precision a process, says accelerate
    try:
        train(SPEC, Patches(), replace(CONFIG, precision="bf16", mirror=False), tmp_path, device_is_cpu=True)
    finally:
        AcceleratorState._reset_state(True)
    assert (tmp_path / "model_index.json").is_file()


class Dim(Patches):
    """Of less contrast, so that their latents vary less."""

    def batch(self, indices, flips):
        images, concepts, present = super().batch(indices, flips)
        return images / 4, concepts, present


def test_a_training_starts_from_another(trained, tmp_path):
    further = replace(CONFIG, steps=2, autoencoder_steps=0, reading_steps=1, contrast=0.0)
    train(SPEC, Dim(), further, tmp_path, device_is_cpu=True, init=trained)
    before, after = (load_file(f / "vae" / "diffusion_pytorch_model.safetensors") for f in (trained, tmp_path))
    assert all(torch.equal(before[name], after[name]) for name in before)
    scales = [
        json.loads((f / "vae" / "config.json").read_text())["scaling_factor"] for f in (trained, tmp_path)
    ]
    assert scales[0] == scales[1]
    other = replace(SPEC, options={**SHAPE, "autoencoder_channels": [8, 16]})
    with pytest.raises(InputError, match="does not fit"):
        train(other, Patches(), further, tmp_path / "other", device_is_cpu=True, init=trained)
    with pytest.raises(MissingError, match=r"no model\.safetensors"):
        train(SPEC, Patches(), further, tmp_path / "none", device_is_cpu=True, init=tmp_path / "nowhere")


def test_a_model_of_more_labels_begins_with_the_words_that_it_shares(trained):
    more = replace(SPEC, space=Text((*LABELS, "purple"), SPACE.templates).to_dict())
    begun, before = more.build(), SPEC.build()
    for model in (begun, before):
        model.load_folder(trained)
    assert len(begun.tokenizer) > len(before.tokenizer)
    prompts = [f"a photo of a {label}" for label in LABELS]
    with torch.no_grad():
        torch.testing.assert_close(begun.embed(prompts), before.embed(prompts))
        assert not torch.equal(begun.embed(["purple"]), begun.embed([LABELS[0]]))


def test_the_mean_of_weights_before_and_after(trained, tmp_path, monkeypatch, capsys):
    further = replace(CONFIG, steps=2, autoencoder_steps=0, reading_steps=0, contrast=0.0)
    train(SPEC, Dim(), further, tmp_path / "after", device_is_cpu=True, init=trained)
    script = Path(__file__).parents[1] / "benchmarks" / "average_weights.py"
    call = [script, trained, tmp_path / "after", tmp_path / "mean", "--share", "0.25"]
    monkeypatch.setattr(sys, "argv", list(map(str, call)))
    runpy.run_path(str(script), run_name="__main__")
    assert not (tmp_path / "mean" / "state.pt").exists()
    SPEC.build().load_folder(tmp_path / "mean")
    folders = trained, tmp_path / "after", tmp_path / "mean"
    before, after, mean = (load_file(f / "unet" / "diffusion_pytorch_model.safetensors") for f in folders)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    for name in before:
        torch.testing.assert_close(mean[name], 0.75 * before[name] + 0.25 * after[name])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(script), run_name="__main__")
    assert "already there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("vae/diffusion_pytorch_model.safetensors", b"garbage", "are damaged"),
        ("vae/config.json", b"{", "not a valid JSON"),
        ("vae/config.json", b"{}", "no scaling_factor"),
        ("tokenizer/vocab.json", b"{", "not a valid JSON"),
        ("tokenizer/vocab.json", b'{"red</w>": "one"}', "numbers no tokens"),
    ],
)
def test_a_training_does_not_start_from_damaged_files(trained, tmp_path, file, content, says):
    start = tmp_path / "start"
    shutil.copytree(trained, start)
    (start / file).write_bytes(content)
    with pytest.raises(InputError, match=says):
        SPEC.build().load_folder(start)


@pytest.mark.parametrize("labels", [2, 3])
def test_captions_need_few_labels(labels):
    space = Text(LABELS[:labels], SPACE.templates[:1])
    generator = torch.Generator().manual_seed(0)
    for present in ([True, True, False], [True, False, False], [False, True, True]):
        texts = latent_losses._captions(space, torch.tensor(present[:labels]), generator)
        assert len(texts) == 4
        assert len(set(texts)) == 4
        assert texts[-1] == ""


@pytest.mark.parametrize("held", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_images_hold_one_to_three_labels(held):
    concepts, present = torch.eye(4)[None], torch.tensor(held, dtype=torch.bool)[None]
    with pytest.raises(InputError, match=f"holds {sum(held)} labels"):
        latent_training.labels_of(concepts, present)


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on a flow."""
    folder = tmp_path_factory.mktemp("flow")
    train(
        replace(SPEC, schedule=FLOW.to_dict()), Patches(), replace(CONFIG, steps=6), folder, device_is_cpu=True
    )
    return folder


@pytest.mark.parametrize("schedule", ["SCHEDULE", "FLOW"])
def test_the_folder_is_a_pipeline(schedule, request):
    """What was trained comes back through the path that loads Stable Diffusion."""
    trained = request.getfixturevalue("trained" if schedule == "SCHEDULE" else "flow")
    trained_on = SCHEDULE if schedule == "SCHEDULE" else FLOW
    parts = load_pipeline(str(trained), torch.device("cpu"))
    denoiser = TextToImageDenoiser(parts, SPACE)
    assert denoiser.image_size == (16, 16)
    assert denoiser.latent_shape == (2, 8, 8)
    assert denoiser.schedule.config.prediction_type == trained_on.prediction_type
    assert denoiser.schedule.config.flow_shift == trained_on.flow_shift
    image = Patches().batch([1], [False])[0][0]
    x_t, t = torch.randn(2, 2, 8, 8), torch.tensor([100, 700])
    own = build_denoiser("text-to-image", SHAPE, SPACE, Schedule(trained_on))
    state = torch.load(trained / "state.pt", weights_only=True)["average"]
    own.load_state_dict({name.removeprefix("module."): v for name, v in state.items()})
    own.eval()
    with torch.no_grad():
        embedded = own.embed([f"a photo of a {label}" for label in LABELS])
        wanted, _ = own(x_t, t, embedded[None].expand(2, -1, -1, -1))
        latent = own.encode(image[None])[0]
    given = TextToImageDenoiser(parts, Text(LABELS))
    found = given.predictions(given.features(x_t, t), torch.eye(len(LABELS))[None])
    tolerance = 1e-4 if parts.dtype == torch.float32 else 0.05
    assert torch.allclose(found, wanted, atol=tolerance)
    assert torch.allclose(denoiser.encode(image), latent, atol=1e-4)


def test_the_folder_says_what_igm_knows_of_it(trained):
    igm = json.loads((trained / "igm.json").read_text())
    assert igm["concepts"] == "labels"
    asked = ConceptSpace.from_dict(igm["space"])
    assert asked == Text(LABELS, SPACE.templates[:1])  # trained on both, asked by one
    assert not list(trained.glob(".writing-*"))
    assert {"vocab.json", "merges.txt"} <= {path.name for path in (trained / "tokenizer").iterdir()}


@pytest.mark.parametrize("schedule", ["trained", "flow"])
def test_diffusers_draws_with_it(schedule, request):
    from diffusers import StableDiffusionPipeline

    trained = request.getfixturevalue(schedule)
    pipeline = StableDiffusionPipeline.from_pretrained(str(trained), safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a photo of a red", num_inference_steps=2, height=16, width=16).images[0]
    assert image.size == (16, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": [16, 24]}, "square"),
        ({"image_size": [18, 18]}, "divisible by 4"),
        ({"channels": [16]}, "two levels"),
        ({"channels": [8, 18]}, "divisible by groups"),
        ({"head_dim": 5}, "divisible by head_dim"),
        ({"colour": 3}, "colour"),
    ],
)
def test_wrong_shapes_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        build_denoiser("text-to-image", {**SHAPE, **change}, SPACE, Schedule(SCHEDULE))


def test_positions_cannot_be_prompts():
    with pytest.raises(InputError, match="labels"):
        build_denoiser("text-to-image", SHAPE, Continuous(("x",), (0.0,), (1.0,)), Schedule(SCHEDULE))


@pytest.mark.parametrize("labels", [(), ("a", "a"), ("a", " ")])
def test_labels_must_be_told_apart(labels):
    with pytest.raises(ValueError, match="labels"):
        Text(labels)


def test_templates_must_have_a_place_for_the_label():
    with pytest.raises(ValueError, match="label"):
        Text(("a", "b"), ("a photo",))


def test_only_latent_models_have_an_autoencoder(tmp_path):
    spec = ModelSpec(
        architecture="factored", options={"image_size": [32, 32]}, schedule=SCHEDULE.to_dict(), composition="sum",
        space=Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True).to_dict(), image_size=(32, 32),
        concepts="pos",
    )  # fmt: skip
    with pytest.raises(InputError, match="autoencoder"):
        train(spec, Patches(), CONFIG, tmp_path, device_is_cpu=True)


# The network of the training ---------------------------------------------------------------------------


def test_predictions_of_several_prompts_are_those_of_the_unet():
    """What comes before the first prompt is computed once per latent, and that changes nothing."""
    torch.manual_seed(0)
    model = SPEC.build().eval()
    x_t, t = torch.randn(3, 2, 8, 8), torch.tensor([3, 500, 900])
    prompts = model.embed([f"a photo of a {label}" for label in (*LABELS, "red", "green")]).unflatten(0, (3, 2))
    rows = x_t.repeat_interleave(2, dim=0), t.repeat_interleave(2)
    with torch.no_grad():
        epsilon, noticed = model(x_t, t, prompts)
        output = model.unet(*rows, encoder_hidden_states=prompts.flatten(0, 1)).sample
        nothing, half = model(x_t, t, prompts, whole=False)
    expected = model.schedule.output_to_epsilon(output, *rows).unflatten(0, (3, 2))
    torch.testing.assert_close(epsilon, expected, atol=1e-5, rtol=1e-5)
    assert nothing is None and torch.equal(half, noticed)


@pytest.mark.slow  # torch.compile takes a minute
def test_a_compiled_training_is_the_same(trained: Path, tmp_path: Path):
    train(SPEC, Patches(), replace(CONFIG, compile="default"), tmp_path, device_is_cpu=True)
    losses = [
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (trained, tmp_path)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
