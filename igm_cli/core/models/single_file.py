"""Identifies a .safetensors file in the original layout of Stable Diffusion, by its keys and its metadata."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import safe_open
from torch import nn

from igm_cli.core.models.families import ONE_OR_TWO, XL, Family
from igm_cli.core.models.pipeline_files import refusing
from igm_cli.errors import InputError, some

CROSS_ATTENTION = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
"""A weight of the original layout, as wide as the text encoder of Stable Diffusion 1.x (768) or 2.x (1024)."""

UNET, VAE = "model.diffusion_model.", "first_stage_model."
_PARTS = (UNET, VAE, "cond_stage_model.", "conditioner.", "model_ema.")
_BESIDE = re.compile(
    r"betas|alphas_\w+|sqrt_\w+|log_one_\w+|posterior_\w+|logvar|lvlb_weights|scale_factor|global_step|v_pred|denoiser\..*"
    r"|embedding_manager\..*"
)
"""Keys that belong to no network: tables of the noise schedule, and marks."""

_ADDED = re.compile(r"(?:lora|lycoris)_(?:unet|te)|[._]lora[._]|hada_w|lokr_w|dora_scale", re.IGNORECASE)
"""Keys of weights that are added to another model."""

_TRANSFORMER = re.compile(
    r"(?:model\.diffusion_model\.)?(?:joint_blocks|double_blocks|single_blocks|transformer_blocks|blocks)\..*"
)
"""Keys of the networks of Stable Diffusion 3, Flux, PixArt and others, whose files hold the network alone."""

_PREDICTIONS = {
    "epsilon": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "v-prediction": "v_prediction",
}


@dataclass(frozen=True)
class SingleFile:
    """What a file says about itself.

    Attributes:
        family: Its family.
        official: Hub id of its official description.
        prediction: Prediction type of its U-Net; None if it does not say.
        size: Side of its images in pixels; None if it does not say.
    """

    family: Family
    official: str
    prediction: str | None = None
    size: int | None = None


def describe(path: Path) -> SingleFile:
    """Returns what a file says about itself, by ``v_pred``, ``ztsnr``, ``modelspec.*`` and the marks of trainers.

    Raises:
        InputError: If it is not a text-to-image model, contradicts itself, or is of a kind that cannot be used.
    """
    with refusing(f"{path} is damaged"), safe_open(path, "pt") as file:
        keys = set(file.keys())
        metadata = {name: str(value).strip() for name, value in (file.metadata() or {}).items()}
        width = file.get_slice(CROSS_ATTENTION).get_shape()[-1] if CROSS_ATTENTION in keys else None
    if added := [key for key in sorted(keys) if _ADDED.search(key)]:
        raise InputError(
            f"{path} holds additions to another model ({some(added)}); give the model itself, with them merged"
        )
    if blocks := [key for key in sorted(keys) if _TRANSFORMER.fullmatch(key)]:
        raise InputError(
            f"{path} holds the network of another family ({some(blocks)}); give its whole pipeline, as a folder or hf:owner/name"
        )
    if "ztsnr" in keys or metadata.get("ss_zero_terminal_snr", "").lower() == "true":
        raise InputError(
            f"{path} says that its noise schedule ends in pure noise (ztsnr), which is not supported; give a model without it"
        )
    if other := [key for key in sorted(keys) if not key.startswith(_PARTS) and not _BESIDE.fullmatch(key)]:
        raise InputError(
            f"{path} holds weights of no part of Stable Diffusion ({some(other)}); give a text-to-image model"
        )
    if any(key.startswith("conditioner.embedders.1.") for key in keys):
        kind, official, family = XL, "stabilityai/stable-diffusion-xl-base-1.0", "stable-diffusion-xl"
    elif width == 1024 or any(key.startswith("cond_stage_model.model.") for key in keys):
        kind, official, family = ONE_OR_TWO, "stabilityai/stable-diffusion-2-1", "stable-diffusion-v2"
    else:
        kind, official = ONE_OR_TWO, "stable-diffusion-v1-5/stable-diffusion-v1-5"
        family = "stable-diffusion-v1"
    named = metadata.get("modelspec.architecture", "").lower()
    if named and (not named.startswith(family) or "/" in named):
        raise InputError(
            f"{path} calls itself {named[:60]!r}, and its weights are of {family}; give a text-to-image model"
        )
    return SingleFile(kind, official, _prediction(path, keys, metadata), _size(path, metadata))


def _prediction(path: Path, keys: set[str], metadata: Mapping[str, str]) -> str | None:
    says = {}
    if "v_pred" in keys:
        says["v_pred"] = "v_prediction"
    if metadata.get("ss_v_parameterization", "").lower() == "true":
        says["ss_v_parameterization"] = "v_prediction"
    if named := metadata.get("modelspec.prediction_type"):
        if named.lower() not in _PREDICTIONS:
            raise InputError(
                f"{path} says that it predicts {named[:40]!r}; a model of epsilon or v_prediction is needed"
            )
        says["modelspec.prediction_type"] = _PREDICTIONS[named.lower()]
    if len(set(says.values())) > 1:
        both = " and ".join(f"{mark} that it predicts {kind}" for mark, kind in says.items())
        raise InputError(f"{path} contradicts itself: it says by {both}; correct it")
    return next(iter(says.values()), None)


def _size(path: Path, metadata: Mapping[str, str]) -> int | None:
    sides = re.fullmatch(r"(\d{2,5})(?:x(\d{2,5}))?", metadata.get("modelspec.resolution", "").lower())
    return int(sides[1]) if sides and sides[2] in (None, sides[1]) else None


def unused(path: Path, networks: Mapping[str, nn.Module]) -> list[str]:
    """Returns the names of a file's weights that networks have no place for.

    Reading a file changes names but not sizes: a weight is unused if the file has more of its size than the network.

    Args:
        path: The file.
        networks: By the prefix of their weights' names in the file.
    """
    left: list[str] = []
    with safe_open(path, "pt") as file:
        names = sorted(file.keys())
        for prefix, network in networks.items():
            places = Counter(tensor.numel() for tensor in network.state_dict().values())
            for name in names:
                if name.startswith(prefix) and not name.startswith(f"{VAE}loss."):
                    size = prod(file.get_slice(name).get_shape())
                    places[size] -= 1
                    left += [name] if places[size] < 0 else []
    return left
