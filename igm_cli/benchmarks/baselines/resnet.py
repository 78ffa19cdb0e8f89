"""A ResNet (He et al. 2016) that reads a fixed number of slots off its feature map.

The map is flattened, not pooled: a mean over places forgets where things are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from igm_cli.benchmarks.baselines.pretrained import imagenet_normalised, load_pretrained
from igm_cli.benchmarks.baselines.set_prediction import Prediction, SetPredictor, mlp


def resnet_backbone(weights: str | None, config: Mapping[str, Any], *, local_files_only: bool) -> nn.Module:
    """A ``transformers.ResNetModel``.

    Args:
        weights: Folder or hub id; None for fresh weights.
        config: Options of ``transformers.ResNetConfig`` for fresh weights.
        local_files_only: Do not ask the network.

    Raises:
        MissingError: If the pretrained weights cannot be had.
    """
    from transformers import ResNetConfig, ResNetModel

    if weights is None:
        fresh: nn.Module = ResNetModel(ResNetConfig(**config))
        return fresh
    loaded: nn.Module = load_pretrained(ResNetModel, weights, "resnet", local_files_only=local_files_only)
    return loaded


def enlarged(images: Tensor, times: int) -> Tensor:
    """Images ``[B,3,H,W]`` as many times larger."""
    if times == 1:
        return images
    return functional.interpolate(images, scale_factor=float(times), mode="bilinear")


class ResNetNet(nn.Module):
    """Backbone, flattened feature map, read-out.

    Args:
        options: What to build.
        backbone: ``transformers.ResNetModel``.
    """

    def __init__(self, options: ResNetSet, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.slots, self.upscale = backbone, options.slots, options.upscale
        config: Any = backbone.config
        times = len(config.depths) + 1  # stem, pooling, and all stages but the first
        width, height = (_halved(side * options.upscale, times) for side in options.image_size)
        self.narrow = nn.Conv2d(config.hidden_sizes[-1], options.narrow, 1)
        self.head = mlp(options.narrow * width * height, options.hidden, options.hidden, 3 * self.slots)
        start = torch.cat([torch.rand(self.slots, 2), torch.zeros(self.slots, 1)], dim=1)  # all over the image
        nn.init.normal_(self.head[-1].weight, std=1e-3)  # type: ignore[arg-type]
        self.head[-1].bias = nn.Parameter(start.flatten())

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Prediction:
        """Images ``[B,3,H,W]``."""
        seen = enlarged(imagenet_normalised(images), self.upscale)
        maps = self.narrow(self.backbone(seen).last_hidden_state)  # [B,F,H/32,W/32]
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 resolves no more than 1/256
            out = self.head(functional.gelu(maps.float()).flatten(1)).view(len(images), self.slots, 3)
        return Prediction(out[..., :2], out[..., 2])


def _halved(side: int, times: int) -> int:
    """The side of a map after that many convolutions of stride 2."""
    for _ in range(times):
        side = (side + 1) // 2
    return side


@dataclass(frozen=True)
class ResNetSet(SetPredictor):
    """ResNet-50, supervised with object positions.

    Attributes:
        weights: Folder or hub id of pretrained weights, such as ``microsoft/resnet-50``; None trains
            from scratch.
        local_files_only: Do not ask the network for them.
        config: Options of ``transformers.ResNetConfig`` where they are not those of ResNet-50.
        upscale: How much larger the network sees the image; its map has a cell per 32 pixels.
        slots: Largest number of objects.
        narrow: Channels that are kept of each place of the map.
        hidden: Of the read-out.
    """

    weights: str | None = None
    local_files_only: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    upscale: int = 1
    slots: int = 10
    narrow: int = 256
    hidden: int = 512
    learning_rates: tuple[float, ...] = (3e-4, 1e-3)
    batch_size: int = 32
    ema: float = 0.998
    weight_decay: float = 0.01
    name: str = "resnet"

    def build(self) -> nn.Module:
        """The network, pretrained or with fresh weights.

        Raises:
            MissingError: If the pretrained weights cannot be had.
        """
        backbone = resnet_backbone(self.weights, self.config, local_files_only=self.local_files_only)
        return ResNetNet(self, backbone)
