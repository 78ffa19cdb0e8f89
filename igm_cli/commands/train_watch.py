"""What is seen of a training: its progress, the validation of the model so far, and at the end how it went."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from igm_cli.benchmarks.suite import Curve, Plot
from igm_cli.commands.drawings import save_picture, sheet
from igm_cli.commands.figures import draw
from igm_cli.core.checkpoint import ModelSpec
from igm_cli.core.inference.engine import invert
from igm_cli.core.sampling import Composed, sample
from igm_cli.core.training.batches import as_floats
from igm_cli.core.types import InversionSettings
from igm_cli.errors import missing
from igm_cli.evaluation import draw_found, found_right
from igm_cli.imaging import Frame, from_model, to_model, to_rgb
from igm_cli.output import Output, ProgressReport
from igm_cli.plugins.base import ConceptParser
from igm_cli.plugins.crops import Crops, CropSamples
from igm_cli.plugins.samples import pad

if TYPE_CHECKING:
    import datasets

CURVES = "curves.png"
"""File name of the plotted curves in a run folder."""

STILL_FALLING = 0.01
"""If the loss falls by more than this over the last two fifths of a training, more steps are advised."""

Row: TypeAlias = tuple[Image, Frame, Tensor, Tensor]
"""An image, its frame, the model's input ``[3,H,W]``, and its concepts ``[K,D]``."""

COUNT = 8
SAMPLING_STEPS = 30


class Watch:
    """Shows every step of a training by a bar, or by log lines, which also report speed and memory."""

    def __init__(self, sink: Output, steps: int, bar: ProgressReport) -> None:
        self.sink, self.steps, self.bar = sink, steps, bar
        self.figures: dict[str, float] = {}
        bar("training", 0, steps)  # starts its clock at once

    def __call__(self, step: int, figures: Mapping[str, float]) -> None:
        """Receives a step and its logged figures."""
        self.figures |= figures
        shown = {"loss": "loss {:.4f}"}
        if not self.sink.on_terminal:
            shown |= {"images_per_second": "{:.3g} images/s", "memory_gb": "{:.1f} GB"}
        parts = [form.format(self.figures[name]) for name, form in shown.items() if name in self.figures]
        self.bar(f"training: {', '.join(parts)}" if parts else "training", step, self.steps)


class Validation:
    """Validates a model in training on at most :data:`COUNT` annotated images; pictures go to ``folder``."""

    def __init__(
        self,
        examples: datasets.Dataset,
        parser: ConceptParser,
        spec: ModelSpec,
        folder: Path,
        crops: Crops | None = None,
    ) -> None:
        self.parser, self.spec, self.folder, self.cut = parser, spec, folder, crops is not None
        self.rows = _crops(examples, parser, spec, crops) if crops else _whole(examples, parser, spec)

    def __call__(self, step: int, denoiser: nn.Module) -> tuple[Mapping[str, float], Mapping[str, Tensor]]:
        """Inverts the images and samples from their concepts; writes two pictures and returns them with the mean scores."""
        training = denoiser.training
        denoiser.eval()
        scores, drawn = self._invert(denoiser)
        sheets = {"inversion": sheet(drawn), "samples": sheet(self._sample(denoiser))}
        for name, picture in sheets.items():
            save_picture(picture, self.folder / "pictures" / f"{name}-{step:07d}.png")
        denoiser.train(training)
        figures = {f"validation/{name}": value for name, value in scores.items()}
        pictures = {f"validation/{name}": torch.tensor(np.asarray(each)) for name, each in sheets.items()}
        return figures, pictures

    def _invert(self, denoiser: Any) -> tuple[dict[str, float], list[Image]]:
        """Returns mean scores with K given, each over the images that have it, and every image with what was found.

        ``right`` is the proportion of concepts found, ``k_exact`` that of images whose estimated K is right.
        """
        settings = InversionSettings.from_dict(self.spec.inference)
        composition = self.spec.composition
        device = next(denoiser.parameters()).device
        scores, drawn = defaultdict[str, list[float]](list), []
        concepts = sum(len(truth) for *_, truth in self.rows)
        for image, frame, x0, truth in self.rows:
            found = invert(denoiser, x0.to(device), settings, k=len(truth), composition=composition)
            figures = self.parser.score(found.concepts, truth)
            if hasattr(self.parser, "right"):
                window = (x0.shape[-2], x0.shape[-1]) if self.cut else None
                right = found_right(self.parser, found.concepts, truth, window)
                share = len(self.rows) / max(1, concepts)
                scores["right"].append(float(right.all(1).sum()) * share)
                if right.shape[1] > 1:
                    scores["place_right"].append(float(right[:, 0].sum()) * share)
            if self.parser.space.countable:
                counted = invert(denoiser, x0.to(device), settings, composition=composition)
                figures["k_exact"] = float(counted.k == len(truth))
            for name, value in figures.items():
                if value is not None and math.isfinite(value):
                    scores[name].append(value)
            drawn.append(draw_found(self.parser, image, frame, found))
        return {name: fmean(values) for name, values in scores.items()}, drawn

    def _sample(self, denoiser: Any) -> list[Image]:
        """Returns the model's input of every image above a sample from its true concepts."""
        device = next(denoiser.parameters()).device
        originals = torch.stack([x0 for _, _, x0, _ in self.rows])
        _, channels, height, width = originals.shape
        concepts, present = pad([truth for *_, truth in self.rows])
        asked, present, shape = concepts.to(device), present.to(device), (channels, height, width)
        model = Composed.of(denoiser, asked, self.spec.composition, present)
        samples = sample(model, shape, steps=SAMPLING_STEPS)
        return [from_model(pair) for pair in torch.cat([originals, samples.float().cpu()], dim=2)]


def _whole(examples: datasets.Dataset, parser: ConceptParser, spec: ModelSpec) -> list[Row]:
    """Returns whole images as the model sees them."""
    rows = []
    width, height = spec.image_size
    for example in examples.select(range(min(COUNT, len(examples)))):
        image = to_rgb(example["image"])
        frame = Frame.fit(image.size, width / height)
        rows.append((image, frame, to_model(image, frame, spec.image_size), parser.parse(example, frame)))
    return rows


def _crops(examples: datasets.Dataset, parser: ConceptParser, spec: ModelSpec, crops: Crops) -> list[Row]:
    """Returns crops as the model sees them, unchanged, and the concepts whose centres lie in them."""
    plain = replace(crops, margin=0, brightness=0.0, turns=False)
    samples = CropSamples(examples, parser, spec.image_size, plain, seed=0)
    rows = []
    for number in range(COUNT):
        pixels, truth = samples.cut(samples.crop(number))
        x0 = as_floats(pixels)
        image = from_model(x0)
        rows.append((image, Frame.fit(image.size, image.width / image.height), x0, truth))
    return rows


def how_it_went(metrics: Sequence[Mapping[str, float]], steps: int) -> tuple[str, str]:
    """Returns how loss and validation developed, by the lines of metrics.jsonl, and advice about it."""
    losses = [line["loss"] for line in metrics if "loss" in line]
    names = ("right", "place_right", "k_exact")
    found, placed, counted = (_last(metrics, f"validation/{name}") for name in names)
    if not losses:
        return "nothing was logged of it", "smaller log_every logs more"
    fifth = max(1, len(losses) // 5)
    first, before, last = (
        sum(part) / len(part)
        for part in (losses[:fifth], losses[-2 * fifth : -fifth] or losses[:1], losses[-fifth:])
    )
    then, now = f"{first:.4f}", f"{last:.4f}"
    change = f"{'fell' if last < first else 'rose'} from {then} to {now}"
    said = f"the loss stays at {now}" if then == now else f"the loss {change}"
    if found is not None:
        share = found if placed is None else placed
        said += f"; {share:.0%} of the concepts of the validation images are found"
    if placed is not None:
        said += f", {found:.0%} with every value right"
    if counted is not None:
        said += f", and the number is right for {counted:.0%}"
    if last >= first:
        advice = (
            "it did not learn: check the annotations (--dry-run draws them), then try another learning_rate"
        )
    elif placed is not None and found is not None and placed >= 0.5 > found:
        advice = (
            f"places are learned sooner than values: continue with --steps {2 * steps}; train.mixed and train.contrast help "
            "values"
        )
    elif found is not None and found < 0.5:
        advice = (
            f"that is few: continue with --steps {2 * steps}, and check the annotations (--dry-run draws them)"
        )
    elif len(losses) > 4 and before - last > STILL_FALLING * before:
        advice = f"the loss is still falling: --steps {2 * steps} continues from here, and may be better"
    elif counted is not None and counted < 0.5:
        advice = "objects are found but counted badly: igm evaluate --calibrate on more images may mend that"
    else:
        advice = "it went well"
    return said, advice


def _last(metrics: Sequence[Mapping[str, float]], name: str) -> float | None:
    """Returns the last value of a figure, None if there is none."""
    return next((line[name] for line in reversed(metrics) if name in line), None)


def draw_curves(metrics: Sequence[Mapping[str, float]], folder: Path) -> str:
    """Plots loss and validation over the steps in a run folder; returns a sentence saying where, or what is missing."""
    if missing("matplotlib"):
        return "pip install 'igm-cli[plots]' to have its curves drawn"

    def curve(label: str, name: str, factor: float = 1) -> Curve:
        points = [(line["step"], factor * line[name]) for line in metrics if name in line]
        return Curve(label, [x for x, _ in points], [y for _, y in points])

    placed = _last(metrics, "validation/place_right")
    plots = [Plot("loss", "Loss", "step", "loss", [curve("Loss", "loss")], log_y=True)]
    found = "concepts found" if placed is None else "every value right, too"
    labels = {"place_right": "places found", "right": found, "k_exact": "number right"}
    shown = [curve(label, f"validation/{name}", 100) for name, label in labels.items()]
    if known := [each for each in shown if each.x]:
        plots.append(Plot("validation", "Validation images", "step", "%", known))
    save_picture(sheet([draw(plot) for plot in plots], width=760), folder / CURVES)
    return f"the curves are drawn in {folder / CURVES}"
