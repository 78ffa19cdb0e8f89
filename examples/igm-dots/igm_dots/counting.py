"""The benchmark suite: how often the number of stars is right, by igm and by counting bright specks."""

from __future__ import annotations

import time

from igm_dots.sky import NightSky


class StarCount:
    name = "star-count"
    summary = "how many stars there are (example plugin)"
    methods = {"igm": "the model of --model", "specks": "connected groups of bright pixels"}
    splits = {"val": "skies never trained on"}
    options = {}
    concepts = "stars"

    def default_splits(self, data_root):
        return ("val",)

    def open(self, request):
        return StarBench(request)


class StarBench:
    def __init__(self, request):
        self.request = request
        self.skies = NightSky().load("val", limit=request.limit or 100, seed=request.seed)
        self.identity = {"model": request.model.name, "seed": request.seed}

    def items(self, split):
        return [str(row) for row in range(len(self.skies))]

    def method(self, name):
        return StarMethod(self, name)

    def report(self, records, infos):
        from igm_cli.benchmarks.suite import Report, Table

        rows = []
        for method in dict.fromkeys(record["method"] for record in records):
            right = [record["rows"][0]["right"] for record in records if record["method"] == method]
            rows.append((method, f"{100 * sum(right) / len(right):.0f} %", str(len(right))))
        return Report([Table("counts", "Number of stars", ("method", "right", "skies"), rows)])


class StarMethod:
    limit = None
    info = {}

    def __init__(self, bench, name):
        self.bench = bench
        self.count = {"igm": self.by_igm, "specks": self.by_specks}[name]

    def __call__(self, split, item):
        sky, started = self.bench.skies[int(item)], time.monotonic()
        counted = self.count(sky["image"].convert("RGB"))
        seconds = time.monotonic() - started
        return [{"label": "", "right": counted == len(sky["stars"]), "seconds": seconds}]

    def by_igm(self, image):
        from igm_cli.core.checkpoint import load_checkpoint
        from igm_cli.core.inference.engine import invert
        from igm_cli.core.types import InversionSettings
        from igm_cli.imaging import to_model
        from igm_cli.plugins.base import Frame

        model = load_checkpoint(self.bench.request.model, self.bench.request.device)
        width, height = model.spec.image_size
        x0 = to_model(image, Frame.fit(image.size, width / height), model.spec.image_size)
        settings = InversionSettings.from_dict(model.spec.inference, seed=self.bench.request.seed)
        return invert(model.denoiser, x0.to(self.bench.request.device), settings).k

    def by_specks(self, image):
        import numpy as np
        from scipy.ndimage import label

        return label(np.asarray(image.convert("L")) > 128)[1]
