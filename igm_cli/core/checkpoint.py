"""Checkpoints: a folder of config.json, diffusion weights as safetensors, and igm.json.

``config.json`` holds the architecture and its options, ``scheduler_config.json`` the noise schedule
as diffusers writes it, ``igm.json`` what inversion needs to know: the concept space, the
composition, the concept parser's name, calibrated inference settings, and where the weights come
from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import ConceptSpace
from igm_cli.core.device import has_bf16
from igm_cli.core.files import (
    CONFIG,
    DESCRIPTION,
    PIPELINE,
    SCHEDULE,
    WEIGHTS,
    file_hash,
    read_json,
    write_json,
)
from igm_cli.core.models import build_denoiser
from igm_cli.core.noise_schedule import Schedule, ScheduleConfig
from igm_cli.core.validation import Guidance, Sampler, Size, Table, validated
from igm_cli.core.weights import read_weights, write_weights
from igm_cli.errors import InputError, MissingError, reason

if TYPE_CHECKING:
    from igm_cli.core.denoiser import Denoiser

FORMAT = 1


def is_discriminative(info: Mapping[str, Any]) -> bool:
    """Returns whether a model's provenance says that it was also trained to tell concepts apart."""
    return bool(info.get("discriminative", info.get("contrast")))


@validated("generation setting")
class GenerationDefaults:
    """How a model draws where users do not say otherwise; None leaves it to what is usual for its kind.

    Attributes:
        guidance: Factor of every contribution: 1 for AND, above 1 for more of it.
        sampler: ``ancestral`` or ``ddim``.
    """

    guidance: Guidance | None = None
    sampler: Sampler | None = None


@validated("field of a model's description")
class ModelSpec:
    """Everything about a model but its weights.

    Attributes:
        architecture: Name for :func:`igm_cli.core.models.build_denoiser`.
        options: Options of the architecture.
        space: Concept space in dictionary form.
        schedule: diffusers scheduler configuration.
        composition: ``sum`` or ``mean``.
        image_size: (width, height) in pixels.
        scale: Pixels that the model sees per pixel of an image, of any size; 0 if every image is brought to
            ``image_size``.
        margin: How many pixels beyond the border of an image of any size points may lie, for objects shown in part.
        concepts: Name of the concept parser, an installed plugin.
        concept_options: Options of the concept parser.
        inference: Settings of :class:`igm_cli.core.types.InversionSettings` tuned to the weights.
        generation: Fields of :class:`GenerationDefaults`, tuned to the weights.
        info: Provenance: data, command, steps, metrics, licence.
    """

    architecture: str
    options: Table
    space: Table
    schedule: Table
    composition: Composition
    image_size: Size
    concepts: str
    concept_options: Table = field(default_factory=dict)
    inference: Table = field(default_factory=dict)
    generation: Table = field(default_factory=dict)
    info: Table = field(default_factory=dict)
    scale: Annotated[float, Field(ge=0, le=100)] = 0.0
    margin: Annotated[int, Field(ge=0, le=2**14)] = 0

    def build(self) -> nn.Module:
        """Returns the denoiser with fresh weights."""
        try:
            schedule = Schedule(ScheduleConfig.from_dict(self.schedule))
            space = ConceptSpace.from_dict(self.space)
        except (InputError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"the model's schedule or concept space cannot be used: {reason(error)}"
            ) from error
        return build_denoiser(self.architecture, self.options, space, schedule)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model, ready for inversion."""

    name: str
    spec: ModelSpec
    denoiser: Denoiser


def save_model(folder: Path, spec: ModelSpec, model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Writes a model's checkpoint, as :func:`save_checkpoint` does; a model of several networks becomes a pipeline's folder."""
    save_folder: Any = getattr(model, "save_folder", None)
    if save_folder is None:
        save_checkpoint(folder, spec, model.state_dict(), dtype)
        return
    save_folder(folder, dtype)
    write_description(folder, replace(spec, space=cast(ConceptSpace, model.asked).to_dict()))


def save_checkpoint(
    folder: Path, spec: ModelSpec, weights: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> None:
    """Writes a checkpoint, each file atomically and igm.json last; nothing if the weights, by name, are not finite.

    The folder is created if need be.  As the type on disk, ``torch.int8`` packs them (:mod:`igm_cli.core.weights`).
    """
    write_weights(folder / WEIGHTS, weights, dtype)
    write_json(folder / CONFIG, {"architecture": spec.architecture, **spec.options})
    write_json(folder / SCHEDULE, spec.schedule)
    write_description(folder, spec)


def write_description(folder: Path, spec: ModelSpec) -> None:
    """Writes igm.json: all that describes a model but its networks and schedule."""
    names = ("concepts", "concept_options", "space", "composition", "image_size", "inference", "info")
    more: dict[str, Any] = {"scale": spec.scale, "margin": spec.margin} if spec.scale else {}
    more |= {"generation": spec.generation} if spec.generation else {}
    write_json(folder / DESCRIPTION, {"format": FORMAT} | {name: getattr(spec, name) for name in names} | more)


def add_to_description(
    folder: Path, info: Mapping[str, Any], inference: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Adds to what igm.json says of a model's provenance and settings; None in ``info`` removes an entry."""
    known = read_json(folder / DESCRIPTION)
    told = {key: value for key, value in {**known.get("info", {}), **info}.items() if value is not None}
    settings = {**known.get("inference", {}), **inference}
    write_json(folder / DESCRIPTION, {**known, "inference": settings, "info": told})


def read_spec(folder: Path) -> ModelSpec:
    """Returns the description of a checkpoint without its weights; raises a MissingError if a file is missing."""
    names = (DESCRIPTION, CONFIG, SCHEDULE)
    for name in names:
        if not (folder / name).is_file():
            raise MissingError(f"{folder} is not an igm checkpoint: it has no {name}")
    known, options, schedule = (read_json(folder / name) for name in names)
    if known.pop("format", None) != FORMAT:
        raise InputError(
            f"{folder} has a checkpoint format that this igm does not read, which is {FORMAT}; "
            "train it again or use a matching igm"
        )
    architecture = {"architecture": options.pop("architecture")} if "architecture" in options else {}
    try:
        return ModelSpec(**{**known, **architecture, "options": options, "schedule": schedule})
    except InputError as error:
        raise InputError(f"{folder} is not a complete igm checkpoint: {error}") from error


def load_checkpoint(folder: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Loads a checkpoint onto a device, frozen, in evaluation mode; with weights in bfloat16 on a GPU that supports it."""
    device = torch.device(device)
    spec = read_spec(folder)
    with torch.device("meta"):
        model = spec.build()
    load_weights(model, folder)
    model = model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type != "cpu" and has_bf16(device) and hasattr(model, "dtype"):
        model = model.to(torch.bfloat16)  # once, not at every call
    return Checkpoint(folder.name, spec, cast("Denoiser", model))


def load_weights(model: nn.Module, folder: Path, *, grown: bool = False) -> None:
    """Loads the weights of a checkpoint folder, as float32, into a model of their shapes.

    A model that has ``grown`` may have parts that the checkpoint lacks, if they add nothing while fresh (its
    ``neutral``): they stay as they are.
    """
    load_folder: Any = getattr(model, "load_folder", None)  # a model of several networks reads its own folder
    if load_folder is not None:
        load_folder(folder)
        return
    weights = read_weights(_weights_of(folder)[0])
    if grown:
        neutral = tuple(getattr(model, "neutral", ()))
        weights = {n: w for n, w in model.state_dict().items() if neutral and n.startswith(neutral)} | weights
    own = set(model.state_dict())
    for names, says in ((weights.keys() - own, "has no place for"), (own - weights.keys(), "lacks in them")):
        if names:
            raise InputError(
                f"the weights in {folder} do not fit: its config.json describes a network that {says} {min(names)} "
                f"({len(names)} in all); give weights and config.json of one model"
            )
    try:
        # On the meta device there is nothing to copy into.
        model.load_state_dict(weights, assign=any(p.is_meta for p in model.parameters()))
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"the weights in {folder} cannot be used: {last}") from error


def weights_fingerprint(folder: Path) -> str:
    """Returns the SHA-256 of a checkpoint's weights, by which a run remembers what it started from."""
    return file_hash(*_weights_of(folder))


def model_fingerprint(folder: Path) -> str:
    """Returns the SHA-256 of every description and weight file of a checkpoint."""
    descriptions = [folder / name for name in (CONFIG, SCHEDULE, DESCRIPTION)]
    return file_hash(*descriptions, *sorted(folder.glob("*.safetensors")))


def _weights_of(folder: Path) -> list[Path]:
    """Returns the weight files of a checkpoint: one, or one per part of a pipeline."""
    single = folder / WEIGHTS
    pipeline = (folder / PIPELINE).is_file()
    paths = sorted(folder.glob("*/*.safetensors")) if pipeline else [single] * single.is_file()
    if not paths:
        raise MissingError(f"{folder} has no {WEIGHTS}; give a complete checkpoint folder")
    return paths
