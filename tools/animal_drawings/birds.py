"""Birds, from the front and from the side; those from the side look left."""

from __future__ import annotations

from animal_drawings.features import eye, eyes
from animal_drawings.palettes import INK, ORANGE, WHITE, darker, lighter, mix
from animal_drawings.shapes import both, oval, rounded, smooth, symmetric, tube
from animal_drawings.sketch import Sketch

RED = (222, 56, 54)
BEAK = (250, 190, 50)


def chicken_face(s: Sketch) -> None:
    """A comb on top, a beak, wattles below it."""
    c = s.coat
    s.part(RED, oval(38, 17, 8, 10, -20), oval(50, 13, 9, 11), oval(62, 17, 8, 10, 20))
    s.part(c.main, symmetric((50, 18), (72, 26), (s.vary(80, 0.03), 60), (82, 92), (50, 95)))
    s.part(RED, *both(oval(45, 76, 6, s.vary(10))))
    s.part(BEAK, rounded((50 - s.vary(14), 56), (50, 46), (64, 56), (50, 70), radius=4))
    s.mark(darker(BEAK, 0.4), tube([(40, 57), (60, 57)], 1.6))
    eyes(s, 19, 44, 4.6)


def chicken(s: Sketch) -> None:
    """A boat of a body with a raised tail, comb, beak and wattle, on two thin legs."""
    c = s.coat
    for x in (48, 60):
        s.part(ORANGE, tube([(x, 74), (x, 93)], 3.6), tube([(x - 8, 94), (x + 4, 94)], 3.6))
    s.part(c.dark, *[oval(86 - i * 3, 34 + i * 7, 14, 5.5, -50 + i * 18) for i in range(3)])
    s.part(RED, oval(19, 15, 5, 6), oval(27, 11, 5.4, 7), oval(34, 16, 5, 6))
    s.part(RED, oval(18, 43, 4, s.vary(7)))
    s.part(BEAK, rounded((16, 25), (3, 33), (17, 37), radius=2))
    s.part(
        c.main,
        smooth(
            (16, 28),
            (26, 16),
            (38, 24),
            (44, 42),
            (64, 46),
            (86, 34),
            (88, 56),
            (72, 76),
            (44, 80),
            (24, 66),
            (20, 44),
        ),
    )
    s.part(mix(c.main, c.dark, 0.5), smooth((44, 54), (60, 52), (78, 54), (66, 68), (50, 68)))
    eye(s, 25, 28, 3)


def duck(s: Sketch) -> None:
    """A flat bill, a body like a boat; swimming or on orange feet."""
    c = s.coat
    mallard = c.marking == "mallard"
    if s.rng.random() < 0.6:
        for x in (48, 60):
            s.part(ORANGE, tube([(x, 78), (x, 89)], 4), rounded((x - 12, 94), (x, 86), (x + 5, 94), radius=2))
    s.part(ORANGE, smooth((18, 28), (8, 32), (1, 38), (10, 42), (20, 38)))
    s.mark(darker(ORANGE, 0.35), tube([(4, 38), (16, 36)], 1.6))
    head, r = (c.dark if mallard else c.main), s.vary(16, 0.08)
    s.part(
        c.main, smooth((22, 52), (40, 52), (60, 50), (78, 46), (96, 38), (94, 62), (78, 80), (46, 83), (24, 74))
    )
    s.part(head, oval(30, 28, r), tube([(32, 34), (36, 56)], 18, 22))
    if mallard:
        s.part(WHITE, tube([(26, 54), (36, 57), (47, 53)], 4.5))
    s.part(darker(c.main, 0.12), smooth((42, 58), (60, 55), (84, 56), (72, 70), (52, 71)))
    eye(s, 25, 24, 3.2)


def duck_face(s: Sketch) -> None:
    """A round head with a broad flat bill."""
    c = s.coat
    mallard = c.marking == "mallard"
    if s.rng.random() < 0.6 and not mallard:
        s.part(c.main, tube([(50, 24), (46, 10), (54, 6)], 7, 4))
    head = symmetric((50, 18), (74, 26), (84, 54), (70, 84), (50, 90))
    s.part(c.dark if mallard else c.main, head)
    if mallard:
        s.mark(WHITE, oval(50, 92, 40, 9), within=[head])
    s.part(ORANGE, oval(50, 70, s.vary(27, 0.08), 11))
    s.part(lighter(ORANGE, 0.12), symmetric((50, 52), (63, 56), (77, 67), (50, 72)))
    s.mark(darker(ORANGE, 0.45), *both(oval(45, 60, 1.6, 2.4)))
    eyes(s, 19, 42, 4.8)


def owl(s: Sketch) -> None:
    """Two great discs about the eyes, tufts, a beak between, wings at the sides."""
    c, w = s.coat, s.vary(30, 0.08)
    s.part(ORANGE, *both(oval(38, 94, 4, 4), oval(45, 94, 4, 4)))
    tuft = rounded((50 - w * 0.98, 34), (50 - w * 0.95, s.vary(5, 0.6)), (46, 18), radius=4)
    body = symmetric((50, 13), (50 + w * 0.8, 20), (50 + w, 48), (50 + w * 0.86, 80), (50, 94))
    s.part(c.main, *both(tuft), body)
    s.mark(c.pale, oval(50, 72, w * 0.66, 20))
    for y in (62, 71, 80):
        for x in (40, 50, 60) if y != 71 else (45, 55):
            s.mark(c.main, tube([(x - 3, y), (x, y + 3), (x + 3, y)], 2.2))
    s.part(
        c.dark,
        *both(
            smooth(
                (50 - w, 46), (50 - w * 0.66, 56), (50 - w * 0.66, 78), (50 - w * 1.0, 88), (50 - w * 1.2, 66)
            )
        ),
    )
    r = s.vary(14, 0.06)
    s.part(c.pale, *both(oval(50 - r * 0.95, 36, r)))
    s.mark(s.pick((250, 200, 60), WHITE), *both(oval(50 - r * 0.95, 36, r * 0.72)))
    s.mark(INK, *both(oval(50 - r * 0.95, 36, r * 0.46 * s.eye_size)))
    s.mark(WHITE, *[oval(50 + side * r * 0.95 - 2, 33.5, 2) for side in (-1, 1)])
    s.part(ORANGE, rounded((44, 42), (56, 42), (50, 55), radius=2.5))


def penguin(s: Sketch) -> None:
    """A dark coat open over a white belly, flippers, a beak and orange feet."""
    c, w = s.coat, s.vary(26, 0.08)
    s.part(ORANGE, *both(oval(38, 93, 10, 5)))
    out = s.vary(12, 0.3)
    s.part(
        c.dark,
        *both(smooth((50 - w * 0.8, 44), (50 - w - out, 62), (50 - w - out * 0.9, 76), (50 - w * 0.85, 68))),
    )
    body = symmetric(
        (50, 5), (50 + w * 0.7, 13), (50 + w * 0.86, 34), (50 + w, 66), (50 + w * 0.7, 88), (50, 93)
    )
    s.part(c.main, body)
    s.mark(c.pale, oval(50, 68, w * 0.72, 24), *both(oval(50 - w * 0.35, 32, w * 0.42, 13)), within=[body])
    eyes(s, 9, 29, 3.4)
    s.part(ORANGE, rounded((43, 36), (57, 36), (50, s.vary(46, 0.04)), radius=2.5))


def penguin_side(s: Sketch) -> None:
    """Upright, the white belly in front."""
    c = s.coat
    s.part(ORANGE, oval(40, 94, 12, 4.5), oval(52, 94, 10, 4.5))
    s.part(ORANGE, rounded((34, 20), (16, s.vary(29, 0.08)), (34, 30), radius=2))
    body = smooth(
        (44, 6),
        (58, 12),
        (62, 32),
        (74, 56),
        (76, 80),
        (84, 93),
        (62, 92),
        (38, 92),
        (30, 72),
        (34, 46),
        (31, 22),
    )
    s.part(c.main, body)
    s.mark(
        c.pale,
        smooth((26, 52), (40, 44), (52, 62), (52, 84), (40, 98), (24, 80)),
        oval(38, 32, 8, 7),
        within=[body],
    )
    s.part(c.dark, smooth((54, 42), (64, 46), (68, 68), (62, 78), (54, 62)))
    eye(s, 42, 20, 3)
