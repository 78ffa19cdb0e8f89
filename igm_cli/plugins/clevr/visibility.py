"""What the camera sees: the nearest hits of its rays, and how many pixels of each object are left."""

from typing import NamedTuple

import torch
from torch import Tensor

from igm_cli.plugins.clevr.camera import View
from igm_cli.plugins.clevr.layout import Scenes
from igm_cli.plugins.clevr.objects import Objects
from igm_cli.plugins.clevr.shapes import FAR
from igm_cli.plugins.clevr.vectors import Vector, dot, minus, pick


class Hits(NamedTuple):
    """Nearest hits [N] of sub-pixel rays.

    Attributes:
        slot: [N] number of the ray, (b·P + p)·S + s.
        which: [N] the object, b·K + k.
        distance: [N] in lengths of the direction.
        direction: [N] of the ray, 1 long along the view axis.
    """

    slot: Tensor
    which: Tensor
    distance: Tensor
    direction: Vector


def visible_pixels(scenes: Scenes, image_size: tuple[int, int], samples: int = 2) -> Tensor:
    """Counts what is seen of each object.

    Args:
        scenes: B scenes of at most K objects.
        image_size: (width, height) in pixels.
        samples: Rays along each side of a pixel.

    Returns:
        [B,K] visible area in pixels.
    """
    objects = Objects.of(scenes)
    hits = first_hits(objects, View.of(scenes.camera, image_size, samples))
    rays = torch.bincount(hits.which, minlength=len(objects.radius))
    return rays.reshape(scenes.radius.shape) / samples**2


def first_hits(objects: Objects, view: View) -> Hits:
    """Casts the primary rays of a batch."""
    pixels, subs = len(view.u), len(view.offsets)
    which, pixel = _candidates(objects, view)
    scene = objects.scene(which)
    place = torch.tensor(view.offsets, device=which.device)
    u = (view.u[pixel, None] + place[:, 0]).reshape(-1)
    v = (view.v[pixel, None] + place[:, 1]).reshape(-1)
    slot = ((scene * pixels + pixel)[:, None] * subs + torch.arange(subs, device=which.device)).reshape(-1)
    which, scene = which.repeat_interleave(subs), scene.repeat_interleave(subs)
    direction = view.directions(scene, u, v)
    distance = objects.intersect(which, pick(view.origin, scene), direction)
    nearest = torch.full((view.count * pixels * subs,), FAR, device=distance.device)
    nearest.scatter_reduce_(0, slot, distance, "amin")
    keep = ((distance < FAR) & (distance == nearest[slot])).nonzero().squeeze(1)
    return Hits(slot[keep], which[keep], distance[keep], pick(direction, keep))


def _candidates(objects: Objects, view: View) -> tuple[Tensor, Tensor]:
    """Objects and pixels, each [N], whose bounding sphere and cone of rays meet."""
    scene = objects.scene(torch.arange(len(objects.radius), device=objects.radius.device))
    offset = minus(objects.center, pick(view.origin, scene))
    x, y, z = (dot(offset, pick(axis, scene))[:, None] for axis in (view.right, view.up, view.forward))
    bound = objects.bound[:, None] + 0.75 * view.pixel * z
    ahead = z + x * view.u - y * view.v
    square = 1 + view.u.square() + view.v.square()
    touched = (x * x + y * y + z * z - bound * bound) * square < ahead * ahead
    which, pixel = (touched & (objects.bound[:, None] > 0)).nonzero(as_tuple=True)
    return which, pixel
