"""The random choices for an avatar, made so that nothing but an attribute itself reveals it.

The three attributes and the domain are given; everything else (skin, clothes, eyes, brows, nose, shape of the
hair, background, pose) is drawn from one distribution that does not depend on them.  A beard has its own colour,
independent of the hair's.  Part names are those of the library ``python-avatars``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

LONG_HAIR = (
    "BIG_HAIR", "BOB", "CURLY", "CURVY", "DREADS", "LONG_NOT_TOO_LONG", "MIA_WALLACE",
    "STRAIGHT_1", "STRAIGHT_STRAND", "LOOSE_HAIR", "CURLY_2", "WILD",
)  # fmt: skip
SHORT_HAIR = (
    "CAESAR_SIDE_PART", "CAESAR", "SHORT_CURLY", "SHORT_DREADS_1", "SHORT_FLAT", "SHORT_ROUND",
    "SHORT_WAVED", "ELVIS", "PIXIE", "POMPADOUR", "QUIFF", "MOWGLI",
)  # fmt: skip
# Without EINSTEIN_MOUSTACHE, which hides the mouth and thus a smile.
FACIAL_HAIR = (
    "BEARD_LIGHT", "BEARD_MAGESTIC", "BEARD_MEDIUM", "MOUSTACHE_FANCY", "MOUSTACHE_MAGNUM", "WICK_BEARD",
)  # fmt: skip
GLASSES = (
    "KURT", "PRESCRIPTION_1", "PRESCRIPTION_2", "ROUND", "SUNGLASSES", "SUNGLASSES_2", "WAYFARERS", "WAYFARERS_2",
)  # fmt: skip
SMILES = ("BIG_SMILE", "DEFAULT", "SMILE", "TWINKLE")
OTHER_MOUTHS = ("CONCERNED", "DISBELIEF", "GRIMACE", "SAD", "SCREAM_OPEN", "SERIOUS")
EYES = ("CLOSED", "DEFAULT", "EYE_ROLL", "HAPPY", "SIDE", "SQUINT", "SURPRISED", "WINK")
BROWS = (
    "ANGRY_NATURAL", "ANGRY", "DEFAULT_NATURAL", "DEFAULT", "FLAT_NATURAL", "FROWN_NATURAL",
    "RAISED_EXCITED_NATURAL", "RAISED_EXCITED", "SAD_CONCERNED_NATURAL", "SAD_CONCERNED", "UP_DOWN_NATURAL",
)  # fmt: skip
NOSES = ("DEFAULT", "SMALL", "WIDE")
CLOTHES = (
    "BLAZER_SHIRT", "BLAZER_SWEATER", "COLLAR_SWEATER", "HOODIE", "OVERALL", "SHIRT_CREW_NECK",
    "SHIRT_SCOOP_NECK", "SHIRT_V_NECK",
)  # fmt: skip

BLACK = ((44, 27, 24), (20, 18, 20), (33, 28, 27), (26, 26, 36))
OTHER_HAIR = (
    (165, 87, 40), (181, 129, 67), (214, 179, 112), (124, 74, 58), (245, 151, 151), (236, 220, 191),
    (201, 51, 5), (232, 225, 225), (150, 150, 155), (120, 80, 150),
)  # fmt: skip
BEARDS = ((165, 87, 40), (181, 129, 67), (124, 74, 58), (201, 51, 5), (150, 150, 155), (214, 179, 112))
SKINS = (
    (253, 152, 65), (248, 210, 92), (255, 219, 180), (237, 185, 138), (208, 139, 91), (174, 93, 41), (110, 78, 62),
)  # fmt: skip

ATTRIBUTES = ("Black_Hair", "Eyeglasses", "Smiling", "Male")
BACKDROPS = ("plain", "gradient", "stripes", "dots")

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Pose:
    """Where the face is: scale, shift in units of 1/200 of the image's side, angle in degrees."""

    scale: float
    dx: float
    dy: float
    angle: float


@dataclass(frozen=True)
class Backdrop:
    """The background of the face: a kind out of `BACKDROPS`, two colours, and the pattern's angle and width."""

    kind: str
    colors: tuple[Color, Color]
    angle: float
    width: float


@dataclass(frozen=True)
class Face:
    """One avatar: its attributes, parts and colours."""

    attributes: dict[str, bool]
    hair: str
    hair_color: Color
    facial_hair: str
    beard_color: Color
    glasses: str
    mouth: str
    eyes: str
    brows: str
    nose: str
    skin: Color
    clothes: str
    clothes_color: Color
    backdrop: Backdrop
    pose: Pose


def draw_face(rng: random.Random, black_hair: bool, eyeglasses: bool, smiling: bool, male: bool) -> Face:
    """Returns a random face with given attributes of CelebA; sunglasses are eyeglasses, as they are there.

    The domain ``male`` has short hair with a beard or a moustache, the other long hair and neither.
    """
    # Both alternatives are always drawn, so that changing one attribute changes nothing else.
    black, other = _near(rng, rng.choice(BLACK), 6), _near(rng, rng.choice(OTHER_HAIR), 18)
    glasses, smile, no_smile = rng.choice(GLASSES), rng.choice(SMILES), rng.choice(OTHER_MOUTHS)
    long, short, beard = rng.choice(LONG_HAIR), rng.choice(SHORT_HAIR), rng.choice(FACIAL_HAIR)
    return Face(
        attributes=dict(zip(ATTRIBUTES, (black_hair, eyeglasses, smiling, male), strict=True)),
        hair=short if male else long,
        hair_color=black if black_hair else other,
        facial_hair=beard if male else "NONE",
        beard_color=_near(rng, rng.choice(BEARDS), 18),
        glasses=glasses if eyeglasses else "NONE",
        mouth=smile if smiling else no_smile,
        eyes=rng.choice(EYES),
        brows=rng.choice(BROWS),
        nose=rng.choice(NOSES),
        skin=_near(rng, rng.choice(SKINS), 14),
        clothes=rng.choice(CLOTHES),
        clothes_color=_any(rng),
        backdrop=Backdrop(
            rng.choice(BACKDROPS), (_any(rng), _any(rng)), rng.uniform(0, 180), rng.uniform(10, 50)
        ),
        pose=Pose(rng.uniform(0.95, 1.3), rng.uniform(-14, 14), rng.uniform(-12, 12), rng.uniform(-12, 12)),
    )


def balanced_face(index: int, seed: int, male: bool | None) -> Face:
    """Returns face number ``index`` of a set; consecutive faces cycle through all configurations of the attributes.

    ``male`` is the domain; None takes both in turn.
    """
    attributes = [bool(index >> bit & 1) for bit in range(len(ATTRIBUTES))]
    if male is not None:
        attributes[-1] = male
    return draw_face(random.Random(f"{seed} {index}"), *attributes)


def _near(rng: random.Random, color: Color, spread: int) -> Color:
    """Returns a colour near another."""
    red, green, blue = (min(255, max(0, c + rng.randint(-spread, spread))) for c in color)
    return red, green, blue


def _any(rng: random.Random) -> Color:
    return rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255)
