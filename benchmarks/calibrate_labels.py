r"""Where a model of labels should look: noise levels, the cost of one more label and the temperature.

    python benchmarks/calibrate_labels.py --model animals-tiny --data-root PICTOGRAMS \
        --without twemoji,openmoji,emojione-v1

Every validation scene is looked at under the same draws over the noise levels from --low to --high once; ranges and
weights of levels are then compared by how well few of these draws tell sets of labels apart: by the surprise at the
true ones, since some hundred scenes tell shares that are right apart by several percent only.  Styles that are to stay
unseen must be left out.  Prints what the table [inference] of a preset takes.
"""

from __future__ import annotations

import argparse
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from igm_cli.bundled import resolve_pipeline
from igm_cli.core.concepts import Text
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.any_set import minima
from igm_cli.core.inference.candidates import CandidateSet
from igm_cli.core.inference.posterior import posterior
from igm_cli.core.inference.statistics import GramStatistics, PairedDifference
from igm_cli.core.inference.views import encoded_views
from igm_cli.core.models.pipelines import Loading, load_pipeline
from igm_cli.core.models.text_to_image import TextToImageDenoiser
from igm_cli.core.noise_schedule import draw
from igm_cli.core.types import VIEWS, InversionSettings
from igm_cli.imaging import to_model, to_rgb
from igm_cli.plugins import registry
from igm_cli.plugins.base import Frame

LOWS = (0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.005)  # of ranges with the same draws in them the first is taken
HIGHS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.98)
POWERS = (0.0, 1.0, -1.0)
TEMPERATURES = [10 ** (-5 + 0.1 * step) for step in range(35)]
SIZES = (1, 2, 3)
FEW = 8
"""Draws that a range is judged by: with many, everything is soon told."""


@dataclass
class Scene:
    """One image's evidence under all draws, and the labels that are true of it."""

    evidence: GramStatistics
    truth: frozenset[int]

    def part(self, index: Tensor, power: float, ratio: Tensor) -> GramStatistics:
        """Some draws of it, weighted by (sigma/alpha)^power."""
        e = self.evidence
        return GramStatistics(
            e.residual[:, index],
            e.linear[:, index],
            e.gram[:, index],
            e.usable,
            e.composition,
            ratio[index].pow(power),
        )


def look_at(denoiser: TextToImageDenoiser, data: object, settings: InversionSettings) -> list[Scene]:
    """All scenes under the same draws, which look at as many views by turns."""
    space = denoiser.space
    width, height = denoiser.image_size
    scenes = []
    for number, example in enumerate(data, 1):  # type: ignore[arg-type, var-annotated]
        image = to_rgb(example["image"])
        whole = to_model(image, Frame.fit(image.size, width / height), (width, height))
        latents = encoded_views(denoiser.encode, whole, settings.views)
        candidates = CandidateSet(cast(Denoiser, denoiser), latents[None], settings, "mean")
        candidates.add(space.candidates()[None].to(latents.device))
        candidates.see(settings.draws)
        scenes.append(
            Scene(candidates.statistics(), frozenset(space.labels.index(name) for name in example["labels"]))
        )
        if number % 20 == 0:
            print(f"{number} scenes", flush=True)
    return scenes


def given(scene: Scene, evidence: GramStatistics) -> bool:
    """Whether the true set is found when K is given."""
    return frozenset(minima(evidence.expected(), len(scene.truth)).best[0][0].tolist()) == scene.truth


def by_size(evidence: GramStatistics) -> list[tuple[frozenset[int], float]]:
    """The best set of every size and its error."""
    found = [minima(evidence.expected(), size).best for size in SIZES]
    return [(frozenset(sets[0].tolist()), float(errors[0])) for sets, errors in found]


def counted(sizes: list[tuple[frozenset[int], float]], cost: float) -> frozenset[int]:
    """The set that is chosen when K is not given."""
    return min(sizes, key=lambda pair: pair[1] + cost * len(pair[0]))[0]


def rivals(scene: Scene, evidence: GramStatistics) -> PairedDifference:
    """By how much the best set of as many without it is worse than the true one, for every true label."""
    form, truth = evidence.expected(), sorted(scene.truth)
    others = [minima(form.without(torch.tensor([label])), len(truth)).best[0][0] for label in truth]
    errors = evidence.errors(torch.stack([torch.tensor(truth), *others])[None])  # [1,1+K,N]
    return PairedDifference.of(errors[:, 1:], errors[:, :1], evidence.importance)


def surprise(differences: list[PairedDifference], temperature: float) -> float:
    """Mean -log p of every true label against its rival, as users are told p."""
    each = [
        [-math.log(posterior(scene.among(0, [label]), temperature)) for label in range(scene.mean.shape[1])]
        for scene in differences
    ]
    return sum(sum(labels) / len(labels) for labels in each) / len(each)


@dataclass(frozen=True)
class Choice:
    """A range of levels with its weight, temperature and cost.

    Attributes:
        surprise: At the true labels, their number being given.
        low: Least level.
        high: Greatest level.
        power: Weight (sigma/alpha)^power of a draw.
        temperature: Of the least surprise.
        cost: Of one more label.
    """

    surprise: float
    low: float
    high: float
    power: float
    temperature: float
    cost: float


def inside(level: Tensor, low: float, high: float) -> Tensor:
    """The first few draws in a range of levels."""
    return ((level >= low) & (level <= high)).nonzero()[:, 0][:FEW]


def judge(
    scenes: list[Scene], evidences: list[GramStatistics], low: float, high: float, power: float
) -> Choice:
    """The temperature and the cost that suit a range, and how well sets are found with it."""
    gaps = [rivals(scene, evidence) for scene, evidence in zip(scenes, evidences, strict=True)]
    least, temperature = min((surprise(gaps, tau), tau) for tau in TEMPERATURES)
    found = [by_size(evidence) for evidence in evidences]

    def counted_right(cost: float) -> int:
        return sum(len(counted(f, cost)) == len(s.truth) for s, f in zip(scenes, found, strict=True))

    costs = [step * 1e-4 for step in range(-20, 41, 2)]
    cost = max(costs, key=lambda c: (counted_right(c), -abs(c), c))
    number = counted_right(cost) / len(scenes)
    right = sum(given(s, e) for s, e in zip(scenes, evidences, strict=True)) / len(scenes)
    sets = sum(counted(f, cost) == s.truth for s, f in zip(scenes, found, strict=True)) / len(scenes)
    shares = f"{right:.3f}         {number:.3f}    {sets:.3f}"
    print(f"{low:.3f}  {high:.2f}  {power:4.0f}   {least:.4f}    {shares}      {cost:.4f}")
    return Choice(least, low, high, power, temperature, cost)


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", default="animals")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--without", default="")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--draws", type=int, default=48)
    parser.add_argument("--low", type=float, default=0.02)
    parser.add_argument("--high", type=float, default=0.98)
    parser.add_argument("--views", type=int, default=1, choices=VIEWS)
    parser.add_argument("--dtype", default="auto")
    return parser.parse_args()


def main() -> None:
    """Prints scores of ranges of levels, and the settings of the best."""
    args = arguments()
    data = registry.dataset(args.dataset).load(
        "val", data_root=args.data_root, limit=args.images, without=args.without
    )
    labels = tuple(sorted({name for row in data["labels"] for name in row}))
    parts = load_pipeline(resolve_pipeline(args.model)[1], torch.device("cpu"), Loading(dtype=args.dtype))
    denoiser = TextToImageDenoiser(parts, Text(labels))
    schedule, shape = denoiser.schedule, denoiser.latent_shape
    taken = draw(schedule, shape, args.draws, low=args.low, high=args.high, seed=1)
    settings = InversionSettings(draws=args.draws, low=args.low, high=args.high, seed=1, views=args.views)
    scenes = look_at(denoiser, data, settings)
    level, ratio = taken.t / schedule.steps, schedule.sigma(taken.t) / schedule.alpha(taken.t)
    print("low    high  power  surprise  sets given K  K exact  set exact  cost")
    choices = [
        judge(scenes, [scene.part(index, power, ratio) for scene in scenes], low, high, power)
        for power, low, high in itertools.product(POWERS, LOWS, HIGHS)
        if args.low <= low < high <= args.high and len(index := inside(level, low, high)) == FEW
    ]
    best = min(choices, key=lambda choice: choice.surprise)
    print(f"\nlow = {best.low}\nhigh = {best.high}\npower = {best.power}\nviews = {args.views}")
    print(f"penalty = {best.cost * 1e4:.1f}\ntemperature = {best.temperature:.3g}")


if __name__ == "__main__":
    with torch.no_grad():
        main()
