"""The parts of a pipeline as diffusers and transformers load them, on the CPU; what does not fit is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from igm_cli.core.models.pipeline_files import PipelineFolder, first_line, read_json
from igm_cli.errors import InputError

FAILURES = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError)
"""What the libraries raise where files do not fit."""

NETWORKS = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
}
"""Classes of the parts that have weights."""


def networks_of_folder(
    folder: PipelineFolder, variants: Mapping[str, str | None], dtype: torch.dtype
) -> dict[str, Any]:
    """Every network of a folder by part.

    Args:
        folder: With the weights.
        variants: In which every part is loaded.
        dtype: Of all but the autoencoder, which is float32.

    Raises:
        InputError: If one cannot be loaded.
    """
    import diffusers
    import transformers

    networks: dict[str, Any] = {}
    for part, variant in variants.items():
        library = diffusers if part in ("unet", "vae") else transformers
        kind = getattr(library, folder.part_class(part, NETWORKS[part]))
        networks[part] = _network(kind, folder, part, variant, torch.float32 if part == "vae" else dtype)
    return networks


def _network(kind: Any, folder: PipelineFolder, part: str, variant: str | None, dtype: torch.dtype) -> Any:
    """One network; weights that do not fill it are refused, where the libraries would draw them at random."""
    try:
        network, report = kind.from_pretrained(
            folder.path / part,
            torch_dtype=dtype,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except FAILURES as error:
        raise InputError(f"the {part} of {folder.path} cannot be loaded: {first_line(error)}") from error
    if report["missing_keys"]:
        raise InputError(f"the {part} of {folder.path} lacks weights: {min(report['missing_keys'])}")
    return network


def networks_of_file(path: Path, folder: PipelineFolder, dtype: torch.dtype) -> dict[str, Any]:
    """Every network of a file in the original layout by part.

    Args:
        path: Of the file.
        folder: Describes its parts.
        dtype: Of all but the autoencoder, which is float32.

    Raises:
        InputError: If one cannot be loaded.
    """
    import diffusers

    try:
        config = str(folder.path)
        vae = diffusers.AutoencoderKL.from_single_file(
            str(path), config=config, subfolder="vae", torch_dtype=torch.float32, local_files_only=True
        )
        unused = dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"))
        pipeline = getattr(diffusers, folder.kind).from_single_file(
            str(path), config=config, vae=vae, torch_dtype=dtype, local_files_only=True, **unused
        )
    except Exception as error:  # diffusers' own error for a missing part is derived from nothing else
        raise InputError(f"{path} cannot be loaded: {first_line(error)}") from error
    networks = {part: getattr(pipeline, part) for part in folder.networks}
    for part, network in networks.items():
        absent = [name for name, weight in network.named_parameters() if weight.is_meta]
        if absent:
            raise InputError(f"the {part} of {path} lacks weights: {min(absent)}")
    return networks


def load_tokenizer(folder: PipelineFolder, suffix: str) -> Any:
    """The tokenizer of the text encoder of a suffix.

    Raises:
        InputError: If it cannot be loaded.
    """
    import transformers

    part = f"tokenizer{suffix}"
    kind = getattr(transformers, folder.part_class(part, "CLIPTokenizer", "CLIPTokenizerFast"))
    try:
        return kind.from_pretrained(folder.path / part, local_files_only=True)
    except Exception as error:  # the Rust library under it raises bare Exceptions
        raise InputError(f"the {part} of {folder.path} cannot be loaded: {first_line(error)}") from error


def load_scheduler(folder: PipelineFolder) -> Any:
    """The scheduler as diffusers makes it: defaults that a configuration leaves out differ from class to class.

    Raises:
        InputError: If it is unknown or cannot be used.
    """
    import diffusers

    name = str(folder.index["scheduler"][-1])
    if not name.endswith("Scheduler") or not hasattr(diffusers, name):
        raise InputError(f"the scheduler of {folder.path} is an unknown {name}")
    try:
        return getattr(diffusers, name).from_config(
            read_json(folder.path / "scheduler" / "scheduler_config.json")
        )
    except FAILURES as error:
        raise InputError(f"the scheduler of {folder.path} cannot be used: {first_line(error)}") from error
