"""Draws the loss of a training run over its steps.

python benchmarks/learning_curve.py RUN/metrics.jsonl docs/images/learning-curve.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    """Reads metrics.jsonl, writes a PNG, prints the last line."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    losses = [line for line in lines if "loss" in line]
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    axes.plot([line["step"] for line in losses], [line["loss"] for line in losses], color="tab:blue")
    axes.set(yscale="log", xlabel="optimizer step", ylabel="composed loss (v)")
    axes.grid(alpha=0.3, which="both")
    rate = axes.twinx()
    rate.plot([line["step"] for line in losses], [line["learning_rate"] for line in losses], color="tab:grey")
    rate.set(ylabel="learning rate (grey)", ylim=(0, None))
    figure.savefig(target, dpi=120)
    last = losses[-1]
    print(f"{last['step']} steps in {last['seconds'] / 60:.1f} minutes, last loss {last['loss']:.4f}")


if __name__ == "__main__":
    main()
