"""Dataset ``clevrtex``: the real CLEVRTex layout, or textured scenes that the dataset ``clevr-render`` renders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from igm_cli.plugins.adapters import SPLITS, Dataset, SplitRequest
from igm_cli.plugins.clevr.adapter import Clevr
from igm_cli.plugins.clevrtex.folder import from_folder


class ClevrTex(Clevr):
    """CLEVRTex (Karazija et al. 2021): CLEVR's scenes with textures on objects and ground."""

    name = "clevrtex"
    summary = "CLEVRTex scenes: textured objects on a textured plane"
    licence = "images given: as they are (CLEVRTex: see its project page)"
    source = "download ClevrTex from https://www.robots.ox.ac.uk/~vgg/data/clevrtex/ and give its folder"
    splits = SPLITS
    given = Clevr.given | {  # type: ignore[operator]
        "variant": "full, pbg, vbg, grassbg, camo or outd, where the folder holds several (real data only)"
    }
    folder_options = frozenset(("annotated", "variant"))
    # Ground and objects each have any texture, in any colour and, as in CLEVRTex, in three sizes.
    look: Mapping[str, str] = {"texture": "all", "colors": "all", "sizes": "small,medium,large"}

    def read(self, root: Path, request: SplitRequest) -> Dataset:
        """Returns scenes of the real CLEVRTex."""
        return from_folder(root, request)
