"""What baselines are trained on: the images that igm's own checkpoint was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from igm_cli.benchmarks.frame.training import Deferred
from igm_cli.benchmarks.suites.attributes.splits import DATASET, DOMAIN
from igm_cli.core.training.trainer import Samples
from igm_cli.plugins import registry
from igm_cli.plugins.base import ConceptParser, Progress
from igm_cli.plugins.samples import DatasetSamples

SEED = 0
"""Of the drawn faces that ``igm train celeba`` learns from."""

VALIDATION = 400
"""Images of the validation split, which only choose learning rates."""


class TrainingData:
    """Training and validation samples of the domain trained on, loaded once, when first used.

    Args:
        data_root: Whose images are used; None draws faces.
        parser: Reads annotations.
        image_size: (width, height) that models see.
        faces: How many faces are drawn; None for as many as ``igm train celeba`` draws.
        progress: Called while images are drawn and read.
    """

    def __init__(
        self,
        data_root: Path | None,
        parser: ConceptParser,
        image_size: tuple[int, int],
        faces: int | None,
        progress: Progress,
    ) -> None:
        self.data_root, self.parser, self.image_size = data_root, parser, image_size
        self.faces, self.progress = faces, progress
        self.training: Samples = Deferred(lambda: self._samples("train", None))
        self.validation: Samples = Deferred(lambda: self._samples("val", VALIDATION))

    def describe(self) -> dict[str, Any]:
        """JSON, without reading a single image."""
        root = self.data_root.absolute().name if self.data_root else None
        return {"folder": root, "domain": DOMAIN, "faces": self.faces, "seed": SEED, "validation": VALIDATION}

    def _samples(self, split: str, limit: int | None) -> Samples:
        drawn = {"size": self.faces} if self.faces and self.data_root is None else {}
        data = registry.dataset(DATASET).load(
            split,
            data_root=self.data_root,
            limit=limit,
            seed=SEED,
            progress=self.progress,
            domain=DOMAIN,
            **drawn,
        )
        return DatasetSamples(data, self.parser, self.image_size, self.progress)
