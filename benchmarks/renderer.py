"""Speed of the CLEVR renderer (packages/igm-clevr-render).

    python benchmarks/renderer.py [--images 256] [--batch 64] [--objects 3-10] [--device cpu] [--threads N]

Samples and renders the same scenes --repeats times, after one warm-up batch, and prints milliseconds per image
and images per second: the mean over the repeats ± their standard deviation.  For a GPU, processes on all cores
sample the scenes.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import torch

from igm_clevr_render.examples import render_batches
from igm_clevr_render.options import SceneOptions
from igm_clevr_render.renderer import render
from igm_clevr_render.sampling import sample_scenes
from igm_cli.core.device import keep_freed_memory


def main() -> None:
    """Renders as requested and prints the speeds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--objects", default="3-10", help="e.g. 3-5")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_freed_memory()  # as igm train does
    options = SceneOptions.parse({"objects": args.objects})
    milliseconds(options, args.batch, args.batch, args.device)
    times = [milliseconds(options, args.images, args.batch, args.device) for _ in range(args.repeats)]
    deviation = statistics.stdev(times) if len(times) > 1 else 0.0
    print(f"{args.images} images of {args.objects} objects, {args.batch} at a time, {args.repeats} repeats")
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {args.device}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
    print(
        f"{statistics.mean(times):.2f} ± {deviation:.2f} (std) ms per image, "
        f"{1000 / statistics.mean(times):.0f} images per second, sampling and rendering"
    )
    alone = [rendering(options, args.batch, args.device) for _ in range(args.repeats)]
    print(f"{1 / statistics.mean(alone):.0f} images per second, rendering alone")


def milliseconds(options: SceneOptions, images: int, batch: int, device: str) -> float:
    """Returns the time for sampling and rendering an image."""
    started = time.perf_counter()
    for part in render_batches(options, images, 0, batch, device):
        part.images.cpu()
    return 1000 * (time.perf_counter() - started) / images


def rendering(options: SceneOptions, batch: int, device: str) -> float:
    """Returns the seconds for rendering an image."""
    scenes = sample_scenes(options, range(batch), seed=0)
    chunk = {} if device == "cpu" else {"chunk": batch}
    started = time.perf_counter()
    render(scenes, options, device=device, **chunk).cpu()
    return (time.perf_counter() - started) / batch


if __name__ == "__main__":
    main()
