"""The shapes, each of radius 1 around the origin: where rays enter them, and their normals."""

import math

import torch
from torch import Tensor

from igm_cli.plugins.clevr.vectors import Vector, choose, dot, pick, unit

SHAPES = ("cube", "sphere", "cylinder", "cone")
CUBE, SPHERE, CYLINDER, CONE = range(len(SHAPES))  # their numbers in tensors

FAR = 1e9  # distance of what is not met
_NEAR = 1e-4  # what is met closer than this is where the ray starts
_HALF_EDGE = 0.956  # of the cube; its mesh reaches to 1, but its edges are round
_BEVEL = 0.115  # rounded edges, only seen in the normals

BOUNDS = (_HALF_EDGE * math.sqrt(3), 1.0, math.sqrt(2), math.sqrt(2))  # radii of the bounding spheres


def enter(shape: Tensor, origin: Vector, direction: Vector) -> Tensor:
    """Distance along each ray, in lengths of its direction, at which it enters its shape.

    Args:
        shape: [N] index into `SHAPES`.
        origin: [N] in the shape's frame.
        direction: [N] in the shape's frame, any length.

    Returns:
        [N] distances; `FAR` for a miss.
    """
    t = torch.full_like(origin[0], FAR)
    for number, hit in enumerate((_hit_cube, _hit_sphere, _hit_cylinder, _hit_cone)):
        mine = (shape == number).nonzero().squeeze(1)
        if len(mine):
            t[mine] = hit(pick(origin, mine), pick(direction, mine))
    return t


def _hit_cube(o: Vector, d: Vector) -> Tensor:
    (x_near, x_far), (y_near, y_far), (z_near, z_far) = (_slab(o[i], d[i], _HALF_EDGE) for i in range(3))
    near = torch.maximum(torch.maximum(x_near, y_near), z_near)
    far = torch.minimum(torch.minimum(x_far, y_far), z_far)
    return _entry(near, far)


def _hit_sphere(o: Vector, d: Vector) -> Tensor:
    return _entry(*_roots(dot(d, d), dot(o, d), dot(o, o) - 1))


def _hit_cylinder(o: Vector, d: Vector) -> Tensor:
    near, far = _roots(d[0] * d[0] + d[1] * d[1], o[0] * d[0] + o[1] * d[1], o[0] * o[0] + o[1] * o[1] - 1)
    low, high = _slab(o[2], d[2], 1.0)
    return _entry(torch.maximum(near, low), torch.minimum(far, high))


def _hit_cone(o: Vector, d: Vector) -> Tensor:
    """Cone with its tip at z = 1 and a base of radius 1 at z = -1: x² + y² = ((1 - z)/2)²."""
    side = _hit_cone_side(o, d)
    base = (-1 - o[2]) / _not_zero(d[2])
    x, y = o[0] + base * d[0], o[1] + base * d[1]
    return torch.where((base > _NEAR) & (base < side) & (x * x + y * y < 1), base, side)


def _hit_cone_side(o: Vector, d: Vector) -> Tensor:
    h, g = (1 - o[2]) / 2, -d[2] / 2
    a = d[0] * d[0] + d[1] * d[1] - g * g
    b = o[0] * d[0] + o[1] * d[1] - h * g
    c = o[0] * o[0] + o[1] * o[1] - h * h
    disc = b * b - a * c
    root = disc.clamp_min(0).sqrt()
    a = _not_zero(a)
    nearest = torch.full_like(a, FAR)
    for t in ((-b - root) / a, (-b + root) / a):
        met = (disc > 0) & (t > _NEAR) & ((o[2] + t * d[2]).abs() <= 1)
        nearest = torch.where(met & (t < nearest), t, nearest)
    return nearest


def _slab(o: Tensor, d: Tensor, half: float) -> tuple[Tensor, Tensor]:
    """Interval in which -half < o + t·d < half."""
    inverse = 1 / _not_zero(d)
    middle, reach = -o * inverse, half * inverse.abs()
    return middle - reach, middle + reach


def _roots(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Interval in which a·t² + 2b·t + c < 0, for a > 0; empty (far, -far) where it never is."""
    disc = b * b - a * c
    root = disc.clamp_min(0).sqrt()
    a = a.clamp_min(1e-12)
    return torch.where(disc > 0, (-b - root) / a, FAR), torch.where(disc > 0, (-b + root) / a, -FAR)


def _entry(near: Tensor, far: Tensor) -> Tensor:
    return torch.where((near < far) & (near > _NEAR), near, FAR)


def _not_zero(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 1e-9, 1e-9, x)


def normals(shape: Tensor, p: Vector) -> Vector:
    """Outward unit normals [N] at points [N] of shapes [N]; edges are a little round as in CLEVR's meshes."""
    normal = p  # a sphere's
    for number, other in ((CUBE, _cube_normal(p)), (CYLINDER, _cylinder_normal(p)), (CONE, _cone_normal(p))):
        normal = choose(shape == number, other, normal)
    return unit(normal)


def _cube_normal(p: Vector) -> Vector:
    inner = _HALF_EDGE - _BEVEL
    return _past(p[0], inner), _past(p[1], inner), _past(p[2], inner)


def _cylinder_normal(p: Vector) -> Vector:
    inner, across = 1 - _BEVEL, _from_axis(p)
    side = (across - inner).clamp_min(0) / across
    return p[0] * side, p[1] * side, _past(p[2], inner)


def _cone_normal(p: Vector) -> Vector:
    across = _from_axis(p)
    side = (p[0] / across, p[1] / across, torch.full_like(across, 0.5))
    return choose(p[2] < -1 + 1e-3, (0.0, 0.0, -1.0), side)


def _from_axis(p: Vector) -> Tensor:
    return (p[0] * p[0] + p[1] * p[1]).clamp_min(1e-12).sqrt()


def _past(x: Tensor, limit: float) -> Tensor:
    return x - x.clamp(-limit, limit)
