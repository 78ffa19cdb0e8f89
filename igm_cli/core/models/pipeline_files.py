"""Finds a text-to-image pipeline's files, checks that they are complete, and fingerprints them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import ConceptSpace, Text
from igm_cli.core.files import CONFIG, DESCRIPTION, HUB, HUB_ID, PIPELINE, file_hash, home_expanded, read_json
from igm_cli.core.hub import refusal
from igm_cli.core.models.families import PIPELINES, TITLES, TOKENIZERS, Family
from igm_cli.core.names import Classes
from igm_cli.errors import IgmError, InputError, MissingError, need, reason

UNUSED = dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"))
"""Parts that do not predict noise and are not loaded."""

_WEIGHTS = re.compile(r"(?:model|diffusion_pytorch_model)(?:\.(\w+))?(?:-\d+-of-\d+)?(?:\.(\w+))?\.safetensors")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_UNSAFE = "is a pickle, which can run code; convert it to safetensors"

PUBLISHED: Mapping[str, Any] = MappingProxyType({
    "draws": 32, "max_draws": 128, "low": 0.0, "high": 1.0, "power": 0.0, "penalty": 0.0, "k_min": 1, "k_max": 3,
})  # fmt: skip
"""Untuned inference settings: all timesteps have equal weight, as in Diffusion Classifier (Li et al. 2023)."""


def find_pipeline(source: str, variant: str | None = None, *, weights: bool = True) -> Path:
    """Returns the folder or file that a source names; a hub id is looked up in the hub's cache.

    Only ``hf:owner/name`` asks the hub for missing files, so a mistyped path is sent to nobody.

    Args:
        source: Folder with model_index.json, one .safetensors file, or hub id ``owner/name`` or ``hf:owner/name``.
        variant: Variant of the weights to fetch, e.g. ``fp16``.
        weights: Whether weights are needed, or only their description.

    Raises:
        MissingError: If it is not on this machine and cannot be fetched.
        InputError: If it is a file of another kind.
    """
    if source.startswith(HUB) and HUB_ID.fullmatch(source.removeprefix(HUB)):
        return _from_hub(source.removeprefix(HUB), variant, weights, fetch=True)
    path = home_expanded(source)
    if path.is_dir():
        return path
    if path.suffix in _PICKLES:
        raise InputError(f"{source} {_UNSAFE}")
    if path.is_file():
        if path.suffix != ".safetensors":
            raise InputError(f"{source} is not a model; give a pipeline folder or a .safetensors file")
        return path
    if path.suffix == ".safetensors" or not HUB_ID.fullmatch(source):
        raise MissingError(
            f"{source} does not exist; give a pipeline folder, a .safetensors file or hf:owner/name"
        )
    return _from_hub(source, variant, weights, fetch=False)


def _from_hub(name: str, variant: str | None, weights: bool, fetch: bool) -> Path:
    """Returns the snapshot of a hub id: the cached one if it is complete, else a fetched one if ``fetch`` allows it."""
    from huggingface_hub import snapshot_download

    cached = None
    with contextlib.suppress(OSError, ValueError, InputError):
        cached = Path(snapshot_download(name, local_files_only=True))
        read_index(cached)
        if weights:
            weight_files(cached, variant)
        return cached
    if not fetch:
        if cached is not None:  # opening it reports what is missing
            return cached
        raise MissingError(
            f"there is no {name!r} here; give a folder, or {HUB}{name} if it is a model of the Hugging Face hub"
        )
    if weights:
        need("text", "diffusers")
    try:
        if not weights:
            return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model"]))
        with quiet():
            from diffusers import DiffusionPipeline

            folder = Path(DiffusionPipeline.download(name, variant=variant, use_safetensors=True, **UNUSED))
        snapshot_download(name, allow_patterns=[DESCRIPTION])  # which diffusers leaves out
        return folder
    except Exception as error:  # from any network library the hub's client uses
        if cached is not None:  # opening it reports what is missing
            return cached
        raise refusal(name, error) from error


@dataclass(frozen=True)
class PipelineIndex:
    """The contents of a pipeline's folder, from its model_index.json.

    Attributes:
        family: Its family.
        kind: The class of diffusers that loads it.
        parts: The class of each part.
        classes: The classes of a class-conditional model; None for one that reads prompts.
        guidance: Guidance that its network takes as an input; None if it takes none.
    """

    family: Family
    kind: str
    parts: Mapping[str, str]
    classes: Classes | None = None
    guidance: float | None = None


_OTHER_TASKS = {
    "Inpaint|Fill": "inpainting",
    "Img2Img|Image2Image|ImageToImage|Pix2Pix|Variation|Upscale|Depth2|Edit": "changing images",
    "ControlNet|Adapter|Control": "steering by images",
    "Video|SpatioTemporal|Motion|3D|Temporal|AnimateDiff": "video",
}
"""Tasks other than text-to-image, by words in the names of classes."""


def read_index(path: Path) -> PipelineIndex:
    """Returns the contents of a pipeline's folder, after checking that it is complete.

    Raises:
        InputError: If it is not a pipeline, is of another kind, or is incomplete.
    """
    if not (path / PIPELINE).is_file():
        if any(path.glob("*lora*.safetensors")) or (path / "adapter_config.json").is_file():
            raise InputError(
                f"{path} is a LoRA, which adds to another model; give the model itself, with it merged"
            )
        raise InputError(f"{path} is not a diffusers pipeline: it has no model_index.json")
    index = read_json(path / PIPELINE)
    entries = {
        part: entry for part, entry in index.items() if isinstance(entry, list) and len(entry) == 2 and entry[1]
    }
    kind = str(index.get("_class_name"))
    family = _family(path, kind, {part: str(entry[1]) for part, entry in entries.items()})
    classes = {}
    for part, wanted in family.parts.items():
        entry = entries.get(part)
        if entry is None and part in family.optional:
            continue
        if entry is None or not (path / part).is_dir():
            raise InputError(f"{path} has no {part}; give a complete pipeline")
        classes[part] = name = str(entry[1])
        if entry[0] not in ("diffusers", "transformers") or (
            wanted and name.removesuffix("Fast") not in wanted
        ):
            known = wanted[0] if wanted else "one of diffusers' schedulers"
            raise InputError(f"the {part} of {path} is a {name}; a pipeline with {known} is needed")
        enough = TOKENIZERS.get(name.removesuffix("Fast"))
        if enough and not any(names <= {f.name for f in (path / part).iterdir()} for names in enough):
            files = " and ".join(sorted(enough[-1], reverse=True))
            raise InputError(f"the {part} of {path} has no {files}; give a complete pipeline")
        _refuse_code(path / part)
    loads = kind if kind in family.pipelines else family.pipelines[0]
    names = Classes(index.get("id2label")) if family.classes else None
    config = path / family.part / CONFIG
    told = family.guidance is not None and config.is_file() and read_json(config).get("guidance_embeds")
    return PipelineIndex(family, loads, classes, names, family.guidance if told else None)


def _family(path: Path, kind: str, names: Mapping[str, str]) -> Family:
    """Returns the family of a pipeline, by its network and its other parts; ``names`` holds the classes of all parts."""
    if not re.fullmatch(r"\w+Pipeline", kind):
        raise InputError(
            f"{path} is not a pipeline of diffusers: its model_index.json calls it {kind[:60]!r}; give another"
        )
    network = names.get("unet") or names.get("transformer")
    for words, task in _OTHER_TASKS.items():
        if re.search(words, f"{kind} {network}"):
            raise InputError(f"{path} is a {kind[:60]}, for {task}; give a text-to-image pipeline: {TITLES}")
    known = [each for each in PIPELINES if names.get(each.part) in each.networks]
    for named in PIPELINES:
        if kind in named.pipelines and (named in known or network is None):
            return named
        if kind in named.pipelines:
            raise InputError(
                f"{path} calls itself a {kind}, and its network is a {network}; give a complete pipeline"
            )
    if not known:
        what = f"whose network is a {network[:60]}" if network else "without a network that is known"
        raise InputError(f"{path} is a {kind[:60]}, {what}; give a text-to-image pipeline: {TITLES}")

    def fit(family: Family) -> tuple[int, int]:
        wanted = family.parts.keys() - family.optional
        return len(wanted - names.keys()), -len(family.parts.keys() & names.keys())

    return min(known, key=fit)


_CODE = (
    "auto_map", "custom_pipelines", "custom_pipeline", "trust_remote_code", "attn_implementation", "_attn_implementation",
    "_attn_implementation_internal", "use_kernels",
)  # fmt: skip
"""Keys that can make a library import or fetch code."""

BITS = "quantization_config"
"""Key that describes the quantization of a part's weights."""

_BITS = re.compile("quant_method|_?load_in_[48]bit|bnb_4bit_[a-z_]+|llm_int8_[a-z0-9_]+")
"""Keys that bitsandbytes uses there; those of other libraries can make them import code."""


def in_few_bits(part: Path) -> bool:
    """Returns whether bitsandbytes quantized the weights of a part.

    Raises:
        InputError: If another library quantized them, or their description has unknown keys.
    """
    said = read_json(part / CONFIG).get(BITS) if (part / CONFIG).is_file() else None
    if not said:
        return False
    known = isinstance(said, dict) and said.get("quant_method") == "bitsandbytes"
    if not known or any(not _BITS.fullmatch(name) or isinstance(value, dict) for name, value in said.items()):
        raise InputError(
            f"the weights of {part} are kept in few bits in a way that igm does not read; give weights of "
            "bitsandbytes, a GGUF file by --network, or the full ones"
        )
    return True


def _refuse_code(part: Path) -> None:
    """Refuses a part whose descriptions name code to run, or files outside its folder."""
    for file in sorted(part.glob("*.json")):
        if file.name in ("vocab.json", "tokenizer.json"):
            continue
        data = read_json(file)
        if data.get(BITS):
            in_few_bits(part)
        if named := [key for key in _CODE if data.get(key)]:
            raise InputError(f"{file} names code to run by {named[0]!r}, which igm does not do; take it out")
        shards = data.get("weight_map") if file.name.endswith(".index.json") else None
        for name in set(shards.values()) if isinstance(shards, dict) else ():
            if not isinstance(name, str) or Path(name).name != name or "\\" in name:
                raise InputError(
                    f"{file} names the file {str(name)[:60]!r}, which is not beside it; correct it"
                )


def weight_files(
    path: Path, variant: str | None, *, network: bool = True
) -> dict[str, tuple[str | None, list[Path]]]:
    """Returns the variant and the files to load of each network; one without the variant loads its plain weights.

    ``network`` says whether to include the denoising network.

    Raises:
        InputError: If weights are missing.
    """
    index = read_index(path)
    networks = [part for part in index.parts if not part.startswith(("scheduler", "tokenizer"))]
    if not network:
        networks.remove(index.family.part)
    here: dict[str, dict[str | None, list[Path]]] = {part: {} for part in networks}
    for part, found in here.items():
        for file in sorted((path / part).iterdir()):
            if match := _WEIGHTS.fullmatch(file.name):
                found.setdefault(match[1] or match[2], []).append(file)
    if variant is not None and not any(variant in found for found in here.values()):
        raise InputError(f"{path} has no {variant} weights; leave out --variant")
    chosen: dict[str, tuple[str | None, list[Path]]] = {}
    for part, found in here.items():
        one = variant if variant in found else None
        if one not in found:
            if named := min((name for name in found if name), default=None):
                raise InputError(f"the {part} of {path} has only {named} weights; use --variant {named}")
            if any(file.suffix in _PICKLES for file in (path / part).iterdir()):
                raise InputError(f"the {part} of {path} {_UNSAFE}")
            raise InputError(f"the {part} of {path} has no weights; give a complete pipeline")
        chosen[part] = one, found[one]
    return chosen


@dataclass(frozen=True)
class PipelineDescription:
    """A pipeline's description of itself in its igm.json, if it has one.

    Attributes:
        space: Labels and templates it was trained on; None if it does not say.
        composition: How its predictions compose; the paper uses the mean with pretrained models.
        inference: Inversion settings: the published ones, overridden by those tuned to its weights.
        generation: Generation settings tuned to its weights, as :class:`igm_cli.core.checkpoint.ModelSpec` has them.
        info: Provenance, as it has it.
    """

    space: Text | None = None
    composition: Composition = "mean"
    inference: Mapping[str, Any] = field(default_factory=lambda: dict(PUBLISHED))
    generation: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)


def read_description(path: Path) -> PipelineDescription:
    """Returns the description of a pipeline; the defaults for a file, or for a folder without igm.json.

    Raises:
        InputError: If igm.json cannot be understood.
    """
    if not (path / DESCRIPTION).is_file():
        return PipelineDescription()
    data = read_json(path / DESCRIPTION)
    try:
        space, composition = ConceptSpace.from_dict(data["space"]), data.get("composition", "mean")
        if not isinstance(space, Text) or composition not in ("sum", "mean"):
            raise ValueError("its concepts are not labels")
        inference = {**PUBLISHED, **data.get("inference", {})}
        generation, info = dict(data.get("generation", {})), dict(data.get("info", {}))
        return PipelineDescription(space, composition, inference, generation, info)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path / DESCRIPTION} does not describe a text-to-image pipeline: {reason(error)}"
        ) from error


def pipeline_fingerprint(path: Path, variant: str | None, network: Path | None = None) -> str:
    """Returns one SHA-256 over all files that are loaded, wherever the folder, or the single file, is.

    ``network`` is the file with the weights of the denoising network, if they are not the folder's own.

    Raises:
        MissingError: If there is no such file.
        InputError: If the folder is no complete pipeline.
    """
    if path.is_file():
        return file_digest(path)
    if network and not network.is_file():
        raise MissingError(f"there is no file {network}; check the path of --network")
    weights = weight_files(path, variant, network=network is None)
    files = [path / PIPELINE, *(file for _, found in weights.values() for file in found)]
    for part in read_index(path).parts:
        files += [file for file in (path / part).iterdir() if file.suffix in (".json", ".txt", ".model")]
    named = sorted((file.relative_to(path).as_posix(), file) for file in files)
    named += [("network", network)] if network else []
    lines = "".join(f"{name} {file_digest(file)}\n" for name, file in named)
    return hashlib.sha256(lines.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a whole file; it is read again only if the file has changed."""
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=256)
def _digest(path: Path, size: int, mtime_ns: int, inode: int) -> str:
    return file_hash(path)


@contextlib.contextmanager
def refusing(sentence: str) -> Iterator[None]:
    """Turns any exception that a library raises into an :class:`InputError`: the sentence, then the reason."""
    try:
        yield
    except IgmError:
        raise
    except Exception as error:  # diffusers and the Rust library under transformers raise bare Exceptions, too
        raise InputError(f"{sentence}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Returns the first line of another library's error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the messages of diffusers, transformers and what they import."""
    need("text", "diffusers", "transformers")
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    before = [(log, log.is_progress_bar_enabled()) for log in (diffusers_logging, transformers_logging)]
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            logging.disable(logging.WARNING)
            for log, _ in before:
                log.disable_progress_bar()
            yield
        finally:
            logging.disable(disabled)
            for log, bars in before:
                if bars:
                    log.enable_progress_bar()
