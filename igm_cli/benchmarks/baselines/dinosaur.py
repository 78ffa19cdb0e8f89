"""DINOSAUR (Seitzer et al. 2023, Bridging the Gap to Real-World Object-Centric Learning).

Slot attention on the frozen features of a self-supervised ViT (DINO, Caron et al. 2021).  A decoder
rebuilds the features from the slots, place by place (spatial broadcast and MLP); a read-out tells positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from igm_cli.benchmarks.baselines.pretrained import imagenet_normalised, load_pretrained
from igm_cli.benchmarks.baselines.set_prediction import Prediction, SetPredictor, mlp
from igm_cli.benchmarks.baselines.slot_attention import SlotAttention, SlotReadOut, place_grid


class FeatureDecoder(nn.Module):
    """Features of every place from each slot, mixed by masks over which the slots compete.

    Args:
        size: Of a slot.
        places: N.
        features: F.
        hidden: Of the MLP.
    """

    def __init__(self, size: int, places: int, features: int, hidden: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(places, size) * size**-0.5)
        self.mlp = mlp(size, hidden, hidden, hidden, features + 1)

    def forward(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Slots ``[B,S,D]`` to features ``[B,N,F]`` and masks ``[B,S,N]``."""
        out = self.mlp(slots[:, :, None] + self.place)  # [B,S,N,F+1]
        masks = out[..., -1].float().softmax(dim=1)
        return (masks[..., None] * out[..., :-1]).sum(dim=1), masks


class DinosaurNet(nn.Module):
    """Frozen ViT, slot attention, feature decoder and read-out.

    Args:
        options: What to build.
        vit: ``transformers.ViTModel``.
    """

    def __init__(self, options: DinosaurSet, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit.requires_grad_(False)
        config: Any = vit.config
        self.patch, features = int(config.patch_size), int(config.hidden_size)
        width, height = (max(1, side // self.patch) for side in options.vit_size)
        self.vit_size = (height * self.patch, width * self.patch)
        self.grid: Tensor
        self.register_buffer("grid", place_grid(width, height), persistent=False)
        self.features = nn.Sequential(nn.LayerNorm(features), mlp(features, features, options.size))
        self.attention = SlotAttention(options.size, options.size, options.iterations)
        self.decoder = FeatureDecoder(options.size, width * height, features, options.hidden)
        self.read_out = SlotReadOut(options.size)
        self.slots, self.test_slots = options.slots, options.test_slots
        self.reconstruction = options.reconstruction

    @torch.no_grad()
    def see(self, images: Tensor) -> Tensor:
        """Features ``[B,N,F]`` of images ``[B,3,H,W]``."""
        self.vit.eval()
        images = functional.interpolate(images, size=self.vit_size, mode="bicubic", align_corners=False)
        seen = self.vit(imagenet_normalised(images), interpolate_pos_encoding=True)
        return seen.last_hidden_state[:, 1:].float()  # type: ignore[no-any-return]

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Prediction:
        """Images ``[B,3,H,W]``; the number of slots in evaluation may be another than in training."""
        seen = self.see(images)
        count = self.slots if self.training else self.test_slots
        steps = self.attention(self.features(seen), self.attention.start(len(images), count, generator))
        prediction = self.read_out.read(steps, self.grid)
        if not self.training:
            return prediction
        rebuilt, _ = self.decoder(steps[-1][0])
        error = functional.mse_loss(rebuilt.float(), seen)
        return prediction._replace(auxiliary=self.reconstruction * error)


@dataclass(frozen=True)
class DinosaurSet(SetPredictor):
    """DINOSAUR, supervised with object positions beside its own feature reconstruction.

    Attributes:
        dino: Folder or hub id of the ViT.
        local_files_only: Do not ask the network for it.
        vit_size: (width, height) that images are scaled to, cut down to whole patches.
        slots: In training; as many as in evaluation teach the spare ones to stay silent.
        test_slots: In evaluation; at least the objects of an image.
        size: Of a slot.
        iterations: Of the attention.
        hidden: Of the decoder.
        reconstruction: Weight of the feature reconstruction in the loss.
    """

    dino: str = "facebook/dino-vitb16"
    local_files_only: bool = False
    vit_size: tuple[int, int] = (336, 224)
    slots: int = 11
    test_slots: int = 11
    size: int = 256
    iterations: int = 3
    hidden: int = 1024
    reconstruction: float = 1.0
    learning_rates: tuple[float, ...] = (2e-4, 4e-4)
    batch_size: int = 32
    ema: float = 0.998
    weight_decay: float = 1e-4
    name: str = "dinosaur"

    def build(self) -> nn.Module:
        """The network: pretrained ViT, the rest with fresh weights.

        Raises:
            MissingError: If the ViT cannot be had.
        """
        from transformers import ViTModel

        vit = load_pretrained(
            ViTModel, self.dino, "dino", local_files_only=self.local_files_only, add_pooling_layer=False
        )
        return DinosaurNet(self, vit)
