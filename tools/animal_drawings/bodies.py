"""Mammals from head to tail, seen from the side; they look left."""

from __future__ import annotations

from animal_drawings.features import View, bars, eye, patches, tongue, walker
from animal_drawings.palettes import INK, PINK, darker, lighter, mix
from animal_drawings.shapes import Shape, inside, oval, rounded, smooth, tube
from animal_drawings.sketch import Sketch


def bear(s: Sketch) -> None:
    """Heavy, short legs, a stub of a tail."""
    c = s.coat
    s.part(c.main, oval(88, 46, 5))
    walker(s, darker(c.main, 0.07), x=58, y=52, rx=31, ry=21, leg=18, thick=15, foot=darker(c.main, 0.2))
    s.part(darker(c.main, 0.15), oval(34, 26, 6))
    s.part(c.main, oval(26, 40, 17, 16), oval(13, 46, 10, 8), oval(21, 25, 6))
    s.mark(c.pale, oval(21, 25, 3), oval(11, 47, 7, 6))
    s.mark(INK, oval(5, 43, 4, 3.2))
    eye(s, 19, 37, 2.8)


def cat(s: Sketch) -> None:
    """Slender, with a tail that stands up and ends in a curl."""
    c = s.coat
    tip = s.vary(14, 0.5)
    s.part(c.main, tube([(82, 50), (92, 36), (88, 22), (94, tip)], 8, 7, 7, 6))
    body = walker(s, c.main, x=58, y=55, rx=27, ry=13, leg=25, thick=8)
    if c.marking == "stripes":
        bars(s, c.dark, body, 60, 55, 24, 13)
    s.part(darker(c.main, 0.1), rounded((28, 26), (38, 10), (40, 32), radius=3))
    s.part(c.main, oval(26, 38, 17, 14.5), rounded((12, 34), (13, 12), (29, 26), radius=3))
    s.mark(mix(c.main, PINK, 0.8), rounded((15, 29), (15, 18), (24, 26), radius=2))
    s.mark(c.pale, oval(15, 44, 7, 5.4))
    s.mark(darker(PINK, 0.1), oval(10.5, 40, 2.6, 2.1))
    for y in (42, 46, 50):
        s.mark(darker(c.dark, 0.4), tube([(17, 44), (32, y)], 1.2))
    eye(s, 20, 35, 3.2)


def cow(s: Sketch) -> None:
    """Square, patched, with horns and an udder."""
    c = s.coat
    s.part(c.main, tube([(86, 38), (93, 46), (92, 62)], 4, 3))
    s.part(c.dark, oval(92, 66, 3.6, 6))
    s.part(PINK, oval(72, 66, 9, 6))
    body = walker(s, c.main, x=60, y=48, rx=29, ry=18, leg=22, thick=9, foot=darker(c.dark, 0.3))
    if c.marking == "patches":
        patches(s, c.dark, body, 62, 47, 22)
    s.part(
        (236, 220, 190), tube([(27, 24), (23, 17), (26, 9)], 6, 3), tube([(17, 25), (11, 20), (10, 12)], 6, 3)
    )
    s.part(darker(c.main, 0.15), oval(35, 30, 9, 5, -10))
    head = smooth((14, 24), (28, 22), (36, 34), (30, 46), (17, 56), (8, 50), (10, 36))
    s.part(c.main, head)
    if c.marking == "patches":
        s.mark(c.dark, oval(30, 32, s.vary(10), 13), within=[head])
    s.part(c.pale, oval(13, 51, 11, 8.5, 15))
    s.mark(darker(c.pale, 0.5), oval(8, 49, 1.8, 2.4))
    eye(s, 19, 35, 3.2)


def dog(s: Sketch) -> None:
    """A long muzzle, a tail that stands up; ears that hang or stand."""
    c = s.coat
    ear_colour = c.dark if c.marking == "patches" else darker(c.main, 0.3)
    if s.rng.random() < 0.3:
        s.part(c.main, tube([(82, 46), (92, 34), (84, 26), (78, 32)], 8, 8, 6))
    else:
        s.part(c.main, tube([(82, 48), (92, 36), (94, s.vary(22, 0.2))], 8, 5))
    neck = tube([(42, 52), (32, 38)], 20, 17)
    body = walker(s, c.main, x=59, y=54, rx=26, ry=14, leg=25, thick=9)
    s.part(c.main, neck, oval(29, 32, 15, 14), tube([(26, 36), (11, 39)], 16, 11))
    if c.marking == "patches":
        patches(s, c.dark, body, 62, 52, 20)
    s.mark(c.pale, oval(13, 41.5, 7, 4))
    s.mark(INK, oval(6.5, 35.5, 4, 3.4), tube([(9, 42), (18, 43)], 1.8))
    if s.rng.random() < 0.5:
        tongue(s, 15, 44, 3.6)
    if s.rng.random() < 0.65:
        s.part(ear_colour, smooth((32, 19), (42, 22), (45, 38), (40, 47), (34, 40)))
    else:
        s.part(ear_colour, rounded((27, 24), (36, 5), (43, 28), radius=3))
    eye(s, 22, 29, 3)
    if s.rng.random() < 0.25:
        _harness(s)


def _harness(s: Sketch) -> None:
    """A collar, a strap about the chest, and the handle by which a guide dog is held."""
    colour = s.pick((208, 72, 60), (70, 110, 190), (70, 60, 62), (240, 190, 60))
    s.mark(colour, tube([(35, 44), (42, 52), (46, 66)], 4))
    s.mark(colour, tube([(33, 56), (42, 50), (50, 44)], 4))
    s.part(darker(colour, 0.25), tube([(50, 44), (60, 28), (70, 24), (66, 40)], 3.4))


def poodle(s: Sketch) -> None:
    """Clipped: curls on the crown, the ear, the chest, the feet and the end of the tail."""
    c = s.coat
    curls = s.pick(c.main, darker(c.main, 0.12), lighter(c.main, 0.2))
    s.part(c.main, tube([(80, 46), (88, 34), (90, 26)], 5))
    s.part(curls, *_curls(s, 91, 20, 8))
    legs = (42, 50, 70, 78)
    for x in legs:
        s.part(darker(c.main, 0.1 if x in (50, 70) else 0.0), tube([(x, 56), (x, 88)], 7, 5.5))
    for x in legs:
        s.part(darker(curls, 0.06), *_curls(s, x, 86, s.vary(6.5, 0.1)))
    s.part(c.main, tube([(44, 54), (60, 53), (78, 52)], 23, 18, 20), tube([(42, 50), (33, 32)], 15, 12))
    s.part(c.main, oval(29, 29, 11, 10), tube([(26, 30), (6, 34)], 11, 7))
    s.part(curls, *_curls(s, 44, 52, s.vary(15, 0.1)))
    s.part(curls, *_curls(s, 31, 16, s.vary(11, 0.1)))
    s.part(darker(curls, 0.15), *_curls(s, 38, 36, s.vary(8, 0.1)))
    s.mark(INK, oval(4.5, 32, 3.4, 3), tube([(6, 38), (16, 37)], 1.6))
    if s.rng.random() < 0.4:
        tongue(s, 12, 38, 3)
    eye(s, 22, 26, 2.8)


def _curls(s: Sketch, x: float, y: float, r: float) -> list[Shape]:
    """A ball with a wavy outline."""
    turn = s.rng.uniform(0, 60)
    return [oval(x, y, r), *(oval_at(x, y, r * 0.62, turn + 60 * i, r * 0.56) for i in range(6))]


def oval_at(x: float, y: float, reach: float, angle: float, r: float) -> Shape:
    """A circle at some reach and angle (degrees) from (x, y)."""
    (px, py), *_ = oval(x, y, reach, turn=angle)
    return oval(px, py, r)


def onlooker(s: Sketch, face: View, *, crouched: bool = False) -> None:
    """A body from the side, its face turned to us.

    Args:
        s: The sketch.
        face: What draws the face.
        crouched: Whether it sits on its hind legs, as rabbits do, rather than walks, with its tail raised.
    """
    c = s.coat
    if crouched:
        s.part(lighter(c.main, 0.6), oval(90, 72, 8))
        s.part(c.main, smooth((28, 64), (44, 50), (66, 46), (88, 60), (88, 82), (66, 90), (34, 90), (26, 78)))
        s.part(darker(c.main, 0.06), oval(72, 75, 15, 14), oval(63, 89, 14, 5), oval(36, 89, 10, 4.6))
    else:
        bend = s.pick(-8, 0, 8)
        s.part(c.main, tube([(82, 52), (92, 40), (92 + bend, s.vary(20, 0.2))], 8, s.vary(6.5)))
        body = walker(s, c.main, x=60, y=58, rx=25, ry=14, leg=s.vary(20), thick=s.vary(9))
        if c.marking == "stripes":
            bars(s, c.dark, body, 64, 58, 20, 13)
        elif c.marking == "patches":
            patches(s, c.dark, body, 64, 56, 18)
    with s.placed(s.vary(0.56, 0.08), 31, 42):
        face(s)


def elephant(s: Sketch) -> None:
    """A trunk down to the ground or raised, a big ear, legs like columns."""
    c = s.coat
    s.part(c.main, tube([(92, 40), (98, 50), (97, 60)], 4, 3))
    nails = lighter(c.main, 0.5)
    walker(s, c.main, x=66, y=47, rx=28, ry=24, leg=21, thick=15)
    for x in (43, 87):
        s.mark(nails, *[oval(x + dx, 90, 1.8, 1.6) for dx in (-4, 0, 4)])
    if s.rng.random() < 0.6:
        trunk = tube([(24, 42), (12, 54), (10, 72), (s.pick(0, 16), 84)], 20, 14, 11, 9)
    else:
        trunk = tube([(24, 44), (12, 52), (4, 42), (6, 26), (13, 20)], 20, 13, 10, 9, 8)
    s.part(c.main, oval(32, 36, 20, 19), trunk)
    s.part((250, 244, 226), tube([(24, 52), (17, 60), (11, 58)], 6, 4, 2))
    ear = smooth((36, 20), (50, 18), (57, 34), (52, 54), (42, 58), (35, 42))
    s.part(darker(c.main, 0.14), ear)
    s.mark(c.pale, inside(ear, 0.6))
    eye(s, 25, 33, 3)


def fox(s: Sketch) -> None:
    """A bushy tail with a white tip, dark feet, a pointed muzzle."""
    c = s.coat
    tail = smooth((74, 58), (84, 42), (97, 38), (103, 50), (98, 66), (84, 70))
    s.part(c.main, tail)
    s.mark(c.pale, oval(104, 44, 10, 15, 30), within=[tail])
    walker(s, c.main, x=56, y=57, rx=24, ry=13, leg=24, thick=7.5, foot=c.dark)
    s.mark(c.pale, oval(33, 62, 7, 9, 20))
    s.part(darker(c.main, 0.12), rounded((31, 28), (42, 8), (45, 34), radius=3))
    head = smooth((4, 49), (14, 38), (24, 27), (38, 28), (46, 42), (38, 54), (22, 54))
    s.part(c.main, head, rounded((20, 32), (24, 8), (37, 27), radius=3))
    s.mark(c.dark, rounded((23, 24), (25, 12), (32, 23), radius=2))
    s.mark(c.pale, smooth((2, 50), (18, 46), (30, 48), (44, 48), (36, 60), (18, 58)), within=[head])
    s.mark(INK, oval(5, 48, 3.6, 3))
    eye(s, 24, 40, 3)


def horse(s: Sketch) -> None:
    """Long legs, a long neck with a mane, a tail of hair."""
    c = s.coat
    s.part(c.dark, smooth((82, 42), (92, 42), (97, 58), (93, 76), (88, 66), (84, 54)))
    neck = tube([(46, 46), (34, 28), (28, 18)], 24, 17, 14)
    s.part(c.dark, tube([(48, 34), (42, 20), (32, 8)], 13, 12, 8))
    walker(s, c.main, x=61, y=48, rx=26, ry=14, leg=s.vary(34, 0.06), thick=7.5, foot=darker(c.dark, 0.4))
    s.part(
        c.main,
        neck,
        tube([(29, 20), (18, 30), (11, 38)], 17, 14, 11),
        rounded((25, 14), (29, 1), (35, 14), radius=2),
    )
    s.mark(c.dark, tube([(33, 8), (26, 14), (24, 22)], 5, 2))
    s.mark(c.pale, oval(11, 38, 5.6, 5, 30))
    s.mark(INK, oval(9, 36, 1.3, 1.6))
    eye(s, 23, 22, 2.4)


def horse_head(s: Sketch) -> None:
    """The long head of a horse, with its mane."""
    c = s.coat
    mane = [
        oval(64 + dx, y, 12, 10, 30) for dx, y in ((-10, 14), (2, 26), (8, 40), (13, 55), (16, 70), (19, 84))
    ]
    s.part(c.dark, *mane)
    s.part(darker(c.main, 0.15), rounded((42, 24), (38, 3), (54, 18), radius=3))
    head = smooth(
        (46, 18),
        (62, 24),
        (67, 44),
        (72, 66),
        (80, 94),
        (42, 95),
        (46, 72),
        (38, 64),
        (30, 74),
        (18, 80),
        (8, 74),
        (9, 62),
        (22, 46),
        (34, 28),
    )
    s.part(c.main, head, rounded((50, 22), (56, 2), (66, 24), radius=3))
    s.mark(c.pale, oval(15, 71, 11, s.vary(11, 0.1), 30), within=[head])
    s.mark(darker(c.dark, 0.3), oval(13, 67, 2.2, 3, 30))
    s.mark(INK, tube([(14, 79), (24, 74)], 2))
    s.part(c.dark, tube([(56, 12), (46, 20), (40, s.vary(36, 0.1))], 11, 9, 3))
    eye(s, 37, 42, 3.8)


def lion(s: Sketch) -> None:
    """A mane about the head, a tail with a tuft."""
    c = s.coat
    s.part(c.main, tube([(84, 48), (93, 42), (92, 28)], 5, 4))
    s.part(c.dark, oval(92, 24, 5, 7))
    walker(s, c.main, x=60, y=53, rx=27, ry=14, leg=25, thick=9.5)
    s.part(
        c.dark,
        *[oval(x, y, 11) for x, y in ((18, 24), (32, 20), (43, 29), (45, 43), (39, 56), (27, 58))],
        oval(30, 38, 18),
    )
    s.part(c.main, oval(23, 37, 13.5, 14), oval(12, 43, 8, 7), oval(31, 25, 5))
    s.mark(c.pale, oval(11, 45, 6, 5))
    s.mark(darker(c.dark, 0.4), oval(5.5, 40, 3, 2.6))
    eye(s, 17, 33, 2.8)


def monkey(s: Sketch) -> None:
    """On all fours with a long curled tail and a bare face."""
    c = s.coat
    tail = [(80, 50), (94, 44), (94, 24), (82, 18), (76, 26), (82, 31)]
    s.part(c.main, tube(tail, 7, 6, 5))
    walker(s, darker(c.main, 0.08), x=58, y=54, rx=25, ry=14, leg=24, thick=8.5, foot=c.pale)
    ear = oval(43, 34, 7)
    s.part(c.main, ear, oval(27, 34, 17))
    s.mark(c.pale, inside(ear, 0.6), oval(20, 31, 8, 9), oval(16, 42, 10.5, 8))
    s.mark(INK, tube([(8, 44), (15, 46), (21, 43)], 1.8))
    s.mark(c.dark, oval(10, 37, 1.6, 1.2))
    eye(s, 18, 30, 2.7)


def mouse(s: Sketch) -> None:
    """A drop of a body with a thin tail, its ear big and round."""
    c = s.coat
    s.part(darker(c.pale, 0.06), tube([(78, 74), (94, 72), (97, 56), (88, s.vary(46))], 5, 4, 2.5))
    s.part(darker(c.pale, 0.06), oval(34, 81, 7, 4), oval(68, 81, 9, 4.4))
    s.part(darker(c.main, 0.12), oval(40, 36, 11, 12))
    s.part(
        c.main, smooth((4, 64), (16, 52), (34, 43), (58, 40), (80, 54), (82, 74), (64, 82), (34, 81), (14, 74))
    )
    ear = oval(30, 37, s.vary(13, 0.1), s.vary(14, 0.1))
    s.part(c.main, ear)
    s.mark(c.pale, inside(ear, 0.66))
    for y in (58, 66, 74):
        s.mark(darker(c.dark, 0.4), tube([(14, 67), (30, y + 2)], 1.3))
    s.mark(darker(PINK, 0.1), oval(4.5, 63, 4, 3.6))
    eye(s, 20, 57, 3.4)


def pig(s: Sketch) -> None:
    """A barrel with short legs, a snout and a curly tail."""
    c = s.coat
    s.part(c.main, tube([(86, 46), (94, 42), (95, 50), (89, 49), (93, 38)], 3.6))
    walker(s, darker(c.main, 0.06), x=57, y=52, rx=32, ry=23, leg=15, thick=12, foot=darker(c.dark, 0.2))
    s.part(c.main, oval(29, 47, 20, 20))
    s.part(mix(c.pale, c.main, 0.25), oval(9, 52, 7, 9.5))
    s.mark(darker(c.dark, 0.35), oval(6.5, 50, 1.6, 2.8), oval(11.5, 50, 1.6, 2.8))
    s.part(darker(c.main, 0.14), rounded((28, 30), (s.vary(26), 14), (46, 34), radius=4))
    s.mark(INK, tube([(14, 61), (20, 63), (24, 60)], 1.8))
    eye(s, 22, 42, 3)


def rabbit(s: Sketch) -> None:
    """Crouched, the ears laid back or up, a round tail."""
    c = s.coat
    s.part(lighter(c.main, 0.6), oval(88, 70, 8.5))
    up = s.rng.random() < 0.6
    ears = [(32, 34), (33, 18), (37, 2)] if up else [(36, 36), (50, 24), (64, 20)]
    far = [(x + 9, y + 2) for x, y in ears] if up else [(x - 1, y - 8) for x, y in ears]
    s.part(darker(c.main, 0.16), tube(far, 10, 13, 6))
    s.part(c.main, smooth((30, 60), (44, 46), (66, 42), (86, 58), (86, 80), (66, 88), (38, 87), (30, 76)))
    s.part(darker(c.main, 0.05), oval(70, 72, 16, 15), oval(62, 87, 14, 5))
    s.part(c.main, oval(36, 87, 10, 4.6))
    near = tube(ears, 10, 14, 6)
    s.part(c.main, near, smooth((9, 52), (16, 38), (32, 32), (44, 44), (42, 58), (26, 64), (12, 61)))
    s.mark(c.pale, inside(near, 0.62))
    s.mark(darker(c.pale, 0.15), oval(9.5, 52, 3, 2.6))
    s.mark(lighter(c.main, 0.55), oval(15, 58, 6, 4.6))
    eye(s, 24, 46, 3.4)


def tiger(s: Sketch) -> None:
    """Striped from the head to the end of the tail."""
    c = s.coat
    tail = tube([(84, 50), (95, 46), (96, 32), (90, s.vary(22))], 7, 6)
    s.part(c.main, tail)
    s.mark(c.dark, oval(91, 22, 7, 5), oval(97, 38, 6, 2.4), oval(91, 49, 3, 6), within=[tail])
    body = walker(s, c.main, x=59, y=54, rx=28, ry=14, leg=24, thick=9.5)
    s.mark(c.pale, oval(58, 66, 20, 5), within=body)
    bars(s, c.dark, body, 62, 54, 26, 14, 5)
    s.part(darker(c.main, 0.14), oval(37, 24, 5.5))
    head: list[Shape] = [oval(27, 37, 18, 15.5), oval(13, 43, 9, 8)]
    s.part(c.main, *head, oval(22, 23, 5.5))
    s.mark(c.pale, oval(12, 46, 8, 6), oval(32, 49, 9, 6, -20), within=head)
    crown = [tube([(x, y - 3), (x - 2, y + 8)], 4.5, 1) for x, y in ((26, 22), (33, 24), (40, 29))]
    s.mark(c.dark, *crown, tube([(48, 40), (36, 40)], 4, 1), within=head)
    s.mark(INK, oval(6, 39.5, 3.2, 2.6))
    eye(s, 19, 35, 2.8)
