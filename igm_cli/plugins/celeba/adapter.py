"""Dataset ``celeba``: the real CelebA in its published layouts, or avatars drawn by igm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from igm_cli.plugins.adapters import Adapter, Dataset, Generator, SplitRequest, choice, generated
from igm_cli.plugins.celeba.folder import from_folder

DOMAINS = {"female": False, "male": True, "all": None}
"""Values of the attribute Male; ``all`` takes both."""


class Celeba(Adapter):
    """CelebA (Liu et al. 2015): faces with 40 attributes.

    The columns of a split are ``image``, ``file`` and ``attributes`` (name to whether it holds).
    """

    name = "celeba"
    summary = "faces with attributes; drawn avatars where no CelebA is given"
    licence = "CelebA: non-commercial research only"
    own_licence = "drawn faces: python-avatars (MIT), as this project (MIT)"
    source = "download CelebA from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and give its folder"
    image_size = (64, 64)
    concepts = "attributes"
    options: Mapping[str, str] = {
        "domain": "female (the paper trains on it), male or all, by the attribute Male",
        "style": "flat, or outlined as a cartoon (drawn faces only)",
        "size": "how many faces to draw (drawn faces only)",
    }
    rendered_options = frozenset(("style", "size"))
    drawn = "drawn faces"
    sizes: Mapping[str, int] = {"train": 24000, "val": 400, "test": 400}
    version = 1

    def make(self, request: SplitRequest) -> Dataset:
        """Returns avatars with all configurations of the attributes equally often."""
        from igm_cli.plugins.celeba.avatars import STYLES, libraries
        from igm_cli.plugins.celeba.recipe import ATTRIBUTES

        kwargs = {
            "domain": choice("domain", request.options.get("domain", "all"), DOMAINS),
            "style": choice("style", request.options.get("style", "flat"), STYLES),
            **self.requested(request),
        }
        libraries()
        columns = {"image": "image", "file": "string", "attributes": dict.fromkeys(ATTRIBUTES, "bool")}
        return generated(_Drawings(request.progress), columns, kwargs)

    def read(self, root: Path, request: SplitRequest) -> Dataset:
        """Returns faces of the real CelebA."""
        domain = choice("domain", request.options.get("domain", "all"), DOMAINS)
        return from_folder(root, request, DOMAINS[domain])


class _Drawings(Generator):
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
