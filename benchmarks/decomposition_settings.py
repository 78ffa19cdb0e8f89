"""Chooses the settings of the iterative decomposition methods on validation problems.

    python benchmarks/decomposition_settings.py --method coupled --seconds 600
    python benchmarks/decomposition_settings.py --method coupled --set space=codebook --set energy=gauss

Random settings are tried on problems of other seeds than any benchmark's, every one with the same iterations; the best
few are tried again on more problems, and printed, best first.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from typing import Any

import torch

from igm_cli.core.decomposition.decompose import ITERATIVE, decompose
from igm_cli.core.decomposition.problems import Problems, random_problems

SEED = 1_000_003
"""Seed of the validation problems."""


def coupled(draw: random.Random) -> dict[str, Any]:
    """Draws settings of coupled diffusion; chains in codebook space need other levels than those in latent space."""
    return {
        "space": draw.choice(["latent", "codebook"]),
        "energy": draw.choice(["similarity", "gauss"]),
        "steps": draw.choice([2, 3, 4, 6, 8, 12, 20, 30]),
        "ratio": draw.choice([0.2, 0.35, 0.5, 0.7, 1.0]),
        "stochasticity": draw.choice([0.0, 0.5, 1.0]),
        "prior": draw.choice([0.0, 1.0]),
    }


def levels(settings: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Draws guidance and noise levels that suit the space."""
    if settings.get("space") == "codebook":
        low, high, guidance = draw.uniform(-2, 0), draw.uniform(0, 3), draw.uniform(-3.5, -0.5)
    else:
        low, high, guidance = draw.uniform(-6, -3.5), draw.uniform(0, 2.5), draw.uniform(1, 3)
    return {"guidance": 10**guidance, "signal": (_share(low), _share(low + high))}


def _share(logarithm: float) -> float:
    """Returns the signal share a for a signal-to-noise ratio a/(1-a)."""
    ratio = 10**logarithm
    return ratio / (1 + ratio)


DRAWS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "coupled": coupled,
    "attention": lambda draw: {"beta": 10 ** draw.uniform(-3, 0), "sequential": draw.random() < 0.5},
    "resonator": lambda draw: {"weights": draw.choice(["ols", "outer"])},
    "factorizer": lambda draw: {"noise": draw.uniform(0, 2), "threshold": draw.uniform(0, 4)},
}


def value_of(text: str) -> Any:
    """Returns a number or a list as it is written in JSON; other text stays as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def accuracy(method: str, settings: dict[str, Any], problems: Problems, iterations: int) -> float:
    """Returns the share of problems with all factors right."""
    dynamics = ITERATIVE[method](**settings)
    found = decompose(problems.vectors, problems.codebooks, dynamics, iterations=iterations)
    return float((found.indices == problems.truth).all(1).float().mean())


def main() -> None:
    """Tries settings until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=sorted(DRAWS), default="coupled")
    parser.add_argument("--binding", default="map")
    parser.add_argument("--codewords", type=int, default=100)
    parser.add_argument("--factors", type=int, default=3)
    parser.add_argument("--dim", type=int, default=1000)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--problems", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--best", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="keep a setting fixed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fixed = {name: value_of(value) for name, _, value in (pair.partition("=") for pair in arguments.set)}
    shape = (arguments.codewords, arguments.factors, arguments.dim)
    few = random_problems(*shape, arguments.problems, binding=arguments.binding, seed=SEED)
    draw, tried, begin = random.Random(arguments.seed), [], time.monotonic()
    while time.monotonic() - begin < arguments.seconds:
        settings = {**DRAWS[arguments.method](draw), **fixed}
        if arguments.method == "coupled":
            settings |= levels(settings, draw) | fixed
        right = accuracy(arguments.method, settings, few, arguments.iterations)
        tried.append((right, json.dumps(settings)))
        print(f"{right:.3f} {tried[-1][1]}", flush=True)
    many = random_problems(*shape, 4 * arguments.problems, binding=arguments.binding, seed=SEED + 1)
    print(f"best of {len(tried)}, on {len(many.truth)} other problems:")
    best = sorted(dict.fromkeys(tried), reverse=True)[: arguments.best]
    again = [
        (accuracy(arguments.method, json.loads(text), many, arguments.iterations), text) for _, text in best
    ]
    for right, text in sorted(again, reverse=True):
        print(f"{right:.3f} {text}", flush=True)


if __name__ == "__main__":
    main()
