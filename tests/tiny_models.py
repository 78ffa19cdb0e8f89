"""Checkpoints of small random models, and pictures for them, which tests and the fault suite share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from igm_cli.core.checkpoint import ModelSpec, save_checkpoint
from igm_cli.core.concepts import Categorical, ConceptSpace, Continuous
from igm_cli.core.noise_schedule import ScheduleConfig

PLACES = {"grid": [4, 4], "draws": 4, "max_draws": 4, "k_max": 3, "keep": 8, "refine_steps": 1}
"""How models of positions are inverted."""


def positions(folder: Path, temperature: float = 0.0) -> Path:
    """Writes a model that sees 32x32 pixels and speaks of ``pos``; at a temperature of 0 it is not calibrated."""
    space = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True)
    inference = {**PLACES, "temperature": temperature}
    return write(folder, spec_of("pos", space, inference, shape={"window": 3}))


def attributes(folder: Path) -> Path:
    """Writes the same for ``attributes``: two factors, one of them of three values."""
    space = Categorical({"Smiling": ("no", "yes"), "hair": ("black", "blond", "grey")})
    options = {"factors": "Smiling,hair=black|blond|grey"}
    usual = (-14.0, -14.0, -14.0)  # no image is denoised so well
    covariance = ((0.01, 0.0, 0.0), (0.0, 0.01, 0.0), (0.0, 0.0, 0.01))
    typical = {"low": 0.04, "high": 0.58, "mean": usual, "covariance": covariance, "limit": 5.0}
    inference = {"draws": 4, "max_draws": 8, "temperature": 1e-4, "typical": typical}
    return write(folder, spec_of("attributes", space, inference, shape={"window": 3}, concept_options=options))


def pictures(folder: Path) -> Path:
    """Draws three images of different sizes."""
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate([(32, 32), (64, 40), (30, 50)]):
        image = Image.new("RGB", size, (90, 90, 90))
        ImageDraw.Draw(image).ellipse((8, 8, 20 + number, 20), fill=(200, 30, 30))
        image.save(folder / f"{number}.png")
    return folder


def spec_of(
    concepts: str,
    space: ConceptSpace,
    inference: dict[str, Any],
    image_size: tuple[int, int] = (32, 32),
    shape: dict[str, Any] | None = None,
    **more: Any,
) -> ModelSpec:
    """Describes a small model; ``shape`` adds to the options of its network, ``more`` to the description."""
    small = {"channels": [8, 8, 8], "blocks": 1, "head_channels": 8, "head_layers": 1, "patch": 4}
    return ModelSpec(
        architecture="factored",
        options={"image_size": list(image_size), **small, **(shape or {})},
        space=space.to_dict(),
        composition="sum",
        image_size=image_size,
        concepts=concepts,
        inference=inference,
        **{"schedule": ScheduleConfig().to_dict(), **more},
    )


def write(folder: Path, spec: ModelSpec) -> Path:
    """Writes a random model."""
    torch.manual_seed(0)
    model = spec.build()
    with torch.no_grad():  # zero-initialised outputs would make every hypothesis equal
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_checkpoint(folder, spec, model.state_dict())
    return folder
