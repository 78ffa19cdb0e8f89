"""From records to figures: what the metrics of the papers are over a set of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from igm_cli.core.metrics import Estimate, match, rate, ratio

_CRITERIA = ("sum", "mean", "squares")


@dataclass
class Scores:
    """One label on one set of images; every tensor has one entry an image ``[I]``.

    Attributes:
        label: Method and setting.
        objects: True number of objects.
        perceived: K given, by both readings of the criterion, and by the stricter one where pairs are
            matched by squared distance.
        squared: Sum over matched objects of their mean squared error.
        seconds: With K given.
        calls: Network calls with K given.
        counted: Estimated K; empty where a method does not count.
        recalled: Objects perceived with K estimated.
    """

    label: str
    objects: Tensor
    perceived: Mapping[str, Tensor]
    squared: Tensor
    seconds: Tensor
    calls: Tensor
    counted: Tensor
    recalled: Tensor
    estimates: dict[str, Estimate] = field(init=False)

    def __post_init__(self) -> None:
        one = torch.ones(len(self.objects))
        self.estimates = {
            "perception": rate(self.perceived["sum"], self.objects),
            "perception_mean": rate(self.perceived["mean"], self.objects),
            "perception_squares": rate(self.perceived["squares"], self.objects),
            "error": ratio(self.squared, self.objects),
            "seconds": ratio(self.seconds, one),
            "calls": ratio(self.calls, one),
        }
        if len(self.counted):
            off = (self.counted - self.objects).abs()
            self.estimates |= {
                "k_exact": rate((off == 0).float(), one),
                "k_off": ratio(off, one),
                "recall": rate(self.recalled, self.objects),
                "precision": rate(self.recalled, self.counted),
            }


def score(label: str, rows: Sequence[Mapping[str, Any]]) -> Scores:
    """The scores of one label's rows, one an image."""
    columns: dict[str, list[float]] = {name: [] for name in (*_CRITERIA, "squared", "k", "recalled")}
    for row in rows:
        truth = torch.tensor(row["truth"]).reshape(-1, 2)
        given = torch.tensor(row["given"]).reshape(-1, 2)
        pairs = match(given, truth)
        columns["sum"].append(float(pairs.perceived("sum").sum()))
        columns["mean"].append(float(pairs.perceived("mean").sum()))
        columns["squares"].append(float(match(given, truth, squared=True).perceived("sum").sum()))
        # An object without any prediction is as wrong as one at the far corner.
        missing = len(truth) - len(pairs.squared)
        columns["squared"].append(float(pairs.squared.mean(dim=1).sum()) + missing)
        if row["free"] is not None:
            free = torch.tensor(row["free"]).reshape(-1, 2)
            columns["k"].append(float(len(free)))
            columns["recalled"].append(float(match(free, truth).perceived("sum").sum()))
    return Scores(
        label=label,
        objects=torch.tensor([float(len(row["truth"])) for row in rows]),
        perceived={name: torch.tensor(columns[name]) for name in _CRITERIA},
        squared=torch.tensor(columns["squared"]),
        seconds=torch.tensor([row["seconds"] for row in rows]),
        calls=torch.tensor([float(row["calls"]) for row in rows]),
        counted=torch.tensor(columns["k"]) if len(columns["k"]) == len(rows) else torch.tensor([]),
        recalled=torch.tensor(columns["recalled"]),
    )
