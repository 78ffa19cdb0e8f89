"""The factored denoiser: one look at the image, then a light head for every concept.

A trunk (a small U-Net on space-to-depth patches) sees (x_t, t) once.  A head turns its features and
one position into a contribution that is confined to a window around that position: it can speak of
its own place only, so contributions learned from few objects add up for many.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.concepts import ConceptSpace, Continuous
from igm_cli.core.models.local_head import HeadView, LocalHead
from igm_cli.core.models.trunk import FactoredConfig, TrunkDenoiser
from igm_cli.core.noise_schedule import Schedule


@dataclass
class FactoredFeatures:
    """What the trunk saw: ``h`` [N,c,gh,gw], the head's view of it, and its inputs."""

    h: Tensor
    view: HeadView
    x_t: Tensor
    t: Tensor


class FactoredDenoiser(TrunkDenoiser):
    """Trunk and local head behind the :class:`~igm_cli.core.denoiser.Denoiser` protocol.

    Its contributions are :class:`~igm_cli.core.inference.windows.Local`.

    Args:
        config: Its shape.
        space: A local, two-dimensional :class:`Continuous` space in 0..1.
        schedule: The noise schedule; the network puts out its prediction type.

    Raises:
        ValueError: If the space is not one that a window can follow.
    """

    def __init__(self, config: FactoredConfig, space: ConceptSpace, schedule: Schedule) -> None:
        if not (isinstance(space, Continuous) and space.local and space.dim == 2):
            raise ValueError("the factored denoiser needs local two-dimensional concepts; use the unet")
        if (space.low, space.high) != ((0.0, 0.0), (1.0, 1.0)):
            raise ValueError("the factored denoiser needs concepts within 0..1 of the image")
        super().__init__(config, space, schedule)
        self.head = LocalHead(config)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, x_t: Tensor, t: Tensor) -> FactoredFeatures:
        """Passes ``[N,C,H,W]`` at timesteps ``[N]`` through the trunk once."""
        h = self.trunk(x_t, t)
        return FactoredFeatures(h, self.head.project(h), x_t, t)

    def contributions(self, features: FactoredFeatures, concepts: Tensor) -> Tensor:
        """Returns Delta ``[N,M,C,H,W]`` of positions ``[N,M,2]`` or ``[1,M,2]``."""
        cells = self.head(self._view(features), concepts, self.schedule.epsilon_gain(features.t))
        return self.head.image(cells, features.view.grid)

    def to_patches(self, image: Tensor) -> Tensor:
        """Returns images ``[N,C,H,W]`` cell after cell ``[N,G,c]``."""
        patches: Tensor = self.head.cells(image).unflatten(1, (-1, self.head.out.out_features))
        return patches

    def grid(self, features: FactoredFeatures) -> tuple[int, int]:
        """Returns the number of cells along the width and the height of the images."""
        return features.view.grid

    def windows(
        self, features: FactoredFeatures, concepts: Tensor, around: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns Delta in the cells around positions ``[b,M,2]``, and which these are."""
        gain = self.schedule.epsilon_gain(features.t)
        return self.head.windows(self._view(features), concepts, gain, around)

    def products(self, features: FactoredFeatures, concepts: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Returns <image,Delta_j> and <Delta_j,Delta_j> ``[N,M]`` of positions ``[1,M,2]``."""
        gain = self.schedule.epsilon_gain(features.t)
        return self.head.products(self._view(features), concepts, gain, patches.flatten(1))

    def _view(self, features: FactoredFeatures) -> HeadView:
        """The head's view of what the trunk saw, perhaps under autocast, as precise as is asked for now."""
        view = features.view
        return view if torch.is_autocast_enabled(view.here.device.type) else view.float()

    def forward(self, x_t: Tensor, t: Tensor, concepts: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (eps_u, Delta) in one call, as distributed training needs it."""
        features = self.features(x_t, t)
        return self.base(features), self.contributions(features, concepts)
