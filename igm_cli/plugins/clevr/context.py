"""What shading needs to know of a batch of scenes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from igm_cli.plugins.clevr.lamps import LIGHTS, PlacedLamp, place_lamps
from igm_cli.plugins.clevr.layout import Scenes
from igm_cli.plugins.clevr.objects import Objects
from igm_cli.plugins.clevr.vectors import Triple


@dataclass(frozen=True)
class Context:
    """What shading needs to know of a batch of B scenes.

    Attributes:
        objects: Those of all scenes.
        lamps: Each in all scenes.
        ambient: Light of the world on the ground.
        seed: [B] texture seeds.
        textures: Names out of `TEXTURES`; none where surfaces are plain.
    """

    objects: Objects
    lamps: list[PlacedLamp]
    ambient: Triple
    seed: Tensor
    textures: tuple[str, ...]

    @classmethod
    def of(cls, scenes: Scenes) -> Context:
        """Sets up objects and lamps."""
        lighting = LIGHTS[scenes.options.light]
        return cls(
            objects=Objects.of(scenes),
            lamps=place_lamps(lighting, scenes.lights),
            ambient=lighting.ambient,
            seed=scenes.texture_seed,
            textures=scenes.options.textures,
        )
