"""What zero-shot perception costs with the architecture of Stable Diffusion 2.1 at full size.

    python benchmarks/stable_diffusion.py --size 256 --draws 4

The weights are random: they say nothing about accuracy, but cost the same as pretrained ones.  Ours calls the U-Net once
per label and draw; plain enumeration (IGM, Wang et al. 2025) K times per set of K labels and draw.  If enumeration
would take too long, its first sets are timed and the rest is extrapolated, as the table says.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from dataclasses import replace

import torch

from igm_cli.core.concepts import Text
from igm_cli.core.device import keep_freed_memory, peak_memory, resolve_device
from igm_cli.core.inference.engine import invert
from igm_cli.core.models.families import ONE_OR_TWO
from igm_cli.core.models.pipeline_files import quiet
from igm_cli.core.models.pipelines import TextToImageParts, resolve_dtype
from igm_cli.core.models.prompts import word_tokenizer
from igm_cli.core.models.text_to_image import TextToImageDenoiser
from igm_cli.core.noise_schedule import Schedule, ScheduleConfig, draw
from igm_cli.core.types import InversionSettings

LABELS = (
    "dog", "cat", "rabbit", "horse", "cow", "pig", "sheep", "duck", "bird", "fish",
    "car", "bus", "train", "boat", "plane", "bike", "chair", "table", "cup", "book",
)  # fmt: skip
CASES = ((3, 2), (20, 3))
MOST_ENUMERATED = 60
"""Maximum number of calls that plain enumeration makes per draw."""


def random_parts(device: torch.device, size: int, dtype: torch.dtype, shrink: int = 1) -> TextToImageParts:
    """Returns a pipeline with Stable Diffusion 2.1's structure and random weights, made on its device.

    Args:
        device: Where it computes.
        size: Side of the images in pixels.
        dtype: Type in which the U-Net and the text encoder compute.
        shrink: Divisor of the widths, for tests: 1 or 10.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with quiet():
        with torch.device(device):
            unet = UNet2DConditionModel(
                sample_size=96,
                block_out_channels=tuple(width // shrink for width in (320, 640, 1280, 1280)),
                attention_head_dim=(5, 10, 20, 20) if shrink == 1 else (1, 2, 4, 4),
                cross_attention_dim=1024 // shrink // 2 * 2,
                use_linear_projection=True,
            )
            vae = AutoencoderKL(
                block_out_channels=(128, 256, 512, 512) if shrink == 1 else (32, 32, 32, 32),
                layers_per_block=2,
                latent_channels=4,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                sample_size=768,
            )
            text = CLIPTextModel(
                CLIPTextConfig(
                    hidden_size=1024 // shrink // 2 * 2,
                    intermediate_size=4096 // shrink,
                    num_hidden_layers=23 // shrink,
                    num_attention_heads=16 if shrink == 1 else 2,
                    hidden_act="gelu",
                    projection_dim=512,
                )
            )
        for network in (unet, vae, text):
            network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        scheduler = DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
            clip_sample=False, set_alpha_to_one=False, steps_offset=1,
        )  # fmt: skip
        pipe = StableDiffusionPipeline(
            unet=unet.to(dtype),
            vae=vae,
            text_encoder=text.to(dtype),
            tokenizer=word_tokenizer((*LABELS, "a", "photo", "of"), 77),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    schedule = Schedule(ScheduleConfig.from_dict(dict(scheduler.config)))
    return TextToImageParts(pipe, ONE_OR_TWO, schedule, (size, size), device, dtype)


def enumerated(
    denoiser: TextToImageDenoiser, latent: torch.Tensor, k: int, draws: int
) -> tuple[float, int, int]:
    """Times plain enumeration of sets of K; returns seconds, U-Net calls made, and calls needed for all sets."""
    m = denoiser.space.dim
    needed = k * math.comb(m, k)
    made = min(needed, MOST_ENUMERATED)
    taken = draw(denoiser.schedule, tuple(latent.shape), draws, low=0.05, high=0.95, seed=0).to(latent.device)
    x_t = denoiser.schedule.add_noise(latent[None], taken.noise, taken.t)
    rows = torch.eye(m)[[i % m for i in range(made)]]
    began = time.monotonic()
    denoiser.predictions(denoiser.features(x_t, taken.t), rows[None])
    return time.monotonic() - began, made * draws, needed * draws


def compared(denoiser: TextToImageDenoiser, image: torch.Tensor, k: int, draws: int) -> str:
    """Returns a line with calls and seconds of ours and of plain enumeration."""
    latent = denoiser.encode(image)
    enumerated(denoiser, latent, 1, 1)  # prompts encoded, weights read, kernels chosen
    settings = InversionSettings(draws=draws, max_draws=draws, low=0.05, high=0.95)
    began = time.monotonic()
    found = invert(denoiser, latent, replace(settings, give_up=False), k=k, composition="mean")
    ours = time.monotonic() - began
    seconds, made, needed = enumerated(denoiser, latent, k, draws)
    whole = seconds * needed / made
    how = "measured" if made == needed else f"reckoned from {made} calls"
    return (
        f"{denoiser.space.dim} labels, K = {k}, {draws} draws: ours {found.network_calls} calls, {ours:.1f} s; "
        f"enumeration {needed} calls, {whole:.1f} s ({how}); {whole / ours:.1f} times as long"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=768, help="side of the image in pixels")
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = resolve_device(args.device)
    keep_freed_memory()
    parts = random_parts(device, args.size, resolve_dtype("auto", device))
    networks = {name: getattr(parts.pipe, name) for name in ("unet", "vae", "text_encoder")}
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    millions = ", ".join(f"{name} {count / 1e6:.0f} M" for name, count in counts.items())
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}")
    print(f"parameters: {millions}; {parts.dtype}; image {args.size} x {args.size}")
    image = torch.rand(3, args.size, args.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for labels, k in CASES:
        print(compared(TextToImageDenoiser(parts, Text(LABELS[:labels])), image, k, args.draws))
    print(f"peak memory: {peak_memory(device):.1f} GB{' on the GPU' if device.type == 'cuda' else ''}")


if __name__ == "__main__":
    main()
