"""Families of text-to-image models: what each pipeline's own ``__call__`` asks of its network and gets is what igm does."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from igm_cli.core.concepts import Text
from igm_cli.core.inference.engine import invert
from igm_cli.core.models.families import PIPELINES, default
from igm_cli.core.models.pipeline_files import pipeline_fingerprint, quiet
from igm_cli.core.models.pipelines import Loading, TextToImageParts, load_pipeline, resolve_dtype
from igm_cli.core.models.text_to_image import TextToImageDenoiser
from igm_cli.core.noise_schedule import draw
from igm_cli.core.types import InversionSettings
from igm_cli.errors import InputError, MissingError, UsageError

CPU = torch.device("cpu")
EXACT = Loading(dtype="float32", size=16)
FAMILIES = (*tiny_pipelines.KINDS, *tiny_pipelines.FOLDERS)
LABELS, PROMPT = ("dog", "cat", "rabbit", "thing 5", "thing 6"), "a photo of a dog"
EVERY = pytest.mark.parametrize("kind", FAMILIES)


def slow_but(*kept: str, among: Sequence[str] = FAMILIES) -> pytest.MarkDecorator:
    """All families, those not named among the slow tests: what is tried hardly depends on the family."""
    return pytest.mark.parametrize(
        "kind", [kind if kind in kept else pytest.param(kind, marks=pytest.mark.slow) for kind in among]
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's tiny pipeline; each is built once."""
    root = tmp_path_factory.mktemp("families")

    def build(kind: str) -> Path:
        folder = root / kind
        if not folder.exists():
            with quiet():
                tiny_pipelines.build(folder, kind)
        return folder

    return build


@pytest.fixture(scope="module")
def loaded(built: Callable[[str], Path]) -> Callable[[str], TextToImageParts]:
    every: dict[str, TextToImageParts] = {}

    def load(kind: str) -> TextToImageParts:
        if kind not in every:
            every[kind] = load_pipeline(str(built(kind)), CPU, EXACT)
        return every[kind]

    return load


def denoiser_of(parts: TextToImageParts) -> TextToImageDenoiser:
    template = "{label}" if parts.family.classes else "a photo of a {label}"
    return TextToImageDenoiser(parts, Text(LABELS, (template,)))


# Against the pipeline's own __call__ ----------------------------------------------------------------


def called(pipe: Any, kind: str, guided: bool, **how: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What a pipeline's ``__call__`` gives its network and gets back: (latents, time, output), a step each."""
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def note(module: Any, given: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        x = given[0] if given else named["hidden_states"]
        time = named["timestep"] if "timestep" in named else given[1].expand(len(x))
        seen.append((x, time, out[0] if isinstance(out, tuple) else out.sample))

    network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    hook = network.register_forward_hook(note, with_kwargs=True)
    if kind == "dit":
        options: dict[str, Any] = {"class_labels": pipe.get_label_ids(["domestic dog"]), "output_type": "pt"}
    else:
        side = 32 if kind == "sana" else 16  # the least that it draws
        options = {"prompt": PROMPT, "height": side, "width": side, "output_type": "latent"}
    if kind in ("pixart", "sana"):
        options["use_resolution_binning"] = False
    if kind == "flux" and guided:
        options |= {"negative_prompt": "", "true_cfg_scale": 2.0}
    elif kind != "flux":
        options["guidance_scale"] = 3.0 if guided else 1.0
    try:
        with quiet(), torch.no_grad():
            pipe.set_progress_bar_config(disable=True)
            pipe(**options | {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0)} | how)
    finally:
        hook.remove()
    return seen


def mine(parts: TextToImageParts, kind: str, x: Tensor, time: Tensor, texts: list[str]) -> Tensor:
    """What igm's adapter gets from the network at the same latents and time."""
    denoiser = denoiser_of(parts)
    if kind == "flux":  # packed, and told T s / 1000
        x, time = torch.nn.functional.pixel_shuffle(x.mT.unflatten(2, (4, 4)), 2), time * 1000
    if kind == "sana":
        time = time / parts.network.config.timestep_scale
    with quiet(), torch.no_grad():
        given = denoiser.embed(texts)
        return parts.family.output(parts.pipe, x, time, given, parts.image_size)


@EVERY
@pytest.mark.parametrize("guided", [False, True])
def test_the_network_is_asked_as_the_pipeline_asks_it(
    kind: str, guided: bool, built: Callable[[str], Path], loaded: Callable[[str], TextToImageParts]
) -> None:
    from diffusers import DDIMScheduler, DiffusionPipeline

    with quiet():
        pipe = DiffusionPipeline.from_pretrained(built(kind))
    if kind == "sd1":  # its own begins with four steps of another kind
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    parts, label = loaded(kind), "dog" if kind == "dit" else PROMPT
    seen = called(pipe, kind, guided)
    assert len(seen) == (4 if kind == "flux" and guided else 2)
    for number, (x, time, output) in enumerate(seen):
        texts = [label] * len(x)
        if guided:  # what stands for no prompt: first, or last of a DiT, or a call of its own
            texts = [label, ""] if kind == "dit" else ["", label]
            texts = [("", label)[number % 2 == 0]] if kind == "flux" else texts
        got = mine(parts, kind, x, time, texts)
        if kind == "flux":
            output = torch.nn.functional.pixel_shuffle(output.mT.unflatten(2, (4, 4)), 2)
        torch.testing.assert_close(got, output[:, : got.shape[1]], atol=2e-5, rtol=1e-4)
        assert float(output.std()) > 0.05
        if guided and kind != "flux":
            assert float((got[0] - got[1]).abs().max()) > 1e-4  # the prompt matters


@pytest.mark.parametrize("kind", ["sd3", "flux", "sana"])
def test_predictions_on_a_flow_are_those_of_the_pipeline_at_the_same_level(
    kind: str, built: Callable[[str], Path], loaded: Callable[[str], TextToImageParts]
) -> None:
    """eps of timestep t is x_t + alpha v, with v of the pipeline at its shifted level of (t + 1/2) / T."""
    from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler

    with quiet():
        pipe = DiffusionPipeline.from_pretrained(built(kind))
    if kind == "sana":  # its own takes no levels
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    denoiser, t = denoiser_of(loaded(kind)), torch.tensor([700])
    ((x, time, v),) = called(pipe, kind, False, sigmas=[0.7005], num_inference_steps=1)
    if kind == "flux":
        x, v = (torch.nn.functional.pixel_shuffle(each.mT.unflatten(2, (4, 4)), 2) for each in (x, v))
    level = denoiser.schedule.sigma(t)
    told = {"flux": 1 / 1000, "sana": 0.001}.get(kind, 1.0)
    torch.testing.assert_close(time, 1000 * level * told, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(level, pipe.scheduler.sigmas[:1], rtol=1e-5, atol=1e-6)
    with quiet():
        eps = denoiser.predictions(denoiser.features(x, t), denoiser.space.candidates()[None, :1])[:, 0]
    torch.testing.assert_close(eps, x + (1 - level) * v, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", tiny_pipelines.FOLDERS)
def test_latents_are_those_of_the_pipeline(kind: str, loaded: Callable[[str], TextToImageParts]) -> None:
    parts = loaded(kind)
    denoiser, image = denoiser_of(parts), torch.linspace(-1, 1, 3 * 16 * 16).view(3, 16, 16)
    vae, latent = parts.pipe.vae, denoiser.encode(image)
    assert latent.shape == denoiser.latent_shape == (4, 8, 8)
    with torch.no_grad():  # as pipelines decode
        raw = latent[None] / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0.0)
        torch.testing.assert_close(denoiser.decode(latent[None]), vae.decode(raw).sample)
        encoded = vae.encode(image[None])
    torch.testing.assert_close(raw, encoded.latent if kind == "sana" else encoded.latent_dist.mode())
    assert (getattr(vae.config, "shift_factor", None) is not None) == (kind in ("sd3", "flux"))


def test_defaults_are_those_of_the_pipelines() -> None:
    import diffusers

    for family in PIPELINES:
        for name in family.pipelines:
            call = getattr(diffusers, name).__call__
            assert callable(call)
            if family.guidance is not None:
                pipe = object.__new__(getattr(diffusers, name))
                assert default(pipe, "guidance_scale") == family.guidance
    assert resolve_dtype("auto", torch.device("cuda"), torch.bfloat16) == torch.bfloat16


# Answers ------------------------------------------------------------------------------------------------


def enumerated(denoiser: TextToImageDenoiser, latent: Tensor, draws: int, seed: int, k: int) -> set[int]:
    """The best set of k labels by the mean of their predictions, every set tried, under the same draws."""
    told = draw(denoiser.schedule, tuple(latent.shape), draws, low=0.05, high=0.95, seed=seed)
    features = denoiser.features(denoiser.schedule.add_noise(latent[None], told.noise, told.t), told.t)
    errors = {}
    for members in itertools.combinations(range(len(LABELS)), k):
        rows = torch.eye(len(LABELS))[list(members)][None]
        eps = denoiser.predictions(features, rows).double().mean(1)
        errors[members] = float((told.noise - eps).square().mean())
    return set(min(errors, key=errors.__getitem__))


def agreeing(denoiser: TextToImageDenoiser, problems: int) -> int:
    """In how many problems the answer is the best set of all."""
    right, k = 0, 2
    for seed in range(problems):
        latent = torch.randn(denoiser.latent_shape, generator=torch.Generator().manual_seed(seed))
        settings = InversionSettings(draws=3, max_draws=3, low=0.05, high=0.95, seed=seed, give_up=False)
        with quiet():
            found = invert(denoiser, latent, settings, k=k, composition="mean").concepts.argmax(1).tolist()
            right += set(found) == enumerated(denoiser, latent, 3, seed, k)
    return right


@slow_but("sd1", "flux", "dit")
def test_answers_are_those_of_trying_every_set(kind: str, loaded: Callable[[str], TextToImageParts]) -> None:
    assert agreeing(denoiser_of(loaded(kind)), 2) == 2


@pytest.mark.slow
@EVERY
def test_answers_are_those_of_trying_every_set_in_fifty_problems(
    kind: str, loaded: Callable[[str], TextToImageParts]
) -> None:
    assert agreeing(denoiser_of(loaded(kind)), 50) == 50


# Forms --------------------------------------------------------------------------------------------------


@slow_but("sd3", "flux", "sana", among=tiny_pipelines.FOLDERS)
def test_every_form_gives_the_same(
    kind: str, built: Callable[[str], Path], loaded: Callable[[str], TextToImageParts], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """From the hub's cache, in parts of several files, and as a variant in half precision."""
    from diffusers import DiffusionPipeline
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    tiny_pipelines.into_hub_cache(built(kind), tmp_path / "hub", "tiny/model")
    with quiet():
        whole = DiffusionPipeline.from_pretrained(built(kind))
        whole.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
        whole.to(torch.bfloat16).save_pretrained(tmp_path / "half", variant="bf16")
    for name in ("shards", "half"):
        shutil.copy(built(kind) / "model_index.json", tmp_path / name)
    assert len(list((tmp_path / "shards").glob("*/*-of-*.safetensors"))) > 2
    denoiser = denoiser_of(loaded(kind))
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([100, 900])

    def predicted(source: str, loading: Loading) -> Tensor:
        other = denoiser_of(load_pipeline(source, CPU, loading))
        assert other.schedule.config == denoiser.schedule.config
        with quiet():
            return other.predictions(other.features(x, t), other.space.candidates()[None])

    want = predicted(str(built(kind)), EXACT)
    torch.testing.assert_close(predicted("tiny/model", EXACT), want)
    torch.testing.assert_close(predicted(str(tmp_path / "shards"), EXACT), want)
    half = predicted(str(tmp_path / "half"), replace(EXACT, variant="bf16"))
    assert 0 < float((half - want).norm() / want.norm()) < 0.02
    lower = predicted(str(built(kind)), replace(EXACT, dtype="bfloat16"))
    assert 0 < float((lower - want).norm() / want.norm()) < 0.05
    with pytest.raises(InputError, match="has only bf16 weights; use --variant bf16"):
        load_pipeline(str(tmp_path / "half"), CPU, EXACT)
    assert pipeline_fingerprint(tmp_path / "half", "bf16") != pipeline_fingerprint(built(kind), None)


def test_a_tokenizer_of_sentencepiece(built: Callable[[str], Path], tmp_path: Path) -> None:
    """As PixArt comes: without a tokenizer.json."""
    import io

    import sentencepiece

    folder, file = shutil.copytree(built("pixart"), tmp_path / "model"), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([PROMPT, "a photo of a cat", "a photo of a rabbit"] * 5), model_writer=file, vocab_size=40,
        model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"the tokenizer of .* has no spiece.model; give a complete pipeline"):
        load_pipeline(str(folder), CPU, EXACT)
    (folder / "tokenizer" / "spiece.model").write_bytes(file.getvalue())
    tokenizer = load_pipeline(str(folder), CPU, EXACT).pipe.tokenizer
    own = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
    assert tokenizer(PROMPT).input_ids == [*own.encode(PROMPT), 1]


def test_a_pipeline_is_known_by_its_parts(built: Callable[[str], Path], tmp_path: Path) -> None:
    """Not by its class, nor by the class that published configurations give the transformer."""
    for kind, name, network in (
        ("sdxl", "StableDiffusionXLPAGPipeline", None),
        ("pixart", "PixArtSigmaPipeline", "Transformer2DModel"),
        ("dit", "DiTPipeline", "Transformer2DModel"),
    ):
        folder = shutil.copytree(built(kind), tmp_path / kind)
        change(folder / "model_index.json", _class_name=name)
        if network:
            change(folder / "model_index.json", transformer=["diffusers", network])
            change(folder / "transformer" / "config.json", _class_name=network)
        parts = load_pipeline(str(folder), CPU, EXACT)
        assert type(parts.pipe).__name__ in parts.family.pipelines


def test_stable_diffusion_3_without_its_t5(built: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(built("sd3"), tmp_path / "model")
    change(folder / "model_index.json", text_encoder_3=[None, None], tokenizer_3=[None, None])
    shutil.rmtree(folder / "text_encoder_3")
    denoiser = denoiser_of(load_pipeline(str(folder), CPU, EXACT))
    assert denoiser.embed([PROMPT])["encoder_hidden_states"].shape == (1, 16 + 256, 48)


def test_a_network_is_told_of_sizes_where_it_asks(built: Callable[[str], Path], tmp_path: Path) -> None:
    """PixArt-alpha for 1024 pixels: the pipeline tells its network the size, and so does igm."""
    from diffusers import DiffusionPipeline, PixArtTransformer2DModel

    folder = shutil.copytree(built("pixart"), tmp_path / "model")
    network = PixArtTransformer2DModel.from_pretrained(folder / "transformer").config
    with quiet():
        large = PixArtTransformer2DModel.from_config(
            {
                **network,
                "use_additional_conditions": True,
                "sample_size": 128,
                "num_attention_heads": 3,
                "cross_attention_dim": 24,
            }
        )
        for parameter in large.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
        large.save_pretrained(folder / "transformer")
        pipe = DiffusionPipeline.from_pretrained(folder)
    parts = load_pipeline(str(folder), CPU, EXACT)
    for x, time, output in called(pipe, "pixart", False):
        got = mine(parts, "pixart", x, time, [PROMPT])
        torch.testing.assert_close(got, output[:, :4], atol=2e-5, rtol=1e-4)
    assert load_pipeline(str(folder), CPU, replace(EXACT, size=None)).image_size == (256, 256)


# What cannot be used ------------------------------------------------------------------------------------


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def other_width(part: str, key: str, width: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / part
        change(path / "config.json", **{key: width})
        from transformers import AutoConfig, T5EncoderModel

        with quiet():
            T5EncoderModel(AutoConfig.from_pretrained(path)).save_pretrained(path)

    return spoil


def named(name: str, **entries: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "model_index.json", _class_name=name, **entries)


BROKEN: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "video": (
        "sd1",
        named("StableVideoDiffusionPipeline", unet=["diffusers", "UNetSpatioTemporalConditionModel"]),
        "is a StableVideoDiffusionPipeline, for video; give a text-to-image pipeline: Stable Diffusion 1 or 2,",
    ),
    "video by its network": (
        "sd3",
        named("WanPipeline", transformer=["diffusers", "WanTransformer3DModel"]),
        "is a WanPipeline, for video",
    ),
    "inpainting": ("sd1", named("StableDiffusionInpaintPipeline"), "for inpainting; give a text-to-image pipeline"),
    "filling in": ("flux", named("FluxFillPipeline"), "for inpainting"),
    "image to image": ("sdxl", named("StableDiffusionXLImg2ImgPipeline"), "for changing images"),
    "a network that is not known": (
        "sd3",
        named("NewPipeline", transformer=["diffusers", "NewTransformer2DModel"]),
        "is a NewPipeline, whose network is a NewTransformer2DModel; give a text-to-image pipeline",
    ),
    "a T5 of another width": ("sd3", other_width("text_encoder_3", "d_model", 64), "reads vectors of 48 numbers and the text_encoder_3 makes 64"),
    "a T5 of another width, of PixArt": ("pixart", other_width("text_encoder", "d_model", 40), "reads vectors of 24 numbers and the text_encoder makes 40"),
    "no T5": ("flux", lambda f: shutil.rmtree(f / "text_encoder_2"), "has no text_encoder_2; give a complete pipeline"),
    "another text encoder": (
        "pixart",
        lambda f: change(f / "model_index.json", text_encoder=["transformers", "UMT5EncoderModel"]),
        "the text_encoder of .* is a UMT5EncoderModel; a pipeline with T5EncoderModel is needed",
    ),
    "a flow run backwards": (
        "sd3",
        lambda f: change(f / "scheduler" / "scheduler_config.json", invert_sigmas=True),
        r"\(FlowMatchEulerDiscreteScheduler\) is not supported",
    ),
    "a distilled Sana": (
        "sana",
        lambda f: change(f / "transformer" / "config.json", guidance_embeds=True),
        "needs more than a prompt|lacks weights",
    ),
    "lacking weights": (
        "flux",
        lambda f: without(next((f / "text_encoder_2").glob("*.safetensors")), "encoder.final_layer_norm.weight"),
        "the text_encoder_2 of .* lacks weights",
    ),
    "a LoRA": (
        "sd1",
        lambda f: [(f / "model_index.json").unlink(), (f / "pytorch_lora_weights.safetensors").write_bytes(b"")],
        "is a LoRA, which adds to another model; give the model itself, with it merged",
    ),
    "classes without names": ("dit", lambda f: change(f / "model_index.json", id2label=None), "id2label"),
}  # fmt: skip


def without(path: Path, name: str) -> None:
    weights = load_file(path)
    del weights[name]
    save_file(weights, path, {"format": "pt"})


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders(case: str, built: Callable[[str], Path], tmp_path: Path) -> None:
    kind, spoil, sentence = BROKEN[case]
    folder = shutil.copytree(built(kind), tmp_path / "model")
    with quiet():
        spoil(folder)
    with pytest.raises(InputError, match=sentence) as caught:
        load_pipeline(str(folder), CPU, EXACT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "window"), [("sd3", 16), ("flux", 16), ("pixart", 120), ("sana", 299)])
def test_prompts_longer_than_the_window_are_refused(
    kind: str, window: int, loaded: Callable[[str], TextToImageParts]
) -> None:
    denoiser = denoiser_of(loaded(kind))
    with (
        quiet(),
        pytest.raises(InputError, match=rf"has \d+ tokens and this model reads {window}; use a shorter"),
    ):
        denoiser.embed([PROMPT, " ".join(["of"] * 310)])
    longest = " ".join(["of"] * (window - 2))
    with quiet():
        sequence = denoiser.embed([longest, " ".join(["of"] * (window - 3) + ["dog"])])["encoder_hidden_states"]
    assert not torch.allclose(sequence[0], sequence[1])  # the last word is read


def test_settings_that_do_not_suit(built: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError, match="the image size 18 must be a multiple of 4"):
        load_pipeline(str(built("flux")), CPU, replace(EXACT, size=18))
    with pytest.raises(
        InputError, match="is a flow, whose network puts out a velocity; leave out --prediction"
    ):
        load_pipeline(str(built("sd3")), CPU, replace(EXACT, prediction="epsilon"))


def predicted(parts: TextToImageParts) -> Tensor:
    """What a pipeline predicts of two latents under a prompt, or under a class."""
    denoiser = denoiser_of(parts)
    x_t = torch.randn(2, *parts.latent_shape, generator=torch.Generator().manual_seed(0))
    features = denoiser.features(x_t, torch.tensor([100, 500]))
    return denoiser.predictions_of_prompts(features, ["dog"] if parts.family.classes else [PROMPT])


def off(prediction: Tensor, true: Tensor) -> float:
    return float((prediction - true).norm() / true.norm())


@slow_but("sd1", "flux", "sana")
def test_quantized_networks_predict_nearly_the_same(
    kind: str, built: Callable[[str], Path], loaded: Callable[[str], TextToImageParts]
) -> None:
    pytest.importorskip("torchao")
    few = load_pipeline(str(built(kind)), CPU, replace(EXACT, quantize="int8"))
    assert 0 < off(predicted(few), predicted(loaded(kind))) < 0.02
    kinds = {type(weight).__name__ for weight in few.network.parameters()}
    assert len(kinds) == 2  # linear layers are of torchao's class, all others as they were


@pytest.fixture
def bits_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a CPU compute with weights of bitsandbytes, which it can; diffusers asks for a GPU."""
    from diffusers.quantizers.bitsandbytes import bnb_quantizer

    for kind in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
        monkeypatch.setattr(kind, "validate_environment", lambda self, **more: None)
        monkeypatch.setattr(kind, "update_device_map", lambda self, given: {"": "cpu"})
    monkeypatch.setattr("igm_cli.core.models.pipelines.FEW_BITS_ON", ("cpu",))
    # bitsandbytes' packing for CPUs with AVX512-BF16 fails for layers as small as those of these pipelines.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)


@pytest.mark.usefixtures("bits_on_cpu")
@pytest.mark.parametrize("kind", ["sd1", "flux", "sd3"])
def test_folders_of_weights_in_few_bits(
    kind: str, built: Callable[[str], Path], loaded: Callable[[str], TextToImageParts], tmp_path: Path
) -> None:
    """Four bits predict nearly the same, made on loading or kept in a folder, as people share them; text encoders, too."""
    from transformers import BitsAndBytesConfig, T5EncoderModel

    few = load_pipeline(str(built(kind)), CPU, replace(EXACT, quantize="nf4"))
    folder = shutil.copytree(built(kind), tmp_path / "folder")
    few.network.save_pretrained(folder / few.family.part)
    kept = load_pipeline(str(folder), CPU, EXACT)
    whole, made, read = (predicted(parts) for parts in (loaded(kind), few, kept))
    assert 0 < off(made, whole) < 0.2
    assert torch.equal(read, made)
    assert "torch.uint8" in {str(weight.dtype) for weight in kept.network.parameters()}
    if kind == "flux":
        four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        with quiet():
            T5EncoderModel.from_pretrained(
                folder / "text_encoder_2", quantization_config=four, device_map="cpu"
            ).save_pretrained(folder / "text_encoder_2")
        assert 0 < off(predicted(load_pipeline(str(folder), CPU, EXACT)), made) < 0.2
    with pytest.raises(UsageError, match=r"is kept in few bits already; leave out --quantize"):
        load_pipeline(str(folder), CPU, replace(EXACT, quantize="int8"))


def test_weights_in_few_bits_that_cannot_be_read(built: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(built("sd3"), tmp_path / "folder")
    config = folder / "transformer" / "config.json"
    plain = json.loads(config.read_text())
    bits = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    config.write_text(json.dumps({**plain, "quantization_config": bits}))
    with pytest.raises(
        UsageError, match="by bitsandbytes, which needs a CUDA device, not cpu; give the full weights, or"
    ):
        load_pipeline(str(folder), CPU, EXACT)
    gguf = in_gguf(built("sd3"), tmp_path / "few.gguf")
    assert load_pipeline(str(folder), CPU, replace(EXACT, network=str(gguf))).network  # as the sentence says
    for said in (
        {"quant_method": "torchao"},
        {**bits, "quant_type": {"_type": "x"}},
        {**bits, "llm_int8_x": {}},
        "nf4",
    ):
        config.write_text(json.dumps({**plain, "quantization_config": said}))
        with pytest.raises(
            InputError, match="in few bits in a way that igm does not read; give weights of bitsandbytes"
        ):
            load_pipeline(str(folder), CPU, EXACT)


def in_gguf(folder: Path, file: Path, leave_out: str = "") -> Path:
    """Writes the network of a pipeline as a GGUF file: 8 bits where blocks of 32 fit, 16 elsewhere."""
    gguf = pytest.importorskip("gguf")
    part = next(part for part in ("transformer", "unet") if (folder / part).is_dir())
    (weights,) = (folder / part).glob("*.safetensors")
    writer = gguf.GGUFWriter(file, part)
    for name, value in load_file(weights).items():
        if name == leave_out:
            continue
        small = value.ndim == 2 and value.shape[1] % 32 == 0
        kind = gguf.GGMLQuantizationType.Q8_0 if small else gguf.GGMLQuantizationType.F16
        writer.add_tensor(name, gguf.quantize(value.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize("kind", ["sd1", "flux", "sd3"])
def test_a_network_in_a_file_of_its_own(
    kind: str, built: Callable[[str], Path], loaded: Callable[[str], TextToImageParts], tmp_path: Path
) -> None:
    """Of GGUF it predicts nearly the same, of .safetensors the same, and the folder needs no weights of it."""
    whole = loaded(kind)
    part = whole.family.part
    folder = shutil.copytree(built(kind), tmp_path / "folder")
    (own,) = (folder / part).glob("*.safetensors")
    own.rename(tmp_path / "own.safetensors")
    files = in_gguf(built(kind), tmp_path / "few.gguf"), tmp_path / "own.safetensors"
    few, same = (load_pipeline(str(folder), CPU, replace(EXACT, network=str(file))) for file in files)
    assert 0 < off(predicted(few), predicted(whole)) < 0.02
    assert torch.equal(predicted(same), predicted(whole))
    assert "uint8" in {str(weight.dtype).removeprefix("torch.") for weight in few.network.parameters()}
    assert len({pipeline_fingerprint(folder, None, file) for file in files}) == 2


def test_files_that_are_not_of_the_network(built: Callable[[str], Path], tmp_path: Path) -> None:
    folder = str(built("flux"))
    in_gguf(built("sd3"), tmp_path / "other.gguf")
    half = in_gguf(built("flux"), tmp_path / "half.gguf", leave_out="proj_out.weight")
    (tmp_path / "cut.gguf").write_bytes(half.read_bytes()[:2000])
    (tmp_path / "noise.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 9)
    (tmp_path / "weights.ckpt").write_bytes(b"x")
    for name, says in {
        "other": r"other.gguf holds [\d,]+ numbers, and the network that \S+ describes [\d,]+; give its own",
        "half": r"half.gguf holds [\d,]+ numbers",
        "cut": r"cut.gguf cannot be loaded",
        "noise": r"noise.gguf cannot be loaded",
    }.items():
        with pytest.raises(InputError, match=says):
            load_pipeline(folder, CPU, replace(EXACT, network=str(tmp_path / f"{name}.gguf")))
    with pytest.raises(InputError, match=r"give a \.gguf or a \.safetensors file"):
        load_pipeline(folder, CPU, replace(EXACT, network=str(tmp_path / "weights.ckpt")))
    with pytest.raises(InputError, match="a DiTTransformer2DModel is not read from a file of its own"):
        load_pipeline(str(built("dit")), CPU, replace(EXACT, network=str(half)))
    with pytest.raises(UsageError, match="leave out --quantize"):
        replace(EXACT, network=str(half), quantize="int8")
    with pytest.raises(MissingError, match="check the path of --network"):
        pipeline_fingerprint(Path(folder), None, tmp_path / "none.gguf")
