"""Pretrained text-to-image models: every form they come in, and agreement with diffusers' own arithmetic."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from igm_cli.core import weights as weights_on_disk
from igm_cli.core.concepts import Text
from igm_cli.core.denoiser import InputFeatures
from igm_cli.core.models.pipeline_files import quiet
from igm_cli.core.models.pipelines import Loading, TextToImageParts, load_pipeline, resolve_dtype
from igm_cli.core.models.prompts import PromptEncoder
from igm_cli.core.models.text_to_image import TextToImageDenoiser
from igm_cli.core.weights import is_packed, read_weights, write_weights
from igm_cli.errors import IgmError, InputError, MissingError, UsageError

CPU = torch.device("cpu")
LABELS = ("dog", "cat", "rabbit")
EXACT = Loading(dtype="float32")
KINDS = pytest.mark.parametrize("kind", tiny_pipelines.KINDS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pipelines")
    with quiet():
        return {kind: tiny_pipelines.build(root / kind, kind) for kind in tiny_pipelines.KINDS}


@pytest.fixture(scope="module")
def files(folders: dict[str, Path]) -> dict[str, Path]:
    with quiet():
        return {
            kind: tiny_pipelines.single_file(folder, folder.parent / f"{kind}.safetensors")
            for kind, folder in folders.items()
        }


@pytest.fixture(scope="module")
def pipes(folders: dict[str, Path]) -> dict[str, Any]:
    """The same pipelines as diffusers loads them."""
    from diffusers import DiffusionPipeline

    with quiet():
        return {kind: DiffusionPipeline.from_pretrained(folder) for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def parts(folders: dict[str, Path]) -> dict[str, TextToImageParts]:
    return {kind: load_pipeline(str(folder), CPU, EXACT) for kind, folder in folders.items()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def picture() -> Tensor:
    """A gradient ``[3,16,16]``."""
    return torch.linspace(-1, 1, 3 * 16 * 16).view(3, 16, 16)


def noised(denoiser: TextToImageDenoiser, n: int = 3) -> InputFeatures:
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(n, *denoiser.latent_shape, generator=generator)
    return denoiser.features(x_t, torch.tensor([100, 500, 900])[:n])


def by_diffusers(pipe: Any, features: InputFeatures, prompt: str) -> Tensor:
    """The U-Net's output under a prompt, by way of the pipeline's own methods."""
    n = len(features.t)
    conditions = None
    if hasattr(pipe, "text_encoder_2"):
        # Zeros for the empty prompt are what the pipeline takes where no negative prompt is given.
        prompts, negative, pooled, negative_pooled = pipe.encode_prompt(
            prompt, device=CPU, do_classifier_free_guidance=True
        )
        if prompt == "":
            prompts, pooled = negative, negative_pooled
        ids = pipe._get_add_time_ids((16, 16), (0, 0), (16, 16), torch.float32, pooled.shape[-1])
        conditions = {"text_embeds": pooled.expand(n, -1), "time_ids": ids.expand(n, -1)}
    else:
        prompts = pipe.encode_prompt(prompt, CPU, 1, False)[0]
    with torch.no_grad():
        output: Tensor = pipe.unet(
            features.x_t, features.t, prompts.expand(n, -1, -1), added_cond_kwargs=conditions
        ).sample
    return output


def output_to_eps(pipe: Any, features: InputFeatures, output: Tensor) -> Tensor:
    if pipe.scheduler.config.prediction_type == "epsilon":
        return output
    square = pipe.scheduler.alphas_cumprod[features.t].view(-1, 1, 1, 1)
    return square.sqrt() * output + (1 - square).sqrt() * features.x_t


@KINDS
def test_agrees_with_diffusers(kind: str, parts: dict[str, TextToImageParts], pipes: dict[str, Any]) -> None:
    denoiser = TextToImageDenoiser(parts[kind], Text(LABELS))
    features = noised(denoiser)
    got = denoiser.base(features)[:, None] + denoiser.contributions(features, denoiser.space.candidates()[None])
    assert got.shape == (3, 3, *denoiser.latent_shape) and got.dtype == torch.float32
    for i, label in enumerate(LABELS):
        want = by_diffusers(pipes[kind], features, f"a photo of a {label}")
        torch.testing.assert_close(got[:, i], output_to_eps(pipes[kind], features, want), atol=2e-5, rtol=1e-4)
    empty = output_to_eps(pipes[kind], features, by_diffusers(pipes[kind], features, ""))
    torch.testing.assert_close(denoiser.base(features), empty, atol=2e-5, rtol=1e-4)
    assert (got[:, 0] - got[:, 1]).abs().max() > 1e-3  # the prompt matters


@KINDS
def test_schedule_is_that_of_the_scheduler(
    kind: str, parts: dict[str, TextToImageParts], pipes: dict[str, Any]
) -> None:
    scheduler, schedule = pipes[kind].scheduler, parts[kind].schedule
    assert schedule.config.prediction_type == ("v_prediction" if kind == "sd2" else "epsilon")
    t = torch.arange(schedule.steps)
    torch.testing.assert_close(schedule.alpha(t) ** 2, scheduler.alphas_cumprod, atol=1e-5, rtol=0)


def test_v_prediction_is_read_as_the_scheduler_reads_it(
    parts: dict[str, TextToImageParts], pipes: dict[str, Any]
) -> None:
    denoiser = TextToImageDenoiser(parts["sd2"], Text(LABELS))
    features = noised(denoiser)
    eps = denoiser.predictions_of_prompts(features, ["a dog"])[:, 0]
    schedule, t = denoiser.schedule, features.t
    alpha, sigma = (level(t)[:, None, None, None] for level in (schedule.alpha, schedule.sigma))
    x0 = (features.x_t - sigma * eps) / alpha
    scheduler = pipes["sd2"].scheduler
    scheduler.set_timesteps(scheduler.config.num_train_timesteps)
    v = by_diffusers(pipes["sd2"], features, "a dog")
    for i, t in enumerate(features.t.tolist()):
        step = scheduler.step(v[i : i + 1], t, features.x_t[i : i + 1])
        torch.testing.assert_close(x0[i : i + 1], step.pred_original_sample, atol=1e-4, rtol=1e-4)


@KINDS
def test_encode_is_the_scaled_mean(
    kind: str, parts: dict[str, TextToImageParts], pipes: dict[str, Any]
) -> None:
    denoiser = TextToImageDenoiser(parts[kind], Text(LABELS))
    vae = pipes[kind].vae
    with torch.no_grad():
        want = vae.encode(picture()[None]).latent_dist.mode()[0] * vae.config.scaling_factor
    got = denoiser.encode(picture())
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)
    assert got.shape == denoiser.latent_shape and denoiser.image_size == (16, 16)
    with pytest.raises(ValueError, match=r"\(3, 16, 16\)"):
        denoiser.encode(torch.zeros(3, 8, 16))


@KINDS
def test_every_form_gives_the_same(
    kind: str, folders: dict[str, Path], files: dict[str, Path], parts: dict[str, TextToImageParts], hub: Path
) -> None:
    denoiser = TextToImageDenoiser(parts[kind], Text(LABELS))
    features = noised(denoiser)
    want = denoiser.predictions(features, denoiser.space.candidates()[None])
    assert torch.isfinite(want).all()
    tiny_pipelines.into_hub_cache(folders[kind], hub, "tiny/model")
    given = {"tiny/model": EXACT, str(files[kind]): replace(EXACT, config=str(folders[kind]))}
    for source, loading in given.items():
        other = TextToImageDenoiser(load_pipeline(source, CPU, loading), Text(LABELS))
        assert other.schedule.config == denoiser.schedule.config
        got = other.predictions(other.features(features.x_t, features.t), other.space.candidates()[None])
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(other.encode(picture()), denoiser.encode(picture()))


def test_single_file_finds_its_description_in_the_cache(
    folders: dict[str, Path], files: dict[str, Path], hub: Path
) -> None:
    with pytest.raises(MissingError, match="holds weights alone"):
        load_pipeline(str(files["sd1"]), CPU, EXACT)
    tiny_pipelines.into_hub_cache(folders["sd1"], hub, "stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert type(load_pipeline(str(files["sd1"]), CPU, EXACT).pipe).__name__ == "StableDiffusionPipeline"
    half = load_pipeline(str(files["sd1"]), CPU, replace(EXACT, dtype="bfloat16")).pipe
    assert (half.unet.dtype, half.text_encoder.dtype) == (torch.bfloat16, torch.bfloat16)
    assert half.vae.dtype == torch.float32
    # What the description of a single file says wrongly can be put right.
    loading = replace(EXACT, prediction="v_prediction")
    assert load_pipeline(str(files["sd1"]), CPU, loading).schedule.config.prediction_type == "v_prediction"


def test_batches_do_not_change_results(parts: dict[str, TextToImageParts]) -> None:
    whole = TextToImageDenoiser(parts["sdxl"], Text(LABELS), batch=64)
    features = noised(whole)
    want = whole.predictions(features, whole.space.candidates()[None])
    assert TextToImageDenoiser(parts["sdxl"], Text(LABELS)).batch == 32
    large = replace(parts["sdxl"], image_size=(128, 128))  # latents of 64 x 64
    assert TextToImageDenoiser(large, Text(LABELS)).batch == 4
    for batch in (1, 4):
        parted = TextToImageDenoiser(parts["sdxl"], Text(LABELS), batch=batch)
        got = parted.predictions(features, parted.space.candidates()[None])
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts network calls, one a latent and prompt, and prompts encoded."""
    found, call, encode = {"calls": 0, "prompts": 0}, TextToImageDenoiser._call, PromptEncoder._encode

    def counted_call(self: TextToImageDenoiser, x_t: Tensor, *rest: Any) -> Tensor:
        eps = call(self, x_t, *rest)
        found["calls"] += len(x_t)
        return eps

    def counted_encode(self: PromptEncoder, texts: list[str]) -> None:
        found["prompts"] += len(texts)
        encode(self, texts)

    monkeypatch.setattr(TextToImageDenoiser, "_call", counted_call)
    monkeypatch.setattr(PromptEncoder, "_encode", counted_encode)
    return found


def test_nothing_is_asked_twice(parts: dict[str, TextToImageParts], asked: dict[str, int]) -> None:
    denoiser = TextToImageDenoiser(parts["sd1"], Text(LABELS))
    features, every = noised(denoiser), denoiser.space.candidates()[None]
    denoiser.predictions(features, every)
    assert asked == {"calls": 9, "prompts": 3}  # one a latent and label
    denoiser.contributions(features, every)
    denoiser.contributions(features, every)
    assert asked == {"calls": 9 + 3 + 9 + 9, "prompts": 4}  # eps_u once
    denoiser.predictions_of_prompts(features, ["a photo of a dog", "a photo of a dog and a cat"])
    assert asked["prompts"] == 5
    asked["calls"] = 0
    other = denoiser.with_labels(["cat", "bird"])
    other.predictions(features, other.space.candidates()[None])
    assert asked == {"calls": 6, "prompts": 6}


def test_concepts_of_each_latent(parts: dict[str, TextToImageParts]) -> None:
    denoiser = TextToImageDenoiser(parts["sd1"], Text(LABELS))
    features, every = noised(denoiser), denoiser.space.candidates()
    want = denoiser.predictions(features, every[None])
    chosen = torch.tensor([[0, 2], [2, 1], [1, 1]])
    got = denoiser.predictions(features, every[chosen])
    torch.testing.assert_close(got, want[torch.arange(3)[:, None], chosen], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="one-hot"):
        denoiser.predictions(features, torch.full((1, 1, 3), 0.5))


def test_templates_are_averaged(parts: dict[str, TextToImageParts], asked: dict[str, int]) -> None:
    denoiser = TextToImageDenoiser(parts["sd1"], Text(("dog", "cat"), ("{label}", "a photo of {label}")))
    features = noised(denoiser)
    got = denoiser.predictions(features, denoiser.space.candidates()[None])
    assert asked["calls"] == 3 * 2 * 2
    prompts = denoiser.predictions_of_prompts(features, ["dog", "a photo of dog", "cat", "a photo of cat"])
    torch.testing.assert_close(got, prompts.unflatten(1, (2, 2)).mean(2), atol=1e-5, rtol=1e-4)


def test_long_prompts_are_refused(parts: dict[str, TextToImageParts]) -> None:
    denoiser = TextToImageDenoiser(parts["sd1"], Text(("a very long label with many words",)))
    with pytest.raises(InputError, match="tokens and this model reads 16"):
        denoiser.predictions(noised(denoiser), denoiser.space.candidates()[None])


def test_infinite_predictions_are_refused(folders: dict[str, Path]) -> None:
    denoiser = TextToImageDenoiser(load_pipeline(str(folders["sd1"]), CPU, EXACT), Text(LABELS))
    denoiser.parts.pipe.unet.conv_out.bias.data.fill_(float("inf"))
    with pytest.raises(InputError, match="not finite in float32"):
        denoiser.base(noised(denoiser))


def test_packed_weights_are_loaded(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_on_disk, "PACKED_FROM", 256)
    monkeypatch.setattr(weights_on_disk, "CHANNELS", 8)
    folder = Path(shutil.copytree(folders["sd1"], tmp_path / "packed"))
    for part in ("unet", "vae"):
        path = folder / part / "diffusion_pytorch_model.safetensors"
        write_weights(path, read_weights(path), torch.int8)
        assert is_packed(path)
    plain, packed = (load_pipeline(str(path), CPU, EXACT) for path in (folders["sd1"], folder))
    for part in ("unet", "vae"):
        mine, theirs = (getattr(each.pipe, part) for each in (packed, plain))
        values, wanted = mine.state_dict(), theirs.state_dict()
        assert values.keys() == wanted.keys() and mine.dtype == theirs.dtype and not mine.training
        assert all((values[name] - wanted[name]).norm() <= 0.01 * wanted[name].norm() for name in wanted)
    features = InputFeatures(torch.randn(2, *plain.latent_shape), torch.tensor([10, 900]))
    eps = [TextToImageDenoiser(each, Text(LABELS)).base(features) for each in (packed, plain)]
    assert float((eps[0] - eps[1]).norm() / eps[1].norm()) < 0.05
    assert load_pipeline(str(folder), CPU, Loading(dtype="bfloat16")).pipe.unet.dtype == torch.bfloat16
    without_a_weight(folder / UNET)
    with pytest.raises(InputError, match=r"the unet of .* cannot be loaded"):
        load_pipeline(str(folder), CPU, EXACT)


def test_a_batch_that_does_not_fit_is_halved_once(
    parts: dict[str, TextToImageParts], monkeypatch: pytest.MonkeyPatch, asked: dict[str, int]
) -> None:
    denoiser = TextToImageDenoiser(parts["sd1"], Text(LABELS), batch=8)
    features = InputFeatures(torch.randn(4, *parts["sd1"].latent_shape), torch.tensor([10, 90, 500, 900]))
    network = parts["sd1"].pipe.unet
    wanted, room, forward = denoiser.predictions(features, torch.eye(3)[None]), 4, network.forward

    def in_room(x_t: Tensor, *rest: Any, **more: Any) -> Any:
        if len(x_t) > room:
            raise torch.OutOfMemoryError("out of memory")
        return forward(x_t, *rest, **more)

    monkeypatch.setattr(network, "forward", in_room)
    asked["calls"] = 0
    with pytest.warns(UserWarning, match="a network call takes 4 latents from now on"):
        found = denoiser.predictions(features, torch.eye(3)[None])
    torch.testing.assert_close(found, wanted)
    assert asked["calls"] == 12 and denoiser.batch == 4
    room = 2
    with pytest.raises(torch.OutOfMemoryError):
        denoiser.predictions(features, torch.eye(3)[None])


def test_float16_weights_and_other_latents(tmp_path: Path) -> None:
    """The form of the model that is delivered with the program."""
    with quiet():
        folder = tiny_pipelines.build(tmp_path / "half", "sd1", torch.float16, channels=8)
    (folder / "igm.json").write_text("{}")
    for dtype in (torch.float32, torch.bfloat16):
        loading = Loading(dtype=str(dtype).removeprefix("torch."), size=32)
        denoiser = TextToImageDenoiser(load_pipeline(str(folder), CPU, loading), Text(LABELS))
        pipe = denoiser.parts.pipe
        assert pipe.unet.dtype == dtype and pipe.vae.dtype == torch.float32
        assert denoiser.latent_shape == (8, 16, 16) and denoiser.image_size == (32, 32)
        eps = denoiser.base(noised(denoiser))
        assert eps.dtype == torch.float32 and torch.isfinite(eps).all()


def test_variant(tmp_path: Path, folders: dict[str, Path]) -> None:
    with quiet():
        folder = tiny_pipelines.build(tmp_path / "half", "sd1", torch.float16, variant="fp16")
    assert load_pipeline(str(folder), CPU, replace(EXACT, variant="fp16")).dtype == torch.float32
    with pytest.raises(InputError, match="has only fp16 weights; use --variant fp16"):
        load_pipeline(str(folder), CPU, EXACT)
    with pytest.raises(InputError, match="has no fp16 weights; leave out --variant"):
        load_pipeline(str(folders["sd1"]), CPU, replace(EXACT, variant="fp16"))


def test_sliced_attention_changes_no_result(
    folders: dict[str, Path], parts: dict[str, TextToImageParts]
) -> None:
    sliced = load_pipeline(str(folders["sd1"]), CPU, replace(EXACT, attention="sliced"))
    first, second = (TextToImageDenoiser(p, Text(LABELS)) for p in (sliced, parts["sd1"]))
    features = noised(first)
    got = first.predictions_of_prompts(features, ["dog"])
    torch.testing.assert_close(got, second.predictions_of_prompts(features, ["dog"]), atol=1e-5, rtol=1e-4)


def test_offloading_keeps_one_part_at_a_time(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = TextToImageDenoiser(load_pipeline(str(folders["sdxl"]), CPU, EXACT), Text(LABELS))
    pipe, events = denoiser.parts.pipe, []
    monkeypatch.setattr(pipe, "maybe_free_model_hooks", lambda: events.append("free"))
    for name in ("unet", "vae.encoder", "text_encoder", "text_encoder_2"):
        part = pipe.vae.encoder if name == "vae.encoder" else getattr(pipe, name)
        part.register_forward_pre_hook(lambda module, given, name=name: events.append(name))

    def seen(act: Callable[[], object]) -> list[str]:
        events.clear()
        act()
        return list(events)

    assert seen(lambda: denoiser.encode(picture())) == ["vae.encoder", "free"]
    assert seen(lambda: denoiser.embed(["dog"])) == ["free", "text_encoder", "text_encoder_2", "free"]
    assert seen(lambda: denoiser.embed(["dog"])) == []  # remembered: the text encoders stay where they are
    assert seen(lambda: denoiser.base(noised(denoiser)))[-2:] == ["free", "unet"]


def test_offloading_changes_no_result(folders: dict[str, Path], parts: dict[str, TextToImageParts]) -> None:
    hooked = load_pipeline(str(folders["sdxl"]), CPU, EXACT)
    hooked.pipe.enable_model_cpu_offload(device="cpu")  # its hooks, without a device to spare
    found = []
    for denoiser in (TextToImageDenoiser(p, Text(LABELS)) for p in (hooked, parts["sdxl"])):
        denoiser.encode(picture())
        features = noised(denoiser)
        base = denoiser.base(features)
        found.append((base, denoiser.encode(picture()), denoiser.predictions_of_prompts(features, ["dog"])))
    assert all(torch.equal(with_hooks, without) for with_hooks, without in zip(*found, strict=True))


def test_text_encoders_are_on_the_device_only_while_they_encode(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = load_pipeline(str(folders["sdxl"]), CPU, EXACT)
    device, events = torch.device("cpu", 0), []
    encoder = PromptEncoder(parts.pipe, parts.family, device)
    for name in ("text_encoder", "text_encoder_2"):
        part = getattr(parts.pipe, name)
        monkeypatch.setattr(part, "to", lambda where, name=name: events.append((name, str(where))))
        part.register_forward_pre_hook(lambda module, given, name=name: events.append((name, "encodes")))
    encoder(["dog"])
    every = ("text_encoder", "text_encoder_2")
    assert events == [(name, what) for what in ("cpu:0", "encodes", "cpu") for name in every]
    events.clear()
    encoder(["dog"])
    assert events == []
    monkeypatch.setattr(parts.family, "encode", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        encoder(["cat"])
    assert events == [(name, what) for what in ("cpu:0", "cpu") for name in every]


@pytest.mark.slow  # torch.compile takes a minute
def test_a_compiled_network_predicts_the_same(
    folders: dict[str, Path], parts: dict[str, TextToImageParts]
) -> None:
    compiled = load_pipeline(str(folders["sd1"]), CPU, replace(EXACT, compile=True))
    first, second = (TextToImageDenoiser(p, Text(LABELS)) for p in (compiled, parts["sd1"]))
    features = noised(first)
    got = first.predictions_of_prompts(features, ["dog"])
    torch.testing.assert_close(got, second.predictions_of_prompts(features, ["dog"]), atol=1e-5, rtol=1e-4)


def test_dtype_by_device() -> None:
    assert resolve_dtype("auto", torch.device("cuda")) == torch.float16
    assert resolve_dtype("auto", torch.device("mps")) == torch.float32
    assert resolve_dtype("auto", CPU) in (torch.float32, torch.bfloat16)
    assert resolve_dtype("float16", CPU) == torch.float16


def test_loading_is_silent_and_leaves_the_libraries_as_they_were(
    folders: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    def state() -> list[object]:
        libraries = (diffusers_logging, transformers_logging)
        return [x for log in libraries for x in (log.get_verbosity(), log.is_progress_bar_enabled())]

    before = state()
    load_pipeline(str(folders["sdxl"]), CPU, EXACT)
    assert capfd.readouterr() == ("", "")
    assert state() == before


# What cannot be used --------------------------------------------------------------------------------


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def drop(path: Path, *keys: str) -> None:
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in keys}))


UNET, SCHEDULER = "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"


def without_a_weight(path: Path) -> None:
    weights = load_file(path)
    weights.pop(min(weights))
    save_file(weights, path, {"format": "pt"})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "has no model_index.json"),
    "broken index": (lambda f: (f / "model_index.json").write_text("{"), "JSON"),
    "another pipeline": (
        lambda f: change(f / "model_index.json", _class_name="FluxPipeline"),
        "calls itself a FluxPipeline, and its network is a UNet2DConditionModel; give a complete pipeline",
    ),
    "a module of its own": (
        lambda f: change(f / "model_index.json", scheduler=["payload", "DDIMScheduler"]),
        "the scheduler of .* is a DDIMScheduler; a pipeline with one of diffusers' schedulers is needed",
    ),
    "another vae": (
        lambda f: change(f / "model_index.json", vae=["diffusers", "VQModel"]),
        "the vae of .* is a VQModel",
    ),
    "no vae": (lambda f: shutil.rmtree(f / "vae"), "has no vae; give a complete pipeline"),
    "null unet": (lambda f: change(f / "model_index.json", unet=[None, None]), "has no unet"),
    "no tokenizer": (lambda f: drop(f / "model_index.json", "tokenizer"), "has no tokenizer"),
    "empty tokenizer": (
        lambda f: [file.unlink() for file in (f / "tokenizer").iterdir()],
        "has no vocab.json and merges.txt",
    ),
    "damaged weights": (
        lambda f: cut(f / UNET),
        "weights .*unet.* are damaged or cut short .*; take another copy",
    ),
    "damaged text": (
        lambda f: cut(f / "text_encoder" / "model.safetensors"),
        "weights .*text_encoder.* are damaged or cut short",
    ),
    "lacking weights": (lambda f: without_a_weight(f / UNET), "the unet of .* lacks weights: conv_in.bias"),
    "lacking text": (
        lambda f: without_a_weight(f / "text_encoder" / "model.safetensors"),
        "the text_encoder of .* lacks weights",
    ),
    "no weights": (lambda f: (f / UNET).unlink(), "the unet of .* has no weights"),
    "pickle": (
        lambda f: (f / UNET).rename(f / "unet" / "diffusion_pytorch_model.bin"),
        "is a pickle, which can run code; convert it to safetensors",
    ),
    "prediction": (lambda f: change(f / SCHEDULER, prediction_type="sample"), "predicts 'sample'"),
    "zero snr": (lambda f: change(f / SCHEDULER, rescale_betas_zero_snr=True), r"\(DDIMScheduler\) is not"),
    "betas": (lambda f: change(f / SCHEDULER, beta_schedule="wavy"), "the scheduler of .* cannot be used"),
    "scheduler": (
        lambda f: change(f / "model_index.json", scheduler=["diffusers", "NoScheduler"]),
        "is an unknown NoScheduler",
    ),
    "flow": (
        lambda f: change(f / "model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"]),
        "is not supported",
    ),
    "size": (lambda f: change(f / "unet" / "config.json", sample_size=None), "give --size"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders(case: str, folders: dict[str, Path], tmp_path: Path) -> None:
    spoil, sentence = BROKEN[case]
    folder = tmp_path / "model"
    shutil.copytree(folders["sd2"], folder)
    spoil(folder)
    with pytest.raises(InputError, match=sentence) as caught:
        load_pipeline(str(folder), CPU, EXACT)
    assert "\n" not in str(caught.value)


def test_scheduler_defaults_are_those_of_its_class(folders: dict[str, Path], tmp_path: Path) -> None:
    """Configurations older than v-prediction do not name the prediction type."""
    folder = tmp_path / "model"
    shutil.copytree(folders["sd1"], folder)
    drop(folder / SCHEDULER, "prediction_type", "num_train_timesteps", "beta_end")
    change(folder / SCHEDULER, beta_schedule="linear")
    config = load_pipeline(str(folder), CPU, EXACT).schedule.config
    assert (config.prediction_type, config.beta_end, config.num_train_timesteps) == ("epsilon", 0.02, 1000)


def test_networks_that_do_not_fit(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["sd1"], folder)
    shutil.rmtree(folder / "unet")
    with quiet():
        other = tiny_pipelines.build(tmp_path / "other", "sd1", channels=8)
    shutil.copytree(other / "unet", folder / "unet")
    with pytest.raises(InputError, match="not one for inpainting"):
        load_pipeline(str(folder), CPU, EXACT)
    shutil.rmtree(folder / "unet")
    shutil.copytree(folders["sdxl"] / "unet", folder / "unet")
    with pytest.raises(InputError, match="does not fit its text encoder"):
        load_pipeline(str(folder), CPU, EXACT)


def test_broken_single_files(files: dict[str, Path], folders: dict[str, Path], tmp_path: Path) -> None:
    loading, path = replace(EXACT, config=str(folders["sd1"])), tmp_path / "one.safetensors"
    weights = load_file(files["sd1"])

    def refused(kept: Callable[[str], bool], sentence: str, loading: Loading = loading) -> None:
        save_file({k: v for k, v in weights.items() if kept(k)}, path)
        with pytest.raises(InputError, match=sentence):
            load_pipeline(str(path), CPU, loading)

    refused(lambda k: not k.startswith("first_stage_model."), "cannot be loaded: Failed to load AutoencoderKL")
    refused(lambda k: k.startswith("first_stage_model."), "cannot be loaded: Failed to load")
    refused(lambda k: not k.startswith("cond_stage_model."), "Failed to load CLIPTextModel. Weights .* missing")
    refused(lambda k: not k.endswith("time_embed.2.bias"), "cannot be loaded|lacks weights")
    refused(lambda k: not k.endswith("fc1.bias"), "cannot be loaded|lacks weights")
    refused(lambda k: True, "is not a StableDiffusionXL", replace(EXACT, config=str(folders["sdxl"])))
    cut(path)
    with pytest.raises(InputError, match="is damaged"):
        load_pipeline(str(path), CPU, loading)


@pytest.mark.parametrize(
    ("source", "loading", "error", "sentence"),
    [
        ("owner/name", EXACT, MissingError, "there is no 'owner/name' here; give a folder, or hf:owner/name"),
        ("./nowhere", EXACT, MissingError, "does not exist"),
        ("nowhere.safetensors", EXACT, MissingError, "does not exist"),
        ("a/b/c", EXACT, MissingError, "does not exist"),
        ("model.ckpt", EXACT, InputError, "is a pickle, which can run code; convert it to safetensors"),
        ("owner/name", Loading(offload=True), UsageError, "offloading needs a CUDA device"),
        (
            "owner/name",
            Loading(quantize="nf4"),
            UsageError,
            "4 bits need a CUDA device, not cpu; use --quantize int8",
        ),
        ("owner/name", Loading(attention="xformers"), IgmError, r"igm-cli\[xformers\]|needs a CUDA device"),
    ],
)
def test_sources_that_cannot_be_used(
    source: str, loading: Loading, error: type[IgmError], sentence: str, hub: Path
) -> None:
    with pytest.raises(error, match=sentence):
        load_pipeline(source, CPU, loading)


def test_half_of_a_model_in_the_cache(folders: dict[str, Path], hub: Path) -> None:
    tiny_pipelines.into_hub_cache(folders["sd1"], hub, "tiny/model")
    next(hub.glob("*/snapshots/*/unet/*.safetensors")).unlink()
    with pytest.raises(InputError, match=r"the unet of .* has no weights"):
        load_pipeline("tiny/model", CPU, EXACT)


def test_settings_that_cannot_be_used(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="unknown dtype 'int8'; choose auto"):
        Loading(dtype="int8")
    with pytest.raises(UsageError, match="unknown attention"):
        Loading(attention="flash")
    with pytest.raises(UsageError, match="unknown quantize 'int2'; choose no, int8, nf4"):
        Loading(quantize="int2")
    with pytest.raises(UsageError, match="must be a multiple of 2"):
        load_pipeline(str(folders["sd1"]), CPU, replace(EXACT, size=17))
