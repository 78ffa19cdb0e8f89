"""ResNet-50 (He et al. 2016), supervised: with object positions, or with the values of factors.

The baseline of IGM (Wang et al. 2025, sections 5.1 and 5.2).  Positions are read off the flattened feature
map, because a mean over places loses positions; factors off the pooled features, by one linear layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from igm_cli.benchmarks.baselines.fit import Baseline, ErrorBaseline, outputs
from igm_cli.benchmarks.baselines.set_prediction import Prediction, SetPredictor, mlp
from igm_cli.core.concepts import Categorical
from igm_cli.core.files import HUB
from igm_cli.errors import MissingError, need
from igm_cli.folders import option_identity

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_pretrained(kind: Any, name: str, option: str, **options: Any) -> Any:
    """Returns a pretrained network of a transformers class, from a folder or the hub.

    If the weights are not available, a MissingError names the ``option`` that takes a folder.
    """
    try:
        asked = name.startswith(HUB)
        return kind.from_pretrained(
            name.removeprefix(HUB), local_files_only=not asked, use_safetensors=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise MissingError(
            f"the weights {name!r} are not here; name a folder that holds them as safetensors with --set {option}=FOLDER, "
            f"or let the hub be asked with --set {option}={HUB}owner/name"
        ) from error


def imagenet_normalised(images: Tensor) -> Tensor:
    """Returns images in -1..1 normalised for networks trained on ImageNet."""
    mean, std = (torch.tensor(v).to(images)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images + 1) / 2 - mean) / std


@dataclass(frozen=True, kw_only=True)
class ResNetOptions(Baseline):
    """Options of both ResNets."""

    weights: str | None = None  # folder or hf:owner/name, such as microsoft/resnet-50; None trains from scratch
    config: Mapping[str, Any] = field(default_factory=dict)  # changes to ResNet-50 in transformers.ResNetConfig
    upscale: int = 1  # enlargement of the network's input; its map has a cell per 32 pixels
    learning_rates: tuple[float, ...] = (3e-4, 1e-3)
    weight_decay: float = 0.01
    name: str = "resnet"

    def describe(self) -> dict[str, Any]:
        """Returns everything that shapes the model, as JSON; of weights in a folder, the content."""
        return {**super().describe(), "weights": self.weights and option_identity(self.weights)}

    def backbone(self) -> Any:
        """Returns a ``transformers.ResNetModel``, pretrained or with fresh weights."""
        need("bench", "transformers")
        from transformers import ResNetConfig, ResNetModel

        if self.weights is None:
            return ResNetModel(ResNetConfig(**self.config))
        return load_pretrained(ResNetModel, self.weights, "resnet")


class ResNet(nn.Module):
    """A backbone that sees enlarged images ``[B,3,H,W]`` in -1..1; subclasses add the read-out."""

    def __init__(self, options: ResNetOptions) -> None:
        super().__init__()
        self.backbone, self.upscale = options.backbone(), options.upscale

    def see(self, images: Tensor) -> Any:
        """Returns ``last_hidden_state`` and ``pooler_output`` of images."""
        images = imagenet_normalised(images)
        return self.backbone(functional.interpolate(images, scale_factor=float(self.upscale), mode="bilinear"))


class PositionResNet(ResNet):
    """Slots read off the flattened feature map."""

    def __init__(self, options: ResNetSet) -> None:
        super().__init__(options)
        self.slots, config = options.slots, self.backbone.config
        width, height = (side * options.upscale for side in options.image_size)
        for _ in range(len(config.depths) + 1):  # stem, pooling, and all stages but the first are of stride 2
            width, height = (width + 1) // 2, (height + 1) // 2
        self.narrow = nn.Conv2d(config.hidden_sizes[-1], options.narrow, 1)
        self.head = mlp(options.narrow * width * height, options.hidden, options.hidden, 3 * self.slots)
        start = torch.cat([torch.rand(self.slots, 2), torch.zeros(self.slots, 1)], dim=1)  # across the image
        nn.init.normal_(self.head[-1].weight, std=1e-3)  # type: ignore[arg-type]
        self.head[-1].bias = nn.Parameter(start.flatten())

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Prediction:
        """Returns S slots per image."""
        maps = self.narrow(self.see(images).last_hidden_state)  # [B,F,H/32,W/32]
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 resolves no more than 1/256
            out = self.head(functional.gelu(maps.float()).flatten(1)).view(len(images), self.slots, 3)
        return Prediction(out[..., :2], out[..., 2])


@dataclass(frozen=True, kw_only=True)
class ResNetSet(ResNetOptions, SetPredictor):
    """ResNet-50, supervised with object positions."""

    network = PositionResNet
    slots: int = 10  # largest number of objects
    narrow: int = 256  # channels kept at each place of the map
    hidden: int = 512  # width of the read-out


class FactorResNet(ResNet):
    """A logit for every value of every factor, read off the pooled features."""

    def __init__(self, options: ResNetFactors) -> None:
        super().__init__(options)
        self.out = nn.Linear(self.backbone.config.hidden_sizes[-1], options.space.dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits ``[B,D]`` float32."""
        pooled = self.see(images).pooler_output.flatten(1)  # [B,F]
        with torch.autocast(images.device.type, enabled=False):
            return torch.as_tensor(self.out(pooled.float()))


def log_probabilities(space: Categorical, logits: Tensor) -> Tensor:
    """Returns the log-softmax of logits ``[B,D]`` within every factor, ``[B,D]``."""
    return torch.cat([logits[:, group].log_softmax(1) for group in space.groups()], dim=1)


def most_likely(space: Categorical, probabilities: Tensor) -> Tensor:
    """Returns the index of the most likely value within every factor, ``[B,F]``, from probabilities ``[B,D]``."""
    return torch.stack([probabilities[:, group].argmax(1) for group in space.groups()], dim=1)


@dataclass(frozen=True)
class ResNetFactors(ResNetOptions, ErrorBaseline):
    """ResNet-50, supervised with the values of factors."""

    network = FactorResNet
    space: Categorical

    def describe(self) -> dict[str, Any]:
        """Returns everything that shapes the model, as JSON."""
        return {**super().describe(), "space": self.space.to_dict()}

    def error(self, said: Tensor, concepts: Tensor, present: Tensor) -> Tensor:
        """Returns the cross entropy of all factors, averaged over images; missing rows do not count."""
        truth = (concepts * present[..., None]).sum(1)  # [B,D]
        return -(truth * log_probabilities(self.space, said)).sum(1).mean()

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Returns the probability of every value within its factor, ``[B,D]`` float32 on the CPU."""
        return log_probabilities(self.space, outputs(model, images)).exp().cpu()
