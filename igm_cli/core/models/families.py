"""Families of text-to-image models: how to recognise each one and how to call its network.

A family is recognised by its denoising network and its other parts, not by the class of its pipeline.  diffusers loads
the parts and encodes prompts (``encode_prompt``, with the defaults of the pipeline's own ``__call__``); this module decides
which of the encoded tensors the network receives, and in what shape.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from igm_cli.core.names import Classes

Prompts: TypeAlias = Mapping[str, Tensor]
"""P encoded prompts as arguments of a network, such as the sequence ``encoder_hidden_states`` that is attended to ``[P,L,E]``."""

Size: TypeAlias = tuple[int, int]
"""(width, height) of images in pixels."""

CLIP, CLIP_PROJECTED, T5, GEMMA = (
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "T5EncoderModel",
    "Gemma2Model",
)
TOKENIZERS: Mapping[str, tuple[frozenset[str], ...]] = {
    "CLIPTokenizer": (frozenset({"tokenizer.json"}), frozenset({"vocab.json", "merges.txt"})),
    "T5Tokenizer": (frozenset({"tokenizer.json"}), frozenset({"spiece.model"})),
    "GemmaTokenizer": (frozenset({"tokenizer.json"}), frozenset({"tokenizer.model"})),
}
"""The known tokenizers and their sets of files; one complete set is enough."""


@dataclass(frozen=True)
class Reader:
    """A text encoder of a family.

    Attributes:
        suffix: Ending of the names of its parts, after ``tokenizer`` and ``text_encoder``.
        encoder: Its class.
        optional: Whether pipelines of the family may lack it.
    """

    suffix: str
    encoder: str
    optional: bool = False

    @property
    def tokenizer(self) -> str:
        """The class of its tokenizer."""
        return {T5: "T5Tokenizer", GEMMA: "GemmaTokenizer"}.get(self.encoder, "CLIPTokenizer")


class Family:
    """Stable Diffusion 1 and 2, and the base class of all families.

    Attributes:
        title: Name of the family.
        pipelines: The classes of diffusers that load it; the first is used if a folder names another.
        part: The name of the denoising network, ``unet`` or ``transformer``.
        networks: The possible classes of that network.
        vae: The class of the autoencoder.
        readers: Its text encoders.
        encoded: What the pipeline's ``encode_prompt`` returns, by the names of the network's arguments; None for what it
            does not take.
        reads: Option of the network's configuration that states the width of the text encoders' sequence.
        half: Type it computes in on CUDA; large values of some families overflow in float16.
        guidance: Guidance that networks distilled from guided predictions take as an input, the default of the
            pipeline's own ``__call__``; None if networks have no such input.
        told: Inputs besides the prompt that U-Nets receive, as their configuration names them.
        classes: Whether labels are class names rather than prompts.
    """

    title: ClassVar[str] = "Stable Diffusion 1 or 2"
    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline",)
    part: ClassVar[str] = "unet"
    networks: ClassVar[tuple[str, ...]] = ("UNet2DConditionModel",)
    vae: ClassVar[str] = "AutoencoderKL"
    readers: ClassVar[tuple[Reader, ...]] = (Reader("", CLIP),)
    encoded: ClassVar[tuple[str | None, ...]] = ("encoder_hidden_states",)
    reads: ClassVar[str] = "cross_attention_dim"
    half: ClassVar[torch.dtype] = torch.float16
    guidance: ClassVar[float | None] = None
    told: ClassVar[tuple[str, ...]] = ()
    classes: ClassVar[bool] = False

    # Parts ----------------------------------------------------------------------------------------

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The parts of its pipelines and their possible classes; the scheduler may be of any class."""
        texts: dict[str, tuple[str, ...]] = {}
        for reader in self.readers:
            texts |= {
                f"text_encoder{reader.suffix}": (reader.encoder,),
                f"tokenizer{reader.suffix}": (reader.tokenizer,),
            }
        return {self.part: self.networks, "vae": (self.vae,), **texts, "scheduler": ()}

    @property
    def optional(self) -> frozenset[str]:
        """The parts that a pipeline may lack."""
        return frozenset(
            f"{part}{reader.suffix}"
            for reader in self.readers
            if reader.optional
            for part in ("text_encoder", "tokenizer")
        )

    def network(self, pipe: Any) -> Any:
        """Returns the denoising network of a pipeline."""
        return getattr(pipe, self.part)

    def encoders(self, pipe: Any) -> Iterator[tuple[Reader, Any, Any]]:
        """Yields the text encoders that a pipeline has, each with its tokenizer: (reader, tokenizer, encoder)."""
        for reader in self.readers:
            tokenizer, encoder = (
                getattr(pipe, f"{part}{reader.suffix}", None) for part in ("tokenizer", "text_encoder")
            )
            if tokenizer is not None and encoder is not None:
                yield reader, tokenizer, encoder

    # Shapes ---------------------------------------------------------------------------------------

    def factor(self, pipe: Any) -> int:
        """Returns the autoencoder's downsampling factor per side."""
        config = pipe.vae.config
        levels = getattr(config, "block_out_channels", None) or config.encoder_block_out_channels
        return int(2 ** (len(levels) - 1))

    def patch(self, pipe: Any) -> int:
        """Returns the side of a token in the latent; the sides of latents are multiples of it."""
        return int(getattr(self.network(pipe).config, "patch_size", None) or 1)

    def channels(self, pipe: Any) -> tuple[int, int]:
        """Returns the network's input and output channels."""
        config = self.network(pipe).config
        return int(config.in_channels), int(config.out_channels or config.in_channels)

    def width(self, pipe: Any) -> float:
        """Returns the channels of a hidden state per latent pixel, from which memory is estimated."""
        config = self.network(pipe).config
        if hasattr(config, "block_out_channels"):
            return float(config.block_out_channels[0])
        return float(config.num_attention_heads * config.attention_head_dim) / self.patch(pipe) ** 2

    def latent_side(self, pipe: Any) -> Any:
        """Returns the side of the latents the network was trained on, or (height, width); None if not stated."""
        return self.network(pipe).config.sample_size

    # Checks ---------------------------------------------------------------------------------------

    def widths(self, pipe: Any) -> list[tuple[str, int, int]]:
        """Returns (part, makes, reads) where a text encoder's width and the one the network reads must be equal."""
        made = sum(encoder.config.hidden_size for _, _, encoder in self.encoders(pipe))
        reads = getattr(self.network(pipe).config, self.reads, None)
        return [("text_encoder", made, made if reads is None else reads)]

    def wants(self, pipe: Any) -> str | None:
        """Returns the name of an input that the network needs and labels do not give; None if there is none."""
        config = pipe.unet.config
        for option in ("addition_embed_type", "encoder_hid_dim_type", "class_embed_type", "time_cond_proj_dim"):
            if (value := getattr(config, option, None)) is not None and value not in self.told:
                return option
        return None

    # Calls ----------------------------------------------------------------------------------------

    def window(self, pipe: Any, reader: Reader, tokenizer: Any) -> int:
        """Returns how many tokens of a prompt the model reads."""
        return int(tokenizer.model_max_length)

    def encode(self, pipe: Any, texts: list[str], device: torch.device, **more: Any) -> dict[str, Tensor]:
        """Returns P prompts as arguments of the network ``[P,...]``; ``more`` are further ones of ``encode_prompt``."""
        how = {
            "prompt_2": None,
            "prompt_3": None,
            "num_images_per_prompt": 1,
            "do_classifier_free_guidance": False,
        }
        takes = inspect.signature(pipe.encode_prompt).parameters
        if "max_sequence_length" in takes:
            how["max_sequence_length"] = default(pipe, "max_sequence_length")
        how = {name: value for name, value in how.items() if name in takes}
        encoded = pipe.encode_prompt(texts, device=device, **how, **more)
        return {name: each for name, each in zip(self.encoded, encoded, strict=False) if name}

    def output(self, pipe: Any, x_t: Tensor, time: Tensor, given: Prompts, size: Size) -> Tensor:
        """Returns the network's output ``[R,C,h,w]``, of its schedule's prediction type; a variance is dropped.

        Args:
            pipe: The pipeline.
            x_t: Noised latents ``[R,C,h,w]`` of the network's type.
            time: Noise levels as diffusers' networks take them ``[R]``.
            given: Output of :meth:`encode`, one row per latent.
            size: Of the images.
        """
        inputs = self.inputs(pipe, x_t, time, given, size)
        output: Tensor = self.network(pipe)(x_t, **inputs, return_dict=False)[0]
        return output[:, : x_t.shape[1]]

    def inputs(self, pipe: Any, x_t: Tensor, time: Tensor, given: Prompts, size: Size) -> dict[str, Any]:
        """Returns the network's arguments besides the latents; takes those of :meth:`output`."""
        return {"timestep": time, **given}


class StableDiffusionXL(Family):
    """Stable Diffusion XL: two encoders, a pooled vector, and the size of the images."""

    title = "Stable Diffusion XL"
    pipelines = ("StableDiffusionXLPipeline",)
    readers = (Reader("", CLIP), Reader("_2", CLIP_PROJECTED))
    encoded = ("encoder_hidden_states", None, "text_embeds")
    told = ("text_time",)

    def wants(self, pipe: Any) -> str | None:
        """As for Stable Diffusion 1 and 2, except that the network must take the image size."""
        if pipe.unet.config.addition_embed_type != "text_time":
            return "addition_embed_type"
        return super().wants(pipe)

    def encode(self, pipe: Any, texts: list[str], device: torch.device, **more: Any) -> dict[str, Tensor]:
        """Returns sequence and pooled vectors; the empty prompt is zeros if the model was trained that way."""
        given = super().encode(pipe, texts, device, **more)
        if pipe.config.force_zeros_for_empty_prompt:
            said = torch.tensor([text != "" for text in texts], device=device)
            given = {name: torch.where(said.view(-1, *[1] * (c.dim() - 1)), c, 0) for name, c in given.items()}
        return given

    def inputs(self, pipe: Any, x_t: Tensor, time: Tensor, given: Prompts, size: Size) -> dict[str, Any]:
        """Adds the image size and no cropping."""
        (width, height), given = size, dict(given)
        ids = torch.tensor([[height, width, 0, 0, height, width]], device=x_t.device, dtype=x_t.dtype)
        told = {"text_embeds": given.pop("text_embeds"), "time_ids": ids.expand(len(x_t), -1)}
        return {"timestep": time, **given, "added_cond_kwargs": told}


class Transformer(Family):
    """Base class of families with a transformer: no input but prompts, whose length the pipeline's ``__call__`` limits."""

    part = "transformer"

    def wants(self, pipe: Any) -> str | None:
        """Returns None."""
        return None

    def window(self, pipe: Any, reader: Reader, tokenizer: Any) -> int:
        """Returns CLIP's own window; for T5 and Gemma, at most the pipeline's default."""
        own = int(tokenizer.model_max_length)
        return own if reader.encoder.startswith("CLIP") else min(own, default(pipe, "max_sequence_length"))


class StableDiffusion3(Transformer):
    """Stable Diffusion 3 and 3.5: a flow; three encoders, of which the T5 may be missing."""

    title = "Stable Diffusion 3"
    pipelines = ("StableDiffusion3Pipeline",)
    networks = ("SD3Transformer2DModel",)
    readers = (Reader("", CLIP_PROJECTED), Reader("_2", CLIP_PROJECTED), Reader("_3", T5, optional=True))
    encoded = ("encoder_hidden_states", None, "pooled_projections")

    def widths(self, pipe: Any) -> list[tuple[str, int, int]]:
        """Returns the widths of both CLIPs' pooled vectors and of the T5; CLIP's sequences are padded to fit."""
        config, (one, two) = pipe.transformer.config, (pipe.text_encoder.config, pipe.text_encoder_2.config)
        found = [("text_encoder", one.projection_dim + two.projection_dim, config.pooled_projection_dim)]
        if pipe.text_encoder_3 is not None:
            found.append(("text_encoder_3", pipe.text_encoder_3.config.d_model, config.joint_attention_dim))
        return found


class Flux(Transformer):
    """Flux.1: a flow of latents packed 2 x 2; distilled networks take a guidance, which is fixed."""

    title = "Flux"
    pipelines = ("FluxPipeline",)
    networks = ("FluxTransformer2DModel",)
    readers = (Reader("", CLIP), Reader("_2", T5))
    encoded = ("encoder_hidden_states", "pooled_projections")  # and text ids, which are zeros
    half = torch.bfloat16
    guidance = 3.5

    def patch(self, pipe: Any) -> int:
        """Returns 2: latents are packed."""
        return 2

    def channels(self, pipe: Any) -> tuple[int, int]:
        """Returns the channels of unpacked latents."""
        takes, makes = super().channels(pipe)
        return takes // 4, makes // 4

    def latent_side(self, pipe: Any) -> Any:
        """Returns the pipeline's default, since the network does not say."""
        return pipe.default_sample_size

    def widths(self, pipe: Any) -> list[tuple[str, int, int]]:
        """Returns the widths of CLIP's pooled vector and of the T5."""
        config, clip, t5 = pipe.transformer.config, pipe.text_encoder.config, pipe.text_encoder_2.config
        return [
            ("text_encoder", clip.hidden_size, config.pooled_projection_dim),
            ("text_encoder_2", t5.d_model, config.joint_attention_dim),
        ]

    def output(self, pipe: Any, x_t: Tensor, time: Tensor, given: Prompts, size: Size) -> Tensor:
        """Packs the latents and unpacks the output."""
        h, w = (side // 2 for side in x_t.shape[-2:])
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        places = torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1).to(x_t)  # [h*w,3]
        network, tokens = pipe.transformer, given["encoder_hidden_states"].shape[1]
        guidance = None
        if network.config.guidance_embeds:
            guidance = torch.full((len(x_t),), float(self.guidance or 0), device=x_t.device)
        output: Tensor = network(
            F.pixel_unshuffle(x_t, 2).flatten(2).mT,
            timestep=time.to(x_t.dtype) / 1000,
            guidance=guidance,
            txt_ids=torch.zeros(tokens, 3).to(x_t),
            img_ids=places,
            **given,
            return_dict=False,
        )[0]
        return F.pixel_shuffle(output.mT.unflatten(2, (h, w)), 2)


class PixArt(Transformer):
    """PixArt-alpha and -Sigma: T5 with a mask; the variance half of the output is dropped.

    Prompts are not cleaned, which needs another library.
    """

    title = "PixArt"
    pipelines = ("PixArtSigmaPipeline", "PixArtAlphaPipeline")
    networks = ("PixArtTransformer2DModel", "Transformer2DModel")
    readers = (Reader("", T5),)
    encoded = ("encoder_hidden_states", "encoder_attention_mask")
    reads = "caption_channels"

    def inputs(self, pipe: Any, x_t: Tensor, time: Tensor, given: Prompts, size: Size) -> dict[str, Any]:
        """Adds the image size and aspect ratio for networks for 1024 pixels."""
        width, height = size
        told: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if pipe.transformer.use_additional_conditions:
            sides, ratio = torch.tensor([[height, width]]), torch.tensor([[height / width]])
            told = {
                "resolution": sides.to(x_t).expand(len(x_t), -1),
                "aspect_ratio": ratio.to(x_t).expand(len(x_t), -1),
            }
        return {"timestep": time, **given, "added_cond_kwargs": told}


class Sana(Transformer):
    """Sana: a flow; Gemma 2, which reads prompts after an instruction, and a deep autoencoder."""

    title = "Sana"
    pipelines = ("SanaPipeline",)
    networks = ("SanaTransformer2DModel",)
    vae = "AutoencoderDC"
    readers = (Reader("", GEMMA),)
    encoded = ("encoder_hidden_states", "encoder_attention_mask")
    reads = "caption_channels"
    half = torch.bfloat16

    def wants(self, pipe: Any) -> str | None:
        """Returns the guidance input of networks distilled into few steps, which also have another schedule."""
        return "guidance_embeds" if pipe.transformer.config.guidance_embeds else None

    def window(self, pipe: Any, reader: Reader, tokenizer: Any) -> int:
        """Returns one token less: removing the instruction cuts off the end of the prompt."""
        return super().window(pipe, reader, tokenizer) - 1

    def encode(self, pipe: Any, texts: list[str], device: torch.device, **more: Any) -> dict[str, Tensor]:
        """Returns the sequence and its mask; the empty prompt comes without the instruction, as in the pipeline."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for instruction in (default(pipe, "complex_human_instruction"), None):
            wanted = [text for text in texts if (text == "") == (instruction is None)]
            if wanted:
                given = super().encode(pipe, wanted, device, complex_human_instruction=instruction)
                found.update(zip(wanted, zip(*given.values(), strict=True), strict=True))
        sequences, masks = zip(*(found[text] for text in texts), strict=True)
        return {"encoder_hidden_states": torch.stack(sequences), "encoder_attention_mask": torch.stack(masks)}

    def inputs(self, pipe: Any, x_t: Tensor, time: Tensor, given: Prompts, size: Size) -> dict[str, Any]:
        """Scales the time as the network wants it."""
        return {"timestep": time * pipe.transformer.config.timestep_scale, **given}


class DiT(Transformer):
    """DiT: a class instead of a prompt; the empty prompt is the class for "none"."""

    title = "DiT"
    pipelines = ("DiTPipeline",)
    networks = ("DiTTransformer2DModel", "Transformer2DModel")
    readers = ()
    classes = True

    def encode(self, pipe: Any, texts: list[str], device: torch.device, **more: Any) -> dict[str, Tensor]:
        """Returns the class numbers."""
        known, none = Classes(pipe.config.id2label), pipe.transformer.config.num_embeds_ada_norm
        return {
            "class_labels": torch.tensor(
                [known.number(text) if text else none for text in texts], device=device
            )
        }


ONE_OR_TWO: Family = Family()
XL: Family = StableDiffusionXL()
PIPELINES: Sequence[Family] = (ONE_OR_TWO, XL, StableDiffusion3(), Flux(), PixArt(), Sana(), DiT())
"""All families that can be loaded."""

TITLES = ", ".join(family.title for family in PIPELINES[:-1]) + f" or {PIPELINES[-1].title}"


def default(pipe: Any, option: str) -> Any:
    """Returns the default of an option of a pipeline's own ``__call__``."""
    return inspect.signature(type(pipe).__call__).parameters[option].default
