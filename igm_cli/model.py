"""The library's model class, and opening a trained checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from igm_cli.bundled import is_pipeline, name_of, named, resolve_model
from igm_cli.core.validation import texts, whole_number
from igm_cli.errors import InputError, PluginError, UsageError
from igm_cli.open_model import OpenModel, in_float32, process_device
from igm_cli.pixels import warn
from igm_cli.plugins import registry
from igm_cli.records import GeneratedImage, ImageCount, ImageResult, SharedResult
from igm_cli.session import ImageSession

if TYPE_CHECKING:
    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.energy_map import EnergyMap
    from igm_cli.plugins.base import ConceptParser, Progress


class Model(OpenModel):
    """A model of the concepts of images, made by :func:`igm_cli.load`."""

    @overload
    def invert(self, images: list[Any] | tuple[Any, ...], **options: Any) -> list[ImageResult]: ...

    @overload
    def invert(self, images: Any, **options: Any) -> ImageResult: ...

    @in_float32
    def invert(
        self,
        images: Any,
        *,
        k: int | None = None,
        fit: Literal["crop", "squash"] = "crop",
        scale: float | None = None,
        pixel_range: tuple[float, float] | None = None,
        progress: Progress | None = None,
        batch_size: int | None = None,
        **settings: Any,
    ) -> ImageResult | list[ImageResult]:
        """Finds the concepts of one image or several.

        Args:
            images: A path, a PIL image, an array ``[H,W,3]`` or a tensor ``[3,H,W]`` of 0..255 or 0..1; or a list of them.
            k: Number of concepts; None estimates it.
            fit: ``crop`` or ``squash`` images whose aspect ratio is not the model's.
            scale: Pixels that the model sees per pixel of the images, for models of images of any size; None takes the
                model's, that of its training images.
            pixel_range: Values of black and white, such as ``(0, 4095)``, if images do not specify them (docs/pixels.md).
            progress: Called with the current activity, the number done, and the total.
            batch_size: Images per batch; None takes what suits the device.
            **settings: ``draws``, ``k_max``, ``seed``, ``method`` and the other inversion settings.

        Returns:
            A result, or for a list of images one per image.

        Raises:
            IgmError: If an image or a setting cannot be used, with the way out.
        """
        how: dict[str, Any] = {"scale": scale, "pixel_range": pixel_range}
        session = ImageSession(self, k=k, fit=fit, batch_size=batch_size, given=settings, **how)
        return session.each(session.invert, images, progress)  # type: ignore[no-any-return]

    @overload
    def count(self, images: list[Any] | tuple[Any, ...], **options: Any) -> list[ImageCount]: ...

    @overload
    def count(self, images: Any, **options: Any) -> ImageCount: ...

    @in_float32
    def count(
        self,
        images: Any,
        *,
        fit: Literal["crop", "squash"] = "crop",
        scale: float | None = None,
        pixel_range: tuple[float, float] | None = None,
        progress: Progress | None = None,
        batch_size: int | None = None,
        **settings: Any,
    ) -> ImageCount | list[ImageCount]:
        """Estimates the number of concepts in one image or in each of several; see :meth:`invert`."""
        if "k" in settings:
            raise UsageError("count estimates k; leave it out, or use invert")
        how: dict[str, Any] = {"fit": fit, "scale": scale, "pixel_range": pixel_range}
        session = ImageSession(self, batch_size=batch_size, given=settings, **how)
        session.require_counting()
        return session.each(session.count, images, progress)  # type: ignore[no-any-return]

    @in_float32
    def invert_shared(
        self,
        images: Sequence[Any],
        *,
        k: int | None = None,
        fit: Literal["crop", "squash"] = "crop",
        pixel_range: tuple[float, float] | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> SharedResult:
        """Finds the concepts that several images have in common; each may contain others, and they may differ in size.

        There must be two images or more, and the model must see all images at one size.  ``k`` is the number of common
        concepts; None takes all that every image supports.  The other arguments are those of :meth:`invert`.

        Raises:
            IgmError: If an image or a setting cannot be used, with the way out.
        """
        session = ImageSession(self, k=k, fit=fit, given=settings, shared=True, pixel_range=pixel_range)
        if not isinstance(images, list | tuple):
            raise UsageError(
                "what images have in common is found for a list of two images or more; give a list"
            )
        return session.invert_shared(session.inputs(images), progress)

    @in_float32
    def energy_map(
        self,
        image: Any,
        *,
        fit: Literal["crop", "squash"] = "crop",
        scale: float | None = None,
        pixel_range: tuple[float, float] | None = None,
        **settings: Any,
    ) -> EnergyMap:
        """Returns how much each single concept, on its own, lowers the denoising error of an image.

        These arguments have the meaning that they have in :meth:`invert`; of its settings, ``draws``, ``low``, ``high``,
        ``power`` and ``seed`` are used.
        At high noise levels, neighbouring objects merge.

        Raises:
            IgmError: If the image or a setting cannot be used, or the model has no map; the message says what to do.
        """
        from igm_cli.energy_map import energy_map

        if isinstance(image, list | tuple):
            raise UsageError("an energy map is that of one image; call energy_map for each")
        session = ImageSession(self, fit=fit, scale=scale, given=settings, pixel_range=pixel_range)
        return energy_map(session, session.input(image))

    @in_float32
    def generate(
        self,
        expression: str | Sequence[str],
        n: int = 1,
        *,
        join: Sequence[Model] = (),
        progress: Progress | None = None,
        **options: Any,
    ) -> list[GeneratedImage]:
        """Draws images of concepts joined by AND, OR and NOT.

        Args:
            expression: One such as ``"pos(0.3,0.5) AND pos(0.7,0.5)"``, or several.
            n: Images per expression.
            join: Separately trained models whose concepts may also be named; all are composed as one.
            progress: Called with the current activity, the number done, and the total.
            **options: Fields of :class:`igm_cli.generation.GenerationSettings`, such as ``seed``, ``steps``, ``sampler``,
                ``guidance``, ``correct`` and ``particles``.

        Returns:
            The images in order, each with its record: ``result.picture`` is a PIL image.

        Raises:
            IgmError: If an expression or an option cannot be used; the message says what to do.
        """
        from igm_cli.generation import Generation, GenerationSettings

        listed: Any = join
        if not isinstance(listed, list | tuple) or not all(isinstance(model, Model) for model in listed):
            raise UsageError("join takes a list of models, each loaded by igm.load")
        asked, count = expressions(expression), whole_number("n", n, 1) or 1
        session = Generation([self, *join], GenerationSettings(**options))
        for model in (self, *join):
            for remark in model.about_drawing():
                warn(remark)
        return session.draw([session.reader.read(text) for text in asked], count, progress)


def expressions(given: Any) -> list[str]:
    """Returns one expression or several as a list."""
    listed = [given] if isinstance(given, str) else texts("expression", given)
    if not listed:
        raise UsageError("there is no expression; name a concept, such as pos(0.3,0.5)")
    return listed


def open_checkpoint(model: str | Path | None, concepts: str | ConceptParser | None, device: str) -> Model:
    """Opens a trained checkpoint with the arguments of :func:`igm_cli.load`; its weights are loaded at first use.

    A ``Path`` is the folder itself, also where a bundled model has its name.  ``concepts`` may also be the parser itself.
    """
    asked = registry.concept_parser(concepts, typed=True) if isinstance(concepts, str) else concepts
    if getattr(asked, "reads", "images") == "vectors":
        raise UsageError(f"--concepts {concepts} are of bound vectors; take them apart by igm decompose")
    folder = resolve_model(named(model), asked.name if asked else None)
    if is_pipeline(folder):
        raise UsageError(f"the model {name_of(folder)!r} is a text-to-image pipeline; use igm zero-shot")

    from igm_cli.core.checkpoint import load_checkpoint, model_fingerprint, read_spec

    spec = read_spec(folder)
    target = process_device(device)
    return Model(
        name=name_of(folder),
        parser=_parser_of(spec, folder, asked),
        composition=spec.composition,
        inference=spec.inference,
        generation=spec.generation,
        device=target,
        open=lambda: load_checkpoint(folder, target).denoiser,
        identity={"model": model_fingerprint(folder)},
        size=spec.image_size,
        scale=spec.scale,
        margin=spec.margin,
        companions=tuple(spec.info.get("with", ())),
        **said_in(spec.info),
    )


def said_in(info: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a model that its provenance states."""
    from igm_cli.core.checkpoint import is_discriminative

    texts = {name: str(info.get(name, "")) for name in ("dataset", "knows")}
    return {**texts, "draws": bool(info.get("draws", True)), "discriminative": is_discriminative(info)}


def _parser_of(spec: ModelSpec, folder: Path, asked: ConceptParser | None) -> ConceptParser:
    """Returns the parser of a model's concepts; it must be the one ``asked`` for, and its space that of training."""
    if asked and asked.name != spec.concepts:
        raise InputError(
            f"the model {name_of(folder)!r} was trained on {spec.concepts!r}, not on {asked.name!r}; "
            f"use --concepts {spec.concepts} or another --model"
        )
    installed = [listing.name for listing in registry.listings("concepts")]
    if not asked and ":" not in spec.concepts and spec.concepts not in installed:
        package = registry.package_said(spec.info, "concepts")
        raise PluginError(
            f"the model {name_of(folder)!r} needs the concept parser {spec.concepts!r}, of a plugin that is not installed; "
            f"install {f'the package {package}, as its training says, if you trust it' if package else 'that plugin'}"
        )
    parser = asked or registry.concept_parser(spec.concepts)
    parser = registry.configured(parser, spec.concept_options)
    if json.dumps(parser.space.to_dict()) != json.dumps(dict(spec.space)):
        raise InputError(
            f"the model {name_of(folder)!r} was trained on another concept space than {parser.name!r} has now; "
            "train it again, or install the version of the plugin it was trained with"
        )
    return parser
