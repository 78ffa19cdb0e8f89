"""Images of any size: large ones are inverted tile by tile, and what several tiles find is reported once.

Contributions are confined to windows, so a tile sees all that matters for the concepts of its inner part.  Memory is
that of a tile; time is proportional to the area.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Continuous, Product
from igm_cli.core.inference.engine import invert_batch
from igm_cli.core.inference.sparse_subset import MOST_CONCEPTS
from igm_cli.core.types import Inversion, InversionSettings, Progress
from igm_cli.errors import UsageError

if TYPE_CHECKING:
    from igm_cli.core.denoiser import Denoiser

TILE = 320
"""Largest side in pixels of a piece that is inverted as a whole; larger ones take more time and memory per pixel."""

OVERLAP = 48
"""Least overlap in pixels of neighbouring tiles: a tile sees half of it around its own part."""

SAME = 4.0
"""Distance in pixels up to which points that two tiles found at their common border are the same."""


def invert_any_size(
    denoiser: Denoiser,
    images: Tensor,
    settings: InversionSettings,
    *,
    k: int | None = None,
    k_max: int | None = None,
    margin: int = 0,
    composition: Composition = "sum",
    progress: Progress | None = None,
) -> list[Inversion]:
    """Finds the concepts of images ``[B,C,H,W]`` of another size than the denoiser was trained on.

    Args:
        denoiser: A denoiser of local concepts that takes images of any size; concepts begin with x and y in 0..1.
        images: Images of one size.
        settings: How to invert; ``k_max`` is that of an image of the size trained on, and grows with the area.
        k: Number of concepts; None estimates it.
        k_max: Most concepts of an image; None derives it from the area.
        margin: How many pixels beyond the border points may lie, to explain what shows of objects there; these points
            are not part of the answer.  If K or its least value is given there is no margin.
        composition: How the denoiser was trained to compose.
        progress: Called with the network calls of a single image, or with its tiles; see :func:`in_tiles`.

    Raises:
        UsageError: If K, or its least or largest value, is given for an image of several tiles.
    """
    free = k is None and not settings.k_min
    if in_tiles(images) and (k_max or not free):
        height, width = images.shape[-2:]
        raise UsageError(
            "neither the number of concepts nor its least or largest value can be given for an image that is inverted in "
            f"tiles, as one of {width}×{height} pixels is; let it be estimated, or scale the image down"
        )
    piece = _Piece(denoiser, settings, k, k_max, margin if free else 0, composition)
    if in_tiles(images):
        return [_by_tiles(piece, image, progress) for image in images]
    return [_inside(found) for found in piece.invert(images, progress)]


def unit_of(denoiser: Denoiser) -> int:
    """Returns the divisor of the sides of images that a denoiser takes."""
    return int(getattr(denoiser, "multiple", 1))


def scaled(size: tuple[int, int], scale: float, unit: int) -> tuple[int, int]:
    """Returns the size (width, height) that a denoiser can take nearest to an image's at a scale."""
    width, height = (max(1, round(side * scale / unit)) * unit for side in size)
    return width, height


def in_tiles(images: Tensor) -> bool:
    """Returns whether images ``[...,H,W]`` are inverted in several tiles."""
    return max(images.shape[-2:]) > TILE


@dataclass(frozen=True)
class _Piece:
    """Inverts images that are no larger than a tile; see :func:`invert_any_size`."""

    denoiser: Denoiser
    settings: InversionSettings
    k: int | None
    k_max: int | None
    margin: int
    composition: Composition

    def invert(self, images: Tensor, progress: Progress | None = None) -> list[Inversion]:
        """Inverts images ``[B,C,H,W]``; points may lie beyond their borders."""
        size, settings = (images.shape[-1], images.shape[-2]), self.settings
        trained: tuple[int, int] = self.denoiser.image_size  # type: ignore[attr-defined]
        area = math.prod(size) / math.prod(trained)
        most = self.k_max or max(settings.k_max, math.ceil(settings.k_max * area))
        settings = replace(settings, k_max=min(MOST_CONCEPTS, most))
        reach = tuple(self.margin / side for side in size)
        if settings.grid:
            grid = (round(n * (1 + 2 * more)) for n, more in zip(settings.grid, reach, strict=False))
            settings = replace(settings, grid=(*grid, *settings.grid[2:]))
        denoiser = _beyond(self.denoiser, reach) if self.margin else self.denoiser
        return invert_batch(
            denoiser, images, settings, k=self.k, composition=self.composition, progress=progress
        )


def _beyond(denoiser: Denoiser, reach: tuple[float, ...]) -> Denoiser:
    """Returns the same denoiser over a space whose points reach beyond the image, in x and in y."""
    space = cast(Continuous | Product, denoiser.space)
    reach = (*reach, *[0.0] * space.point.dim)[: space.point.dim]
    low = tuple(value - more for value, more in zip(space.point.low, reach, strict=True))
    high = tuple(value + more for value, more in zip(space.point.high, reach, strict=True))
    wider, point = copy(denoiser), replace(space.point, low=low, high=high)
    wider.space = replace(space, where=point) if isinstance(space, Product) else point
    return wider


def _inside(found: Inversion) -> Inversion:
    """Returns an answer without the points beyond the image."""
    return found.keep(((found.concepts[:, :2] >= 0) & (found.concepts[:, :2] <= 1)).all(1))


@dataclass(frozen=True)
class Span:
    """A tile along one side: where it lies, and which part of it is its own, in pixels."""

    start: int
    stop: int
    low: float
    high: float


def spans(length: int, unit: int, tile: int, overlap: int) -> list[Span]:
    """Returns spans of the length of a tile that cover a side of the image and begin at multiples of a unit, in pixels.

    Neighbours overlap by ``overlap`` or more; a side no longer than a tile is one span.
    """
    if length <= tile:
        return [Span(0, length, -math.inf, math.inf)]
    count = math.ceil((length - overlap) / (tile - overlap))
    starts = [round(i * (length - tile) / (count - 1) / unit) * unit for i in range(count)]
    cuts = [(start + tile + after) / 2 for start, after in itertools.pairwise(starts)]
    lows, highs = [-math.inf, *cuts], [*cuts, math.inf]
    return [Span(s, s + tile, low, high) for s, low, high in zip(starts, lows, highs, strict=True)]


def even_tile(length: int, unit: int) -> int:
    """Returns the least length, in multiples of a unit, at which the fewest tiles cover a side."""
    if length <= TILE:
        return length
    count = math.ceil((length - OVERLAP) / (TILE - OVERLAP))
    return math.ceil((length + (count - 1) * OVERLAP) / count / unit) * unit


def own_part(points: Tensor, x: Span, y: Span, same: float = SAME) -> Tensor:
    """Returns which points ``[K,2]``, in pixels of the image, lie in a tile's own part or half of ``same`` outside it ``[K]``."""
    low, high = torch.tensor([x.low, y.low]) - same / 2, torch.tensor([x.high, y.high]) + same / 2
    return ((points >= low) & (points < high)).all(1)


def once(points: Tensor, certainty: Tensor, tile: Tensor, same: float = SAME) -> Tensor:
    """Returns which points ``[K,2]`` stay ``[K]``: of two that different tiles found nearer than ``same``, the more certain one.

    Points and ``same`` are in pixels of the image; ``certainty``, in any unit, and the number of the tile are ``[K]``.
    """
    from scipy.spatial import cKDTree

    pairs = torch.from_numpy(cKDTree(points.numpy()).query_pairs(same, output_type="ndarray"))
    pairs = pairs[tile[pairs[:, 0]] != tile[pairs[:, 1]]]
    rank = certainty.argsort(descending=True, stable=True).argsort()
    ranks = rank[pairs].sort(1)
    surer = pairs.gather(1, ranks.indices)[ranks.values[:, 0].argsort(stable=True)]
    stays = torch.ones(len(points), dtype=torch.bool)
    for one, other in surer.tolist():
        if stays[one]:
            stays[other] = False
    return stays


def _by_tiles(piece: _Piece, image: Tensor, progress: Progress | None) -> Inversion:
    """Inverts an image ``[C,H,W]`` tile by tile."""
    height, width = image.shape[-2:]
    unit = unit_of(piece.denoiser)
    across, down = (spans(side, unit, even_tile(side, unit), OVERLAP) for side in (width, height))
    tiles = [(x, y) for y in down for x in across]
    parts: list[Inversion] = []
    for number, (x, y) in enumerate(tiles):
        if progress:
            progress(number, len(tiles))
        (found,) = piece.invert(image[None, :, y.start : y.stop, x.start : x.stop])
        size, corner = torch.tensor([x.stop - x.start, y.stop - y.start]), torch.tensor([x.start, y.start])
        points = found.concepts[:, :2].double() * size + corner
        moved = (points / torch.tensor([width, height])).float()
        found = replace(found, concepts=torch.cat([moved, found.concepts[:, 2:]], dim=1))
        parts.append(found.keep(own_part(points, x, y)))
    if progress:
        progress(len(tiles), len(tiles))
    return _inside(_joined(parts, (width, height)))


def _joined(parts: Sequence[Inversion], size: tuple[int, int]) -> Inversion:
    """Joins the answers of tiles into one; of a point found by two of them, the more certain one stays.

    Typicality is the mean over tiles; points found in an untypical tile are less certain.
    """
    values = [part.values for part in parts if part.values is not None]
    whole = replace(
        parts[0],
        concepts=torch.cat([part.concepts for part in parts]),
        confidence=torch.cat([part.confidence for part in parts]),
        denoising_error=sum(part.denoising_error for part in parts) / len(parts),
        k_curve=(),
        network_calls=sum(part.network_calls for part in parts),
        seconds=sum(part.seconds for part in parts),
        draws=max(part.draws for part in parts),
        typicality=fmean(part.typicality for part in parts),
        values=torch.cat(values) if values else None,
        evidence=None,
    )
    points = whole.concepts[:, :2] * torch.tensor(size)
    tile = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(part.concepts) for part in parts]))
    return whole.keep(once(points, whole.confidence, tile))
