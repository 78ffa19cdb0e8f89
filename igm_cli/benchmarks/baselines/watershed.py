"""Blob detection without learning: Otsu's threshold, distance transform and marker-controlled watershed, by scikit-image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.benchmarks.points import Hits, best, hits
from igm_cli.errors import need

DISTANCES = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
"""Minimum distances of markers to try, in radii; the radius is half of a typical object's."""

LEAST = 0.25
"""Smaller regions are noise; in units of the area of a circle with the radius."""


@dataclass(frozen=True)
class Watershed:
    """The parameters of watershed."""

    dark: bool  # whether objects are darker than their surroundings
    distance: float  # minimum distance of markers, in radii
    radius: float  # in pixels of the given image

    def find(self, image: Tensor) -> Tensor:
        """Returns the centres of regions ``[K,2]`` in pixels of an image ``[3,H,W]``."""
        need("bench", "skimage")
        import numpy as np
        from scipy import ndimage
        from skimage.feature import peak_local_max
        from skimage.filters import threshold_otsu
        from skimage.segmentation import watershed

        grey = image.mean(0).cpu().numpy()
        if grey.min() == grey.max():
            return torch.zeros(0, 2)
        level = threshold_otsu(grey)
        inside = ndimage.binary_fill_holes(grey < level if self.dark else grey > level)
        depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), 1.0)
        apart = max(1, round(self.distance * self.radius))
        peaks = peak_local_max(depth, min_distance=apart, labels=ndimage.label(inside)[0], exclude_border=False)
        markers = np.zeros(grey.shape, dtype=np.int32)
        markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        regions = watershed(-depth, markers, mask=inside)
        numbers, areas = np.unique(regions[regions > 0], return_counts=True)
        kept = numbers[areas >= LEAST * math.pi * self.radius**2]
        centres = ndimage.center_of_mass(inside, regions, kept)  # rows and columns of pixel middles
        return torch.tensor(centres).reshape(-1, 2).flip(1).float() + 0.5


def chosen(
    images: Sequence[Tensor], truths: Sequence[Tensor], ignored: Sequence[Tensor], radius: float
) -> tuple[Watershed, float]:
    """Returns the parameters with the highest F1 on training images, and that F1; points and boxes are in their pixels."""
    tried = [
        Watershed(dark, distance, radius) for dark, distance in itertools.product((True, False), DISTANCES)
    ]

    def found(one: Watershed) -> list[Hits]:
        given = zip(images, truths, ignored, strict=True)
        return [hits(one.find(image), truth, boxes, radius) for image, truth, boxes in given]

    return best(tried, found)
