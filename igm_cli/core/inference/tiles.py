"""Images of any size: large ones are inverted tile by tile, and what several tiles find is reported once.

Contributions are confined to windows, so that what lies far away does not matter: a tile sees all that bears on the
concepts of its inner part.  Memory is that of a tile, time is proportional to the area.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.inference.engine import invert_batch
from igm_cli.core.inference.sparse_subset import MOST_CONCEPTS
from igm_cli.core.types import Inversion, InversionSettings, Progress
from igm_cli.errors import UsageError

if TYPE_CHECKING:
    from igm_cli.core.denoiser import Denoiser

TILE = 384
"""Largest side in pixels of what is inverted in one piece."""

OVERLAP = 96
"""Least overlap in pixels of neighbouring tiles."""

SAME = 4.0
"""Pixels up to which two points that two tiles found at their common border are the same."""


def invert_any_size(
    denoiser: Denoiser,
    images: Tensor,
    settings: InversionSettings,
    *,
    k: int | None = None,
    k_max: int | None = None,
    composition: Composition = "sum",
    progress: Progress | None = None,
) -> list[Inversion]:
    """Finds the concepts of images ``[B,C,H,W]`` of another size than the denoiser was trained on.

    Args:
        denoiser: A denoiser of local concepts that takes images of any size; concepts begin with x and y in 0..1.
        images: Images of one size.
        settings: How to invert; ``k_max`` is that of an image of the size trained on, and grows with the area.
        k: Number of concepts; None estimates it.
        k_max: Most concepts of an image; None lets it follow from the area.
        composition: How the denoiser was trained to compose.
        progress: Told of the network calls of a single image, or of its tiles.

    Raises:
        UsageError: If K is given for an image of several tiles.
    """
    height, width = images.shape[-2:]
    if max(width, height) <= TILE:
        fitting = _settings(denoiser, settings, (width, height), k_max)
        return invert_batch(denoiser, images, fitting, k=k, composition=composition, progress=progress)
    if k is not None:
        raise UsageError(
            f"the number of concepts cannot be given for an image that is inverted in tiles, as one of {width}×{height} "
            "pixels is; let it be estimated, or scale the image down"
        )
    return [_by_tiles(denoiser, image, settings, k_max, composition, progress) for image in images]


def _settings(
    denoiser: Denoiser, settings: InversionSettings, size: tuple[int, int], k_max: int | None
) -> InversionSettings:
    trained: tuple[int, int] = denoiser.image_size  # type: ignore[attr-defined]
    area = math.prod(size) / math.prod(trained)
    most = k_max or max(settings.k_max, math.ceil(settings.k_max * area))
    return replace(settings, k_max=min(MOST_CONCEPTS, most))


@dataclass(frozen=True)
class _Span:
    """A tile along one side: where it lies, and which part of it is its own, in pixels."""

    start: int
    stop: int
    low: float
    high: float


def _spans(length: int, unit: int) -> list[_Span]:
    """Returns overlapping spans of equal length, all divisible by a unit, that cover a side of the image."""
    if length <= TILE:
        return [_Span(0, length, -math.inf, math.inf)]
    count = math.ceil((length - OVERLAP) / (TILE - OVERLAP))
    starts = [round(i * (length - TILE) / (count - 1) / unit) * unit for i in range(count)]
    cuts = [(start + TILE + after) / 2 for start, after in itertools.pairwise(starts)]
    lows, highs = [-math.inf, *cuts], [*cuts, math.inf]
    return [_Span(s, s + TILE, low, high) for s, low, high in zip(starts, lows, highs, strict=True)]


def _by_tiles(
    denoiser: Denoiser,
    image: Tensor,
    settings: InversionSettings,
    k_max: int | None,
    composition: Composition,
    progress: Progress | None,
) -> Inversion:
    """Inverts an image ``[C,H,W]`` tile by tile."""
    height, width = image.shape[-2:]
    unit = int(getattr(denoiser, "multiple", 1))
    tiles = [(x, y) for y in _spans(height, unit) for x in _spans(width, unit)]
    found: list[
        tuple[Inversion, Tensor, Tensor]
    ] = []  # with points in pixels of the image [K,2], and which are kept
    for number, (x, y) in enumerate(tiles):
        if progress:
            progress(number, len(tiles))
        tile = image[:, y.start : y.stop, x.start : x.stop]
        size = (x.stop - x.start, y.stop - y.start)
        fitting = _settings(denoiser, settings, size, k_max)
        (part,) = invert_batch(denoiser, tile[None], fitting, composition=composition)
        points = part.concepts[:, :2].double() * torch.tensor(size) + torch.tensor([x.start, y.start])
        low, high = torch.tensor([x.low, y.low]) - SAME / 2, torch.tensor([x.high, y.high]) + SAME / 2
        found.append((part, points, ((points >= low) & (points < high)).all(1)))
    if progress:
        progress(len(tiles), len(tiles))
    return _joined(found, (width, height))


def _joined(found: Sequence[tuple[Inversion, Tensor, Tensor]], size: tuple[int, int]) -> Inversion:
    """Returns what tiles found as one answer; of the same point found by two of them, the more certain one stays."""
    points = torch.cat([points[kept] for _, points, kept in found])
    tile = torch.cat([torch.full((int(kept.sum()),), i) for i, (_, _, kept) in enumerate(found)])
    confidence = torch.cat([part.confidence[kept] for part, _, kept in found])
    order = confidence.argsort(descending=True, stable=True)
    near = (torch.cdist(points, points) < SAME) & (tile[:, None] != tile)
    stays = torch.ones(len(points), dtype=torch.bool)
    for i in order.tolist():
        if stays[i]:
            stays &= ~near[i]
    concepts = torch.cat([part.concepts[kept] for part, _, kept in found])
    concepts = torch.cat([(points / torch.tensor(size)).float(), concepts[:, 2:]], dim=1)
    values = [part.values[kept] for part, _, kept in found if part.values is not None]
    parts = [part for part, _, _ in found]
    return replace(
        parts[0],
        concepts=concepts[stays],
        confidence=confidence[stays],
        k=int(stays.sum()),
        denoising_error=sum(part.denoising_error for part in parts) / len(parts),
        k_curve=(),
        network_calls=sum(part.network_calls for part in parts),
        seconds=sum(part.seconds for part in parts),
        draws=max(part.draws for part in parts),
        familiarity=min(part.familiarity for part in parts),
        values=torch.cat(values)[stays] if values else None,
    )
