"""What a plugin is: a dataset adapter or a concept parser.

Both are plain classes found through the entry-point groups ``igm_cli.datasets`` and
``igm_cli.concepts``; nothing has to be subclassed.  Benchmark suites (``suite.py``) have the group
``igm_cli.benchmarks``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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

__all__ = ["ConceptParser", "DatasetAdapter", "Frame", "Progress", "RenderingAdapter", "VectorParser"]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (what is being done, done so far, in all)."""


class ConceptParser(Protocol):
    """Maps annotations to concepts and back.

    Concept tensors are relative to the frame the model sees; items (dicts) are what users read and
    are relative to the image as given.

    A parser may also have ``options`` (name to one line of help) and ``configured(options)``, which returns
    a parser with them: training takes them from ``--set concepts.NAME=VALUE`` or the preset's table
    ``[concepts]``, and keeps them with the model.  A parser that reads something other than images says so by
    ``reads``.
    """

    name: str
    summary: str

    @property
    def space(self) -> ConceptSpace:
        """The concept space of a model trained with this parser."""
        ...

    def parse(self, example: Mapping[str, Any], frame: Frame) -> Tensor:
        """Annotations of one example of a dataset to concepts ``[K,D]`` in the frame."""
        ...

    def encode(self, items: Sequence[Mapping[str, Any]], frame: Frame) -> Tensor:
        """Items to concepts ``[K,D]``; inverse of :meth:`decode`."""
        ...

    def decode(self, concepts: Tensor, frame: Frame) -> list[dict[str, Any]]:
        """Concepts ``[K,D]`` to items, e.g. ``{"x": .., "y": .., "x_px": .., "y_px": ..}``."""
        ...

    def mirror(self, concepts: Tensor) -> Tensor:
        """Concepts ``[...,D]`` of the image flipped left to right."""
        ...

    def score(self, predicted: Tensor, truth: Tensor) -> dict[str, float]:
        """Metrics of predicted ``[K,D]`` against true ``[L,D]`` concepts of one image."""
        ...

    def draw(self, image: Image, items: Sequence[Mapping[str, Any]]) -> Image:
        """The image as given with the items drawn on a copy of it."""
        ...


class VectorParser(ConceptParser, Protocol):
    """A parser of concepts of bound vectors, which are read from files other than images."""

    reads: Literal["vectors"]

    def read_codebooks(self, path: Path, binding: str | None) -> Codebooks:
        """The codebooks of a file, or an InputError; a binding of None is told from the file."""
        ...

    def read_vectors(self, path: Path, codebooks: Codebooks) -> Tensor:
        """Bound vectors ``[B,D]`` of a file, or an InputError if they are none of these codebooks."""
        ...


class DatasetAdapter(Protocol):
    """Says what a dataset is and loads its splits.

    Attributes:
        name: Name on the command line.
        summary: One line for ``igm plugins``.
        licence: Of the data.
        source: How to get the real data, one sentence with the address.
        splits: Names of its splits; the first one is trained on, the second one validates.
        image_size: (width, height) that a model of it sees by default.
        concepts: Name of the concept parser it is used with by default.
        options: Options of :meth:`load` with one line of help each, for ``--set name=value``.
        presets: Names of training presets to the paths of their TOML files; ``default`` is taken
            when none is named.

    An adapter that makes its images itself may have a ``version``, a whole number that is raised whenever
    they change: benchmarks keep records of one version only.
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
        """A split with an ``image`` column and whatever annotation columns the parsers read.

        With no ``data_root`` the adapter renders or composes its own default, cached by
        ``datasets`` and the same for the same seed.

        Raises:
            InputError: If the data root does not hold the dataset, saying what is missing.
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
        """What :meth:`load` gives with no ``data_root``, of ``image_size``, rendered on a device and not kept."""
        ...
