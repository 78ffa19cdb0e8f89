"""Loading the parts of a pretrained text-to-image pipeline: Stable Diffusion 1.x, 2.x and SDXL.

From a folder in diffusers' layout, one .safetensors file in the original layout, or the hub.  Only
what predicts noise is loaded: no safety checker, no feature extractor, no image encoder.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from igm_cli.core.device import has_bf16
from igm_cli.core.models.pipeline_files import (
    CONFIGURATIONS,
    PipelineFolder,
    check_path,
    choose_variants,
    from_hub,
    open_folder,
    single_file_kind,
)
from igm_cli.core.models.pipeline_networks import (
    FAILURES,
    load_scheduler,
    load_tokenizer,
    networks_of_file,
    networks_of_folder,
)
from igm_cli.core.noise_schedule import Schedule, ScheduleConfig
from igm_cli.errors import InputError, MissingError, UsageError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ATTENTION = ("auto", "sliced", "xformers")
PREDICTIONS = ("auto", "epsilon", "v_prediction")


@dataclass(frozen=True)
class Loading:
    """How a pipeline is loaded.

    Attributes:
        variant: Variant of the weights, e.g. ``fp16``.
        dtype: ``auto`` (by device), ``float32``, ``float16`` or ``bfloat16``; the autoencoder is always
            float32.
        attention: ``auto``, ``sliced`` (less memory, slower) or ``xformers``.
        offload: Keep on a CUDA device only the part that computes.
        size: Side of the images in pixels; by default what the model was trained on.
        config: Folder or hub id with the description of a single file, instead of the official one.
        prediction: What the U-Net puts out, if the scheduler's configuration says it wrongly, as for
            single files of Stable Diffusion 2 base: ``auto``, ``epsilon`` or ``v_prediction``.
    """

    variant: str | None = None
    dtype: str = "auto"
    attention: str = "auto"
    offload: bool = False
    size: int | None = None
    config: str | None = None
    prediction: str = "auto"

    def __post_init__(self) -> None:
        choices = {"dtype": ("auto", *DTYPES), "attention": ATTENTION, "prediction": PREDICTIONS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise UsageError(f"unknown {name} {getattr(self, name)!r}; choose {', '.join(known)}")


@dataclass(frozen=True)
class TextToImageParts:
    """What a pipeline predicts noise with, frozen and in evaluation mode.

    Attributes:
        kind: Class of the pipeline.
        unet: diffusers' UNet2DConditionModel, in ``dtype``.
        vae: diffusers' AutoencoderKL, float32: it runs once an image, and some overflow in float16.
        tokenizers: One a text encoder.
        text_encoders: One, or two for SDXL, in ``dtype``.
        schedule: The noise schedule the U-Net was trained on.
        scheduler: Its configuration in diffusers' form.
        image_size: (width, height) in pixels.
        device: Where it computes.
        dtype: What the U-Net computes in.
        zero_empty: The empty prompt is encoded as zeros.
        hooks: Of the parts that are kept off the device until they compute.
    """

    kind: str
    unet: Any
    vae: Any
    tokenizers: tuple[Any, ...]
    text_encoders: tuple[Any, ...]
    schedule: Schedule
    scheduler: Mapping[str, Any]
    image_size: tuple[int, int]
    device: torch.device
    dtype: torch.dtype
    zero_empty: bool = False
    hooks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_pooled(self) -> bool:
        """True if the U-Net is conditioned on pooled prompts and sizes, too (SDXL)."""
        return self.kind == "StableDiffusionXLPipeline"

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a latent."""
        width, height = self.image_size
        factor = vae_factor(self.vae)
        return int(self.unet.config.in_channels), height // factor, width // factor

    def make_room(self, part: str) -> None:
        """Takes every other part off the device, where offloading is on."""
        for name, hook in self.hooks.items():
            if not name.startswith(part):
                hook.offload()


def load_pipeline(source: str, device: torch.device, loading: Loading | None = None) -> TextToImageParts:
    """The parts of a pretrained pipeline on a device.

    Args:
        source: Folder with model_index.json, one .safetensors file, or hub id ``owner/name`` (looked for
            in the Hugging Face cache first).
        device: Where it shall compute.
        loading: How to load it.

    Raises:
        MissingError: If it is not here and cannot be fetched.
        InputError: If it is not a complete pipeline of a known kind.
        UsageError: If the device cannot do what is asked for.
    """
    loading = loading or Loading()
    if loading.offload and device.type != "cuda":
        raise UsageError(f"offloading needs a CUDA device, not {device.type}; leave out --offload")
    if loading.attention == "xformers":
        _need_xformers(device)
    path = check_path(source)
    dtype = resolve_dtype(loading.dtype, device)
    with quiet():
        if path is not None and path.is_file():
            folder = _description(path, loading)
            networks = networks_of_file(path, folder, dtype)
        else:
            folder = open_folder(path or from_hub(source, loading.variant))
            networks = networks_of_folder(folder, choose_variants(folder, loading.variant), dtype)
        tokenizers = tuple(load_tokenizer(folder, suffix) for suffix in folder.encoders)
        scheduler = load_scheduler(folder)
    encoders = tuple(networks[f"text_encoder{suffix}"] for suffix in folder.encoders)
    _check_fit(source, networks["unet"], networks["vae"], tokenizers, encoders)
    side = _image_size(source, networks, loading.size)
    schedule = _schedule(source, scheduler, loading.prediction)
    return TextToImageParts(
        kind=folder.kind,
        unet=networks["unet"],
        vae=networks["vae"],
        tokenizers=tokenizers,
        text_encoders=encoders,
        schedule=schedule,
        scheduler=dict(scheduler.config),
        image_size=side,
        device=device,
        dtype=dtype,
        zero_empty=len(encoders) > 1 and bool(folder.index.get("force_zeros_for_empty_prompt", True)),
        hooks=_place(networks, device, loading),
    )


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type to compute in: float16 on CUDA, bfloat16 on CPUs that multiply it, else float32."""
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if device.type == "cpu" and has_bf16(device) else torch.float32


def vae_factor(vae: Any) -> int:
    """Pixels a side of a latent's place."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the chatter of diffusers and transformers while it lasts."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in libraries]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for log in libraries:
                log.set_verbosity_error()
                log.disable_progress_bar()
            yield
        finally:
            for log, verbosity, bars in before:
                log.set_verbosity(verbosity)
                if bars:
                    log.enable_progress_bar()


def _description(path: Path, loading: Loading) -> PipelineFolder:
    """The folder that describes a single file: of its own kind unless one is given."""
    kind = single_file_kind(path)
    name = loading.config or CONFIGURATIONS[kind]
    given = check_path(name)
    try:
        folder = open_folder(given or from_hub(name, None, weights=False))
    except MissingError as error:
        raise MissingError(
            f"{path} holds weights alone and its description {name!r} is not found here; "
            "give a folder with it or connect"
        ) from error
    if (kind == "xl") != (folder.kind == "StableDiffusionXLPipeline"):
        raise InputError(f"{path} is no {folder.kind}, which {folder.path} describes; give its own description")
    return folder


def _schedule(source: str, scheduler: Any, prediction: str) -> Schedule:
    """The schedule of a diffusers scheduler, checked against its alphas."""
    kind = scheduler.config.get("prediction_type", "epsilon") if prediction == "auto" else prediction
    if kind not in ("epsilon", "v_prediction"):
        raise InputError(f"{source} predicts {kind!r}; a model of epsilon or v_prediction is needed")
    try:
        config = ScheduleConfig.from_dict({**scheduler.config, "prediction_type": kind})
        schedule = Schedule(config)
        alphas = torch.as_tensor(scheduler.alphas_cumprod).float().sqrt()
        same = torch.allclose(schedule.alpha(torch.arange(schedule.steps)), alphas, atol=1e-4)
    except FAILURES:
        same = False
    if not same:  # e.g. flow matching, or betas rescaled to a final signal of zero
        raise InputError(f"the noise schedule of {source} ({type(scheduler).__name__}) is not supported")
    return schedule


def _check_fit(
    source: str, unet: Any, vae: Any, tokenizers: tuple[Any, ...], encoders: tuple[Any, ...]
) -> None:
    """Refuses parts that do not belong together."""
    channels = unet.config.in_channels
    if not channels == unet.config.out_channels == vae.config.latent_channels:
        raise InputError(
            f"the unet of {source} takes {channels} channels and its vae makes {vae.config.latent_channels}; "
            "give a text-to-image model, not one for inpainting or editing"
        )
    for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
        if len(tokenizer) > encoder.config.vocab_size:
            raise InputError(f"the tokenizer of {source} knows more tokens than its text encoder")
    width = sum(encoder.config.hidden_size for encoder in encoders)
    if unet.config.cross_attention_dim not in (width, None):
        raise InputError(f"the unet of {source} does not fit its text encoder; give a complete pipeline")


def _image_size(source: str, networks: Mapping[str, Any], size: int | None) -> tuple[int, int]:
    """(width, height) in pixels: asked for, or what the U-Net was trained on."""
    factor = vae_factor(networks["vae"])
    if size is not None:
        if size < factor or size % factor:
            raise UsageError(f"the image size {size} must be a multiple of {factor}")
        return size, size
    latent = networks["unet"].config.sample_size
    if latent is None:
        raise InputError(f"{source} does not say its image size; give --size")
    height, width = latent if isinstance(latent, (list, tuple)) else (latent, latent)
    return width * factor, height * factor


def _place(networks: Mapping[str, Any], device: torch.device, loading: Loading) -> dict[str, Any]:
    """Moves networks to the device, or hangs hooks on them that do so while they compute."""
    for network in networks.values():
        network.eval().requires_grad_(False)
    for part in ("unet", "vae"):
        networks[part].to(memory_format=torch.channels_last)
    unet = networks["unet"]
    hooks: dict[str, Any] = {}
    if loading.offload:
        from accelerate import cpu_offload_with_hook

        hooks = {name: cpu_offload_with_hook(network, device)[1] for name, network in networks.items()}
    else:
        for network in networks.values():
            network.to(device)
    if loading.attention == "sliced":
        unet.set_attention_slice("auto")
        networks["vae"].enable_slicing()
        networks["vae"].enable_tiling()
    elif loading.attention == "xformers":
        unet.enable_xformers_memory_efficient_attention()
    return hooks


def _need_xformers(device: torch.device) -> None:
    try:
        import xformers  # noqa: F401
    except ImportError as error:
        raise MissingError("xformers is not installed; pip install xformers") from error
    if device.type != "cuda":
        raise UsageError(f"xformers needs a CUDA device, not {device.type}; leave out --attention")
