"""Denoisers behind the protocol of :mod:`igm_cli.core.denoiser`, by architecture name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import nn

from igm_cli.core.concepts import ConceptSpace, Continuous, Product, Text
from igm_cli.core.noise_schedule import Schedule
from igm_cli.errors import InputError

ARCHITECTURES = ("factored", "unet", "text-to-image")


def check_options(architecture: str, options: Mapping[str, Any]) -> None:
    """Refuses options of an architecture that can be none, but for what depends on the size of images.

    Raises:
        InputError: If there is no such architecture or option, or a value is none of it.
    """
    try:
        if architecture == "factored":
            from igm_cli.core.models.factored import FactoredConfig

            FactoredConfig(**options)
        elif architecture == "unet":
            from igm_cli.core.models.unet import UNetConfig

            UNetConfig(**options)
        elif architecture == "text-to-image":
            from igm_cli.core.models.latent import LatentConfig

            LatentConfig(**options)
        else:
            raise InputError(f"unknown architecture {architecture!r}; choose {' or '.join(ARCHITECTURES)}")
    except InputError as error:
        of_sides = (
            isinstance(error.__cause__, ValidationError)
            and error.__cause__.errors()[0]["type"] == "value_error"
        )
        if not of_sides:
            raise


def build_denoiser(
    architecture: str, options: Mapping[str, Any], space: ConceptSpace, schedule: Schedule
) -> nn.Module:
    """A freshly initialised denoiser.

    Args:
        architecture: ``factored`` (default of this project), ``unet`` (the paper's), or ``text-to-image`` (latent).
        options: Fields of its configuration.
        space: Concept space it is conditioned on.
        schedule: Noise schedule.

    Raises:
        InputError: If the architecture is unknown or its options do not fit.
    """
    try:
        if architecture == "factored":
            from igm_cli.core.models.factored import FactoredConfig, FactoredDenoiser

            if isinstance(space, Continuous | Product):
                return FactoredDenoiser(FactoredConfig(**options), space, schedule)
            from igm_cli.core.models.factored_global import GlobalDenoiser

            return GlobalDenoiser(FactoredConfig(**options), space, schedule)
        if architecture == "unet":
            from igm_cli.core.models.unet import UNetConfig, UNetDenoiser

            return UNetDenoiser(UNetConfig(**options), space, schedule)
        if architecture == "text-to-image":
            from igm_cli.core.models.latent import LatentConfig, LatentTextToImage

            if not isinstance(space, Text):
                raise ValueError("its concepts are labels; choose a concept parser of labels")
            return LatentTextToImage(LatentConfig(**options), space, schedule)
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"model options do not fit the {architecture} denoiser: {error}") from error
    raise InputError(f"unknown architecture {architecture!r}; choose {' or '.join(ARCHITECTURES)}")
