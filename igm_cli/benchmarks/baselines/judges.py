"""Judges of samples: networks trained only on real images, which never saw the model whose samples they judge.

The judge of places predicts a map of peaks (Zhou et al. 2019, *Objects as Points*), the judge of kinds the shape and other
values of a crop, the judge of factors those of a whole image, the judge of labels what is in it, and the judge of measures
the place and size of its only object.  All are trained on blurred, brightened and noisy images, so that they do not rely on real texture, which samples lack.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from igm_cli.benchmarks.baselines.fit import Baseline, ErrorBaseline, outputs
from igm_cli.benchmarks.baselines.maps import centre_loss, maxima
from igm_cli.core.metrics import match

NEAR = 0.0632
"""Largest distance of a right place in 0..1 of both sides: a squared error of 0.004, twice what counts as perceived.

The square root of twice ``igm_cli.core.metrics.PERCEPTION_THRESHOLD``, rounded: published figures were made with these digits.
"""

PEAK = 0.35
"""Least height of a peak that counts as an object."""


def roughened(images: Tensor, generator: torch.Generator) -> Tensor:
    """Returns images ``[B,3,H,W]``, some of them blurred, brightened or darkened, and with noise."""

    def drawn() -> Tensor:
        return torch.rand(len(images), 1, 1, 1, generator=generator).to(images)

    for _ in range(2):
        blurred = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
        images = torch.lerp(images, blurred, drawn())
    images = images * (0.75 + 0.5 * drawn()) + 0.3 * (drawn() - 0.5)
    noise = torch.randn(images.shape, generator=generator).to(images)
    return (images + 0.12 * drawn() * noise).clamp(-1, 1)


def cross_entropy(logits: Tensor, truth: Sequence[Tensor], values: Sequence[int]) -> Tensor:
    """Returns the sum of the cross entropies of all factors, whose logits ``[N,values]`` are concatenated."""
    pairs = zip(logits.split(values, 1), truth, strict=True)
    return sum((functional.cross_entropy(*pair) for pair in pairs), torch.zeros(()))


@dataclass(frozen=True, kw_only=True)
class Judge(ErrorBaseline):
    """Base of the judges of whole images, which learn from roughened ones."""

    channels: int = 32
    learning_rates: tuple[float, ...] = (2e-3,)

    def loss(
        self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Returns the error of the network on roughened images."""
        return self.error(model(roughened(images, generator)).float(), concepts, present)


class PlaceNet(nn.Module):
    """Maps images ``[B,3,H,W]`` to ``[B,3,H/2,W/2]``: the logit of a peak, and its offset in its cell."""

    def __init__(self, options: PlaceJudge) -> None:
        super().__init__()
        channels, wide = options.channels, 2 * options.channels
        self.stem = nn.Sequential(_layer(3, channels, stride=2), _layer(channels, channels))
        self.inner = nn.Sequential(
            _layer(channels, wide, stride=2), *(_layer(wide, wide, dilation=step) for step in (1, 2, 1))
        )
        self.join = nn.Sequential(_layer(wide + channels, channels), nn.Conv2d(channels, 3, 1))
        nn.init.constant_(self.join[-1].bias[:1], -3.0)  # type: ignore[index]

    def forward(self, images: Tensor) -> Tensor:
        """Returns the map."""
        near = self.stem(images)
        far = functional.interpolate(self.inner(near), size=near.shape[2:], mode="nearest")
        found: Tensor = self.join(torch.cat([near, far], 1))
        return found


def _layer(before: int, after: int, *, stride: int = 1, dilation: int = 1, size: int = 3) -> nn.Sequential:
    padding = dilation * (size // 2)
    convolution = nn.Conv2d(before, after, size, stride, padding, dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.SiLU())


@dataclass(frozen=True, kw_only=True)
class PlaceJudge(Judge):
    """Locates the objects of an image as peaks in a map with half its sides."""

    network = PlaceNet
    name: str = "judge-places"
    batch_size: int = 24

    def error(self, said: Tensor, concepts: Tensor, present: Tensor) -> Tensor:
        """Returns the loss of a centre-point detector."""
        size = torch.tensor(said.shape[:1:-1]).to(concepts)
        return centre_loss(said, concepts[..., :2] * size, present, 1.0)

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Returns the share of images with a missing, wrong or superfluous place."""
        found = self.places(model, images)
        pairs = zip(found, concepts, present, strict=True)
        right = [all_right(places, truth[there][:, :2]) for places, truth, there in pairs]
        return 1 - sum(right) / len(right)

    def places(self, model: nn.Module, images: Tensor) -> list[Tensor]:
        """Returns the places in each image ``[K,2]``, 0..1, on the CPU."""
        places = []
        for maps in outputs(model, images).cpu():
            heat = maps[0].sigmoid()
            y, x = maxima(heat * (heat > PEAK), 1).T
            within = maps[1:, y, x].T.clamp(0, 1)
            places.append((torch.stack([x, y], 1) + within) / torch.tensor(heat.shape[::-1]))
        return places


@dataclass(frozen=True, kw_only=True)
class KindJudge(Baseline):
    """Names the values of several factors of an object in a crop around its place.

    Concepts are ``[K,2+F]``: the place and the index of each factor's value.
    """

    values: tuple[int, ...]  # number of values of each factor
    name: str = "judge-kinds"
    crop: int = 24  # side of a crop in pixels of the image
    kernel: int = 3  # side of the convolutions; judges that differ in it differ in architecture
    channels: int = 24
    batch_size: int = 24
    learning_rates: tuple[float, ...] = (2e-3,)

    def build(self) -> nn.Module:
        """Returns the network with fresh weights."""
        c, k = self.channels, self.kernel
        layers: list[nn.Module]
        if k == 3:
            layers, last = [_layer(3, c), _layer(c, 2 * c, stride=2), _layer(2 * c, 4 * c, stride=2)], 4 * c
        else:
            layers, last = [_layer(3, c, stride=2, size=k), _layer(c, 2 * c, stride=2, size=k)], 2 * c
        layers.append(nn.AdaptiveAvgPool2d(3))  # the place of edges distinguishes shapes
        flat = 9 * last
        return nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(flat, 64), nn.SiLU(), nn.Linear(64, sum(self.values))
        )

    def loss(
        self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Returns the cross entropy of all factors, on crops slightly off their places."""
        image, number = present.nonzero(as_tuple=True)
        objects = concepts[image, number]
        jitter = 0.02 * (2 * torch.rand(len(objects), 2, generator=generator).to(objects) - 1)
        crops = self.crops(roughened(images, generator), image, objects[:, :2] + jitter)
        return cross_entropy(model(crops).float(), objects[:, 2:].long().unbind(1), self.values)

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Returns the share of wrong values."""
        rows = [row[there] for row, there in zip(concepts, present, strict=True)]
        truth = torch.cat(rows)[:, 2:].cpu().T.flatten()
        chances = self.kinds(model, images, [r[:, :2] for r in rows])
        named = torch.cat([chance.argmax(1) for chance in chances])
        return float((named != truth).float().mean())

    def crops(self, images: Tensor, image: Tensor, places: Tensor) -> Tensor:
        """Returns square crops ``[N,3,S,S]`` around places ``[N,2]`` in 0..1; ``image [N]`` are the numbers of their images."""
        height, width = images.shape[2:]
        reach = torch.linspace(-1, 1, self.crop, device=images.device) * self.crop
        across = 2 * places[:, :1] - 1 + reach / width
        down = 2 * places[:, 1:] - 1 + reach / height
        size = (len(places), self.crop, self.crop)
        grid = torch.stack([across[:, None, :].expand(size), down[:, :, None].expand(size)], 3)
        return functional.grid_sample(images[image], grid, padding_mode="border", align_corners=False)

    @torch.no_grad()
    def kinds(self, model: nn.Module, images: Tensor, places: Sequence[Tensor]) -> list[Tensor]:
        """Returns for each factor the probabilities of its values ``[N,values]``, on the CPU, at all N places in the images."""
        counts = torch.tensor([len(part) for part in places])
        image = torch.arange(len(places)).repeat_interleave(counts).to(images.device)
        if not len(image):
            return [torch.zeros(0, count) for count in self.values]
        logits = model(self.crops(images, image, torch.cat(list(places)).to(images))).float().cpu()
        return [part.softmax(1) for part in logits.split(self.values, 1)]


@dataclass(frozen=True, kw_only=True)
class FactorJudge(Judge):
    """Names the value of every factor of an image; concepts are one-hot rows ``[F,D]``."""

    values: tuple[int, ...]  # number of values of each factor
    name: str = "judge-factors"

    def build(self) -> nn.Module:
        """Returns the network with fresh weights."""
        c = self.channels
        widths = [3, c, c, 2 * c, 4 * c]
        layers = [_layer(a, b, stride=2, size=5 if a == 3 else 3) for a, b in itertools.pairwise(widths)]
        last = nn.Sequential(nn.Dropout(0.2), nn.Linear(16 * widths[-1], sum(self.values)))
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), last)

    def error(self, said: Tensor, concepts: Tensor, present: Tensor) -> Tensor:
        """Returns the cross entropy of all factors."""
        return cross_entropy(said, self.truth(concepts).split(self.values, 1), self.values)

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Returns the share of images with a wrong value."""
        truth = [part.argmax(1) for part in self.truth(concepts).cpu().split(self.values, 1)]
        return float((self.named(model, images) != torch.stack(truth, 1)).any(1).float().mean())

    def truth(self, concepts: Tensor) -> Tensor:
        """Returns the one-hot values of all factors, concatenated ``[B,sum of values]``."""
        return concepts.sum(1)

    def named(self, model: nn.Module, images: Tensor) -> Tensor:
        """Returns the index of each factor's value in images ``[B,3,H,W]``, as ``[B,F]`` on the CPU."""
        logits = outputs(model, images).cpu()
        return torch.stack([part.argmax(1) for part in logits.split(self.values, 1)], 1)


@dataclass(frozen=True, kw_only=True)
class LabelJudge(FactorJudge):
    """Names the labels of an image: each is a factor, no or yes; concepts are one-hot rows ``[K,M]``."""

    name: str = "judge-labels"

    def build(self) -> nn.Module:
        """Returns the network with fresh weights: what it sees anywhere counts."""
        c = self.channels
        layers = [_layer(3, c, stride=2, size=5), _layer(c, 2 * c, stride=2), _layer(2 * c, 3 * c, stride=2)]
        layers += [_layer(3 * c, 4 * c), _layer(4 * c, 4 * c)]
        last = nn.Sequential(nn.Dropout(0.2), nn.Linear(4 * c, sum(self.values)))
        return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), last)

    def truth(self, concepts: Tensor) -> Tensor:
        """Returns whether each label is absent and whether it is there ``[B,2M]``."""
        there = (concepts.sum(1) > 0).float()
        return torch.stack([1 - there, there], 2).flatten(1)


@dataclass(frozen=True, kw_only=True)
class MeasureJudge(Judge):
    """Measures the place ``(x, y)`` and the size of an image's only object; concepts are ``[1,3]``."""

    name: str = "judge-measures"

    def build(self) -> nn.Module:
        """Returns the network with fresh weights."""
        c = self.channels
        layers = [
            _layer(3, c, size=5),
            _layer(c, c, stride=2),
            _layer(c, 2 * c, stride=2),
            _layer(2 * c, 2 * c),
        ]
        last = [nn.Flatten(), nn.Linear(64 * 2 * c, 128), nn.SiLU(), nn.Linear(128, 3)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(8), *last)

    def error(self, said: Tensor, concepts: Tensor, present: Tensor) -> Tensor:
        """Returns the error of the measures."""
        return functional.smooth_l1_loss(said, concepts[:, 0], beta=0.05)

    def validate(self, model: nn.Module, images: Tensor, concepts: Tensor, present: Tensor) -> float:
        """Returns the mean absolute error of place and size."""
        return float((self.measured(model, images) - concepts[:, 0].cpu()).abs().mean())

    def measured(self, model: nn.Module, images: Tensor) -> Tensor:
        """Returns place and size in each image ``[B,3]``, on the CPU."""
        return outputs(model, images).cpu()


def all_right(found: Tensor, truth: Tensor) -> bool:
    """Returns whether places ``[K,2]`` match the truth ``[L,2]`` one to one."""
    return len(found) == len(truth) == near(found, truth)


def near(found: Tensor, truth: Tensor) -> int:
    """Returns how many true places ``[L,2]`` are among those found ``[K,2]``."""
    return int((match(found, truth).squared.sum(1) < NEAR**2).sum())
