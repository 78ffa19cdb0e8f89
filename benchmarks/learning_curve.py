"""Plots the losses of training runs over their steps, side by side.

python benchmarks/learning_curve.py RUN/metrics.jsonl [NEXT_RUN/metrics.jsonl ...] docs/images/learning-curve.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    """Reads every run's metrics.jsonl, writes a PNG and prints the last lines."""
    *sources, target = map(Path, sys.argv[1:])
    figure, panels = plt.subplots(1, len(sources), figsize=(7, 3.2), layout="constrained", squeeze=False)
    for source, axes in zip(sources, panels[0], strict=True):
        lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
        losses = [line for line in lines if "loss" in line]
        steps = [line["step"] for line in losses]
        axes.plot(steps, [line["loss"] for line in losses], color="tab:blue")
        axes.set(yscale="log", xlabel="optimizer step", ylabel="composed loss (v)")
        axes.grid(alpha=0.3, which="both")
        rate = axes.twinx()
        rate.plot(steps, [line["learning_rate"] for line in losses], color="tab:grey")
        rate.set(ylabel="learning rate (grey)", ylim=(0, None))
        last = losses[-1]
        print(f"{last['step']} steps in {last['seconds'] / 60:.1f} minutes, last loss {last['loss']:.4f}")
    figure.savefig(target, dpi=120)


if __name__ == "__main__":
    main()
