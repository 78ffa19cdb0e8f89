"""Counts what an inversion asks of a GPU: kernels per image, and points where the host waits for the device.

    python benchmarks/count_kernels.py --model clevr-pos --batch 64 [--where]

No GPU is needed: the device is pretended, and its tensors lie on the CPU.
"""

from __future__ import annotations

import argparse
import time
from itertools import cycle, islice
from pathlib import Path

import torch
from PIL import Image
from pretended_device import DEVICE, Pretended

from igm_cli import api
from igm_cli.core.inference.engine import invert_batch
from igm_cli.core.types import InversionSettings
from igm_cli.imaging import Frame, to_model

EXAMPLES = Path(__file__).parents[1] / "examples/images"


def main() -> None:
    """Inverts a batch of the example images on the pretended device, and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="clevr-pos", help="a model of images that is no pipeline")
    parser.add_argument("--images", type=Path, default=EXAMPLES)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--where", action="store_true", help="say which lines wait and start the most kernels")
    asked = parser.parse_args()
    model = api.load(asked.model, device="cpu")
    width, height = model.image_size
    files = sorted(p for p in asked.images.iterdir() if p.suffix in (".png", ".jpg"))
    opened = [Image.open(path).convert("RGB") for path in files]
    framed = [to_model(image, Frame.fit(image.size, width / height), (width, height)) for image in opened]
    images = torch.stack(list(islice(cycle(framed), asked.batch)))
    settings = InversionSettings.from_dict(model.inference)
    with torch.no_grad(), Pretended(lines=asked.where) as seen:
        denoiser, images = model.denoiser.to(DEVICE, torch.bfloat16), images.to(DEVICE)
        for counter in (seen.kernels, seen.waits, seen.kernel_lines, seen.wait_lines):
            counter.clear()
        began = time.perf_counter()
        found = invert_batch(denoiser, images, settings, composition=model.composition)
        seconds = time.perf_counter() - began
    count = len(images)
    print(f"{asked.model}, batch of {count}, on a pretended device ({seconds:.1f} s on the CPU)")
    print("found: " + " ".join(str(each.k) for each in found[: len(files)]))
    print(f"kernels per image: {seen.kernels.total() / count:.1f}")
    print(f"waits per image: {seen.waits.total() / count:.2f}, in all {seen.waits.total()}")
    if asked.where:
        for name, counter in (("kernels", seen.kernels), ("waits", seen.waits)):
            print(name, counter.most_common(25))
        for name, counter in (("kernels", seen.kernel_lines), ("waits", seen.wait_lines)):
            print(f"lines with the most {name}:")
            for line, number in counter.most_common(45):
                print(f"  {number:7} {line}")


if __name__ == "__main__":
    main()
