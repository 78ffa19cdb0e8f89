"""Dataset ``celeba``: the real CelebA in its published layouts, or avatars drawn by ourselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import UsageError, need
from igm_cli.plugins.base import Progress
from igm_cli.plugins.celeba.folder import from_folder
from igm_cli.plugins.choices import check_choice, check_request, image_count, preset_files
from igm_cli.plugins.generated import SPLIT_SEEDS, Generator, generated

if TYPE_CHECKING:
    import datasets

DOMAINS = {"female": False, "male": True, "all": None}
"""Values of the attribute Male; ``all`` takes both."""

_DRAWN_SIZES = {"train": 24000, "val": 400, "test": 400}

DRAWN = {
    "style": "flat, or outlined as a cartoon (drawn faces only)",
    "size": "how many faces to draw (drawn faces only)",
}
_OPTIONS = {"domain": "female (the paper trains on it), male or all, by the attribute Male"} | DRAWN


class Celeba:
    """CelebA (Liu et al. 2015): faces with 40 attributes."""

    name = "celeba"
    summary = "faces with attributes; drawn avatars where no CelebA is given"
    licence = "CelebA: non-commercial research only; drawn faces: python-avatars (MIT), as this project (MIT)"
    source = "download CelebA from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and give its folder"
    splits = ("train", "val", "test")
    image_size = (64, 64)
    concepts = "attributes"
    options: Mapping[str, str] = _OPTIONS
    version = 1
    """Raise it whenever drawn faces change, so that caches are drawn anew."""
    rendered_options: frozenset[str] = frozenset(DRAWN)

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
        """A split with columns ``image``, ``file`` and ``attributes`` (name to whether it holds).

        Raises:
            UsageError: If the split or an option is unknown.
            InputError: If the folder does not hold CelebA.
            MissingError: If avatars are to be drawn and the libraries are not installed.
        """
        check_request(self.name, split, self.splits, options, _OPTIONS)
        domain = options.get("domain", "all")
        check_choice("domain", domain, DOMAINS)
        if data_root is None:
            return _drawn(split, domain, limit, seed, progress, options)
        drawn_only = sorted(set(options) & self.rendered_options)
        if drawn_only:
            raise UsageError(f"option {drawn_only[0]!r} works on drawn faces only, not on {data_root}")
        return from_folder(data_root, split, DOMAINS[domain], limit)


def _drawn(
    split: str, domain: str, limit: int | None, seed: int, progress: Progress | None, options: Mapping[str, Any]
) -> datasets.Dataset:
    """Avatars: every configuration of the attributes as often as any other."""
    need("train", "datasets")
    import datasets

    from igm_cli.plugins.celeba.avatars import STYLES, libraries
    from igm_cli.plugins.celeba.recipe import ATTRIBUTES

    style = options.get("style", "flat")
    check_choice("style", style, STYLES)
    size = image_count(options.get("size", _DRAWN_SIZES[split]))
    libraries()
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "file": datasets.Value("string"),
            "attributes": {name: datasets.Value("bool") for name in ATTRIBUTES},
        }
    )
    kwargs = {
        "domain": domain,
        "style": style,
        "count": min(size, limit) if limit else size,
        "seed": seed + SPLIT_SEEDS[split],
        "version": Celeba.version,
    }
    return generated(_Drawings(progress), features, kwargs)


class _Drawings(Generator):
    """Draws faces."""

    def __call__(
        self, domain: str, style: str, count: int, seed: int, version: int
    ) -> Iterator[dict[str, Any]]:
        from igm_cli.plugins.celeba.avatars import render_face
        from igm_cli.plugins.celeba.recipe import balanced_face

        for index in range(count):
            face = balanced_face(index, seed, DOMAINS[domain])
            self.report("drawing faces", index, count)
            yield {
                "image": render_face(face, style=style),
                "file": f"face_{index:06d}.png",
                "attributes": face.attributes,
            }
