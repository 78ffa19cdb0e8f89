"""Validation during training: inverts a few validation images and samples from their concepts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from igm_cli.commands.drawings import save_picture, sheet
from igm_cli.core.checkpoint import ModelSpec
from igm_cli.core.inference.engine import invert
from igm_cli.core.sampling import Composed, sample
from igm_cli.core.training.batches import as_floats
from igm_cli.core.types import InversionSettings
from igm_cli.evaluation import draw_found, found_right
from igm_cli.imaging import Frame, from_model, to_model, to_rgb
from igm_cli.plugins.base import ConceptParser, Progress
from igm_cli.plugins.crops import Crops, CropSamples
from igm_cli.plugins.samples import pad

if TYPE_CHECKING:
    import datasets

Row: TypeAlias = tuple[Image, Frame, Tensor, Tensor]
"""An image, its frame, the model's input ``[3,H,W]``, and its concepts ``[K,D]``."""

COUNT = 8
SAMPLING_STEPS = 30


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
        for *_, truth in self.rows[:1]:  # so that a parser fails before the first step
            parser.score(truth, truth)
            if hasattr(parser, "right"):
                found_right(parser, truth, truth)

    def __call__(
        self,
        step: int,
        denoiser: nn.Module,
        *,
        progress: Progress = lambda what, done, total: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> tuple[Mapping[str, float], Mapping[str, Tensor]] | None:
        """Inverts the images and samples from their concepts; writes two pictures and returns them with the mean scores.

        It asks before every network call whether to ``stop``, and then returns None.
        """
        training = denoiser.training
        denoiser.eval()
        try:
            with ending(denoiser, stop):
                scores, drawn = self._invert(denoiser, progress)
                sheets = {"inversion": sheet(drawn), "samples": sheet(self._sample(denoiser))}
        except _Stopped:
            return None
        finally:
            denoiser.train(training)
        for name, picture in sheets.items():
            save_picture(picture, self.folder / "pictures" / f"{name}-{step:07d}.png")
        figures = {f"validation/{name}": value for name, value in scores.items()}
        pictures = {f"validation/{name}": torch.tensor(np.asarray(each)) for name, each in sheets.items()}
        return figures, pictures

    def _invert(self, denoiser: Any, progress: Progress) -> tuple[dict[str, float], list[Image]]:
        """Returns mean scores with K given, each over the images that have it, and every image with what was found.

        ``right`` is the proportion of concepts found, ``k_exact`` that of images whose estimated K is right.
        """
        settings = InversionSettings.from_dict(self.spec.inference)
        composition = self.spec.composition
        device = next(denoiser.parameters()).device
        scores, drawn = defaultdict[str, list[float]](list), []
        concepts = sum(len(truth) for *_, truth in self.rows)
        for done, (image, frame, x0, truth) in enumerate(self.rows):
            progress("validation images", done, len(self.rows))
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
            progress("validation images", done + 1, len(self.rows))
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


class _Stopped(Exception):
    """Whoever trains asks to end."""


@contextmanager
def ending(network: nn.Module, stop: Callable[[], bool]) -> Iterator[None]:
    """Ends the block by :class:`_Stopped` when the network is called after ``stop`` said so."""

    def ask(*_: Any) -> None:
        if stop():
            raise _Stopped

    hooks = [part.register_forward_pre_hook(ask) for part in network.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


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
