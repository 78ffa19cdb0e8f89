"""Scenes as Python values (`Layout`) and, a batch of them, as padded tensors (`Scenes`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igm_cli.plugins.clevr.options import COLORS, SceneOptions
from igm_cli.plugins.clevr.shapes import SHAPES


@dataclass(frozen=True)
class SceneObject:
    """One object; `x`, `y`, `radius` in scene units.

    `rotation` about the vertical is 0..360 as in CLEVR's annotations; CLEVR hands that number to Blender as
    radians, and so do we.
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
class Layout:
    """One sampled scene before it becomes tensors; `lights` are the jitters of key, fill and back lamp."""

    index: int
    objects: tuple[SceneObject, ...]
    camera: tuple[float, float, float]
    lights: tuple[tuple[float, float, float], ...]
    texture_seed: float


@dataclass(frozen=True)
class Scenes:
    """A batch of B scenes, padded to K objects.

    Attributes:
        position: [B,K,3] centres in scene units.
        radius: [B,K] scene units.
        rotation: [B,K] radians about the vertical (CLEVR's number as it is, see `SceneObject`).
        shape: [B,K] index into `SHAPES`.
        rgb: [B,K,3] linear base colour in 0..1.
        metal: [B,K] bool.
        present: [B,K] bool, False on padding.
        camera: [B,3] scene units.
        lights: [B,3,3] jitter of key, fill and back lamp in scene units.
        texture_seed: [B] in 0..1, fixes the scene's pattern.
        layouts: The same as Python values, with the names.
        options: What was sampled from.
    """

    position: Tensor
    radius: Tensor
    rotation: Tensor
    shape: Tensor
    rgb: Tensor
    metal: Tensor
    present: Tensor
    camera: Tensor
    lights: Tensor
    texture_seed: Tensor
    layouts: tuple[Layout, ...]
    options: SceneOptions

    def __len__(self) -> int:
        return len(self.layouts)


_PADDING = SceneObject("sphere", "", "gray", "rubber", 0.0, 0.0, 0.35, 0.0)


def stack(layouts: Sequence[Layout], options: SceneOptions) -> Scenes:
    """Turns one or more layouts into padded tensors (see `Scenes`)."""
    width = max(len(layout.objects) for layout in layouts)
    rows = [[*layout.objects, *[_PADDING] * (width - len(layout.objects))] for layout in layouts]

    def table(value: Callable[[SceneObject], Any]) -> Tensor:
        return torch.tensor([[value(item) for item in row] for row in rows])

    return Scenes(
        position=table(lambda item: (item.x, item.y, item.radius)),
        radius=table(lambda item: item.radius),
        rotation=table(lambda item: item.rotation),
        shape=table(lambda item: SHAPES.index(item.shape)),
        rgb=table(lambda item: COLORS[item.color]).float() / 255,
        metal=table(lambda item: item.material == "metal"),
        present=table(lambda item: item is not _PADDING),
        camera=torch.tensor([layout.camera for layout in layouts]),
        lights=torch.tensor([layout.lights for layout in layouts]),
        texture_seed=torch.tensor([layout.texture_seed for layout in layouts]),
        layouts=tuple(layouts),
        options=options,
    )
