"""Packs the weights of a checkpoint or pipeline folder, in place: large ones to 8 bits, the others to 16.

    python tools/pack_weights.py [--unpack] FOLDER ...

The bundled models are packed, which nearly halves the wheel; igm loads packed and other folders alike.  diffusers alone would
take the 8-bit integers for the weights, so that what ``igm train`` writes is not packed; with --unpack the weights of
a folder are all float16 again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from igm_cli.core.weights import read_weights, write_weights

NETWORKS = {"", "unet", "vae"}
"""Subfolders that are packed; a text encoder is small and left to transformers."""


def main() -> None:
    """Prints each file with its size before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="changed in place")
    parser.add_argument("--unpack", action="store_true", help="write float16 weights, which diffusers reads")
    options = parser.parse_args()
    for folder in options.folders:
        for path in sorted(folder.rglob("*.safetensors")):
            if path.relative_to(folder).parent.name in NETWORKS:
                before = path.stat().st_size
                write_weights(path, read_weights(path), torch.float16 if options.unpack else torch.int8)
                print(f"{path}: {before / 1e6:.1f} to {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
