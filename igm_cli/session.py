"""Sessions: a model or codebooks with the settings of one call.

The library and the commands share them.  A session turns inputs into results.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic

from igm_cli.core.files import fingerprint_of
from igm_cli.core.validation import of_python, reporter, whole_number
from igm_cli.errors import UsageError, counted, near_names
from igm_cli.folders import SUFFIXES, VIDEOS, Source
from igm_cli.imaging import Frame, refuse_enlarged, to_model
from igm_cli.inputs import Data, ImageInputs, Input, shared_key
from igm_cli.open_model import OpenModel, suitable_batch
from igm_cli.pixels import Scaling, check_range, warn
from igm_cli.records import ImageCount, ImageResult, LabelResult, SharedResult

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from igm_cli.core.types import Inversion, InversionSettings
    from igm_cli.plugins.base import ConceptParser, Progress

ARGUMENTS = ("k", "fit", "scale", "pixel_range", "progress", "batch_size")
"""Arguments of :meth:`igm_cli.Model.invert` beside the inversion settings."""

LEAST_SEEN = 0.6
"""If the model sees a smaller share of an image than this, the user is told."""


class Session(Generic[Data]):
    """Turns inputs into results with the settings of one call: the base of the two sessions."""

    key: Sequence[str]  # fields of a record that together name its input; some inputs lack the later ones
    each_is: str  # the noun for one input
    reads: str = "images"  # or vectors
    together: bool  # whether a result may depend on the rest of its batch
    parser: ConceptParser
    device: torch.device
    batch_size: int  # inputs per batch
    run: str  # fingerprint of everything but the input that determines a result

    def is_full(self, waiting: Sequence[Input[Data]]) -> bool:
        """Returns whether the inputs fill a batch."""
        return len(waiting) >= self.batch_size

    def in_batches(
        self, work: Callable[..., Sequence[Any]], inputs: Sequence[Input[Data]], progress: Progress | None
    ) -> list[Any]:
        """Returns the results of any number of inputs, batch by batch, and reports progress."""
        results: list[Any] = []
        tell, what = reporter(progress), f"{self.each_is}s"
        first = 0
        for number in range(1, len(inputs) + 1):
            if number == len(inputs) or self.is_full(inputs[first:number]):
                tell(what, first, len(inputs))
                results += work(inputs[first:number], progress)
                for each in inputs[first:number]:  # whose decoded images may not fit in memory all at once
                    each.__dict__.pop("data", None)
                first = number
        tell(what, len(inputs), len(inputs))
        return results

    def check(self, each: Input[Data]) -> None:
        """Raises an :class:`InputError` if an input cannot be used; decodes it to see."""
        _ = each.data

    def expected(self, source: Source) -> int:
        """Returns the number of inputs in a source, as far as it is known."""
        return 1

    def asked(self, record: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns what records tell of the options of this call, or what a record tells of those of its own."""
        return {}

    def record(self, schema: str, each: Input[Data], seconds: float, **found: Any) -> dict[str, Any]:
        """Returns the record of an input: the fields of all records, and what was found."""
        about = {"schema": schema, **each.about, "sha256": each.sha256, "concepts": self.parser.name}
        return {**about, **found, "seconds": seconds, "device": str(self.device), "run": self.run}


class ImageSession(ImageInputs, Session["Image"]):
    """A model with the settings of one call; arguments are those of :meth:`igm_cli.Model.invert`.

    ``fit`` None crops images, where there is no other choice to speak of.  ``given`` holds inversion settings that
    replace the model's own unless they are None.  ``note`` receives assumptions about images; by default they become
    Python warnings.  Each ``every``-th video frame is an image; None reads no videos.
    """

    key = ("image", "frame")
    each_is = noun = "image"
    together = False
    cut_is_said = False

    def __init__(
        self,
        model: OpenModel,
        *,
        k: int | None = None,
        fit: str | None = "crop",
        batch_size: int | None = None,
        given: Mapping[str, Any] = MappingProxyType({}),
        scale: float | None = None,
        shared: bool = False,
        pixel_range: Any = None,
        note: Callable[[str], None] | None = None,
        every: int | None = None,
    ) -> None:
        from igm_cli.core.inference.engine import check_method, constraint_of

        k, batch_size = whole_number("k", k), whole_number("batch_size", batch_size, 1)
        given = {name: of_python(value) for name, value in given.items()}
        self.other_fit = "; --fit squash takes all of it" * (fit is not None)
        fit = fit or "crop"
        if fit not in ("crop", "squash"):
            raise UsageError(f"unknown fit {fit!r}; choose crop or squash")
        if model.companions:
            raise UsageError(
                f"{model.name} predicts nothing by itself, it adds to {' and '.join(model.companions)}; draw with both by "
                "igm generate --model, or train it without --with"
            )
        self.model, self.parser, self.device, self.shared = model, model.parser, model.device, shared
        self.k, self.fit, self.batch_size = k, fit, batch_size or _at_once(model)
        self.by_pixels = batch_size is None
        if not shared or any(given.get(name) is not None for name in ("k_min", "k_max")):
            self._refuse_count(given)
        if scale is not None and not model.scale:
            raise UsageError(f"the model {model.name!r} takes every image at one size; leave out the scale")
        if shared and model.scale:
            raise UsageError(
                f"what images have in common is found by models that see all images at one size, and {model.name!r} takes "
                "images of any size; choose another model"
            )
        if fit != "crop" and model.scale:
            raise UsageError(f"the model {model.name!r} sees whole images of any size; leave out the fit")
        if scale is not None and not 0.01 <= scale <= 100:
            raise UsageError(f"a scale lies between 0.01 and 100, not {scale:g}")
        self.every, self.suffixes = every, (*SUFFIXES, *VIDEOS) if every else SUFFIXES
        self.scaling = Scaling(check_range(pixel_range), note or warn)
        self.scale, self.k_max = scale or model.scale, given.get("k_max")
        self.settings = _settings(model.inference, given)
        check_method(self.parser.space, self.settings.method)
        if shared:
            from igm_cli.core.inference.shared import check_shared

            check_shared(self.parser.space, self.settings, k)
        elif self.settings.method == "evidence":  # raises an error now if the constraint refuses k
            constraint_of(self.parser.space)(self.parser.space, self.settings, k)
        how = {"concepts": self.parser.name, "settings": self.settings.to_dict(), "k": k, "fit": fit}
        beside = {"scale": self.scale, "pixel_range": self.scaling.given, "shared": shared}
        beside = {name: value for name, value in beside.items() if value}  # so that older results stay valid
        self.run = fingerprint_of({**model.identity, **how, **beside})

    def check(self, each: Input[Image]) -> None:
        """As :meth:`Session.check`; an image may also be too large at the scale."""
        refuse_enlarged(each.data.size, self.scale, str(each.about["image"]))

    def asked(self, record: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """As :meth:`Session.asked`: how many concepts there are, and which labels; a model may have another name."""
        if record is None:
            space: Any = self.parser.space
            k, labels = self.k, [*getattr(space, "labels", ())]
            labels = [label for label in labels if label != space.nothing]
        else:
            k = record["k"] if record.get("k_source") == "given" else None
            labels = [each["label"] for each in record.get("labels", ())]
        return {"k": k or "estimated", **({"labels": sorted(labels)} if labels else {})}

    def require_labels(self) -> None:
        """Raises an error if the parser cannot write labels beside objects."""
        if not hasattr(self.parser, "draw_labels"):
            raise UsageError(
                f"concepts {self.parser.name} have nothing to write beside objects (no draw_labels); leave out --labels"
            )

    def example(self) -> dict[str, Any]:
        """Returns an example of an item without its confidence; empty if the space offers none."""
        space: Any = self.parser.space
        if hasattr(space, "candidates"):
            concepts = space.candidates()
        elif hasattr(space, "point"):
            concepts = space.grid([1] * space.point.dim)
        else:
            return {}
        return self.parser.decode(concepts[:1], Frame.fit((2, 2), 1.0))[0]

    def require_counting(self) -> None:
        """Raises an error if every image has the same number of concepts, so that there is nothing to count."""
        if not self.parser.space.countable:
            raise UsageError(
                f"the model {self.model.name!r} finds one value of every factor, so there is nothing to count; "
                "use igm invert, or a model of positions"
            )

    def _refuse_count(self, given: Mapping[str, Any]) -> None:
        """Refuses options about the number of concepts if the space determines it."""
        if self.parser.space.countable:
            return
        factors = len(self.parser.space.groups())  # type: ignore[attr-defined]
        asked = [f"--{n.replace('_', '-')}" for n in ("k_min", "k_max") if given.get(n) is not None]
        if self.k not in (None, factors) or asked:
            option = asked[0] if asked else f"--k {self.k}"
            raise UsageError(
                f"the model {self.model.name!r} has {counted(factors, 'factor')} and finds a value of each; leave out {option}"
            )

    def each(self, work: Callable[..., Sequence[Any]], images: Any, progress: Progress | None) -> Any:
        """Returns the results of images in any form: a list, or for a single image its result."""
        if isinstance(images, list | tuple):
            return self.in_batches(work, self.inputs(images), progress)
        return self.in_batches(work, [self.input(images)], progress)[0]

    def invert(self, images: Sequence[Input[Image]], progress: Progress | None = None) -> list[ImageResult]:
        """Returns the concepts of a batch of images."""
        results = []
        for image, frame, found, record in self._understood("igm.invert/1", images, progress):
            items = self._items(found.concepts, found.confidence, frame)
            if found.values is not None:
                factors = self.parser.space.what.factors  # type: ignore[attr-defined]
                for item, each in zip(items, found.values.tolist(), strict=True):
                    certain = (round(p, 4) for p in each)
                    item["value_confidence"] = dict(zip(factors, certain, strict=True))
            record["items"] = items
            if found.marginals is None:
                result = ImageResult.model_validate(record)
            else:
                every = self._probabilities(found, frame)
                record |= {"schema": "igm.zero-shot/1", "draws": found.draws, self.parser.space.plural: every}
                result = LabelResult.model_validate(record)
            result._draw = self._drawing(image, items)
            results.append(result)
        return results

    def _drawing(self, image: Input[Image], items: list[dict[str, Any]]) -> Callable[[], Image]:
        """Returns what draws items on an image; it holds no more of the image than is needed to decode it again."""
        decoded, load = weakref.ref(image.data), image.load
        return lambda: self.parser.draw(decoded() or load(), items)

    def count(self, images: Sequence[Input[Image]], progress: Progress | None = None) -> list[ImageCount]:
        """Returns the number of concepts in each of a batch of images."""
        understood = self._understood("igm.estimate-k/1", images, progress)
        return [ImageCount.model_validate(record) for *_, record in understood]

    def invert_shared(self, images: Sequence[Input[Image]], progress: Progress | None = None) -> SharedResult:
        """Returns what images have in common, in a ``shared`` session."""
        import torch

        from igm_cli.core.inference.shared import invert_shared

        if len(images) < 2:
            raise UsageError(
                "one image has nothing in common with others; invert it as it is, or give two or more"
            )
        model, started = self.model, time.monotonic()
        frames, framed = self.framed(images)
        seen = torch.stack(framed)
        how: dict[str, Any] = {"k": self.k, "composition": model.composition}
        how["progress"] = partial(reporter(progress), "what images share")
        found = invert_shared(model.denoiser, seen, self.settings, **how)
        each = []
        for image, frame, support, typical in zip(images, frames, found.support, found.typicality, strict=True):
            about = {"image": image.about["image"], "size": list(image.data.size), "sha256": image.sha256}
            items = self._items(found.concepts, support, frame)
            each.append({**about, "items": items, "typicality": _finite(round(typical, 4))})
        key = shared_key(images)
        together = Input[Any]({"images": each, **key}, key["sha256"], lambda: None)
        fields = {
            "model": model.name,
            "k": len(found.concepts),
            "k_source": found.k_source,
            "denoising_error": _finite(found.denoising_error),
            "k_penalty": self.settings.cost,
            "network_calls": found.network_calls,
            "items": self._items(found.concepts, found.confidence, frames[0]),
            **model.told,
        }
        seconds = round(time.monotonic() - started, 4)
        result = SharedResult.model_validate(self.record("igm.invert-shared/1", together, seconds, **fields))
        drawings = [self._drawing(image, one["items"]) for image, one in zip(images, each, strict=True)]
        result._draw = lambda: [draw() for draw in drawings]
        return result

    def is_full(self, waiting: Sequence[Input[Image]]) -> bool:
        """Returns whether images fill a batch, by their number or by their pixels.

        So large images, which take much time and memory, are processed and saved one by one.
        """
        if len(waiting) >= self.batch_size or not (self.scale and self.by_pixels):
            return len(waiting) >= self.batch_size
        pixels = sum(math.prod(self._scaled(each.data.size)) for each in waiting)
        return pixels >= self.batch_size * math.prod(self.model.image_size)

    def framed(self, images: Sequence[Input[Image]]) -> tuple[list[Frame], list[Tensor]]:
        """Returns the part of each image that the model sees, and the model's input made from it."""
        width, height = self.model.image_size
        for image in images:
            self.check(image)
        if self.scale:
            sizes = [self._scaled(image.data.size) for image in images]
            frames = [Frame.fit(image.data.size, 1.0, "squash") for image in images]
        else:
            sizes = [(width, height)] * len(images)
            frames = [Frame.fit(image.data.size, width / height, self.fit) for image in images]
            self._say_what_is_cut(images, frames)
        encode, seen = self.model.encode, []
        for image, frame, size in zip(images, frames, sizes, strict=True):
            x = to_model(image.data, frame, size)
            seen.append(encode(x, self.settings.views) if encode else x.to(self.device))
        return frames, seen

    def _say_what_is_cut(self, images: Sequence[Input[Image]], frames: Sequence[Frame]) -> None:
        """Reports how little of an image the model sees, for the first such image."""
        for image, frame in zip(images, frames, strict=True):
            if frame.share < LEAST_SEEN and not self.cut_is_said:
                self.cut_is_said = True
                width, height = self.model.image_size
                self.scaling.note(
                    f"{image.about['image']}: only its middle is used, {100 * frame.share:.0f} % of it, as the model "
                    f"{self.model.name!r} sees images of the shape {width}×{height}{self.other_fit}"
                )

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the size (width, height) that the denoiser can take nearest to an image's at the model's scale."""
        from igm_cli.core.inference.tiles import scaled, unit_of

        return scaled(size, self.scale, unit_of(self.model.denoiser))

    def _understood(
        self, schema: str, images: Sequence[Input[Image]], progress: Progress | None
    ) -> list[tuple[Input[Image], Frame, Inversion, dict[str, Any]]]:
        """Returns images with their frames, what the engine found, and the fields common to all records."""
        model, started = self.model, time.monotonic()
        frames, seen = self.framed(images)
        units = "network calls"
        if self.scale:
            from igm_cli.core.inference.tiles import in_tiles

            units = "tiles" if in_tiles(seen[0]) else units
        what = f"{units}: {Path(str(images[0].about['image'])).name}"  # shown for single images only
        tell = (lambda done, most: progress(what, done, most)) if progress else None
        inverted = self.inverted(seen, tell)
        seconds = round((time.monotonic() - started) / len(images), 4)
        understood = []
        for image, frame, found, x in zip(images, frames, inverted, seen, strict=True):
            # Errors are means over pixels, whose number depends on the image size.
            area = x.shape[-1] * x.shape[-2] / math.prod(model.image_size) if self.scale else 1.0
            curve = [{"k": p.k, "error": _finite(p.error), "stderr": _finite(p.stderr)} for p in found.k_curve]
            fields = {
                "size": list(image.data.size),
                "model": model.name,
                "k": found.k,
                "k_source": found.k_source,
                "denoising_error": _finite(found.denoising_error),
                "k_penalty": self.settings.cost / area,
                "k_curve": curve,
                "network_calls": found.network_calls,
                "typicality": _finite(round(found.typicality, 4)),
                **model.told,
            }
            most = max((point.k for point in found.k_curve), default=0)
            if curve and found.k_source == "estimated" and found.k == most != self.parser.space.most:
                fields["k_at_maximum"] = True
            understood.append((image, frame, found, self.record(schema, image, seconds, **fields)))
        return understood

    def inverted(
        self, seen: Sequence[Tensor], progress: Callable[[int, int], None] | None = None
    ) -> list[Inversion]:
        """Returns what the engine finds in images; those of one size form a batch."""
        import torch

        from igm_cli.core.inference.engine import invert_batch

        how: dict[str, Any] = {"k": self.k, "composition": self.model.composition, "progress": progress}
        if not self.scale:
            return invert_batch(self.model.denoiser, torch.stack(list(seen)), self.settings, **how)
        from igm_cli.core.inference.tiles import invert_any_size

        how |= {"k_max": self.k_max, "margin": self.model.margin}
        found: dict[int, Inversion] = {}
        for shape in dict.fromkeys(x.shape for x in seen):
            rows = [row for row, x in enumerate(seen) if x.shape == shape]
            images = torch.stack([seen[row] for row in rows]) if len(rows) > 1 else seen[rows[0]][None]
            inverted = invert_any_size(self.model.denoiser, images, self.settings, **how)
            found |= zip(rows, inverted, strict=True)
        return [found[row] for row in range(len(seen))]

    def _items(self, concepts: Tensor, confidence: Tensor, frame: Frame) -> list[dict[str, Any]]:
        """Returns concepts ``[K,D]`` as items with their confidence ``[K]``, None if the method gives none."""
        sure = [None if math.isnan(p) else round(p, 4) for p in confidence.tolist()]
        decoded = self.parser.decode(concepts, frame)
        return [{**rounded(item), "confidence": p} for item, p in zip(decoded, sure, strict=True)]

    def _probabilities(self, found: Inversion, frame: Frame) -> list[dict[str, Any]]:
        """Returns every candidate with its probability, the most probable first, and of equal ones those found."""
        import torch

        assert found.marginals is not None
        marginals, chosen = found.marginals, set(found.concepts.argmax(1).tolist())
        every = self.parser.decode(torch.eye(len(marginals)), frame)
        known = marginals.isfinite().nonzero()[:, 0].tolist()
        order = sorted(known, key=lambda i: (-float(marginals[i]), i not in chosen))
        return [{**every[i], "probability": round(float(marginals[i]), 4)} for i in order]


def _at_once(model: OpenModel) -> int:
    """Returns the default batch size: on a CPU at most one image per thread, as more would only wait."""
    import torch

    fit = suitable_batch(model)
    return min(fit, torch.get_num_threads()) if model.device.type == "cpu" else fit


def _settings(own: Mapping[str, Any], given: Mapping[str, Any]) -> InversionSettings:
    """Returns a model's own settings, overridden by the given ones that are not None."""
    from igm_cli.core.inference.typicality import LEAST_MARGIN, MOST_MARGIN
    from igm_cli.core.types import InversionSettings

    given, default = dict(given), InversionSettings.from_dict(own)
    known = list(default.to_dict())
    if unknown := [name for name in given if name in ARGUMENTS]:
        raise UsageError(f"{unknown[0]!r} is no argument of this; leave it out")
    if unknown := [name for name in given if name not in known]:
        raise UsageError(f"unknown setting {unknown[0]!r}; {near_names(unknown[0], [*known, *ARGUMENTS])}")
    method = given.get("method") or default.method
    if method == "relax":
        given["relax_steps"] = given.pop("steps", None)
    for name, owners in (("restarts", "sgd"), ("steps", "sgd or relax")):
        if method != "sgd" and given.get(name) is not None:
            raise UsageError(f"--{name} belongs to --method {owners}; add that or leave it out")
    draws, most = given.get("draws"), given.get("max_draws")
    if draws is not None and most is not None and draws > most:
        raise UsageError(f"--draws {draws} is above --max-draws {most}; lower one or raise the other")
    if draws is None and most is not None:
        given["draws"] = min(default.draws, most)
    settings = InversionSettings.from_dict(own, **given)
    if not settings.typical:
        return settings
    # Margins are rises of the error less the penalty, and the weakest of a least number of concepts may not be there.
    if settings.penalty != default.penalty:
        return replace(settings, typical=settings.typical.whatever(LEAST_MARGIN, MOST_MARGIN))
    if settings.k_min != default.k_min:
        return replace(settings, typical=settings.typical.whatever(LEAST_MARGIN))
    return settings


def _finite(value: float) -> float | None:
    """Returns a number, or None if JSON cannot represent it."""
    return float(value) if math.isfinite(value) else None


def rounded(item: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an item with its numbers rounded to six decimals."""
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in item.items()}
