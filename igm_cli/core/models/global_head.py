"""The head of the factored denoiser for concepts that speak of the whole image, such as attributes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igm_cli.core.models.factored_config import FactoredConfig


class GlobalHead(nn.Module):
    """A contribution from trunk features and a concept, over all cells of the image.

    The concept enters as scale and shift of every channel (FiLM, Perez et al. 2018).

    Args:
        config: ``head_channels`` and ``head_layers`` are used, ``window`` is not.
        dim: Length D of a concept.
        out_channels: C of the image.
    """

    def __init__(self, config: FactoredConfig, dim: int, out_channels: int = 3) -> None:
        super().__init__()
        width = config.head_channels
        self.patch = config.patch
        self.view = nn.Conv2d(config.channels[0], width, 1)
        self.film = nn.ModuleList(nn.Linear(dim, 2 * width) for _ in range(config.head_layers))
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(config.head_layers))
        self.out = nn.Conv2d(width, out_channels * config.patch**2, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def project(self, h: Tensor) -> Tensor:
        """What does not depend on a concept: ``[N,C,gh,gw]`` to ``[N,d,gh,gw]``."""
        return torch.as_tensor(self.view(h))

    def forward(self, projected: Tensor, concepts: Tensor, gain: Tensor) -> Tensor:
        """What concepts add.

        Args:
            projected: Of N images.
            concepts: ``[N,M,D]`` or ``[1,M,D]``.
            gain: Factor of each image's contributions ``[N]``.

        Returns:
            ``[N,M,C,H,W]`` float32.
        """
        n, m = len(projected), concepts.shape[1]
        z = projected[:, None].expand(-1, m, -1, -1, -1)
        for film, layer in zip(self.film, self.layers, strict=True):
            scale, shift = film(concepts)[..., None, None].chunk(2, dim=2)  # [N or 1,M,d,1,1]
            y = F.silu(torch.addcmul(shift, z, 1 + scale)).flatten(0, 1)
            z = z + layer(y.contiguous(memory_format=torch.channels_last)).unflatten(0, (n, m))
        cells = self.out(F.silu(z).flatten(0, 1)).float() * gain.repeat_interleave(m)[:, None, None, None]
        return torch.as_tensor(F.pixel_shuffle(cells, self.patch).unflatten(0, (n, m)))
