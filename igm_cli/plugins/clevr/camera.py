"""The camera, from points to pixels and from pixels to rays.

It is fitted to renders of CLEVR's own Blender scene: it stands at `CAMERA` plus a jitter and looks at the
origin, with a 35 mm lens on a sensor 32 mm wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.plugins.clevr.vectors import Vector, along, minus, pick, scaled, split

# The mean of 1 500 cameras recovered from 3d_coords and pixel_coords agrees to 0.01
CAMERA = (7.48113, -6.50764, 5.34367)


def focal_length(width: int) -> float:
    """Focal length in pixels of a picture `width` pixels wide."""
    return 35 / 32 * width


def camera_basis(camera: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vectors right, up and forward, each [B,3], of cameras [B,3] that look at the origin."""
    forward = -camera / camera.norm(dim=-1, keepdim=True)
    right = torch.stack([forward[:, 1], -forward[:, 0], torch.zeros_like(forward[:, 0])], dim=-1)
    right = right / right.norm(dim=-1, keepdim=True)
    return right, torch.linalg.cross(right, forward), forward


def project(points: Tensor, camera: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Projects points into the picture.

    Args:
        points: [B,K,3] scene units.
        camera: [B,3] scene units; it looks at the origin.
        image_size: (width, height) in pixels.

    Returns:
        [B,K,3]: x and y in pixels from the upper left corner, depth along the view axis in scene units.
    """
    width, height = image_size
    right, up, forward = (axis[:, None] for axis in camera_basis(camera.double()))
    offset = points.double() - camera.double()[:, None]
    depth = (offset * forward).sum(-1)
    scale = focal_length(width) / depth
    x = width / 2 + (offset * right).sum(-1) * scale
    y = height / 2 - (offset * up).sum(-1) * scale
    return torch.stack([x, y, depth], dim=-1)


@dataclass(frozen=True)
class View:
    """The rays of B cameras through P = H·W pixels, at S places in each.

    Lengths in the picture are in focal lengths, so that a ray (u, v) steps 1 along the view axis.

    Attributes:
        count: B.
        u: [P] pixel centres, rightwards from the middle of the picture.
        v: [P] pixel centres, downwards from the middle of the picture.
        offsets: The S places in a pixel, from its centre.
        right: [B] a component, unit.
        up: [B] a component, unit.
        forward: [B] a component, unit.
        origin: [B] a component, the cameras in scene units.
        pixel: Side of a pixel.
    """

    count: int
    u: Tensor
    v: Tensor
    offsets: list[tuple[float, float]]
    right: Vector
    up: Vector
    forward: Vector
    origin: Vector
    pixel: float

    @classmethod
    def of(cls, camera: Tensor, image_size: tuple[int, int], samples: int) -> View:
        """Looks through cameras [B,3] at pictures of (width, height) pixels, samples² places in each."""
        width, height = image_size
        focal = focal_length(width)
        u = (torch.arange(width, device=camera.device) + 0.5 - width / 2) / focal
        v = (torch.arange(height, device=camera.device) + 0.5 - height / 2) / focal
        right, up, forward = (split(axis) for axis in camera_basis(camera))
        return cls(
            count=len(camera),
            u=u.repeat(height),
            v=v.repeat_interleave(width),
            offsets=[(x / focal, y / focal) for x, y in _sub_pixels(samples)],
            right=right,
            up=up,
            forward=forward,
            origin=split(camera),
            pixel=1 / focal,
        )

    def directions(self, scene: Tensor, u: Tensor, v: Tensor) -> Vector:
        """Ray directions [N] whose length along the view axis is 1."""
        ray = along(pick(self.forward, scene), pick(self.right, scene), u)
        return minus(ray, scaled(pick(self.up, scene), v))


def _sub_pixels(n: int) -> list[tuple[float, float]]:
    """n² places in a pixel, from its middle, in pixels.

    They lie on a turned grid: no two share a row or a column, which smooths upright edges best.
    """
    cells = [(i, j) for j in range(n) for i in range(n)]
    return [((i + (j + 0.5) / n) / n - 0.5, (j + (n - i - 0.5) / n) / n - 0.5) for i, j in cells]
