"""One conditional diffusion model over a whole set of positions: eps_theta(x_t, t | {c_1 .. c_K}).

What IGM (Wang, Dauwels & Du 2025, section 5.1) compares with under the name GC, "generative
classifier": the set is *one* condition, and nothing is composed.  The network is the factored
denoiser's trunk, which looks at (x_t, t) once, and a head in which every cell of the image attends
to all positions together, so that what one position means depends on all the others.  What the
head adds is let through where the set as a whole says so; without that the network soon denoises
from the image alone and every set fits equally well, which would be a baseline of straw.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igm_cli.benchmarks.baselines.set_attention import Gate, Relations, SetAttention, TokenLayer, fourier
from igm_cli.core.checkpoint import load_checkpoint
from igm_cli.core.models.factored import FactoredDenoiser
from igm_cli.core.models.factored_config import FactoredConfig
from igm_cli.core.models.trunk import ResidualBlock, Trunk, timestep_embedding
from igm_cli.core.noise_schedule import Schedule
from igm_cli.errors import InputError


@dataclass(frozen=True)
class SetConfig:
    """Shape of a set denoiser.

    Attributes:
        trunk: Shape of the trunk; its head's fields are not used.
        width: Channels of the set head; divisible by ``2 * heads``.
        heads: Attention heads.
        token_layers: Self-attention layers over the positions.
        blocks: Rounds of attention and convolution over the image's cells.
    """

    trunk: FactoredConfig = field(default_factory=FactoredConfig)
    width: int = 96
    heads: int = 4
    token_layers: int = 2
    blocks: int = 2

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass
class SetFeatures:
    """What does not depend on the set.

    Attributes:
        cells: The image as the set head sees it ``[N,d,gh,gw]``.
        readable: What positions can read of it ``[N,G,d]``.
        base: The output under no condition ``[N,C,H,W]``.
        time: ``[N,E]``.
        x_t: Noised images ``[N,C,H,W]``.
        t: Timesteps ``[N]``.
    """

    cells: Tensor
    readable: Tensor
    base: Tensor
    time: Tensor
    x_t: Tensor
    t: Tensor

    def take(self, index: Tensor) -> SetFeatures:
        """The features of some of the N images, ``[len(index)]``."""
        return SetFeatures(*(value[index] for value in vars(self).values()))


class SetDenoiser(nn.Module):
    """Trunk and set head; puts out v on the cosine schedule.

    Args:
        config: Its shape.
        schedule: The noise schedule; the network puts out its prediction type.
    """

    OCTAVES = 6

    def __init__(self, config: SetConfig | None = None, schedule: Schedule | None = None) -> None:
        super().__init__()
        config = config or SetConfig()
        trunk, dim, fine = config.trunk, config.width, config.trunk.channels[0]
        self.config, self.schedule = config, schedule or Schedule()
        self.patch = trunk.patch
        self.grid = (trunk.image_size[0] // trunk.patch, trunk.image_size[1] // trunk.patch)
        self.trunk = Trunk(trunk)
        self.base_out = nn.Conv2d(fine, 3 * trunk.patch**2, 3, padding=1)
        self.to_cells, self.to_readable = nn.Conv2d(fine, dim, 1), nn.Conv2d(fine, dim, 1)
        self.to_time = nn.Sequential(nn.Linear(self.trunk.time_dim, dim), nn.SiLU())
        self.from_position = nn.Sequential(nn.Linear(2 + 4 * self.OCTAVES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.tokens = nn.ModuleList(TokenLayer(dim, config.heads) for _ in range(config.token_layers))
        self.relations = Relations(dim // 2, trunk.window)
        self.attention = nn.ModuleList(SetAttention(dim, config.heads, dim // 2) for _ in range(config.blocks))
        self.convolution = nn.ModuleList(ResidualBlock(dim, dim) for _ in range(config.blocks))
        self.gate = Gate(dim // 2)
        self.norm = nn.GroupNorm(1, dim)
        self.out = nn.Conv2d(dim, 3 * trunk.patch**2, 3, padding=1)
        for last in (self.base_out, self.out):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, x_t: Tensor, t: Tensor) -> SetFeatures:
        """One pass of the trunk over ``[N,C,H,W]`` at timesteps ``[N]``."""
        h = self.trunk(x_t, t)
        base = F.pixel_shuffle(self.base_out(h), self.patch).float()
        readable = self.to_readable(h).flatten(2).transpose(1, 2)
        time = self.to_time(self.trunk.time(timestep_embedding(t, self.trunk.fine)))
        return SetFeatures(self.to_cells(h), readable, base, time, x_t, t)

    def output(self, features: SetFeatures, concepts: Tensor, present: Tensor | None = None) -> Tensor:
        """The network's output under one set an image.

        Args:
            features: Of N images.
            concepts: Positions in 0..1, ``[N,K,2]``; K may be 0.
            present: ``[N,K]``, False for padding; None if all are there.

        Returns:
            ``[N,C,H,W]`` float32, of the schedule's prediction type.
        """
        if present is None:
            present = torch.ones(concepts.shape[:2], dtype=torch.bool, device=concepts.device)
        relations, distance, reading = self.relations(concepts, self.grid)
        read = reading.to(features.readable.dtype) @ features.readable
        tokens = self.from_position(fourier(2 * concepts - 1, self.OCTAVES)) + read
        for layer in self.tokens:
            tokens = layer(tokens, present)
        z = features.cells
        for attend, convolve in zip(self.attention, self.convolution, strict=True):
            z = convolve(attend(z, tokens, relations, distance, present), features.time)
        gate = self.gate(relations, distance, present).view(-1, 1, *z.shape[2:])
        change = gate * self.out(F.silu(self.norm(z))).float()
        return features.base + F.pixel_shuffle(change, self.patch)

    def epsilon(self, features: SetFeatures, concepts: Tensor, present: Tensor | None = None) -> Tensor:
        """eps_theta(x_t, t | the whole set) ``[N,C,H,W]``; arguments as :meth:`output`."""
        output = self.output(features, concepts, present)
        return self.schedule.output_to_epsilon(output, features.x_t, features.t)

    def forward(self, x_t: Tensor, t: Tensor, concepts: Tensor, present: Tensor | None = None) -> Tensor:
        """The output for ``[N,C,H,W]`` at ``[N]`` under ``[N,K,2]``."""
        return self.output(self.features(x_t, t), concepts, present)


def start_from(model: SetDenoiser, init: Path) -> None:
    """Takes trunk and unconditional output from the checkpoint of a factored denoiser.

    Args:
        model: Of the same trunk.
        init: Checkpoint folder.

    Raises:
        MissingError: If ``init`` is no checkpoint.
        InputError: If it holds another architecture or another trunk.
    """
    donor: object = load_checkpoint(init).denoiser
    if not isinstance(donor, FactoredDenoiser):
        raise InputError(f"{init} holds no factored denoiser, whose trunk the set denoiser starts from")
    try:
        model.trunk.load_state_dict(donor.trunk.state_dict())
        model.base_out.load_state_dict(donor.base_out.state_dict())
        if donor.head.here.weight.shape == model.to_cells.weight.shape:
            model.to_cells.load_state_dict(donor.head.here.state_dict())
            model.to_readable.load_state_dict(donor.head.there.state_dict())
    except RuntimeError as error:
        raise InputError(f"the trunk of {init} has another shape than the set denoiser's") from error
