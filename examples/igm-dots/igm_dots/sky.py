"""The dataset: bright discs on a dark sky, drawn when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from igm_cli.errors import InputError, UsageError

SPLITS = ("train", "val")


class NightSky:
    name = "night-sky"
    summary = "bright stars on a dark sky (example plugin)"
    licence = "MIT"
    source = "drawn by the plugin itself"
    splits = SPLITS
    image_size = (32, 32)
    concepts = "stars"
    options = {"stars": "most stars in an image"}
    presets = {"default": Path(__file__).parent / "default.toml"}

    def load(self, split, *, data_root=None, limit=None, seed=0, progress=None, stars=3):
        import datasets

        if split not in SPLITS:
            raise UsageError(f"night-sky has no split {split!r}; choose {' or '.join(SPLITS)}")
        if data_root is not None:
            raise InputError("night-sky draws its own images; leave out --data-root")
        if not str(stars).isdecimal() or int(stars) < 1:
            raise UsageError(f"stars must be a whole number from 1 on, not {stars!r}")
        count = limit or {"train": 2000, "val": 100}[split]
        rows = []
        for number, row in enumerate(skies(count, int(stars), seed * len(SPLITS) + SPLITS.index(split))):
            rows.append(row)
            if progress:
                progress("drawing skies", number + 1, count)
        return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())


def skies(count: int, most: int, seed: int) -> Iterator[dict]:
    import io
    import random

    from PIL import Image, ImageDraw

    rng = random.Random(seed)
    for _ in range(count):
        big = Image.new("RGB", (128, 128), (6, 8, 24))
        draw = ImageDraw.Draw(big)
        stars = []
        for _ in range(rng.randint(1, most)):
            x, y, r = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(6, 12)
            warmth = rng.randint(160, 255)
            disc = (x * 128 - r, y * 128 - r, x * 128 + r, y * 128 + r)
            draw.ellipse(disc, fill=(255, 245, warmth))
            stars.append({"x": x, "y": y, "color": "white" if warmth > 207 else "yellow"})
        file = io.BytesIO()
        big.resize((32, 32), Image.Resampling.BOX).save(file, format="PNG")
        yield {"image": {"bytes": file.getvalue(), "path": None}, "stars": stars}
