"""What igm knows of a text-to-image pipeline besides its parts: its igm.json, where it has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Text, space_from_dict
from igm_cli.core.models.pipeline_files import read_json
from igm_cli.errors import InputError

PUBLISHED: Mapping[str, Any] = MappingProxyType(
    {
        "draws": 32,
        "max_draws": 128,
        "low": 0.0,
        "high": 1.0,
        "power": 0.0,
        "penalty": 0.0,
        "k_min": 1,
        "k_max": 3,
    }
)
"""Inference where nothing is tuned: all timesteps alike, as Diffusion Classifier has it (Li et al. 2023)."""


@dataclass(frozen=True)
class PipelineDescription:
    """What a pipeline says of itself.

    Attributes:
        space: Labels and templates it was trained on; None if it does not say.
        composition: How its predictions compose; the mean is what the paper does with pretrained models.
        inference: Inversion settings: the published ones under those tuned to its weights.
    """

    space: Text | None = None
    composition: Composition = "mean"
    inference: Mapping[str, Any] = field(default_factory=lambda: dict(PUBLISHED))


def read_description(folder: Path) -> PipelineDescription:
    """The description of a pipeline folder; of a file, or of a folder without igm.json, the defaults.

    Raises:
        InputError: If igm.json cannot be understood.
    """
    path = folder / "igm.json"
    if not path.is_file():
        return PipelineDescription()
    data = read_json(path)
    try:
        space, composition = space_from_dict(data["space"]), data.get("composition", "mean")
        if not isinstance(space, Text) or composition not in ("sum", "mean"):
            raise ValueError("its concepts are no labels")
        return PipelineDescription(space, composition, {**PUBLISHED, **data.get("inference", {})})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} does not describe a text-to-image pipeline: {error}") from error
