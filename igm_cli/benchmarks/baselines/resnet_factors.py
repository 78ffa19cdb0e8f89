"""A ResNet (He et al. 2016) that names the value of every factor, the supervised baseline of IGM.

Wang et al. 2025, section 5.2: ResNet-50.  The pooled map is read off by one linear layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from igm_cli.benchmarks.baselines.configuration import conditions
from igm_cli.benchmarks.baselines.pretrained import imagenet_normalised
from igm_cli.benchmarks.baselines.resnet import enlarged, resnet_backbone
from igm_cli.benchmarks.baselines.set_prediction import CHUNK
from igm_cli.core.concepts import Categorical, space_to_dict


class ResNetFactorsNet(nn.Module):
    """Backbone, pooled features, a logit for every value.

    Args:
        values: D.
        backbone: ``transformers.ResNetModel``.
        upscale: How much larger it sees the image.
    """

    def __init__(self, values: int, backbone: nn.Module, upscale: int = 1) -> None:
        super().__init__()
        self.backbone, self.upscale = backbone, upscale
        config: Any = backbone.config
        self.out = nn.Linear(config.hidden_sizes[-1], values)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[B,3,H,W]`` in -1..1 to logits ``[B,D]`` float32."""
        seen = enlarged(imagenet_normalised(images), self.upscale)
        pooled = self.backbone(seen).pooler_output.flatten(1)  # [B,F]
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.out(pooled.float())
        return logits


def log_probabilities(space: Categorical, logits: Tensor) -> Tensor:
    """The logarithm of a softmax within every factor: ``[B,D]`` to ``[B,D]``."""
    return torch.cat([logits[:, group].log_softmax(1) for group in space.groups()], dim=1)


def most_likely(space: Categorical, probabilities: Tensor) -> Tensor:
    """Index of the likeliest value within every factor ``[B,F]``, of probabilities ``[B,D]``."""
    return torch.stack([probabilities[:, group].argmax(1) for group in space.groups()], dim=1)


@dataclass(frozen=True)
class ResNetFactors:
    """ResNet-50, supervised with the values of factors: a :class:`~igm_cli.benchmarks.baselines.fit.Baseline`.

    Attributes:
        space: The factors.
        weights: Folder or hub id of pretrained weights, such as ``microsoft/resnet-50``; None trains
            from scratch.
        local_files_only: Do not ask the network for them.
        config: Options of ``transformers.ResNetConfig`` where they are not those of ResNet-50.
        upscale: How much larger the network sees the image; its map has a cell per 32 pixels.
        learning_rates: To choose from.
        batch_size: Images a step.
        ema: Decay of the averaged weights.
        weight_decay: Of AdamW.
    """

    space: Categorical
    weights: str | None = None
    local_files_only: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    upscale: int = 1
    learning_rates: tuple[float, ...] = (3e-4, 1e-3)
    batch_size: int = 32
    ema: float = 0.998
    weight_decay: float = 0.01
    name: str = "resnet"

    def describe(self) -> dict[str, Any]:
        """All options but where their files may be looked for, as JSON."""
        told = {key: value for key, value in asdict(self).items() if key != "local_files_only"}
        return {**told, "space": space_to_dict(self.space)}

    def build(self) -> nn.Module:
        """The network, pretrained or with fresh weights.

        Raises:
            MissingError: If the pretrained weights cannot be had.
        """
        backbone = resnet_backbone(self.weights, self.config, local_files_only=self.local_files_only)
        return ResNetFactorsNet(self.space.dim, backbone, self.upscale)

    def loss(
        self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Cross entropy of every factor, summed, averaged over images; a row that is missing counts nothing.

        Args:
            model: Of :meth:`build`.
            images: ``[B,3,H,W]`` in -1..1.
            concepts: One-hot rows ``[B,K,D]``.
            present: ``[B,K]``, False for padding.
            generator: Unused.
        """
        return self._cross_entropy(model(images), concepts, present).mean()

    def _cross_entropy(self, logits: Tensor, concepts: Tensor, present: Tensor) -> Tensor:
        """-log p(configuration) of every image ``[B]``, of logits ``[B,D]``."""
        return -(conditions(concepts, present) * log_probabilities(self.space, logits)).sum(1)

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Mean negative log likelihood of the configuration."""
        with torch.no_grad():
            logits = torch.cat([model(chunk) for chunk in images.split(CHUNK)])
            return float(self._cross_entropy(logits, concepts, present).mean())

    @torch.no_grad()
    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Probability of every value, softmax within its factor: ``[B,D]`` float32 on the CPU.

        Args:
            model: In evaluation mode.
            images: ``[B,3,H,W]`` in -1..1.
        """
        logits = torch.cat([model(chunk) for chunk in images.split(CHUNK)])
        return log_probabilities(self.space, logits).exp().cpu()
