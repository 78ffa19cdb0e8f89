"""Evaluates how well a model finds the concepts of annotated images, and calibrates it on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.core.validation import reporter
from igm_cli.errors import InputError, UsageError, counted
from igm_cli.imaging import Frame, from_model, to_rgb
from igm_cli.open_model import OpenModel
from igm_cli.session import ImageSession

if TYPE_CHECKING:
    import datasets
    from PIL.Image import Image
    from torch import Tensor

    from igm_cli.core.types import Inversion
    from igm_cli.plugins.base import ConceptParser, Note, Progress

WINDOW = 96
"""Side in pixels of the windows on which a model for images of any size is evaluated, or the smallest image's if less."""

FEWEST = 16
"""Minimum number of annotated images, or windows of them, for calibration."""

FEWEST_CUT = 5
"""Minimum number of images that these windows are of: with fewer, a single unusual image
decides how sure the model is of all others."""


@dataclass(frozen=True)
class Judged:
    """An annotated image, and what was found in it."""

    row: int  # number of the image or window
    found: Inversion  # without what matches an annotation beyond a window's border
    count: int  # number of annotated concepts whose place is within the image
    right: Tensor  # which found concepts are right, and which of the F values of each, [K,1+F]
    area: float  # the image's area relative to that of the training images
    image: int  # number of the image, or of that which a window is of

    @property
    def hits(self) -> int:
        """How many of the found concepts are right in every respect."""
        return int(self.right.all(1).sum())

    @property
    def mistakes(self) -> int:
        """Number of missed concepts plus number of wrong ones."""
        return abs(self.count - self.hits) + len(self.right) - self.hits


class Evaluation:
    """A split of annotated images as a model sees them; the model's parser reads the annotations.

    A model for images of any size sees windows of them, with any number of objects.  ``limit`` is the number of images or
    windows; by default all images are evaluated, or as many windows.

    Raises:
        UsageError: If the parser cannot judge which concepts are right.
        InputError: If an annotation cannot be read.
    """

    def __init__(
        self,
        model: OpenModel,
        data: datasets.Dataset,
        limit: int | None = None,
        progress: Progress | None = None,
        note: Note = lambda text: None,
    ) -> None:
        if not hasattr(model.parser, "right"):
            raise UsageError(
                f"the concepts {model.parser.name!r} do not say which of those found are right; add a method "
                "right(predicted, truth) to the parser"
            )
        note = cache(note)
        self.model, self.data, self.note = model, data, note
        self.windows: Any = None
        if model.scale:
            from igm_cli.plugins.crops import Crops, CropSamples

            side = self._window()
            cut = Crops(scale=model.scale, most=10**6, margin=model.margin)
            self.windows = CropSamples(data, model.parser, (side, side), cut, 0, progress, note)
        self.count = len(data) if limit is None else limit if self.windows else min(limit, len(data))

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many images are looked at, and how many windows of them if the model sees windows."""
        if not self.windows:
            return {"images": self.count}
        return {"windows": self.count, "images": len({self._image(row) for row in range(self.count)})}

    @property
    def of(self) -> str:
        """What is looked at, in words: ``16 images``, or ``16 windows of 3 images``."""
        return " of ".join(counted(number, name.removesuffix("s")) for name, number in self.counts.items())

    def judge(self, given: Mapping[str, Any], progress: Progress | None = None) -> list[Judged]:
        """Inverts and judges all images; inversion settings not ``given`` are the model's own."""
        session = ImageSession(self.model, fit=None, given=given, note=self.note)
        judged: list[Judged] = []
        tell = reporter(progress)
        tell("evaluating", 0, self.count)
        for first in range(0, self.count, session.batch_size):
            rows = range(first, min(first + session.batch_size, self.count))
            images, truths = self._seen(session, rows)
            inverted = session.inverted(images)
            for row, seen, truth, found in zip(rows, images, truths, inverted, strict=True):
                if self.windows:
                    size = (seen.shape[-2], seen.shape[-1])
                    area, count = math.prod(size) / math.prod(self.model.image_size), int(_shown(truth).sum())
                    found, right = _right_within(self.model.parser, found, truth, size)
                else:
                    area, count = 1.0, len(truth)
                    right = found_right(self.model.parser, found.concepts, truth)
                judged.append(Judged(row, found, count, right, area, self._image(row)))
            tell("evaluating", len(judged), self.count)
        return judged

    def calibrated(
        self, progress: Progress | None = None, given: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Fits the penalty, the temperatures and the typicality to the images, and returns these settings.

        Settings ``given``, but for the seed, stay as they are and are returned, too.  Unless the penalty is given, all images
        are inverted twice.

        Raises:
            InputError: If there are too few images.
        """
        from igm_cli.core.calibration import fitted_penalty, fitted_temperature
        from igm_cli.core.inference.typicality import LOOKS, MANY, Typical, fitted

        if self.count < FEWEST:
            raise InputError(f"a model is calibrated on {FEWEST} images or more, not {self.count}; add some")
        chosen: dict[str, Any] = dict(given or {})
        if "penalty" not in chosen and self.model.parser.space.countable:
            found = self.judge({**chosen, "penalty": 0.0}, progress)
            counts = [each.count for each in found]
            curves, areas = [each.found.k_curve for each in found], [each.area for each in found]
            chosen["penalty"] = round(fitted_penalty(curves, counts, areas), 3)
        settings = ImageSession(self.model, given=chosen).settings
        looks = LOOKS if self.count >= MANY and not self.windows else ()
        unknown = Typical.unknown(settings.low, settings.high, looks)
        judged = self.judge({**chosen, "typical": unknown}, progress)
        evidence = [(each.found.evidence, each.right) for each in judged if each.found.evidence]
        rivals = [each for known, _ in evidence for each in known.rivals]
        right = [bool(one) for _, rights in evidence for one in rights[:, 0]]
        chosen["temperature"] = fitted_temperature(rivals, right)
        values = [
            (each, row[1:].tolist())
            for known, rights in evidence
            for each, row in zip(known.value_rivals, rights, strict=False)
            if row[0]
        ]
        if values:
            rivals, right = ([one for part in parts for one in part] for parts in zip(*values, strict=True))
            chosen["value_temperature"] = fitted_temperature(rivals, right)
        chosen["typical"] = fitted([known.features for known, _ in evidence], unknown.low, unknown.high, looks)
        chosen.pop("seed", None)  # of this call
        return chosen

    def keep(self, folder: Path, fitted: dict[str, Any], dataset: str, split: str) -> str:
        """Writes fitted settings into the model's description, with what they were fitted to; returns that in words.

        The model is called calibrated only if its confidence was fitted to enough images.
        """
        of = f"{self.of} of {dataset}, {split}"
        if self.counts["images"] >= (FEWEST_CUT if self.windows else 1):
            keep_calibration(
                folder, fitted, {"calibrated": {**self.counts, "dataset": dataset, "split": split}}
            )
            return f"calibrated on {of}"
        said = f"fitted to {of}, fewer images than the {FEWEST_CUT} that calibrated confidence takes"
        keep_calibration(folder, fitted, {"not_calibrated": said})
        return said

    def _image(self, row: int) -> int:
        """Returns the number of the image that a window, or an image, is of."""
        return int(self.windows.crop(row).row) if self.windows else row

    def _window(self) -> int:
        """Returns the windows' side: as large as the images allow up to WINDOW, no smaller than the model's own images."""
        named = {"width", "height"} <= set(self.data.column_names)
        sizes = zip(*(self.data[side] for side in ("width", "height")), strict=True) if named else None
        sides = (min(size) for size in sizes or (each["image"].size for each in self.data))
        unit = max(self.model.image_size)
        smallest = int(min(sides, default=WINDOW) * self.model.scale)
        return max(unit, smallest // unit * unit) if smallest < WINDOW else max(unit, WINDOW)

    def name(self, judged: Judged) -> str:
        """Returns the dataset's name of an image, or its number; of a window, with its left upper corner in the image."""
        if not self.windows:
            return str(self.data[judged.row].get("file") or f"image {judged.row}")
        crop = self.windows.crop(judged.row)
        left, top = (round(side / self.model.scale) for side in crop.box[:2])
        return f"{self.windows.images[crop.row].example.get('file') or f'image {crop.row}'} at {left},{top}"

    def pictures(self, judged: Judged) -> tuple[Image, Image]:
        """Returns two copies of an image as the model sees it, with the annotated and with the found concepts drawn on it."""
        shown = copy(self.model)
        shown.encode = None  # the image itself, also of a model of latents
        (seen,), (truth,) = self._seen(ImageSession(shown, note=lambda text: None), [judged.row])
        picture, parser = from_model(seen.cpu()), self.model.parser
        frame = Frame.fit(picture.size, picture.width / picture.height)
        annotated = parser.decode(truth[_shown(truth)] if self.windows else truth, frame)
        return parser.draw(picture, annotated), draw_found(parser, picture, frame, judged.found)

    def _seen(self, session: ImageSession, rows: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the model's view of images, and the concepts annotated in them."""
        from igm_cli.core.training.batches import as_floats

        if self.windows:
            cut = [self.windows.cut(self.windows.crop(row)) for row in rows]
            return [as_floats(pixels).to(session.device) for pixels, _ in cut], [truth for _, truth in cut]
        examples = [self.data[row] for row in rows]
        names = [
            str(example.get("file") or f"image {row}") for example, row in zip(examples, rows, strict=True)
        ]
        images = [session.input(to_rgb(e["image"]), name) for e, name in zip(examples, names, strict=True)]
        frames, seen = session.framed(images)
        told = [{key: value for key, value in example.items() if key != "image"} for example in examples]
        return seen, [self.model.parser.parse(each, frame) for each, frame in zip(told, frames, strict=True)]


def _shown(truth: Tensor) -> Tensor:
    """Returns which annotated concepts, of ``[L,D]`` in and around a window, lie inside it ``[L]``."""
    return ((truth[:, :2] >= 0) & (truth[:, :2] <= 1)).all(1)


def _right_within(
    parser: ConceptParser, found: Inversion, truth: Tensor, window: tuple[int, int]
) -> tuple[Inversion, Tensor]:
    """Returns what was found in a window, and what of it is right as :func:`found_right` says.

    Annotations beyond the border do not count: what matches one of them, and none inside, is neither right nor wrong,
    and is left out.
    """
    shown = _shown(truth)
    right = found_right(parser, found.concepts, truth[shown], window)
    kept = right[:, 0].clone()
    kept[~kept] = ~found_right(parser, found.concepts[~kept], truth[~shown], window)[:, 0]
    return found.keep(kept), right[kept]


def draw_found(parser: ConceptParser, picture: Image, frame: Frame, found: Inversion) -> Image:
    """Returns a copy of a picture with what was found in it, and the confidences."""
    items = parser.decode(found.concepts, frame)
    sure = found.confidence.tolist()
    return parser.draw(picture, [{**item, "confidence": p} for item, p in zip(items, sure, strict=True)])


def found_right(
    parser: ConceptParser, found: Tensor, truth: Tensor, window: tuple[int, int] | None = None
) -> Tensor:
    """Returns which found concepts ``[K,D]`` are right, and which of the F values of each, ``[K,1+F]`` booleans.

    ``truth`` is ``[L,D]``.  ``window`` is the (height, width) in pixels of a part of an image.  Objects have the same size in
    windows of any size, so places must be as near in pixels as in a window of :data:`WINDOW` pixels.
    """
    if window:
        import torch

        share = torch.ones(found.shape[1])
        share[:2] = torch.tensor(window[::-1]) / WINDOW
        found, truth = found.cpu() * share, truth.cpu() * share
    right: Tensor = parser.right(found, truth)  # type: ignore[attr-defined]
    return right


def keep_calibration(folder: Path, fitted: dict[str, Any], about: dict[str, Any]) -> None:
    """Writes fitted settings into a model's description, with ``about``: what they were fitted to, or why they were not."""
    from igm_cli.core.checkpoint import add_to_description

    plain = {key: asdict(value) if key == "typical" else value for key, value in fitted.items()}
    add_to_description(folder, {"calibrated": None, "not_calibrated": None, **about}, plain)


def numbers(fitted: Mapping[str, Any]) -> dict[str, float]:
    """Returns those of the fitted settings that are numbers."""
    return {key: fitted[key] for key in ("penalty", "temperature", "value_temperature") if key in fitted}


def in_words(fitted: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """Describes fitted settings, and those given, in words, and what the fitted ones were ``before``."""
    told = []
    for key, value in numbers(fitted).items():
        was, now = (f"{each:.3g}" for each in (before.get(key, math.nan), value))
        told.append(f"{key.replace('_', ' ')} {now}" + (f" ({was} before)" if was not in (now, "nan") else ""))
    told += [f"{key} {value}" for key, value in fitted.items() if key not in (*numbers(fitted), "typical")]
    return ", ".join(told)
