"""Where a pipeline's files are, and whether they are all there: said before anything is loaded."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from igm_cli.errors import InputError, MissingError

PIPELINES = {"StableDiffusionPipeline": 1, "StableDiffusionXLPipeline": 2}
"""The pipelines that can be loaded, and how many text encoders each has."""

CONFIGURATIONS = {
    "1": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "2": "stabilityai/stable-diffusion-2-1",
    "xl": "stabilityai/stable-diffusion-xl-base-1.0",
}
"""Hub ids of the descriptions that belong to single files, which hold weights alone."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_WEIGHTS = re.compile(r"(?:model|diffusion_pytorch_model)(?:\.(\w+))?(?:-\d+-of-\d+)?\.safetensors")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


@dataclass(frozen=True)
class PipelineFolder:
    """A folder in diffusers' layout.

    Attributes:
        path: The folder.
        index: What model_index.json says.
    """

    path: Path
    index: dict[str, Any]

    @property
    def kind(self) -> str:
        """Class of the pipeline."""
        return str(self.index.get("_class_name"))

    @property
    def encoders(self) -> tuple[str, ...]:
        """Suffix of each tokenizer and text encoder."""
        return ("", "_2")[: PIPELINES[self.kind]]

    @property
    def networks(self) -> tuple[str, ...]:
        """Parts that have weights."""
        return ("unet", "vae", *(f"text_encoder{suffix}" for suffix in self.encoders))

    def part_class(self, part: str, *known: str) -> str:
        """Name of the class of a part.

        Raises:
            InputError: If it is none of the known ones.
        """
        name = str(self.index[part][-1])
        if name not in known:
            raise InputError(f"the {part} of {self.path} is a {name}; a pipeline with {known[0]} is needed")
        return name

    def variants(self, part: str) -> set[str | None]:
        """The variants in which a part has safetensors weights."""
        found = (_WEIGHTS.fullmatch(file.name) for file in (self.path / part).iterdir())
        return {match[1] for match in found if match}


def open_folder(path: Path) -> PipelineFolder:
    """A folder with the descriptions of every part; weights are looked for by :func:`choose_variants`.

    Raises:
        InputError: If it is no pipeline, one of another kind, or not complete.
    """
    if not (path / "model_index.json").is_file():
        raise InputError(f"{path} is no diffusers pipeline: it has no model_index.json")
    folder = PipelineFolder(path, read_json(path / "model_index.json"))
    if folder.kind not in PIPELINES:
        raise InputError(f"{path} is a {folder.kind}; {' or '.join(PIPELINES)} is needed")
    tokenizers = [f"tokenizer{suffix}" for suffix in folder.encoders]
    for part in ("scheduler", *tokenizers, *folder.networks):
        entry = folder.index.get(part)
        if not (isinstance(entry, list) and entry and entry[-1]) or not (path / part).is_dir():
            raise InputError(f"{path} has no {part}; give a complete pipeline")
    for part in tokenizers:
        files = {file.name for file in (path / part).iterdir()}
        if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= files:
            raise InputError(f"the {part} of {path} has no vocab.json and merges.txt; give a complete pipeline")
    return folder


def choose_variants(folder: PipelineFolder, variant: str | None) -> dict[str, str | None]:
    """In which variant every network is loaded; one that lacks the variant asked for falls back on none.

    Raises:
        InputError: If weights are missing.
    """
    here = {part: folder.variants(part) for part in folder.networks}
    if variant is not None and not any(variant in found for found in here.values()):
        raise InputError(f"{folder.path} has no {variant} weights; leave out --variant")
    chosen = {part: variant if variant in found else None for part, found in here.items()}
    for part, of_part in chosen.items():
        if of_part in here[part]:
            continue
        named = sorted(v for v in here[part] if v is not None)
        if named:
            raise InputError(
                f"the {part} of {folder.path} has only {named[0]} weights; use --variant {named[0]}"
            )
        if any(file.suffix in _PICKLES for file in (folder.path / part).iterdir()):
            raise InputError(f"the {part} of {folder.path} is a pickle, which can run code; {_CONVERT}")
        raise InputError(f"the {part} of {folder.path} has no weights; give a complete pipeline")
    return chosen


_CONVERT = "convert it to safetensors"


def check_path(source: str) -> Path | None:
    """The file or folder that a source names, or None if it is a hub id.

    Raises:
        MissingError: If it is a path to nothing.
        InputError: If it is a file of another kind.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.suffix in _PICKLES:
        raise InputError(f"{source} is a pickle, which can run code; {_CONVERT}")
    if path.is_file():
        if path.suffix != ".safetensors":
            raise InputError(f"{source} is no model; give a pipeline folder or a .safetensors file")
        return path
    if _HUB_ID.fullmatch(source) and path.suffix != ".safetensors":
        return None
    raise MissingError(f"{source} does not exist; give a pipeline folder, a .safetensors file or a hub id")


def from_hub(name: str, variant: str | None, *, weights: bool = True) -> Path:
    """The folder of a hub id: as the cache holds it if that is complete, else fetched.

    Args:
        name: ``owner/name``.
        variant: Weights to fetch.
        weights: False if the descriptions suffice.

    Raises:
        MissingError: If it is not here and cannot be fetched.
    """
    cached = _cached(name)
    if cached is not None and _complete(cached, variant, weights=weights):
        return cached
    try:
        return _fetch(name, variant, weights=weights)
    except Exception as error:  # of whichever network library the hub's client uses
        if cached is not None:  # what it lacks is said when it is opened
            return cached
        raise MissingError(f"the model {name!r} is not found here; give a folder or connect") from error


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):
        return None


def _complete(path: Path, variant: str | None, *, weights: bool) -> bool:
    try:
        folder = open_folder(path)
        if weights:
            choose_variants(folder, variant)
    except InputError:
        return False
    return True


def _fetch(name: str, variant: str | None, *, weights: bool) -> Path:
    if not weights:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt"]))
    from diffusers import DiffusionPipeline

    unused = dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"))
    return Path(DiffusionPipeline.download(name, variant=variant, use_safetensors=True, **unused))


def single_file_kind(path: Path) -> str:
    """Which Stable Diffusion one file in the original layout holds: ``1``, ``2`` or ``xl``.

    Raises:
        InputError: If it is damaged, or holds another model or not the whole of it.
    """
    try:
        with safe_open(path, "pt") as file:
            keys = tuple(file.keys())
            cross = [key for key in keys if key.endswith("attn2.to_k.weight")]
            width = file.get_slice(cross[0]).get_shape()[-1] if cross else 0
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged: {first_line(error)}") from error
    prefixes = {
        "unet": ("model.diffusion_model.input_blocks.",),
        "vae": ("first_stage_model.", "vae."),
        "text_encoder": ("cond_stage_model.", "conditioner.embedders."),
    }
    for part, starts in prefixes.items():
        if not any(key.startswith(starts) for key in keys):
            raise InputError(f"{path} has no {part}; give a whole Stable Diffusion checkpoint in one file")
    if any(key.startswith("conditioner.embedders.1.") for key in keys):
        return "xl"
    return "2" if width == 1024 or any(key.startswith("cond_stage_model.model.") for key in keys) else "1"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no valid JSON file: {first_line(error)}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold a JSON object")
    return data


def first_line(error: Exception) -> str:
    """What an error of another library says first."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
