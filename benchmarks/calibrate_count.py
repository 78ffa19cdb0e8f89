"""Chooses the penalty of a concept on scenes that no test uses, and the noise levels with it.

    python benchmarks/calibrate_count.py --model RUN [--limit 60] [--try '{"low": 0.04, "grid": [24, 16]}' ...]

Renders scenes of 3-5 objects of the validation split (half of them crowded), or takes training
images with --data-root, counts with a penalty of zero, and prints how many counts would be exact
under every penalty.  Put the best into the checkpoint's igm.json under ``inference``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from igm_cli.bundled import resolve_model
from igm_cli.core.checkpoint import load_checkpoint
from igm_cli.core.device import keep_freed_memory
from igm_cli.core.inference.engine import invert
from igm_cli.core.metrics import match
from igm_cli.core.types import InversionSettings
from igm_cli.imaging import to_model, to_rgb
from igm_cli.plugins import registry
from igm_cli.plugins.base import Frame

PENALTIES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0]


def main() -> None:
    """Parses, runs, prints a line for every trial."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--objects", default="3-5")
    parser.add_argument("--crowd", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--data-root", type=Path, help="training images of this folder instead of renders")
    parser.add_argument("--try", dest="trials", action="append", default=[], metavar="JSON")
    args = parser.parse_args()
    keep_freed_memory()
    checkpoint = load_checkpoint(resolve_model(args.model, None), torch.device("cpu"))
    concepts = registry.concept_parser(checkpoint.concepts)
    clevr = registry.dataset("clevr")
    if args.data_root:
        data = clevr.load("train", data_root=args.data_root, limit=args.limit, objects=args.objects)
    else:
        data = clevr.load("val", seed=args.seed, size=args.limit, objects=args.objects, crowd=args.crowd)
    width, height = checkpoint.image_size
    examples = []
    for row in data:
        frame = Frame.fit(row["image"].size, width / height)
        image = to_model(to_rgb(row["image"]), frame, checkpoint.image_size)
        examples.append((image, concepts.parse(row, frame)))
    for trial in args.trials or [""]:
        given = {**checkpoint.inference, "penalty": 0.0, **json.loads(trial or "{}")}
        settings = InversionSettings.from_dict(given)
        curves, perceived, objects, seconds = [], 0, 0, 0.0
        for image, truth in examples:
            found = invert(checkpoint.denoiser, image, settings, composition=checkpoint.composition)
            known = invert(
                checkpoint.denoiser, image, settings, k=len(truth), composition=checkpoint.composition
            )
            perceived += int(match(known.concepts, truth).perceived("sum").sum())
            objects += len(truth)
            seconds += found.seconds
            curves.append((len(truth), torch.tensor([p.error for p in found.k_curve])))
        exact = {
            p: sum(int((c + p * 1e-4 * torch.arange(len(c))).argmin()) == k for k, c in curves) / len(curves)
            for p in PENALTIES
        }
        print(
            f"{trial or 'as is'}: perception (sum) {perceived / objects:.3f}, "
            f"{seconds / len(examples):.2f} s, K exact by penalty "
            + " ".join(f"{p:g}:{share:.2f}" for p, share in exact.items()),
            flush=True,
        )


if __name__ == "__main__":
    main()
