"""A denoiser in closed form: what the engine says of it can be checked exactly.

x0 | c1..cK ~ N(sum_k m(c_k), s² I) with templates m.  Then x_t is Gaussian too and

    eps(x_t, t | c) = sigma (x_t - alpha sum_k m(c_k)) / (alpha² s² + sigma²)

is a base plus a sum of contributions, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Categorical, ConceptSpace, Continuous, Product
from igm_cli.core.inference.candidates import CandidateSet
from igm_cli.core.inference.noised_batch import NoisedBatch, noised
from igm_cli.core.inference.statistics import GramStatistics, QuadraticForm
from igm_cli.core.noise_schedule import Schedule, ScheduleConfig, draw
from igm_cli.core.types import InversionSettings


@dataclass
class Oracle:
    """Templates are Gaussian spots (positions), fixed random patterns (factors), or both (a product): spots whose
    channels, and whose stripes, depend on the values of two factors.
    """

    space: ConceptSpace
    size: int = 24
    spread: float = 0.1
    width: float = 0.07
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if isinstance(self.space, Categorical):
            generator = torch.Generator().manual_seed(1)
            self.patterns = torch.randn(self.space.dim, 3, self.size, self.size, generator=generator)
        if isinstance(self.space, Product):
            colours, stripes = map(len, self.space.what.factors.values())
            generator = torch.Generator().manual_seed(2)
            self.colours = torch.randn(colours, 3, generator=generator)
            self.colours /= self.colours.norm(dim=1, keepdim=True) / 3**0.5  # all as bright
            angles = torch.arange(stripes) * torch.pi / stripes
            self.directions = torch.stack([angles.cos(), angles.sin()], dim=1)

    def template(self, concepts: Tensor) -> Tensor:
        """m ``[...,3,S,S]`` of concepts ``[...,D]``; it is linear in the value of every factor."""
        if isinstance(self.space, Categorical):
            return (concepts[..., None, None, None] * self.patterns).sum(-4)
        axis = (torch.arange(self.size) + 0.5) / self.size
        dx, dy = axis - concepts[..., 0:1], axis - concepts[..., 1:2]
        square = dx[..., None, :] ** 2 + dy[..., :, None] ** 2  # [...,S,S]
        spot = torch.exp(-square / (2 * self.width**2))[..., None, :, :]
        if not isinstance(self.space, Product):
            return spot.expand(*spot.shape[:-3], 3, -1, -1)
        first, second = concepts[..., 2:].split([len(self.colours), len(self.directions)], dim=-1)
        colour = (first[..., None] * self.colours).sum(-2)[..., None, None]  # [...,3,1,1]
        along = dx[..., None, None, :] * self.directions[:, 0, None, None]
        across = dy[..., None, :, None] * self.directions[:, 1, None, None]
        stripes = torch.cos(2 * (along + across) / self.width)  # [...,V,S,S]
        pattern = (second[..., None, None] * stripes).sum(-3)[..., None, :, :]
        return spot * colour * (0.3 + pattern)

    def image(self, concepts: Tensor, seed: int = 0) -> Tensor:
        """A draw of x0 ``[3,S,S]`` under concepts ``[K,D]``."""
        generator = torch.Generator().manual_seed(seed)
        mean = self.template(concepts).sum(0)
        return mean + self.spread * torch.randn(mean.shape, generator=generator)

    def _gain(self, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return (sigma / (alpha**2 * self.spread**2 + sigma**2))[:, None, None, None]

    def features(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return x_t, t

    def base(self, features: tuple[Tensor, Tensor]) -> Tensor:
        x_t, t = features
        return self._gain(t) * x_t

    def contributions(self, features: tuple[Tensor, Tensor], concepts: Tensor) -> Tensor:
        _, t = features
        scale = (self._gain(t) * self.schedule.alpha(t)[:, None, None, None])[:, None]
        return -scale * self.template(concepts)


SQUARE = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True)


def flow(shift: float = 3.0) -> Schedule:
    """A flow's."""
    return Schedule(ScheduleConfig(prediction_type="flow_prediction", flow_shift=shift))


def positions(schedule: Schedule | None = None) -> Oracle:
    """An oracle over the unit square."""
    return Oracle(SQUARE, schedule=schedule or Schedule())


def factors(schedule: Schedule | None = None) -> Oracle:
    """An oracle over three factors of 2, 3 and 4 values."""
    space = Categorical({"a": ("0", "1"), "b": ("0", "1", "2"), "c": ("0", "1", "2", "3")})
    return Oracle(space, schedule=schedule or Schedule())


def products(colours: int = 3, stripes: int = 2) -> Oracle:
    """An oracle over the unit square, with one of some colours and one of some directions of stripes at each point."""
    what = Categorical(
        {
            "colour": tuple(f"colour {i}" for i in range(colours)),
            "stripes": tuple(f"direction {i}" for i in range(stripes)),
        }
    )
    return Oracle(Product(SQUARE, what))


def statistics_of(
    oracle: Any,
    images: Tensor,
    candidates: Tensor,
    composition: Composition = "sum",
    settings: InversionSettings | None = None,
) -> GramStatistics:
    """Statistics of candidates ``[M,D]`` of images ``[B,C,H,W]`` under all draws of the settings."""
    settings = settings or InversionSettings(draws=6)
    found = CandidateSet(oracle, images, settings, composition)
    found.add(candidates.expand(len(images), -1, -1))
    found.see(settings.draws)
    return found.statistics()


def seen_by(oracle: Any, image: Tensor, count: int = 6, power: float = 0.0, seed: int = 3) -> NoisedBatch:
    """One image ``[C,H,W]`` under noise samples."""
    draws = draw(oracle.schedule, tuple(image.shape), count, low=0.05, high=0.6, seed=seed)
    return noised(oracle, image.expand(count, 1, *image.shape), draws, power)


def random_form(
    candidates: int,
    seed: int,
    composition: Composition = "sum",
    *,
    images: int = 1,
    coupling: float = 1.0,
    scale: float = 1.0,
    rank: int | None = None,
) -> QuadraticForm:
    """A quadratic form as statistics give one: its Gram matrix is one, of so many pixels as the rank."""
    generator = torch.Generator().manual_seed(seed)
    pixels = rank or 4 * candidates
    rows = torch.randn(images, candidates, pixels, generator=generator, dtype=torch.float64)
    linear = scale * torch.randn(images, candidates, generator=generator, dtype=torch.float64)
    constant = torch.full((images,), 3.0, dtype=torch.float64)
    usable = torch.ones(images, candidates, dtype=torch.bool)
    return QuadraticForm(constant, linear, coupling * rows @ rows.mT / pixels, usable, composition)


def best_of(
    form: QuadraticForm, sets: Iterable[Sequence[int]], image: int = 0
) -> tuple[tuple[int, ...], float]:
    """The best of some sets of equal size for an image, and its error: brute force."""
    every = list(sets)
    index = torch.tensor(every, dtype=torch.long).reshape(len(every), -1)
    errors = form.error(index.expand(len(form.linear), -1, -1))[image]
    best = int(errors.argmin())
    return tuple(every[best]), float(errors[best])
