"""Closed outlines: every shape of a drawing is a list of points, which a style may grow, wobble or clip."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
Shape = list[Point]

MIDDLE = 50.0
"""Animals seen from the front are symmetric about this x: they are drawn on a page of 100 by 100, y downwards."""


def oval(x: float, y: float, rx: float, ry: float | None = None, turn: float = 0.0) -> Shape:
    """An ellipse about (x, y), a circle without ``ry``, turned clockwise by ``turn`` degrees."""
    ry = rx if ry is None else ry
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    # Small ovals need few corners: this is most of what a drawing costs.
    count = 14 if max(rx, ry) < 6 else 30
    circle = ((rx * math.cos(a), ry * math.sin(a)) for a in (math.tau * i / count for i in range(count)))
    return [(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in circle]


def smooth(*points: Point) -> Shape:
    """A closed curve through the points."""
    return _spline([points[-1], *points, points[0], points[1]])


def symmetric(*right: Point) -> Shape:
    """A closed curve through the points of a right half, from top to bottom, and through their mirror images."""
    left = [p for p in reversed(mirror(right)) if p[0] != MIDDLE]
    return smooth(*right, *left)


def rounded(*points: Point, radius: float = 4.0) -> Shape:
    """A polygon whose corners are cut off round, ``radius`` before each."""
    shape: Shape = []
    for before, corner, after in zip((points[-1], *points), points, (*points[1:], points[0]), strict=False):
        start, end = _towards(corner, before, radius), _towards(corner, after, radius)
        for t in (0.0, 0.25, 0.5, 0.75, 1.0):
            a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
            shape.append((a * start[0] + b * corner[0] + c * end[0], a * start[1] + b * corner[1] + c * end[1]))
    return shape


def tube(points: Sequence[Point], *widths: float) -> Shape:
    """A band along an open curve through the points, round at both ends; its width runs through ``widths``."""
    first, last = points[0], points[-1]
    spine = [*_spline([first, *points, last]), last]
    left: Shape = []
    right: Shape = []
    for i, (x, y) in enumerate(spine):
        (x0, y0), (x1, y1) = spine[max(i - 1, 0)], spine[min(i + 1, len(spine) - 1)]
        nx, ny = _normal(x1 - x0, y1 - y0)
        at = i / (len(spine) - 1) * (len(widths) - 1)
        low = min(int(at), max(len(widths) - 2, 0))
        half = widths[0] / 2 if len(widths) == 1 else _mix(widths[low], widths[low + 1], at - low) / 2
        left.append((x + nx * half, y + ny * half))
        right.append((x - nx * half, y - ny * half))
    return [*left, *_cap(left[-1], right[-1]), *reversed(right), *_cap(right[0], left[0])]


def mirror(shape: Sequence[Point]) -> Shape:
    """The shape on the other side of the middle of the page."""
    return [(2 * MIDDLE - x, y) for x, y in shape]


def both(*shapes: Shape) -> list[Shape]:
    """Each shape and its mirror image: a pair of ears, eyes or wings."""
    return [side for shape in shapes for side in (shape, mirror(shape))]


def inside(shape: Shape, share: float, down: float = 0.0) -> Shape:
    """The shape shrunk to a share of its size about its middle, then moved down."""
    cx, cy = sum(x for x, _ in shape) / len(shape), sum(y for _, y in shape) / len(shape)
    return [(cx + (x - cx) * share, cy + (y - cy) * share + down) for x, y in shape]


def grow(shape: Shape, by: float) -> Shape:
    """The shape with its outline moved outwards, inwards where ``by`` is negative."""
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(shape, (*shape[1:], shape[0]), strict=True))
    by = -by if area > 0 else by
    grown: Shape = []
    for i, (x, y) in enumerate(shape):
        (x0, y0), (x1, y1) = shape[i - 1], shape[(i + 1) % len(shape)]
        nx, ny = _normal(x1 - x0, y1 - y0)
        grown.append((x + nx * by, y + ny * by))
    return grown


def _mix(a: float, b: float, t: float) -> float:
    return a + (b - a) * t


def _normal(dx: float, dy: float) -> Point:
    length = math.hypot(dx, dy) or 1.0
    return -dy / length, dx / length


def _towards(start: Point, end: Point, distance: float) -> Point:
    """A step along an edge, at most to its middle, so that two corners of a short edge do not cross."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    share = min(distance / (math.hypot(dx, dy) or 1.0), 0.5)
    return start[0] + dx * share, start[1] + dy * share


def _cap(start: Point, end: Point) -> Shape:
    """A half circle between the two ends of a band, bulging the way the band runs."""
    cx, cy = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    dx, dy = start[0] - cx, start[1] - cy
    angles = (math.pi * i / 5 for i in range(1, 5))
    return [
        (cx + dx * math.cos(a) + dy * math.sin(a), cy + dy * math.cos(a) - dx * math.sin(a)) for a in angles
    ]


def _spline(points: Sequence[Point], steps: int = 5) -> Shape:
    """Catmull-Rom through all points but the first and the last, which give the directions at the ends."""
    curve: Shape = []
    for i in range(len(points) - 3):
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = points[i : i + 4]
        for step in range(steps):
            t = step / steps
            a, b = t * (-1 + t * (2 - t)) / 2, (2 + t * t * (3 * t - 5)) / 2
            c, d = t * (1 + t * (4 - 3 * t)) / 2, t * t * (t - 1) / 2
            curve.append((a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3))
    return curve
