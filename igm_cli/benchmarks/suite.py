"""The interface of benchmark suites: methods, splits, one record per image, and a report independent of the terminal.

Suites are found through the entry-point group ``igm_cli.benchmarks``; any class with the members of
:class:`Suite` will do, and likewise for :class:`Bench` and :class:`Method`.  The command keeps the records,
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
"""The answer of one method, in one setting, on one item: JSON, with a ``label`` that names the setting."""

Record: TypeAlias = Mapping[str, Any]
"""A saved line: ``method``, ``split``, ``item`` and ``rows``."""

Infos: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Names of methods to their facts about themselves."""


@dataclass(frozen=True)
class Request:
    """What to measure, and with what."""

    splits: tuple[str, ...]  # the suite's splits to run
    data_root: Path | None  # folder of real data; None for data that the suite makes itself
    limit: int | None  # largest number of items per split
    budget: Budget  # training time or steps of every trained baseline
    seed: int  # of everything random
    device: torch.device  # where to compute
    model: Path  # checkpoint folder of the measured model; empty for a suite without concepts
    cache: Path  # folder that keeps trained baselines
    options: Mapping[str, Any]  # options of the suite by name
    progress: Progress = lambda what, done, total: None  # called during long work
    pixel_range: str | None = None  # values of black and white in the images of data_root
    note: Note = lambda text: None  # receives problems in data_root and assumptions about it

    @property
    def range_option(self) -> dict[str, Any]:
        """The values of black and white as an argument of adapters and a part of identities, if they are given."""
        return {} if self.pixel_range is None else {"range": self.pixel_range}

    def reading(self, adapter: DatasetAdapter) -> dict[str, Any]:
        """Returns the arguments for reading a dataset from the data root."""
        return noted(adapter, self.note) | self.range_option


@dataclass(frozen=True)
class Method:
    """One method, trained and loaded."""

    rows: Callable[[str, str], list[Row]]  # from the names of a split and an item to rows, one per setting
    info: Mapping[str, Any]  # facts for the report: training budget, learning rate, parameters
    limit: int | None = None  # largest number of items per split to run it on; None for all

    def __call__(self, split: str, item: str) -> list[Row]:
        """Returns the rows of one item."""
        return self.rows(split, item)


class Bench(Protocol):
    """A suite opened for one request."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that determines a row, as JSON; a results folder belongs to one identity."""

    def items(self, split: str) -> Sequence[str]:
        """Returns the names of a split's items, no more than the request's limit."""

    def method(self, name: str) -> Method:
        """Loads a method; trains it first if this has not been done.

        Raises:
            IgmError: If it is not available here; it is reported as failed, and the others continue.
        """

    def report(self, records: Sequence[Record], infos: Infos) -> Report:
        """Returns the report of the records, in the order of methods, splits and items.

        ``infos`` holds the ``info`` of every method that ran, and ``{"failed": reason}`` for one that could not.
        """


class Suite(Protocol):
    """A benchmark."""

    name: str  # on the command line
    summary: str  # one line for ``igm benchmark``
    methods: Mapping[str, str]  # name to one line each; all run by default
    splits: Mapping[str, str]  # name to one line each
    options: Mapping[str, str]  # options of ``--set`` with one line of help each
    concepts: str  # the measured model's concepts; empty if the suite measures no model

    def default_splits(self, data_root: Path | None) -> tuple[str, ...]:
        """Returns the splits that run if none is named."""

    def open(self, request: Request) -> Bench:
        """Loads the data; raises an IgmError if the data or an option cannot be used."""


def find_suite(name: str, *, typed: bool = False) -> Suite:
    """Returns the suite with a name, or, if a user typed it, with ``package.module:attribute``.

    Raises:
        PluginError: If it is unknown or cannot be loaded.
    """
    return cast(Suite, registry.load("benchmarks", name, typed=typed))


@dataclass(frozen=True)
class Table:
    """A table of a report, with formatted cells."""

    name: str  # file stem
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""  # sentence below it
    brief: int = 0  # columns that a terminal shows; 0 for all


@dataclass(frozen=True)
class Curve:
    """y over x, with its interval if there is one (otherwise ``low`` and ``high`` are empty)."""

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
    """Counts of (truth, estimate) for several methods, drawn side by side: label to ``[truths][estimates]``."""

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
    """A suite's report."""

    tables: Sequence[Table]  # for Markdown and terminals
    data: Sequence[Table] = ()  # for CSV, one number per line; the tables if there is none
    figures: Sequence[Figure] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)  # every number as JSON
    notes: Sequence[str] = ()  # sentences on how it was measured
