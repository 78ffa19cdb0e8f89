"""``igm train --dry-run``: what would be trained on and how, who says so, and what it would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from igm_cli.commands.train_data import draw_samples, told
from igm_cli.errors import counted
from igm_cli.output import Output, span

if TYPE_CHECKING:
    import torch
    from torch import nn

    from igm_cli.commands.train_preset import DataPart, Recipe
    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.core.training.batches import Samples
    from igm_cli.core.training.objectives import Companion
    from igm_cli.plugins.base import ConceptParser, DatasetAdapter


@dataclass(frozen=True)
class DryRun:
    """A training that is ready to begin."""

    adapter: DatasetAdapter
    parser: ConceptParser
    recipe: Recipe
    parts: Sequence[DataPart]
    spec: ModelSpec
    samples: Samples

    def show(
        self, output: Path, model: nn.Module, beside: Sequence[Companion], device: torch.device, sink: Output
    ) -> None:
        """Prints every setting, draws twelve samples, and tries a few steps; nothing else is written."""
        from igm_cli.commands.drawings import refuse_others_pictures
        from igm_cli.core.device import training_precision
        from igm_cli.core.training.run import measure
        from igm_cli.core.training.state import SAMPLES

        picture = output / SAMPLES
        refuse_others_pictures([picture], "--dry-run")
        draw_samples(self.samples, self.parser, picture)
        rows = self._data() + self.recipe.settings(self.parser)
        sink.table(f"igm train {self.adapter.name}", ("setting", "value", "said by"), rows)
        config = self.recipe.preset().config()
        seconds, memory = measure(
            self.spec, self.samples, config, model, device_is_cpu=device.type == "cpu", companions=beside
        )
        whole = seconds * config.steps
        shown = training_precision(config.precision, device).replace("no", "float32")
        taken = "" if memory is None else f" and {memory:.1f} GB"
        first = " if all are like the first ones" if len([n for n in config.phases if n]) > 1 else ""
        sink.note(
            f"would train on {told(self.samples, self.adapter)} for {counted(config.steps, 'step')} of {seconds:.2g} s in {shown}, which takes "
            f"{span(whole, whole)}{taken}{first}; twelve are drawn in {picture}"
        )

    def _data(self) -> list[tuple[str, str, str]]:
        """Every part of the data, in the words of a preset."""
        rows = []
        for number, part in enumerate(self.parts):
            name = "data" if len(self.parts) == 1 else f"data[{number}]"
            for key in ("data_root", "split", "limit", "seed"):
                value = getattr(part, key)
                rows.append((f"{name}.{key}", "" if value is None else str(value), ""))
            for key in self.adapter.options:
                given = key in part.options
                who = self.recipe.origin("data", key) if given else "default"
                rows.append((f"{name}.{key}", str(part.options[key]) if given else "", who))
        return rows
