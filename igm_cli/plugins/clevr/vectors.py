"""Vectors as three tensors, one a component.

This keeps temporaries small and every step element-wise: no sum depends on the batch an image is in.
"""

import torch
from torch import Tensor

Vector = tuple[Tensor, Tensor, Tensor]
Triple = tuple[float, float, float]


def dot(a: Vector, b: Vector) -> Tensor:
    """Inner product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def plus(a: Vector, b: Vector) -> Vector:
    """Sum."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def minus(a: Vector, b: Vector) -> Vector:
    """Difference."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def times(a: Vector, b: Vector) -> Vector:
    """Product, component by component."""
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


def negative(a: Vector) -> Vector:
    """The opposite direction."""
    return -a[0], -a[1], -a[2]


def scaled(a: Vector, s: Tensor | float) -> Vector:
    """A vector times a number."""
    return a[0] * s, a[1] * s, a[2] * s


def along(a: Vector, b: Vector | Triple, t: Tensor | float) -> Vector:
    """What is reached from `a` in `t` steps of `b`."""
    return a[0] + t * b[0], a[1] + t * b[1], a[2] + t * b[2]


def unit(a: Vector) -> Vector:
    """The same direction with length 1."""
    return scaled(a, dot(a, a).clamp_min(1e-12).rsqrt())


def colored(strength: Tensor, color: Triple) -> Vector:
    """Light of one colour and many strengths."""
    return strength * color[0], strength * color[1], strength * color[2]


def choose(condition: Tensor, a: Vector | Triple, b: Vector) -> Vector:
    """`a` where the condition holds, else `b`."""
    x, y, z = (torch.where(condition, a[i], b[i]) for i in range(3))
    return x, y, z


def pick(a: Vector, index: Tensor) -> Vector:
    """The elements with the given numbers."""
    return a[0][index], a[1][index], a[2][index]


def split(t: Tensor) -> Vector:
    """[...,3] → three tensors of [...]."""
    return t[..., 0].contiguous(), t[..., 1].contiguous(), t[..., 2].contiguous()


def view(a: Vector, *shape: int) -> Vector:
    """The same numbers in another shape."""
    return a[0].view(shape), a[1].view(shape), a[2].view(shape)
