"""The tasks of the suite ``zero-shot``, and their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from igm_cli.benchmarks.frame import AnnotatedImage, AnnotatedImages, declared, folder_of
from igm_cli.benchmarks.suite import Request
from igm_cli.core.files import home_expanded
from igm_cli.core.names import names_option
from igm_cli.errors import InputError
from igm_cli.plugins import registry
from igm_cli.plugins.base import ConceptParser

TRIO = ("cat", "dog", "rabbit")
"""The paper's labels."""

IMAGES = 200  # per split by default
PICTURES = "pictures"
DATASET = "animals"


_WORDS = declared("zero-shot")
TASKS: Mapping[str, Mapping[str, Any]] = _WORDS["tasks"]
LOOKS: Mapping[str, Mapping[str, Any]] = _WORDS["looks"]
SPLITS: Mapping[str, str] = _WORDS["splits"]


def counts(split: str) -> bool:
    """Returns whether the number of labels must be found too."""
    return split != PICTURES and "k" not in TASKS[split.rpartition("-")[0]]


@dataclass(frozen=True)
class LabelledSplit:
    """The pictures of one split."""

    labels: tuple[str, ...]  # to choose from
    scenes: AnnotatedImages
    k: int | None  # number of labels to choose; None if it must be found
    given: bool = False  # whether to choose each picture's true number instead

    @cached_property
    def most(self) -> int:
        """The maximum number of labels to choose per picture."""
        return self.k or max(len(set(labels)) for labels in self.scenes.data["labels"])

    def names(self, scene: AnnotatedImage, concepts: Tensor) -> list[str]:
        """Returns the labels of one-hot rows ``[K,M]``."""
        return [item["label"] for item in self.scenes.parser.decode(concepts, scene.frame)]


def load_split(name: str, request: Request, image_size: tuple[int, int]) -> LabelledSplit:
    """Returns the pictures of a split, with the styles, animals and labels that the request's options name.

    Raises:
        InputError: If the split needs a folder and there is none, or the folder cannot be used.
        UsageError: If an option cannot be used.
    """
    if name == PICTURES:
        return _own(request, image_size)
    from igm_cli.plugins.animals.pictograms import ANIMALS

    kind, _, style = name.rpartition("-")
    task, look = TASKS[kind], LOOKS[style]
    root = folder_of(request, name, "of pictograms STYLE/ANIMAL/*.png") if look["folder"] else None
    animals = TRIO if task["trio"] else names_option("--set animals", request.options.get("animals", ANIMALS))
    styles = names_option(f"--set {style}", request.options.get(style, look["styles"]))
    scenes = {"styles": ",".join(styles), "animals": ",".join(animals), "count": task["number"]}
    size, seed, progress = request.limit or IMAGES, request.seed, request.progress
    adapter = registry.dataset(DATASET)
    data = adapter.load("test", data_root=root, size=size, seed=seed, progress=progress, **scenes)
    others = () if task["trio"] else names_option("--set others", request.options.get("others"))
    labels = tuple(dict.fromkeys((*animals, *others)))
    return LabelledSplit(labels, AnnotatedImages(data, _parser(labels), image_size), task.get("k"))


def _own(request: Request, image_size: tuple[int, int]) -> LabelledSplit:
    """Returns the user's own pictures."""
    from igm_cli.plugins.pictures.words import Vocabulary

    folder = request.options.get("pictures", request.data_root)
    if folder is None:
        raise InputError(f"the split {PICTURES} needs --set pictures=FOLDER, a folder of pictures with labels")
    options = {"labels": request.options["labels"]} if "labels" in request.options else {}
    root = home_expanded(str(folder))
    adapter = registry.dataset("pictures")
    options |= request.reading(adapter)
    options["shares"] = "0/0/100"  # nothing was trained on a folder that names no splits, so all of it counts
    data = adapter.load("test", data_root=root, limit=request.limit, **options)
    found = {label for labels in data["labels"] for label in labels}
    labels = tuple(sorted(found | set(Vocabulary.of(request.options.get("labels")).known)))
    if len(labels) < 2:
        raise InputError(f"all pictures of {root.name} have the same label; add others, or --set labels=A,B,C")
    return LabelledSplit(labels, AnnotatedImages(data, _parser(labels), image_size), None, given=True)


def _parser(labels: Sequence[str]) -> ConceptParser:
    return registry.configured(registry.concept_parser("labels"), {"labels": list(labels)})
