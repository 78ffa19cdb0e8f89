"""The objects of a batch in one row, and the rays that meet them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from igm_cli.plugins.clevr.layout import Scenes
from igm_cli.plugins.clevr.shapes import BOUNDS, enter
from igm_cli.plugins.clevr.vectors import Vector, dot, minus, pick, split, view


@dataclass(frozen=True)
class Objects:
    """All objects of a batch in one row: N = B·K, number b·K + k.

    Attributes:
        count: K.
        center: [N] scene units.
        radius: [N] scene units.
        bound: [N] radius of the bounding sphere in scene units; 0 for padding.
        cos: [N] of the rotation about the vertical.
        sin: [N] of the same.
        shape: [N] index into `SHAPES`.
        rgb: [N] linear base colour in 0..1.
        metal: [N] bool.
        seed: [N] texture seed of the scene.
    """

    count: int
    center: Vector
    radius: Tensor
    bound: Tensor
    cos: Tensor
    sin: Tensor
    shape: Tensor
    rgb: Vector
    metal: Tensor
    seed: Tensor

    @classmethod
    def of(cls, scenes: Scenes) -> Objects:
        """Takes the objects out of B scenes of K."""
        count = scenes.radius.shape[1]
        bounds = torch.tensor(BOUNDS, device=scenes.radius.device)
        return cls(
            count=count,
            center=split(scenes.position.reshape(-1, 3)),
            radius=scenes.radius.reshape(-1),
            bound=(bounds[scenes.shape] * scenes.radius * scenes.present).reshape(-1),
            cos=scenes.rotation.cos().reshape(-1),
            sin=scenes.rotation.sin().reshape(-1),
            shape=scenes.shape.reshape(-1),
            rgb=split(scenes.rgb.reshape(-1, 3)),
            metal=scenes.metal.reshape(-1),
            seed=scenes.texture_seed[:, None].expand(-1, count).reshape(-1),
        )

    def scene(self, which: Tensor) -> Tensor:
        """Scene of each object, b of b·K + k."""
        return which.div(self.count, rounding_mode="floor")

    def offsets(self, point: Vector) -> Vector:
        """From points [B,P] to the objects of their scenes, [B,K,P]."""
        x, y, z = (p[:, None] for p in point)
        return minus(view(self.center, len(x), -1, 1), (x, y, z))

    def to_local(self, which: Tensor, v: Vector) -> Vector:
        """Turns directions into the objects' own frames, where each has radius 1."""
        c, s, scale = self.cos[which], self.sin[which], 1 / self.radius[which]
        return (c * v[0] + s * v[1]) * scale, (c * v[1] - s * v[0]) * scale, v[2] * scale

    def to_world(self, which: Tensor, v: Vector) -> Vector:
        """Turns directions out of the objects' frames and keeps their lengths."""
        c, s = self.cos[which], self.sin[which]
        return c * v[0] - s * v[1], s * v[0] + c * v[1], v[2]

    def intersect(self, which: Tensor, origin: Vector, direction: Vector) -> Tensor:
        """Distance along each ray, in lengths of its direction, at which it enters its object.

        Args:
            which: [N] the object each ray is tried on.
            origin: [N] world.
            direction: [N] world, any length.

        Returns:
            [N] distances; `FAR` for a miss.
        """
        start = self.to_local(which, minus(origin, pick(self.center, which)))
        return enter(self.shape[which], start, self.to_local(which, direction))

    def others(self, own: Tensor, start: Vector, line: Vector) -> Pairs:
        """Finds what half lines may meet.

        Args:
            own: [N] the object each half line starts on, which is left out.
            start: [N] world.
            line: [N] world, any length.

        Returns:
            Each half line with every other object of its scene whose bounding sphere it touches.
        """
        first = own - own.remainder(self.count)
        which = first[:, None] + torch.arange(self.count, device=own.device)
        x, y, z = (s[:, None] for s in start)
        offset = minus(pick(self.center, which), (x, y, z))
        x, y, z = (c[:, None] for c in line)
        touched = _near_line(offset, (x, y, z), self.bound[which]) & (which != own[:, None])
        ray, item = touched.nonzero(as_tuple=True)
        return Pairs(ray, which[ray, item])


class Pairs(NamedTuple):
    """Rays and objects that may meet: ray number and object, each [M]."""

    ray: Tensor
    which: Tensor


def _near_line(offset: Vector, line: Vector, bound: Tensor) -> Tensor:
    """Whether balls touch half lines.

    Args:
        offset: [N] from the start of the half line to the middle of the ball.
        line: [N] any length.
        bound: [N] radius of the ball; what has none touches nothing.
    """
    ahead = dot(offset, line)
    square = dot(line, line)
    return (ahead > 0) & ((dot(offset, offset) - bound * bound) * square < ahead * ahead) & (bound > 0)
