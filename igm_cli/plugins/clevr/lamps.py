"""The lamps: where they stand, and how much of their light falls on a point.

Places are those of clevr-dataset-gen's base_scene as given by kubric's `get_clevr_lights`, corrected (< 0.5)
and, like the powers, fitted to the ground of 60 Cycles renders together with each one's lamp jitter (mean
error 1 of 255 levels). All fitted light is that of the ground: albedo is included.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from igm_cli.plugins.clevr.camera import camera_basis
from igm_cli.plugins.clevr.vectors import Triple, Vector, along, dot, minus, pick, scaled, split


class Lamp(NamedTuple):
    """A square lamp that shines towards the origin.

    Attributes:
        place: Its middle in scene units.
        power: Radiance it makes on the ground, times squared distance.
        half_size: Half an edge in scene units.
        jitter: Which of the scene's jitters moves it; None for a sun, whose light neither fades with distance
            nor moves.
    """

    place: Triple
    power: Triple
    half_size: float
    jitter: int | None


class Lighting(NamedTuple):
    """All light of a scene: lamps, and a world that shines evenly from above."""

    lamps: tuple[Lamp, ...]
    ambient: Triple


_SUN = Lamp((11.6608, -6.62799, 25.8232), (0.0330, 0.0325, 0.0316), 1.0, None)
LIGHTS: dict[str, Lighting] = {
    "default": Lighting(
        (
            Lamp((6.367, -2.839, 3.935), (4.497, 4.164, 3.551), 0.25, 0),
            Lamp((-4.642, -4.085, 2.781), (1.013, 1.099, 1.386), 0.25, 1),
            Lamp((-0.826, 2.694, 5.363), (2.277, 2.285, 2.262), 0.5, 2),
            _SUN,
        ),
        (0.110, 0.1104, 0.1107),
    ),
    "shifted": Lighting(
        (
            Lamp((-2.8, -6.2, 4.6), (6.2, 4.4, 2.6), 0.25, 0),
            Lamp((5.2, 3.9, 3.2), (0.9, 1.3, 2.2), 0.25, 1),
            Lamp((-3.6, 1.2, 5.0), (1.6, 1.9, 2.4), 0.5, 2),
            _SUN,
        ),
        (0.085, 0.090, 0.105),
    ),
}
LAMP_SAMPLES = ((-0.5, -0.5), (0.5, 0.5), (0.5, -0.5), (-0.5, 0.5))  # places on a lamp, in half edges


def lamp_samples(sub: Tensor) -> tuple[Tensor, Tensor]:
    """The place out of `LAMP_SAMPLES` that belongs to each sub-pixel [N], [N] along either edge."""
    places = torch.tensor(LAMP_SAMPLES, device=sub.device)[sub.remainder(len(LAMP_SAMPLES))]
    return places[:, 0], places[:, 1]


class PlacedLamp(NamedTuple):
    """One lamp in every scene of a batch.

    Attributes:
        place: [B] its middle in scene units.
        u: [B] half an edge.
        v: [B] half the other edge.
        aim: [B] unit.
        power: As in `Lamp`.
        sun: Whether its light neither fades with distance nor spreads.
    """

    place: Vector
    u: Vector
    v: Vector
    aim: Vector
    power: Triple
    sun: bool

    def sample(self, scene: Tensor, a: Tensor | float, b: Tensor | float) -> Vector:
        """Places [N] on the lamp in scenes [N], `a` and `b` half edges from its middle."""
        return along(along(pick(self.place, scene), pick(self.u, scene), a), pick(self.v, scene), b)

    def irradiance(self, scene: Tensor, point: Vector, normal: Vector) -> tuple[Tensor, Vector]:
        """Light that falls on points [N] of scenes [N] if nothing is in the way.

        Returns:
            Its strength [N] and the unit direction [N] to the lamp.
        """
        to = minus(pick(self.place, scene), point)
        square = dot(to, to)
        to = scaled(to, square.rsqrt())
        falling = dot(to, normal).clamp_min(0)
        if self.sun:
            return falling, to
        return falling * (-dot(to, pick(self.aim, scene))).clamp_min(0) / square, to


def place_lamps(lighting: Lighting, jitters: Tensor) -> list[PlacedLamp]:
    """Sets the lamps up in B scenes.

    Args:
        lighting: One of `LIGHTS`.
        jitters: [B,3,3] of key, fill and back lamp in scene units.
    """
    placed = []
    for lamp in lighting.lamps:
        place = torch.tensor(lamp.place, device=jitters.device).expand(len(jitters), 3)
        right, up, forward = camera_basis(place)  # a lamp keeps its aim when it is jittered
        if lamp.jitter is not None:
            place = place + jitters[:, lamp.jitter]
        u, v = split(right * lamp.half_size), split(up * lamp.half_size)
        placed.append(PlacedLamp(split(place), u, v, split(forward), lamp.power, lamp.jitter is None))
    return placed
