"""Averages the weights of a text-to-image model and of one that was trained further from it.

    python benchmarks/average_weights.py BEFORE AFTER OUTPUT

On data that neither was trained on, this mean does better than the later model (Wortsman et al. 2022, "Robust fine-tuning
of zero-shot models", which takes the midpoint by default).
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from igm_cli.core.models.latent import PARTS
from igm_cli.core.weights import is_packed, read_weights, write_weights

SCALE = Path("vae") / "config.json"
RUN = ("state.pt", "run.json", "metrics.jsonl", "tensorboard")
"""Files that a training writes beside the model."""


def main() -> None:
    """Writes the mean as a pipeline folder; everything but the weights is as in AFTER."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of AFTER (default: %(default)s)")
    given = parser.parse_args()
    if given.output.exists():
        parser.error(f"{given.output} is already there")
    shutil.copytree(given.after, given.output, ignore=shutil.ignore_patterns(*RUN))
    for part in PARTS:
        for path in (given.output / part).glob("*.safetensors"):
            average(given.before / part / path.name, path, given.share)
    average_scale(given.before / SCALE, given.output / SCALE, given.share)


def average_scale(before: Path, after: Path, share: float) -> None:
    """Averages the scale of latents in the same way."""
    old, new = json.loads(before.read_text()), json.loads(after.read_text())
    new["scaling_factor"] = round(old["scaling_factor"] * (1 - share) + new["scaling_factor"] * share, 6)
    after.write_text(json.dumps(new, indent=2) + "\n")


def average(before: Path, after: Path, share: float) -> None:
    """Moves the weights of one file towards those of another, in place; packed weights become float16."""
    old, new = read_weights(before), read_weights(after)
    if old.keys() != new.keys() or any(old[name].shape != new[name].shape for name in new):
        raise SystemExit(f"{before} and {after} are of different models")
    mean = {
        name: old[name].lerp(value, share) if value.is_floating_point() else value
        for name, value in new.items()
    }
    write_weights(after, mean, torch.float16 if is_packed(after) else dtype_of(after))


def dtype_of(path: Path) -> torch.dtype:
    """Returns the type of a file's floating-point values."""
    return next(value.dtype for value in load_file(path).values() if value.is_floating_point())


if __name__ == "__main__":
    main()
