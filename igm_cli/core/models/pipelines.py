"""Loading pretrained text-to-image pipelines of the families that :mod:`igm_cli.core.models.families` knows.

diffusers loads them, from a folder in its layout, one .safetensors file in the original layout (Stable Diffusion 1.x, 2.x and
XL), or the hub.  This module refuses, in one sentence, what diffusers would accept: missing weights (it initialises them at
random), parts that do not belong together, a noise schedule other than ours.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from igm_cli.core.device import has_bf16
from igm_cli.core.files import home_expanded
from igm_cli.core.models.families import Family
from igm_cli.core.models.network_weights import QUANTIZERS, of_file, quantization, unpacked
from igm_cli.core.models.pipeline_files import (
    UNUSED,
    find_pipeline,
    in_few_bits,
    quiet,
    read_index,
    refusing,
    weight_files,
)
from igm_cli.core.models.single_file import UNET, VAE, SingleFile, describe, unused
from igm_cli.core.noise_schedule import FLOW, Schedule, ScheduleConfig
from igm_cli.core.weights import is_packed
from igm_cli.errors import InputError, MissingError, UsageError, counted, need, some

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CHOICES = {
    "dtype": ("auto", *DTYPES),
    "attention": ("auto", "sliced", "xformers"),
    "quantize": ("no", "int8", "nf4"),
    "prediction": ("auto", "epsilon", "v_prediction"),
}

LARGEST = 8
"""Largest size of images, over the one that the network was trained on."""

FEW_BITS_ON = ("cuda",)
"""Devices on which diffusers computes with weights that bitsandbytes quantized."""


@dataclass(frozen=True)
class Loading:
    """How a pipeline is loaded.

    Attributes:
        variant: Variant of the weights, e.g. ``fp16``.
        dtype: ``auto`` (by device), ``float32``, ``float16`` or ``bfloat16``; the autoencoder is always float32.
        attention: ``auto``, ``sliced`` (less memory, slower) or ``xformers``.
        quantize: Keep the weights of the denoising network's linear layers in 8 bits (``int8``, by torchao) or in 4 (``nf4``, by
            bitsandbytes, on a CUDA device); ``no`` keeps them as they are.
        network: File with the weights of the denoising network, instead of the folder's own: .gguf or .safetensors.
        offload: Keep only the part that computes on the CUDA device.
        compile: Whether torch.compile compiles the network at its first call: minutes, for faster calls after that.
        size: Side of the images in pixels; by default what the model was trained on.
        config: Folder or hf:owner/name with the description of a single file, instead of the official one.
        prediction: The U-Net's prediction type, if the scheduler's configuration has it wrong, as for
            single files of Stable Diffusion 2 base: ``auto``, ``epsilon`` or ``v_prediction``; not for a flow.
    """

    variant: str | None = None
    dtype: str = "auto"
    attention: str = "auto"
    quantize: str = "no"
    network: str | None = None
    offload: bool = False
    compile: bool = False
    size: int | None = None
    config: str | None = None
    prediction: str = "auto"

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise UsageError(f"unknown {name} {getattr(self, name)!r}; choose {', '.join(known)}")
        if self.network and self.quantize != "no":
            raise UsageError("the weights of --network stay as the file has them; leave out --quantize")

    @property
    def network_file(self) -> Path | None:
        """The file of the network's weights."""
        return home_expanded(self.network) if self.network else None


@dataclass(frozen=True)
class TextToImageParts:
    """A pipeline on its device, frozen and in evaluation mode.

    Attributes:
        pipe: diffusers' pipeline; its autoencoder is float32: it runs once per image, and some overflow in float16.
        family: Its family.
        schedule: The noise schedule the network was trained on.
        image_size: (width, height) in pixels.
        device: Where it computes.
        dtype: Type that the network and the text encoders compute in.
    """

    pipe: Any
    family: Family
    schedule: Schedule
    image_size: tuple[int, int]
    device: torch.device
    dtype: torch.dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of a latent."""
        width, height = self.image_size
        factor = self.family.factor(self.pipe)
        return self.family.channels(self.pipe)[0], height // factor, width // factor

    @property
    def network(self) -> Any:
        """The denoising network."""
        return self.family.network(self.pipe)


def load_pipeline(source: str, device: torch.device, loading: Loading | None = None) -> TextToImageParts:
    """Returns a pretrained pipeline on a device; ``source`` is what :func:`find_pipeline` takes.

    Raises:
        MissingError: If it is not on this machine and cannot be fetched.
        InputError: If it is not a complete pipeline of a known kind.
        UsageError: If the device cannot do what is asked for.
    """
    loading = loading or Loading()
    _check_device(device, loading)
    path = find_pipeline(source, loading.variant)
    if path.is_file() and (loading.quantize != "no" or loading.network):
        option = "--network" if loading.network else "--quantize"
        raise UsageError(
            f"the network of a single file is its own; leave out {option}, or give a folder, not {source}"
        )
    if loading.config and not path.is_file():
        raise UsageError(
            f"a config describes a single file, and {source} is a folder that has its own; leave it out"
        )
    with quiet():
        says = describe(path) if path.is_file() else None
        family = says.family if says else _checked(source, path, device, loading)
        dtype = resolve_dtype(loading.dtype, device, family.half)
        pipe = _from_file(path, says, loading, dtype) if says else _from_folder(path, loading, dtype)
        _check_fit(source, pipe, family)
        size = _image_size(source, pipe, family, loading.size or (says.size if says else None))
        asked = loading.prediction
        prediction = (says and says.prediction) or asked if asked == "auto" else asked
        places = math.prod(side // family.factor(pipe) // family.patch(pipe) for side in size)
        schedule = _schedule(source, pipe.scheduler, prediction, places)
        _place(pipe, family, device, loading)
    return TextToImageParts(pipe, family, schedule, size, device, dtype)


def _checked(source: str, path: Path, device: torch.device, loading: Loading) -> Family:
    """Returns the family of a folder's pipeline; refuses quantized parts that the device cannot compute."""
    index = read_index(path)
    for part in index.parts:
        network = part == index.family.part
        if not in_few_bits(path / part) or (network and loading.network):
            continue
        if network and loading.quantize != "no":
            raise UsageError(f"the {part} of {source} is kept in few bits already; leave out --quantize")
        if device.type not in FEW_BITS_ON:
            raise UsageError(
                f"the {part} of {source} is kept in few bits by bitsandbytes, which needs a CUDA device, not {device.type}; "
                "give the full weights, or a GGUF file by --network"
            )
        need("quantize", "bitsandbytes")
    return index.family


def _check_device(device: torch.device, loading: Loading) -> None:
    if loading.offload and device.type != "cuda":
        raise UsageError(f"offloading needs a CUDA device, not {device.type}; leave out --offload")
    if loading.quantize == "nf4" and device.type not in FEW_BITS_ON:
        raise UsageError(f"4 bits need a CUDA device, not {device.type}; use --quantize int8")
    if loading.quantize != "no":
        need("quantize", QUANTIZERS[loading.quantize])
    if loading.attention == "xformers":
        need("xformers")
        if device.type != "cuda":
            raise UsageError(f"xformers needs a CUDA device, not {device.type}; leave out --attention")


def resolve_dtype(name: str, device: torch.device, half: torch.dtype = torch.float16) -> torch.dtype:
    """Returns the type to compute in: ``half`` on CUDA, bfloat16 on CPUs with hardware for it, else float32."""
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return half
    return torch.bfloat16 if device.type == "cpu" and has_bf16(device) else torch.float32


def _from_folder(path: Path, loading: Loading, dtype: torch.dtype) -> Any:
    """Returns the pipeline of a folder in diffusers' layout, on the CPU."""
    import diffusers
    import transformers

    index = read_index(path)
    weights = weight_files(path, loading.variant, network=loading.network_file is None)
    parts: dict[str, Any] = dict.fromkeys(index.family.optional)
    for part, name in index.parts.items():
        library = transformers if part.startswith(("text_encoder", "tokenizer")) else diffusers
        if part == "scheduler" and not (name.endswith("Scheduler") and hasattr(diffusers, name)):
            raise InputError(f"the scheduler of {path} is an unknown {name}")
        with refusing(f"the {part} of {path} cannot be {'used' if part == 'scheduler' else 'loaded'}"):
            if part.startswith("tokenizer") and not _has_tokens(path / part):
                need("sentencepiece")
            load = functools.partial(getattr(library, name).from_pretrained, path / part, local_files_only=True)
            if part == index.family.part and (file := loading.network_file):
                parts[part] = of_file(getattr(library, name), path / part, file, dtype)
                continue
            if part not in weights:
                parts[part] = load()
                continue
            of_part = torch.float32 if part == "vae" else dtype
            few_bits = {}
            if part == index.family.part and loading.quantize != "no":
                few_bits = {"quantization_config": quantization(loading.quantize, dtype)}
            packed = [is_packed(file) for file in weights[part][1]]  # which refuses damaged ones
            if any(packed) and library is diffusers:
                if few_bits:
                    raise UsageError(f"the {part} of {path} is in 8 bits already; leave out --quantize")
                parts[part] = unpacked(getattr(library, name), path / part, weights[part][1]).to(of_part)
                continue
            parts[part], report = load(
                variant=weights[part][0],
                torch_dtype=of_part,
                use_safetensors=True,
                output_loading_info=True,
                **few_bits,
            )
        if report["missing_keys"]:
            raise InputError(f"the {part} of {path} lacks weights: {min(report['missing_keys'])}")
        if left := [name for name in sorted(report["unexpected_keys"]) if not name.endswith("position_ids")]:
            raise InputError(
                f"the {part} of {path} has weights that its config.json has no place for ({some(left)}); give weights and "
                "config.json of one model"
            )
    with refusing(f"{path} cannot be loaded"):
        pipe = getattr(diffusers, index.kind).from_pretrained(path, **parts, **UNUSED, local_files_only=True)
        if index.classes:
            pipe.register_to_config(id2label=index.classes.names)
        return pipe


def _has_tokens(part: Path) -> bool:
    """Returns whether a tokenizer can be read without the SentencePiece library."""
    return (part / "tokenizer.json").is_file() or not any(part.glob("*.model"))


def _from_file(path: Path, says: SingleFile, loading: Loading, dtype: torch.dtype) -> Any:
    """Returns the pipeline of one file in the original layout, on the CPU; it needs a folder that describes its parts."""
    import diffusers

    kind = says.family.pipelines[0]
    name = loading.config or says.official
    try:
        folder = find_pipeline(name, weights=False)
    except MissingError as error:
        raise MissingError(
            f"{path} holds weights alone and its description {name!r} is not found here; "
            f"give a folder with it by --config, or --config hf:{name.removeprefix('hf:')}"
        ) from error
    if (other := read_index(folder).kind) != kind:
        raise InputError(f"{path} is not a {other}, which {folder} describes; give its own description")
    options: dict[str, Any] = {"config": str(folder), "local_files_only": True}
    with refusing(f"{path} cannot be loaded"):
        pipe = getattr(diffusers, kind).from_single_file(str(path), torch_dtype=dtype, **options, **UNUSED)
        if dtype != torch.float32:
            options |= {"subfolder": "vae", "torch_dtype": torch.float32}
            pipe.register_modules(vae=diffusers.AutoencoderKL.from_single_file(str(path), **options))
    for part, network in _networks(pipe).items():
        if absent := [name for name, weight in network.named_parameters() if weight.is_meta]:
            raise InputError(f"the {part} of {path} lacks weights: {min(absent)}")
    if left := unused(path, {UNET: pipe.unet, VAE: pipe.vae}):
        raise InputError(
            f"{path} has weights that {folder} has no place for ({some(left)}); give its own description by --config"
        )
    return pipe


def _check_fit(source: str, pipe: Any, family: Family) -> None:
    """Refuses parts that do not belong together, and limits tokenizers to what the text encoders read."""
    (takes, makes), latents = family.channels(pipe), int(pipe.vae.config.latent_channels)
    if takes != latents or makes not in (takes, 2 * takes):  # twice as many: a variance as well
        raise InputError(
            f"the {family.part} of {source} takes {counted(takes, 'channel')}, makes {makes}, and its vae has {latents}; "
            "give a text-to-image model, not one for inpainting or editing"
        )
    for reader, tokenizer, encoder in family.encoders(pipe):
        if len(tokenizer) > encoder.config.vocab_size:
            raise InputError(
                f"the tokenizer{reader.suffix} of {source} knows more tokens than its text encoder; give the parts of one model"
            )
        limit = getattr(encoder.config, "max_position_embeddings", None)  # a T5 has none
        tokenizer.model_max_length = min(tokenizer.model_max_length, limit or tokenizer.model_max_length)
    for part, width, reads in family.widths(pipe):
        if width != reads:
            raise InputError(
                f"the {family.part} of {source} does not fit its text encoder: it reads vectors of {reads} numbers and the "
                f"{part} makes {width}; give a complete pipeline"
            )
    if wants := family.wants(pipe):
        raise InputError(
            f"the {family.part} of {source} needs more than a prompt ({wants}); give a text-to-image model that does not"
        )


def _image_size(source: str, pipe: Any, family: Family, size: int | None) -> tuple[int, int]:
    """Returns (width, height) in pixels: the size asked for, or the one the network was trained on."""
    factor, latent = family.factor(pipe), family.latent_side(pipe)
    step = factor * family.patch(pipe)
    if size is not None and (size < step or size % step):
        raise UsageError(f"the image size {size} must be a multiple of {step}")
    if latent is None:
        if size is None:
            raise InputError(f"{source} does not say its image size; give --size")
        return size, size
    height, width = latent if isinstance(latent, (list, tuple)) else (latent, latent)
    width, height = width * factor, height * factor
    if size is not None and size > LARGEST * max(width, height):
        raise UsageError(
            f"the image size {size} is more than {LARGEST} times that of {source}, {width}×{height}; lower it"
        )
    return (width, height) if size is None else (size, size)


def _schedule(source: str, scheduler: Any, prediction: str, places: int) -> Schedule:
    """Returns the schedule of a diffusers scheduler, checked against its own arithmetic.

    Args:
        source: The pipeline.
        scheduler: Its scheduler.
        prediction: Its network's prediction type, if the scheduler has it wrong, or ``auto``.
        places: Tokens of an image; the shift of some flows depends on it.
    """
    name, config = type(scheduler).__name__, dict(scheduler.config)
    said = config.get("prediction_type")
    message = f"the noise schedule of {source} ({name}) is not supported"
    if name.startswith("FlowMatch") or said == FLOW:
        if prediction != "auto":
            raise InputError(f"{source} is a flow, whose network puts out a velocity; leave out --prediction")
        if said not in (None, FLOW) or config.get("invert_sigmas"):
            raise InputError(message)
        with refusing(message):
            return _flow(message, scheduler, name, config, places)
    kind = (said or "epsilon") if prediction == "auto" else prediction
    if kind not in ("epsilon", "v_prediction"):
        raise InputError(
            f"{source} predicts {kind!r}; a model of epsilon, v_prediction or flow_prediction is needed"
        )
    with refusing(message):
        schedule = Schedule(ScheduleConfig.from_dict({**config, "prediction_type": kind}))
        alphas = torch.as_tensor(scheduler.alphas_cumprod).float().sqrt()
        same = torch.allclose(schedule.alpha(torch.arange(schedule.steps)), alphas, atol=1e-4)
    if not same:  # e.g. betas rescaled to a final signal of zero
        raise InputError(message)
    return schedule


def _flow(message: str, scheduler: Any, name: str, config: dict[str, Any], places: int) -> Schedule:
    """Returns the schedule of a flow; a shift that depends on the image size is that of this size."""
    if config.get("use_dynamic_shifting"):
        least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)  # as pipelines have them
        mu = low + (high - low) * (places - least) / (most - least)
        shift = math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu
        config |= {"shift": shift, "flow_shift": shift}
    schedule = Schedule(ScheduleConfig.from_dict({**config, "_class_name": name, "prediction_type": FLOW}))
    if not name.startswith("FlowMatch"):
        return schedule
    even = (torch.arange(schedule.steps) + 0.5) / schedule.steps
    if config.get("use_dynamic_shifting"):
        sigmas = scheduler.time_shift(mu, 1.0, even)
    else:
        scheduler.set_timesteps(sigmas=even.tolist())
        sigmas = scheduler.sigmas[:-1]
    if not torch.allclose(schedule.sigma(torch.arange(schedule.steps)), sigmas.float(), atol=1e-4):
        raise InputError(message)
    return schedule


def _networks(pipe: Any) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def _place(pipe: Any, family: Family, device: torch.device, loading: Loading) -> None:
    """Freezes a pipeline and moves it to the device, or sets it to offload; text encoders move only while they encode."""
    for network in _networks(pipe).values():
        network.eval().requires_grad_(False)
    for network in (family.network(pipe), pipe.vae):
        if getattr(network, "hf_quantizer", None) is None:
            network.to(memory_format=torch.channels_last)
    if loading.offload:
        pipe.enable_model_cpu_offload(device=device)
    else:
        for name, network in _networks(pipe).items():
            if not name.startswith("text_encoder"):
                network.to(device)
    if loading.compile:
        family.network(pipe).compile(dynamic=False)
    if loading.attention == "sliced":
        pipe.enable_attention_slicing("auto")
        pipe.vae.enable_slicing()
        pipe.vae.enable_tiling()
    elif loading.attention == "xformers":
        pipe.enable_xformers_memory_efficient_attention()
