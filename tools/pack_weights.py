"""Packs the weights of a checkpoint or pipeline folder, in place: large ones to 8 bits, the others to 16.

    python tools/pack_weights.py FOLDER ...

The bundled models are packed, which halves the wheel; igm loads packed and other folders alike.  diffusers itself does
not read a packed pipeline, so that what ``igm train`` writes is not packed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from igm_cli.core.weights import read_weights, write_weights

NETWORKS = {"", "unet", "vae"}
"""Folders within one that are packed: a text encoder is small and left to transformers."""


def main() -> None:
    """Prints each file with its size before and after."""
    for folder in map(Path, sys.argv[1:] or sys.exit(__doc__)):
        for path in sorted(folder.rglob("*.safetensors")):
            if path.relative_to(folder).parent.name in NETWORKS:
                before = path.stat().st_size
                write_weights(path, read_weights(path), torch.int8)
                print(f"{path}: {before / 1e6:.1f} to {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
