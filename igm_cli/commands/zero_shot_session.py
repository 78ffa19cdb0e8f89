"""A text-to-image model made ready for ``igm zero-shot``, and one image understood by it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from igm_cli.commands.models import LABELS, resolve_pipeline
from igm_cli.commands.session import Understood, process_device, result_line, run_fingerprint
from igm_cli.commands.zero_shot_options import check_labels, parse_draws, plain
from igm_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from igm_cli.core.composition import Composition
    from igm_cli.core.denoiser import Denoiser
    from igm_cli.core.inference.inversion import InversionSettings
    from igm_cli.core.inference.labels import Progress
    from igm_cli.core.models.pipeline_files import PipelineDescription
    from igm_cli.core.models.pipelines import Loading
    from igm_cli.core.models.text_to_image import TextToImageDenoiser
    from igm_cli.plugins.base import ConceptParser

SCHEMA = "igm.zero-shot/1"


@dataclass(frozen=True)
class Asked:
    """What the command line asks for besides the images.

    Attributes:
        model: As ``--model`` has it.
        labels: None of them for the model's own.
        templates: None of them for the model's own, or the default.
        k: Number of labels; None estimates it.
        settings: Inversion settings; None for those not given.
        fit: ``crop`` or ``squash``.
        device: As ``--device`` has it.
        loading: Fields of :class:`Loading`.
    """

    model: str | None
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    k: int | None
    settings: Mapping[str, Any]
    fit: str
    device: str
    loading: Mapping[str, Any]


@dataclass(frozen=True)
class LabelSession:
    """A text-to-image model with the labels it is asked about.

    Attributes:
        name: Of the model.
        denoiser: The model.
        parser: Of the labels.
        settings: Of the inversion.
        k: Number of labels if the user gives it.
        composition: How predictions compose.
        fit: ``crop`` or ``squash``.
        run: Fingerprint of everything that decides about a result but the image.
        unknown: Labels that the model says it was not trained on.
    """

    name: str
    denoiser: TextToImageDenoiser
    parser: ConceptParser
    settings: InversionSettings
    k: int | None
    composition: Composition
    fit: str
    run: str
    unknown: tuple[str, ...]

    def understand(self, path: Path, progress: Progress | None = None) -> dict[str, Any]:
        """The record of an image.

        Args:
            path: Of the image.
            progress: Told of U-Net calls.

        Raises:
            InputError: If the image cannot be read.
        """
        import torch

        from igm_cli.core.inference.labels import calls_a_draw, invert_labels
        from igm_cli.core.inference.views import encoded_views
        from igm_cli.imaging import read_image, to_model
        from igm_cli.plugins.base import Frame

        image = read_image(path)
        width, height = self.denoiser.image_size
        frame = Frame.fit(image.size, width / height, self.fit)
        started = time.monotonic()
        if progress:
            progress(0, calls_a_draw(self.denoiser.space, self.composition) * self.settings.max_draws)
        with torch.no_grad():
            seen = to_model(image, frame, (width, height))
            latents = encoded_views(self.denoiser.encode, seen, self.settings.views)
            denoiser = cast("Denoiser", self.denoiser)  # the protocol lets a space be replaced
            found = invert_labels(denoiser, latents, self.settings, self.k, self.composition, progress=progress)
        found = replace(found, seconds=time.monotonic() - started)
        return self._record(Understood(path, image, frame, found))

    def _record(self, understood: Understood) -> dict[str, Any]:
        found = understood.inversion
        assert found.marginals is not None  # labels have them
        shared = result_line(
            SCHEMA,
            understood,
            model=self.name,
            concepts=self.parser.name,
            cost=self.settings.cost,
            device=str(self.denoiser.device),
            run=self.run,
        )
        items = self.parser.decode(found.concepts, understood.frame)
        sure = [round(p, 4) for p in found.confidence.tolist()]
        order = found.marginals.argsort(descending=True, stable=True).tolist()
        labels, probable = self.denoiser.space.labels, found.marginals.tolist()
        return {
            **shared,
            "draws": found.draws,
            "items": [{**item, "confidence": p} for item, p in zip(items, sure, strict=True)],
            "labels": [{"label": labels[i], "probability": round(probable[i], 4)} for i in order],
        }


def open_label_session(asked: Asked) -> LabelSession:
    """Finds and loads the model, and settles labels and settings; what is cheap to refuse is refused first.

    Raises:
        IgmError: With the way out, whatever does not fit.
    """
    name, source = resolve_pipeline(asked.model)

    from igm_cli.core.concepts import Text
    from igm_cli.core.device import keep_freed_memory, resolve_device
    from igm_cli.core.inference.labels import sizes_of
    from igm_cli.core.models.pipeline_files import find_pipeline, pipeline_fingerprint, quiet, read_description
    from igm_cli.core.models.pipelines import Loading, load_pipeline
    from igm_cli.core.models.text_to_image import TextToImageDenoiser
    from igm_cli.plugins import registry

    loading = Loading(**asked.loading)
    device = process_device(resolve_device(asked.device))
    path = find_pipeline(source, loading.variant)
    description = read_description(path)
    labels = asked.labels or _own_labels(name, description)
    parser = registry.configured(
        registry.concept_parser(LABELS), {"labels": labels, **_templates_of(asked, description)}
    )
    settings = _settings_of(asked, description)
    sizes_of(len(labels), asked.k, settings)
    if device.type == "cpu":
        keep_freed_memory()
    assert isinstance(parser.space, Text)  # the built-in parser
    denoiser = TextToImageDenoiser(load_pipeline(str(path), device, loading), parser.space)
    with quiet():
        _read_prompts(denoiser)
    identity = {
        "model": pipeline_fingerprint(path, loading.variant),
        "loading": _deciding(loading),
        "concepts": parser.name,
        "labels": labels,
        "templates": parser.space.templates,
        "settings": settings.to_dict(),
        "composition": description.composition,
        "k": asked.k,
        "fit": asked.fit,
    }
    return LabelSession(
        name=name,
        denoiser=denoiser,
        parser=parser,
        settings=settings,
        k=asked.k,
        composition=description.composition,
        fit=asked.fit,
        run=run_fingerprint(identity),
        unknown=_unknown(labels, description),
    )


def _own_labels(name: str, description: PipelineDescription) -> tuple[str, ...]:
    """The labels a model was trained on.

    Raises:
        UsageError: If it does not say.
    """
    if description.space is None:
        raise UsageError(f"the model {name!r} names no labels of its own; give --labels or --labels-file")
    return check_labels(description.space.labels, f"the igm.json of {name}", InputError)


def _unknown(labels: Sequence[str], description: PipelineDescription) -> tuple[str, ...]:
    """Labels that are none of those trained on; none where a model does not say which those are."""
    if description.space is None:
        return ()
    known = {plain(label) for label in description.space.labels}
    return tuple(label for label in labels if plain(label) not in known)


def _templates_of(asked: Asked, description: PipelineDescription) -> dict[str, Sequence[str]]:
    """An option of the parser, unless its own default is wanted."""
    own = description.space.templates if description.space else ()
    chosen = asked.templates or own
    return {"templates": chosen} if chosen else {}


def _settings_of(asked: Asked, description: PipelineDescription) -> InversionSettings:
    """The model's own settings under those of the command line."""
    from igm_cli.core.inference.inversion import InversionSettings

    own = InversionSettings.from_dict(description.inference)
    given = dict(asked.settings)
    given["draws"] = parse_draws(given.get("draws"), given.get("max_draws"), own.draws)
    return InversionSettings.from_dict(description.inference, **given)


def _read_prompts(denoiser: TextToImageDenoiser) -> None:
    """Encodes every prompt: one that is too long is refused before the first image."""
    space = denoiser.space
    denoiser.embed([prompt for label in range(space.dim) for prompt in space.prompts(label)])


def _deciding(loading: Loading) -> dict[str, Any]:
    """What of the loading changes a result: not where the parts are kept, nor how attention is computed."""
    names = ("variant", "dtype", "size", "config", "prediction")
    return {name: getattr(loading, name) for name in names}
