"""Where a model of factors should look: noise levels and temperature, from validation images.

    python benchmarks/calibrate_factors.py --model celeba-attributes

Every image is looked at under the same draws over all noise levels once; ranges and weights of levels are
then compared by how well a single draw tells configurations apart.  Only images of the training domain are used: what a model says of shifted
ones must not be tuned on them.  Prints what the table [inference] of a preset takes.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.bundled import resolve_model
from igm_cli.core.checkpoint import Checkpoint, load_checkpoint
from igm_cli.core.inference.candidates import CandidateSet
from igm_cli.core.inference.reference import configurations
from igm_cli.core.noise_schedule import draw
from igm_cli.core.training.batches import as_floats
from igm_cli.core.types import InversionSettings
from igm_cli.plugins import registry
from igm_cli.plugins.samples import DatasetSamples

LOWS, HIGHS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4), (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 0.98)
POWERS = (0.0, 1.0, 2.0)
TEMPERATURES = [10 ** (-5 + 0.1 * step) for step in range(30)]


@dataclass
class Kept:
    """Errors of all configurations of I images under N draws, and what is true.

    Attributes:
        errors: ``[I,N,R]``.
        level: Timestep of each draw as a fraction of T ``[N]``.
        ratio: sigma/alpha of each draw ``[N]``.
        truth: Index of the true configuration ``[I]``.
    """

    errors: Tensor
    level: Tensor
    ratio: Tensor
    truth: Tensor

    def weighted(self, low: float, high: float, power: float) -> Tensor:
        """Errors under each draw of a range of levels, by its weight ``[I,n,R]``; their mean is the expected error."""
        inside = (self.level >= low) & (self.level <= high)
        weight = self.ratio[inside].pow(power)
        return self.errors[:, inside] * (weight / weight.mean())[:, None]

    def score(self, low: float, high: float, power: float) -> tuple[float, float, float]:
        """Accuracy of single draws, their negative log likelihood at the best temperature, and that temperature.

        Single draws, for all of them together are soon beyond doubt in the domain trained on, whatever the range.
        """
        errors = self.weighted(low, high, power)
        accuracy = float((errors.argmin(2) == self.truth[:, None]).float().mean())
        nll, tau = min((self._nll(errors, tau), tau) for tau in TEMPERATURES)
        return accuracy, nll, tau

    def _nll(self, errors: Tensor, temperature: float) -> float:
        logits = torch.log_softmax(-errors / temperature, dim=2)
        return float(-logits.gather(2, self.truth[:, None, None].expand(-1, errors.shape[1], 1)).mean())


def look_at(checkpoint: Checkpoint, samples: DatasetSamples, draws: int) -> Kept:
    """All images under the same draws over all levels."""
    denoiser, space = checkpoint.denoiser, checkpoint.denoiser.space
    hypotheses = configurations(space)
    subsets = hypotheses.argmax(2)  # [R,F]
    width, height = checkpoint.image_size
    settings = InversionSettings(draws=draws, low=0.02, high=0.98, seed=1)
    taken = draw(denoiser.schedule, (3, height, width), draws, low=0.02, high=0.98, seed=1)
    rows, truths = [], []
    for index in range(len(samples)):
        images, concepts, _ = samples.batch([index], [False])
        with torch.no_grad():
            candidates = CandidateSet(denoiser, as_floats(images), settings, checkpoint.composition)
            candidates.add(space.candidates()[None])
            candidates.see(draws)
        rows.append(candidates.statistics().errors(subsets[None])[0].T)
        truths.append(int((hypotheses == concepts[0]).all(2).all(1).nonzero()))
    ratio = denoiser.schedule.sigma(taken.t) / denoiser.schedule.alpha(taken.t)
    return Kept(torch.stack(rows), taken.t / denoiser.schedule.steps, ratio, torch.tensor(truths))


def main() -> None:
    """Prints scores of ranges of levels, and the settings of the best."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", default="celeba")
    parser.add_argument("--domain", default="female")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--draws", type=int, default=128)
    args = parser.parse_args()
    checkpoint = load_checkpoint(resolve_model(args.model, None))
    spec = checkpoint.spec
    concepts = registry.configured(registry.concept_parser(spec.concepts), spec.concept_options)
    data = registry.dataset(args.dataset).load("val", limit=args.images, domain=args.domain)
    kept = look_at(checkpoint, DatasetSamples(data, concepts, checkpoint.image_size), args.draws)
    print("low   high  power  accuracy  -log p   tau     (of single draws)")
    best = (math.inf, 0.0, 0.0, 0.0, 0.0)
    for power in POWERS:
        for low in LOWS:
            for high in (high for high in HIGHS if high >= low + 0.15):
                accuracy, nll, tau = kept.score(low, high, power)
                print(f"{low:.2f}  {high:.2f}  {power:.0f}      {accuracy:.3f}     {nll:.4f}   {tau:.2e}")
                best = min(best, (nll, low, high, power, tau))
    nll, low, high, power, tau = best
    print(f"\nlow = {low}\nhigh = {high}\npower = {power}\ntemperature = {tau:.3g}")


if __name__ == "__main__":
    main()
