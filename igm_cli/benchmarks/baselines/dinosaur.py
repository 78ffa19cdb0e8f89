"""DINOSAUR (Seitzer et al. 2023, Bridging the Gap to Real-World Object-Centric Learning).

Slot attention on the frozen features of a self-supervised ViT (DINO, Caron et al. 2021).  A decoder rebuilds
the features from the slots, place by place (spatial broadcast and MLP); a read-out tells positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from igm_cli.benchmarks.baselines.resnet import imagenet_normalised, load_pretrained
from igm_cli.benchmarks.baselines.set_prediction import Prediction, SetPredictor, mlp
from igm_cli.benchmarks.baselines.slot_attention import SlotAttention, SlotNet, SlotReadOut, place_grid
from igm_cli.errors import need


class FeatureDecoder(nn.Module):
    """Rebuilds F features of N places from slots of length D, mixed by masks over which the slots compete."""

    def __init__(self, size: int, places: int, features: int, hidden: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(places, size) * size**-0.5)
        self.mlp = mlp(size, hidden, hidden, hidden, features + 1)

    def forward(self, slots: Tensor) -> Tensor:
        """Returns features ``[B,N,F]`` of slots ``[B,S,D]``."""
        out = self.mlp(slots[:, :, None] + self.place)  # [B,S,N,F+1]
        masks = out[..., -1:].float().softmax(dim=1)
        return torch.as_tensor((masks * out[..., :-1]).sum(dim=1))


class DinosaurNet(SlotNet):
    """Frozen ViT (a ``transformers.ViTModel``), slot attention, feature decoder and read-out."""

    def __init__(self, options: DinosaurSet, vit: Any) -> None:
        patch, features = int(vit.config.patch_size), int(vit.config.hidden_size)
        width, height = (max(1, side // patch) for side in options.vit_size)
        super().__init__(place_grid(width, height), options.slots, options.test_slots)
        self.vit, self.vit_size = vit.requires_grad_(False), (height * patch, width * patch)
        self.features = nn.Sequential(nn.LayerNorm(features), mlp(features, features, options.size))
        self.attention = SlotAttention(options.size, options.size, options.iterations)
        self.decoder = FeatureDecoder(options.size, width * height, features, options.hidden)
        self.read_out = SlotReadOut(options.size)
        self.reconstruction = options.reconstruction

    @torch.no_grad()
    def see(self, images: Tensor) -> Tensor:
        """Returns features ``[B,N,F]`` of images ``[B,3,H,W]``."""
        self.vit.eval()
        images = functional.interpolate(images, size=self.vit_size, mode="bicubic", align_corners=False)
        seen = self.vit(imagenet_normalised(images), interpolate_pos_encoding=True)
        return seen.last_hidden_state[:, 1:].float()  # type: ignore[no-any-return]

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Prediction:
        """Returns what the slots say of images ``[B,3,H,W]``, in training with the loss of the decoder."""
        seen = self.see(images)
        prediction, slots = self.predict(self.features(seen), generator)
        if not self.training:
            return prediction
        error = functional.mse_loss(self.decoder(slots).float(), seen)
        return prediction._replace(auxiliary=self.reconstruction * error)


@dataclass(frozen=True, kw_only=True)
class DinosaurSet(SetPredictor):
    """DINOSAUR, supervised with object positions beside its own feature reconstruction."""

    dino: str = "facebook/dino-vitb16"  # folder or hub id of the ViT
    vit_size: tuple[int, int] = (336, 224)  # that images are scaled to, cut down to whole patches
    slots: int = 11  # see SlotAttentionSet
    test_slots: int = 11
    size: int = 256  # of a slot
    iterations: int = 3
    hidden: int = 1024  # width of the decoder
    reconstruction: float = 1.0  # weight of the feature reconstruction in the loss
    learning_rates: tuple[float, ...] = (2e-4, 4e-4)
    name: str = "dinosaur"

    def build(self) -> nn.Module:
        """Returns the network with fresh weights around the ViT; raises MissingError if that cannot be had."""
        need("bench", "transformers")
        from transformers import ViTModel

        return DinosaurNet(self, load_pretrained(ViTModel, self.dino, "dino", add_pooling_layer=False))
