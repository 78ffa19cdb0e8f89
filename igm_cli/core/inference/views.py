"""Views of an image: changes of it that leave its concepts unchanged.

The evidence is averaged over them, as in tests of classifiers (ten-crop, Krizhevsky et al. 2012).  Every draw sees one
view, so more views cost no further network calls.  No further draw of a view corrects what is misread in it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ENLARGED = 1.12
"""Factor by which an image is enlarged about its middle: a border of 5 % is lost."""


def views_of(image: Tensor, count: int) -> Tensor:
    """Returns views of an image ``[3,H,W]``, ``[V,3,H,W]``: itself; with 2, its mirror image; with 4, both enlarged."""
    views = [image, image.flip(-1), *([near := _enlarged(image), near.flip(-1)] if count > 2 else [])]
    return torch.stack(views[:count])


def encoded_views(encode: Callable[[Tensor], Tensor], image: Tensor, count: int) -> Tensor:
    """Latents ``[V,C,h,w]`` of views of an image ``[3,H,W]``, each encoded alone: large ones take much memory."""
    return torch.stack([encode(view) for view in views_of(image, count)])


def _enlarged(image: Tensor) -> Tensor:
    """Returns the middle of an image, enlarged to its size."""
    height, width = image.shape[-2:]
    theta = torch.tensor([[[1 / ENLARGED, 0.0, 0.0], [0.0, 1 / ENLARGED, 0.0]]], device=image.device)
    grid = F.affine_grid(theta, [1, len(image), height, width], align_corners=False)
    enlarged: Tensor = F.grid_sample(image[None], grid, align_corners=False)[0]
    return enlarged
