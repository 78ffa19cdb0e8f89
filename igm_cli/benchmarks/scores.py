"""Turns records into numbers: the scores of every method, and paired comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from scipy.stats import binomtest

from igm_cli.benchmarks.intervals import Estimate, proportion
from igm_cli.benchmarks.suite import Record
from igm_cli.core.calibration import expected_calibration_error

T = TypeVar("T")
K = TypeVar("K")
Rows: TypeAlias = Sequence[Mapping[str, Any]]
Labels: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Label to (split and item) to row."""


class Paired(NamedTuple):
    """Two methods on the same items: how many items there are, and how many both, only the first or only the second has right."""

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


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Returns the items with each key, in their order."""
    found: dict[K, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def calibration(rows: Rows, hits: Callable[[Mapping[str, Any]], Sequence[bool]]) -> dict[str, float] | None:
    """Returns confidence compared with accuracy over all predicted values; None without values or confidences.

    ``hits`` tells which values of a row are right; ``error`` is the expected calibration error (Naeini et al. 2015): the
    mean distance between confidence and accuracy over bins.
    """
    right = [hit for row in rows for hit in hits(row)]
    if not right or any(row["confidence"] is None for row in rows):
        return None
    sure = torch.tensor([c for row in rows for c in row["confidence"]]).double()
    held = torch.tensor(right).double()
    return {
        "values": len(right),
        "confidence": float(sure.mean()),
        "accuracy": float(held.mean()),
        "error": expected_calibration_error(sure, held),
    }


def rows_by_split(records: Sequence[Record], splits: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of every split that has any."""
    found = {name: [row for r in records if r["split"] == name for row in r["rows"]] for name in splits}
    return {name: rows for name, rows in found.items() if rows}


def by_label(records: Iterable[Record]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Returns the rows of records as :data:`Labels`, in their order."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        for row in record["rows"]:
            found.setdefault(row["label"], {})[f"{record['split']} {record['item']}"] = row
    return found


def paired_with(
    name: str, labels: Labels, right: Callable[[Mapping[str, Any]], bool], unseen: str = ""
) -> dict[str, Paired]:
    """Returns one label compared with every other of a split but the ``unseen``, on the items that both ran on."""
    first, found = labels.get(name, {}), {}
    for label, rows in labels.items():
        pairs = [(right(first[key]), right(row)) for key, row in rows.items() if key in first]
        if label not in (name, unseen) and pairs:
            found[label] = Paired.of(pairs)
    return found


@dataclass(frozen=True)
class Scores:
    """One label (a method in one setting) on one set of images."""

    label: str
    rows: Rows  # one per image
    estimates: Mapping[str, Estimate]  # the suite's metrics over these rows

    def __getitem__(self, name: str) -> Estimate:
        return self.estimates[name]

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {"images": len(self.rows), **{name: list(e) for name, e in self.estimates.items()}}


class ScoredSplits:
    """The scores of all labels on every split that has rows; ``metrics`` turns the rows of a label into estimates."""

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
        """Returns the scores on the images that all labels share; none if every label has all images, or none are shared."""
        labels = self.labels[split]
        common = set.intersection(*(set(rows) for rows in labels.values()))
        if not common or all(len(rows) == len(common) for rows in labels.values()):
            return []
        shared = {label: {k: row for k, row in rows.items() if k in common} for label, rows in labels.items()}
        return self._scored(shared)

    def each(self, find: Callable[[Labels], T]) -> dict[str, T]:
        """Applies a function to every split; returns the results that are not empty."""
        return {split: found for split, labels in self.labels.items() if (found := find(labels))}

    def sureness(
        self, hits: Callable[[Mapping[str, Any]], Sequence[bool]], unseen: str = ""
    ) -> dict[str, dict[str, dict[str, float]]]:
        """Returns the :func:`calibration` of every label but the ``unseen`` that has one, by split."""
        return {
            split: {s.label: sure for s in part if s.label != unseen and (sure := calibration(s.rows, hits))}
            for split, part in self.scores.items()
        }

    def to_dict(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Returns the JSON form: split to label to scores."""
        return {name: {s.label: s.to_dict() for s in part} for name, part in self.scores.items()}


def same_answers(
    labels: Labels, names: tuple[str, str], answer: Callable[[Mapping[str, Any]], Any]
) -> tuple[dict[str, Any], dict[str, Rows]]:
    """Returns how often two labels agree on the images of a split that both saw, and the rows of both there.

    Both are empty if there are no such images.
    """
    first, second = (labels.get(name, {}) for name in names)
    pairs = [(row, second[key]) for key, row in first.items() if key in second]
    if not pairs:
        return {}, {}
    same = [answer(a) == answer(b) for a, b in pairs]
    held = {"agree": proportion(same), "agreeing": sum(same), "images": len(pairs)}
    return held, dict(zip(names, zip(*pairs, strict=True), strict=True))


def agreement(
    labels: Labels, names: tuple[str, str], answer: Callable[[Mapping[str, Any]], Any], base: int = 0
) -> dict[str, Any]:
    """Returns the :func:`same_answers` of two labels with their errors and costs; empty if there are none.

    Error differences are relative to the second label's; ``calls`` leaves out ``base`` unconditional network calls per draw.
    """
    held, columns = same_answers(labels, names, answer)
    if not held:
        return {}
    pairs = zip(*columns.values(), strict=True)
    return {
        **held,
        "difference": max(abs(a["error"] - b["error"]) / max(abs(b["error"]), 1e-12) for a, b in pairs),
        "calls": {name: fmean(r["calls"] / r["draws"] - base for r in rows) for name, rows in columns.items()},
        "seconds": {name: fmean(r["seconds"] for r in rows) for name, rows in columns.items()},
    }
