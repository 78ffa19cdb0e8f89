"""What ``invert`` and ``estimate-k`` share: a model made ready, and one image understood."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.commands.models import refuse_pipeline, resolve_model
from igm_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from igm_cli.core.checkpoint import Checkpoint, ModelSpec
    from igm_cli.core.inference.inversion import Inversion, InversionSettings
    from igm_cli.plugins.base import ConceptParser, Frame


@dataclass(frozen=True)
class Understood:
    """One image and what was found in it.

    Attributes:
        path: Of the image.
        image: As given, RGB.
        frame: The part of it that the model saw.
        inversion: The engine's answer.
    """

    path: Path
    image: Image
    frame: Frame
    inversion: Inversion


@dataclass(frozen=True)
class Session:
    """A model with its parser and settings.

    Attributes:
        checkpoint: The loaded model.
        parser: Of its concepts.
        settings: Of the inversion.
        k: Number of concepts if the user gives it.
        fit: ``crop`` or ``squash``.
        device: Where it computes.
        run: Fingerprint of everything that decides about a result but the image.
    """

    checkpoint: Checkpoint
    parser: ConceptParser
    settings: InversionSettings
    k: int | None
    fit: str
    device: torch.device
    run: str

    def invert(self, path: Path) -> Understood:
        """Reads an image and inverts the model on it."""
        from igm_cli.core.inference.inversion import invert
        from igm_cli.imaging import read_image, to_model
        from igm_cli.plugins.base import Frame

        image = read_image(path)
        width, height = self.checkpoint.image_size
        frame = Frame.fit(image.size, width / height, self.fit)
        x0 = to_model(image, frame, (width, height)).to(self.device)
        found = invert(
            self.checkpoint.denoiser, x0, self.settings, k=self.k, composition=self.checkpoint.composition
        )
        return Understood(path, image, frame, found)

    def require_counting(self) -> None:
        """Raises a :class:`UsageError` if the model has as many concepts as factors, whatever the image."""
        if self.checkpoint.spec.space.get("kind") == "categorical":
            raise UsageError(
                f"the model {self.checkpoint.name!r} finds one value of every factor, so there is nothing to count; "
                "use igm invert, or a model of positions"
            )

    def items(self, understood: Understood) -> list[dict[str, Any]]:
        """What was found, on the image as given, each with its confidence (None if the method has none)."""
        decoded = self.parser.decode(understood.inversion.concepts, understood.frame)
        confidence = understood.inversion.confidence.tolist()
        return [
            {**_rounded(item), "confidence": None if math.isnan(sure) else round(sure, 4)}
            for item, sure in zip(decoded, confidence, strict=True)
        ]

    def familiarity(self, understood: Understood) -> dict[str, float]:
        """How much the image is like those trained on, as a field of the record; none if not calibrated."""
        known = understood.inversion.familiarity
        return {} if math.isnan(known) else {"familiarity": round(known, 4)}

    def record(self, schema: str, understood: Understood) -> dict[str, Any]:
        """The part of a JSON line that both commands write."""
        return result_line(
            schema,
            understood,
            model=self.checkpoint.name,
            concepts=self.parser.name,
            cost=self.settings.cost,
            device=str(self.device),
            run=self.run,
        )


def result_line(
    schema: str, understood: Understood, *, model: str, concepts: str, cost: float, device: str, run: str
) -> dict[str, Any]:
    """What the lines of all commands about images have in common.

    Args:
        schema: Of the line.
        understood: The image and what was found in it.
        model: Name of the model.
        concepts: Name of the concept parser.
        cost: Fall of the error that justifies one more concept.
        device: Where it was computed.
        run: Fingerprint of the configuration.
    """
    found = understood.inversion
    return {
        "schema": schema,
        "image": str(understood.path),
        "size": list(understood.image.size),
        "model": model,
        "concepts": concepts,
        "k": found.k,
        "k_source": found.k_source,
        "denoising_error": float(found.denoising_error),
        "k_penalty": cost,
        "k_curve": [
            {"k": point.k, "error": float(point.error), "stderr": float(point.stderr)}
            for point in found.k_curve
        ],
        "network_calls": found.network_calls,
        "seconds": round(found.seconds, 4),
        "device": device,
        "run": run,
    }


def open_session(
    *,
    model: str | None,
    concepts: str | None,
    device: str,
    fit: str,
    k: int | None,
    overrides: Mapping[str, Any],
) -> Session:
    """Resolves names, loads the model and settles the configuration.

    Args:
        model: As ``--model`` has it.
        concepts: As ``--concepts`` has it.
        device: As ``--device`` has it.
        fit: ``crop`` or ``squash``.
        k: As ``--k`` has it.
        overrides: Inversion settings of the command line; None for those not given.

    Raises:
        IgmError: With the way out, whatever does not fit.
    """
    from igm_cli.plugins import registry

    parser = registry.concept_parser(concepts, typed=True) if concepts else None
    folder = resolve_model(model, parser.name if parser else None)
    refuse_pipeline(folder)

    from igm_cli.core.checkpoint import load_checkpoint, model_fingerprint, read_spec
    from igm_cli.core.device import keep_freed_memory, resolve_device
    from igm_cli.core.inference.inversion import check_method

    spec = read_spec(folder)
    parser = _parser_of(spec, folder, parser)
    _check_count(spec, folder, k, overrides)
    settings = _settings_of(spec, overrides)
    check_method(parser.space, settings.method)
    target = process_device(resolve_device(device))
    if target.type == "cpu":
        keep_freed_memory()
    checkpoint = load_checkpoint(folder, target)
    identity = {
        "model": model_fingerprint(folder),
        "concepts": parser.name,
        "settings": settings.to_dict(),
        "k": k,
        "fit": fit,
    }
    return Session(checkpoint, parser, settings, k, fit, target, run_fingerprint(identity))


def run_fingerprint(identity: Mapping[str, Any]) -> str:
    """Of everything that decides about a result but the image."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _parser_of(spec: ModelSpec, folder: Path, asked: ConceptParser | None) -> ConceptParser:
    """The parser of a model's concepts, which must be the one asked for, and of the space trained on."""
    from igm_cli.core.concepts import space_to_dict
    from igm_cli.plugins import registry

    if asked and asked.name != spec.concepts:
        raise InputError(
            f"the model {folder.name!r} speaks of {spec.concepts!r}, not of {asked.name!r}; "
            f"use --concepts {spec.concepts} or another --model"
        )
    parser = registry.configured(asked or registry.concept_parser(spec.concepts), spec.concept_options)
    if json.dumps(space_to_dict(parser.space)) != json.dumps(dict(spec.space)):
        raise InputError(
            f"the model {folder.name!r} was trained on another concept space than {parser.name!r} has now; "
            "train it again, or install the version of the plugin it was trained with"
        )
    return parser


def _settings_of(spec: ModelSpec, overrides: Mapping[str, Any]) -> InversionSettings:
    """The model's own settings under those of the command line."""
    from igm_cli.core.inference.inversion import InversionSettings

    given = dict(overrides)
    if (given.get("method") or spec.inference.get("method")) == "relax":
        given["relax_steps"] = given.pop("steps", None)
    settings = InversionSettings.from_dict(spec.inference, **given)
    for name, owners in (("restarts", "sgd"), ("steps", "sgd or relax")):
        if settings.method != "sgd" and given.get(name) is not None:
            raise UsageError(f"--{name} belongs to --method {owners}; add that or leave it out")
    return settings


def _check_count(spec: ModelSpec, folder: Path, k: int | None, overrides: Mapping[str, Any]) -> None:
    """Refuses a count where there is nothing to count: a model of factors finds one value of each.

    Raises:
        UsageError: If one is asked for.
    """
    if spec.space.get("kind") != "categorical":
        return
    factors = len(spec.space.get("factors", {}))
    asked = [f"--{name.replace('_', '-')}" for name in ("k_min", "k_max") if overrides.get(name) is not None]
    if k not in (None, factors) or asked:
        option = asked[0] if asked else f"--k {k}"
        raise UsageError(
            f"the model {folder.name!r} has {factors} factors and finds a value of each; leave out {option}"
        )


def process_device(device: torch.device) -> torch.device:
    """With several processes on several GPUs, each takes its own."""
    import os

    import torch

    local = os.environ.get("LOCAL_RANK", "")
    if str(device) == "cuda" and local.isdigit():
        return torch.device("cuda", int(local) % torch.cuda.device_count())
    return device


def _rounded(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in item.items()}


def check_k_range(k: int | None, k_min: int | None, k_max: int | None) -> None:
    """Refuses contradictory counts before anything is loaded.

    Raises:
        UsageError: If they contradict each other.
    """
    if k_min is not None and k_max is not None and k_min > k_max:
        raise UsageError(f"--k-min {k_min} is above --k-max {k_max}; lower one or raise the other")
    if k is not None and (k_min is not None or k_max is not None):
        raise UsageError("--k gives the number of concepts, so leave out --k-max")
