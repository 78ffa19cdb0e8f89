"""Scenes as Python values (`Scene`) and, in batches, as tensors whose objects rays can hit (`SceneBatch`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igm_clevr_render.geometry import BOUNDS, SHAPES, constant, dot, enter
from igm_clevr_render.lamps import LIGHTS, PlacedLamp, Triple, place_lamps
from igm_clevr_render.options import COLORS, SceneOptions


@dataclass(frozen=True)
class SceneObject:
    """One object; `x`, `y`, `radius` in scene units.

    `rotation` about the vertical is 0..360 as in CLEVR's annotations; CLEVR passes that number to Blender as
    radians, and so does this renderer.
    """

    shape: str
    size: str
    color: str
    material: str
    x: float
    y: float
    radius: float
    rotation: float


@dataclass(frozen=True)
class Scene:
    """One sampled scene; `lights` are the jitters of key, fill and back lamp."""

    index: int
    objects: tuple[SceneObject, ...]
    camera: Triple
    lights: tuple[Triple, ...]
    texture_seed: float


_PADDING = SceneObject("sphere", "", "gray", "rubber", 0.0, 0.0, 0.35, 0.0)


@dataclass(frozen=True)
class SceneBatch:
    """A batch of B scenes of at most K objects; all objects are in one row of N = B·K, at index b·K + k."""

    count: int  # K, padding included
    center: Tensor  # centres of the objects [3,N] in scene units
    radius: Tensor  # radius of the objects in scene units [N]
    bound: Tensor  # radius of the bounding sphere [N] in scene units; 0 for padding
    cos: Tensor  # cosine of the rotation about the vertical [N]
    sin: Tensor  # its sine [N]
    shape: Tensor  # indices into `SHAPES` [N]
    rgb: Tensor  # linear base colours in 0..1 [3,N]
    metal: Tensor  # whether objects are of metal, bool [N]
    camera: Tensor  # positions of the cameras [B,3] in scene units; they look at the origin
    seed: Tensor  # texture seeds [B] in 0..1
    textures: tuple[str, ...]  # names out of `TEXTURES`; none if surfaces are plain
    lamps: list[PlacedLamp]  # the lamps, each in all scenes
    ambient: Triple  # light that the world casts on the ground

    @classmethod
    def of(
        cls, scenes: Sequence[Scene], options: SceneOptions, device: str | torch.device = "cpu"
    ) -> SceneBatch:
        """Returns one or more scenes as tensors on a device; uses only light and texture of the options."""
        count = max(len(scene.objects) for scene in scenes)
        padding = ([_PADDING] * (count - len(scene.objects)) for scene in scenes)
        items = [item for scene, more in zip(scenes, padding, strict=True) for item in (*scene.objects, *more)]

        def row(value: Callable[[SceneObject], Any]) -> Tensor:
            return torch.tensor([value(item) for item in items], device=device)

        radius, rotation = row(lambda item: item.radius), row(lambda item: item.rotation)
        shape, lighting = row(lambda item: SHAPES.index(item.shape)), LIGHTS[options.light]
        return cls(
            count=count,
            center=row(lambda item: (item.x, item.y, item.radius)).T.contiguous(),
            radius=radius,
            bound=torch.tensor(BOUNDS, device=device)[shape] * radius * row(lambda item: item is not _PADDING),
            cos=rotation.cos(),
            sin=rotation.sin(),
            shape=shape,
            rgb=row(lambda item: COLORS[item.color]).T.contiguous().float() / 255,
            metal=row(lambda item: item.material == "metal"),
            camera=torch.tensor([scene.camera for scene in scenes], device=device),
            seed=torch.tensor([scene.texture_seed for scene in scenes], device=device),
            textures=options.textures,
            lamps=place_lamps(lighting, torch.tensor([scene.lights for scene in scenes], device=device)),
            ambient=lighting.ambient,
        )

    def __len__(self) -> int:
        return len(self.camera)

    def sky(self, strength: Tensor) -> Tensor:
        """Returns the world's light [3,N] on the ground, times a strength [N]."""
        return strength * constant(self.ambient, strength)

    def scene(self, which: Tensor) -> Tensor:
        """Returns the scene of each object, b of b·K + k."""
        return which.div(self.count, rounding_mode="floor")

    def offsets(self, point: Tensor) -> Tensor:
        """Returns vectors [3,B,K,P] from points [3,B,P] to the objects of their scenes."""
        return self.center.view(3, len(self), -1, 1) - point[:, :, None]

    def to_local(self, which: Tensor, v: Tensor) -> Tensor:
        """Returns vectors [3,N] in the frames of objects [N], in which each has radius 1."""
        c, s, scale = self.cos[which], self.sin[which], 1 / self.radius[which]
        return torch.stack([(c * v[0] + s * v[1]) * scale, (c * v[1] - s * v[0]) * scale, v[2] * scale])

    def to_world(self, which: Tensor, v: Tensor) -> Tensor:
        """Returns directions [3,N] from the frames of objects [N] in the scene's; lengths do not change."""
        c, s = self.cos[which], self.sin[which]
        return torch.stack([c * v[0] - s * v[1], s * v[0] + c * v[1], v[2]])

    def intersect(self, which: Tensor, start: Tensor, direction: Tensor) -> Tensor:
        """Returns the distances [N], in lengths of the direction, at which rays enter objects; `FAR` for a miss.

        Args:
            which: The object to test for each ray [N].
            start: Starts of the rays [3,N] in scene units.
            direction: Their directions [3,N], of any length.
        """
        local = self.to_local(which, start - self.center[:, which])
        return enter(self.shape[which], local, self.to_local(which, direction))

    def others(self, own: Tensor, start: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Returns which rays may hit which other objects of their scenes: indices of ray and object, each [M].

        Args:
            own: The object on which each ray starts [N], which is left out.
            start: Starts of the rays [3,N] in scene units.
            direction: Their directions [3,N], of any length.
        """
        first = own - own.remainder(self.count)
        which = first[:, None] + torch.arange(self.count, device=own.device)
        offset, line = self.center[:, which] - start[:, :, None], direction[:, :, None]
        bound = self.bound[which]
        ahead = dot(offset, line)
        near = (dot(offset, offset) - bound * bound) * dot(line, line) < ahead * ahead
        ray, item = (near & (ahead > 0) & (bound > 0) & (which != own[:, None])).nonzero(as_tuple=True)
        return ray, which[ray, item]
