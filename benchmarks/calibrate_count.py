"""Chooses the penalty of a concept on images that no test uses, and the noise levels with it.

    python benchmarks/calibrate_count.py --model RUN [--limit 60] [--try '{"low": 0.04, "grid": [24, 16]}' ...]
    python benchmarks/calibrate_count.py --model RUN --data-root FOLDER [--side 96] ...

Renders scenes of 3-5 objects of the validation split (half of them crowded), or takes training images with --data-root:
of a model that was trained on crops, windows of the images with any number of objects in them.  Counts with a penalty of
zero, and prints how many counts would be exact under every penalty, and their mean absolute error.  Put the best into the
checkpoint's igm.json under ``inference``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igm_cli.bundled import resolve_model
from igm_cli.core.checkpoint import Checkpoint, load_checkpoint
from igm_cli.core.device import keep_freed_memory
from igm_cli.core.inference.tiles import invert_any_size
from igm_cli.core.training.batches import as_floats
from igm_cli.core.types import InversionSettings
from igm_cli.plugins import registry
from igm_cli.plugins.base import ConceptParser
from igm_cli.plugins.crops import Crops, CropSamples
from igm_cli.plugins.samples import DatasetSamples

PENALTIES = [
    0.0,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.8,
    1.0,
    1.3,
    1.6,
    2.0,
    2.5,
    3.0,
    4.0,
    5.0,
    6.5,
    8.0,
    10.0,
    13.0,
    16.0,
    20.0,
]


def parser_of(checkpoint: Checkpoint) -> ConceptParser:
    """Returns the model's concept parser."""
    return registry.configured(registry.concept_parser(checkpoint.concepts), checkpoint.spec.concept_options)


def examples_of(checkpoint: Checkpoint, args: argparse.Namespace) -> list[tuple[Tensor, Tensor]]:
    """Returns images ``[3,H,W]`` as the model sees them, with their concepts."""
    concepts, scale = parser_of(checkpoint), checkpoint.spec.scale
    dataset, samples = registry.dataset(str(checkpoint.info.get("dataset", "clevr"))), None
    if scale:
        data = dataset.load("train", data_root=args.data_root)
        windows = Crops(scale=scale, most=10_000, margin=checkpoint.spec.margin)
        samples = CropSamples(data, concepts, (args.side, args.side), windows, args.seed)
    elif args.data_root:
        options: dict[str, Any] = {"objects": args.objects}
        data = dataset.load("train", data_root=args.data_root, limit=args.limit, **options)
    else:
        options = {"size": args.limit, "objects": args.objects, "crowd": args.crowd}
        data = dataset.load("val", seed=args.seed, **options)
    samples = samples or DatasetSamples(data, concepts, checkpoint.image_size)
    found = []
    for index in range(min(args.limit, len(samples))):
        image, truth, present = samples.batch([index], [False])
        found.append((as_floats(image)[0], truth[0][present[0]]))
    return found


def main() -> None:
    """Parses, runs, prints a line for every trial."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--objects", default="3-5")
    parser.add_argument("--crowd", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--side", type=int, default=96, help="side of the windows, in pixels that the model sees"
    )
    parser.add_argument("--data-root", type=Path, help="training images of this folder instead of renders")
    parser.add_argument("--try", dest="trials", action="append", default=[], metavar="JSON")
    args = parser.parse_args()
    keep_freed_memory()
    checkpoint = load_checkpoint(resolve_model(args.model, None), torch.device("cpu"))
    concepts, examples = parser_of(checkpoint), examples_of(checkpoint, args)
    for trial in args.trials or [""]:
        given = {**checkpoint.inference, "penalty": 0.0, **json.loads(trial or "{}")}
        settings = InversionSettings.from_dict(given)
        curves, perceived, right, objects, seconds = [], 0.0, 0.0, 0, 0.0
        for image, truth in examples:
            how: dict[str, Any] = {"composition": checkpoint.composition}
            margin = checkpoint.spec.margin
            (found,) = invert_any_size(checkpoint.denoiser, image[None], settings, margin=margin, **how)
            (known,) = invert_any_size(checkpoint.denoiser, image[None], settings, k=len(truth), **how)
            score = concepts.score(known.concepts, truth)
            perceived += score["perceived_sum"]
            right += score.get("objects_right", 0.0)
            objects += len(truth)
            seconds += found.seconds
            area = image[0].numel() / (checkpoint.image_size[0] * checkpoint.image_size[1])
            curves.append((len(truth), area, torch.tensor([p.error for p in found.k_curve])))
        counts = {
            p: [int((c + p * 1e-4 / area * torch.arange(len(c))).argmin()) - k for k, area, c in curves]
            for p in PENALTIES
        }
        shown = {
            p: f"{sum(d == 0 for d in off) / len(off):.2f}/{sum(map(abs, off)) / max(1, objects):.3f}"
            for p, off in counts.items()
        }
        print(
            f"{trial or 'as is'}: perception (sum) {perceived / objects:.3f}, "
            + (
                f"all values right, too {right / objects:.3f}, "
                if checkpoint.spec.space["kind"] == "product"
                else ""
            )
            + f"{seconds / len(examples):.2f} s, "
            "K exact and its relative error by penalty "
            + " ".join(f"{p:g}:{both}" for p, both in shown.items()),
            flush=True,
        )


if __name__ == "__main__":
    main()
