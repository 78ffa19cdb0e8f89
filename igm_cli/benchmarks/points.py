"""Compares points found in an image with the true ones: which are right, and which are ignored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from igm_cli.core.metrics import match_within

T = TypeVar("T")


class Hits(NamedTuple):
    """Numbers of right answers, of answers that count, and of objects to be found in an image."""

    right: int
    answers: int
    objects: int

    @property
    def f1(self) -> float:
        """Twice the right answers over answers plus objects; 1 if there are none of either."""
        both = self.answers + self.objects
        return 2 * self.right / both if both else 1.0


def hits(
    points: Tensor, truth: Tensor, ignored: Tensor, radius: float, kinds: tuple[Tensor, Tensor] | None = None
) -> Hits:
    """Returns the hits of answers ``[K,2]`` on one image with objects ``[L,2]``, in pixels.

    An answer is right if it is matched to an object within the radius, by the assignment with most matches.  If ``kinds``
    of answers ``[K]`` and objects ``[L]`` are given, they must agree too.  Objects in regions to ignore, boxes ``[R,4]`` of
    left, top, right, bottom, need not be found.  A wrong answer does not count if it lies in such a region, or within the
    radius of an object in one that no other answer has taken.
    """
    spared = within(truth, ignored)
    apart = (
        [torch.zeros(len(points)), torch.zeros(len(truth))]
        if kinds is None
        else [2 * radius * k for k in kinds]
    )
    placed, meant = (torch.cat([at, k[:, None]], dim=1) for at, k in zip((points, truth), apart, strict=True))
    pairs = match_within(placed, meant, radius, spared)
    right = ~spared[pairs.truth]
    counts = ~within(points, ignored)
    counts[pairs.predicted] = right
    return Hits(int(right.sum()), int(counts.sum()), int((~spared).sum()))


def within(points: Tensor, boxes: Tensor) -> Tensor:
    """Returns which points ``[K,2]`` lie in any of the boxes ``[R,4]``, ``[K]``."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return ((points[:, None] >= low) & (points[:, None] <= high)).all(2).any(1)


def border(size: tuple[float, float], widths: Sequence[float]) -> Tensor:
    """Returns the bands along the left, top, right and lower side of an image whose widths exceed 0, boxes ``[S,4]``."""
    (w, h), (left, top, right, bottom) = size, widths
    bands = [(0.0, 0.0, left, h), (0.0, 0.0, w, top), (w - right, 0.0, w, h), (0.0, h - bottom, w, h)]
    return torch.tensor([band for band, width in zip(bands, widths, strict=True) if width]).reshape(-1, 4)


def beyond(size: tuple[float, float]) -> Tensor:
    """Returns what lies outside an image to the left, above, to the right and below, boxes ``[4,4]`` without end."""
    (w, h), far = size, math.inf
    return torch.tensor([(-far, -far, 0, far), (-far, -far, far, 0), (w, -far, far, far), (-far, h, far, far)])


def best(candidates: Iterable[T], found: Callable[[T], Iterable[Hits]]) -> tuple[T, float]:
    """Returns the setting with the highest overall F1 on some images, and that F1.

    Among equally good settings it takes the middle one.
    """
    scored = [
        (value, Hits(*(sum(column) for column in zip(*found(value), strict=True))).f1) for value in candidates
    ]
    top = max(f1 for _, f1 in scored)
    equal = [value for value, f1 in scored if f1 == top]
    return equal[len(equal) // 2], top
