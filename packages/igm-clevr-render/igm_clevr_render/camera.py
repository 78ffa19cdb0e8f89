"""The camera: projects points to pixels, sends rays through pixels, and finds what these rays hit first.

It is fitted to renders of CLEVR's own Blender scene: it is at `CAMERA` plus a jitter and looks at the origin,
with a 35 mm lens on a sensor 32 mm wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from igm_clevr_render.geometry import dot, nearest, viewer_axes
from igm_clevr_render.scenes import SceneBatch

# The mean of 1 500 cameras recovered from 3d_coords and pixel_coords agrees to 0.01
CAMERA = (7.48113, -6.50764, 5.34367)


def focal_length(width: int) -> float:
    """Returns the focal length in pixels of an image `width` pixels wide."""
    return 35 / 32 * width


def project(points: Tensor, camera: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Returns x, y in pixels from the upper left corner, and depth along the view axis in scene units, [B,K,3].

    Args:
        points: Points [B,K,3] in scene units.
        camera: Positions of the cameras [B,3] in scene units; they look at the origin.
        image_size: (width, height) in pixels.
    """
    width, height = image_size
    right, up, forward = (axis[:, None] for axis in viewer_axes(camera.double()))
    offset = points.double() - camera.double()[:, None]
    depth = (offset * forward).sum(-1)
    scale = focal_length(width) / depth
    x = width / 2 + (offset * right).sum(-1) * scale
    y = height / 2 - (offset * up).sum(-1) * scale
    return torch.stack([x, y, depth], dim=-1)


@dataclass(frozen=True)
class View:
    """The rays of B cameras through P = H·W pixels, at S places in each.

    Lengths in the image are in focal lengths, so a ray (u, v) advances 1 along the view axis.
    """

    u: Tensor  # pixel centres [P], rightwards from the middle of the image
    v: Tensor  # pixel centres [P], downwards from the middle of the image
    places: Tensor  # the S places in a pixel, from its centre [S,2]
    right: Tensor  # unit vectors [3,B]
    up: Tensor  # unit vectors [3,B]
    forward: Tensor  # unit vectors [3,B]
    origin: Tensor  # positions of the cameras [3,B] in scene units
    pixel: float  # side of a pixel

    @classmethod
    def of(cls, camera: Tensor, image_size: tuple[int, int], samples: int = 2) -> View:
        """Returns the rays of cameras [B,3] through (width, height) pixels, at samples² places in each."""
        width, height = image_size
        focal = focal_length(width)
        u = (torch.arange(width, device=camera.device) + 0.5 - width / 2) / focal
        v = (torch.arange(height, device=camera.device) + 0.5 - height / 2) / focal
        places = [(x / focal, y / focal) for x, y in _sub_pixels(samples)]
        right, up, forward, origin = (axis.T.contiguous() for axis in (*viewer_axes(camera), camera))
        rays = u.repeat(height), v.repeat_interleave(width), torch.tensor(places, device=camera.device)
        return cls(*rays, right, up, forward, origin, 1 / focal)

    def directions(self, scene: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Returns ray directions [3,N] in scenes [N], whose length along the view axis is 1."""
        return self.forward[:, scene] + u * self.right[:, scene] - v * self.up[:, scene]


def _sub_pixels(n: int) -> list[tuple[float, float]]:
    """Returns n² places in a pixel, relative to its middle, in pixels.

    They form a rotated grid: no two share a row or a column, which smooths upright edges best.
    """
    cells = [(i, j) for j in range(n) for i in range(n)]
    return [((i + (j + 0.5) / n) / n - 0.5, (j + (n - i - 0.5) / n) / n - 0.5) for i, j in cells]


class Hits(NamedTuple):
    """The nearest hits of sub-pixel rays."""

    slot: Tensor  # number of the ray [N], (b·P + p)·S + s
    which: Tensor  # the object [N], b·K + k
    distance: Tensor  # its distance, in lengths of the direction [N]
    direction: Tensor  # directions of the rays [3,N], 1 long along the view axis


def visible_pixels(batch: SceneBatch, image_size: tuple[int, int], samples: int = 2) -> Tensor:
    """Returns the visible area of each object [B,K] in pixels, from samples² rays per pixel."""
    hits = first_hits(batch, View.of(batch.camera, image_size, samples))
    rays = torch.bincount(hits.which, minlength=len(batch.radius))
    return rays.reshape(len(batch), -1) / samples**2


def first_hits(batch: SceneBatch, view: View) -> Hits:
    """Casts the rays of the cameras of a batch."""
    pixels, subs = len(view.u), len(view.places)
    which, pixel = _candidates(batch, view)
    scene = batch.scene(which)
    u = (view.u[pixel, None] + view.places[:, 0]).reshape(-1)
    v = (view.v[pixel, None] + view.places[:, 1]).reshape(-1)
    slot = ((scene * pixels + pixel)[:, None] * subs + torch.arange(subs, device=which.device)).reshape(-1)
    which, scene = which.repeat_interleave(subs), scene.repeat_interleave(subs)
    direction = view.directions(scene, u, v)
    distance = batch.intersect(which, view.origin[:, scene], direction)
    keep = nearest(slot, distance, len(batch) * pixels * subs)
    return Hits(slot[keep], which[keep], distance[keep], direction[:, keep])


def _candidates(batch: SceneBatch, view: View) -> tuple[Tensor, Tensor]:
    """Returns pairs of objects and pixels, each [N], whose bounding sphere and cone of rays intersect."""
    scene = batch.scene(torch.arange(len(batch.radius), device=batch.radius.device))
    offset = batch.center - view.origin[:, scene]
    x, y, z = (dot(offset, axis[:, scene])[:, None] for axis in (view.right, view.up, view.forward))
    bound = batch.bound[:, None] + 0.75 * view.pixel * z
    ahead = z + x * view.u - y * view.v
    square = 1 + view.u.square() + view.v.square()
    touched = (x * x + y * y + z * z - bound * bound) * square < ahead * ahead
    which, pixel = (touched & (batch.bound[:, None] > 0)).nonzero(as_tuple=True)
    return which, pixel
