"""Samplers beside the truth, where it is known: two experts in the plane, joined by AND and by OR.

    python benchmarks/sampling_oracle.py [--count 3000] [--steps 60] [--picture docs/images/sampling-oracle.png]

Prints the total variation between samples and the target density, minus that of as many points from this density, and
the calls of the model.  The mean and the standard deviation are over three seeds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igm_cli.core.sampling import Composed, Hamiltonian, Langevin, sample, sample_any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from mixture_oracle import SHAPE, Experts, Mixture, bar, ring, total_variation

SEEDS = (0, 1, 2)
CORRECTORS: dict[str, Any] = {
    "sum of scores, DDIM": {"sampler": "ddim"},
    "sum of scores, ancestral": {},
    "average of scores": {"guidance": 0.5},
    "particles, 16": {"particles": 16},
    "+ 5 ULA": {"corrector": Langevin(5, 0.2)},
    "+ 20 ULA": {"corrector": Langevin(20, 0.2)},
    "+ 20 MALA": {"corrector": Langevin(20, 0.3, True)},
    "+ 5 HMC": {"corrector": Hamiltonian(5)},
}


def main() -> None:
    """Prints both tables, and draws the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    one, other = ring(), bar()
    both = torch.tensor([[[0.0], [1.0]]]).expand(asked.count, -1, -1)

    def joined(experts: Experts, seed: int, how: dict[str, Any]) -> Tensor:
        how = {"sampler": "ancestral", **how}
        model = Composed.of(experts, both, guidance=how.pop("guidance", 1.0))
        return sample(model, SHAPE, steps=asked.steps, seed=seed, clip=False, **how).flatten(1)

    wanted, shown = one.times(other), {}
    print(f"AND, {asked.count} samples, {asked.steps} levels: total variation above the truth's, calls")
    for name, how in CORRECTORS.items():
        shown[name] = report(name, (one, other), wanted, asked.count, partial(joined, how=how))
    left = Mixture(torch.tensor([0.5, 0.5]), torch.tensor([[-0.8, -0.5], [-0.6, -0.9]]), 0.15**2)
    right = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([[0.7, 0.5], [0.5, 0.9]]), 0.15**2)
    halves = torch.cat([0.5 * left.weights, 0.5 * right.weights])
    mixed = Mixture(halves, torch.cat([left.means, right.means]), 0.15**2)

    def drawn(experts: Experts, seed: int) -> Tensor:
        branch = torch.rand(asked.count, generator=torch.Generator().manual_seed(seed)) < 0.5
        chosen = branch.float()[:, None, None]
        model = Composed.of(experts, chosen)
        return sample(model, SHAPE, steps=asked.steps, seed=seed, sampler="ancestral", clip=False).flatten(1)

    def mixture(experts: Experts, seed: int, steps: int) -> Tensor:
        branches = [Composed.of(experts, torch.full((asked.count, 1, 1), i)) for i in (0.0, 1.0)]
        return sample_any(branches, SHAPE, steps=steps, seed=seed, clip=False)[0].flatten(1)

    ways: dict[str, Callable[[Experts, int], Tensor]] = {
        "branch drawn": drawn,
        "mixture of scores": partial(mixture, steps=asked.steps),
        f"mixture of scores, {4 * asked.steps} levels": partial(mixture, steps=4 * asked.steps),
        "average of scores": partial(joined, how={"guidance": 0.5}),
    }
    print("OR: the same, and the share of the second branch")
    for name, run in ways.items():
        report(name, (left, right), mixed, asked.count, run, share=True)
    if asked.picture:
        draw({"truth": wanted.drawn(asked.count, 9), **shown}, asked.picture)


def report(
    name: str,
    experts: tuple[Mixture, Mixture],
    wanted: Mixture,
    count: int,
    run: Callable[[Experts, int], Tensor],
    share: bool = False,
) -> Tensor:
    """Prints how far a method's samples are from the target density; returns those of the first seed."""
    many, apart, shares, found = wanted.drawn(500_000, 100), [], [], []
    for seed in SEEDS:
        model = Experts(*experts)
        found.append(run(model, seed))
        floor = total_variation(wanted.drawn(count, 200 + seed), many)
        apart.append(total_variation(found[-1], many) - floor)
        shares.append(float((found[-1][:, 0] > 0).float().mean()))
    more = f", share {statistics.mean(shares):.3f} ± {statistics.stdev(shares):.3f}" if share else ""
    print(
        f"  {name:32} {statistics.mean(apart):6.3f} ± {statistics.stdev(apart):.3f}, {model.calls} calls{more}",
        flush=True,
    )
    return found[0]


def draw(points: dict[str, Tensor], path: Path) -> None:
    """Draws the samples of every method."""
    import matplotlib.pyplot as plt

    names = ("truth", "sum of scores, ancestral", "average of scores", "particles, 16", "+ 20 ULA", "+ 5 HMC")
    figure, axes = plt.subplots(1, len(names), figsize=(12, 2.3))
    for axis, name in zip(axes, names, strict=True):
        axis.scatter(*points[name].T, s=1, alpha=0.3, color="tab:blue", linewidths=0)
        axis.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal", xticks=[], yticks=[])
        axis.set_title(name, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
