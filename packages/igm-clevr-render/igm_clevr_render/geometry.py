"""Vectors, and the intersection of rays with the four shapes.

A vector is a float tensor [3,...]: x, y and z first. Every step is element-wise, and sums are written out, so no
result depends on what else is in the batch.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SHAPES = ("cube", "sphere", "cylinder", "cone")
CUBE, SPHERE, CYLINDER, CONE = range(len(SHAPES))  # their numbers in tensors

FAR = 1e9  # the distance of a miss
_NEAR = 1e-4  # closer hits are the point where the ray starts
_HALF_EDGE = 0.956  # of the cube; its mesh reaches to 1, but its edges are round
_BEVEL = 0.115  # rounded edges, only visible in the normals

BOUNDS = (_HALF_EDGE * math.sqrt(3), 1.0, math.sqrt(2), math.sqrt(2))  # radii of the bounding spheres


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Returns inner products [...] of vectors [3,...]."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(a: Tensor) -> Tensor:
    """Returns the same directions with length 1."""
    return a * dot(a, a).clamp_min(1e-12).rsqrt()


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """Returns three numbers as a vector [3,1], on the device of another tensor."""
    return torch.tensor(values, device=like.device)[:, None]


def nearest(ray: Tensor, distance: Tensor, rays: int) -> Tensor:
    """Returns which of M hits, at distances [M] along rays with indices [M] below `rays`, are first on their rays."""
    first = torch.full((rays,), FAR, device=distance.device).scatter_reduce_(0, ray, distance, "amin")
    return ((distance < FAR) & (distance == first[ray])).nonzero().squeeze(1)


def viewer_axes(place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns unit vectors right, up and forward, each [B,3], of viewers at [B,3] who look at the origin."""
    forward = -place / place.norm(dim=-1, keepdim=True)
    right = torch.stack([forward[:, 1], -forward[:, 0], torch.zeros_like(forward[:, 0])], dim=-1)
    right = right / right.norm(dim=-1, keepdim=True)
    return right, torch.linalg.cross(right, forward), forward


def enter(shape: Tensor, origin: Tensor, direction: Tensor) -> Tensor:
    """Returns the distances [N], in lengths of the direction, at which rays enter their shapes; `FAR` for a miss.

    Args:
        shape: Indices into `SHAPES` [N].
        origin: Starts of the rays [3,N], in the frame of the shape, which has radius 1 around the origin.
        direction: Their directions [3,N] in that frame, of any length.
    """
    t = torch.full_like(origin[0], FAR)
    for number, hit in enumerate((_hit_cube, _hit_sphere, _hit_cylinder, _hit_cone)):
        mine = (shape == number).nonzero().squeeze(1)
        if len(mine):
            t[mine] = hit(origin[:, mine], direction[:, mine])
    return t


def _hit_cube(o: Tensor, d: Tensor) -> Tensor:
    near, far = _slab(o, d, _HALF_EDGE)
    return _entry(near.amax(dim=0), far.amin(dim=0))


def _hit_sphere(o: Tensor, d: Tensor) -> Tensor:
    return _entry(*_roots(dot(d, d), dot(o, d), dot(o, o) - 1))


def _hit_cylinder(o: Tensor, d: Tensor) -> Tensor:
    near, far = _roots(d[0] * d[0] + d[1] * d[1], o[0] * d[0] + o[1] * d[1], o[0] * o[0] + o[1] * o[1] - 1)
    low, high = _slab(o[2], d[2], 1.0)
    return _entry(torch.maximum(near, low), torch.minimum(far, high))


def _hit_cone(o: Tensor, d: Tensor) -> Tensor:
    """Hits a cone with its tip at z = 1 and a base of radius 1 at z = -1: x² + y² = ((1 - z)/2)²."""
    h, g = (1 - o[2]) / 2, -d[2] / 2
    a = d[0] * d[0] + d[1] * d[1] - g * g
    b = o[0] * d[0] + o[1] * d[1] - h * g
    c = o[0] * o[0] + o[1] * o[1] - h * h
    disc = b * b - a * c
    root = disc.clamp_min(0).sqrt()
    a = _not_zero(a)
    side = torch.full_like(a, FAR)
    for t in ((-b - root) / a, (-b + root) / a):
        met = (disc > 0) & (t > _NEAR) & ((o[2] + t * d[2]).abs() <= 1)
        side = torch.where(met & (t < side), t, side)
    base = (-1 - o[2]) / _not_zero(d[2])
    x, y = o[0] + base * d[0], o[1] + base * d[1]
    return torch.where((base > _NEAR) & (base < side) & (x * x + y * y < 1), base, side)


def _slab(o: Tensor, d: Tensor, half: float) -> tuple[Tensor, Tensor]:
    """Returns the interval in which -half < o + t·d < half."""
    inverse = 1 / _not_zero(d)
    middle, reach = -o * inverse, half * inverse.abs()
    return middle - reach, middle + reach


def _roots(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the interval in which a·t² + 2b·t + c < 0, for a > 0; an empty one (far, -far) if there is none."""
    disc = b * b - a * c
    root = disc.clamp_min(0).sqrt()
    a = a.clamp_min(1e-12)
    return torch.where(disc > 0, (-b - root) / a, FAR), torch.where(disc > 0, (-b + root) / a, -FAR)


def _entry(near: Tensor, far: Tensor) -> Tensor:
    return torch.where((near < far) & (near > _NEAR), near, FAR)


def _not_zero(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 1e-9, 1e-9, x)


def normals(shape: Tensor, p: Tensor) -> Tensor:
    """Returns outward unit normals [3,N] at points of shapes; edges are a little round as in CLEVR's meshes.

    Args:
        shape: Indices into `SHAPES` [N].
        p: Points on them [3,N] in their own frames.
    """
    across = (p[0] * p[0] + p[1] * p[1]).clamp_min(1e-12).sqrt()  # distance from the axis
    slope = torch.stack([p[0] / across, p[1] / across, torch.full_like(across, 0.5)])
    cone = torch.where(p[2] < -1 + 1e-3, constant((0.0, 0.0, -1.0), p), slope)
    wall = _past(across, 1 - _BEVEL) / across
    cylinder = torch.stack([p[0] * wall, p[1] * wall, _past(p[2], 1 - _BEVEL)])
    normal = torch.where(shape == CUBE, _past(p, _HALF_EDGE - _BEVEL), p)  # a sphere's is p itself
    return unit(torch.where(shape == CONE, cone, torch.where(shape == CYLINDER, cylinder, normal)))


def _past(x: Tensor, limit: float) -> Tensor:
    """Returns how far numbers exceed a limit in either direction."""
    return x - x.clamp(-limit, limit)
