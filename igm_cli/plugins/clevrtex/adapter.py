"""Dataset ``clevrtex``: the real CLEVRTex layout, or textured scenes that the dataset ``clevr-render`` renders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import UsageError
from igm_cli.plugins.base import Progress, RenderedBatches, RenderingAdapter
from igm_cli.plugins.choices import check_request, object_range, preset_files
from igm_cli.plugins.clevr.adapter import OBJECTS, refuse_render_options, render_options, renderer
from igm_cli.plugins.clevrtex.folder import from_folder

if TYPE_CHECKING:
    import datasets
    import torch

_GIVEN = {"variant": "full, pbg, vbg, grassbg, camo or outd, where the folder holds several (real data only)"}
# Ground and objects each wear one of all textures, in any colour and, as in CLEVRTex, in three sizes.
_RENDERED = {"texture": "all", "colors": "all", "sizes": "small,medium,large"}


class ClevrTex:
    """CLEVRTex (Karazija et al. 2021): CLEVR's scenes with textures on objects and ground."""

    name = "clevrtex"
    summary = "CLEVRTex scenes: textured objects on a textured plane"
    licence = "CLEVRTex: see its project page; rendered images: as this project (MIT)"
    source = "download ClevrTex from https://www.robots.ox.ac.uk/~vgg/data/clevrtex/ and give its folder"
    splits = ("train", "val", "test")
    image_size = (96, 64)
    concepts = "pos"

    @property
    def options(self) -> Mapping[str, str]:
        """Options with one line of help each."""
        return {**OBJECTS, **_GIVEN, **render_options()}

    @property
    def rendered_options(self) -> frozenset[str]:
        """Options that work on rendered scenes only."""
        return frozenset(render_options())

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
        """Returns a split with columns ``image``, ``image_index``, ``file`` and ``objects``.

        Args:
            split: ``train``, ``val`` or ``test``.
            data_root: A folder in CLEVRTex' layout; None renders.
            limit: Loads at most so many images.
            seed: Other seeds render other scenes.
            progress: Called while images are rendered or annotations read.
            **options: See ``options``.

        Raises:
            UsageError: If the split, the variant or an option is unknown.
            InputError: If the folder does not hold CLEVRTex, or holds it in part.
            MissingError: If scenes are to be rendered and no package does it.
        """
        if data_root is None:
            scenes = self._renderer(split, options)
            return scenes.load(split, limit=limit, seed=seed, progress=progress, **{**_RENDERED, **options})
        check_request(self.name, split, self.splits, options, self.options)
        refuse_render_options(options, data_root)
        variant = options.get("variant")
        counts = object_range(options.get("objects"))
        return from_folder(data_root, split, limit, counts, None if variant is None else str(variant), progress)

    def render(
        self,
        split: str,
        *,
        device: torch.device,
        limit: int | None,
        seed: int,
        progress: Progress,
        **options: Any,
    ) -> RenderedBatches:
        """Returns what :meth:`load` renders, rendered on a device."""
        scenes, options = self._renderer(split, options), {**_RENDERED, **options}
        return scenes.render(split, device=device, limit=limit, seed=seed, progress=progress, **options)

    def _renderer(self, split: str, options: Mapping[str, Any]) -> RenderingAdapter:
        """Returns the dataset that renders such a split."""
        scenes = renderer(self.name)
        check_request(self.name, split, self.splits, options, self.options)
        if "variant" in options:
            raise UsageError("option 'variant' works on real data only; give its folder as data root")
        return scenes
