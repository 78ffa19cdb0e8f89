"""Concepts ``labels``: which of some labels an image has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from igm_cli.core.concepts import Text
from igm_cli.core.names import is_text, meant, parts_of
from igm_cli.errors import InputError, UnknownConceptError, near_names, reason, some
from igm_cli.plugins.base import Advice

if TYPE_CHECKING:
    import datasets
    from PIL.Image import Image

    from igm_cli.plugins.base import Frame

LISTED = 20  # labels named at most

TEMPLATES = ("a photo of a {label}",)


class Labels:
    """A set of labels, given by a model or the command line; a concept is a one-hot row.

    ``templates`` are the prompts for a label, ``nothing`` is the label of images that have no other.
    """

    name = "labels"
    summary = "which of some labels are true of an image, each by its prompt"
    options: Mapping[str, str] = {
        "labels": "comma list, or list, of the labels",
        "templates": "list of prompts with {label} in them",
        "nothing": "the one of the labels that stands for none of the others (default: none does)",
    }

    def __init__(
        self, labels: Sequence[str] = ("thing",), templates: Sequence[str] = TEMPLATES, nothing: str = ""
    ) -> None:
        self.labels, self.templates, self.nothing = tuple(labels), tuple(templates), nothing

    def configured(self, options: Mapping[str, Any]) -> Labels:
        """Returns a parser of other labels and templates."""
        labels = options.get("labels", self.labels)
        labels = [part.strip() for part in parts_of(labels)] if isinstance(labels, str) else labels
        templates = options.get("templates", self.templates)
        try:
            nothing = options.get("nothing", self.nothing)
            parser = Labels(labels, [templates] if isinstance(templates, str) else templates, nothing)
            _ = parser.space
            for label in parser.labels:
                if not is_text(label):
                    raise ValueError(f"{label!r} is not text; write it in UTF-8, without control characters")
        except (TypeError, ValueError) as error:
            raise InputError(f"the labels cannot be used: {reason(error)}") from error
        return parser

    def advise(self, splits: Sequence[datasets.Dataset], options: Mapping[str, Any]) -> Advice:
        """Returns the labels of the splits, if none are set."""
        if options.get("labels"):
            return Advice({}, ())
        counts = Counter(label for split in splits for labels in split["labels"] for label in labels)
        told = some([f"{label} {count}" for label, count in counts.most_common()], LISTED)
        return Advice(
            {"concepts": {"labels": sorted(counts)}}, (f"concepts.labels are those of the images: {told}",)
        )

    @property
    def space(self) -> Text:
        """The labels as a concept space."""
        return Text(self.labels, self.templates, self.nothing)

    def parse(self, example: Mapping[str, Any], frame: Frame) -> Tensor:
        """Returns a row of ``[K,M]`` for every different label of an example."""
        if "labels" not in example:
            raise InputError(
                "concepts labels need a column 'labels' with a list of them; this dataset has none"
            )
        return self.encode([{"label": label} for label in dict.fromkeys(example["labels"])], frame)

    def encode(self, items: Sequence[Mapping[str, Any]], frame: Frame) -> Tensor:
        """Returns items ``{"label": ..}`` as one-hot rows ``[K,M]``."""
        for item in items:
            if item["label"] not in self.labels:
                raise InputError(f"unknown label {item['label']!r}; {near_names(item['label'], self.labels)}")
        rows = [self.labels.index(item["label"]) for item in items]
        return torch.eye(len(self.labels))[rows]

    def decode(self, concepts: Tensor, frame: Frame) -> list[dict[str, Any]]:
        """Returns one-hot rows ``[K,M]`` as items ``{"label": ..}``."""
        return [{"label": self.labels[int(row.argmax())]} for row in concepts]

    def ask(self, text: str, random: torch.Generator, beside: Tensor) -> Tensor:
        """Returns a label as a one-hot row ``[1,M]``."""
        text = meant(text, self.labels)
        if text not in self.labels:
            raise UnknownConceptError(f"unknown label {text!r}; {near_names(text, self.labels)}")
        return torch.eye(len(self.labels))[[self.labels.index(text)]]

    def mirror(self, concepts: Tensor) -> Tensor:
        """Returns the same: flipping an image does not change its labels."""
        return concepts

    def score(self, predicted: Tensor, truth: Tensor) -> dict[str, float]:
        """Returns whether the sets are the same, and the proportion of the true labels found."""
        found = {int(row.argmax()) for row in predicted}
        true = {int(row.argmax()) for row in truth}
        return {"exact": float(found == true), "recall": len(found & true) / max(1, len(true))}

    def right(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Returns which labels are true ``[K,1]``."""
        return (predicted[:, None] == truth).all(2).any(1, keepdim=True)

    def draw(self, image: Image, items: Sequence[Mapping[str, Any]]) -> Image:
        """Returns the image with the labels written next to it."""
        from igm_cli.plugins.overlays import draw_items

        return draw_items(image, items, "label")

    def draw_map(self, image: Image, values: Tensor, frame: Frame) -> Image:
        """Returns the image with a bar for every label next to it."""
        from igm_cli.plugins.overlays import draw_bars

        return draw_bars(image, self.labels, values)
