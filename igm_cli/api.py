"""The library's public interface (stable): load a model, find the concepts of images, count them, draw images, decompose vectors.

    import igm_cli as igm

    model = igm.load("clevr-pos")
    result = model.invert("photo.png")
    print(result.k, result.items)
    result.overlay().save("found.png")
    model.generate("pos(0.3,0.5) AND pos(0.7,0.5)")[0].picture.save("drawn.png")

The names here keep their meaning from one minor version to the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, overload

from igm_cli.bundled import DEFAULT_CONCEPTS, named, names_checkpoint, names_pipeline
from igm_cli.core.validation import texts, whole_number
from igm_cli.energy_map import EnergyMap
from igm_cli.errors import IgmError, InputError, MissingError, PluginError, UsageError, near_names
from igm_cli.model import Model, expressions, open_checkpoint
from igm_cli.open_model import in_float32
from igm_cli.pixels import warn
from igm_cli.records import (
    GeneratedImage,
    ImageCount,
    ImageResult,
    LabelResult,
    Result,
    SharedResult,
    VectorCount,
    VectorResult,
)
from igm_cli.session import ARGUMENTS

__all__ = [
    "EnergyMap",
    "GeneratedImage",
    "IgmError",
    "ImageCount",
    "ImageResult",
    "InputError",
    "LabelResult",
    "MissingError",
    "Model",
    "PluginError",
    "Result",
    "SharedResult",
    "UsageError",
    "VectorCount",
    "VectorResult",
    "count",
    "decompose",
    "generate",
    "invert",
    "load",
]

_LOADING = (
    "variant", "dtype", "attention", "quantize", "network", "offload", "compile", "size", "config", "prediction",
)  # fmt: skip
_OF_LOAD = ("concepts", "device", "labels", "templates", *_LOADING)
_OF_VECTORS = ("codebooks", "concepts", "binding", "k_max", "seed", "device", "progress")


@in_float32
def load(
    model: str | Path | None = None,
    *,
    concepts: str | None = None,
    device: str = "auto",
    labels: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    **loading: Any,
) -> Model:
    """Loads a model.

    Args:
        model: A bundled name such as ``clevr-pos``, a checkpoint or pipeline folder, a .safetensors file or hf:owner/name;
            None takes the bundled one for ``concepts``.
        concepts: Name of a concept parser, or ``package.module:attribute``; None takes the model's own.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        labels: What may be in an image, for text-to-image models; None takes those the model was trained on.
        templates: Prompts with ``{label}`` in them, for text-to-image models.
        **loading: For text-to-image models: ``variant``, ``dtype``, ``attention``, ``quantize``, ``network``, ``offload``,
            ``compile``, ``size``, ``config``, ``prediction``.

    Raises:
        IgmError: If there is no such model or it cannot be used; the message says what to do.
    """
    _refuse_unknown("load", loading, ("model", *_OF_LOAD))
    if not (model is None or isinstance(model, str | PathLike)):
        raise UsageError(f"a model is given by its name, folder or file, not by a {type(model).__name__}")
    name = named(model)
    if labels is None and templates is None and not loading and not names_pipeline(name, concepts):
        opened = open_checkpoint(name, concepts, str(device))
    else:
        from igm_cli.label_models import check_labels, check_templates, open_pipeline

        if name and names_checkpoint(name):
            given = [key for key, value in (("labels", labels), ("templates", templates)) if value is not None]
            raise UsageError(
                f"{(given or list(loading))[0]} is about text-to-image models, and {name} is none; leave it out"
            )
        if concepts not in (None, DEFAULT_CONCEPTS["pipeline"]):
            raise UsageError(f"a text-to-image model knows labels, not {concepts!r}; leave out the concepts")
        chosen = check_labels(texts("labels", labels), "labels", UsageError) if labels is not None else ()
        prompts = check_templates(texts("templates", templates or ()), "templates", UsageError)
        opened = open_pipeline(name, str(device), labels=chosen, templates=prompts, loading=loading)
    _ = opened.denoiser  # reports faulty weights now
    if about := opened.not_trained_on():
        warn(about)
    return opened


@overload
def invert(
    images: list[Any] | tuple[Any, ...], model: str | Path | None = None, **options: Any
) -> list[ImageResult]: ...


@overload
def invert(images: Any, model: str | Path | None = None, **options: Any) -> ImageResult: ...


def invert(images: Any, model: str | Path | None = None, **options: Any) -> ImageResult | list[ImageResult]:
    """Finds the concepts of one image or several, with a model loaded for this call.

    ``options`` are those of :func:`load` and of :meth:`Model.invert`.
    """
    return _loaded("invert", model, options).invert(images, **options)  # type: ignore[no-any-return]


@in_float32
def generate(
    expression: str | Sequence[str],
    model: str | Path | Sequence[str | Path] | None = None,
    n: int = 1,
    *,
    device: str = "auto",
    **options: Any,
) -> list[GeneratedImage]:
    """Draws images of concepts joined by AND, OR and NOT, with models loaded for this call.

    Args:
        expression: One such as ``"pos(0.3,0.5) AND pos(0.7,0.5)"``, or several.
        model: As for :func:`load`; several models trained separately are composed as one.  Text-to-image models draw the
            labels that the expressions name.
        n: Images per expression.
        device: Where to compute.
        **options: Those of :meth:`Model.generate`; for text-to-image models also ``templates`` and the loading options.

    Raises:
        IgmError: If an expression, a model or an option cannot be used; the message says what to do.
    """
    from igm_cli.core.expression import parse, words
    from igm_cli.generation import GenerationSettings
    from igm_cli.label_models import open_to_draw

    names = [model] if model is None or isinstance(model, str | PathLike) else model
    if not isinstance(names, list | tuple) or not names or any(isinstance(name, Model) for name in names):
        raise UsageError(
            "models are given by their names, folders or files; of a loaded one call its own generate"
        )
    known = ("n", "progress", "templates", *_LOADING, *_fields(GenerationSettings))
    _refuse_unknown("generate", options, known)
    asked = expressions(expression)
    labels = [label for text in asked for label in words(parse(text))]
    templates = texts("templates", options.pop("templates", ()))
    loading = {name: options.pop(name) for name in _LOADING if name in options}
    first, *others = (open_to_draw(named(name), device, labels, templates, loading) for name in names)
    return first.generate(asked, n, join=others, **options)


@overload
def count(images: Any, model: str | Path | None = None, *, codebooks: Any, **options: Any) -> Any: ...


@overload
def count(
    images: list[Any] | tuple[Any, ...], model: str | Path | None = None, **options: Any
) -> list[ImageCount]: ...


@overload
def count(images: Any, model: str | Path | None = None, **options: Any) -> ImageCount: ...


@in_float32
def count(images: Any, model: Any = None, **options: Any) -> Any:
    """Estimates the number of concepts in one image or several, or with ``codebooks`` the number of products in bound vectors.

    ``options`` are those of :func:`load` and of :meth:`Model.count`; for vectors ``codebooks``, ``binding``, ``k_max``,
    ``seed``, ``device`` and ``progress``.
    """
    if "codebooks" not in options:
        if not (model is None or isinstance(model, str | PathLike)):
            way_out = "name it as count(vectors, codebooks=...) if it holds the codebooks of bound vectors"
            raise UsageError(f"the model cannot be a {type(model).__name__}; {way_out}")
        return _loaded("count", model, options).count(images, **options)
    from igm_cli.vectors import MOST_PRODUCTS, open_vectors

    if model is not None:
        raise UsageError("count with codebooks takes no model; leave out one of the two")
    _refuse_unknown("count with codebooks", options, _OF_VECTORS)
    progress, most = options.pop("progress", None), whole_number("k_max", options.pop("k_max", None), 1)
    settings = {"k_max": MOST_PRODUCTS if most is None else most}
    session = open_vectors(options.pop("codebooks"), settings=settings, **options)
    return session.each(session.count, images, progress)


@in_float32
def decompose(
    vectors: Any,
    codebooks: Any,
    *,
    binding: Literal["map", "hrr", "fhrr"] | None = None,
    k: int = 1,
    method: str = "auto",
    iterations: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Any = None,
    **unknown: Any,
) -> Any:  # a VectorResult or a list of them, by the shape of the vectors, which their type does not tell
    """Finds the codewords that bound vectors are made of.

    Args:
        vectors: A path (.npy, .npz, .safetensors), or an array or tensor ``[D]`` or ``[B,D]``.
        codebooks: A .safetensors file, or an array or tensor ``[n,D]`` per factor, or a dictionary of these.
        binding: How codewords are bound; None takes the file's, or guesses it from the codewords.
        k: Number of products in each vector.
        method: ``auto``, ``coupled``, ``attention``, ``resonator``, ``factorizer`` or ``exhaustive``.
        iterations: Maximum for iterative methods.
        seed: Seed of everything random.
        device: Where to compute.
        progress: Called with the current activity, the number done, and the total.
        **unknown: Refused.

    Returns:
        A list with one :class:`VectorResult` per vector, or the result itself for a single ``[D]``.

    Raises:
        IgmError: If the vectors, the codebooks or the settings cannot be used; the message says what to do.
    """
    from igm_cli.vectors import open_vectors, vector_settings

    _refuse_unknown(
        "decompose", unknown, ("binding", "k", "method", "iterations", "seed", "device", "progress")
    )
    settings = vector_settings(k, method, iterations)
    session = open_vectors(codebooks, settings=settings, binding=binding, seed=seed, device=device)
    return session.each(session.invert, vectors, progress)


def _loaded(function: str, model: Any, options: dict[str, Any]) -> Model:
    """Loads a model for a function, removing the loading options from ``options``."""
    from igm_cli.core.types import InversionSettings

    _refuse_unknown(function, options, (*_OF_LOAD, *ARGUMENTS, *_fields(InversionSettings)))
    return load(model, **{name: options.pop(name) for name in _OF_LOAD if name in options})


def _fields(settings: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(settings)]


def _refuse_unknown(function: str, given: Iterable[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise UsageError(f"{function} has no argument {name!r}; {near_names(name, known)}")
