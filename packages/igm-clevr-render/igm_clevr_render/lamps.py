"""The lamps: their places, and how much of their light falls on a point.

Their places are those of clevr-dataset-gen's base_scene as given by kubric's `get_clevr_lights`, corrected by less
than 0.5 and, like the powers, fitted to the ground of 60 Cycles renders together with each one's lamp jitter (mean
error 1 of 255 levels). All fitted light is that of the ground and includes its albedo.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from igm_clevr_render.geometry import constant, dot, viewer_axes

Triple = tuple[float, float, float]


class Lamp(NamedTuple):
    """A square lamp that shines towards the origin."""

    place: Triple  # its middle in scene units
    power: Triple  # radiance that it causes on the ground, times squared distance
    half_size: float  # half an edge in scene units
    # which of the scene's jitters moves it; None for a sun, whose light neither fades with distance nor moves
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
    """Returns the place out of `LAMP_SAMPLES` that belongs to each sub-pixel [N], [N] along either edge."""
    places = torch.tensor(LAMP_SAMPLES, device=sub.device)[sub.remainder(len(LAMP_SAMPLES))]
    return places[:, 0], places[:, 1]


class PlacedLamp(NamedTuple):
    """One lamp in every scene of a batch."""

    place: Tensor  # its middle [3,B] in scene units
    u: Tensor  # half an edge [3,B]
    v: Tensor  # half the other edge [3,B]
    aim: Tensor  # unit vectors [3,B]
    power: Tensor  # as in `Lamp`, [3,1]
    sun: bool  # whether its light neither fades with distance nor spreads

    def sample(self, scene: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
        """Returns places [3,N] on the lamp in scenes [N], `a` and `b` half edges from its middle."""
        return self.place[:, scene] + a * self.u[:, scene] + b * self.v[:, scene]

    def irradiance(self, scene: Tensor, point: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the irradiance if nothing is in the way [N], and unit directions [3,N] to the lamp.

        Args:
            scene: The scene of each point [N].
            point: The points [3,N].
            normal: Unit normals [3,N].
        """
        to = self.place[:, scene] - point
        square = dot(to, to)
        to = to * square.rsqrt()
        falling = dot(to, normal).clamp_min(0)
        if self.sun:
            return falling, to
        return falling * (-dot(to, self.aim[:, scene])).clamp_min(0) / square, to


def place_lamps(lighting: Lighting, jitters: Tensor) -> list[PlacedLamp]:
    """Returns the lamps of B scenes, moved by the jitters [B,3,3] of key, fill and back lamp in scene units."""
    placed = []
    for lamp in lighting.lamps:
        place = torch.tensor(lamp.place, device=jitters.device).expand(len(jitters), 3)
        right, up, forward = viewer_axes(place)  # a lamp keeps its aim when it is jittered
        if lamp.jitter is not None:
            place = place + jitters[:, lamp.jitter]
        u, v, power = right * lamp.half_size, up * lamp.half_size, constant(lamp.power, place)
        place, u, v, forward = (vector.T.contiguous() for vector in (place, u, v, forward))
        placed.append(PlacedLamp(place, u, v, forward, power, lamp.jitter is None))
    return placed
