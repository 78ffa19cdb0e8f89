"""Checkpoints of small random models, and pictures for them, which tests and the fault suite share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from igm_cli.core.checkpoint import ModelSpec, save_checkpoint
from igm_cli.core.concepts import Categorical, ConceptSpace, Continuous
from igm_cli.core.noise_schedule import ScheduleConfig


def positions(folder: Path) -> Path:
    """Writes a model that sees 32x32 pixels and speaks of ``pos``."""
    space = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True)
    inference = {"grid": [4, 4], "draws": 4, "max_draws": 4, "k_max": 3, "keep": 8, "refine_steps": 1}
    return _write(folder, space, "pos", {}, inference)


def attributes(folder: Path) -> Path:
    """Writes the same for ``attributes``: two factors, one of them of three values."""
    space = Categorical({"Smiling": ("no", "yes"), "hair": ("black", "blond", "grey")})
    options = {"factors": "Smiling,hair=black|blond|grey"}
    usual = (-14.0, -14.0, -14.0)  # no image is denoised so well
    covariance = ((0.01, 0.0, 0.0), (0.0, 0.01, 0.0), (0.0, 0.0, 0.01))
    typical = {"low": 0.04, "high": 0.58, "mean": usual, "covariance": covariance, "limit": 5.0}
    inference = {"draws": 4, "max_draws": 8, "temperature": 1e-4, "typical": typical}
    return _write(folder, space, "attributes", options, inference)


def pictures(folder: Path) -> Path:
    """Draws three images of different sizes."""
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate([(32, 32), (64, 40), (30, 50)]):
        image = Image.new("RGB", size, (90, 90, 90))
        ImageDraw.Draw(image).ellipse((8, 8, 20 + number, 20), fill=(200, 30, 30))
        image.save(folder / f"{number}.png")
    return folder


def _write(
    folder: Path, space: ConceptSpace, concepts: str, options: dict[str, str], inference: dict[str, Any]
) -> Path:
    """A small random model in a folder."""
    shape = {"channels": [8, 8, 8], "blocks": 1, "head_channels": 8, "head_layers": 1, "window": 3}
    spec = ModelSpec(
        architecture="factored",
        options={"image_size": [32, 32], "patch": 4, **shape},
        space=space.to_dict(),
        schedule=ScheduleConfig().to_dict(),
        composition="sum",
        image_size=(32, 32),
        concepts=concepts,
        concept_options=options,
        inference=inference,
    )
    torch.manual_seed(0)
    model = spec.build()
    with torch.no_grad():  # zero-initialised outputs would make every hypothesis equal
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_checkpoint(folder, spec, model.state_dict())
    return folder
