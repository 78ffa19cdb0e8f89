"""Counting: the number of concepts under which the error is least, each concept at its cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.inference.evidence import Evidence, Gap, paired
from igm_cli.core.inference.inversion import InversionSettings
from igm_cli.core.inference.search import Found


@dataclass(frozen=True)
class Decision:
    """The chosen K, and how much worse every other is."""

    k: int
    gaps: tuple[Gap, ...]

    def settled(self, by: float) -> bool:
        """True if every other K is worse by so many standard errors."""
        return all(gap.mean > by * gap.stderr for gap in self.gaps)


def decide(evidence: Evidence, path: list[Found], settings: InversionSettings) -> Decision:
    """The K of least error, each concept at its cost."""
    errors = [evidence.errors(found.subset) + settings.cost * k for k, found in enumerate(path)]
    sizes = range(min(settings.k_min, len(path) - 1), len(path))
    best = min(sizes, key=lambda k: path[k].error + settings.cost * k)
    gaps = (paired(errors[k], errors[best], evidence.importance) for k in sizes if k != best)
    return Decision(best, tuple(gaps))


def concept_confidence(evidence: Evidence, subset: list[int], cost: float = 0.0) -> Tensor:
    """For each member of a subset, the probability that leaving it out raises the error ``[K]``.

    Of the paired difference over draws.  The members were chosen under the same draws, so that it
    is rather too high than too low.
    """
    whole = evidence.errors(subset)
    values = []
    for place in range(len(subset)):
        without = evidence.errors(subset[:place] + subset[place + 1 :])
        values.append(paired(without - cost, whole, evidence.importance).probability())
    return torch.tensor(values)
