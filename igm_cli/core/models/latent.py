"""A latent text-to-image model of our own, of the parts that a Stable Diffusion pipeline has, to be trained.

Once trained it is a ``StableDiffusionPipeline`` folder (:mod:`igm_cli.core.models.latent_folder`) and is
loaded as every other one.  Latent diffusion: Rombach et al. 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igm_cli.core.concepts import Text
from igm_cli.core.models.tokens import word_tokenizer, words_of
from igm_cli.core.noise_schedule import Schedule
from igm_cli.core.validation import Channels, Positive, Size, validated


@validated("model option")
class LatentConfig:
    """Shape of the networks.

    Attributes:
        image_size: (width, height) in pixels, equal, and halved by every level but the last of both networks.
        autoencoder_channels: Channels of the autoencoder's levels; each but the last halves the sides.
        latent_channels: Channels of a latent.
        channels: Channels of the U-Net's levels; all but the first attend to the prompt.
        layers: Residual blocks a level.
        head_dim: Channels of an attention head.
        groups: Groups of the normalisation.
        text_dim: Width of the text encoder.
        text_layers: Its layers.
        tokens: Tokens of a prompt.
    """

    image_size: Size = (64, 64)
    autoencoder_channels: Channels = (32, 64, 96)
    latent_channels: Positive = 8
    channels: Channels = (64, 128, 160)
    layers: Positive = 1
    head_dim: Positive = 32
    groups: Positive = 16
    text_dim: Positive = 128
    text_layers: Positive = 2
    tokens: Positive = 16

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
    """Autoencoder, text encoder and U-Net.

    Args:
        config: Their shape.
        space: Labels and templates, whose words the tokenizer knows.
        schedule: Of the noise on latents; the U-Net puts out its prediction type.
    """

    scale: Tensor

    def __init__(self, config: LatentConfig, space: Text, schedule: Schedule) -> None:
        super().__init__()
        self.config, self.space, self.schedule = config, space, schedule
        self.vae: Any = _autoencoder(config)
        self.text_encoder: Any = _text_encoder(config, len(self.tokenizer))
        self.unet: Any = _unet(config)
        self.reader = Reader(config, len(space.labels))
        self.register_buffer("scale", torch.ones(()))
        """What latents are multiplied by to be of unit variance (``scaling_factor``)."""

    @property
    def words(self) -> tuple[str, ...]:
        """Of the labels, of the templates, and of lists."""
        return words_of([*self.space.labels, *self.space.templates, ", and"])

    @property
    def tokenizer(self) -> Any:
        """Knows the words."""
        return word_tokenizer(self.words, self.config.tokens)

    def encode(self, images: Tensor) -> Tensor:
        """Scaled latents ``[B,C,h,w]`` of images ``[B,3,H,W]`` in -1..1: the posterior's mean."""
        latents: Tensor = self.vae.encode(images).latent_dist.mode()
        return latents.float() * self.scale

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Prompts as ``[R,tokens,text_dim]``."""
        length = self.config.tokens
        ids = self.tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True).input_ids
        tokens = torch.tensor(ids, device=self.scale.device)
        embedded: Tensor = self.text_encoder(tokens).last_hidden_state
        return embedded

    def notice(self, x_t: Tensor, t: Tensor, embeddings: Tensor) -> Tensor:
        """What the U-Net's first half sees in noised latents, ``[B,channels,h,w]``.

        Args:
            x_t: ``[B,C,h,w]``.
            t: ``[B]``.
            embeddings: A prompt each ``[B,tokens,text_dim]``.
        """
        unet = self.unet
        time = unet.time_embedding(unet.time_proj(t).to(x_t.dtype))
        hidden = unet.conv_in(x_t)
        for block in unet.down_blocks:
            attends = getattr(block, "has_cross_attention", False)
            more = {"encoder_hidden_states": embeddings} if attends else {}
            hidden = block(hidden, time, **more)[0]
        noticed: Tensor = unet.mid_block(hidden, time, encoder_hidden_states=embeddings)
        return noticed

    def predict(self, x_t: Tensor, t: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Eps under every prompt, and what was noticed on the way.

        Args:
            x_t: Noised latents ``[B,C,h,w]``.
            t: ``[B]``.
            embeddings: ``[B,R,tokens,text_dim]``.

        Returns:
            eps ``[B,R,C,h,w]`` float32, and what :meth:`notice` gives, ``[B*R,channels,h,w]``.
        """
        b, r = embeddings.shape[:2]
        noticed: list[Tensor] = []
        hook = self.unet.mid_block.register_forward_hook(lambda module, given, out: noticed.append(out))
        rows = x_t.repeat_interleave(r, dim=0), t.repeat_interleave(r)
        try:
            output = self.unet(*rows, encoder_hidden_states=embeddings.flatten(0, 1)).sample.float()
        finally:
            hook.remove()
        epsilon = self.schedule.output_to_epsilon(output, *rows)
        return epsilon.unflatten(0, (b, r)), noticed[0]


class Reader(nn.Module):
    """Reads labels off what the U-Net notices; in training only.

    What is noticed for it, predictions under labels can use.  By the denoising error alone small things are noticed
    very late: at low noise they are seen and need not be named, at high noise they cannot be placed.

    Args:
        config: Of the model.
        labels: M.
    """

    def __init__(self, config: LatentConfig, labels: int) -> None:
        super().__init__()
        width = 2 * config.channels[-1]
        self.labels = nn.Linear(width, labels)
        self.image = nn.Linear(width, config.text_dim)
        self.text = nn.Linear(config.text_dim, config.text_dim)
        self.matches = nn.Sequential(nn.Linear(width, 128), nn.SiLU(), nn.Linear(128, 1))

    def pool(self, noticed: Tensor) -> Tensor:
        """Means and maxima over places, ``[B,2*channels]``."""
        return torch.cat([noticed.mean((2, 3)), noticed.amax((2, 3))], dim=1)

    def read(self, pooled: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of all labels, each ``[B,M]``: of a linear layer, and of likeness to prompts (CLIP, Radford et al. 2021).

        Args:
            pooled: ``[B,2*channels]``.
            prompts: Of every label ``[M,tokens,text_dim]``.
        """
        image = F.normalize(self.image(pooled).float(), dim=-1)
        text = F.normalize(self.text(prompts.mean(1)).float(), dim=-1)
        return self.labels(pooled).float(), LIKENESS * image @ text.T

    def match(self, pooled: Tensor) -> Tensor:
        """Logits ``[B]`` of whether the prompt that was attended to is true."""
        logits: Tensor = self.matches(pooled).float()[:, 0]
        return logits


LIKENESS = 8.0
"""Logit of equal directions."""


def _autoencoder(config: LatentConfig) -> Any:
    from diffusers import AutoencoderKL

    levels = len(config.autoencoder_channels)
    return AutoencoderKL(
        block_out_channels=config.autoencoder_channels,
        layers_per_block=config.layers,
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        sample_size=config.image_size[0],
        mid_block_add_attention=False,
    )


def _text_encoder(config: LatentConfig, words: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
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
    )


def _unet(config: LatentConfig) -> Any:
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    attending = len(config.channels) - 1
    model = UNet2DConditionModel(
        sample_size=config.image_size[0] // 2 ** (len(config.autoencoder_channels) - 1),
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
    model.set_attn_processor(AttnProcessor())  # for few tokens a third faster in training than fused attention
    return model
