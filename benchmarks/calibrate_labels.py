"""Where a model of labels should look: noise levels, the cost of one more label and the temperature.

    python benchmarks/calibrate_labels.py --model animals-tiny --data-root PICTOGRAMS --without twemoji

Every validation scene is looked at under the same draws over all noise levels once; ranges and weights of levels
are then compared by how well few of these draws tell sets of labels apart.  Styles that are to stay unseen must
be left out.  Prints what the table [inference] of a preset takes.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from igm_cli.core.concepts import Text
from igm_cli.core.evidence import Evidence
from igm_cli.core.label_evidence import label_evidence
from igm_cli.core.models.pipelines import load_pipeline
from igm_cli.core.models.text_to_image import TextToImageDenoiser
from igm_cli.core.schedule import draw
from igm_cli.core.subsets import best_without, minima
from igm_cli.imaging import to_model, to_rgb
from igm_cli.plugins import registry
from igm_cli.plugins.base import Frame

LOWS, HIGHS = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5), (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.98)
POWERS = (0.0, 1.0, -1.0)
SIZES = (1, 2, 3)
FEW = 8
"""Draws that a range is judged by: with many, everything is soon told."""


@dataclass
class Scene:
    """One image's evidence under all draws, and the labels that are true of it."""

    evidence: Evidence
    truth: frozenset[int]

    def part(self, index: Tensor, power: float, ratio: Tensor) -> Evidence:
        """Some draws of it, weighted by (sigma/alpha)^power."""
        e = self.evidence
        return Evidence(
            e.residual[index], e.linear[index], e.gram[index], e.composition, ratio[index].pow(power)
        )


def look_at(denoiser: TextToImageDenoiser, data: object, draws: int) -> list[Scene]:
    """All scenes under the same draws."""
    space = denoiser.space
    taken = draw(denoiser.schedule, denoiser.latent_shape, draws, low=0.02, high=0.98, seed=1)
    width, height = denoiser.image_size
    scenes = []
    for number, example in enumerate(data, 1):  # type: ignore[arg-type, var-annotated]
        image = to_rgb(example["image"])
        latent = denoiser.encode(to_model(image, Frame.fit(image.size, width / height), (width, height)))
        evidence = label_evidence(denoiser, latent, taken, space.candidates(), "mean", 0.0)
        scenes.append(Scene(evidence, frozenset(space.labels.index(name) for name in example["labels"])))
        if number % 20 == 0:
            print(f"{number} scenes", flush=True)
    return scenes


def given(scene: Scene, evidence: Evidence) -> bool:
    """Whether the true set is found when K is given."""
    return frozenset(minima(evidence.expected(), len(scene.truth)).best.subset) == scene.truth


def by_size(evidence: Evidence) -> list[tuple[frozenset[int], float]]:
    """The best set of every size and its error."""
    found = [minima(evidence.expected(), size).best for size in SIZES]
    return [(frozenset(f.subset), f.error) for f in found]


def counted(sizes: list[tuple[frozenset[int], float]], cost: float) -> frozenset[int]:
    """The set that is chosen when K is not given."""
    return min(sizes, key=lambda pair: pair[1] + cost * len(pair[0]))[0]


def log_likelihood(scenes: list[Scene], evidences: list[Evidence], temperature: float) -> float:
    """Mean -log p of the true set against the best set without one of its labels, K given."""
    total = 0.0
    for scene, evidence in zip(scenes, evidences, strict=True):
        form, truth = evidence.expected(), sorted(scene.truth)
        error = float(form.error(torch.tensor(truth)))
        for label in truth:
            rival = best_without(form, len(truth), label)
            assert rival is not None
            total += math.log1p(math.exp(min(50.0, (error - rival.error) / temperature))) / len(truth)
    return total / len(scenes)


def main() -> None:
    """Prints scores of ranges of levels, and the settings of the best."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", default="animals")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--without", default="")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--draws", type=int, default=48)
    parser.add_argument("--dtype", default="auto")
    args = parser.parse_args()
    from igm_cli.core.models.pipelines import Loading

    data = registry.dataset(args.dataset).load(
        "val", data_root=args.data_root, limit=args.images, without=args.without
    )
    labels = tuple(sorted({name for row in data["labels"] for name in row}))
    parts = load_pipeline(args.model, torch.device("cpu"), Loading(dtype=args.dtype))
    denoiser = TextToImageDenoiser(parts, Text(labels))
    scenes = look_at(denoiser, data, args.draws)
    taken = draw(denoiser.schedule, (1, 1, 1), args.draws, low=0.02, high=0.98, seed=1)
    level = taken.t / denoiser.schedule.steps
    ratio = denoiser.schedule.sigma(taken.t) / denoiser.schedule.alpha(taken.t)
    print("low   high  power  sets given K  K exact  set exact  cost")
    best = (-1.0, -1.0, 0.0, 0.0, 0.0, 0.0)
    for power in POWERS:
        for low in LOWS:
            for high in (high for high in HIGHS if high >= low + 0.19):
                inside = ((level >= low) & (level <= high)).nonzero()[:, 0][:FEW]
                if len(inside) < FEW:
                    continue
                evidences = [scene.part(inside, power, ratio) for scene in scenes]
                right = sum(given(s, e) for s, e in zip(scenes, evidences, strict=True)) / len(scenes)
                sizes = [by_size(e) for e in evidences]
                costs = [c * 1e-4 for c in range(-20, 41, 2)]
                exact, cost = max(
                    (
                        sum(len(counted(z, c)) == len(s.truth) for s, z in zip(scenes, sizes, strict=True)),
                        -abs(c),
                        c,
                    )
                    for c in costs
                )[::2]
                sets = sum(counted(z, cost) == s.truth for s, z in zip(scenes, sizes, strict=True)) / len(
                    scenes
                )
                k_exact = exact / len(scenes)
                print(
                    f"{low:.2f}  {high:.2f}  {power:4.0f}   {right:.3f}         {k_exact:.3f}    {sets:.3f}      {cost:.4f}"
                )
                best = max(best, (right + sets, right, low, high, power, cost))
    _, _, low, high, power, cost = best
    inside = ((level >= low) & (level <= high)).nonzero()[:, 0][:FEW]
    evidences = [scene.part(inside, power, ratio) for scene in scenes]
    temperatures = [10 ** (-5 + 0.1 * step) for step in range(35)]
    temperature = min(temperatures, key=lambda tau: log_likelihood(scenes, evidences, tau))
    print(
        f"\nlow = {low}\nhigh = {high}\npower = {power}\npenalty = {cost * 1e4:.1f}\ntemperature = {temperature:.3g}"
    )


if __name__ == "__main__":
    with torch.no_grad():
        main()
