"""Whether the energy map of a single concept has one peak per object, for images of 1 to 8 objects.

    python benchmarks/energy_maps.py [--images 20] [--seed 12] [--model clevr-pos] [--picture maps.png]

Follows Figure 12 of Du, Li & Mordatch (2020): the map of two cubes by a model trained on one.  A peak is a cell of the map
that is higher than its eight neighbours and at least a tenth as high as the highest cell; it belongs to an object whose
centre is within 0.063 of it (0..1 along both sides).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import igm_cli as igm
from igm_cli.benchmarks.baselines.maps import maxima
from igm_cli.benchmarks.intervals import proportion, rate
from igm_cli.core.metrics import match
from igm_cli.imaging import Frame
from igm_cli.plugins import registry

NEAR = 0.063
LEAST = 0.1
MOST = 8


def main() -> None:
    """Measures the maps and prints a row per number of objects."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--model", default="clevr-pos")
    parser.add_argument("--picture", type=Path, help="a row of maps, of the first image of each number")
    args = parser.parse_args()
    model = igm.load(args.model, device="cpu")
    shown = []
    print("objects   with a peak of their own       peaks that belong to an object  as many peaks as objects")
    for objects in range(1, MOST + 1):
        options = {"objects": f"{objects}-{objects}", "size": args.images}
        data = registry.dataset("clevr-render").load("test", seed=args.seed, **options)
        hits, seen, counted = [], [], []
        for row in data:
            found = model.energy_map(row["image"])
            truth = model.parser.parse(row, Frame.fit(row["image"].size, 1.0, "squash"))
            places = peaks(torch.tensor(found.values))
            hits.append(int((match(places, truth).squared.sum(1) < NEAR**2).sum()))
            seen.append(len(places))
            counted.append(len(places) == objects)
            if len(counted) == 1:
                shown.append(found.picture())
        own = rate(hits, [objects] * len(hits))
        cells = [
            f"{100 * e.value:5.1f} % [{100 * e.low:.1f}, {100 * e.high:.1f}]" for e in (own, rate(hits, seen))
        ]
        exact = proportion(counted)
        print(f"{objects:<9} {cells[0]:<30} {cells[1]:<31} {100 * exact.value:.0f} %", flush=True)
    if args.picture:
        width, height = (side // 2 for side in shown[0].size)
        sheet = Image.new("RGB", (4 * width, 2 * height))
        for number, picture in enumerate(shown):
            sheet.paste(picture.resize((width, height)), (number % 4 * width, number // 4 * height))
        sheet.save(args.picture)


def peaks(values: Tensor) -> Tensor:
    """Returns the places ``[N,2]`` of the peaks of a map ``[Y,X]``, x first, 0..1."""
    at = maxima(values * (values > LEAST * values.max()), 1)
    return (at.flip(1) + 0.5) / torch.tensor(values.shape[::-1])


if __name__ == "__main__":
    main()
