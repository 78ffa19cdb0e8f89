"""Loads weights of denoising networks that are quantized, packed by igm, or in a file of their own."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from igm_cli.core.models.pipeline_files import refusing
from igm_cli.core.weights import read_weights
from igm_cli.errors import InputError, need

QUANTIZERS = {"int8": "torchao", "nf4": "bitsandbytes"}
"""The library that each kind of quantization needs."""

GGUF, SAFETENSORS = ".gguf", ".safetensors"

MOST_BESIDE = 1.005
"""Most numbers in a file per number of the network; some layouts have a few that the network does not read."""


def quantization(name: str, dtype: torch.dtype) -> Any:
    """Returns diffusers' configuration to quantize a network on loading, for a name of :data:`QUANTIZERS`."""
    import diffusers

    if name == "nf4":
        return diffusers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    from torchao.quantization import Int8WeightOnlyConfig

    return diffusers.TorchAoConfig(Int8WeightOnlyConfig())


def unpacked(kind: Any, folder: Path, files: list[Path]) -> Any:
    """Returns a diffusers network in float32 from weights packed by igm, which ``from_pretrained`` cannot read."""
    network = _without_weights(kind, folder)
    network.load_state_dict({k: v for file in files for k, v in read_weights(file).items()}, assign=True)
    return network


def of_file(kind: Any, folder: Path, file: Path, dtype: torch.dtype) -> Any:
    """Returns a network of diffusers, described by a folder, with the weights of one file.

    Args:
        kind: Class of the network.
        folder: Holds its config.json.
        file: A .gguf file, whose weights stay in few bits, or a .safetensors file; in the original layout or diffusers'.
        dtype: Type that the network computes in.

    Raises:
        InputError: If it cannot be read, or its weights are not those of the network.
    """
    import diffusers

    if file.suffix not in (GGUF, SAFETENSORS):
        raise InputError(f"{file} holds no weights that are read; give a .gguf or a .safetensors file")
    if not hasattr(kind, "from_single_file"):
        raise InputError(f"a {kind.__name__} is not read from a file of its own; leave out --network")
    how: dict[str, Any] = {"config": str(folder), "local_files_only": True, "torch_dtype": dtype}
    if file.suffix == GGUF:
        need("quantize", "gguf")
        how["quantization_config"] = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
    wanted = sum(weight.numel() for weight in _without_weights(kind, folder).state_dict().values())
    with refusing(f"{file} cannot be loaded"):
        if not wanted <= (held := _numbers(file)) <= MOST_BESIDE * wanted:
            raise InputError(
                f"{file} holds {held:,} numbers, and the network that {folder} describes {wanted:,}; give its own weights"
            )
        network = kind.from_single_file(str(file), **how)
    if absent := [name for name, weight in network.named_parameters() if weight.is_meta]:
        raise InputError(f"{file} lacks weights of the {kind.__name__}: {min(absent)}")
    return network


def _numbers(file: Path) -> int:
    """Returns how many numbers a file's weights stand for in any storage type; names and shapes differ between layouts."""
    if file.suffix == GGUF:
        from gguf import GGUFReader

        return sum(int(tensor.n_elements) for tensor in GGUFReader(file).tensors)
    with safe_open(file, "pt") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118


def _without_weights(kind: Any, folder: Path) -> Any:
    from accelerate import init_empty_weights

    with init_empty_weights():
        return kind.from_config(kind.load_config(folder, local_files_only=True))
