"""Denoisers behind the protocol of :mod:`igm_cli.core.denoiser`, by architecture name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from pydantic import ValidationError
from torch import nn

from igm_cli.core.concepts import ConceptSpace, Continuous, Product
from igm_cli.core.noise_schedule import Schedule
from igm_cli.errors import InputError, near_names

Architecture: TypeAlias = tuple[type[Any], Callable[[Any, Any, Schedule], nn.Module]]
"""The dataclass of an architecture's options, and what builds its denoiser from options, space and schedule."""

TEXT_TO_IMAGE = "text-to-image"
"""The architecture whose folder is a pipeline of diffusers."""


def _factored() -> Architecture:
    from igm_cli.core.models.factored import FactoredConfig, FactoredDenoiser

    def build(config: FactoredConfig, space: ConceptSpace, schedule: Schedule) -> nn.Module:
        if isinstance(space, Continuous | Product):
            return FactoredDenoiser(config, space, schedule)
        from igm_cli.core.models.factored_global import GlobalDenoiser

        return GlobalDenoiser(config, space, schedule)

    return FactoredConfig, build


def _unet() -> Architecture:
    from igm_cli.core.models.unet import UNetConfig, UNetDenoiser

    return UNetConfig, UNetDenoiser


def _text_to_image() -> Architecture:
    from igm_cli.core.models.latent import LatentConfig, LatentTextToImage

    return LatentConfig, LatentTextToImage


ARCHITECTURES: Mapping[str, Callable[[], Architecture]] = {
    "factored": _factored, "unet": _unet, TEXT_TO_IMAGE: _text_to_image,
}  # fmt: skip
"""What imports each architecture: ours, the paper's, and that of latents."""


def architecture(name: str) -> Architecture:
    """Returns the dataclass of an architecture's options, and what builds its denoiser.

    Raises:
        InputError: If there is no such architecture.
    """
    if name not in ARCHITECTURES:
        raise InputError(f"unknown architecture {name!r}; {near_names(name, list(ARCHITECTURES))}")
    return ARCHITECTURES[name]()


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuses options and values that an architecture does not have.

    What ``__post_init__`` checks, such as the image sides, is left to :func:`build_denoiser`.

    Raises:
        InputError: If the architecture or an option is unknown, or a value is not allowed.
    """
    try:
        architecture(name)[0](**options)
    except InputError as error:
        of_sides = (
            isinstance(error.__cause__, ValidationError)
            and error.__cause__.errors()[0]["type"] == "value_error"
        )
        if not of_sides:
            raise


def build_denoiser(name: str, options: Mapping[str, Any], space: ConceptSpace, schedule: Schedule) -> nn.Module:
    """Returns a freshly initialised denoiser of an architecture.

    Raises:
        InputError: If the architecture is unknown or its options do not fit.
    """
    try:
        config, build = architecture(name)
        return build(config(**options), space, schedule)
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"model options do not fit the {name} denoiser: {error}") from error
