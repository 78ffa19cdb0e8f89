"""What many animals share: eyes, mouths, whiskers, stripes, and the bodies that a head is put on."""

from __future__ import annotations

from collections.abc import Callable

from animal_drawings.palettes import INK, TONGUE, WHITE, Colour, darker
from animal_drawings.shapes import (
    Point,
    Shape,
    both,
    inside,
    oval,
    rounded,
    smooth,
    symmetric,
    tube,
)
from animal_drawings.sketch import Sketch

View = Callable[[Sketch], None]


def eye(s: Sketch, x: float, y: float, r: float) -> None:
    """An eye, of the kind that this animal has."""
    r *= s.eye_size
    if s.gaze == "white":
        s.part(WHITE, oval(x, y, r * 1.35))
        s.mark(INK, oval(x, y, r * 0.85))
        return
    s.mark(INK, oval(x, y, r * 0.95, r * 1.15))
    if s.gaze == "shine":
        s.mark(WHITE, oval(x - r * 0.3, y - r * 0.4, r * 0.36))


def eyes(s: Sketch, apart: float, y: float, r: float) -> None:
    """A pair of eyes, ``apart`` from the middle."""
    apart = s.vary(apart, 0.1)
    for x in (50 - apart, 50 + apart):
        eye(s, x, y, r)


def smile(s: Sketch, y: float, w: float, *, x: float = 50, thick: float = 2.6) -> None:
    """A mouth like a flat w, as cats, dogs and bears have."""
    for side in (-1, 1):
        s.mark(INK, tube([(x, y), (x + side * w * 0.55, y + w * 0.55), (x + side * w, y + w * 0.2)], thick))


def laugh(s: Sketch, y: float, w: float, *, x: float = 50) -> None:
    """An open mouth with a tongue in it."""
    s.mark(
        (120, 40, 50),
        smooth(
            (x - w, y),
            (x, y + 1.5),
            (x + w, y),
            (x + w * 0.7, y + w * 0.8),
            (x, y + w * 1.15),
            (x - w * 0.7, y + w * 0.8),
        ),
    )
    s.mark(TONGUE, oval(x, y + w * 0.75, w * 0.5, w * 0.32))


def smile_or_laugh(s: Sketch, y: float, w: float) -> None:
    """Mostly a closed mouth, sometimes an open one."""
    if s.rng.random() < 0.25:
        laugh(s, y + 1, w)
    else:
        smile(s, y, w)


def grin(s: Sketch, y: float, w: float, *, thick: float = 2.8) -> None:
    """A mouth of one arc."""
    s.mark(INK, tube([(50 - w, y), (50, y + w * 0.45), (50 + w, y)], thick))


def tongue(s: Sketch, x: float, y: float, w: float) -> None:
    """A tongue that hangs out, from (x, y) down."""
    s.part(
        TONGUE,
        smooth(
            (x - w, y), (x + w, y), (x + w * 0.9, y + w * 1.6), (x, y + w * 2.4), (x - w * 0.9, y + w * 1.6)
        ),
    )


def nose(s: Sketch, y: float, w: float, colour: Colour = INK, *, x: float = 50) -> None:
    """A snub nose: a triangle with round corners, its tip down."""
    s.mark(colour, rounded((x - w, y - w * 0.6), (x + w, y - w * 0.6), (x, y + w * 0.8), radius=w * 0.8))


def whiskers(s: Sketch, x: float, y: float, length: float) -> None:
    """Three whiskers on either side, which start ``x`` from the middle."""
    for tilt in (-0.28, 0.0, 0.28):
        whisker = tube([(50 + x, y + tilt * 14), (50 + x + length, y + tilt * (14 + length))], 1.8, 1.0)
        s.mark(darker(s.coat.dark, 0.5), *both(whisker))


def ears(s: Sketch, colour: Colour, lining: Colour, shape: Shape, share: float = 0.58, down: float = 2) -> None:
    """A pair of ears with a lining of another colour."""
    s.part(colour, *both(shape))
    s.mark(lining, *both(inside(shape, share, down)))


def patches(s: Sketch, colour: Colour, body: list[Shape], x: float, y: float, r: float) -> None:
    """Two or three blots on a body about (x, y)."""
    places = s.rng.sample([(-1.0, -0.3), (0.1, -0.6), (0.9, 0.0), (-0.2, 0.7)], s.pick(2, 3))
    blots = [
        oval(x + dx * r, y + dy * r * 0.6, s.vary(r * 0.5), s.vary(r * 0.36), s.rng.uniform(0, 180))
        for dx, dy in places
    ]
    s.mark(colour, *blots, within=body)


def bars(
    s: Sketch, colour: Colour, body: list[Shape], x: float, y: float, rx: float, ry: float, n: int = 4
) -> None:
    """Stripes from the back down, over a body of half width ``rx``."""
    stripes = []
    for i in range(n):
        at = x + rx * (2 * (i + 0.5) / n - 1) * 0.85
        length = ry * s.pick(0.8, 1.1, 1.3)
        stripes.append(tube([(at, y - ry * 1.1), (at - 2, y - ry * 1.1 + length)], s.vary(6.5), 2))
    s.mark(colour, *stripes, within=body)


def walker(
    s: Sketch,
    colour: Colour,
    *,
    x: float = 58,
    y: float = 50,
    rx: float = 28,
    ry: float = 16,
    leg: float = 22,
    thick: float = 10,
    foot: Colour | None = None,
) -> list[Shape]:
    """A body on four legs that looks left, without head and tail.

    Args:
        s: The sketch.
        colour: The colour of the body.
        x: Middle of the body.
        y: Middle of the body.
        rx: Half its length.
        ry: Half its height.
        leg: How far the legs reach below it.
        thick: Width of a leg.
        foot: Colour of the feet, where it is another.

    Returns:
        The body, for stripes and patches to lie on.
    """
    leg, ground = s.vary(leg), y + ry * 0.9
    stride = s.rng.uniform(-4, 4)
    fronts = (x - rx * 0.78, x - rx * 0.36)
    backs = (x + rx * 0.42, x + rx * 0.8)

    def limb(at: float, step: float, short: float) -> Shape:
        end = ground + leg - thick * 0.5 - short
        return tube([(at, y), (at + step * 0.4, ground), (at + step, end)], thick * 1.3, thick * 1.1, thick)

    def paw(at: float, step: float, short: float) -> Shape:
        return oval(at + step - 1, ground + leg - thick * 0.42 - short, thick * 0.62, thick * 0.42)

    def legs(shade: float, body: list[Shape], *places: tuple[float, float, float]) -> None:
        limbs, paws = [limb(*at) for at in places], [paw(*at) for at in places]
        if foot:
            s.part(darker(foot, shade), *paws)
        s.part(darker(colour, shade), *body, *limbs, *([] if foot else paws))
        if foot:
            s.mark(darker(foot, shade), *paws)

    legs(0.22, [], (fronts[1], -stride, 2.0), (backs[0], -stride, 2.0))
    back = s.rng.uniform(-1.5, 2.5)
    body = smooth(
        (x - rx, y - ry * 0.1), (x - rx * 0.75, y - ry * 0.85), (x, y - ry + back), (x + rx * 0.75, y - ry * 0.85),
        (x + rx, y), (x + rx * 0.75, y + ry * 0.85), (x, y + ry * 0.95), (x - rx * 0.75, y + ry * 0.9),
    )  # fmt: skip
    legs(0.0, [body], (fronts[0], stride, 0.0), (backs[1], stride, 0.0))
    return [body]


def sitter(
    s: Sketch,
    face: View,
    *,
    limbs: Colour | None = None,
    belly: Colour | None = None,
    tail: Shape | None = None,
) -> None:
    """A body that sits and looks at us, with a face on top of it.

    Args:
        s: The sketch.
        face: What draws the face.
        limbs: The colour of arms and legs, where it is another than the coat's.
        belly: The colour of the belly, where it is another than the coat's pale one.
        tail: A tail that shows at one side.
    """
    if tail:
        s.part(darker(s.coat.main, 0.12), tail)
    limb = limbs or s.coat.main
    w, h = s.vary(21), s.vary(24, 0.08)
    s.part(darker(limb, 0.1), *both(oval(50 - w * 0.85, 88, s.vary(11), 8, -12)))
    s.part(
        s.coat.main,
        symmetric((50, 70 - h), (50 + w * 0.7, 72 - h * 0.6), (50 + w, 80), (50 + w * 0.6, 92), (50, 94)),
    )
    s.mark(belly or s.coat.pale, oval(50, 78, w * 0.6, h * 0.6))
    arm: list[Point] = [(50 - w * 0.75, 62), (50 - w * 1.0, 72), (50 - w * 0.5, 80)]
    s.part(darker(limb, 0.06), *both(tube(arm, 11, 10)))
    with s.placed(s.vary(0.66, 0.08), 50, 36):
        face(s)
