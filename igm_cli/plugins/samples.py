"""From a dataset and a concept parser to training samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from igm_cli.errors import InputError
from igm_cli.imaging import cut_out, to_rgb
from igm_cli.plugins.base import ConceptParser, Frame, Progress, RenderedBatches

if TYPE_CHECKING:
    import datasets


class DatasetSamples:
    """A dataset as the trainer needs it, decoded once into bytes (18 kB for 96x64 pixels).

    Implements :class:`igm_cli.core.training.batches.Samples`.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        parser: ConceptParser,
        image_size: tuple[int, int],
        progress: Progress | None = None,
    ) -> None:
        if len(dataset) == 0:
            raise InputError("the dataset holds no image that can be trained on")
        self.parser = parser
        width, height = image_size
        self._images = torch.empty(len(dataset), 3, height, width, dtype=torch.uint8)
        self._concepts: list[Tensor] = []
        for row, example in enumerate(dataset):
            frame = Frame.fit(example["image"].size, width / height)
            self._images[row] = cut_out(to_rgb(example["image"]), frame, image_size)
            self._concepts.append(parser.parse(example, frame))
            if progress:
                progress("reading images", row + 1, len(dataset))

    def __len__(self) -> int:
        return len(self._concepts)

    def batch(self, indices: Sequence[int], flips: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns images ``[B,3,H,W]`` as bytes, concepts ``[B,K,D]``, presence ``[B,K]``."""
        images = self._images[list(indices)]
        flipped = torch.tensor(list(flips))
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
        rows = [
            self.parser.mirror(self._concepts[i]) if flip else self._concepts[i]
            for i, flip in zip(indices, flips, strict=True)
        ]
        return images, *pad(rows)


class RenderedSamples(DatasetSamples):
    """Rendered images as the trainer needs them, already of the size that the model sees."""

    def __init__(self, batches: RenderedBatches, parser: ConceptParser) -> None:
        self.parser, self._concepts = parser, []
        images = []
        for rendered, examples in batches:
            height, width = rendered.shape[2:]
            frame = Frame.fit((width, height), width / height)
            images.append(rendered.cpu())
            self._concepts += [parser.parse(example, frame) for example in examples]
        self._images = torch.cat(images)


class JoinedSamples:
    """Several sample sets as one."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)
        self._places = [(p, i) for p, part in enumerate(self.parts) for i in range(len(part))]

    def __len__(self) -> int:
        return len(self._places)

    def batch(self, indices: Sequence[int], flips: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what :meth:`DatasetSamples.batch` does, in the order of the indices."""
        images, rows = [], []
        for index, flip in zip(indices, flips, strict=True):
            part, place = self._places[index]
            image, concepts, present = self.parts[part].batch([place], [flip])
            images.append(image)
            rows.append(concepts[0][present[0]])
        return torch.cat(images), *pad(rows)


def pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns concepts ``[K_i,D]`` of several images as ``[B,K,D]``, and presence ``[B,K]``."""
    lengths = torch.tensor([len(row) for row in rows])
    longest = max(1, int(lengths.max()))
    concepts = torch.stack([functional.pad(row, (0, 0, 0, longest - len(row))) for row in rows])
    return concepts, torch.arange(longest) < lengths[:, None]
