"""Slot Attention as a set predictor (Locatello et al. 2020, Object-Centric Learning with Slot Attention).

    attention = softmax_slots(k(inputs) q(slots)ᵀ / √D);  slots ← GRU(slots, mean of v(inputs) under it)

Slots are drawn from one learned Gaussian, so their number can be raised when objects are more than in
training.  The position of a slot is the centre of mass of its attention plus a learned offset; in training
the slots of every iteration are read, which learns faster.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from igm_cli.benchmarks.baselines.set_prediction import Prediction, SetPredictor, mlp


class SlotAttention(nn.Module):
    """Slots compete for the places of a feature map (Locatello et al. 2020, Algorithm 1).

    Args:
        features: Channels F of the inputs.
        size: Of a slot, D.
        iterations: Of the attention.
    """

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
        """Initial slots ``[B,S,D]``; without a generator every call and image draws the same."""
        size = len(self.mean)
        if generator is None:
            noise = torch.randn(1, count, size, generator=torch.Generator().manual_seed(0))
        else:
            noise = torch.randn(batch, count, size, generator=generator)
        noise = noise.expand(batch, -1, -1).to(self.mean)
        return self.mean + self.log_deviation.exp() * noise

    def forward(self, inputs: Tensor, slots: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Lets slots look at the inputs again and again.

        Args:
            inputs: ``[B,N,F]``.
            slots: Initial ones ``[B,S,D]``.

        Returns:
            After each iteration the slots ``[B,S,D]``, and where each looked ``[B,S,N]``, adding to 1.
        """
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
    """Position and presence of each slot, in float32: bfloat16 resolves no more than 1/256.

    Args:
        size: Of a slot.
        hidden: Of the read-out.
    """

    def __init__(self, size: int, hidden: int = 128) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.head = mlp(size + 4, hidden, hidden, 3)
        nn.init.zeros_(self.head[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[-1].bias)  # type: ignore[arg-type]

    def forward(self, slots: Tensor, weights: Tensor, grid: Tensor) -> Prediction:
        """What the slots say.

        Args:
            slots: ``[B,S,D]``.
            weights: Where each slot looks ``[B,S,N]``.
            grid: Coordinates of the places ``[N,2]``, 0..1.
        """
        with torch.autocast(slots.device.type, enabled=False):
            weights = weights.float()
            centre = weights @ grid  # [B,S,2]
            spread = (weights @ grid.square() - centre.square()).clamp(min=1e-8).sqrt()
            out = self.head(torch.cat([self.norm(slots.float()), centre, spread], dim=-1))
            return Prediction(centre + out[..., :2], out[..., 2])

    def read(self, steps: list[tuple[Tensor, Tensor]], grid: Tensor) -> Prediction:
        """What the last slots say; in training, what the earlier ones say too."""
        earlier = tuple(self(*step, grid) for step in steps[:-1]) if self.training else ()
        last: Prediction = self(*steps[-1], grid)
        return last._replace(earlier=earlier)


class SlotAttentionNet(nn.Module):
    """CNN encoder with soft position embedding, slot attention, read-out.

    Args:
        options: What to build.
    """

    def __init__(self, options: SlotAttentionSet) -> None:
        super().__init__()
        width, height = options.image_size
        channels = options.channels
        convolutions: list[nn.Module] = [nn.Conv2d(3, channels, 5, stride=2, padding=2), nn.ReLU()]
        for _ in range(options.layers - 1):
            convolutions += [nn.Conv2d(channels, channels, 5, padding=2), nn.ReLU()]
        self.encoder = nn.Sequential(*convolutions)
        self.grid: Tensor
        self.register_buffer("grid", place_grid((width + 1) // 2, (height + 1) // 2), persistent=False)
        self.place = nn.Linear(4, channels)
        self.features = nn.Sequential(nn.LayerNorm(channels), mlp(channels, channels, channels))
        self.attention = SlotAttention(channels, options.size, options.iterations)
        self.read_out = SlotReadOut(options.size)
        self.slots, self.test_slots = options.slots, options.test_slots

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Prediction:
        """Images ``[B,3,H,W]``; the number of slots in evaluation may be another than in training."""
        maps = self.encoder(images)  # [B,F,H/2,W/2]
        places = torch.cat([self.grid, 1 - self.grid], dim=1)  # distances from the four borders
        inputs = self.features(maps.flatten(2).mT + self.place(places))
        count = self.slots if self.training else self.test_slots
        steps = self.attention(inputs, self.attention.start(len(images), count, generator))
        return self.read_out.read(steps, self.grid)


def place_grid(width: int, height: int) -> Tensor:
    """Centres of the cells of a map, row by row ``[N,2]``, 0..1."""
    x, y = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
    return torch.cartesian_prod(y, x).flip(-1)


@dataclass(frozen=True)
class SlotAttentionSet(SetPredictor):
    """Slot Attention, supervised with object positions.

    Attributes:
        slots: In training; as many as in evaluation teach the spare ones to stay silent.
        test_slots: In evaluation; at least the objects of an image.
        channels: Of the encoder.
        layers: Convolutions of the encoder, the first of stride 2.
        size: Of a slot.
        iterations: Of the attention.
    """

    slots: int = 11
    test_slots: int = 11
    channels: int = 32
    layers: int = 4
    size: int = 64
    iterations: int = 3
    learning_rates: tuple[float, ...] = (4e-4, 1e-3)
    batch_size: int = 32
    ema: float = 0.998
    weight_decay: float = 1e-4
    name: str = "slot-attention"

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return SlotAttentionNet(self)
