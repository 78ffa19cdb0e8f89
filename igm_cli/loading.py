"""From names and options to a model that a session can be opened on; what is cheap to refuse is refused first."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from igm_cli.bundled import DEFAULT_CONCEPTS, resolve_model, resolve_pipeline
from igm_cli.errors import IgmError, InputError, UsageError
from igm_cli.session import ImageModel, VectorSession, file_hash

MOST_PRODUCTS = 8
"""Most products of a bound vector that are looked for where nobody says how many."""

if TYPE_CHECKING:
    import torch

    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.core.decomposition.codebooks import Codebooks
    from igm_cli.plugins.base import ConceptParser, VectorParser


def open_checkpoint(model: str | None, concepts: str | None, device: str) -> ImageModel:
    """A trained checkpoint.

    Args:
        model: A bundled name, a folder or a hub id; None takes the bundled one of ``concepts``.
        concepts: Name of a concept parser, or ``package.module:attribute``; None takes the checkpoint's.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        IgmError: With the way out, whatever does not fit.
    """
    from igm_cli.plugins import registry

    asked = registry.concept_parser(concepts) if concepts else None
    folder = resolve_model(model, asked.name if asked else None)
    if (folder / "model_index.json").is_file():
        raise UsageError(f"the model {folder.name!r} is a text-to-image pipeline; use igm zero-shot")

    from igm_cli.core.checkpoint import load_checkpoint, model_fingerprint, read_spec

    spec = read_spec(folder)
    parser = _parser_of(spec, folder, asked)
    target = process_device(device)
    return ImageModel(
        name=folder.name,
        parser=parser,
        composition=spec.composition,
        inference=spec.inference,
        device=target,
        open=lambda: load_checkpoint(folder, target).denoiser,
        size=spec.image_size,
        identity={"model": model_fingerprint(folder)},
    )


def open_pipeline(
    model: str | None,
    device: str,
    *,
    labels: Sequence[str] = (),
    templates: Sequence[str] = (),
    loading: Mapping[str, Any] | None = None,
) -> ImageModel:
    """A text-to-image pipeline.

    Args:
        model: A bundled name, a folder, a .safetensors file or a hub id; None takes the bundled one.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        labels: What may be in an image; none of them takes those the model was trained on.
        templates: Prompts with ``{label}`` in them; none of them takes the model's.
        loading: Fields of :class:`igm_cli.core.models.pipelines.Loading`.

    Raises:
        IgmError: With the way out, whatever does not fit.
    """
    name, source = resolve_pipeline(model)

    from igm_cli.core.models.pipeline_description import read_description
    from igm_cli.core.models.pipeline_files import check_path, from_hub
    from igm_cli.core.models.pipeline_identity import pipeline_fingerprint
    from igm_cli.core.models.pipelines import Loading, quiet
    from igm_cli.plugins import registry

    how = Loading(**(loading or {}))
    target = process_device(device)
    with quiet():
        path = check_path(source) or from_hub(source, how.variant)
    description = read_description(path)
    own = description.space
    if not labels and own is None:
        raise UsageError(f"the model {name!r} names no labels of its own; give --labels or --labels-file")
    chosen = tuple(labels) or check_labels(own.labels if own else (), f"the igm.json of {name}", InputError)
    options = {"labels": chosen, "templates": tuple(templates) or (own.templates if own else ())}
    parser = registry.configured(
        registry.concept_parser(DEFAULT_CONCEPTS["pipeline"]), {k: v for k, v in options.items() if v}
    )
    known = {plain(label) for label in own.labels} if own else {plain(label) for label in chosen}
    # Where the parts are kept and how attention is computed changes no result.
    deciding = {field: getattr(how, field) for field in ("variant", "dtype", "size", "config", "prediction")}
    space: Any = parser.space
    return ImageModel(
        name=name,
        parser=parser,
        composition=description.composition,
        inference=description.inference,
        device=target,
        open=_pipeline_opener(str(path), target, how, space),
        size=None,
        identity={
            "model": pipeline_fingerprint(path, how.variant),
            "loading": deciding,
            "labels": chosen,
            "templates": space.templates,
            "composition": description.composition,
        },
        unknown=tuple(label for label in chosen if plain(label) not in known),
        is_pipeline=True,
    )


def open_vectors(
    codebooks: Path | Codebooks | Sequence[Any],
    *,
    concepts: str | None = None,
    binding: str | None = None,
    settings: Mapping[str, Any],
    seed: int = 0,
    device: str = "auto",
) -> VectorSession:
    """A session of codebooks.

    Args:
        codebooks: A .safetensors file, codebooks made ready, or an array or tensor ``[n,D]`` per factor.
        concepts: Name of a concept parser that reads bound vectors.
        binding: ``map``, ``hrr`` or ``fhrr``; None takes the file's.
        settings: See :class:`VectorSession`.
        seed: Of everything random.
        device: Where to compute.

    Raises:
        IgmError: With the way out, whatever does not fit.
    """
    from igm_cli.plugins import registry

    default = DEFAULT_CONCEPTS["vectors"]
    plain_parser = registry.concept_parser(concepts or default)
    if not reads_vectors(plain_parser):
        raise UsageError(f"--codebooks is none of --concepts {plain_parser.name}; use --concepts {default}")
    target = process_device(device)
    if isinstance(codebooks, Path):
        books, content = cast("VectorParser", plain_parser).read_codebooks(codebooks, binding), file_hash(codebooks)
    else:
        books, content = _codebooks(codebooks, binding), "in memory"
    parser = registry.configured(plain_parser, {"sizes": list(books.sizes), "dim": books.dim})
    if target.type == "cpu":
        from igm_cli.core.device import keep_freed_memory

        keep_freed_memory()
    return VectorSession(
        cast("VectorParser", parser),
        books.to(target),
        source=str(codebooks) if isinstance(codebooks, Path) else "in memory",
        content=content,
        settings=settings,
        seed=seed,
    )


def vector_settings(k: int | None, method: str | None, iterations: int | None) -> dict[str, Any]:
    """Settings of a search for the codewords of bound vectors.

    Args:
        k: Products that a vector is the sum of; None for one.
        method: None takes ``auto``.
        iterations: At most, of an iterative method.

    Raises:
        UsageError: If they do not go together.
    """
    from igm_cli.core.decomposition.decompose import ITERATIONS, ITERATIVE, METHODS

    products, method = k or 1, method or "auto"
    if method not in METHODS:
        raise UsageError(f"the method {method!r} is none of codebooks; choose {', '.join(METHODS)}")
    if products > 1 and method != "auto":
        raise UsageError(
            f"several products (--k {products}) are found by auto alone; leave out --method {method}"
        )
    if iterations is not None and method not in ITERATIVE:
        raise UsageError(
            f"--iterations belongs to --method {', '.join(ITERATIVE)}; add one of them or leave it out"
        )
    return {"k": products, "method": method, "iterations": iterations or ITERATIONS}


def reads_vectors(parser: ConceptParser) -> bool:
    """Whether concepts are of bound vectors, not of images."""
    return getattr(parser, "reads", "images") == "vectors"


def process_device(name: str) -> torch.device:
    """The device of a name; with several processes on several GPUs, each takes its own."""
    import os

    import torch

    from igm_cli.core.device import resolve_device

    device, local = resolve_device(name), os.environ.get("LOCAL_RANK", "")
    if str(device) == "cuda" and local.isdigit():
        return torch.device("cuda", int(local) % torch.cuda.device_count())
    return device


def check_labels(labels: Sequence[str], where: str, error: type[IgmError]) -> tuple[str, ...]:
    """Labels among which a choice makes sense.

    Args:
        labels: In order.
        where: Where they come from, for messages.
        error: Raised if they are too few, empty or not different.
    """
    seen: dict[str, str] = {}
    for label in labels:
        key = plain(label)
        if not key:
            raise error(f"{where} holds an empty label; leave out the comma too many")
        if key in seen:
            same = (
                f"{label!r} twice" if label == seen[key] else f"{seen[key]!r} and {label!r}, which are the same"
            )
            raise error(f"{where} holds {same}; leave one out")
        seen[key] = label
    if len(labels) < 2:
        raise error(f"{where} holds one label, {labels[0]!r}; give two labels or more")
    return tuple(labels)


def plain(label: str) -> str:
    """A label as text encoders tell labels apart: without regard to case and to how wide spaces are."""
    return " ".join(label.casefold().split())


def _parser_of(spec: ModelSpec, folder: Path, asked: ConceptParser | None) -> ConceptParser:
    """The parser of a model's concepts, which must be the one asked for, and of the space trained on."""
    from igm_cli.core.concepts import space_to_dict
    from igm_cli.plugins import registry

    if asked and asked.name != spec.concepts:
        raise InputError(
            f"the model {folder.name!r} speaks of {spec.concepts!r}, not of {asked.name!r}; "
            f"use --concepts {spec.concepts} or another --model"
        )
    parser = asked or registry.concept_parser(spec.concepts, typed=False)
    parser = registry.configured(parser, spec.concept_options)
    if json.dumps(space_to_dict(parser.space)) != json.dumps(dict(spec.space)):
        raise InputError(
            f"the model {folder.name!r} was trained on another concept space than {parser.name!r} has now; "
            "train it again, or install the version of the plugin it was trained with"
        )
    return parser


def _codebooks(books: Any, binding: str | None) -> Codebooks:
    """Codebooks in memory, made ready."""
    import torch

    from igm_cli.core.decomposition.codebooks import Codebooks, guess_binding

    if isinstance(books, Codebooks):
        return books
    tensors = [torch.as_tensor(book) for book in books]
    tensors = [each if torch.is_complex(each) else each.float() for each in tensors]
    return Codebooks(tensors, binding or guess_binding(tensors))


def _pipeline_opener(source: str, device: torch.device, how: Any, space: Any) -> Callable[[], Any]:
    """Loads a pipeline and encodes every prompt: one that is too long is refused before the first image."""

    def load() -> Any:
        from igm_cli.core.models.pipelines import load_pipeline, quiet
        from igm_cli.core.models.text_to_image import TextToImageDenoiser

        denoiser = TextToImageDenoiser(load_pipeline(source, device, how), space)
        with quiet():
            denoiser.embed([prompt for label in range(space.dim) for prompt in space.prompts(label)])
        return denoiser

    return load
