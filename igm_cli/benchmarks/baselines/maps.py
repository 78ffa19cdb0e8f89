"""Networks that predict maps of objects, trained on crops and applied to images of any size.

Both share the network: the trunk of the factored denoiser, applied to images without noise, with one read-out layer.

    density        sum over objects of normalised Gaussians; the number of objects is the sum of the map
                   (Lempitsky & Zisserman 2010; Xie, Noble & Zisserman 2016: by a fully convolutional network)
    centre-point   probability that an object's centre lies in a cell, and where in the cell (Zhou, Wang & Krähenbühl
                   2019, "Objects as Points": focal loss, peaks of a 3x3 maximum instead of suppression)

Coordinates are in pixels of the network's input.  Objects centred beyond a crop's border but visible in it count.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from igm_cli.benchmarks.baselines.fit import CHUNK, ErrorBaseline, outputs
from igm_cli.core.models.factored import FactoredConfig, Trunk

DENSITY_UNIT = 100.0
"""Factor of densities in training (Xie et al. 2016), as the densities of objects of some pixels are small."""

FOCAL_ALPHA, FOCAL_BETA = 2.0, 4.0
"""Exponents of the focal loss (Zhou et al. 2019, equation 1)."""

RARE = -2.19
"""Initial logit of a centre, for a probability of 0.1 (Zhou et al. 2019)."""


class Peaks(NamedTuple):
    """Possible objects in an image."""

    points: Tensor  # in pixels [K,2]
    scores: Tensor  # [K]; those above a threshold are answers
    density: Tensor | None = None  # objects per cell [h,w], if their number is the sum


class MapNet(nn.Module):
    """A U-Net that maps images ``[B,3,H,W]`` of any size to C values for every cell, ``[B,C,ceil(H/p),ceil(W/p)]``."""

    def __init__(self, options: MapBaseline) -> None:
        super().__init__()
        config = FactoredConfig(
            image_size=options.image_size,
            patch=options.patch,
            channels=options.channels,
            blocks=options.blocks,
            coordinates=False,
        )
        self.patch, self.trunk = config.patch, Trunk(config)
        self.out = nn.Conv2d(config.channels[0], options.values, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Returns the values of every cell, float32."""
        height, width = images.shape[-2:]
        unit = 4 * self.patch
        images = functional.pad(images, (0, -width % unit, 0, -height % unit), mode="replicate")
        seen = self.trunk(images, torch.zeros(len(images), device=images.device))
        rows, columns = math.ceil(height / self.patch), math.ceil(width / self.patch)
        return self.out(seen).float()[..., :rows, :columns]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class MapBaseline(ErrorBaseline):
    """A map network; errors are of values ``[B,C,h,w]`` for objects ``[B,K,2]`` in 0..1 of the crop."""

    network = MapNet
    image_size: tuple[int, int]  # (width, height) of training crops in pixels
    radius: float  # in pixels: half of a typical object's
    _: KW_ONLY
    patch: int = 2  # side of a cell in pixels
    channels: tuple[int, int, int] = (32, 64, 96)
    blocks: int = 2
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    values: int = field(default=1, init=False, repr=False)  # C, per cell

    @abstractmethod
    def read(self, maps: Tensor) -> Peaks:
        """Returns the peaks in values ``[C,h,w]``."""

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Returns the error, averaged over batches of crops."""
        parts = zip(*(whole.split(CHUNK) for whole in (images, concepts, present)), strict=True)
        return sum(float(self.error(model(part[0]), *part[1:])) * len(part[0]) for part in parts) / len(images)

    def find(self, model: nn.Module, images: Tensor) -> list[Peaks]:
        """Returns where objects may be in images ``[B,3,H,W]`` of one size, on the CPU."""
        return [self.read(maps) for maps in outputs(model, images).cpu()]

    def cells(self, concepts: Tensor) -> Tensor:
        """Converts objects ``[...,2]`` from 0..1 of a crop to cells."""
        return concepts * torch.tensor(self.image_size, device=concepts.device) / self.patch


def squared_distances(centres: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns squared distances ``[B,K,h,w]`` of points ``[B,K,2]``, in cells, from the middles of a map's cells."""
    rows, columns = (torch.arange(n, device=centres.device) + 0.5 for n in size)
    x, y = (centres[..., None, i] for i in range(2))  # [B,K,1]
    return (rows - y).square()[..., None] + (columns - x).square()[..., None, :]


def maxima(scores: Tensor, reach: int) -> Tensor:
    """Returns rows and columns ``[K,2]`` of the positive local maxima of a map ``[h,w]`` within ``reach`` cells."""
    most = functional.max_pool2d(scores[None, None], 2 * reach + 1, stride=1, padding=reach)[0, 0]
    return ((scores == most) & (scores > 0)).nonzero()


def centre_loss(maps: Tensor, centres: Tensor, present: Tensor, spread: float) -> Tensor:
    """Returns the focal loss of centres plus the absolute error of their offsets in their cells, per object.

    Maps ``[B,3,h,w]`` hold each cell's logit of a centre and its offset.  Centres ``[B,K,2]``, some of them ``present
    [B,K]``, and the standard deviation of the Gaussians around them are in cells.
    """
    rows, columns = maps.shape[-2:]
    cell = centres.floor()
    near = squared_distances(cell + 0.5, (rows, columns))
    heat = (torch.exp(-near / (2 * spread**2)) * present[..., None, None]).amax(1)  # [B,h,w]
    log_p, log_q = functional.logsigmoid(maps[:, 0]), functional.logsigmoid(-maps[:, 0])
    found = log_q.exp() ** FOCAL_ALPHA * log_p
    empty = (1 - heat) ** FOCAL_BETA * log_p.exp() ** FOCAL_ALPHA * log_q
    focal = -torch.where(heat == 1, found, empty).sum()
    inside = present & ((cell >= 0) & (cell < torch.tensor([columns, rows], device=cell.device))).all(2)
    image, which = inside.nonzero().T
    x, y = cell[image, which].long().T
    offsets = (maps[image, 1:, y, x] - (centres - cell)[image, which]).abs().sum()
    return (focal + offsets) / inside.sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class DensityMap(MapBaseline):
    """A density-map counter."""

    name: str = "density"

    @property
    def spread(self) -> float:
        """Standard deviation of a Gaussian in cells: half the radius, and wide enough for cells to sum to its volume."""
        return max(0.8, self.radius / 2 / self.patch)

    def error(self, said: Tensor, concepts: Tensor, present: Tensor) -> Tensor:
        """Returns the mean squared error of the density."""
        rows, columns = said.shape[-2:]
        variance = self.spread**2
        bumps = torch.exp(-squared_distances(self.cells(concepts), (rows, columns)) / (2 * variance))
        target = (bumps * present[..., None, None]).sum(1) / (2 * math.pi * variance)
        return (said[:, 0] - DENSITY_UNIT * target).square().mean()

    def read(self, maps: Tensor) -> Peaks:
        """Returns local maxima; scores are densities relative to that at the middle of a single object."""
        density = maps[0] / DENSITY_UNIT
        at = maxima(density, max(1, int(self.radius / self.patch)))
        # The centre of mass of the cells around a maximum has subcell precision.
        around = functional.unfold(density.clamp(min=0)[None, None], 3, padding=1)[0].view(9, *density.shape)
        weights = around[:, at[:, 0], at[:, 1]]  # [9,K]
        rows, columns = (torch.arange(3.0) - 1).repeat_interleave(3), (torch.arange(3.0) - 1).repeat(3)
        shift = torch.stack([columns @ weights, rows @ weights], dim=1) / weights.sum(0)[:, None].clamp(
            min=1e-9
        )
        points = (at.flip(1) + 0.5 + shift) * self.patch
        return Peaks(points, density[at[:, 0], at[:, 1]] * 2 * math.pi * self.spread**2, density)


@dataclass(frozen=True, kw_only=True)
class CentrePoints(MapBaseline):
    """A centre-point detector of objects without a size."""

    name: str = "centre-point"
    values: int = field(default=3, init=False, repr=False)

    def build(self) -> nn.Module:
        """Returns the network with fresh weights, biased so that centres are rare."""
        model = super().build()
        nn.init.constant_(model.out.bias[:1], RARE)  # type: ignore[index, union-attr]
        return model

    @property
    def spread(self) -> float:
        """Standard deviation of a Gaussian in cells: a third of the radius."""
        return max(0.5, self.radius / 3 / self.patch)

    def error(self, said: Tensor, concepts: Tensor, present: Tensor) -> Tensor:
        """Returns the loss of the centres."""
        return centre_loss(said, self.cells(concepts), present, self.spread)

    def read(self, maps: Tensor) -> Peaks:
        """Returns the peaks of the centre probability, shifted by their offsets."""
        heat = maps[0].sigmoid()
        at = maxima(heat, 1)
        offsets = maps[1:, at[:, 0], at[:, 1]].T  # [K,2]
        return Peaks((at.flip(1) + offsets) * self.patch, heat[at[:, 0], at[:, 1]])
