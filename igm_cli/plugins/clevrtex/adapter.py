"""Dataset ``clevrtex``: the real CLEVRTex layout, or our own renders with textures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import UsageError
from igm_cli.plugins.base import Progress
from igm_cli.plugins.choices import check_request, preset_files
from igm_cli.plugins.clevr.adapter import OBJECTS, RENDERED, rendered
from igm_cli.plugins.clevr.choices import object_range
from igm_cli.plugins.clevrtex.folder import from_folder

if TYPE_CHECKING:
    import datasets

_GIVEN = {"variant": "full, pbg, vbg, grassbg, camo or outd, where the folder holds several (real data only)"}
_OPTIONS = OBJECTS | _GIVEN | RENDERED


class ClevrTex:
    """CLEVRTex (Karazija et al. 2021): CLEVR's scenes with textures on objects and ground."""

    name = "clevrtex"
    summary = "CLEVRTex scenes: textured objects on a textured plane"
    licence = "CLEVRTex: see its project page; rendered images: as this project (MIT)"
    source = "download ClevrTex from https://www.robots.ox.ac.uk/~vgg/data/clevrtex/ and give its folder"
    splits = ("train", "val", "test")
    image_size = (96, 64)
    concepts = "pos"
    options: Mapping[str, str] = _OPTIONS
    rendered_options: frozenset[str] = frozenset(RENDERED)

    @property
    def presets(self) -> Mapping[str, Path]:
        """The TOML files beside this module."""
        return preset_files(Path(__file__).parent)

    def load(
        self,
        split: str,
        *,
        data_root: Path | None = None,
        limit: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> datasets.Dataset:
        """A split with columns ``image``, ``image_index``, ``file`` and ``objects``.

        Raises:
            UsageError: If the split, the variant or an option is unknown.
            InputError: If the folder does not hold CLEVRTex, or holds it in part.
        """
        check_request(self.name, split, self.splits, options, _OPTIONS)
        wrong = sorted(set(options) & (set(_GIVEN) if data_root is None else self.rendered_options))
        if data_root is None:
            if wrong:
                raise UsageError(f"option {wrong[0]!r} works on real data only; give its folder as data root")
            return rendered(split, limit, seed, progress, {**_rendered_default(), **options})
        if wrong:
            raise UsageError(f"option {wrong[0]!r} works on rendered scenes only, not on {data_root}")
        variant = options.get("variant")
        counts = object_range(options.get("objects"))
        return from_folder(data_root, split, limit, counts, None if variant is None else str(variant), progress)


def _rendered_default() -> dict[str, str]:
    """Ground and objects each wear one of all textures, in any colour and, as in CLEVRTex, in three sizes."""
    from igm_cli.plugins.clevr.options import COLORS
    from igm_cli.plugins.clevr.textures import TEXTURES

    return {"texture": ",".join(TEXTURES), "colors": ",".join(COLORS), "sizes": "small,medium,large"}
