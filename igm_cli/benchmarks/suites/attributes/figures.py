"""From records to figures: accuracy, calibration, and how often the evidence agrees with enumeration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igm_cli.benchmarks.frame.tables import by_label, mean
from igm_cli.benchmarks.suite import Record
from igm_cli.benchmarks.suites.attributes.inversions import ENUMERATE, SAME_DRAWS
from igm_cli.core.metrics import Estimate, ratio, share

BINS = 10
"""Of confidence, equally wide."""


@dataclass(frozen=True)
class Scores:
    """One label on one set of images.

    Attributes:
        label: Method and setting.
        images: How many.
        estimates: ``all_right``, every factor by its name, ``seconds``, ``calls`` and ``draws``.
        calibration: None where a method does not say how sure it is.
    """

    label: str
    images: int
    estimates: Mapping[str, Estimate]
    calibration: Calibration | None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"images": self.images, **{name: e.to_list() for name, e in self.estimates.items()}}


@dataclass(frozen=True)
class Calibration:
    """Confidence held against accuracy, over all values named.

    Attributes:
        values: How many were judged.
        confidence: Their mean confidence.
        accuracy: Share that is right.
        error: Expected calibration error (Naeini et al. 2015): mean distance of the two in each bin.
    """

    values: int
    confidence: float
    accuracy: float
    error: float

    @classmethod
    def of(cls, confidence: Tensor, right: Tensor) -> Calibration:
        """From the confidence of values and whether each is right, both ``[N]``."""
        confidence, right = confidence.double(), right.double()
        bins = (confidence * BINS).long().clamp(0, BINS - 1)
        gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, confidence - right)
        error = float(gaps.abs().sum()) / len(right)
        return cls(len(right), float(confidence.mean()), float(right.mean()), error)


@dataclass(frozen=True)
class Exactness:
    """Enumeration held against the evidence with the same draws, on the same images.

    Attributes:
        agree: Share of images on which both name the same configuration.
        agreeing: How many.
        images: Of how many.
        difference: Greatest relative difference of the errors they report.
        calls: Network calls a draw besides the unconditional one, of each label.
        seconds: An image, of each label.
    """

    agree: Estimate
    agreeing: int
    images: int
    difference: float
    calls: Mapping[str, float]
    seconds: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**vars(self), "agree": self.agree.to_list()}


def score(label: str, rows: Sequence[Mapping[str, Any]], factors: Sequence[str]) -> Scores:
    """The scores of one label's rows, one an image."""
    right = torch.tensor([[p == t for p, t in zip(r["predicted"], r["truth"], strict=True)] for r in rows])
    one = torch.ones(len(rows))
    estimates = {"all_right": share(right.all(1))}
    estimates |= {factor: share(right[:, place]) for place, factor in enumerate(factors)}
    estimates |= {
        name: ratio(torch.tensor([float(r[name]) for r in rows]), one) for name in ("seconds", "calls", "draws")
    }
    sure = [r["confidence"] for r in rows if r["confidence"] is not None]
    whole = len(sure) == len(rows)
    return Scores(
        label,
        len(rows),
        estimates,
        Calibration.of(torch.tensor(sure).flatten(), right.flatten()) if whole else None,
    )


def exactness(records: Sequence[Record]) -> Exactness | None:
    """Of the records of one split; None if nothing was enumerated."""
    labels = by_label(records)
    theirs, ours = labels.get(ENUMERATE, {}), labels.get(SAME_DRAWS, {})
    pairs = [(row, ours[key]) for key, row in theirs.items() if key in ours]
    if not pairs:
        return None
    agree = torch.tensor([a["predicted"] == b["predicted"] for a, b in pairs])
    columns = {ENUMERATE: [a for a, _ in pairs], SAME_DRAWS: [b for _, b in pairs]}
    return Exactness(
        agree=share(agree),
        agreeing=int(agree.sum()),
        images=len(pairs),
        difference=max(abs(a["error"] - b["error"]) / max(abs(a["error"]), 1e-12) for a, b in pairs),
        calls={label: mean([r["calls"] / r["draws"] - 1 for r in rows]) for label, rows in columns.items()},
        seconds={label: mean([r["seconds"] for r in rows]) for label, rows in columns.items()},
    )
