"""The factored denoiser for concepts of the whole image: one pass of the trunk, then a light head per concept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from igm_cli.core.concepts import ConceptSpace
from igm_cli.core.models.factored import FactoredConfig, TrunkDenoiser
from igm_cli.core.models.global_head import GlobalHead, HeadView
from igm_cli.core.noise_schedule import Schedule


@dataclass
class GlobalFeatures:
    """The trunk's features ``h`` [N,c,gh,gw], the head's view of them, and the trunk's inputs."""

    h: Tensor
    view: HeadView
    x_t: Tensor
    t: Tensor


class GlobalDenoiser(TrunkDenoiser):
    """Trunk and global head behind the :class:`~igm_cli.core.denoiser.Denoiser` protocol.

    Args:
        config: Its shape.
        space: Any concept space.
        schedule: The noise schedule; the network puts out its prediction type.
    """

    def __init__(self, config: FactoredConfig, space: ConceptSpace, schedule: Schedule) -> None:
        super().__init__(config, space, schedule)
        self.head = GlobalHead(config, space.dim)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def auxiliary(self) -> tuple[nn.Module, ...]:
        """Layers that learn from the read-out alone, which only training with a contrast uses."""
        return self.head.notice, self.head.readout

    def features(self, x_t: Tensor, t: Tensor) -> GlobalFeatures:
        """Passes ``[N,C,H,W]`` at timesteps ``[N]`` through the trunk once."""
        h = self.trunk(x_t, t)
        return GlobalFeatures(h, self.head.project(h), x_t, t)

    def forward(self, x_t: Tensor, t: Tensor, concepts: Tensor, *, read: bool = False) -> tuple[Tensor, ...]:
        """Returns (eps_u, Delta) in one call, followed by the read-out ``[N,D]`` if ``read``."""
        features = self.features(x_t, t)
        both = self.base(features), self.contributions(features, concepts)
        return (*both, features.view.read) if read else both

    def contributions(self, features: GlobalFeatures, concepts: Tensor) -> Tensor:
        """Returns Delta ``[N,M,C,H,W]`` of concepts ``[N,M,D]`` or ``[1,M,D]``."""
        delta: Tensor = self.head(features.view.cells, concepts, self.schedule.epsilon_gain(features.t))
        return delta
