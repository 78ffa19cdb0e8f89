"""The image sets of the benchmark: what was trained on, more objects, and shifts never trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from igm_cli.benchmarks.frame.images import Scenes, folder_of
from igm_cli.benchmarks.suite import Request
from igm_cli.plugins import registry
from igm_cli.plugins.base import ConceptParser

DATASET = "clevr"
RENDERED = 200  # images of a rendered split, unless more are asked for


@dataclass(frozen=True)
class Split:
    """One set of images.

    Attributes:
        about: One line.
        options: Of the dataset adapter.
        folder: Whether the images come from the given folder instead of the renderer.
    """

    about: str
    options: Mapping[str, Any]
    folder: bool = False


SPLITS: dict[str, Split] = {
    "folder-3-5": Split("3 to 5 objects, of --data-root", {"objects": "3-5"}, folder=True),
    "folder-6-8": Split("6 to 8 objects, of --data-root", {"objects": "6-8"}, folder=True),
    "folder": Split("all validation images of --data-root", {}, folder=True),
    "3-5": Split("3 to 5 objects, rendered", {"objects": "3-5"}),
    "6-8": Split("6 to 8 objects, rendered", {"objects": "6-8"}),
    "9-10": Split("9 to 10 objects, rendered", {"objects": "9-10"}),
    "color": Split(
        "3 to 5 objects in colours never trained on",
        {"objects": "3-5", "colors": "orange,pink,white,black,olive,navy,lime,magenta"},
    ),
    "light": Split("3 to 5 objects under lamps never trained on", {"objects": "3-5", "light": "shifted"}),
    "size": Split("3 to 5 objects of sizes never trained on", {"objects": "3-5", "sizes": "tiny,medium,huge"}),
    "shape": Split("3 to 5 objects of a shape never trained on", {"objects": "3-5", "shapes": "cone"}),
    "texture-3-5": Split(
        "3 to 5 objects, all surfaces textured", {"objects": "3-5", "texture": "checker,stripes,noise"}
    ),
    "texture-6-8": Split(
        "6 to 8 objects, all surfaces textured", {"objects": "6-8", "texture": "checker,stripes,noise"}
    ),
}


def load_split(name: str, request: Request, image_size: tuple[int, int], parser: ConceptParser) -> Scenes:
    """The images of a split.

    Args:
        name: One of :data:`SPLITS`.
        request: Says the folder, how many, and the seed.
        image_size: (width, height) that models see.
        parser: Reads annotations.

    Raises:
        InputError: If the split needs a folder and there is none, or the folder lacks it.
    """
    split, adapter = SPLITS[name], registry.dataset(DATASET)
    if split.folder:
        root = folder_of(request, name, "in the layout of CLEVR_v1.0")
        data = adapter.load("val", data_root=root, limit=request.limit, **split.options)
    else:
        # Always rendered in one size where that is enough, so that a larger limit finds the same images.
        size = max(RENDERED, request.limit or 0)
        data = adapter.load("val", seed=request.seed, progress=request.progress, size=size, **split.options)
        data = data.select(range(min(len(data), request.limit or RENDERED)))
    return Scenes(data, parser, image_size)
