"""Set predictors on images larger than the crops they were trained on: tile by tile, every object counted once."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from igm_cli.benchmarks.baselines.set_prediction import SetPredictor
from igm_cli.core.inference.tiles import once, own_part, spans

OVERLAP = 0.5
"""Overlap of neighbouring tiles, in sides of a tile."""


def predict_tiled(predictor: SetPredictor, model: nn.Module, image: Tensor, same: float) -> Tensor:
    """Returns the points in an image ``[3,H,W]`` of any size, ``[K,2]`` in its pixels on the CPU.

    Of each tile the part nearer to its middle than to any other's counts.  Of two points of different tiles within
    ``same`` pixels, the one further from its tile's border stays.
    """
    height, width = image.shape[-2:]
    side = torch.tensor(predictor.image_size)
    short = [max(0, n - given) for n, given in zip(side.tolist(), (width, height), strict=True)]
    padded = functional.pad(image[None], (0, short[0], 0, short[1]), mode="replicate")[0]
    sides = zip((width, height), side.tolist(), strict=True)
    across, down = (spans(max(length, n), 1, n, math.ceil(OVERLAP * n)) for length, n in sides)
    places = [(x, y) for y in down for x in across]
    tiles = torch.stack([padded[:, y.start : y.stop, x.start : x.stop] for x, y in places])
    points, depths, numbers = [], [], []
    for number, (found, (x, y)) in enumerate(
        zip(predictor.predict(model, tiles, [None] * len(tiles)), places, strict=True)
    ):
        within = found * side
        placed = within + torch.tensor([x.start, y.start])
        own = own_part(placed, x, y, same)
        points.append(placed[own])
        depths.append(torch.minimum(within, side - within).amin(1)[own])
        numbers.append(torch.full((int(own.sum()),), number))
    every = torch.cat(points)
    stays = once(every, torch.cat(depths), torch.cat(numbers), same)
    inside = ((every >= 0) & (every <= torch.tensor([width, height]))).all(1)
    return every[stays & inside]
