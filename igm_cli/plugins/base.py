"""The protocols of plugins: dataset adapters and concept parsers, plain classes that need no base class.

igm finds them by the entry-point groups ``igm_cli.datasets`` and ``igm_cli.concepts``.  Benchmark suites
(``benchmarks/suite.py``) have the group ``igm_cli.benchmarks``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from igm_cli.imaging import Frame

if TYPE_CHECKING:
    import datasets
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from igm_cli.core.concepts import ConceptSpace
    from igm_cli.core.decomposition.codebooks import Codebooks

__all__ = [
    "Advice",
    "AdvisingAdapter",
    "AdvisingParser",
    "AskedParser",
    "ConceptParser",
    "DatasetAdapter",
    "Frame",
    "Note",
    "Progress",
    "RenderingAdapter",
    "VectorParser",
    "noted",
    "validation_split",
]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (what is being done, done so far, total)."""

Note: TypeAlias = Callable[[str], None]
"""Called with a sentence for the user."""


def validation_split(adapter: DatasetAdapter) -> str:
    """Returns the split for validation: the second, or the only one."""
    return adapter.splits[min(1, len(adapter.splits) - 1)]


def noted(adapter: DatasetAdapter, note: Note) -> dict[str, Any]:
    """Returns the argument ``note`` for an adapter's ``load``, or nothing if it takes none."""
    return {"note": note} if "note" in inspect.signature(adapter.load).parameters else {}


class ConceptParser(Protocol):
    """Maps annotations to concepts and back; raises an InputError for what cannot be mapped.

    Concept tensors are relative to the frame the model sees; items (dicts) are what users read and
    are relative to the image as given.

    A parser may also have ``options`` (name to one line of help) and ``configured(options)``, which returns
    a parser with them: training takes them from ``--set concepts.NAME=VALUE`` or the preset's table
    ``[concepts]``, and keeps them with the model.  It may have ``draw_map(image, values, frame)``, which returns the
    picture of an energy map (:class:`igm_cli.energy_map.EnergyMap`), and ``draw_labels(image, items)``, which draws what
    ``draw`` does and names every item next to it (``--labels``).  If its concepts have positions, it may have
    ``turn(concepts)``, which returns the concepts of the image turned counterclockwise by a quarter.  For evaluation and
    calibration, it may have ``right(predicted, truth)``: given predicted ``[K,D]`` and true ``[L,D]`` concepts of one image,
    this returns booleans ``[K,1+F]``, whether each predicted concept and each of its F values are right.  A parser that
    reads something other than images says so in ``reads``.
    """

    name: str
    summary: str

    @property
    def space(self) -> ConceptSpace:
        """The concept space of a model trained with this parser."""
        ...

    def parse(self, example: Mapping[str, Any], frame: Frame) -> Tensor:
        """Returns the annotations of one example of a dataset as concepts ``[K,D]`` in the frame."""
        ...

    def encode(self, items: Sequence[Mapping[str, Any]], frame: Frame) -> Tensor:
        """Returns items as concepts ``[K,D]``; inverse of :meth:`decode`."""
        ...

    def decode(self, concepts: Tensor, frame: Frame) -> list[dict[str, Any]]:
        """Returns concepts ``[K,D]`` as items, e.g. ``{"x": .., "y": .., "x_px": .., "y_px": ..}``."""
        ...

    def mirror(self, concepts: Tensor) -> Tensor:
        """Returns concepts ``[...,D]`` of the image flipped left to right."""
        ...

    def score(self, predicted: Tensor, truth: Tensor) -> dict[str, float]:
        """Returns metrics of predicted ``[K,D]`` against true ``[L,D]`` concepts of one image."""
        ...

    def draw(self, image: Image, items: Sequence[Mapping[str, Any]]) -> Image:
        """Returns a copy of the image as given with the items drawn on it."""
        ...


class AskedParser(ConceptParser, Protocol):
    """A parser whose concepts can be named in words, so that ``igm generate`` can draw them."""

    def ask(self, text: str, random: torch.Generator, beside: Tensor) -> Tensor:
        """Returns the concepts ``[K,D]`` that words of an expression name, in the frame.

        Args:
            text: The words, without AND, OR, NOT and weights.
            random: Draws what the words leave open, so that another generator gives other concepts.
            beside: Other concepts of the image ``[L,D]``.

        Raises:
            UnknownConceptError: If this parser does not know the words; another model's may.
            UsageError: If it knows the words, but they make no sense.
        """
        ...


class VectorParser(ConceptParser, Protocol):
    """A parser of concepts of bound vectors, which are read from files other than images."""

    reads: Literal["vectors"]

    def read_codebooks(self, path: Path, binding: str | None) -> Codebooks:
        """Returns the codebooks of a file; a binding of None takes the file's."""
        ...

    def read_vectors(self, path: Path, codebooks: Codebooks) -> Tensor:
        """Returns bound vectors ``[B,D]`` of a file, or the only one ``[D]``, which must fit these codebooks."""
        ...


class DatasetAdapter(Protocol):
    """Describes a dataset and loads its splits.

    Attributes:
        name: Name on the command line.
        summary: One line for ``igm plugins``.
        licence: Licence of the data.
        source: How to get the real data, one sentence with the address.
        splits: Names of its splits; the first one is for training, the second one for validation.
        image_size: Default (width, height) that a model sees.
        concepts: Name of the default concept parser.
        options: Options of :meth:`load` with one line of help each, for ``--set name=value``.
        presets: Names of training presets to the paths of their TOML files; ``default`` is used
            if none is named.

    An adapter that generates its images may have a ``version``, an integer that is raised whenever they change:
    benchmarks keep records of one version only.  It may also have an ``own_licence``, that of generated images;
    ``licence`` is then that of a data root, and a model names those of the images it was trained on.  One that reads
    people's annotations may give its :meth:`load` a parameter ``note``: training passes a function that reports problems,
    one sentence per call.
    """

    name: str
    summary: str
    licence: str
    source: str
    splits: tuple[str, ...]
    image_size: tuple[int, int]
    concepts: str
    options: Mapping[str, str]
    presets: Mapping[str, Path]

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
        """Returns a split with an ``image`` column and the annotation columns that parsers read.

        Args:
            split: One of ``splits``.
            data_root: Folder of the real data; None renders or composes images, the same for the same seed, which
                ``datasets`` caches.
            limit: Largest number of images.
            seed: Seed of generated images.
            progress: Called while images are generated or read.
            **options: Values of ``options``.

        Raises:
            UsageError: If there is no such split, option or value.
            InputError: If the data root does not hold the dataset, saying what is missing.
        """
        ...


@dataclass(frozen=True)
class Advice:
    """A plugin's advice on how to train on the images given.

    Attributes:
        tables: Tables of a preset, used where neither the preset nor the user sets a value.
        reasons: What was chosen and why, one sentence each.
    """

    tables: Mapping[str, Mapping[str, Any]]
    reasons: Sequence[str]


class AdvisingAdapter(DatasetAdapter, Protocol):
    """A dataset of images that differ from folder to folder, which advises how to train on those given."""

    def advise(self, data: datasets.Dataset, tables: Mapping[str, Mapping[str, Any]]) -> Advice:
        """Returns advice for the images of a loaded split, given the tables of the preset and the user."""
        ...


class AdvisingParser(ConceptParser, Protocol):
    """A concept parser whose options can be read from annotations: which values objects have, for example."""

    def advise(self, splits: Sequence[datasets.Dataset], options: Mapping[str, Any]) -> Advice:
        """Returns a table ``concepts`` of options that suit the loaded splits, training first, given those already set.

        Raises:
            InputError: If there is nothing to learn with the given options.
        """
        ...


RenderedBatches: TypeAlias = "Iterator[tuple[Tensor, list[dict[str, Any]]]]"
"""Images, bytes ``[B,3,H,W]`` on the device that rendered them, and the other columns of each image."""


class RenderingAdapter(DatasetAdapter, Protocol):
    """A dataset whose generated images the GPU that trains can render faster than they could be loaded."""

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
        """Returns what :meth:`load` does without ``data_root``, at ``image_size``, rendered on a device and not cached."""
        ...
