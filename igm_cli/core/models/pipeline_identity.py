"""By what a run remembers which pipeline it used, without reading gigabytes of weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

from igm_cli.core.models.pipeline_files import PipelineFolder, choose_variants, open_folder

ENDS = 1 << 20
"""Bytes of a weight file that are read at its head, where its table of contents is, and at its tail."""


def pipeline_fingerprint(path: Path, variant: str | None) -> str:
    """SHA-256 of descriptions as they are and of the sizes and both ends of weights.

    Only what is loaded counts, so that a folder and a hub id of the same files have the same one.

    Args:
        path: Of a pipeline folder or of a single file.
        variant: Of the weights.

    Raises:
        InputError: If the folder is no complete pipeline.
    """
    digest = hashlib.sha256()
    for name, file in _files(path, variant):
        digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        digest.update(_ends(file) if file.suffix == ".safetensors" else file.read_bytes())
    return digest.hexdigest()


def _files(path: Path, variant: str | None) -> list[tuple[str, Path]]:
    """What counts, with the name by which it does: the place in a folder, nothing for a single file."""
    if path.is_file():
        return [("", path)]
    folder = open_folder(path)
    variants = choose_variants(folder, variant)
    found = [path / "model_index.json"]
    for part in _parts(folder):
        files = [file for file in (path / part).iterdir() if file.suffix in (".json", ".txt", ".safetensors")]
        found += [f for f in files if f.suffix != ".safetensors" or _variant(f) == variants.get(part)]
    return [(file.relative_to(path).as_posix(), file) for file in sorted(found)]


def _parts(folder: PipelineFolder) -> list[str]:
    return ["scheduler", *folder.networks, *(f"tokenizer{suffix}" for suffix in folder.encoders)]


def _variant(file: Path) -> str | None:
    """``fp16`` of ``model.fp16.safetensors``; None if it is of none."""
    parts = file.name.split(".")
    return parts[1].split("-")[0] if len(parts) > 2 else None


def _ends(file: Path) -> bytes:
    with file.open("rb") as opened:
        head = opened.read(ENDS)
        opened.seek(max(0, file.stat().st_size - ENDS))
        return head + opened.read(ENDS)
