"""Text-to-image pipelines as models of labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from igm_cli.bundled import DEFAULT_CONCEPTS, names_pipeline, resolve_pipeline
from igm_cli.core.names import is_text, plain
from igm_cli.errors import IgmError, InputError, UsageError
from igm_cli.model import Model, open_checkpoint, said_in
from igm_cli.open_model import process_device

AS_IS = "{label}"
"""The template for labels that are whole prompts, or classes."""

PIPELINE_DRAWING: Mapping[str, Any] = {"guidance": 7.5, "sampler": "ddim"}
"""How text-to-image models draw unless their description says otherwise: as diffusers does, without fresh noise on the way."""

_CHANGING_RESULTS = ("variant", "dtype", "quantize", "size", "config", "prediction")
"""Loading options that change results, as offloading and the kind of attention do not."""


LARGE = 500_000_000
"""Bytes on disk from which the user is told that a model is loaded, as that takes a while."""


def open_pipeline(
    model: str | None,
    device: str,
    *,
    labels: Sequence[str] = (),
    templates: Sequence[str] = (),
    loading: Mapping[str, Any] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Model:
    """Opens a text-to-image pipeline with the arguments of :func:`igm_cli.load`; weights are loaded at first use.

    Labels and templates default to the model's own; ``loading`` has fields of :class:`igm_cli.core.models.pipelines.Loading`.
    ``note`` is told when weights that take long are loaded.
    """
    name, source = resolve_pipeline(model)

    from torch import Tensor

    from igm_cli.core.inference.views import encoded_views
    from igm_cli.core.models.pipeline_files import (
        find_pipeline,
        pipeline_fingerprint,
        quiet,
        read_description,
        read_index,
    )
    from igm_cli.core.models.pipelines import Loading, load_pipeline
    from igm_cli.core.models.text_to_image import TextToImageDenoiser
    from igm_cli.core.weights import require_finite
    from igm_cli.plugins import registry

    how, target = Loading(**(loading or {})), process_device(device)
    path = find_pipeline(source, how.variant)
    description = read_description(path)
    own = description.space
    if not labels and own is None:
        raise UsageError(
            f"the model {name!r} names no labels of its own; give some, as by igm zero-shot --labels"
        )
    chosen = tuple(labels) or check_labels(own.labels if own else (), f"the igm.json of {name}", InputError)
    index = read_index(path) if path.is_dir() else None
    if index and index.classes:
        if set(templates) - {AS_IS}:
            raise UsageError(
                f"the labels of {name} are its classes, which stand in no template; leave out --template"
            )
        index.classes.numbers(chosen, UsageError)
        templates = (AS_IS,)
    nothing = own.nothing if own else ""
    if nothing and plain(nothing) in map(plain, labels):
        raise UsageError(
            f"{nothing!r} stands for none of the labels of {name}, and is looked for in any case; leave it out"
        )
    chosen = tuple(label for label in chosen if label != nothing)
    every = (*chosen, nothing) if nothing else chosen
    prompts = tuple(templates) or (own.templates if own else ())
    options = {"labels": every, "templates": prompts, "nothing": nothing}
    parser = registry.concept_parser(DEFAULT_CONCEPTS["pipeline"])
    parser = registry.configured(parser, {key: value for key, value in options.items() if value})
    space: Any = parser.space

    def load() -> TextToImageDenoiser:
        if (size := _bytes_below(path)) >= LARGE:
            note(f"igm: loading {name} ({size / 1e9:.1f} GB on disk)")
        parts = load_pipeline(str(path), target, how)
        for part, network in parts.pipe.components.items():
            if hasattr(network, "state_dict"):
                # Quantized weights are integers and scales in a tensor class of their own.
                weights = {k: v for k, v in network.state_dict().items() if type(v) is Tensor and not v.is_meta}
                require_finite(
                    weights, f"the weights of the {part} of {name}", "take another copy, or use --dtype float32"
                )
        denoiser = TextToImageDenoiser(parts, space)
        with quiet():  # refuses prompts that are too long before the first image
            denoiser.embed([prompt for label in range(space.dim) for prompt in space.prompts(label)])
        return denoiser

    known = {plain(label) for label in (own.labels if own else chosen)}
    opened = Model(
        name=name,
        parser=parser,
        composition=description.composition,
        inference=description.inference,
        device=target,
        open=load,
        identity={
            "model": pipeline_fingerprint(path, how.variant, how.network_file),
            "loading": {name: getattr(how, name) for name in _CHANGING_RESULTS},
            "labels": every,
            "templates": space.templates,
            "composition": description.composition,
            **({"guidance_told": index.guidance} if index and index.guidance else {}),
        },
        encode=lambda image, views: encoded_views(opened.denoiser.encode, image, views),
        decode=lambda latents: opened.denoiser.decode(latents),
        generation={**PIPELINE_DRAWING, **description.generation},
        guidance_told=index.guidance if index else None,
        joins="sum",  # Composable Diffusion (Liu et al. 2022, eq. 13): every prompt with its own guidance
        **said_in(description.info),
        labels=own.labels if own else (),
        described=own is not None,
        unknown=tuple(label for label in chosen if plain(label) not in known),
    )
    return opened


def open_to_draw(
    model: str | None,
    device: str,
    labels: Sequence[str],
    templates: Sequence[str] = (),
    loading: Mapping[str, Any] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Model:
    """Opens a model for generation: a trained checkpoint, or a text-to-image pipeline with the requested labels.

    Without templates a label is the whole prompt.  ``note`` is that of :func:`open_pipeline`.
    """
    if not names_pipeline(model, None):
        asked = {"template": templates, **(loading or {})}
        if given := [name for name, value in asked.items() if value and value not in ("auto", "no")]:
            raise UsageError(
                f"--{given[0]} is about text-to-image models, and {model or 'the default'} is none; leave it out"
            )
        return open_checkpoint(model, None, device)
    if not labels:
        raise UsageError("a text-to-image model draws labels; name some in an expression")
    every = list(dict.fromkeys(labels))
    prompts = templates or (AS_IS,)
    return open_pipeline(model, device, labels=every, templates=prompts, loading=loading, note=note)


def _bytes_below(path: Path) -> int:
    """Returns the size of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def check_labels(labels: Sequence[str], where: str, error: type[IgmError]) -> tuple[str, ...]:
    """Returns the labels if one can choose among them; otherwise raises an error that says ``where`` they come from."""
    seen: dict[str, str] = {}
    labels = [label.strip() for label in labels]
    for label in labels:
        key = plain(label)
        if not is_text(label):
            raise error(
                f"{where} holds {label!r}, which is not text; write it in UTF-8, without control characters"
            )
        if not key:
            raise error(f"{where} holds an empty label; remove the extra comma")
        if key in seen:
            both = f"{seen[key]!r} and {label!r}, which are the same"
            same = f"{label!r} twice" if label == seen[key] else both
            raise error(f"{where} holds {same}; leave one out")
        seen[key] = label
    if len(labels) < 2:
        held = f"one label, {labels[0]!r}" if labels else "no label"
        raise error(f"{where} holds {held}; give two labels or more")
    return tuple(labels)


def check_templates(templates: Sequence[str], where: str, error: type[IgmError]) -> tuple[str, ...]:
    """Returns the templates if a label goes into each, and nothing else; otherwise raises an error as :func:`check_labels` does."""
    for template in templates:
        if not is_text(template):
            raise error(f"the template {template!r} is not text; write it in UTF-8, without control characters")
        places = re.findall(r"\{[^{}]*\}", template)
        if AS_IS not in places:
            raise error(f"the template {template!r} of {where} has no {AS_IS}, where the label goes")
        if len(places) > 1:
            other = next((place for place in places if place != AS_IS), f"{AS_IS} twice")
            raise error(f"the template {template!r} of {where} has {other}; only one {AS_IS} is filled in")
    if twice := next((each for n, each in enumerate(templates) if each in templates[:n]), None):
        raise error(f"{where} holds {twice!r} twice; leave one out")
    return tuple(templates)
