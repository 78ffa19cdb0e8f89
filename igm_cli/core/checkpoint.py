"""Checkpoints: a folder of config.json, diffusion weights as safetensors, and igm.json.

``config.json`` holds the architecture and its options, ``scheduler_config.json`` the noise schedule
as diffusers writes it, ``igm.json`` what inversion needs to know: the concept space, the
composition, the concept parser's name, calibrated inference settings, and where the weights come
from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import space_from_dict
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.files import write_atomically, write_json
from igm_cli.core.models import build_denoiser
from igm_cli.core.noise_schedule import Schedule, ScheduleConfig
from igm_cli.errors import InputError, MissingError

FORMAT = 1
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class ModelSpec:
    """Everything about a model but its weights.

    Attributes:
        architecture: Name for :func:`igm_cli.core.models.build_denoiser`.
        options: Options of the architecture.
        space: Concept space in dictionary form.
        schedule: diffusers scheduler configuration.
        composition: ``sum`` or ``mean``.
        image_size: (width, height) in pixels.
        concepts: Name of the concept parser.
        concept_options: Options of the concept parser.
        inference: Settings of :class:`igm_cli.core.inference.inversion.InversionSettings` tuned to the weights.
        info: Provenance: data, command, steps, metrics, licence.
    """

    architecture: str
    options: Mapping[str, Any]
    space: Mapping[str, Any]
    schedule: Mapping[str, Any]
    composition: Composition
    image_size: tuple[int, int]
    concepts: str
    concept_options: Mapping[str, Any] = field(default_factory=dict)
    inference: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The denoiser with fresh weights."""
        if self.composition not in ("sum", "mean"):
            raise InputError(f"unknown composition {self.composition!r}; choose sum or mean")
        try:
            schedule = Schedule(ScheduleConfig.from_dict(dict(self.schedule)))
            space = space_from_dict(self.space)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"the model's schedule or concept space cannot be used: {error}") from error
        return build_denoiser(self.architecture, self.options, space, schedule)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model, ready for inversion."""

    name: str
    spec: ModelSpec
    denoiser: Denoiser

    @property
    def composition(self) -> Composition:
        """How its contributions are composed."""
        return self.spec.composition

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.spec.image_size

    @property
    def concepts(self) -> str:
        """Name of its concept parser."""
        return self.spec.concepts

    @property
    def inference(self) -> Mapping[str, Any]:
        """Inversion settings tuned to the weights."""
        return self.spec.inference

    @property
    def info(self) -> Mapping[str, Any]:
        """Provenance."""
        return self.spec.info


def save_checkpoint(
    folder: Path, spec: ModelSpec, weights: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> None:
    """Writes a checkpoint, each file atomically and igm.json last.

    Args:
        folder: Created if need be.
        spec: What the weights belong to.
        weights: State dictionary.
        dtype: Floating-point type on disk.
    """
    tensors = {
        name: (value.to(dtype) if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in weights.items()
    }
    write_atomically(folder / WEIGHTS, lambda path: save_file(tensors, path, {"format": "pt"}))
    write_json(folder / "config.json", {"architecture": spec.architecture, **spec.options})
    write_json(folder / "scheduler_config.json", dict(spec.schedule))
    write_description(folder, spec)


def write_description(folder: Path, spec: ModelSpec) -> None:
    """igm.json: what is known of a model besides its networks and its schedule."""
    write_json(
        folder / "igm.json",
        {
            "format": FORMAT,
            "concepts": spec.concepts,
            "concept_options": dict(spec.concept_options),
            "space": dict(spec.space),
            "composition": spec.composition,
            "image_size": list(spec.image_size),
            "inference": dict(spec.inference),
            "info": dict(spec.info),
        },
    )


def read_spec(folder: Path) -> ModelSpec:
    """The description of a checkpoint without its weights.

    Raises:
        MissingError: If the folder or a file of it is not there.
        InputError: If a file cannot be understood.
    """
    igm = _read_json(folder / "igm.json")
    config = _read_json(folder / "config.json")
    schedule = _read_json(folder / "scheduler_config.json")
    if igm.get("format") != FORMAT:
        raise InputError(
            f"{folder} has checkpoint format {igm.get('format')!r}, this igm reads {FORMAT}; "
            "train it again or use a matching igm"
        )
    try:
        architecture = config.pop("architecture")
        width, height = igm["image_size"]
        return ModelSpec(
            architecture=architecture,
            options=config,
            space=igm["space"],
            schedule=schedule,
            composition=cast(Composition, igm["composition"]),
            image_size=(int(width), int(height)),
            concepts=igm["concepts"],
            concept_options=igm.get("concept_options", {}),
            inference=igm.get("inference", {}),
            info=igm.get("info", {}),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder} is not a complete igm checkpoint: {error}") from error


def load_checkpoint(folder: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Loads a checkpoint onto a device, frozen, in evaluation mode.

    Raises:
        MissingError: If the folder or a file of it is not there.
        InputError: If a file cannot be understood or the weights do not fit the architecture.
    """
    spec = read_spec(folder)
    with torch.device("meta"):
        model = spec.build()
    load_weights(model, folder)
    model = model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Checkpoint(folder.name, spec, cast(Denoiser, model))


def load_weights(model: nn.Module, folder: Path) -> None:
    """Takes the weights of a checkpoint folder, as float32, into a model of their shapes.

    Raises:
        MissingError: If the folder has none.
        InputError: If they are damaged or of other shapes.
    """
    load_folder = getattr(model, "load_folder", None)  # a model of several networks reads its own folder
    if load_folder is not None:
        load_folder(folder)
        return
    path = _weights_of(folder)[0]
    try:
        weights = {name: value.float() for name, value in load_file(path).items()}
        # On the meta device there is nothing to copy into.
        model.load_state_dict(weights, assign=any(p.is_meta for p in model.parameters()))
    except (SafetensorError, RuntimeError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"the weights in {folder} cannot be used: {first}") from error


def fingerprint(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights, by which a run remembers what it started from.

    Raises:
        MissingError: If the folder has none.
    """
    digest = hashlib.sha256()
    for path in _weights_of(folder):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _weights_of(folder: Path) -> list[Path]:
    """The weights of a checkpoint: one file, or, of a pipeline, one of every part."""
    single = folder / WEIGHTS
    pipeline = (folder / "model_index.json").is_file()
    paths = sorted(folder.glob("*/*.safetensors")) if pipeline else [single] * single.is_file()
    if not paths:
        raise MissingError(f"{folder} has no {WEIGHTS}; give a complete checkpoint folder")
    return paths


def model_fingerprint(folder: Path) -> str:
    """Of every weight and description file of a checkpoint."""
    digest = hashlib.sha256()
    for name in ("config.json", "scheduler_config.json", "igm.json"):
        digest.update((folder / name).read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingError(f"{path.parent} is no igm checkpoint: it has no {path.name}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no valid JSON file: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold a JSON object")
    return data
