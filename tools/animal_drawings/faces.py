"""Mammals seen from the front: the face alone."""

from __future__ import annotations

from animal_drawings.features import (
    ears,
    eyes,
    grin,
    nose,
    smile,
    smile_or_laugh,
    tongue,
    whiskers,
)  # fmt: skip
from animal_drawings.palettes import INK, PINK, WHITE, darker, lighter, mix
from animal_drawings.shapes import Shape, both, oval, rounded, smooth, symmetric, tube
from animal_drawings.sketch import Sketch


def bear(s: Sketch) -> None:
    """Round ears far apart, a pale muzzle with a big nose."""
    c, w = s.coat, s.vary(39, 0.08)
    ears(s, c.main, c.pale, oval(50 - w * 0.78, 28, s.vary(14)))
    s.part(c.main, oval(50, 56, w, 35))
    s.mark(c.pale, oval(50, 69, s.vary(19), 16))
    eyes(s, 17, 50, 4.4)
    s.mark(INK, oval(50, 62, s.vary(8), 5.5))
    smile(s, 68, 9)


def cat(s: Sketch) -> None:
    """Triangle ears, cheeks wider than the crown, long whiskers."""
    c, w, h = s.coat, s.vary(39, 0.1), 30
    top = 54 - h - s.vary(19)
    ear = rounded(
        (50 - w * 0.98, 52), (50 - w * s.vary(0.86, 0.06), top), (50 - w * 0.08, 54 - h * 0.86), radius=5
    )
    ears(s, c.main, mix(c.main, PINK, 0.8), ear, 0.52)
    head = symmetric((50, 55 - h), (50 + w * 0.7, 38), (50 + w, 60), (50 + w * 0.62, 79), (50, 84))
    s.part(c.main, head)
    if c.marking == "stripes":
        sides = both(tube([(38, 22), (40, 35)], 5, 2), tube([(8, 58), (22, 60)], 5, 2))
        s.mark(c.dark, tube([(50, 22), (50, 39)], 6, 3), *sides, within=[head])
    s.mark(c.pale, *both(oval(43, 71, 9.5, 8)))
    eyes(s, 18, 54, 5.4)
    nose(s, 65, 4.6, mix(PINK, c.dark, 0.25))
    smile_or_laugh(s, 68, 8)
    whiskers(s, 20, 68, s.vary(26))


def cow(s: Sketch) -> None:
    """Horns, ears that stand out to the sides, a wide pink muzzle with nostrils."""
    c = s.coat
    horn = tube([(34, 26), (24, 20), (25, s.vary(9, 0.3))], 9, 7, 3)
    s.part((236, 220, 190), *both(horn))
    ears(s, darker(c.main, 0.12), PINK, oval(15, 37, s.vary(15), 8.5, 18), 0.6, 1)
    head = symmetric((50, 20), (70, 24), (74, 46), (70, 68), (50, 78))
    s.part(c.main, head)
    if c.marking == "patches":
        s.mark(c.dark, oval(s.pick(30, 70), 38, s.vary(15), 20), within=[head])
        s.mark(c.dark, oval(50, 18, 13, s.vary(9)), within=[head])
    s.part(c.pale, oval(50, 76, s.vary(29, 0.1), 16))
    s.mark(darker(c.pale, 0.5), *both(oval(38, 73, 4, 5.4, 20)))
    grin(s, 83, 9)
    eyes(s, 15, 46, 5)


def dog(s: Sketch) -> None:
    """A muzzle with a broad nose, often a tongue; ears that hang or stand."""
    c, w = s.coat, s.vary(31, 0.1)
    floppy = s.rng.random() < 0.7
    ear_colour = c.dark if c.marking == "patches" else s.pick(c.dark, darker(c.main, 0.3))
    if not floppy:
        tip = (50 - w * s.vary(1.12, 0.08), s.vary(7, 0.6))
        ears(s, ear_colour, PINK, rounded((50 - w * 0.98, 48), tip, (45, 24), radius=6), 0.5)
    head = symmetric((50, 18), (50 + w * 0.75, 25), (50 + w, 50), (50 + w * 0.8, 72), (50, 86))
    s.part(c.main, head)
    if c.marking == "patches":
        s.mark(ear_colour, oval(s.pick(33, 67), 44, 13, 16), within=[head])
    if floppy:
        long = s.vary(64, 0.1)
        out = s.vary(17, 0.3)
        ear = smooth(
            (43, 18),
            (50 - w * 0.9, 18),
            (50 - w - out * 0.8, 36),
            (50 - w - out, long),
            (50 - w - 2, long + 3),
            (50 - w + 5, 40),
        )
        s.part(ear_colour, *both(ear))
    if s.rng.random() < 0.65:
        tongue(s, 50, 79, 7)
    s.mark(c.pale, oval(50, 70, s.vary(18, 0.1), 15))
    eyes(s, 14, 46, 5)
    s.mark(INK, oval(50, 61, s.vary(9), 6.4))
    smile(s, 67, 10)


def elephant(s: Sketch) -> None:
    """Ears as big as the head, a trunk that hangs down, tusks."""
    c, big = s.coat, s.vary(1.0, 0.12)
    ear = smooth((36, 24), (22, 12), (50 - 46 * big, 22), (50 - 48 * big, 48), (50 - 36 * big, 70), (30, 60))
    ears(s, darker(c.main, 0.08), c.pale, ear, 0.66, 0)
    if s.rng.random() < 0.75:
        s.part((250, 244, 226), *both(tube([(39, 62), (35, 74), (40, 81)], 8, 6, 2.5)))
    bend = s.pick(-1, 1)
    trunk = tube([(50, 48), (50, 72), (50 + bend * 4, 86), (50 + bend * s.vary(17), 90)], 24, 17, 13, 12)
    s.part(c.main, symmetric((50, 14), (68, 20), (76, 40), (69, 60), (50, 66)), trunk)
    for y in (64, 71, 78):
        s.mark(c.dark, tube([(45, y), (50, y + 1.5), (55, y)], 1.8))
    eyes(s, 15, 42, 4.6)


def fox(s: Sketch) -> None:
    """A face like a kite that ends in a black nose, white cheeks, tall ears."""
    c, w = s.coat, s.vary(44, 0.08)
    ear = rounded((50 - w * 0.86, 46), (50 - w * 0.8, s.vary(6, 0.7)), (42, 30), radius=5)
    s.part(c.main, *both(ear))
    s.mark(c.dark, *both(inside_tip(ear)), within=both(ear))
    s.mark(c.pale, *both([(x + 1, y + 9) for x, y in ear]), within=both(inside_tip(ear, 60, 0.62)))
    head = symmetric((50, 26), (50 + w * 0.6, 34), (50 + w, 58), (50 + w * 0.5, 76), (50, 91))
    s.part(c.main, head)
    cheek = smooth((50 - w * 1.1, 56), (50 - w * 0.5, 58), (43, 72), (50, 80), (50, 96), (20, 92))
    s.mark(c.pale, *both(cheek), within=[head])
    eyes(s, 17, 55, 4.8)
    s.mark(INK, oval(50, 86, s.vary(7), 5.6))


def inside_tip(ear: Shape, above: float = 26, share: float = 1.0) -> Shape:
    """The part of an ear above a height: its tip."""
    top = min(y for _, y in ear)
    cx = sum(x for x, _ in ear) / len(ear)
    return [(cx + (x - cx) * share, min(y, top + (above - top) * 0.8)) for x, y in ear]


def horse(s: Sketch) -> None:
    """A long face, a forelock between upright ears, big nostrils low down."""
    c, w = s.coat, s.vary(20, 0.08)
    s.part(c.dark, *both(oval(50 - w * 1.05, 34, 8, 20, 8)))
    ears(s, c.main, mix(c.main, PINK, 0.6), rounded((30, 30), (31, s.vary(5, 0.5)), (46, 20), radius=4), 0.5)
    s.part(c.main, symmetric((50, 16), (50 + w * 0.8, 22), (50 + w, 42), (50 + w * 0.72, 70), (50, 76)))
    if s.rng.random() < 0.4:
        s.mark(c.pale, tube([(50, 34), (50, 62)], 7, 10))
    s.part(c.pale, symmetric((50, 66), (50 + w * 0.8, 70), (50 + w * 0.86, 86), (50, 96)))
    s.mark(darker(c.dark, 0.3), *both(oval(50 - w * 0.42, 80, 2.8, 4, 15)))
    grin(s, 88, 6, thick=2.2)
    s.part(c.dark, smooth((40, 14), (52, 8), (61, 16), (56, 30), (50, s.vary(40, 0.1)), (45, 28)))
    eyes(s, w * 0.66, 44, 4.2)


def koala(s: Sketch) -> None:
    """Fluffy ears at the sides, a long dark nose in the middle."""
    c, r = s.coat, s.vary(19, 0.12)
    fluff = [oval(50 - 36 + dx, 32 + dy, r * 0.62) for dx, dy in ((-9, -7), (5, -10), (-11, 6), (0, 0))]
    s.part(c.main, *both(*fluff))
    s.mark(c.pale, *both(oval(15, 33, r * 0.6)))
    s.part(c.main, symmetric((50, 20), (74, 26), (86, 54), (70, 80), (50, 85)))
    s.mark(c.pale, oval(50, 79, 13, 5))
    s.part(darker(c.dark, 0.55), symmetric((50, 44), (57, 47), (s.vary(59, 0.02), 64), (50, 70)))
    eyes(s, 20, 50, 4.6)
    grin(s, 75, 8)


def lion(s: Sketch) -> None:
    """A mane all around the face."""
    c, r = s.coat, s.vary(38, 0.06)
    count, tufts = s.pick(11, 13, 15), []
    for i in range(count):
        tufts.append(spoke(50, 52, r * 0.86, i * 360 / count, s.vary(12, 0.1)))
    s.part(c.dark, oval(50, 52, r * 1.06), *tufts)
    ears(s, c.main, darker(c.pale, 0.2), oval(24, 27, 9.5))
    s.part(c.main, symmetric((50, 26), (70, 32), (77, 54), (66, 74), (50, 80)))
    s.mark(c.pale, *both(oval(43, 67, 10, 8.5)), oval(50, 74, 8, 5))
    eyes(s, 14, 48, 4.6)
    nose(s, 60, s.vary(7), darker(c.dark, 0.4))
    smile(s, 64, 9)


def spoke(x: float, y: float, reach: float, angle: float, r: float) -> Shape:
    """A tuft at the end of a spoke of a wheel about (x, y)."""
    (px, py), *_ = oval(x, y, reach, turn=angle)
    return oval(px, py, r * 1.25, r * 0.8, angle)


def monkey(s: Sketch) -> None:
    """A bare face like a heart in dark hair, ears at the sides."""
    c = s.coat
    ears(s, c.main, c.pale, oval(14, 52, s.vary(14)), 0.6, 0)
    s.part(c.main, oval(50, 50, s.vary(36, 0.05), 37))
    face = [*both(oval(38, 47, 15, 17)), oval(50, 68, s.vary(27, 0.1), 18)]
    s.mark(c.pale, *face)
    eyes(s, 12, 47, 4.6)
    s.mark(c.dark, *both(oval(46, 60, 2.2, 1.7)))
    if s.rng.random() < 0.5:
        s.mark((150, 50, 56), symmetric((50, 68), (62, 69), (50, 79)))
    else:
        grin(s, 69, 13)
    if s.rng.random() < 0.5:
        s.part(c.main, smooth((44, 16), (50, 6), (52, 12), (58, 8), (56, 17)))


def mouse(s: Sketch) -> None:
    """Ears nearly as big as the face, which narrows to a pink nose."""
    c, r = s.coat, s.vary(21, 0.1)
    ears(s, c.main, c.pale, oval(50 - r * 1.35, 30, r), 0.66, 1)
    s.part(c.main, symmetric((50, 32), (72, 40), (77, 60), (64, 78), (50, 88)))
    whiskers(s, 10, 76, s.vary(26))
    eyes(s, 13, 57, 4.8)
    s.mark(darker(PINK, 0.08), oval(50, 80, s.vary(6.5), 5.4))
    if s.rng.random() < 0.5:
        s.mark(WHITE, rounded((46, 87), (54, 87), (54, 94), (46, 94), radius=1))


def panda(s: Sketch) -> None:
    """White, with black ears and black patches about the eyes."""
    c, w = s.coat, s.vary(41, 0.06)
    s.part(c.dark, *both(oval(50 - w * 0.76, 26, s.vary(14))))
    s.part(c.main, oval(50, 56, w, 35))
    s.mark(c.dark, *both(oval(32, 53, s.vary(10, 0.1), 13.5, 32)))
    for x in (34, 66):
        s.mark(WHITE, oval(x, 52, 4.6))
        s.mark(INK, oval(x, 52.4, 2.8))
    s.mark(c.dark, oval(50, 66, s.vary(6.6), 4.6))
    smile(s, 71, 8)


def pig(s: Sketch) -> None:
    """A round snout with two nostrils, ears folded at the top."""
    c, w = s.coat, s.vary(39, 0.07)
    ear = rounded((50 - w * 0.95, 46), (50 - w * s.vary(0.95, 0.1), 13), (45, 27), radius=7)
    ears(s, darker(c.main, 0.08), c.pale, ear, 0.55)
    s.part(c.main, oval(50, 56, w, 35))
    s.part(mix(c.pale, c.main, 0.25), oval(50, 64, s.vary(18), s.vary(13)))
    s.mark(darker(c.dark, 0.35), *both(oval(44, 64, 3, 5)))
    eyes(s, 20, 47, 4.4)
    grin(s, 80, 9)


def rabbit(s: Sketch) -> None:
    """Two long ears, upright or one of them bent."""
    c, w = s.coat, s.vary(27, 0.08)
    lean, tall = s.rng.uniform(-10, 6), s.vary(25, 0.1)
    ear = oval(50 - w * 0.52, 26, s.vary(9), tall, lean)
    if s.rng.random() < 0.25:
        bent = tube([(63, 42), (66, 18), (78, 12), (88, 26)], 14, 17, 16, 10)
        s.part(c.main, ear, bent)
        s.mark(c.pale, oval(50 - w * 0.52, 27, 4.6, tall * 0.75, lean), tube([(64, 36), (67, 22), (74, 17)], 6))
    else:
        ears(s, c.main, c.pale, ear, 0.6, 1)
    s.part(c.main, symmetric((50, 40), (50 + w * 0.75, 46), (50 + w, 67), (50 + w * 0.68, 84), (50, 90)))
    s.mark(lighter(c.main, 0.55), *both(oval(44.5, 77, 8, 6.6)))
    eyes(s, 12.5, 61, 4.8)
    nose(s, 70, 4.2, darker(c.pale, 0.15))
    smile_or_laugh(s, 74, 6.5)
    s.mark(WHITE, rounded((46, 79), (54, 79), (53.5, 87), (46.5, 87), radius=1))
    if s.rng.random() < 0.6:
        whiskers(s, 12, 75, 22)


def tiger(s: Sketch) -> None:
    """Orange with dark stripes that run inwards, white cheeks, round ears."""
    c, w = s.coat, s.vary(40, 0.06)
    ears(s, c.main, c.pale, oval(50 - w * 0.72, 26, s.vary(12)), 0.55, 1)
    head = symmetric((50, 20), (50 + w * 0.74, 28), (50 + w, 58), (50 + w * 0.66, 82), (50, 90))
    s.part(c.main, head)
    s.mark(c.pale, *both(oval(50 - w * 0.74, 74, 15, 12)), *both(oval(42, 73, 11, 10)), within=[head])
    side = 50 - w
    temples = [
        tube([(side - 3, y - 3), (side + reach, y + 1)], 7, 1) for y, reach in ((46, 15), (58, 17), (70, 13))
    ]
    crown = tube([(37, 19), (41, 35)], 6, 2)
    s.mark(c.dark, tube([(50, 18), (50, 40)], 6.5, 2), *both(*temples, crown), within=[head])
    eyes(s, 17, 52, 5)
    nose(s, 65, s.vary(7), mix(PINK, c.dark, 0.3))
    smile(s, 70, 9)
