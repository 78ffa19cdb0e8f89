"""What baselines are trained on: the images that igm's own checkpoint was trained on."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from igm_cli.benchmarks.frame.training import Deferred, Subset
from igm_cli.benchmarks.suites.object_discovery.splits import DATASET
from igm_cli.core.training.trainer import Samples
from igm_cli.errors import InputError
from igm_cli.plugins import registry
from igm_cli.plugins.base import ConceptParser, Progress
from igm_cli.plugins.samples import DatasetSamples, JoinedSamples

RENDERS: dict[str, Any] = {"objects": "3-5", "size": 16000, "crowd": 0.7}
"""The rendered scenes of the checkpoint's last stage (the dataset's preset ``finetune``)."""

RENDER_SEED = 1
HELD_OUT = 100  # images at the end of each part that only choose learning rates


class TrainingData:
    """Training and validation samples of 3 to 5 objects, loaded once, when first used.

    Args:
        data_root: Whose training images are used, if it has any, beside rendered ones.
        parser: Reads annotations.
        image_size: (width, height) that models see.
        renders: How many images are rendered.
        progress: Called while images are rendered and read.
    """

    def __init__(
        self,
        data_root: Path | None,
        parser: ConceptParser,
        image_size: tuple[int, int],
        renders: int,
        progress: Progress,
    ) -> None:
        self.data_root, self.parser, self.image_size = data_root, parser, image_size
        self.options = {**RENDERS, "size": renders}
        self.progress = progress
        self.training: Samples = Deferred(lambda: self._parts[0])
        self.validation: Samples = Deferred(lambda: self._parts[1])

    def describe(self) -> dict[str, Any]:
        """JSON, without reading a single image."""
        root = self.data_root.absolute().name if self.data_root else None
        return {"folder": root, "rendered": self.options, "seed": RENDER_SEED, "held_out": HELD_OUT}

    @cached_property
    def _parts(self) -> tuple[Samples, Samples]:
        parts = [self._rendered(), *self._given()]
        kept, held = [], []
        for part in parts:
            cut = max(len(part) - HELD_OUT, (len(part) + 1) // 2)
            kept.append(Subset(part, range(cut)))
            held.append(Subset(part, range(cut, len(part))))
        return JoinedSamples(kept), JoinedSamples(held)

    def _rendered(self) -> Samples:
        data = registry.dataset(DATASET).load("train", seed=RENDER_SEED, progress=self.progress, **self.options)
        return DatasetSamples(data, self.parser, self.image_size, self.progress)

    def _given(self) -> list[Samples]:
        if self.data_root is None:
            return []
        try:
            data = registry.dataset(DATASET).load("train", data_root=self.data_root, objects="3-5")
        except InputError:  # a folder of test images only
            return []
        return [DatasetSamples(data, self.parser, self.image_size, self.progress)]
