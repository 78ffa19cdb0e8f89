"""Speed and memory of training, with the model and the configuration of the bundled clevr-pos.

    python benchmarks/train_speed.py [--device cuda] [--data rendered] [--images 12000] [--steps 200]
        [--batch-size 48 256] [--precision bf16] [--compile no reduce-overhead] [--tiny] [--json]

Trains with every given batch size, precision and kind of compilation, after --warm-up steps that are not counted, and
prints images per second and peak memory; with --data rendered, also the device's rendering speed.  --tiny trains a
small model, which takes seconds on a CPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from igm_cli.benchmarks.timing import machine
from igm_cli.commands.train_preset import Recipe, data_parts, model_spec, read_preset
from igm_cli.core.device import (
    keep_freed_memory,
    peak_memory,
    resolve_device,
    tf32_products,
    training_precision,
)
from igm_cli.core.training.batches import Samples
from igm_cli.core.training.objectives import ComposedObjective
from igm_cli.core.training.run import fresh_model
from igm_cli.core.training.trainer import Trainer
from igm_cli.plugins import registry
from igm_cli.plugins.samples import RenderedSamples, pad

TINY = {"model.channels": [16, 16, 16], "model.blocks": 1, "model.head_channels": 16, "model.head_layers": 1}


class Synthetic:
    """Images of random bytes, each with 3 to 5 random positions."""

    def __init__(self, count: int, image_size: tuple[int, int]) -> None:
        generator = torch.Generator().manual_seed(0)
        width, height = image_size
        self.images = torch.randint(256, (count, 3, height, width), generator=generator, dtype=torch.uint8)
        self.positions = torch.rand(count, 5, 2, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: list[int], flips: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns images as bytes, positions and presence, without mirroring."""
        return self.images[indices], *pad([self.positions[index][: 3 + index % 3] for index in indices])


def main() -> None:
    """Trains as requested and prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", choices=("synthetic", "rendered"), default="synthetic")
    parser.add_argument("--images", type=int, default=12000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[48])
    parser.add_argument("--precision", nargs="+", default=["bf16"])
    parser.add_argument("--compile", nargs="+", default=["no"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    device = resolve_device(args.device)
    if device.type == "cpu":
        keep_freed_memory()
    preset = Recipe("p", read_preset(registry.dataset("clevr"), "default"), TINY if args.tiny else {}).preset()
    preset.data[-1]["options"]["size"] = args.images
    samples, rendering = make_samples(args.data, preset, device)
    for size, precision, compiled in itertools.product(args.batch_size, args.precision, args.compile):
        figures = speed(
            preset, samples, device, args.steps, args.warm_up,
            batch_size=size, precision=precision, compile=compiled,
        )  # fmt: skip
        row = {
            "device": machine(device)["device"],
            "batch_size": size,
            "compile": compiled,
            **figures,
            **rendering,
        }
        shown = " ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
        )
        print(json.dumps(row) if args.json else shown, flush=True)


def make_samples(data: str, preset: Any, device: torch.device) -> tuple[Samples, dict[str, float]]:
    """Returns the training samples, and how fast they were rendered."""
    adapter, positions = registry.dataset("clevr"), registry.concept_parser("pos")
    part = data_parts(preset, None, None)[0]
    if data == "synthetic":
        return Synthetic(part.options["size"], adapter.image_size), {}
    began = time.perf_counter()
    rendered = RenderedSamples(part.render(adapter, device, lambda *progress: None), positions)
    seconds = time.perf_counter() - began
    return rendered, {"render_seconds": seconds, "rendered_per_second": len(rendered) / seconds}


def speed(
    preset: Any, samples: Samples, device: torch.device, steps: int, warm_up: int, **changes: Any
) -> dict[str, Any]:
    """Trains for some steps; returns speed and memory."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)  # accelerate allows one precision per process
    adapter, positions = registry.dataset("clevr"), registry.concept_parser("pos")
    config = replace(preset.config(), steps=warm_up + steps, **changes)
    precision = training_precision(config.precision, device)
    accelerator = Accelerator(mixed_precision=precision, cpu=device.type == "cpu")
    spec = model_spec(adapter, positions, preset, data_parts(preset, None, None))
    model = fresh_model(spec, 0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tf32_products(device):
        objective = ComposedObjective(model, spec, samples, config, accelerator)
        trainer = Trainer(model, objective, len(samples), config, accelerator)
        trainer.model.train()
        trainer.losses = [trainer.train_step() for _ in range(warm_up)]
        first = trainer.figures()["loss"]
        began = time.perf_counter()
        trainer.losses = [trainer.train_step() for _ in range(steps)]
        loss = trainer.figures()["loss"]  # waits for the device
        seconds = time.perf_counter() - began
    memory = peak_memory(device)
    return {
        "precision": precision,
        "images_per_second": steps * config.batch_size / seconds,
        "ms_per_step": 1000 * seconds / steps,
        **({} if memory is None else {"memory_gb": memory}),
        "first_loss": first,
        "loss": loss,
    }


if __name__ == "__main__":
    main()
