"""A trainable latent text-to-image model with the parts of a Stable Diffusion pipeline (Rombach et al. 2022).

It is saved as a ``StableDiffusionPipeline`` folder and then loaded like any other.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from igm_cli.core.concepts import ConceptSpace, Text
from igm_cli.core.device import to_device
from igm_cli.core.files import CONFIG, PIPELINE, read_json, temporary_beside
from igm_cli.core.models.pipeline_files import first_line, quiet
from igm_cli.core.models.prompts import word_tokenizer, words_of
from igm_cli.core.noise_schedule import Schedule
from igm_cli.core.validation import Channels, Depth, Size, Width, validated
from igm_cli.core.weights import read_weights, require_finite
from igm_cli.errors import InputError, MissingError, need

PARTS = ("vae", "text_encoder", "unet")
"""The networks of the pipeline."""

COSINE_SCALE = 8.0
"""Logit of an image and a prompt with the same direction."""


@validated("model option")
class LatentConfig:
    """Shape of the networks.

    Attributes:
        image_size: (width, height) in pixels, equal; every level but the last of both networks halves them.
        autoencoder_channels: Channels of the autoencoder's levels; each but the last halves the sides.
        latent_channels: Channels of a latent.
        channels: Channels of the U-Net's levels; all but the first attend to the prompt.
        layers: Residual blocks per level.
        head_dim: Channels of an attention head.
        groups: Groups of the normalisation.
        text_dim: Width of the text encoder.
        text_layers: Layers of the text encoder.
        tokens: Tokens of a prompt.
    """

    image_size: Size = (64, 64)
    autoencoder_channels: Channels = (32, 64, 96)
    latent_channels: Width = 8
    channels: Channels = (64, 128, 160)
    layers: Depth = 1
    head_dim: Width = 32
    groups: Width = 16
    text_dim: Width = 128
    text_layers: Depth = 2
    tokens: Annotated[int, Field(ge=2, le=512)] = 16

    def __post_init__(self) -> None:
        step = 2 ** (len(self.autoencoder_channels) + len(self.channels) - 2)
        if len(set(self.image_size)) != 1 or self.image_size[0] % step:
            raise ValueError(f"images of {self.image_size} must be square, their sides divisible by {step}")
        if len(self.channels) < 2:
            raise ValueError("the U-Net needs two levels or more")
        if any(c % self.groups for c in (*self.channels, *self.autoencoder_channels)):
            raise ValueError(f"channels must be divisible by groups, {self.groups}")
        if any(c % self.head_dim for c in (*self.channels[1:], self.text_dim)):
            raise ValueError(f"channels of levels that attend must be divisible by head_dim, {self.head_dim}")


class LatentTextToImage(nn.Module):
    """Autoencoder, text encoder and U-Net; the tokenizer knows the words of the labels and templates.

    The noise schedule is that of the latents, and the U-Net puts out its prediction type.

    Raises:
        ValueError: If concepts are no labels.
    """

    scale: Tensor

    def __init__(self, config: LatentConfig, space: ConceptSpace, schedule: Schedule) -> None:
        super().__init__()
        if not isinstance(space, Text):
            raise ValueError("its concepts are labels; choose a concept parser of labels")
        self.config, self.space, self.schedule = config, space, schedule
        networks = _networks(config, len(self.tokenizer))
        self.vae, self.text_encoder, self.unet = (networks[part] for part in PARTS)
        self.reader = LabelHead(config, len(space.labels))
        self.register_buffer("scale", torch.ones(()))
        """Factor that gives latents unit variance (``scaling_factor``)."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the labels, of the templates, and of lists."""
        return words_of([*self.space.labels, *self.space.templates, ", and"])

    @property
    def asked(self) -> Text:
        """The labels as inversion uses them, in the first template only: each further one would cost a call per label."""
        return Text(self.space.labels, self.space.templates[:1], self.space.nothing)

    @property
    def tokenizer(self) -> Any:
        """A tokenizer that knows the words."""
        return word_tokenizer(self.words, self.config.tokens)

    def encode(self, images: Tensor) -> Tensor:
        """Returns scaled latents ``[B,C,h,w]`` of images ``[B,3,H,W]`` in -1..1: the posterior's mean."""
        latents: Tensor = self.vae.encode(images).latent_dist.mode()
        return latents.float() * self.scale

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Returns embeddings of prompts ``[R,tokens,text_dim]``."""
        length = self.config.tokens
        ids = self.tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True).input_ids
        embedded: Tensor = self.text_encoder(to_device(torch.tensor(ids), self.scale.device)).last_hidden_state
        return embedded

    def forward(
        self, x_t: Tensor, t: Tensor, embeddings: Tensor, whole: bool = True
    ) -> tuple[Tensor | None, Tensor]:
        """Returns eps under every prompt, and the features in the middle of the U-Net.

        Args:
            x_t: Noised latents ``[B,C,h,w]``.
            t: Timesteps ``[B]``.
            embeddings: R prompts per latent ``[B,R,tokens,text_dim]``.
            whole: False skips the U-Net's second half; eps is then None.

        Returns:
            eps ``[B,R,C,h,w]`` float32, and the output of the U-Net's middle block, ``[B*R,channels,h,w]``.
        """
        noticed, passed, time = self._first_half(x_t, t, embeddings)
        if not whole:
            return None, noticed
        hidden, unet = noticed, self.unet
        for block in unet.up_blocks:
            among = len(passed) - len(block.resnets)
            passed, skipped = passed[:among], passed[among:]
            hidden = block(hidden, tuple(skipped), time, **_prompts_of(block, embeddings))
        output = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden))).float()
        r = embeddings.shape[1]
        epsilon = self.schedule.output_to_epsilon(
            output, x_t.repeat_interleave(r, dim=0), t.repeat_interleave(r)
        )
        return epsilon.unflatten(0, embeddings.shape[:2]), noticed

    def _first_half(self, x_t: Tensor, t: Tensor, embeddings: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Returns the middle block's output, the skips to the second half, and the embedded time, ``[B*R,...]`` each.

        As in ``UNet2DConditionModel``, except that the layers before the first cross-attention run once per latent.
        """
        unet, r = self.unet, embeddings.shape[1]
        time = unet.time_embedding(unet.time_proj(self.schedule.time(t)).to(x_t.dtype))
        hidden = unet.conv_in(x_t)
        passed = [hidden]
        for block in unet.down_blocks:
            if _attends(block) and len(hidden) == len(x_t):
                hidden, time, *passed = (each.repeat_interleave(r, dim=0) for each in (hidden, time, *passed))
            hidden, more = block(hidden, time, **_prompts_of(block, embeddings))
            passed += more
        return unet.mid_block(hidden, time, **_prompts_of(unet.mid_block, embeddings)), passed, time

    def save_folder(self, folder: Path, dtype: torch.dtype) -> None:
        """Writes the model as a ``StableDiffusionPipeline``, replacing whole parts; what only training needs is left out.

        Args:
            folder: Created if needed; other files in it stay.
            dtype: Type of the weights on disk.

        Raises:
            InputError: If the weights are not finite; nothing is written then.
        """
        with quiet():
            import diffusers

            networks = {part: copy.deepcopy(getattr(self, part)).to(dtype) for part in PARTS}
        for network in networks.values():
            require_finite(network.state_dict())
        folder.mkdir(parents=True, exist_ok=True)
        networks["vae"].register_to_config(scaling_factor=round(float(self.scale), 6))
        config = self.schedule.config
        schedule: dict[str, Any] = {**config.to_dict(), "set_alpha_to_one": False, "steps_offset": 1}
        sampler = diffusers.DDIMScheduler
        if config.is_flow:  # the only flow scheduler that this pipeline draws with
            sampler = diffusers.DPMSolverMultistepScheduler
            schedule = {**asdict(config), "steps_offset": 1, "use_flow_sigmas": True}
        with quiet(), temporary_beside(folder / "pipeline", folder=True) as temporary:
            pipeline = diffusers.StableDiffusionPipeline(
                **networks,
                tokenizer=self.tokenizer,
                scheduler=sampler.from_config({**schedule, "_class_name": sampler.__name__}),
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
            pipeline.save_pretrained(temporary, safe_serialization=True)
            self.tokenizer.backend_tokenizer.model.save(
                str(temporary / "tokenizer")
            )  # vocab.json and merges.txt
            for file in temporary.rglob("*.safetensors"):
                file.chmod((temporary / PIPELINE).stat().st_mode)  # which follows the umask
            for part in sorted(temporary.iterdir()):
                target = folder / part.name
                if target.is_dir():
                    target.rename(part.with_name(f"old-{part.name}"))
                part.replace(target)

    def load_folder(self, folder: Path) -> None:
        """Loads the networks of a pipeline folder for further training; what only training needs starts afresh.

        Raises:
            MissingError: If a part is missing.
            InputError: If one does not fit.
        """
        for part in PARTS:
            paths = sorted((folder / part).glob("*.safetensors"))
            if not paths:
                raise MissingError(
                    f"{folder} has no weights of the {part}; give the folder of a text-to-image model"
                )
            weights = {k: v for path in paths for k, v in read_weights(path).items()}
            if part == "text_encoder":
                self._take_words(weights, read_json(folder / "tokenizer" / "vocab.json"))
            try:
                getattr(self, part).load_state_dict(weights)
            except RuntimeError as error:
                raise InputError(
                    f"the {part} of {folder} does not fit the model: {first_line(error)}"
                ) from error
        path = folder / "vae" / CONFIG
        scale = read_json(path).get("scaling_factor")
        if not isinstance(scale, int | float):
            raise InputError(f"{path} has no scaling_factor; give the folder of a text-to-image model")
        self.scale.fill_(scale)

    def _take_words(self, weights: dict[str, Tensor], numbers: Mapping[str, int]) -> None:
        """Reorders a text encoder's token embeddings by this model's vocabulary; new words keep their own embeddings.

        Args:
            weights: Those of the text encoder, changed in place.
            numbers: Number of each token in its tokenizer.

        Raises:
            InputError: If these are not integers.
        """
        if not all(isinstance(number, int) for number in numbers.values()):
            raise InputError("a vocab.json numbers no tokens; give the folder of a text-to-image model")
        mine = self.text_encoder.state_dict()
        for name, theirs in weights.items():
            if not name.endswith("token_embedding.weight") or theirs.shape[1:] != mine[name].shape[1:]:
                continue
            rows = mine[name].clone().to(theirs.dtype)
            for token, number in self.tokenizer.get_vocab().items():
                if numbers.get(token, len(theirs)) < len(theirs):
                    rows[number] = theirs[numbers[token]]
            weights[name] = rows


class LabelHead(nn.Module):
    """Predicts labels from the features in the middle of the U-Net; used in training only.

    Predictions under labels can use what these features learn.  The denoising error alone teaches small things very
    late: at low noise they are visible and need no label, at high noise they cannot be located.
    """

    def __init__(self, config: LatentConfig, labels: int) -> None:
        super().__init__()
        width = 2 * config.channels[-1]
        self.labels = nn.Linear(width, labels)
        self.image = nn.Linear(width, config.text_dim)
        self.text = nn.Linear(config.text_dim, config.text_dim)
        self.matches = nn.Sequential(nn.Linear(width, 128), nn.SiLU(), nn.Linear(128, 1))

    def pool(self, noticed: Tensor) -> Tensor:
        """Returns means and maxima over the image, ``[B,2*channels]``."""
        return torch.cat([noticed.mean((2, 3)), noticed.amax((2, 3))], dim=1)

    def read(self, pooled: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits of all labels ``[B,M]``, by a linear layer and by similarity to prompts (CLIP, Radford et al. 2021).

        Args:
            pooled: Output of :meth:`pool`, ``[B,2*channels]``.
            prompts: One prompt per label ``[M,tokens,text_dim]``.
        """
        image = F.normalize(self.image(pooled).float(), dim=-1)
        text = F.normalize(self.text(prompts.mean(1)).float(), dim=-1)
        return self.labels(pooled).float(), COSINE_SCALE * image @ text.T

    def match(self, pooled: Tensor) -> Tensor:
        """Returns logits ``[B]`` of whether the prompt that was attended to is true."""
        logits: Tensor = self.matches(pooled).float()[:, 0]
        return logits


def _attends(block: nn.Module) -> bool:
    """Whether a block of the U-Net attends to prompts."""
    return bool(getattr(block, "has_cross_attention", False))


def _prompts_of(block: nn.Module, embeddings: Tensor) -> dict[str, Tensor]:
    """Returns prompts ``[B,R,tokens,text_dim]`` as arguments of a block; none if it does not attend to prompts."""
    return {"encoder_hidden_states": embeddings.flatten(0, 1)} if _attends(block) else {}


def _networks(config: LatentConfig, words: int) -> dict[str, Any]:
    """Returns the networks of the pipeline by part, with fresh weights."""
    need("text", "diffusers", "transformers")
    with quiet():
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from diffusers.models.attention_processor import AttnProcessor
        from transformers import CLIPTextConfig, CLIPTextModel

    levels, attending = len(config.autoencoder_channels), len(config.channels) - 1
    vae = AutoencoderKL(
        block_out_channels=config.autoencoder_channels,
        layers_per_block=config.layers,
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        sample_size=config.image_size[0],
        mid_block_add_attention=False,
    )
    text = CLIPTextConfig(
        vocab_size=words,
        hidden_size=config.text_dim,
        intermediate_size=2 * config.text_dim,
        projection_dim=config.text_dim,
        num_hidden_layers=config.text_layers,
        num_attention_heads=config.text_dim // config.head_dim,
        max_position_embeddings=config.tokens,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
    )
    text_encoder = CLIPTextModel(text)
    unet = UNet2DConditionModel(
        sample_size=config.image_size[0] // 2 ** (levels - 1),
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        cross_attention_dim=config.text_dim,
        attention_head_dim=tuple(c // config.head_dim for c in config.channels),  # number of heads
        norm_num_groups=config.groups,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * attending,
        up_block_types=("CrossAttnUpBlock2D",) * attending + ("UpBlock2D",),
    )
    unet.set_attn_processor(AttnProcessor())  # for few tokens a third faster in training than fused attention
    return {"vae": vae, "text_encoder": text_encoder, "unet": unet}
