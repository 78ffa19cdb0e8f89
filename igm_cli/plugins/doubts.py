"""Doubts about a concept parser and the annotations that it reads, told by a dry run before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from igm_cli.imaging import Frame
from igm_cli.plugins.base import ConceptParser

LOOKED_AT = 64
"""Images whose concepts are looked at."""

SAME = 0.02
"""How far apart two coordinates may lie, as a fraction of their range, to count as the same: items are rounded."""


def doubts(parser: ConceptParser, concepts: Sequence[Tensor], size: tuple[int, int]) -> Iterator[str]:
    """Yields what looks wrong, a sentence each.

    ``concepts`` are those ``[K,D]`` of training images as the parser read them, ``size`` is (width, height) of these images.
    """
    space: Any = parser.space
    rows = torch.cat(list(concepts))
    if not len(rows):
        yield f"none of the first {len(concepts)} images has a concept; does parse read the right columns?"
        return
    if hasattr(space, "point"):
        low, high = torch.tensor(space.point.low), torch.tensor(space.point.high)
        places, side = rows[:, : space.point.dim], high - low
        out = int(((places < low - side) | (places > high + side)).any(1).sum())
        if 2 * out > len(rows):
            yield (
                f"{out} of the first {len(rows)} concepts lie far outside of the box of {parser.name}; are they in pixels, "
                "where the space is relative to the frame?"
            )
    for factor, values in _factors(space).items():
        if without := int((rows[:, values] <= 0).all(1).sum()):
            yield f"{without} of the first {len(rows)} concepts have no value of {factor}"
        if several := int((rows[:, values].sum(1) > 1 + SAME).sum()):
            says = f"have several values of {factor}, which add up to more than 1"
            yield f"{several} of the first {len(rows)} concepts {says}"
    frame = Frame.fit(size, size[0] / size[1])
    before = rows.clone()
    mirrored = parser.mirror(rows)
    if not torch.equal(rows, before):
        yield "mirror changes the tensor that it is given; it must return another one"
        rows = before
    elif not _same(space, rows, parser.mirror(mirrored)):
        yield "mirror, applied twice, does not give the same concepts again"
    if not _same(space, rows, parser.encode(parser.decode(rows, frame), frame)):
        yield "encode does not give the concepts again that decode was given"
    if hasattr(parser, "right") and not bool(parser.right(concepts[0], concepts[0]).all()):
        yield "right does not call the true concepts right"


def _factors(space: Any) -> dict[str, Tensor]:
    """Returns the columns of the values of every factor of points with values."""
    if not hasattr(space, "what"):
        return {}
    groups = (space.where.dim + torch.tensor(group) for group in space.what.groups())
    return dict(zip(space.what.factors, groups, strict=True))


def _same(space: Any, rows: Tensor, others: Tensor) -> bool:
    """Returns whether concepts ``[K,D]`` are the same as others, of those whose values are all known."""
    if others.shape != rows.shape:
        return False
    known = torch.ones(len(rows), dtype=torch.bool)
    for columns in _factors(space).values():
        known &= (rows[:, columns] > 0).sum(1) == 1
    limit = torch.full((rows.shape[1],), SAME)
    if hasattr(space, "point"):
        extent = torch.tensor(space.point.high) - torch.tensor(space.point.low)
        limit[: space.point.dim] *= extent
    return bool(((rows - others).abs() <= limit)[known].all())
