"""What ``invert`` and ``estimate-k`` need for bound vectors: options that fit, and codebooks made ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from igm_cli.errors import UsageError
from igm_cli.output import process_rank

if TYPE_CHECKING:
    import torch

    from igm_cli.core.decomposition.codebooks import Codebooks
    from igm_cli.plugins.base import VectorParser

CONCEPTS = "codebook"
SUFFIXES = (".npy", ".npz", ".safetensors")
"""What a folder is searched for."""


def about_vectors(concepts: str | None, codebooks: Path | None) -> bool:
    """Whether a command is about bound vectors, not images."""
    return codebooks is not None or concepts == CONCEPTS


def require_no_codebooks(**given: Any) -> None:
    """Refuses options that only bound vectors have.

    Raises:
        UsageError: If one is given.
    """
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"--{name} is about bound vectors; add --codebooks or leave it out")


@dataclass(frozen=True)
class Asked:
    """What a command about bound vectors is asked for, as the options have it."""

    paths: Sequence[str]
    concepts: str | None
    codebooks: Path | None
    binding: str | None
    seed: int | None
    device: str
    as_json: bool
    output: Path | None

    @staticmethod
    def refuse(**given: Any) -> None:
        """Refuses options that only images have.

        Raises:
            UsageError: If one is given.
        """
        for name, value in given.items():
            if value is not None:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} is about images; leave it out where bound vectors are taken apart")

    def source(self) -> Path:
        """The file of codebooks.

        Raises:
            UsageError: If none is given.
        """
        if self.codebooks is None:
            raise UsageError(f"--concepts {CONCEPTS} needs the codebooks; add --codebooks FILE.safetensors")
        return self.codebooks.expanduser()


@dataclass(frozen=True)
class CodebookSession:
    """Codebooks made ready.

    Attributes:
        parser: Of their concepts.
        codebooks: On the device.
        source: Their file.
        files: Of bound vectors.
        seed: Of everything random.
        device: Where it is computed.
        run: Fingerprint of everything that decides about a result but the vector.
    """

    parser: VectorParser
    codebooks: Codebooks
    source: Path
    files: Sequence[Path]
    seed: int
    device: torch.device
    run: str

    def line(self, schema: str, path: Path, number: int) -> dict[str, Any]:
        """The part of a JSON line that both commands write, but for what ends it."""
        return {
            "schema": schema,
            "input": str(path),
            "vector": number,
            "concepts": self.parser.name,
            "codebooks": str(self.source),
            "binding": self.codebooks.binding.name,
        }

    def end(self, seconds: float) -> dict[str, Any]:
        """What ends a JSON line."""
        return {"seconds": round(seconds, 6), "device": str(self.device), "run": self.run}


def open_codebooks(asked: Asked, **settings: Any) -> CodebookSession:
    """Reads the codebooks and finds the files of vectors.

    Args:
        asked: The options.
        **settings: What else decides about a result.

    Raises:
        IgmError: With the way out, whatever does not fit.
    """
    from igm_cli.commands.session import run_fingerprint
    from igm_cli.imaging import expand_inputs
    from igm_cli.plugins import registry

    source = asked.source()
    if process_rank()[1] > 1:
        raise UsageError("bound vectors are taken apart by one process; start igm without accelerate launch")
    files = expand_inputs(asked.paths, SUFFIXES, "file of vectors")
    plain = registry.concept_parser(asked.concepts or CONCEPTS, typed=True)
    if not hasattr(plain, "read_codebooks"):
        raise UsageError(f"--codebooks is none of --concepts {plain.name}; use --concepts {CONCEPTS}")

    from igm_cli.core.device import keep_freed_memory, resolve_device

    device = resolve_device(asked.device)
    codebooks = cast("VectorParser", plain).read_codebooks(source, asked.binding)
    sizes = {"sizes": list(codebooks.sizes), "dim": codebooks.dim}
    parser = cast("VectorParser", registry.configured(plain, sizes))
    if device.type == "cpu":
        keep_freed_memory()
    identity = {
        "codebooks": _content(source),
        "concepts": parser.name,
        "binding": codebooks.binding.name,
        "seed": asked.seed or 0,
        **settings,
    }
    run = run_fingerprint(identity)
    return CodebookSession(parser, codebooks.to(device), source, files, asked.seed or 0, device, run)


def _content(path: Path) -> str:
    """Fingerprint of a file's content."""
    import hashlib

    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
