"""What a benchmark suite is: methods, splits, one record per image, and a report that knows no terminal.

Suites are found through the entry-point group ``igm_cli.benchmarks``; any class with the members of
:class:`Suite` will do, as will others for :class:`Bench` and :class:`Method`.  The command keeps the records,
continues where it stopped, and turns the report into files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from igm_cli.plugins import registry
from igm_cli.plugins.base import DatasetAdapter, Note, Progress, noted

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from igm_cli.benchmarks.baselines.fit import Budget

Row: TypeAlias = dict[str, Any]
"""What one method, in one setting, answers on one item: JSON, with a ``label`` that names the setting."""

Record: TypeAlias = Mapping[str, Any]
"""A line that is kept: ``method``, ``split``, ``item`` and ``rows``."""

Infos: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Names of methods to what they say about themselves."""


@dataclass(frozen=True)
class Request:
    """What is to be measured, and with what."""

    splits: tuple[str, ...]  # of the suite
    data_root: Path | None  # folder of real data; None for what the suite makes itself
    limit: int | None  # largest number of items per split
    budget: Budget  # training time or steps of every trained baseline
    seed: int  # of everything random
    device: torch.device  # where to compute
    model: Path  # checkpoint folder of the model that is measured; empty for a suite without concepts
    cache: Path  # folder that keeps trained baselines
    options: Mapping[str, Any]  # options of the suite by name
    progress: Progress = lambda what, done, total: None  # called while something long is done
    pixel_range: str | None = None  # values of black and white in the images of data_root
    note: Note = lambda text: None  # told what is amiss in data_root, or assumed of it

    def reading(self, adapter: DatasetAdapter) -> dict[str, Any]:
        """Returns arguments with which a dataset is read from the data root."""
        return noted(adapter, self.note) | ({} if self.pixel_range is None else {"range": self.pixel_range})


@dataclass(frozen=True)
class Method:
    """One method, trained and loaded."""

    rows: Callable[[str, str], list[Row]]  # from the names of a split and an item to rows, one per setting
    info: Mapping[str, Any]  # what the report says about it: training budget, learning rate, parameters
    limit: int | None = None  # largest number of items per split it is run on; None for all

    def __call__(self, split: str, item: str) -> list[Row]:
        """Returns the rows of one item."""
        return self.rows(split, item)


class Bench(Protocol):
    """A suite opened for one request."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides about a row, as JSON; a result folder belongs to one identity."""

    def items(self, split: str) -> Sequence[str]:
        """Returns the names of a split's items, no more than the request's limit."""

    def method(self, name: str) -> Method:
        """Loads a method; trains it first where that was not done before.

        Raises:
            IgmError: If it is not available here; it is reported as failed and the others go on.
        """

    def report(self, records: Sequence[Record], infos: Infos) -> Report:
        """Returns what the records amount to, in the order of methods, splits and items.

        ``infos`` are the ``info`` of every method that ran; ``{"failed": reason}`` of one that could not.
        """


class Suite(Protocol):
    """A benchmark."""

    name: str  # on the command line
    summary: str  # one line for ``igm benchmark``
    methods: Mapping[str, str]  # name to one line each; all run by default
    splits: Mapping[str, str]  # name to one line each
    options: Mapping[str, str]  # options of ``--set`` with one line of help each
    concepts: str  # of the model that is measured; empty if the suite measures none

    def default_splits(self, data_root: Path | None) -> tuple[str, ...]:
        """Returns what is run where no split is named."""

    def open(self, request: Request) -> Bench:
        """Loads the data; raises an IgmError if the data or an option cannot be used."""


def find_suite(name: str, *, typed: bool = False) -> Suite:
    """Returns the suite of a name, or, if a user typed it, of ``package.module:attribute``.

    Raises:
        PluginError: If it is unknown or cannot be loaded.
    """
    return cast(Suite, registry.load("benchmarks", name, typed=typed))


@dataclass(frozen=True)
class Table:
    """A table of a report, its cells as they are to be read."""

    name: str  # file stem
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""  # sentence below it
    brief: int = 0  # columns that a terminal shows; 0 for all


@dataclass(frozen=True)
class Curve:
    """y over x, with an interval where there is one (empty ``low`` and ``high`` otherwise)."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Plot:
    """Curves over common axes."""

    name: str
    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    log_x: bool = False
    log_y: bool = False
    note: str = ""


@dataclass(frozen=True)
class Confusion:
    """Counts of (truth, estimate) of several methods, drawn side by side: label to ``[truths][estimates]``."""

    name: str
    title: str
    truths: Sequence[str]
    estimates: Sequence[str]
    counts: Mapping[str, Sequence[Sequence[int]]]
    note: str = ""


@dataclass(frozen=True)
class PictureGrid:
    """Pictures in rows: one row per item, one column per method; None where there is no picture."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Image | None]]]
    note: str = ""


Figure: TypeAlias = "Plot | Confusion | PictureGrid"


@dataclass(frozen=True)
class Report:
    """What a suite has to say."""

    tables: Sequence[Table]  # for Markdown and terminals
    data: Sequence[Table] = ()  # for CSV, one number per line; the tables if there is none
    figures: Sequence[Figure] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)  # every number as JSON
    notes: Sequence[str] = ()  # sentences on how it was measured
