"""What a benchmark suite is: methods, splits, one record an image, and a report without a terminal.

Suites are plain classes found through the entry-point group ``igm_cli.benchmarks``.  The command keeps
their records, goes on where it stopped, and turns their report into files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from igm_cli.plugins.base import Progress

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from igm_cli.benchmarks.baselines.fit import Budget

Row: TypeAlias = dict[str, Any]
"""What one method, in one setting, says of one item; JSON, with a ``label`` that names the setting."""

Record: TypeAlias = Mapping[str, Any]
"""A kept line: ``method``, ``split``, ``item`` and ``rows``."""


@dataclass(frozen=True)
class Request:
    """What is to be measured, and with what.

    Attributes:
        splits: Names of the suite's splits.
        data_root: Folder of real data; None for what the suite makes itself.
        limit: At most so many items of a split.
        budget: Training time or steps of every trained baseline.
        seed: Of everything random.
        device: Where to compute.
        model: Checkpoint folder of the model that is measured; empty for a suite without concepts.
        cache: Folder that keeps trained baselines.
        options: Of the suite, by name.
        progress: Called while something long is done.
    """

    splits: tuple[str, ...]
    data_root: Path | None
    limit: int | None
    budget: Budget
    seed: int
    device: torch.device
    model: Path
    cache: Path
    options: Mapping[str, Any]
    progress: Progress = lambda what, done, total: None


class Method(Protocol):
    """One method, trained and loaded.

    Attributes:
        limit: Most items of a split it is run on; None for all.
        info: What the report says of it: training budget, learning rate, parameters.
    """

    limit: int | None
    info: Mapping[str, Any]

    def __call__(self, split: str, item: str) -> list[Row]:
        """The rows of one item, one a setting."""
        ...


class Bench(Protocol):
    """A suite opened for one request.

    Attributes:
        identity: Everything that decides about a row, as JSON; a result folder belongs to one identity.
    """

    identity: Mapping[str, Any]

    def items(self, split: str) -> Sequence[str]:
        """Names of a split's items, no more than the request's limit."""
        ...

    def method(self, name: str) -> Method:
        """Loads a method; trains it first where that was not done before.

        Raises:
            IgmError: If it cannot be had here; it is reported as failed and the others go on.
        """
        ...

    def report(self, records: Sequence[Record], infos: Mapping[str, Mapping[str, Any]]) -> Report:
        """What the records of all methods amount to.

        Args:
            records: In the order of methods, splits and items.
            infos: ``info`` of every method that ran; ``{"failed": reason}`` of one that could not.
        """
        ...


class Suite(Protocol):
    """A benchmark.

    Attributes:
        name: Name on the command line.
        summary: One line for ``igm benchmark``.
        methods: Name to one line each; all run by default.
        splits: Name to one line each.
        options: Options of ``--set`` with one line of help each.
        concepts: Concepts of the model that is measured; empty if the suite measures none.
    """

    name: str
    summary: str
    methods: Mapping[str, str]
    splits: Mapping[str, str]
    options: Mapping[str, str]
    concepts: str

    def default_splits(self, data_root: Path | None) -> tuple[str, ...]:
        """What is run where no split is named."""
        ...

    def open(self, request: Request) -> Bench:
        """Loads the data.

        Raises:
            IgmError: If the data or an option cannot be used.
        """
        ...


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        name: File stem.
        title: Its heading.
        columns: Heads.
        rows: Cells as they are to be read.
        note: Sentence below it.
        brief: How many columns a terminal shows; 0 for all.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    brief: int = 0


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
    """Counts of (truth, estimate) for several methods, drawn side by side.

    Attributes:
        name: File stem.
        title: Its heading.
        truths: Labels of the rows.
        estimates: Labels of the columns.
        counts: Label of a method to ``[truths][estimates]``.
    """

    name: str
    title: str
    truths: Sequence[str]
    estimates: Sequence[str]
    counts: Mapping[str, Sequence[Sequence[int]]]
    note: str = ""


@dataclass(frozen=True)
class PictureGrid:
    """Pictures in rows: a row an item, a column a method."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Image | None]]]
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What a suite has to say.

    Attributes:
        tables: For Markdown and terminals.
        data: For CSV: one figure a line; the tables if there is none.
        figures: For plots and pictures.
        summary: Every figure as JSON.
        notes: Sentences on how it was measured.
    """

    tables: Sequence[Table]
    data: Sequence[Table] = ()
    figures: Sequence[Plot | Confusion | PictureGrid] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
