"""Slot attention as a set predictor: on a CNN (Locatello et al. 2020), and on DINO's features (DINOSAUR, Seitzer et al. 2023).

    attention = softmax_slots(k(inputs) q(slots)ᵀ / √D);  slots ← GRU(slots, mean of v(inputs) under it)

Slots are drawn from one learned Gaussian, so their number can be raised for more objects than in training.
The position of a slot is the centre of mass of its attention plus a learned offset; in training
the slots of every iteration are read out, which learns faster.

DINOSAUR's features are those of a frozen self-supervised ViT (DINO, Caron et al. 2021).  A decoder reconstructs
them from the slots, place by place (spatial broadcast and MLP); the read-out predicts positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from igm_cli.benchmarks.baselines.resnet import imagenet_normalised, load_pretrained
from igm_cli.benchmarks.baselines.set_prediction import Prediction, SetPredictor, mlp
from igm_cli.errors import need
from igm_cli.folders import option_identity


class SlotAttention(nn.Module):
    """Slots of length D compete for the places of a map of F features (Locatello et al. 2020, Algorithm 1)."""

    def __init__(self, features: int, size: int, iterations: int = 3) -> None:
        super().__init__()
        self.iterations, self.scale = iterations, size**-0.5
        self.mean = nn.Parameter(torch.randn(size) * self.scale)
        self.log_deviation = nn.Parameter(torch.zeros(size))
        self.norm_inputs, self.norm_slots, self.norm_mlp = (nn.LayerNorm(n) for n in (features, size, size))
        self.key, self.value = (nn.Linear(features, size, bias=False) for _ in range(2))
        self.query = nn.Linear(size, size, bias=False)
        self.gru = nn.GRUCell(size, size)
        self.mlp = mlp(size, 2 * size, size)

    def start(self, batch: int, count: int, generator: torch.Generator | None) -> Tensor:
        """Returns initial slots ``[B,S,D]``; without a generator, these are the same for every call and image."""
        seeded = generator or torch.Generator().manual_seed(0)
        noise = torch.randn(batch if generator else 1, count, len(self.mean), generator=seeded)
        return self.mean + self.log_deviation.exp() * noise.expand(batch, -1, -1).to(self.mean)

    def forward(self, inputs: Tensor, slots: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Returns, per iteration, slots ``[B,S,D]`` and their attention ``[B,S,N]`` to inputs ``[B,N,F]``."""
        inputs = self.norm_inputs(inputs)
        keys, values = self.key(inputs) * self.scale, self.value(inputs)  # [B,N,D]
        steps = []
        for _ in range(self.iterations):
            attention = (self.query(self.norm_slots(slots)) @ keys.mT).float().softmax(dim=1) + 1e-8
            weights = attention / attention.sum(dim=2, keepdim=True)  # [B,S,N]
            updates = weights.to(values.dtype) @ values  # [B,S,D]
            slots = self.gru(updates.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
            slots = slots + self.mlp(self.norm_mlp(slots))
            steps.append((slots, weights))
        return steps


class SlotReadOut(nn.Module):
    """Reads position and presence off each slot, in float32, because bfloat16 resolves only 1/256."""

    def __init__(self, size: int, hidden: int = 128) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.head = mlp(size + 4, hidden, hidden, 3)
        nn.init.zeros_(self.head[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[-1].bias)  # type: ignore[arg-type]

    def forward(self, slots: Tensor, weights: Tensor, grid: Tensor) -> Prediction:
        """Returns the prediction of slots ``[B,S,D]`` that attend with weights ``[B,S,N]`` to places ``[N,2]``."""
        with torch.autocast(slots.device.type, enabled=False):
            weights = weights.float()
            centre = weights @ grid  # [B,S,2]
            std = (weights @ grid.square() - centre.square()).clamp(min=1e-8).sqrt()
            out = self.head(torch.cat([self.norm(slots.float()), centre, std], dim=-1))
            return Prediction(centre + out[..., :2], out[..., 2])


class SlotNet(nn.Module):
    """A network that reads slots off the features of places, which a subclass computes."""

    grid: Tensor  # coordinates of the places [N,2], 0..1
    attention: SlotAttention
    read_out: SlotReadOut

    def __init__(self, grid: Tensor, slots: int, test_slots: int) -> None:
        super().__init__()
        self.register_buffer("grid", grid, persistent=False)
        self.slots, self.test_slots = slots, test_slots

    def predict(self, inputs: Tensor, generator: torch.Generator | None) -> tuple[Prediction, Tensor]:
        """Returns the prediction from features ``[B,N,F]``, with earlier iterations only in training, and the last slots."""
        count = self.slots if self.training else self.test_slots
        steps = self.attention(inputs, self.attention.start(len(inputs), count, generator))
        earlier = tuple(self.read_out(*step, self.grid) for step in steps[:-1]) if self.training else ()
        last: Prediction = self.read_out(*steps[-1], self.grid)
        return last._replace(earlier=earlier), steps[-1][0]


class SlotAttentionNet(SlotNet):
    """CNN encoder with soft position embedding, slot attention, read-out."""

    def __init__(self, options: SlotAttentionSet) -> None:
        width, height = ((side + 1) // 2 for side in options.image_size)
        super().__init__(place_grid(width, height), options.slots, options.test_slots)
        channels = options.channels
        convolutions: list[nn.Module] = [nn.Conv2d(3, channels, 5, stride=2, padding=2), nn.ReLU()]
        for _ in range(options.layers - 1):
            convolutions += [nn.Conv2d(channels, channels, 5, padding=2), nn.ReLU()]
        self.encoder = nn.Sequential(*convolutions)
        self.place = nn.Linear(4, channels)
        self.features = nn.Sequential(nn.LayerNorm(channels), mlp(channels, channels, channels))
        self.attention = SlotAttention(channels, options.size, options.iterations)
        self.read_out = SlotReadOut(options.size)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Prediction:
        """Returns what the slots say of images ``[B,3,H,W]``."""
        maps = self.encoder(images)  # [B,F,H/2,W/2]
        places = torch.cat([self.grid, 1 - self.grid], dim=1)  # distances from the four borders
        return self.predict(self.features(maps.flatten(2).mT + self.place(places)), generator)[0]


def place_grid(width: int, height: int) -> Tensor:
    """Returns the centres of a map's cells, row by row, ``[N,2]`` in 0..1."""
    x, y = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
    return torch.cartesian_prod(y, x).flip(-1)


@dataclass(frozen=True, kw_only=True)
class SlotAttentionSet(SetPredictor):
    """Slot Attention, supervised with object positions."""

    network = SlotAttentionNet
    slots: int = 11  # in training; with as many as in evaluation, spare ones learn to stay silent
    test_slots: int = 11  # in evaluation; at least the number of objects of an image
    channels: int = 32  # of the encoder
    layers: int = 4  # convolutions of the encoder, the first of stride 2
    size: int = 64  # of a slot
    iterations: int = 3
    learning_rates: tuple[float, ...] = (4e-4, 1e-3)
    name: str = "slot-attention"


class FeatureDecoder(nn.Module):
    """Reconstructs F features of N places from slots of length D, mixed by masks for which the slots compete."""

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

    def __init__(self, options: DinosaurSet) -> None:
        need("bench", "transformers")
        from transformers import ViTModel

        vit: Any = load_pretrained(ViTModel, options.dino, "dino", add_pooling_layer=False)
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
        """Returns the slots' prediction for images ``[B,3,H,W]``, in training with the loss of the decoder."""
        seen = self.see(images)
        prediction, slots = self.predict(self.features(seen), generator)
        if not self.training:
            return prediction
        error = functional.mse_loss(self.decoder(slots).float(), seen)
        return prediction._replace(auxiliary=self.reconstruction * error)


@dataclass(frozen=True, kw_only=True)
class DinosaurSet(SetPredictor):
    """DINOSAUR, supervised with object positions in addition to its own feature reconstruction."""

    network = DinosaurNet
    dino: str = "facebook/dino-vitb16"  # folder or hf:owner/name of the ViT
    vit_size: tuple[int, int] = (336, 224)  # size to which images are scaled, cut down to whole patches
    slots: int = 11  # see SlotAttentionSet
    test_slots: int = 11
    size: int = 256  # of a slot
    iterations: int = 3
    hidden: int = 1024  # width of the decoder
    reconstruction: float = 1.0  # weight of the feature reconstruction in the loss
    learning_rates: tuple[float, ...] = (2e-4, 4e-4)
    name: str = "dinosaur"

    def describe(self) -> dict[str, Any]:
        """Returns everything that shapes the model, as JSON; of weights in a folder, the content."""
        return {**super().describe(), "dino": option_identity(self.dino)}
