"""One conditional diffusion model of an image's only object, not composed, for the suite ``composition``.

    argmin_theta  E ‖eps - eps_theta(x_t, t | place, color, shape)‖²

The counterpart of the generator in Du, Li & Mordatch (2020, table 2): one network that knows all conditions and is
trained further on each new set of images.  The trunk is that of igm's factored denoiser.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igm_cli.benchmarks.baselines.gc import DiffusionBaseline, set_error
from igm_cli.core.checkpoint import weights_fingerprint
from igm_cli.core.concepts import ConceptSpace, Continuous
from igm_cli.core.device import inference_precision
from igm_cli.core.files import WEIGHTS
from igm_cli.core.models.factored import FactoredConfig, Trunk
from igm_cli.core.noise_schedule import Draws, Schedule, draw
from igm_cli.core.weights import read_weights

BUMP = 0.06
"""Width of the bump that marks the place, as a fraction of the sides."""


class ObjectDenoiser(nn.Module):
    """The trunk with condition planes: each cell's distance from the place, and constant planes for kinds.

    It is a :class:`~igm_cli.core.denoiser.Denoiser` whose base is zero.
    """

    def __init__(self, config: FactoredConfig, values: tuple[int, ...]) -> None:
        super().__init__()
        self.config, self.values, self.schedule = config, values, Schedule()
        self.image_size = config.image_size
        dim = 2 + len(values)
        self.space: ConceptSpace = Continuous(tuple(map(str, range(dim))), (0.0,) * dim, (16.0,) * dim)
        self.trunk = Trunk(config, 3 + 3 + sum(values))
        self.out = nn.Conv2d(config.channels[0], 3 * config.patch**2, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.out.weight.dtype

    def forward(self, x_t: Tensor, t: Tensor, concepts: Tensor) -> Tensor:
        """Returns v ``[N,3,H,W]`` of images with one object each, ``[N,D]``: its place, and the indices of its kinds."""
        n, _, height, width = x_t.shape
        across = (torch.arange(width).to(x_t) + 0.5) / width - concepts[:, 0, None]  # [N,W]
        down = (torch.arange(height).to(x_t) + 0.5) / height - concepts[:, 1, None]
        away = across[:, None, :].expand(n, height, width), down[:, :, None].expand(n, height, width)
        bump = (-0.5 * (away[0].square() + away[1].square()) / BUMP**2).exp()
        kinds = [F.one_hot(concepts[:, 2 + k].long(), count).to(x_t) for k, count in enumerate(self.values)]
        told = torch.cat(kinds, 1)[..., None, None].expand(-1, -1, height, width)
        seen = torch.cat([x_t, torch.stack([*away, bump], 1), told], 1)
        return F.pixel_shuffle(self.out(self.trunk(seen, t)), self.config.patch)

    def features(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the inputs, as conditions share nothing."""
        return x_t, t

    def base(self, features: tuple[Tensor, Tensor]) -> Tensor:
        """Returns zeros ``[N,3,H,W]``."""
        return torch.zeros_like(features[0])

    def contributions(self, features: tuple[Tensor, Tensor], concepts: Tensor) -> Tensor:
        """Returns eps ``[N,M,3,H,W]`` under each of the conditions ``[N,M,D]``."""
        x_t, t = features
        each = [self(x_t, t, condition).float() for condition in concepts.unbind(1)]
        return torch.stack([self.schedule.output_to_epsilon(v, x_t, t) for v in each], 1)


@dataclass(frozen=True, kw_only=True)
class ObjectDiffusion(DiffusionBaseline):
    """A conditional model, from scratch or trained further."""

    config: FactoredConfig  # shape of the trunk
    values: tuple[int, ...]  # number of values of each kind
    earlier: Path | None = None  # folder of the previous training
    name: str = "conditional"
    learning_rates: tuple[float, ...] = (7e-4,)
    ema: float = 0.998

    def describe(self) -> dict[str, Any]:
        """Returns everything that shapes the model, as JSON."""
        before = weights_fingerprint(self.earlier) if self.earlier else None
        shape = {"config": asdict(self.config), "values": self.values}
        return {**shape, "earlier": before, **self.training_options()}

    def build(self) -> ObjectDenoiser:
        """Returns the network, with the weights of the previous training if there is one."""
        model = ObjectDenoiser(self.config, self.values)
        if self.earlier is not None:
            model.load_state_dict(read_weights(self.earlier / WEIGHTS))
        return model

    def condition(self, concepts: Tensor, present: Tensor) -> tuple[Tensor, ...]:
        """Returns the only object of each image."""
        return (concepts[:, 0],)

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Returns the mean error of v with one draw per image, the same at every call."""
        draws = draw(Schedule(), tuple(images.shape[1:]), len(images), low=self.low, high=self.high, seed=0)
        total = 0.0
        for rows in torch.arange(len(images)).split(self.batch_size):
            some = Draws(draws.t[rows], draws.noise[rows]).to(images.device)
            with inference_precision(images.device):
                total += float(set_error(model, images[rows], some, concepts[rows, 0]).sum())
        return total / len(images)
