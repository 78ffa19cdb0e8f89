"""Weights of foundation networks, from a folder or the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def weights_folder(name: str, *, local_files_only: bool = False) -> Path | None:
    """The folder of a model: itself, or its snapshot of the hub; None if it cannot be had.

    Args:
        name: Folder or hub id.
        local_files_only: Do not ask the network; so does the variable ``HF_HUB_OFFLINE``.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder if (folder / "config.json").is_file() else None
    if name.count("/") != 1:
        return None
    from huggingface_hub import snapshot_download

    patterns = ["config.json", "model.safetensors", "pytorch_model.bin"]
    try:
        found = snapshot_download(name, allow_patterns=patterns, local_files_only=local_files_only)
    except Exception:  # offline, unknown, no leave, no space: whatever it is, the weights are not here
        return None
    return Path(found)


def imagenet_normalised(images: Tensor) -> Tensor:
    """Images in -1..1 as networks trained on ImageNet want them."""
    mean, deviation = (torch.tensor(v).to(images)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    return ((images + 1) / 2 - mean) / deviation
