"""What the reports of several suites share: records by label, cells, and tables of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from igm_cli.benchmarks.suite import Record, Table
from igm_cli.core.metrics import Estimate
from igm_cli.errors import UsageError

S = TypeVar("S")


def values(numbers: Iterable[float]) -> Tensor:
    """Numbers as a tensor ``[N]``."""
    return torch.tensor([float(number) for number in numbers])


def mean(numbers: Sequence[float]) -> float:
    """Of numbers, at least one."""
    return sum(numbers) / len(numbers)


def by_label(records: Iterable[Record]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Label to (split and item) to row, labels in the order they come."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        for row in record["rows"]:
            found.setdefault(row["label"], {})[f"{record['split']} {record['item']}"] = row
    return found


def of_splits(records: Iterable[Record], splits: Sequence[str]) -> list[Record]:
    """The records of some splits."""
    return [record for record in records if record["split"] in splits]


def common_rows(records: Iterable[Record]) -> dict[str, list[Mapping[str, Any]]]:
    """Label to the rows of the items that every label has; empty if all have all of them, or none is common."""
    labels = by_label(records)
    common = set.intersection(*(set(rows) for rows in labels.values())) if labels else set()
    if not common or all(len(rows) == len(common) for rows in labels.values()):
        return {}
    return {label: [row for key, row in rows.items() if key in common] for label, rows in labels.items()}


def common_tables(
    parts: Mapping[str, Iterable[Record]],
    about: Mapping[str, str],
    score: Callable[[str, Sequence[Mapping[str, Any]]], S],
    table: Callable[[str, str, Sequence[S]], Table],
) -> list[Table]:
    """Tables of splits over the images that every method was run on, where some were run on fewer.

    Args:
        parts: Records by split.
        about: What the splits are, for the headings.
        score: From a label and its rows to its scores.
        table: From a split, its heading and all scores to a table.
    """
    tables = []
    for name, records in parts.items():
        common = common_rows(records)
        if common:
            number = len(next(iter(common.values())))
            images = f"{number} images" if number > 1 else "one image"
            scores = [score(label, rows) for label, rows in common.items()]
            shown = table(name, f"{about[name]}: the {images} that every method was run on", scores)
            tables.append(replace(shown, name=f"{shown.name}-common"))
    return tables


def every_figure(summary: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """Every figure on a line of its own, of split to label to ``images`` and figures of (value, low, high)."""
    rows = [
        [split, label, str(figures["images"]), name, *(repr(value) for value in figure)]
        for split, labels in summary.items()
        for label, figures in labels.items()
        for name, figure in figures.items()
        if name != "images"
    ]
    columns = ("split", "method", "images", "figure", "value", "low", "high")
    return Table("results", "Every figure", columns, rows)


def what_was_compared(infos: Mapping[str, Mapping[str, Any]]) -> Table:
    """What every method says of itself."""
    rows = [
        [name, "; ".join(f"{key} {_brief(value)}" for key, value in info.items())]
        for name, info in infos.items()
    ]
    return Table("methods", "What was compared", ("method", "what it is and how it was trained"), rows)


def failed_methods(infos: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Methods that could not be had."""
    return [name for name, info in infos.items() if "failed" in info]


def percent(e: Estimate) -> str:
    """A rate and its interval."""
    return f"{100 * e.value:.1f} % [{100 * e.low:.1f}, {100 * e.high:.1f}]"


def interval(e: Estimate, form: str) -> str:
    """A figure and its interval, if it has one."""
    ends = "" if math.isnan(e.low) else f" [{e.low:{form}}, {e.high:{form}}]"
    return f"{e.value:{form}}{ends}"


def whole_number(options: Mapping[str, Any], name: str, default: int, least: int = 1) -> int:
    """A number among the options of a suite.

    Raises:
        UsageError: If it is none, or too small.
    """
    value = options.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"--set {name} takes a whole number of at least {least}, not {value!r}")
    return value


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_brief(part)}" for key, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
