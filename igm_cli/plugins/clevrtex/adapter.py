"""Dataset ``clevrtex``: the real CLEVRTex layout, or textured scenes that the dataset ``clevr-render`` renders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from igm_cli.errors import UsageError
from igm_cli.plugins.adapters import Dataset, Options, object_range
from igm_cli.plugins.base import Note, Progress
from igm_cli.plugins.clevr.adapter import Clevr
from igm_cli.plugins.clevrtex.folder import from_folder


class ClevrTex(Clevr):
    """CLEVRTex (Karazija et al. 2021): CLEVR's scenes with textures on objects and ground."""

    name = "clevrtex"
    summary = "CLEVRTex scenes: textured objects on a textured plane"
    licence = "CLEVRTex: see its project page; rendered images: as this project (MIT)"
    source = "download ClevrTex from https://www.robots.ox.ac.uk/~vgg/data/clevrtex/ and give its folder"
    splits = ("train", "val", "test")
    given = Clevr.given | {  # type: ignore[operator]
        "variant": "full, pbg, vbg, grassbg, camo or outd, where the folder holds several (real data only)"
    }
    # Ground and objects each wear one of all textures, in any colour and, as in CLEVRTex, in three sizes.
    look: Mapping[str, str] = {"texture": "all", "colors": "all", "sizes": "small,medium,large"}

    def check(self, split: str, data_root: Path | None, options: Options) -> None:
        """Refuses what :class:`Clevr` does, and a variant of rendered scenes."""
        super().check(split, data_root, options)
        if data_root is None and "variant" in options:
            raise UsageError("option 'variant' works on real data only; give its folder as data root")

    def read(
        self,
        root: Path,
        split: str,
        limit: int | None,
        seed: int,
        progress: Progress | None,
        note: Note,
        options: Options,
    ) -> Dataset:
        """Returns scenes of the real CLEVRTex."""
        variant = options.get("variant")
        counts = object_range(options.get("objects"))
        return from_folder(root, split, limit, counts, None if variant is None else str(variant), progress)
