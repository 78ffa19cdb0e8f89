"""Base of networks that predict a set: slots, matched with the truth by the Hungarian algorithm.

A network proposes S positions, each with a logit of presence; the loss matches them with the
unordered objects of the image (Carion et al. 2020, DETR; Locatello et al. 2020).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional

from igm_cli.benchmarks.baselines.fit import CHUNK, Baseline
from igm_cli.core.inference.tiles import once, own_part, spans
from igm_cli.core.metrics import PERCEPTION_THRESHOLD, match

POSITION_WEIGHT, EARLIER_WEIGHT = 5.0, 0.5
HUBER = 0.02  # where the position loss changes from squared to absolute, well below the perception threshold
FAR = 4 * PERCEPTION_THRESHOLD**0.5  # distance at which a position is entirely wrong, for validation
OVERLAP = 0.5  # of neighbouring tiles of a larger image, in sides of a tile


class Prediction(NamedTuple):
    """A set predictor's output for a batch."""

    positions: Tensor  # [B,S,2]
    logits: Tensor  # of presence [B,S]
    auxiliary: Tensor | float = 0.0  # an additional loss of the network, a scalar
    earlier: tuple[Prediction, ...] = ()  # of earlier iterations; each counts in the loss (deep supervision)


def set_loss(prediction: Prediction, concepts: Tensor, present: Tensor) -> Tensor:
    """Returns the Huber loss of matched positions, the cross entropy of presence and the auxiliary loss, summed."""
    positions, logits = prediction.positions.float(), prediction.logits.float()
    image, slot, truth = assign(positions, logits, concepts, present)
    error = functional.smooth_l1_loss(
        positions[image, slot], concepts[image, truth], beta=HUBER, reduction="sum"
    )
    target = torch.zeros_like(logits)
    target[image, slot] = 1.0
    presence = functional.binary_cross_entropy_with_logits(logits, target)
    total = POSITION_WEIGHT * error / max(1, len(image)) + presence + prediction.auxiliary
    for earlier in prediction.earlier:
        total = total + EARLIER_WEIGHT * set_loss(earlier, concepts, present)
    return total


@torch.no_grad()
def assign(
    positions: Tensor, logits: Tensor, concepts: Tensor, present: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the Hungarian matching by distance and presence: image, slot and object of each of P pairs.

    Slots have ``positions [B,S,2]`` and ``logits [B,S]``; objects ``concepts [B,K,2]`` and ``present [B,K]``.
    """
    # Euclidean, because sums of coordinate-wise distances often tie, and then the order would decide.
    distance = (positions[:, :, None] - concepts[:, None]).square().sum(-1).sqrt()  # [B,S,K]
    cost = (POSITION_WEIGHT * distance - logits.sigmoid()[:, :, None]).nan_to_num(1e6).cpu().numpy()
    pairs = []
    for row, there in enumerate(present.cpu()):
        objects = there.nonzero()[:, 0]
        slots, columns = (torch.as_tensor(i) for i in linear_sum_assignment(cost[row][:, objects.numpy()]))
        pairs.append(torch.stack([torch.full_like(slots, row), slots, objects[columns]]))
    image, slot, truth = torch.cat(pairs, dim=1).to(positions.device)
    return image, slot, truth


def choose(positions: Tensor, logits: Tensor, k: int | None) -> Tensor:
    """Returns the K positions ``[K,2]`` of ``[S,2]`` with the largest logits ``[S]``, the most likely first.

    Without ``k``, returns the positions that are more likely present than not.
    """
    order = logits.argsort(descending=True, stable=True)
    return positions[order[: int((logits > 0).sum()) if k is None else k]]


def mlp(*sizes: int) -> nn.Sequential:
    """Returns linear layers of these sizes with GELU between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.GELU()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True)
class SetPredictor(Baseline):
    """A baseline whose network maps (images, generator or None) to a :class:`Prediction`."""

    image_size: tuple[int, int]  # (width, height) in pixels
    weight_decay: float = field(default=1e-4, kw_only=True)

    def loss(
        self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Returns :func:`set_loss` of the prediction, with slots drawn by the generator."""
        return set_loss(model(images, generator), concepts, present)

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Returns the mean distance of objects from their positions, K given, in units of :data:`FAR`, at most 1.

        This is the rate of missed objects, averaged over thresholds of distance.
        """
        found = self.predict(model, images, present.sum(1).tolist())
        triples = zip(found, concepts, present, strict=True)
        errors = [
            match(positions, truth[there]).squared.sum(1).sqrt() / FAR for positions, truth, there in triples
        ]
        return float(torch.cat(errors).nan_to_num(1.0).clamp(max=1).mean())

    @torch.no_grad()
    def predict(self, model: nn.Module, images: Tensor, k: Sequence[int | None]) -> list[Tensor]:
        """Returns the positions in each image, ``[K,2]`` on the CPU, deterministically; a K of None is estimated."""
        found = [model(chunk, None) for chunk in images.split(CHUNK)]
        positions, logits = (torch.cat([part[n] for part in found]).float().cpu() for n in (0, 1))
        return [choose(*row) for row in zip(positions, logits, k, strict=True)]

    def predict_tiled(self, model: nn.Module, image: Tensor, same: float) -> Tensor:
        """Returns the points in an image ``[3,H,W]`` of any size, ``[K,2]`` in its pixels on the CPU.

        Only the part of a tile that is nearer to its middle than to any other's counts.  Of two points from different tiles
        within ``same`` pixels, the one further from its tile's border is kept.
        """
        height, width = image.shape[-2:]
        side = torch.tensor(self.image_size)
        short = [max(0, n - given) for n, given in zip(side.tolist(), (width, height), strict=True)]
        padded = functional.pad(image[None], (0, short[0], 0, short[1]), mode="replicate")[0]
        sides = zip((width, height), side.tolist(), strict=True)
        across, down = (spans(max(length, n), 1, n, math.ceil(OVERLAP * n)) for length, n in sides)
        places = [(x, y) for y in down for x in across]
        tiles = torch.stack([padded[:, y.start : y.stop, x.start : x.stop] for x, y in places])
        points, depths, numbers = [], [], []
        for number, (found, (x, y)) in enumerate(
            zip(self.predict(model, tiles, [None] * len(tiles)), places, strict=True)
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
