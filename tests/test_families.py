"""Families of text-to-image models: what each pipeline's own ``__call__`` asks of its network and gets is what igm does."""

from __future__ import annotations

import itertools
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

from igm_cli.core.concepts import Text
from igm_cli.core.inference.engine import invert
from igm_cli.core.models import pipeline_files
from igm_cli.core.models.families import PIPELINES, default
from igm_cli.core.models.pipeline_files import find_pipeline, pipeline_fingerprint, quiet
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
        options = {"prompt": PROMPT, "height": 16, "width": 16, "output_type": "latent"}
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
        given = denoiser.embed(texts).tensors
        return parts.family.output(parts.pipe, x, time, given, parts.image_size)


@EVERY
@pytest.mark.parametrize("guided", [False, True])
def test_the_network_is_asked_as_the_pipeline_asks_it(
    kind: str, guided: bool, built: Callable[[str], Path], loaded: Callable[[str], TextToImageParts]
) -> None:
    from diffusers import DiffusionPipeline

    with quiet():
        pipe = DiffusionPipeline.from_pretrained(built(kind))
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


@EVERY
def test_answers_are_those_of_trying_every_set(kind: str, loaded: Callable[[str], TextToImageParts]) -> None:
    assert agreeing(denoiser_of(loaded(kind)), 2) == 2


@pytest.mark.slow
@EVERY
def test_answers_are_those_of_trying_every_set_in_fifty_problems(
    kind: str, loaded: Callable[[str], TextToImageParts]
) -> None:
    assert agreeing(denoiser_of(loaded(kind)), 50) == 50
