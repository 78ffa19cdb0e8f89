"""Animals of the sea, the pond and the garden; those from the side look left."""

from __future__ import annotations

from animal_drawings.features import eye, eyes, grin
from animal_drawings.palettes import INK, PINK, WHITE, darker, lighter
from animal_drawings.shapes import Shape, both, inside, oval, rounded, smooth, symmetric, tube
from animal_drawings.sketch import Sketch


def fish(s: Sketch) -> None:
    """Long, with a forked tail."""
    c, h = s.coat, s.vary(23)
    s.part(c.dark, smooth((68, 50), (84, 34), (97, 27), (91, 50), (97, 73), (84, 66)))
    s.part(
        c.dark,
        smooth((36, 52 - h * 0.8), (50, 40 - h), (66, 46 - h * 0.5), (66, 46)),
        smooth((46, 60), (52, 60 + h), (64, 56 + h)),
    )
    body = smooth(
        (4, 52),
        (18, 50 - h * 0.7),
        (42, 50 - h),
        (66, 50 - h * 0.5),
        (78, 50),
        (66, 50 + h * 0.5),
        (42, 50 + h),
        (18, 52 + h * 0.7),
    )
    s.part(c.main, body)
    s.mark(c.pale, oval(38, 52 + h, 34, h * 0.6), within=[body])
    if c.marking == "stripes":
        s.mark(
            c.pale,
            tube([(36, 20), (40, 50), (36, 80)], 8),
            tube([(58, 20), (60, 50), (58, 80)], 6),
            within=[body],
        )
    else:
        for x, y in ((42, 42), (52, 48), (42, 54), (62, 50)):
            s.mark(c.dark, tube([(x, y - 4), (x + 3, y), (x, y + 4)], 1.8))
    s.part(c.dark, smooth((38, 54), (52, 52), (54, 62), (46, 66)))
    s.mark(INK, tube([(6, 58), (12, 60)], 2))
    eye(s, 20, 46, 4.4)


def angelfish(s: Sketch) -> None:
    """Tall and flat, with long fins."""
    c, h = s.coat, s.vary(30, 0.1)
    s.part(c.dark, smooth((70, 50), (84, 36), (96, 32), (92, 50), (96, 68), (84, 64)))
    s.part(
        c.dark,
        smooth((36, 50 - h * 0.7), (58, 44 - h), (82, 46 - h), (66, 44)),
        smooth((36, 50 + h * 0.7), (58, 56 + h), (82, 54 + h), (66, 56)),
    )
    body = smooth(
        (5, 52),
        (20, 50 - h * 0.55),
        (42, 50 - h),
        (64, 50 - h * 0.6),
        (76, 50),
        (64, 50 + h * 0.6),
        (42, 50 + h),
        (20, 52 + h * 0.55),
    )
    s.part(c.main, body)
    stripes = [tube([(x, 10), (x + 4, 50), (x, 90)], thick) for x, thick in ((32, 9), (56, 8))]
    s.mark(c.pale, *stripes, within=[body])
    s.part(c.dark, smooth((44, 52), (56, 46), (58, 58), (50, 62)))
    s.mark(darker(c.main, 0.5), tube([(6, 55), (12, 57)], 2.2))
    eye(s, 20, 46, 4.4)


def frog_face(s: Sketch) -> None:
    """Eyes on top of a flat head, a mouth from side to side."""
    c, w = s.coat, s.vary(41, 0.06)
    r = s.vary(14, 0.1)
    s.part(c.main, *both(oval(50 - w * 0.55, 28, r)), oval(50, 58, w, 30))
    s.mark(
        c.pale,
        smooth(
            (50 - w * 0.8, 66), (50, 74), (50 + w * 0.8, 66), (50 + w * 0.5, 83), (50, 87), (50 - w * 0.5, 83)
        ),
    )
    for x in (50 - w * 0.55, 50 + w * 0.55):
        s.part(WHITE, oval(x, 27, r * 0.66))
        s.mark(INK, oval(x, 28, r * 0.38 * s.eye_size))
    s.mark(INK, tube([(50 - w * 0.68, 60), (50, 71), (50 + w * 0.68, 60)], 3))
    s.mark(c.dark, *both(oval(46, 52, 1.7, 2)))


def frog(s: Sketch) -> None:
    """Sitting, the thighs out to the sides and the toes spread."""
    c = s.coat
    s.part(darker(c.main, 0.12), *both(oval(22, 74, 13, 17, 25)))
    toes = [oval(12 + dx, 92, 7, 3.6, turn) for dx, turn in ((-4, 20), (4, 0), (12, -20))]
    s.part(darker(c.main, 0.12), *both(*toes))
    s.part(c.main, symmetric((50, 40), (70, 50), (74, 76), (60, 92), (50, 93)))
    s.mark(c.pale, oval(50, 76, 17, 15))
    s.part(c.main, *both(tube([(34, 66), (34, 82), (38, 92)], 9, 8), oval(35, 93, 9, 3.6)))
    with s.placed(0.72, 50, 38):
        frog_face(s)


def octopus(s: Sketch) -> None:
    """A dome of a head on arms that curl outwards."""
    c, w = s.coat, s.vary(s.pick(28, 34), 0.08)
    arms: list[Shape] = []
    for x, reach, low in ((24, 44, 72), (33, 36, 88), (43, 14, 94)):
        end = [(50 - reach - 2, low - 8), (50 - reach + 5, low - 13)] if x < 40 else [(50 - reach, low - 3)]
        arms.append(tube([(x + 12, 54), (x + 4, 70), (50 - reach + 6, low), *end], 15, 12, 9, 7))
    s.part(darker(c.main, 0.12), *both(arms[2]))
    s.part(
        c.main,
        *both(arms[0], arms[1]),
        symmetric((50, 6), (50 + w * 0.8, 14), (50 + w, 36), (50 + w * 0.78, 56), (50, 66)),
    )
    for x, y in ((18, 75), (26, 88), (41, 88)):
        s.mark(c.pale, *both(oval(x, y, 2.4)))
    if s.rng.random() < 0.5:
        s.mark(lighter(c.main, 0.35), oval(38, 18, 6, 4, -30), oval(62, 22, 4, 3), oval(50, 13, 3, 2))
    eyes(s, 12, 40, 5)
    if s.rng.random() < 0.5:
        s.mark(darker(c.dark, 0.4), oval(50, 53, 4, 3.4))
    else:
        grin(s, 50, 8)


def snail(s: Sketch) -> None:
    """A spiral shell on a long foot, eyes on stalks."""
    c = s.coat
    x, y, r = 60, 50, s.vary(29, 0.06)
    s.part(c.main, tube([(16, 46), (11, 28)], 5), tube([(24, 46), (27, 26)], 5))
    s.part(
        c.main,
        smooth(
            (10, 50), (22, 42), (32, 52), (36, 70), (60, 74), (84, 76), (98, 86), (70, 89), (30, 89), (14, 78)
        ),
    )
    s.part(c.pale, oval(x, y, r))
    spiral = [oval(x + dx * r, y + dy * r, 1)[0] for dx, dy in _SPIRAL]
    s.mark(c.dark, tube(spiral, 5.5, 5, 3.5))
    s.mark(INK, tube([(12, 62), (17, 65), (22, 62)], 2))
    for ex, ey in ((11, 25), (28, 23)):
        s.part(WHITE, oval(ex, ey, 5))
        s.mark(INK, oval(ex - 0.8, ey, 2.8 * s.eye_size))


_SPIRAL = (
    (-0.7, 0.7), (-0.1, 0.78), (0.55, 0.5), (0.7, -0.1), (0.35, -0.6), (-0.2, -0.62), (-0.5, -0.2),
    (-0.35, 0.25), (0.05, 0.36), (0.3, 0.1), (0.15, -0.2), (-0.1, -0.1),
)  # fmt: skip


def turtle(s: Sketch) -> None:
    """A dome of a shell on stout legs, the head held out."""
    c = s.coat
    s.part(c.main, rounded((84, 66), (98, 74), (84, 74), radius=2))
    s.part(darker(c.main, 0.2), tube([(48, 70), (46, 84)], 12), tube([(74, 70), (73, 84)], 12))
    s.part(c.main, tube([(36, 68), (33, 86)], 13), tube([(82, 68), (84, 86)], 13))
    s.part(c.main, tube([(36, 66), (22, 56), (16, 46)], 15, 13, 14), oval(16, 44, 13, 11.5))
    top = s.vary(24, 0.15)
    shell = smooth((28, 70), (32, 50), (44, top + 10), (60, top), (76, top + 10), (88, 50), (92, 70), (60, 74))
    s.part(c.pale, shell)
    scutes = ((60, top + 17, 11), (42, top + 30, 8), (78, top + 30, 8), (60, 63, 8))
    s.mark(c.dark, *[rounded(*oval(x, y, r)[::5], radius=3) for x, y, r in scutes], within=[shell])
    s.part(lighter(c.pale, 0.35), tube([(28, 71), (60, 75), (92, 71)], 6))
    s.mark(INK, tube([(5, 50), (11, 52)], 1.8))
    eye(s, 13, 41, 3)


def turtle_top(s: Sketch) -> None:
    """From above: a round shell, four flippers, head and tail."""
    c, w = s.coat, s.vary(28, 0.08)
    s.part(c.main, rounded((45, 86), (55, 86), (50, 98), radius=2))
    s.part(c.main, *both(oval(24, 34, 9, 15, -50), oval(26, 80, 8, 12, 45)))
    s.part(c.main, oval(50, 16, s.vary(11), 13))
    shell = oval(50, 56, w, 33)
    s.part(c.pale, shell)
    s.mark(c.dark, inside(shell, 0.8))
    scutes = [(50, 34, 9), (50, 56, 10), (50, 77, 8), (33, 46, 7), (67, 46, 7), (33, 66, 7), (67, 66, 7)]
    plates = [rounded(*oval(x, y, r)[::5], radius=2) for x, y, r in scutes]
    s.mark(c.pale, *plates, within=[inside(shell, 0.8)])
    eyes(s, 5.5, 12, 2.6)


def whale(s: Sketch) -> None:
    """Round and merry, the tail raised, water blown from the top."""
    c = s.coat
    s.part(c.main, smooth((80, 40), (70, 22), (72, 12), (86, 20), (98, 10), (101, 20), (92, 38)))
    body = smooth(
        (6, 62),
        (12, 44),
        (34, 34),
        (58, 42),
        (74, 52),
        (82, 36),
        (93, 36),
        (90, 66),
        (72, 86),
        (40, 91),
        (14, 82),
    )
    if s.rng.random() < 0.75:
        s.part(
            (130, 200, 240),
            tube([(36, 34), (35, 20), (26, 14), (20, 20)], 5),
            tube([(36, 34), (37, 20), (46, 14), (52, 20)], 5),
        )
    s.part(c.main, body)
    s.mark(c.pale, smooth((2, 70), (24, 72), (48, 72), (66, 80), (60, 98), (20, 98)), within=[body])
    s.mark(c.dark, *[tube([(16, y - 1), (36, y + 1), (52, y)], 1.4) for y in (79, 84)], within=[body])
    s.part(c.dark, smooth((46, 68), (58, 70), (64, 82), (54, 82)))
    s.mark(INK, tube([(8, 68), (16, 71), (24, 68)], 2))
    eye(s, 24, 58, 3.4)


def sperm_whale(s: Sketch) -> None:
    """Long, with a blunt head and a flat tail."""
    c = s.coat
    s.part(c.main, smooth((88, 44), (84, 30), (90, 24), (95, 36), (106, 32), (108, 40), (98, 50)))
    body = smooth(
        (3, 50),
        (6, 36),
        (24, 31),
        (52, 34),
        (78, 46),
        (90, 40),
        (97, 46),
        (88, 62),
        (66, 71),
        (36, 74),
        (10, 70),
    )
    s.part(c.main, body)
    s.mark(c.pale, smooth((-2, 66), (26, 62), (50, 64), (72, 66), (60, 82), (10, 82)), within=[body])
    s.mark(c.dark, *[tube([(10, y), (30, y - 0.5), (52, y)], 1.3) for y in (67.5, 71)], within=[body])
    s.part(c.dark, smooth((42, 62), (54, 62), (60, 74), (64, 82), (52, 78)))
    if s.rng.random() < 0.5:
        s.part(
            (130, 200, 240),
            tube([(22, 30), (20, 20), (12, 16)], 4.5),
            tube([(22, 30), (24, 20), (32, 16)], 4.5),
        )
    s.mark(PINK, oval(31, 60, 3, 1.8))
    eye(s, 26, 54, 2.8)
