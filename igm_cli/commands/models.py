"""From what a user calls a model to where it is: a bundled name, a folder, a file or a hub id."""

from __future__ import annotations

import json
import re
from pathlib import Path

from igm_cli.errors import InputError, MissingError, UsageError, near_names

BUNDLED = Path(__file__).resolve().parent.parent / "checkpoints"
"""Checkpoints that come with the package, one folder each."""

DEFAULT_CONCEPTS = "pos"
"""What is looked for when neither a model nor concepts are named."""

LABELS = "labels"
"""Concepts of text-to-image pipelines."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def bundled() -> dict[str, Path]:
    """Checkpoints that come with the package, by name."""
    if not BUNDLED.is_dir():
        return {}
    return {path.parent.name: path.parent for path in sorted(BUNDLED.glob("*/igm.json"))}


def is_pipeline(folder: Path) -> bool:
    """Whether a folder holds a text-to-image pipeline, in the layout of diffusers."""
    return (folder / "model_index.json").is_file()


def bundled_pipelines() -> dict[str, Path]:
    """Those of the bundled checkpoints that are text-to-image pipelines, for ``igm zero-shot``."""
    return {name: folder for name, folder in bundled().items() if is_pipeline(folder)}


def resolve_pipeline(model: str | None) -> tuple[str, str]:
    """The name of a text-to-image pipeline, and its folder, file or hub id.

    Args:
        model: A bundled name, a folder, a .safetensors file or a hub id; None takes the bundled one.

    Raises:
        MissingError: If none is bundled, or there is no such model.
        UsageError: If it is a model of another kind.
    """
    ours = bundled_pipelines()
    if model is None:
        if not ours:
            raise MissingError(
                "no text-to-image model is bundled; give --model with a pipeline folder or a hub id"
            )
        name, folder = next(iter(ours.items()))
        return name, str(folder)
    path = bundled().get(model) or Path(model).expanduser()
    if path.is_dir():
        name = path.resolve().name
        if (path / "igm.json").is_file() and not is_pipeline(path):
            raise UsageError(f"the model {name!r} is no text-to-image pipeline; use igm invert")
        return name, str(path)
    if path.is_file():
        return path.stem, str(path)
    if "/" in model or path.suffix:
        return model, model
    hint = near_names(model, list(ours), "bundled are")
    raise MissingError(
        f"there is no model {model!r}; {hint}; a pipeline folder, a .safetensors file or a hub id works too"
    )


def refuse_pipeline(folder: Path) -> None:
    """Raises a :class:`UsageError` if a folder holds a text-to-image pipeline, which other commands are for."""
    if is_pipeline(folder):
        raise UsageError(f"the model {folder.name!r} is a text-to-image pipeline; use igm zero-shot")


def resolve_model(model: str | None, concepts: str | None) -> Path:
    """The folder of a model.

    Args:
        model: A bundled name, a folder or a hub id; None takes the bundled one of ``concepts``.
        concepts: Name of a concept parser.

    Raises:
        MissingError: If there is no such model here and it cannot be fetched.
    """
    if model is None:
        return _default_model(concepts or DEFAULT_CONCEPTS)
    if model in bundled():
        return bundled()[model]
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise InputError(f"{model} is a file; give the checkpoint folder that holds it")
    if _HUB_ID.fullmatch(model):
        return _from_hub(model)
    ours = [name for name, path in bundled().items() if not is_pipeline(path)]
    hint = near_names(model, ours, "bundled are")
    raise MissingError(f"there is no model {model!r}; {hint}; a checkpoint folder or a hub id works too")


def find_model(model: str | None, concepts: str) -> Path:
    """The model of a benchmark's concepts: a pipeline's folder, file or hub id if they are labels, else a folder.

    Where a benchmark has no concepts it measures no model, and the path is empty.

    Raises:
        MissingError: If there is no such model.
        UsageError: If it is a model of another kind, or none is wanted.
    """
    if not concepts:
        if model is not None:
            raise UsageError("this benchmark measures no model; leave out --model")
        return Path()
    return Path(resolve_pipeline(model)[1]) if concepts == LABELS else resolve_model(model, concepts)


def _default_model(concepts: str) -> Path:
    trained = {}
    for name, folder in bundled().items():
        try:
            trained[name] = json.loads((folder / "igm.json").read_text(encoding="utf-8"))["concepts"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a damaged one is told of when it is named, and by igm doctor
    for name, spoken in trained.items():
        if spoken == concepts:
            return bundled()[name]
    raise MissingError(
        f"no bundled model knows the concepts {concepts!r}; give --model FOLDER, or train one with igm train"
    )


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download

    way_out = "give a checkpoint folder, or connect and try again"
    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.safetensors"]))
    except KeyboardInterrupt:
        raise
    except Exception as error:  # the hub's client raises its own, its transport's and the system's errors
        reason = type(error).__name__
        raise MissingError(
            f"there is no folder {model!r} here and it cannot be fetched from the hub ({reason}); {way_out}"
        ) from error
