"""From records to numbers: the scores of every method, and two methods side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple, TypeAlias

import torch
from scipy.stats import binomtest

from igm_cli.benchmarks.intervals import Estimate, proportion
from igm_cli.benchmarks.suite import Record
from igm_cli.core.calibration import expected_calibration_error

Rows: TypeAlias = Sequence[Mapping[str, Any]]
Labels: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Label to (split and item) to row."""


class Paired(NamedTuple):
    """Two methods on the same items: how many there are, and how many both, the first or the second alone has right."""

    items: int
    both: int
    first: int
    second: int

    @classmethod
    def of(cls, pairs: Sequence[tuple[bool, bool]]) -> Paired:
        """Returns the counts of whether (first, second) are right."""
        return cls(len(pairs), *(pairs.count(each) for each in ((True, True), (True, False), (False, True))))

    def to_dict(self, *names: str, **about: Any) -> dict[str, Any]:
        """Returns the JSON form: ``about``, the four counts by these names, and p."""
        return {**about, **dict(zip(names, self, strict=True)), "p": self.p}

    @property
    def p(self) -> float:
        """The exact two-sided p of McNemar's test (1947): the binomial test of discordant pairs."""
        discordant = self.first + self.second
        return float(binomtest(self.first, discordant).pvalue) if discordant else 1.0


def calibration(confidence: Sequence[float], right: Sequence[bool]) -> dict[str, float]:
    """Returns confidence held against accuracy, over all values named.

    ``error`` is the expected calibration error (Naeini et al. 2015): the mean distance of the two in each bin.
    """
    sure, hits = torch.tensor(confidence).double(), torch.tensor(right).double()
    error = expected_calibration_error(sure, hits)
    return {
        "values": len(hits),
        "confidence": float(sure.mean()),
        "accuracy": float(hits.mean()),
        "error": error,
    }


def by_label(records: Iterable[Record]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Returns the rows of records as :data:`Labels`, in the order they come."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        for row in record["rows"]:
            found.setdefault(row["label"], {})[f"{record['split']} {record['item']}"] = row
    return found


def paired_with(name: str, labels: Labels, right: Callable[[Mapping[str, Any]], bool]) -> dict[str, Paired]:
    """Returns one label beside every other of a split, on the items that both were run on."""
    first, found = labels.get(name, {}), {}
    for label, rows in labels.items():
        pairs = [(right(first[key]), right(row)) for key, row in rows.items() if key in first]
        if label != name and pairs:
            found[label] = Paired.of(pairs)
    return found


@dataclass(frozen=True)
class Scores:
    """One label (a method in one setting) on one set of images."""

    label: str
    rows: Rows  # one per image
    estimates: Mapping[str, Estimate]  # what the suite's metrics are over these rows

    def __getitem__(self, name: str) -> Estimate:
        return self.estimates[name]

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {"images": len(self.rows), **{name: list(e) for name, e in self.estimates.items()}}


class ScoredSplits:
    """The scores of all labels on every split that has rows; ``metrics`` takes the rows of a label to its estimates."""

    def __init__(
        self, records: Sequence[Record], splits: Iterable[str], metrics: Callable[[Rows], dict[str, Estimate]]
    ) -> None:
        self.metrics = metrics
        found = {name: by_label(record for record in records if record["split"] == name) for name in splits}
        self.labels = {name: labels for name, labels in found.items() if labels}
        self.scores = {name: self._scored(labels) for name, labels in self.labels.items()}

    def _scored(self, labels: Labels) -> list[Scores]:
        parts = {label: list(rows.values()) for label, rows in labels.items()}
        return [Scores(label, rows, self.metrics(rows)) for label, rows in parts.items()]

    def common(self, split: str) -> list[Scores]:
        """Returns the scores on the images that every label has; none if all have all of them, or none is common."""
        labels = self.labels[split]
        common = set.intersection(*(set(rows) for rows in labels.values()))
        if not common or all(len(rows) == len(common) for rows in labels.values()):
            return []
        shared = {label: {k: row for k, row in rows.items() if k in common} for label, rows in labels.items()}
        return self._scored(shared)

    def to_dict(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Returns the JSON form: split to label to scores."""
        return {name: {s.label: s.to_dict() for s in part} for name, part in self.scores.items()}


def agreement(
    labels: Labels, names: tuple[str, str], answer: Callable[[Mapping[str, Any]], Any], base: int = 0
) -> dict[str, Any] | None:
    """Returns how the answers of two labels agree on the images of a split that both saw; None if there are none.

    Errors differ relative to the second's; ``base`` unconditional network calls per draw are left out of ``calls``.
    """
    first, second = (labels.get(name, {}) for name in names)
    pairs = [(first[key], row) for key, row in second.items() if key in first]
    if not pairs:
        return None
    same = [answer(a) == answer(b) for a, b in pairs]
    columns = dict(zip(names, zip(*pairs, strict=True), strict=True))
    return {
        "agree": list(proportion(same)),
        "agreeing": sum(same),
        "images": len(pairs),
        "difference": max(abs(a["error"] - b["error"]) / max(abs(b["error"]), 1e-12) for a, b in pairs),
        "calls": {name: fmean(r["calls"] / r["draws"] - base for r in rows) for name, rows in columns.items()},
        "seconds": {name: fmean(r["seconds"] for r in rows) for name, rows in columns.items()},
    }
