"""Weights of foundation networks, from a folder or the Hugging Face hub."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from igm_cli.errors import MissingError

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_pretrained(kind: Any, name: str, option: str, *, local_files_only: bool, **options: Any) -> Any:
    """A pretrained network of transformers.

    Args:
        kind: Its class.
        name: Folder or hub id.
        option: What a user names the folder with.
        local_files_only: Do not ask the network; so does the variable ``HF_HUB_OFFLINE``.
        options: For ``from_pretrained``.

    Raises:
        MissingError: If the weights cannot be had.
    """
    try:
        return kind.from_pretrained(name, local_files_only=local_files_only, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise MissingError(
            f"the weights {name!r} are not here and cannot be fetched; "
            f"name a folder that holds them with --set {option}=FOLDER"
        ) from error


def imagenet_normalised(images: Tensor) -> Tensor:
    """Images in -1..1 as networks trained on ImageNet want them."""
    mean, deviation = (torch.tensor(v).to(images)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    return ((images + 1) / 2 - mean) / deviation
