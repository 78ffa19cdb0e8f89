"""Dataset ``clevr``: the real CLEVR_v1.0 layout, or scenes that the dataset ``clevr-render`` renders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import MissingError, PluginError, UsageError
from igm_cli.plugins import registry
from igm_cli.plugins.base import Progress, RenderedBatches, RenderingAdapter
from igm_cli.plugins.choices import check_request, object_range, preset_files
from igm_cli.plugins.clevr.folder import from_folder

if TYPE_CHECKING:
    import datasets
    import torch

RENDERER = "clevr-render"
"""The dataset that renders scenes; the package igm-clevr-render brings it."""

OBJECTS = {"objects": "least and most objects in an image, e.g. 3-5"}


class Clevr:
    """CLEVR (Johnson et al. 2017): simple objects on a plane."""

    name = "clevr"
    summary = "CLEVR scenes: cubes, spheres and cylinders on a plane"
    licence = "CLEVR_v1.0: CC BY 4.0; rendered images: as this project (MIT)"
    source = "download CLEVR_v1.0 from https://cs.stanford.edu/people/jcjohns/clevr/ and give its folder"
    splits = ("train", "val")
    image_size = (96, 64)
    concepts = "pos"

    @property
    def options(self) -> Mapping[str, str]:
        """Options with one line of help each."""
        return {**OBJECTS, **render_options()}

    @property
    def rendered_options(self) -> frozenset[str]:
        """Options that work on rendered scenes only."""
        return frozenset(render_options())

    @property
    def version(self) -> int:
        """The version of rendered images; 0 where nothing renders them."""
        return int(getattr(renderer(self.name), "version", 0)) if render_options() else 0

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
            split: ``train`` or ``val``.
            data_root: A folder in CLEVR's layout; None renders.
            limit: Loads at most so many images.
            seed: Other seeds render other scenes.
            progress: Called while images are rendered.
            **options: See ``options``.

        Raises:
            UsageError: If the split or an option is unknown.
            InputError: If the folder does not hold CLEVR, or an annotated image is missing.
            MissingError: If scenes are to be rendered and no package does it.
        """
        if data_root is None:
            scenes = self._renderer(split, options)
            return scenes.load(split, limit=limit, seed=seed, progress=progress, **options)
        check_request(self.name, split, self.splits, options, self.options)
        refuse_render_options(options, data_root)
        return from_folder(data_root, split, limit, object_range(options.get("objects")))

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
        scenes = self._renderer(split, options)
        return scenes.render(split, device=device, limit=limit, seed=seed, progress=progress, **options)

    def _renderer(self, split: str, options: Mapping[str, Any]) -> RenderingAdapter:
        """Returns the dataset that renders such a split."""
        scenes = renderer(self.name)
        check_request(self.name, split, self.splits, options, self.options)
        return scenes


def renderer(dataset: str) -> RenderingAdapter:
    """Returns the dataset that renders the scenes of another one.

    Raises:
        MissingError: If no package offers it.
        PluginError: If it is broken.
    """
    if all(item.name != RENDERER for item in registry.listings("datasets")):
        raise MissingError(
            f"no package that renders {dataset} scenes is installed; pip install 'igm-cli[render]', or use real "
            "images only: --data-root FOLDER, in training with a preset that renders none (clevr has 'real')"
        )
    scenes: Any = registry.dataset(RENDERER)
    return scenes  # type: ignore[no-any-return]


def render_options() -> Mapping[str, str]:
    """Returns the options of rendered scenes; none where nothing renders them, which leaves real data usable."""
    try:
        options = registry.dataset(RENDERER).options
    except PluginError:
        return {}
    return {name: text for name, text in options.items() if name not in OBJECTS}


def refuse_render_options(options: Mapping[str, Any], data_root: Path) -> None:
    """Refuses options that real data do not take.

    Raises:
        UsageError: If there is one.
    """
    wrong = sorted(set(options) & set(render_options()))
    if wrong:
        raise UsageError(f"option {wrong[0]!r} works on rendered scenes only, not on {data_root}")
