"""Dataset ``clevr``: the real CLEVR_v1.0 layout, or scenes that the dataset ``clevr-render`` renders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from igm_cli.errors import MissingError, PluginError
from igm_cli.plugins import registry
from igm_cli.plugins.adapters import Adapter, Dataset, Options, SplitRequest
from igm_cli.plugins.base import Progress, RenderedBatches, RenderingAdapter
from igm_cli.plugins.clevr.folder import from_folder
from igm_cli.plugins.sizes import HELP

if TYPE_CHECKING:
    import torch

RENDERER = "clevr-render"
"""The dataset that renders scenes, from the package igm-clevr-render."""


class Clevr(Adapter):
    """CLEVR (Johnson et al. 2017): simple objects on a plane.

    The columns of a split are ``image``, ``image_index``, ``file`` and ``objects``.
    """

    name = "clevr"
    summary = "CLEVR scenes: cubes, spheres and cylinders on a plane"
    licence = "images given: as they are (CLEVR_v1.0: CC BY 4.0)"
    own_licence = "rendered images: as this project (MIT)"
    source = "download CLEVR_v1.0 from https://cs.stanford.edu/people/jcjohns/clevr/ and give its folder"
    splits: tuple[str, ...] = ("train", "val")
    image_size = (96, 64)
    concepts = "pos"
    given: Mapping[str, str] = {
        "objects": "least and most objects in an image, e.g. 3-5",
        "annotated": HELP,
    }  # options of real data
    folder_options = frozenset(("annotated",))
    look: Mapping[str, str] = {}  # options of rendered scenes that are not the renderer's own defaults

    @property
    def options(self) -> Mapping[str, str]:  # type: ignore[override]
        """Options with one line of help each; those of rendered scenes only if a renderer is installed."""
        try:
            rendered = registry.dataset(RENDERER).options
        except PluginError:  # real data stay usable
            rendered = {}
        return {
            **self.given,
            **{name: f"{text} (rendered only)" for name, text in rendered.items() if name not in self.given},
        }

    @property
    def rendered_options(self) -> frozenset[str]:  # type: ignore[override]
        """Options that work on rendered scenes only."""
        return frozenset(self.options.keys() - self.given.keys())

    @property
    def version(self) -> int:  # type: ignore[override]
        """The version of rendered images; 0 without a renderer."""
        return int(getattr(self.renderer(), "version", 0)) if self.rendered_options else 0

    def renderer(self) -> RenderingAdapter:
        """Returns the dataset that renders these scenes; a MissingError if no package offers it."""
        if all(item.name != RENDERER for item in registry.listings("datasets")):
            raise MissingError(
                f"no package that renders {self.name} scenes is installed; pip install 'igm-cli[render]', or use "
                "images of yours: --data-root FOLDER, without --builtin"
            )
        return cast("RenderingAdapter", registry.dataset(RENDERER))

    def check(self, split: str, data_root: Path | None, options: Options) -> None:
        """Refuses what :class:`Adapter` does, and rendered scenes without a renderer."""
        if data_root is None:
            self.renderer()
        super().check(split, data_root, options)

    def requested(self, request: SplitRequest) -> dict[str, Any]:
        """Returns what determines the scenes to render."""
        renderer: Any = self.renderer()
        return dict(renderer.requested(request))

    def make(self, request: SplitRequest) -> Dataset:
        """Returns rendered scenes."""
        r = request
        how: dict[str, Any] = {"limit": r.limit, "seed": r.seed, "progress": r.progress}
        return self.renderer().load(r.split, **how, **{**self.look, **r.options})

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
        """Returns what :meth:`make` returns, rendered on a device."""
        self.check(split, None, options)
        how: dict[str, Any] = {"limit": limit, "seed": seed, "progress": progress, **self.look, **options}
        return self.renderer().render(split, device=device, **how)

    def read(self, root: Path, request: SplitRequest) -> Dataset:
        """Returns scenes of the real CLEVR."""
        return from_folder(root, request)
