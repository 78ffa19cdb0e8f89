"""From records to figures: sets that are right, what they cost, and two methods on the same pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from igm_cli.benchmarks.frame.tables import by_label, mean, values
from igm_cli.benchmarks.suite import Record
from igm_cli.benchmarks.suites.zero_shot.methods import ENUMERATE, IGM
from igm_cli.core.metrics import Estimate, mcnemar, rate, ratio, share


@dataclass(frozen=True)
class Scores:
    """One method on one set of pictures.

    Attributes:
        label: The method.
        images: How many.
        estimates: ``exact`` (the whole set is right), ``number`` (of labels), ``recall`` (share of true labels
            that were found), ``calls_a_draw``, ``calls``, ``seconds`` and ``draws``.
    """

    label: str
    images: int
    estimates: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"images": self.images, **{name: e.to_list() for name, e in self.estimates.items()}}


@dataclass(frozen=True)
class Paired:
    """igm and another method on the same pictures.

    Attributes:
        other: The other method.
        images: How many both were run on.
        both: Right by both.
        ours: Right by igm alone.
        theirs: Right by the other alone.
        p: Exact two-sided p of McNemar's test.
    """

    other: str
    images: int
    both: int
    ours: int
    theirs: int
    p: float


@dataclass(frozen=True)
class Agreement:
    """Plain enumeration held against igm under the same draws, on the same pictures.

    Attributes:
        agreeing: On how many both name the same set.
        images: Of how many.
        difference: Greatest relative difference of the errors they report.
        calls: U-Net calls a draw of each.
        seconds: A picture, of each.
    """

    agreeing: int
    images: int
    difference: float
    calls: Mapping[str, float]
    seconds: Mapping[str, float]


def right(row: Mapping[str, Any]) -> bool:
    """Whether a row names exactly the labels that are there."""
    return set(row["predicted"]) == set(row["truth"])


def score(label: str, rows: Sequence[Mapping[str, Any]]) -> Scores:
    """The scores of one method's rows, one a picture."""
    one = torch.ones(len(rows))
    found = values(len(set(r["predicted"]) & set(r["truth"])) for r in rows)
    estimates = {
        "exact": share(values(right(r) for r in rows)),
        "number": share(values(len(r["predicted"]) == len(r["truth"]) for r in rows)),
        "recall": rate(found, values(len(r["truth"]) for r in rows)),
        "calls_a_draw": ratio(values(r["calls"] / r["draws"] for r in rows), one),
        **{name: ratio(values(r[name] for r in rows), one) for name in ("calls", "seconds", "draws")},
    }
    return Scores(label, len(rows), estimates)


def paired(records: Sequence[Record]) -> list[Paired]:
    """Igm against every other method of one split."""
    labels = by_label(records)
    ours = labels.pop(IGM, {})
    found = []
    for label, rows in labels.items():
        pairs = [(right(ours[key]), right(row)) for key, row in rows.items() if key in ours]
        mine, theirs = pairs.count((True, False)), pairs.count((False, True))
        if pairs:
            both = pairs.count((True, True))
            found.append(Paired(label, len(pairs), both, mine, theirs, mcnemar(mine, theirs)))
    return found


def agreement(records: Sequence[Record]) -> Agreement | None:
    """Of the records of one split; None if nothing was enumerated."""
    labels = by_label(records)
    ours, theirs = labels.get(IGM, {}), labels.get(ENUMERATE, {})
    pairs = [(ours[key], row) for key, row in theirs.items() if key in ours]
    if not pairs:
        return None
    columns = {IGM: [a for a, _ in pairs], ENUMERATE: [b for _, b in pairs]}
    return Agreement(
        agreeing=sum(set(a["predicted"]) == set(b["predicted"]) for a, b in pairs),
        images=len(pairs),
        difference=max(abs(a["error"] - b["error"]) / max(abs(b["error"]), 1e-12) for a, b in pairs),
        calls={label: mean([r["calls"] / r["draws"] for r in rows]) for label, rows in columns.items()},
        seconds={label: mean([r["seconds"] for r in rows]) for label, rows in columns.items()},
    )
