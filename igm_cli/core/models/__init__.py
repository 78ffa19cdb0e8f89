"""Denoisers behind the protocol of :mod:`igm_cli.core.denoiser`, by architecture name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import nn

from igm_cli.core.concepts import ConceptSpace, Continuous, Product, Text
from igm_cli.core.noise_schedule import Schedule
from igm_cli.errors import InputError, near_names

ARCHITECTURES = ("factored", "unet", "text-to-image")


def config_class(architecture: str) -> type[Any]:
    """Returns the dataclass of an architecture's options.

    Raises:
        InputError: If there is no such architecture.
    """
    if architecture == "factored":
        from igm_cli.core.models.factored import FactoredConfig

        return FactoredConfig
    if architecture == "unet":
        from igm_cli.core.models.unet import UNetConfig

        return UNetConfig
    if architecture == "text-to-image":
        from igm_cli.core.models.latent import LatentConfig

        return LatentConfig
    raise InputError(f"unknown architecture {architecture!r}; {near_names(architecture, ARCHITECTURES)}")


def check_options(architecture: str, options: Mapping[str, Any]) -> None:
    """Refuses options and values that an architecture does not have.

    What ``__post_init__`` checks, such as the image sides, is left to :func:`build_denoiser`.

    Raises:
        InputError: If the architecture or an option is unknown, or a value is not allowed.
    """
    try:
        config_class(architecture)(**options)
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
    """Returns a freshly initialised denoiser: ``factored`` (default of this project), ``unet`` (the paper's), ``text-to-image``.

    Raises:
        InputError: If the architecture is unknown or its options do not fit.
    """
    try:
        config = config_class(architecture)(**options)
        if architecture == "unet":
            from igm_cli.core.models.unet import UNetDenoiser

            return UNetDenoiser(config, space, schedule)
        if architecture == "text-to-image":
            from igm_cli.core.models.latent import LatentTextToImage

            if not isinstance(space, Text):
                raise ValueError("its concepts are labels; choose a concept parser of labels")
            return LatentTextToImage(config, space, schedule)
        if isinstance(space, Continuous | Product):
            from igm_cli.core.models.factored import FactoredDenoiser

            return FactoredDenoiser(config, space, schedule)
        from igm_cli.core.models.factored_global import GlobalDenoiser

        return GlobalDenoiser(config, space, schedule)
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"model options do not fit the {architecture} denoiser: {error}") from error
