"""The factored denoiser for concepts of the whole image, such as attributes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igm_cli.core.concepts import ConceptSpace
from igm_cli.core.models.factored import FactoredConfig, FactoredFeatures, TrunkDenoiser
from igm_cli.core.noise_schedule import Schedule


@dataclass(frozen=True)
class HeadView:
    """The head's features of N images, before any concept enters.

    Attributes:
        cells: ``[N,d,gh,gw]``.
        read: Logits of all concepts, predicted from the image ``[N,D]``; used in training only.
    """

    cells: Tensor
    read: Tensor


class GlobalHead(nn.Module):
    """A contribution from trunk features and a concept, over all cells of the image.

    The concept enters as scale and shift of every channel (FiLM, Perez et al. 2018).  Separate layers
    notice small details; they learn from a read-out of the concepts.

    Args:
        config: ``head_channels`` and ``head_layers`` are used, ``window`` is not.
        dim: Length D of a concept.
    """

    def __init__(self, config: FactoredConfig, dim: int) -> None:
        super().__init__()
        width = config.head_channels
        self.patch = config.patch
        self.view = nn.Conv2d(config.channels[0], width, 1)
        self.notice = nn.Sequential(
            nn.Conv2d(config.channels[0], width, 1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU()
        )
        self.readout = nn.Linear(width, dim)
        self.noticed = nn.Conv2d(width, width, 1)
        self.film = nn.ModuleList(nn.Linear(dim, 2 * width) for _ in range(config.head_layers))
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(config.head_layers))
        self.out = nn.Conv2d(width, 3 * config.patch**2, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def project(self, h: Tensor) -> HeadView:
        """Returns what does not depend on a concept, from features ``[N,C,gh,gw]``."""
        marks = self.notice(h)
        # The noticing layers learn from the read-out alone: contributions use them, but do not blur them.
        return HeadView(self.view(h) + self.noticed(marks.detach()), self.readout(marks.amax((2, 3))))

    def forward(self, view: Tensor, concepts: Tensor, gain: Tensor) -> Tensor:
        """Returns the contributions of concepts.

        Args:
            view: ``cells`` of a view of N images ``[N,d,gh,gw]``.
            concepts: ``[N,M,D]`` or ``[1,M,D]``.
            gain: Factor of each image's contributions ``[N]``.

        Returns:
            ``[N,M,C,H,W]`` float32.
        """
        n, m, concepts = len(view), concepts.shape[1], concepts.to(self.out.weight.dtype)
        z = view[:, None].expand(-1, m, -1, -1, -1)
        for film, layer in zip(self.film, self.layers, strict=True):
            scale, shift = film(concepts)[..., None, None].chunk(2, dim=2)  # [N or 1,M,d,1,1]
            y = F.silu(torch.addcmul(shift, z, 1 + scale)).flatten(0, 1)
            z = z + layer(y.contiguous(memory_format=torch.channels_last)).unflatten(0, (n, m))
        cells = self.out(F.silu(z).flatten(0, 1)).float() * gain.repeat_interleave(m)[:, None, None, None]
        return torch.as_tensor(F.pixel_shuffle(cells, self.patch).unflatten(0, (n, m)))


class GlobalDenoiser(TrunkDenoiser):
    """Trunk and global head behind the :class:`~igm_cli.core.denoiser.Denoiser` protocol, for any concept space."""

    head: GlobalHead

    def __init__(self, config: FactoredConfig, space: ConceptSpace, schedule: Schedule) -> None:
        super().__init__(config, space, schedule)
        self.head = GlobalHead(config, space.dim)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def auxiliary(self) -> tuple[nn.Module, ...]:
        """Layers that learn from the read-out alone, which only training with a contrast uses."""
        return self.head.notice, self.head.readout

    def forward(self, x_t: Tensor, t: Tensor, concepts: Tensor, *, read: bool = False) -> tuple[Tensor, ...]:
        """Returns (eps_u, Delta) in one call, followed by the read-out ``[N,D]`` if ``read``."""
        features = self.features(x_t, t)
        both = self.base(features), self.contributions(features, concepts)
        return (*both, features.view.read) if read else both

    def contributions(self, features: FactoredFeatures, concepts: Tensor) -> Tensor:
        """Returns Delta ``[N,M,C,H,W]`` of concepts ``[N,M,D]`` or ``[1,M,D]``."""
        delta: Tensor = self.head(features.view.cells, concepts, self.schedule.epsilon_gain(features.t))
        return delta
