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
from igm_cli.core.models.factored_config import FactoredConfig
from igm_cli.core.models.local_head import LocalHead
from igm_cli.core.models.trunk import TrunkDenoiser
from igm_cli.core.noise_schedule import Schedule


@dataclass
class FactoredFeatures:
    """What the trunk saw: ``h`` [N,c,gh,gw], the head's two views of it, and its inputs."""

    h: Tensor
    projected: tuple[Tensor, Tensor]
    x_t: Tensor
    t: Tensor


class FactoredDenoiser(TrunkDenoiser):
    """Trunk and local head behind the :class:`~igm_cli.core.denoiser.Denoiser` protocol.

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
        """One pass of the trunk over ``[N,C,H,W]`` at timesteps ``[N]``."""
        h = self.trunk(x_t, t)
        return FactoredFeatures(h, self.head.project(h), x_t, t)

    def contributions(self, features: FactoredFeatures, concepts: Tensor) -> Tensor:
        """Delta ``[N,M,C,H,W]`` of positions ``[N,M,2]`` or ``[1,M,2]``."""
        return self.head.image(self.patch_contributions(features, concepts))

    def patch_contributions(self, features: FactoredFeatures, concepts: Tensor) -> Tensor:
        """Delta ``[N,M,P]``, cell after cell; see :class:`~igm_cli.core.inference.candidates.Local`."""
        gain = self.schedule.epsilon_gain(features.t)
        delta: Tensor = self.head(self._projected(features), concepts, gain)
        return delta

    def products(self, features: FactoredFeatures, concepts: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """<image,Delta_j> and <Delta_j,Delta_j> ``[N,M]``; see :class:`~igm_cli.core.inference.candidates.Local`."""
        gain = self.schedule.epsilon_gain(features.t)
        return self.head.products(self._projected(features), concepts, gain, patches)

    def to_patches(self, image: Tensor) -> Tensor:
        """Images ``[N,C,H,W]`` cell after cell ``[N,P]``; see :class:`~igm_cli.core.inference.candidates.Local`."""
        return self.head.cells(image)

    def _projected(self, features: FactoredFeatures) -> tuple[Tensor, Tensor]:
        """The head's views of what the trunk saw, perhaps under autocast, as precise as is asked for now."""
        here, there = features.projected
        if torch.is_autocast_enabled(here.device.type):
            return here, there
        return here.float(), there.float()

    def forward(self, x_t: Tensor, t: Tensor, concepts: Tensor) -> tuple[Tensor, Tensor]:
        """(eps_u, Delta) in one call, as distributed training needs it."""
        features = self.features(x_t, t)
        return self.base(features), self.contributions(features, concepts)
