"""What networks that predict a set have in common: slots, matched to the truth by the Hungarian algorithm.

A network proposes S positions, each with a logit of being present; the loss matches them with the
objects of the image, whose order means nothing (Carion et al. 2020, DETR; Locatello et al. 2020).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional

from igm_cli.core.metrics import PERCEPTION_THRESHOLD, match

POSITION_WEIGHT, EARLIER_WEIGHT = 5.0, 0.5
HUBER = 0.02  # where the position loss turns from squared to absolute, well below what counts as perceived
FAR = 4 * PERCEPTION_THRESHOLD**0.5  # distance at which a position is wholly wrong, for validation
CHUNK = 50


class Prediction(NamedTuple):
    """What a set predictor says about a batch.

    Attributes:
        positions: ``[B,S,2]``.
        logits: Of presence ``[B,S]``.
        auxiliary: A further loss of the network's own, a scalar.
        earlier: What it said on the way there; each counts in the loss (deep supervision).
    """

    positions: Tensor
    logits: Tensor
    auxiliary: Tensor | float = 0.0
    earlier: tuple[Prediction, ...] = ()


def set_loss(prediction: Prediction, concepts: Tensor, present: Tensor) -> Tensor:
    """Huber loss of the matched positions and cross entropy of all presences, plus what the prediction adds.

    Args:
        prediction: Of S slots.
        concepts: ``[B,K,2]``.
        present: ``[B,K]``.
    """
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
    """The Hungarian matching of each image, by distance and presence.

    Args:
        positions: ``[B,S,2]``.
        logits: ``[B,S]``.
        concepts: ``[B,K,2]``.
        present: ``[B,K]``.

    Returns:
        Image, slot and object of each pair, ``[P]`` each.
    """
    # Euclidean: sums of coordinate-wise distances often tie, and what then is matched hangs on the order.
    distance = (positions[:, :, None] - concepts[:, None]).square().sum(-1).sqrt()  # [B,S,K]
    cost = (POSITION_WEIGHT * distance - logits.sigmoid()[:, :, None]).nan_to_num(1e6).cpu().numpy()
    pairs = []
    for row, count in enumerate(present.cpu()):
        objects = count.nonzero()[:, 0]
        slots, columns = linear_sum_assignment(cost[row][:, objects.numpy()])
        matched = torch.as_tensor(slots), objects[torch.as_tensor(columns)]
        pairs.append(torch.stack([torch.full_like(matched[0], row), *matched]))
    image, slot, truth = torch.cat(pairs, dim=1).to(positions.device)
    return image, slot, truth


def choose(positions: Tensor, logits: Tensor, k: int | None) -> Tensor:
    """The positions that are said to be there.

    Args:
        positions: ``[S,2]``.
        logits: ``[S]``.
        k: How many; None takes those more likely present than not.

    Returns:
        ``[K,2]``, the most likely first.
    """
    order = logits.argsort(descending=True, stable=True)
    count = int((logits > 0).sum()) if k is None else k
    return positions[order[:count]]


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers of these sizes with GELU between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.GELU()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True)
class SetPredictor:
    """A baseline whose network maps (images, generator or None) to a :class:`Prediction`.

    Attributes:
        image_size: (width, height) in pixels.
    """

    image_size: tuple[int, int]

    def describe(self) -> dict[str, Any]:
        """All options but where their files may be looked for, as JSON."""
        return {key: value for key, value in asdict(self).items() if key != "local_files_only"}

    def loss(
        self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See :func:`set_loss`."""
        return set_loss(model(images, generator), concepts, present)

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Mean distance of objects from the positions chosen for them, K being given.

        Measured in :data:`FAR`, and 1 beyond it: the rate of missed objects averaged over how near
        a position must be.
        """
        errors = []
        found = self.predict(model, images, [int(count) for count in present.sum(1)])
        for positions, truth, there in zip(found, concepts, present, strict=True):
            errors.append(match(positions, truth[there]).squared.sum(1).sqrt() / FAR)
        return float(torch.cat(errors).nan_to_num(1.0).clamp(max=1).mean())

    @torch.no_grad()
    def predict(self, model: nn.Module, images: Tensor, k: Sequence[int | None]) -> list[Tensor]:
        """The positions in each image, ``[K,2]`` float32 on the CPU, without chance.

        Args:
            model: In evaluation mode.
            images: ``[B,3,H,W]`` in -1..1.
            k: How many objects there are in each image; None leaves that to the network.
        """
        rows: list[tuple[Tensor, Tensor]] = []
        for chunk in images.split(CHUNK):
            found: Prediction = model(chunk, None)
            rows += zip(found.positions.float().cpu(), found.logits.float().cpu(), strict=True)
        return [choose(*row, count) for row, count in zip(rows, k, strict=True)]
