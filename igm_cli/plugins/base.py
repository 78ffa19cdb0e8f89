"""What a plugin is: a dataset adapter or a concept parser, a plain class that need not subclass anything.

Both are found through the entry-point groups ``igm_cli.datasets`` and ``igm_cli.concepts``.  Benchmark suites
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
]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (what is being done, done so far, in all)."""

Note: TypeAlias = Callable[[str], None]
"""Called with a sentence for people."""


def noted(adapter: DatasetAdapter, note: Note) -> dict[str, Any]:
    """Returns the argument ``note`` for the ``load`` of an adapter that takes it, or none."""
    return {"note": note} if "note" in inspect.signature(adapter.load).parameters else {}


class ConceptParser(Protocol):
    """Maps annotations to concepts and back; what cannot be mapped raises an InputError.

    Concept tensors are relative to the frame the model sees; items (dicts) are what users read and
    are relative to the image as given.

    A parser may also have ``options`` (name to one line of help) and ``configured(options)``, which returns
    a parser with them: training takes them from ``--set concepts.NAME=VALUE`` or the preset's table
    ``[concepts]``, and keeps them with the model.  A parser may have ``draw_map(image, values, frame)``, which returns
    the picture of an energy map (:class:`igm_cli.energy_map.EnergyMap`), and ``draw_labels(image, items)``, which draws
    what ``draw`` does and writes beside every item what it is (``--labels``).  A parser of concepts that lie somewhere
    may have ``turn(concepts)``, which returns concepts of the image turned by a quarter, counterclockwise.  One may have
    ``right(predicted, truth)``, which returns for predicted ``[K,D]`` and true ``[L,D]`` concepts of one image which of the
    predicted are right, and which of the F values of each, ``[K,1+F]`` booleans: models are evaluated and calibrated by it.
    A parser that reads something other than images says so by
    ``reads``.
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
        """Returns the image as given with the items drawn on a copy of it."""
        ...


class AskedParser(ConceptParser, Protocol):
    """A parser whose concepts can be asked for in words, so that ``igm generate`` draws them."""

    def ask(self, text: str, random: torch.Generator, beside: Tensor) -> Tensor:
        """Returns the concepts ``[K,D]`` that words of an expression name, in the frame.

        Args:
            text: The words, without AND, OR, NOT and weights.
            random: Where they leave something to chance: asked again with another generator, they give other concepts.
            beside: Concepts ``[L,D]`` that the image has besides.

        Raises:
            UnknownConceptError: If the words are none of this parser's; another model's may know them.
            UsageError: If they are, but cannot be meant.
        """
        ...


class VectorParser(ConceptParser, Protocol):
    """A parser of concepts of bound vectors, which are read from files other than images."""

    reads: Literal["vectors"]

    def read_codebooks(self, path: Path, binding: str | None) -> Codebooks:
        """Returns the codebooks of a file; no binding takes the file's."""
        ...

    def read_vectors(self, path: Path, codebooks: Codebooks) -> Tensor:
        """Returns bound vectors ``[B,D]`` of a file, which must be of these codebooks."""
        ...


class DatasetAdapter(Protocol):
    """Says what a dataset is and loads its splits.

    Attributes:
        name: Name on the command line.
        summary: One line for ``igm plugins``.
        licence: Licence of the data.
        source: How to get the real data, one sentence with the address.
        splits: Names of its splits; the first one is trained on, the second one validates.
        image_size: (width, height) that a model of it sees by default.
        concepts: Name of the concept parser it is used with by default.
        options: Options of :meth:`load` with one line of help each, for ``--set name=value``.
        presets: Names of training presets to the paths of their TOML files; ``default`` is taken
            when none is named.

    An adapter that makes its images itself may have a ``version``, a whole number that is raised whenever
    they change: benchmarks keep records of one version only.  One that reads what people annotated may give its
    :meth:`load` a parameter ``note``: training passes a function that shows what is amiss, a sentence a call.
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
        """Returns a split with an ``image`` column and whatever annotation columns the parsers read.

        Args:
            split: One of ``splits``.
            data_root: Folder of the real data; None renders or composes images, the same for the same seed, which
                ``datasets`` keeps.
            limit: Largest number of images.
            seed: Seed of images that are made.
            progress: Called while images are made or read.
            **options: Values of ``options``.

        Raises:
            UsageError: If there is no such split, option or value.
            InputError: If the data root does not hold the dataset, saying what is missing.
        """
        ...


@dataclass(frozen=True)
class Advice:
    """How to train on some images, as a dataset advises.

    Attributes:
        tables: Tables of a preset, which take the place of what neither the preset nor the user says.
        reasons: What was chosen and why, a sentence each.
    """

    tables: Mapping[str, Mapping[str, Any]]
    reasons: Sequence[str]


class AdvisingAdapter(DatasetAdapter, Protocol):
    """A dataset of images that differ from folder to folder, which says what suits those it is given."""

    def advise(self, data: datasets.Dataset, tables: Mapping[str, Mapping[str, Any]]) -> Advice:
        """Returns what suits the images of a split that was loaded, beside the tables of the preset and the user."""
        ...


class AdvisingParser(ConceptParser, Protocol):
    """A concept parser whose options can be read from annotations: which values objects have, for example."""

    def advise(self, splits: Sequence[datasets.Dataset], options: Mapping[str, Any]) -> Advice:
        """Returns a table ``concepts`` of the options, beside those that are given, that suit what was loaded, training first.

        Raises:
            InputError: If there is nothing to learn of the options that are given.
        """
        ...


RenderedBatches: TypeAlias = "Iterator[tuple[Tensor, list[dict[str, Any]]]]"
"""Images, bytes ``[B,3,H,W]`` on the device that rendered them, and the other columns of each."""


class RenderingAdapter(DatasetAdapter, Protocol):
    """A dataset whose own images a GPU renders while a model is trained there, sooner than they could be loaded."""

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
        """Returns what :meth:`load` gives with no ``data_root``, of ``image_size``, rendered on a device and not kept."""
        ...
