"""Locates the model that a user names: a bundled name, a folder, a file or hf:owner/name on the hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from os import PathLike
from pathlib import Path

from igm_cli.core.files import DESCRIPTION, HUB, HUB_ID, PIPELINE, home_expanded
from igm_cli.errors import InputError, MissingError, UsageError, near_names

BUNDLED = Path(__file__).resolve().parent / "checkpoints"
"""Checkpoints that come with the package, one folder each."""

_DESCRIPTIONS, _CHECKPOINT = (DESCRIPTION, PIPELINE), ("*.json", "*.safetensors")
"""Files that tell which kind of model a folder holds, and the files of a trained checkpoint."""

DEFAULT_CONCEPTS = {"checkpoint": "pos", "pipeline": "labels", "vectors": "codebook"}
"""Default concept parsers of trained checkpoints, text-to-image pipelines and bound vectors."""


def bundled() -> dict[str, Path]:
    """Returns the checkpoints that come with the package, by name."""
    if not BUNDLED.is_dir():
        return {}
    return {path.parent.name: path.parent for path in sorted(BUNDLED.glob(f"*/{DESCRIPTION}"))}


def is_pipeline(path: Path) -> bool:
    """Returns whether a path holds a text-to-image pipeline: a folder in the layout of diffusers, or a single file."""
    return path.is_file() or (path / PIPELINE).is_file()


def named(model: str | PathLike[str] | None) -> str | None:
    """Returns a model as a user names it; an existing path is absolute, so that no name of a bundled model is read in it."""
    if isinstance(model, PathLike) and (path := home_expanded(model)).exists():
        return str(path.absolute())
    return None if model is None else str(model)


def names_pipeline(model: str | None, concepts: str | None) -> bool:
    """Returns whether a user's model name is that of a text-to-image pipeline; from the hub only its description is fetched."""
    if model is None:
        return is_pipeline(_default_model(concepts or DEFAULT_CONCEPTS["checkpoint"]))
    if _asks_hub(model):
        return is_pipeline(_described(model.removeprefix(HUB)))
    path = _local(model)
    if path is None and HUB_ID.fullmatch(model):
        with suppress(MissingError):
            path = _from_hub(model, _DESCRIPTIONS, fetch=False)
    return path is not None and is_pipeline(path)


def names_checkpoint(model: str) -> bool:
    """Returns whether a user's model name is that of a trained checkpoint on this machine, which takes no labels."""
    path = _local(model)
    return path is not None and (path / DESCRIPTION).is_file() and not is_pipeline(path)


def resolve_pipeline(model: str | None) -> tuple[str, str]:
    """Returns the name of a text-to-image pipeline, and its folder, file or hub name; None takes the bundled one."""
    ours = {name: folder for name, folder in bundled().items() if is_pipeline(folder)}
    if model is None:
        if not ours:
            raise MissingError(
                "no text-to-image model is bundled; give --model with a pipeline folder or hf:owner/name"
            )
        name, folder = next(iter(ours.items()))
        return name, str(folder)
    if _asks_hub(model):
        return model.removeprefix(HUB), model
    path = _local(model)
    if path is None and ("/" in model or Path(model).suffix):
        return model, model
    if path is None:
        hint = near_names(model, list(ours), "bundled are")
        raise MissingError(
            f"there is no model {model!r}; {hint}; a pipeline folder, a .safetensors file or hf:owner/name works too"
        )
    name = path.resolve().name if path.is_dir() else path.stem
    if names_checkpoint(model):
        raise UsageError(f"the model {name!r} is not a text-to-image pipeline; use igm invert")
    return name, str(path)


def resolve_model(model: str | None, concepts: str | None) -> Path:
    """Returns the folder of a trained checkpoint; None takes the bundled one for the parser named ``concepts``."""
    if model is None:
        return _default_model(concepts or DEFAULT_CONCEPTS["checkpoint"])
    if _asks_hub(model):
        name = model.removeprefix(HUB)
        folder = _described(name)
        return folder if is_pipeline(folder) else _from_hub(name, _CHECKPOINT, fetch=True)
    path = _local(model)
    if path is not None and path.is_file():
        raise InputError(f"{model} is a file; give the checkpoint folder that holds it")
    if path is not None:
        return path
    if HUB_ID.fullmatch(model):
        return _from_hub(model, _CHECKPOINT, fetch=False)
    hint = near_names(model, list(bundled()), "bundled are")
    raise MissingError(f"there is no model {model!r}; {hint}; a checkpoint folder or hf:owner/name works too")


def find_model(model: str | None, concepts: str) -> Path:
    """Returns the path of the model that a benchmark measures; an empty path if it measures none (no ``concepts``)."""
    if not concepts:
        if model is not None:
            raise UsageError("this benchmark measures no model; leave out --model")
        return Path()
    if concepts == DEFAULT_CONCEPTS["pipeline"]:
        return Path(resolve_pipeline(model)[1])
    return resolve_model(model, concepts)


def local() -> dict[str, Path]:
    """Returns the models trained here, those in ``runs`` of the current folder, by the names that users give them."""
    return {path.parent.as_posix(): path.parent for path in sorted(Path("runs").glob(f"*/{DESCRIPTION}"))}


def cached() -> dict[str, Path]:
    """Returns the models in the cache of the Hugging Face hub, by ``owner/name``: igm's, and text-to-image pipelines."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return {}
    found = {}
    for repository in sorted(repositories, key=lambda each: each.repo_id):
        if repository.repo_type == "model" and repository.revisions:
            newest = max(repository.revisions, key=lambda each: ("main" in each.refs, each.last_modified))
            folder = newest.snapshot_path
            if (folder / DESCRIPTION).is_file() or is_pipeline(folder):
                found[repository.repo_id] = folder
    return found


def name_of(folder: Path) -> str:
    """Returns the name of a folder's model in records: the folder's own, or ``owner/name`` in the hub's cache."""
    if folder.parent.name == "snapshots":
        return folder.parents[1].name.removeprefix("models--").replace("--", "/", 1)
    return folder.name


def find_folder(model: str) -> Path:
    """Returns the folder of a local model: a bundled name, a folder, or ``owner/name`` in the hub's cache.

    Raises:
        MissingError: If there is none, or it was not written by igm.
    """
    folder = _local(model)
    if folder is None and HUB_ID.fullmatch(model.removeprefix(HUB)):
        folder = cached().get(model.removeprefix(HUB))
    if folder is None:
        hint = near_names(model, [*bundled(), *local()], "here are")
        raise MissingError(f"there is no model {model!r}; {hint}; igm models lists all")
    if not (folder / DESCRIPTION).is_file():
        what = "is a text-to-image pipeline that igm did not write" * (folder.is_dir() and is_pipeline(folder))
        raise MissingError(
            f"{model} {what or 'is not a model of igm'}: it has no igm.json; name a folder that igm train wrote"
        )
    return folder


def _local(model: str) -> Path | None:
    """Returns the folder of a bundled name, or the folder or file at a path; None if neither exists.

    Raises:
        UsageError: If the name is that of a bundled model and of a model's folder here.
    """
    path, ours = home_expanded(model), bundled().get(model)
    if ours and any((path / name).is_file() for name in _DESCRIPTIONS) and not path.samefile(ours):
        raise UsageError(
            f"{model} is a bundled model and a folder here; write ./{model} for the folder, or {ours} for the bundled one"
        )
    path = ours or path
    return path if path.exists() else None


def _default_model(concepts: str) -> Path:
    for folder in bundled().values():
        try:
            known = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            if known["concepts"] == concepts and known.get("info", {}).get("default", True):
                return folder
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged ones are reported when named, and by igm doctor
    raise MissingError(
        f"no bundled model knows the concepts {concepts!r}; give --model FOLDER, or train one with igm train"
    )


def _asks_hub(model: str) -> bool:
    """Returns whether a name makes igm ask the hub, which :func:`igm_cli.app.main` announces beforehand."""
    if not model.startswith(HUB):
        return False
    name = model.removeprefix(HUB)
    if not HUB_ID.fullmatch(name):
        raise UsageError(f"{model!r} names no model of the Hugging Face hub; write hf:owner/name")
    return True


@cache
def _described(name: str) -> Path:
    """Returns the folder of a model of the hub, with its description fetched; the hub is asked once in the life of a process."""
    return _from_hub(name, _DESCRIPTIONS, fetch=True)


def _from_hub(model: str, patterns: Sequence[str], fetch: bool) -> Path:
    from igm_cli.core.hub import snapshot

    return snapshot(model, patterns, fetch=fetch)
